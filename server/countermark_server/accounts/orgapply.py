"""Bring a file of organisations home, and take it out again: the same values as rows.

Applying changes the organisations that the file names to what it says, in one transaction; the others stay as they
are. Applied twice, the second time changes nothing. People must have accounts, under the logins that the file spells:
a login is never made here, since whoever comes by the identity provider gets an account at the first sign-in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from countermark.errors import UsageError
from countermark.rules import State, project_key
from countermark_server import db, orgtables
from countermark_server.accounts.organisations import LOGIN, MAINTAINER, OWNER, shape
from countermark_server.accounts.orgfile import Organisation, Team, differences
from countermark_server.accounts.people import add_account, find_account
from countermark_server.accounts.tokens import matches
from countermark_server.ruleview import SqlView

PROJECTS_MAX = 100  # of a remark: what it says further on nobody reads


def stored(connection: Connection) -> tuple[Organisation, ...]:
    """All organisations, as the file would say them."""
    logins = _pairs(connection, select(db.account.c.id, db.account.c.login))
    members, names = (
        _by_organisation(connection, orgtables.organisation_member),
        _by_organisation(connection, orgtables.name_grant),
    )
    of_teams = {
        word: _by_team(connection, table)
        for word, table in (
            ("member", orgtables.team_member),
            ("group", orgtables.team_group),
            ("role", orgtables.team_role),
        )
    }
    teams = defaultdict[str, list[Team]](list)
    for row in connection.execute(select(orgtables.team).order_by(orgtables.team.c.name)).mappings():
        key = (row["organisation"], row["name"])
        roles = of_teams["role"][key]
        teams[row["organisation"]].append(
            Team(
                row["name"],
                frozenset(logins[each["account_id"]] for each in of_teams["member"][key]),
                frozenset(each["name"] for each in of_teams["group"][key]),
                frozenset(each["pattern"] for each in roles if each["role"] == MAINTAINER),
                frozenset(each["pattern"] for each in roles if each["role"] == OWNER),
            )
        )
    found = connection.execute(select(orgtables.organisation.c.name)).scalars().all()
    return tuple(
        Organisation(
            name,
            frozenset(logins[each["account_id"]] for each in members[name]),
            frozenset(each["pattern"] for each in names[name]),
            tuple(teams[name]),
        )
        for name in sorted(found)
    )


def apply(connection: Connection, organisations: Sequence[Organisation], *, now: int) -> list[str]:
    """Make it so; what changed, a line each. UsageError: somebody has no account, or a name is another's."""
    before = {each.name: each for each in stored(connection)}
    changes = differences(before.values(), organisations)
    people = _people(connection, organisations)
    changed = [each for each in organisations if before.get(each.name) != each]
    _check_names(connection, organisations)
    for each in changed:
        _forget(connection, each.name)
    for each in changed:
        if each.name not in before:
            account = add_account(connection, LOGIN + each.name, now=now)
            row = {"name": each.name, "account_id": account.id, "created": now}
            connection.execute(orgtables.organisation.insert().values(**row))
        _write(connection, each, people)
    return changes


def strangers(connection: Connection, organisations: Iterable[Organisation]) -> list[str]:
    """Projects that stand under a granted name and are not their organisation's: a grant takes nothing away."""
    grants = [(pattern, each.name) for each in organisations for pattern in each.names]
    accounts = _pairs(connection, select(orgtables.organisation.c.name, orgtables.organisation.c.account_id))
    logins = _pairs(connection, select(db.account.c.id, db.account.c.login))
    granted = dict[str, tuple[str, str]]()
    for project in connection.execute(select(db.project_name.c.project)).scalars():
        fitting = (grant for grant in grants if matches(project, grant[0]))
        if (first := next(fitting, None)) is not None:
            granted[project] = first
    view, found = SqlView(connection, db.rules_state), list[str]()
    view.fetch(project_key("", project) for project in granted)
    for project, (pattern, name) in granted.items():
        held: State | None = view.get(project_key("", project))
        if held is not None and accounts.get(name) not in held["owners"]:
            owners = ", ".join(sorted(logins.get(each, each) for each in held["owners"]))
            found.append(f"{project} ({pattern} of {name}) is of {owners or 'nobody'} in the log")
    return sorted(found)[:PROJECTS_MAX]


def _people(connection: Connection, organisations: Iterable[Organisation]) -> dict[str, str]:
    """The accounts of all logins in the file."""
    wanted = {login for each in organisations for login in each.owners}
    wanted |= {login for each in organisations for team in each.teams for login in team.members}
    found, missing = dict[str, str](), list[str]()
    for login in sorted(wanted):
        account = None if login.startswith(LOGIN) else find_account(connection, login)
        if account is None:
            missing.append(login)
        else:
            found[login] = account.id
    if missing:
        raise UsageError(
            f"no account of a person: {', '.join(missing)}",
            hint="`countermark-server account add` makes one; with an identity provider, people sign in first",
        )
    return found


def _check_names(connection: Connection, organisations: Sequence[Organisation]) -> None:
    """A name of an organisation that the file leaves out stays its own."""
    spoken_of = {each.name for each in organisations}
    table = orgtables.name_grant
    held = _pairs(connection, select(table.c.pattern, table.c.organisation))
    for each in organisations:
        for pattern in sorted(each.names):
            owner = held.get(pattern, each.name)
            if owner not in spoken_of:
                raise UsageError(
                    f"{pattern} is of {owner}, which the file does not name",
                    hint=f"write {owner} into the file, without {pattern}",
                )


def _forget(connection: Connection, name: str) -> None:
    """Everything about an organisation but that it is there: what belongs to its teams goes with them."""
    for table in (orgtables.organisation_member, orgtables.team, orgtables.name_grant):
        connection.execute(table.delete().where(table.c.organisation == name))


def _write(connection: Connection, organisation: Organisation, people: dict[str, str]) -> None:
    name = organisation.name
    _insert(
        connection,
        orgtables.organisation_member,
        [{"organisation": name, "account_id": people[each], "role": OWNER} for each in organisation.owners],
    )
    _insert(
        connection,
        orgtables.name_grant,
        [
            {"organisation": name, "pattern": each, "shape": shape(each.removesuffix("*"))}
            for each in organisation.names
        ],
    )
    for team in organisation.teams:
        key = {"organisation": name, "team": team.name}
        connection.execute(orgtables.team.insert().values(organisation=name, name=team.name))
        _insert(
            connection, orgtables.team_member, [{**key, "account_id": people[each]} for each in team.members]
        )
        _insert(connection, orgtables.team_group, [{**key, "name": each} for each in team.groups])
        roles = [(MAINTAINER, each) for each in team.maintains] + [(OWNER, each) for each in team.owns]
        _insert(
            connection, orgtables.team_role, [{**key, "pattern": each, "role": role} for role, each in roles]
        )


def _pairs(connection: Connection, query: Select[Any]) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _by_organisation(connection: Connection, table: Table) -> defaultdict[str, list[Any]]:
    found = defaultdict[str, list[Any]](list)
    for row in connection.execute(select(table)).mappings():
        found[row["organisation"]].append(row)
    return found


def _by_team(connection: Connection, table: Table) -> defaultdict[tuple[str, str], list[Any]]:
    found = defaultdict[tuple[str, str], list[Any]](list)
    for row in connection.execute(select(table)).mappings():
        found[row["organisation"], row["team"]].append(row)
    return found
