"""Proposals say whether a door has verified their signatures.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What was proposed before is verified when it is sequenced."""
    op.add_column("proposal", sa.Column("verified", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """All proposals are verified when they are sequenced."""
    op.drop_column("proposal", "verified")
