"""Tokens with names, scopes and last use; service accounts.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Tokens from before get an id and stay what they were: unscoped."""
    with op.batch_alter_table("account") as table:
        table.add_column(sa.Column("owner", sa.String(length=32), nullable=True))
        table.add_column(sa.Column("expires", sa.BigInteger(), nullable=True))
        table.create_foreign_key(op.f("fk_account_owner"), "account", ["owner"], ["id"])
    with op.batch_alter_table("token") as table:
        table.add_column(sa.Column("id", sa.String(length=16), nullable=True))
        table.add_column(sa.Column("name", sa.String(length=64), nullable=True))
        table.add_column(sa.Column("projects", sa.Text(), nullable=True))
        table.add_column(sa.Column("actions", sa.Text(), nullable=True))
    op.execute("UPDATE token SET id = substr(secret_sha256, 1, 16)")
    with op.batch_alter_table("token") as table:
        table.alter_column("id", existing_type=sa.String(length=16), nullable=False)
        table.create_unique_constraint(op.f("uq_token_id"), ["id"])
    op.create_table(
        "token_use",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("last_used", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["token.id"], name=op.f("fk_token_use_token_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_token_use")),
    )


def downgrade() -> None:
    """Scoped tokens would become unscoped ones: they are revoked. Service accounts become people without a login."""
    op.drop_table("token_use")
    op.execute("UPDATE token SET revoked = created WHERE projects IS NOT NULL OR actions IS NOT NULL")
    with op.batch_alter_table("token") as table:
        table.drop_constraint(op.f("uq_token_id"), type_="unique")
        for name in ("actions", "projects", "name", "id"):
            table.drop_column(name)
    with op.batch_alter_table("account") as table:
        table.drop_constraint(op.f("fk_account_owner"), type_="foreignkey")
        table.drop_column("expires")
        table.drop_column("owner")
