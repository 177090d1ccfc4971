"""Organisations, teams, what they may do where; roles in the registry, and sessions of browsers.

Revision ID: 0012
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

_ADDED = (
    "registry_role",
    "identity_group",
    "organisation",
    "organisation_member",
    "team",
    "team_member",
    "team_group",
    "team_role",
    "name_grant",
    "seat",
    "browser_session",
)


def upgrade() -> None:
    """Eleven tables; nothing else changes."""
    _people()
    _teams()
    _names()


def _account(table: str, *, cascade: bool = True) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["account_id"],
        ["account.id"],
        name=op.f(f"fk_{table}_account_id"),
        ondelete="CASCADE" if cascade else None,
    )


def _organisation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["organisation"], ["organisation.name"], name=op.f(f"fk_{table}_organisation"), ondelete="CASCADE"
    )


def _team(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["organisation", "team"],
        ["team.organisation", "team.name"],
        name=op.f(f"fk_{table}_organisation_team"),
        ondelete="CASCADE",
    )


def _column(name: str, length: int = 64) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _people() -> None:
    op.create_table(
        "registry_role",
        _column("account_id", 32),
        _column("role", 16),
        _column("source", 16),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        _account("registry_role"),
        sa.PrimaryKeyConstraint("account_id", "role", "source", name=op.f("pk_registry_role")),
    )
    op.create_table(
        "identity_group",
        _column("account_id", 32),
        _column("name", 255),
        _account("identity_group"),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_identity_group")),
    )
    op.create_table(
        "browser_session",
        _column("secret_sha256"),
        _column("account_id", 32),
        sa.Column("signed_in", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        _account("browser_session"),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_browser_session")),
    )
    op.create_index("ix_browser_session_account_id", "browser_session", ["account_id"])
    op.create_index("ix_browser_session_expires", "browser_session", ["expires"])


def _teams() -> None:
    op.create_table(
        "organisation",
        _column("name"),
        _column("account_id", 32),
        sa.Column("created", sa.BigInteger(), nullable=False),
        _account("organisation", cascade=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_organisation")),
        sa.UniqueConstraint("account_id", name=op.f("uq_organisation_account_id")),
    )
    op.create_table(
        "organisation_member",
        _column("organisation"),
        _column("account_id", 32),
        _column("role", 16),
        _organisation("organisation_member"),
        _account("organisation_member"),
        sa.PrimaryKeyConstraint("organisation", "account_id", name=op.f("pk_organisation_member")),
    )
    op.create_index("ix_organisation_member_account_id", "organisation_member", ["account_id"])
    op.create_table(
        "team",
        _column("organisation"),
        _column("name"),
        _organisation("team"),
        sa.PrimaryKeyConstraint("organisation", "name", name=op.f("pk_team")),
    )
    op.create_table(
        "team_member",
        _column("organisation"),
        _column("team"),
        _column("account_id", 32),
        _account("team_member"),
        _team("team_member"),
        sa.PrimaryKeyConstraint("organisation", "team", "account_id", name=op.f("pk_team_member")),
    )
    op.create_index("ix_team_member_account_id", "team_member", ["account_id"])
    op.create_table(
        "team_group",
        _column("organisation"),
        _column("team"),
        _column("name", 255),
        _team("team_group"),
        sa.PrimaryKeyConstraint("organisation", "team", "name", name=op.f("pk_team_group")),
    )
    op.create_index("ix_team_group_name", "team_group", ["name"])
    op.create_table(
        "team_role",
        _column("organisation"),
        _column("team"),
        _column("pattern", 255),
        _column("role", 16),
        _team("team_role"),
        sa.PrimaryKeyConstraint("organisation", "team", "pattern", name=op.f("pk_team_role")),
    )


def _names() -> None:
    op.create_table(
        "name_grant",
        _column("pattern", 255),
        _column("shape", 255),
        _column("organisation"),
        _organisation("name_grant"),
        sa.PrimaryKeyConstraint("pattern", name=op.f("pk_name_grant")),
    )
    op.create_index("ix_name_grant_shape", "name_grant", ["shape"])
    op.create_table(
        "seat",
        _column("namespace", 255),
        _column("project", 255),
        _column("account_id", 32),
        _column("organisation"),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        _account("seat"),
        _organisation("seat"),
        sa.PrimaryKeyConstraint("namespace", "project", "account_id", name=op.f("pk_seat")),
    )
    op.create_index("ix_seat_organisation", "seat", ["organisation"])


def downgrade() -> None:
    """Organisations, teams and grants are forgotten; what the log says of owners stays."""
    for table in reversed(_ADDED):
        op.drop_table(table)
