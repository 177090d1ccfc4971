"""Organisations: people who own projects together, whose names are theirs, and who of them may do what where.

    acme     owners: ada         names: acme-*
      ml     members: grace      maintains: acme-ml-*

**Names.** A project whose name an organisation was granted is begun by nobody else: not by an upload, nor by a key,
nor under a name that reads the same. The longest pattern that fits decides; the refusal names the organisation.

**Roles.** An organisation's owners do everything in it; a team does what it was given, by pattern. In the log stand
accounts and no teams: how a role becomes an entry, and ends, is in seats.py.

Members of a team are those the file names (orgfile.py) and those whom the identity provider counts to its groups, as
far as the provider still vouches for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, bindparam, exists, or_, select

from countermark.limits import NAME_MAX_CHARS
from countermark_server import db, orgtables
from countermark_server.accounts.tokens import matches
from countermark_server.errors import ServerError
from countermark_server.ruleview import skeleton

OWNER, MAINTAINER = "owner", "maintainer"
ADMIN, MODERATOR = "admin", "moderator"
LOGIN = "organisation/"  # how the login of an organisation's account begins; nobody signs in as it
_GRANT, _ROLE = orgtables.name_grant, orgtables.team_role
_WITH_ACCOUNT = select(_GRANT, orgtables.organisation.c.account_id).join(
    orgtables.organisation, orgtables.organisation.c.name == _GRANT.c.organisation
)
_FITTING = _WITH_ACCOUNT.where(
    or_(
        _GRANT.c.pattern.in_(bindparam("patterns", expanding=True)),
        _GRANT.c.shape.in_(bindparam("shapes", expanding=True)),
    )
)


@dataclass(frozen=True)
class Grant:
    """Names that an organisation begins, and the account it is in the log."""

    pattern: str
    organisation: str
    account_id: str


@dataclass(frozen=True)
class Role:
    """What somebody may do in a project, and by which organisation."""

    role: str
    organisation: str
    account_id: str


def shape(name: str) -> str:
    """A name as people misread it, dash by dash: `acrne-rnl-x` and `acme-ml-x` are one, `acmeml-x` is another."""
    return "-".join(skeleton(part) for part in name.split("-"))


def full_name(namespace: str, project: str) -> str:
    """A project as patterns name it."""
    return f"{namespace}/{project}" if namespace else project


def granted(connection: Connection, namespace: str, project: str, *, alike: bool = False) -> Grant | None:
    """Whose name this (normalised) project has; with `alike`, also whose it could be taken for."""
    name = full_name(namespace, project)
    shaped = shape(name)
    patterns = [name, *(f"{name[:at]}*" for at in range(len(name) + 1))]
    shapes = [shaped[:at] for at in range(1, len(shaped) + 1)]
    rows = connection.execute(_FITTING, {"patterns": patterns, "shapes": shapes}).mappings().all()
    fitting = [row for row in rows if matches(name, row["pattern"]) or (alike and _alike(shaped, row))]
    if not fitting:
        return None
    best = max(fitting, key=lambda row: (matches(name, row["pattern"]), _weight(row["pattern"])))
    return Grant(best["pattern"], best["organisation"], best["account_id"])


def _alike(shaped: str, row: RowMapping) -> bool:
    return bool(shaped.startswith(row["shape"]) if row["pattern"].endswith("*") else shaped == row["shape"])


def _weight(pattern: str) -> tuple[int, bool]:
    return len(pattern.removesuffix("*")), not pattern.endswith("*")  # a name goes before a pattern as long


def check_name(
    connection: Connection, namespace: str, project: str, account_id: str, *, alike: bool = True
) -> None:
    """Refuse to begin a project under a name that an organisation has, unless by who may begin it there."""
    grant = granted(connection, namespace, project, alike=alike)
    if grant is None:
        return
    if role_in(connection, account_id, namespace, project, organisation=grant.organisation) is not None:
        return
    name = full_name(namespace, project)
    reads = "is" if matches(name, grant.pattern) else "reads like"
    raise ServerError(
        "name-granted",
        f"{name!r} {reads} a name of the organisation {grant.organisation!r} ({grant.pattern}): ask an owner of "
        f"{grant.organisation} for a team that maintains it, or take another name",
    )


def role_in(
    connection: Connection, account_id: str, namespace: str, project: str, *, organisation: str | None = None
) -> Role | None:
    """What an account may do in a project by an organisation, or by this one; the greatest role, None for none.

    Whether the project is that organisation's is another question: the log answers it, or a grant of names does.
    """
    name = full_name(namespace, project)
    found = list[Role]()
    for row in connection.execute(_roles_of(account_id)).mappings():
        if matches(name, row["pattern"]):
            found.append(Role(row["role"], row["organisation"], row["account_id"]))
    for row in connection.execute(_owned_by(account_id)).mappings():
        if matches(name, row["pattern"]):
            found.append(Role(OWNER, row["organisation"], row["account_id"]))
    found = [role for role in found if organisation in (None, role.organisation)]
    return min(found, key=lambda role: (role.role != OWNER, role.organisation), default=None)


def _roles_of(account_id: str) -> Select[Any]:
    organisation = orgtables.organisation
    return (
        select(_ROLE, organisation.c.account_id)
        .join(organisation, organisation.c.name == _ROLE.c.organisation)
        .where(in_team(_ROLE.c.organisation, _ROLE.c.team, account_id))
    )


def _owned_by(account_id: str) -> Select[Any]:
    """Patterns that concern an organisation of which this account is an owner."""
    organisation, member = orgtables.organisation, orgtables.organisation_member
    roles = select(_ROLE.c.organisation, _ROLE.c.pattern)
    names = select(_GRANT.c.organisation, _GRANT.c.pattern)
    concerned = roles.union(names).subquery()
    return (
        select(concerned, organisation.c.account_id)
        .join(organisation, organisation.c.name == concerned.c.organisation)
        .join(member, member.c.organisation == organisation.c.name)
        .where(member.c.account_id == account_id, member.c.role == OWNER)
    )


def in_team(
    organisation: ColumnElement[str], team: ColumnElement[str], account_id: str
) -> ColumnElement[bool]:
    """Whether an account is in a team: named there, or in one of its groups."""
    member, group, mine = orgtables.team_member, orgtables.team_group, orgtables.identity_group
    named = exists().where(
        member.c.organisation == organisation, member.c.team == team, member.c.account_id == account_id
    )
    counted = exists().where(
        and_(
            group.c.organisation == organisation,
            group.c.team == team,
            group.c.name == mine.c.name,
            mine.c.account_id == account_id,
            mine.c.account_id == db.identity.c.account_id,
            db.identity.c.gone.is_(None),
        )
    )
    return or_(named, counted)


# --- roles in the registry -------------------------------------------------------------------------------
def grant_role(
    connection: Connection, account_id: str, role: str, *, now: int, source: str = "operator"
) -> bool:
    """Let an account do what this role does. False: it could already, by the same source."""
    table = orgtables.registry_role
    mine = and_(table.c.account_id == account_id, table.c.role == role, table.c.source == source)
    if connection.execute(select(table.c.role).where(mine)).first() is not None:
        return False
    connection.execute(table.insert().values(account_id=account_id, role=role, source=source, granted=now))
    return True


def withdraw_role(connection: Connection, account_id: str, role: str, *, source: str = "operator") -> bool:
    """End it. False: there was nothing to end."""
    table = orgtables.registry_role
    mine = and_(table.c.account_id == account_id, table.c.role == role, table.c.source == source)
    return connection.execute(table.delete().where(mine)).rowcount > 0


def note_groups(
    connection: Connection,
    account_id: str,
    groups: Sequence[str] | None,
    roles: Mapping[str, tuple[str, ...]],
    *,
    now: int,
) -> None:
    """Keep what the provider says of somebody's groups, and the roles these give. None: it said nothing."""
    if groups is None:
        return
    table, named = orgtables.identity_group, sorted({name for name in groups if len(name) <= NAME_MAX_CHARS})
    connection.execute(table.delete().where(table.c.account_id == account_id))
    if named:
        connection.execute(table.insert(), [{"account_id": account_id, "name": name} for name in named])
    for role, which in roles.items():
        if set(which) & set(named):
            grant_role(connection, account_id, role, now=now, source="group")
        else:
            withdraw_role(connection, account_id, role, source="group")


def has_role(connection: Connection, account_id: str, role: str) -> bool:
    """Whether an account has a role in the registry, by whatever source."""
    table = orgtables.registry_role
    query = select(table.c.role).where(table.c.account_id == account_id, table.c.role == role)
    return connection.execute(query).first() is not None
