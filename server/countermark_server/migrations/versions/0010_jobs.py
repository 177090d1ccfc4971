"""Tokens for CI jobs: which job an upload token was made for, and which of the jobs' own tokens were used.

Revision ID: 0010
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column and a table; nothing else changes."""
    with op.batch_alter_table("token") as table:
        table.add_column(sa.Column("identity", sa.Text(), nullable=True))
    op.create_table(
        "job_token",
        sa.Column("use_sha256", sa.String(length=64), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("use_sha256", name=op.f("pk_job_token")),
    )


def downgrade() -> None:
    """Tokens of jobs end with it: without their job they would be their account's."""
    op.execute("DELETE FROM token WHERE kind = 'job'")
    op.drop_table("job_token")
    with op.batch_alter_table("token") as table:
        table.drop_column("identity")
