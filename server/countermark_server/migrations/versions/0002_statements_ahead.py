"""Statements that come ahead of their file: signed publish statements waiting for an upload of their bytes.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A new table; nothing else changes."""
    op.create_table(
        "statement_ahead",
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_statement_ahead_account_id")),
        sa.PrimaryKeyConstraint(
            "namespace", "project", "filename", "sha256", name=op.f("pk_statement_ahead")
        ),
    )
    op.create_index("ix_statement_ahead_account_id", "statement_ahead", ["account_id"], unique=False)
    op.create_index("ix_statement_ahead_expires", "statement_ahead", ["expires"], unique=False)


def downgrade() -> None:
    """Statements that still wait are lost: their files are signed again."""
    op.drop_index("ix_statement_ahead_expires", table_name="statement_ahead")
    op.drop_index("ix_statement_ahead_account_id", table_name="statement_ahead")
    op.drop_table("statement_ahead")
