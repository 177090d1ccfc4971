"""Holdings: what is somebody's - projects, their releases with standing, their keys with the chain of enrolments.

All of it is read from the rules' state and the public log, and each fact names the entry that makes it true. So a
page shows nothing that its reader could not look up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from countermark.entry import Entry
from countermark.errors import CountermarkError
from countermark.rules_approve import Waiting
from countermark_server import db
from countermark_server.asking import holder_state
from countermark_server.errors import ServerError
from countermark_server.journey import State
from countermark_server.ruleview import encode_key
from countermark_server.standings import said, standings, state_of

PROJECTS_MAX = 512  # of one account on one page
FILES_MAX = 512  # of one project, the newest
_STATE = db.rules_state


@dataclass(frozen=True)
class Project:
    """A project that somebody owns, by the log."""

    name: str
    role: str
    signed: bool
    frozen: int | None
    since: int | None = None  # the enrolment of its oldest key that signs: why it is said to sign


@dataclass(frozen=True)
class File:
    """A file, where it stands, and which entries say so."""

    name: str
    sha256: str
    index: int | None
    standing: str
    because: int | None
    said: str
    listed: bool


@dataclass(frozen=True)
class Release:
    """A version and its files."""

    version: str
    files: tuple[File, ...]
    waiting: Waiting | None = None  # the approvals that it still needs


@dataclass(frozen=True)
class Key:
    """A key of a project: the entry that enrolled it, what authorised that, and what ended it."""

    keyid: str
    index: int
    account: str | None
    chained: bool
    authorised_by: int | None  # an enrolment; None: the registry's word for who had signed in
    until: int | None
    revoked: int | None
    pending: bool


def projects_of(connection: Connection, account_id: str) -> list[Project]:
    """The projects of the default namespace that an account owns or maintains, by name.

    It walks the state of all projects, of which a large registry has some hundred thousand: a fraction of a second.
    """
    first = encode_key(("project", "", ""))[:-2]  # up to the quote that begins a name
    query = (
        select(_STATE.c.key, _STATE.c.value)
        .where(_STATE.c.key >= first, _STATE.c.key < first + "~", _STATE.c.value.like(f'%"{account_id}"%'))
        .order_by(_STATE.c.key)
        .limit(PROJECTS_MAX)
    )
    found = list[Project]()
    for row in connection.execute(query):
        state = json.loads(row.value)
        if (role := state["owners"].get(account_id)) is not None:
            enrolled = [item["index"] for item in state["keys"].values()]
            since = min(enrolled) if enrolled and state["signed"] else None
            found.append(Project(json.loads(row.key)[2], role, state["signed"], state["frozen"], since))
    return found


def releases_of(connection: Connection, project: str) -> list[Release]:
    """The releases of a (normalised) project, the newest first, and the files of each."""
    table = db.submission
    mine = (table.c.namespace == "") & (table.c.project == project)
    query = select(table).where(mine).order_by(table.c.id.desc()).limit(FILES_MAX)
    rows = connection.execute(query).mappings().all()
    standing = standings(connection, rows)
    versions = dict[str, list[File]]()
    for row in rows:
        versions.setdefault(row["version"], []).append(_file(row, standing[row["id"]]))
    waits = {row["version"]: each.waiting for row in rows if (each := standing[row["id"]]).waiting}
    return [Release(version, tuple(files), waits.get(version)) for version, files in versions.items()]


def _file(row: RowMapping, standing: Any) -> File:
    state = state_of(row, standing)
    because = standing.entry
    words, listed = said(state, standing), state is State.LISTED and standing.served
    return File(row["served_name"], row["sha256"], row["leaf_index"], standing.name, because, words, listed)


def keys_of(connection: Connection, project: str, entry: Callable[[int], bytes], *, now: int) -> list[Key]:
    """All keys that a project ever had, in the log's order; `entry` gives the public entry at an index."""
    state = holder_state(connection, "", project, now=now)
    current = {} if state is None else state["keys"]
    waiting = None if state is None or state["recovery"] is None else state["recovery"]["keyid"]
    first = encode_key(("enrolment", "", project, ""))[:-2]
    query = select(_STATE.c.key, _STATE.c.value).where(_STATE.c.key >= first, _STATE.c.key < first + "~")
    found = list[Key]()
    for row in connection.execute(query):
        keyid, said_of = json.loads(row.key)[3], json.loads(row.value)
        ended = said_of["revoked"]
        found.append(
            Key(
                keyid,
                said_of["index"],
                said_of["account"],
                said_of["chained"],
                _authorised_by(entry, said_of["index"]),
                said_of["until"],
                ended,
                keyid == waiting and keyid not in current,
            )
        )
    return sorted(found, key=lambda key: key.index)


def _authorised_by(entry: Callable[[int], bytes], index: int) -> int | None:
    try:
        said_of = Entry.parse(entry(index)).registry
    except (CountermarkError, ServerError):
        return None  # not public yet
    by = None if said_of is None else said_of.get("authorised_by")
    return by if isinstance(by, int) else None


@dataclass(frozen=True)
class Owner:
    """Who may act for a project, by the log; without a login, their person was erased."""

    account_id: str
    role: str
    login: str | None
    because: int | None = None  # an entry that the log takes of owners alone: their key, or their publish


def owners_of(connection: Connection, project: str, *, now: int) -> list[Owner]:
    """The owners and maintainers of a project."""
    state = holder_state(connection, "", project, now=now)
    roles = {} if state is None else state["owners"]
    query = select(db.account.c.id, db.account.c.login).where(db.account.c.id.in_(list(roles)))
    logins = {row.id: row.login for row in connection.execute(query)}
    known = _first_publishes(connection, project)
    for item in () if state is None else state["keys"].values():
        known[item["account"]] = min(item["index"], known.get(item["account"], item["index"]))
    return [Owner(each, role, logins.get(each), known.get(each)) for each, role in sorted(roles.items())]


def _first_publishes(connection: Connection, project: str) -> dict[str, int]:
    """The first entry by which each account published here; who still owns the project is the state's to say."""
    table = db.submission
    mine = (table.c.namespace == "") & (table.c.project == project) & table.c.leaf_index.is_not(None)
    query = select(table.c.uploader, func.min(table.c.leaf_index)).where(mine).group_by(table.c.uploader)
    return {row[0]: row[1] for row in connection.execute(query) if row[0] is not None}  # None: imported
