"""A registry that is being frozen: since when its doors are closed, and which TUF publish is its last.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A new table; nothing else changes."""
    op.create_table(
        "closing",
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("last_candidate", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_closing")),
    )


def downgrade() -> None:
    """A freeze that has not come to its end is forgotten; one that has stands in the log."""
    op.drop_table("closing")
