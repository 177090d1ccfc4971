"""Files of imports get a submission when their bytes come: nobody uploaded them, and their import is named.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATES = ("rules_state", "tufrepo_state")


def upgrade() -> None:
    """A column, one that may be empty, an index; and keys that PostgreSQL orders by their bytes, as SQLite does."""
    with op.batch_alter_table("submission") as table:
        table.add_column(sa.Column("import_index", sa.BigInteger(), nullable=True))
        table.alter_column("uploader", existing_type=sa.String(length=32), nullable=True)
        table.create_index("ix_submission_state_import_index_id", ["state", "import_index", "id"])
    _collate("C")


def downgrade() -> None:
    """Imported files lose their bytes' rows: they stay recorded, and are brought again after the next upgrade."""
    submission = sa.table("submission", sa.column("id"), sa.column("import_index"))
    imported = sa.select(submission.c.id).where(submission.c.import_index.is_not(None))
    verdict = sa.table("verdict", sa.column("submission_id"))
    op.execute(sa.delete(verdict).where(verdict.c.submission_id.in_(imported)))
    op.execute(sa.delete(submission).where(submission.c.import_index.is_not(None)))
    with op.batch_alter_table("submission") as table:
        table.drop_index("ix_submission_state_import_index_id")
        table.alter_column("uploader", existing_type=sa.String(length=32), nullable=False)
        table.drop_column("import_index")
    _collate("default")


def _collate(name: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in STATES:
            op.execute(f'ALTER TABLE {table} ALTER COLUMN key TYPE text COLLATE "{name}"')
