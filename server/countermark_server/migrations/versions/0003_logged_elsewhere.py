"""Where the files of namespaces are logged, by their hash: other registries serve them, no submission names them.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FILES, OF_THE_DEFAULT = '["file",%', '["file","",%'
ROWS = 1000  # written at a time


def upgrade() -> None:
    """A new table, with a row for every file that the rules' state knows in a namespace."""
    table = op.create_table(
        "logged_elsewhere",
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "project", "filename", name=op.f("pk_logged_elsewhere")),
    )
    op.create_index(
        "ix_logged_elsewhere_sha256_leaf_index", "logged_elsewhere", ["sha256", "leaf_index"], unique=False
    )
    connection = op.get_bind()
    state = sa.table("rules_state", sa.column("key", sa.Text), sa.column("value", sa.Text))
    known = (
        sa.select(state)
        .where(state.c.key.like(FILES), state.c.key.not_like(OF_THE_DEFAULT))
        .order_by(state.c.key)
    )
    rows = []
    for key, value in connection.execute(known).all():
        _, namespace, project, filename = json.loads(key)
        file = json.loads(value)
        row = {"namespace": namespace, "project": project, "filename": filename}
        rows.append({**row, "sha256": file["sha256"], "leaf_index": file["index"]})
    for start in range(0, len(rows), ROWS):
        connection.execute(sa.insert(table), rows[start : start + ROWS])


def downgrade() -> None:
    """Nothing is lost: the log and the rules' state have it all."""
    op.drop_index("ix_logged_elsewhere_sha256_leaf_index", table_name="logged_elsewhere")
    op.drop_table("logged_elsewhere")
