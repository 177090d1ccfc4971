"""Serials of projects' pages, by which mirrors know what changed.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ROWS = 1000  # written at a time


def upgrade() -> None:
    """Two tables; projects with a listed file are numbered by name, below all that will be drawn."""
    counter = op.create_table(
        "index_counter",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_index_counter")),
    )
    serial = op.create_table(
        "index_serial",
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_index_serial")),
    )
    op.create_index("ix_index_serial_serial", "index_serial", ["serial"])
    connection = op.get_bind()
    known = sa.table("submission", sa.column("namespace"), sa.column("project"), sa.column("state"))
    query = sa.select(known.c.project).where(known.c.namespace == "", known.c.state == "listed").distinct()
    names = connection.execute(query.order_by(known.c.project)).scalars().all()
    rows = [{"project": name, "serial": number} for number, name in enumerate(names, 1)]
    for start in range(0, len(rows), ROWS):
        connection.execute(sa.insert(serial), rows[start : start + ROWS])
    connection.execute(sa.insert(counter), [{"name": "", "value": len(rows)}])


def downgrade() -> None:
    """Nothing is lost but the order in which pages changed."""
    op.drop_index("ix_index_serial_serial", table_name="index_serial")
    op.drop_table("index_serial")
    op.drop_table("index_counter")
