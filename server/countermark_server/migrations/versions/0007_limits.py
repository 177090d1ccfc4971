"""What accounts and projects have spent of their allowances, and names by what they are confused with.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from countermark_server.ruleview import skeleton

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PROJECTS = '["project","",%'
ROWS = 1000  # written at a time


def upgrade() -> None:
    """Two tables: one empty, one with a row for every project of the default namespace in the rules' state."""
    op.create_table(
        "spending",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("projects", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "shard", name=op.f("pk_spending")),
    )
    table = op.create_table(
        "project_name",
        sa.Column("skeleton", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("skeleton", "project", name=op.f("pk_project_name")),
    )
    connection = op.get_bind()
    state = sa.table("rules_state", sa.column("key", sa.Text))
    keys = connection.execute(sa.select(state.c.key).where(state.c.key.like(PROJECTS))).scalars().all()
    names = [json.loads(key)[2] for key in keys]
    rows = [{"skeleton": skeleton(name), "project": name} for name in names]
    for start in range(0, len(rows), ROWS):
        connection.execute(sa.insert(table), rows[start : start + ROWS])


def downgrade() -> None:
    """Allowances begin anew after the next upgrade; names are in the rules' state."""
    op.drop_table("project_name")
    op.drop_table("spending")
