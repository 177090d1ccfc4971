"""Tables of organisations, and of people's sessions in a browser: what accounts/organisations.py and web read.

None of it is in the log, and nothing a verifier believes depends on it. An organisation is an account too, as which
nobody signs in: as that account it stands in the log among a project's owners. In the metadata of tables.py; only a
backup holds these rows.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Index, String, Table

from countermark_server.tables import metadata

_ACCOUNT, _ORGANISATION = "account.id", "organisation.name"

registry_role = Table(
    "registry_role",
    metadata,
    # What an account may do in this registry, granted by its operator or by a group of the provider.
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), primary_key=True),
    Column("role", String(16), primary_key=True),  # admin | moderator
    Column("source", String(16), primary_key=True),  # operator | group
    Column("granted", BigInteger, nullable=False),
)
identity_group = Table(
    "identity_group",
    metadata,
    # The groups in which the provider last said somebody is.
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), primary_key=True),
    Column("name", String(255), primary_key=True),
)
organisation = Table(
    "organisation",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("account_id", ForeignKey(_ACCOUNT), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
)
organisation_member = Table(
    "organisation_member",
    metadata,
    Column("organisation", ForeignKey(_ORGANISATION, ondelete="CASCADE"), primary_key=True),
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), primary_key=True),
    Column("role", String(16), nullable=False),  # owner | member
    Index("ix_organisation_member_account_id", "account_id"),
)
team = Table(
    "team",
    metadata,
    Column("organisation", ForeignKey(_ORGANISATION, ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
)


def _of_team() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organisation", "team"], ["team.organisation", "team.name"], ondelete="CASCADE"
    )


team_member = Table(
    "team_member",
    metadata,
    Column("organisation", String(64), primary_key=True),
    Column("team", String(64), primary_key=True),
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), primary_key=True),
    _of_team(),
    Index("ix_team_member_account_id", "account_id"),
)
team_group = Table(
    "team_group",
    metadata,
    # Whom the provider counts to the group belongs to the team, for as long as it does.
    Column("organisation", String(64), primary_key=True),
    Column("team", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    _of_team(),
    Index("ix_team_group_name", "name"),
)
team_role = Table(
    "team_role",
    metadata,
    Column("organisation", String(64), primary_key=True),
    Column("team", String(64), primary_key=True),
    Column("pattern", String(255), primary_key=True),  # as of tokens: demo, acme-*, corp/*
    Column("role", String(16), nullable=False),  # owner | maintainer
    _of_team(),
)
name_grant = Table(
    "name_grant",
    metadata,
    # Names that only this organisation begins. `shape` is the pattern without its star as people misread it.
    Column("pattern", String(255), primary_key=True),
    Column("shape", String(255), nullable=False),
    Column("organisation", ForeignKey(_ORGANISATION, ondelete="CASCADE"), nullable=False),
    Index("ix_name_grant_shape", "shape"),
)
seat = Table(
    "seat",
    metadata,
    # Who acts in a project because of a team. It ends with the team's role, before the log has been told.
    Column("namespace", String(255), primary_key=True),
    Column("project", String(255), primary_key=True),
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), primary_key=True),
    Column("organisation", ForeignKey(_ORGANISATION, ondelete="CASCADE"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=True),
    Index("ix_seat_organisation", "organisation"),
)
browser_session = Table(
    "browser_session",
    metadata,
    # Somebody's browser, by the cookie it holds; `signed_in` moves with a fresh sign-in alone.
    Column("secret_sha256", String(64), primary_key=True),
    Column("account_id", ForeignKey(_ACCOUNT, ondelete="CASCADE"), nullable=False),
    Column("signed_in", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Index("ix_browser_session_account_id", "account_id"),
    Index("ix_browser_session_expires", "expires"),
)
