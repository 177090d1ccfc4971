"""Allowances: how much one account, or one project, may bring in. Settings: [limits].

    account 8f14...   day 20418: 212 entries, 3 new projects      1,482,113,007 bytes in all
    project demo      day 20418:  12 entries                         21,337,411 bytes in all

One row of `spending` for each, counted up in the transaction that proposes the entries, so what was refused costs
nothing. The check reads before that: requests under way together may pass a bound by what they bring, and the next
one is refused. Days are UTC. A row has shards, so that web processes on PostgreSQL do not wait for each other's
commits; a sum over them is the truth.

The counts are the doors' own and no part of the log: a rebuild begins them at nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from countermark_server import db, quick
from countermark_server.errors import ServerError
from countermark_server.settings import Limits

DAY_SECONDS = 86_400
SHARDS = 16
ACCOUNT, PROJECT = "account", "project"
_TABLE = db.spending
_TODAY = _TABLE.c.day == bindparam("day")
_SPENT = (
    select(
        _TABLE.c.kind,
        func.sum(_TABLE.c.bytes).label("bytes"),
        func.sum(case((_TODAY, _TABLE.c.entries), else_=0)).label("entries"),
        func.sum(case((_TODAY, _TABLE.c.projects), else_=0)).label("projects"),
    )
    .where(
        ((_TABLE.c.kind == ACCOUNT) & (_TABLE.c.name == bindparam("account")))
        | ((_TABLE.c.kind == PROJECT) & (_TABLE.c.name == bindparam("project")))
    )
    .group_by(_TABLE.c.kind)
)


class _Spent(NamedTuple):
    """So much was spent already: a row of `_SPENT`."""

    kind: str
    bytes: int
    entries: int
    projects: int


@dataclass(frozen=True)
class Cost:
    """What one entry costs: whose it is, and where it brings a file, in which project and how many bytes."""

    account_id: str
    project: str = ""
    length: int = 0
    new_project: bool = False


def check_allowance(connection: Connection, limits: Limits, costs: Sequence[Cost], *, now: int) -> None:
    """Refuse what would be more than this account, or this project, may bring in. Nothing is written.

    All costs are of one account and one project; without a project they bring no bytes.
    """
    account_id, project = costs[0].account_id, costs[0].project
    asked = {"account": account_id, "project": project, "day": now // DAY_SECONDS}
    spent = {row[0]: _Spent(*row) for row in quick.run(connection, _SPENT, asked).fetchall()}
    account, length = spent.get(ACCOUNT), sum(cost.length for cost in costs)
    _bytes(f"project {project!r}", spent.get(PROJECT), length, limits.project_bytes)
    _bytes("this account", account, length, limits.account_bytes)
    begun = sum(cost.new_project for cost in costs)
    if begun:
        _daily("new projects", account and account.projects, begun, limits.projects_a_day, now=now)
    _daily("entries", account and account.entries, len(costs), limits.entries_a_day, now=now)


def spend(connection: Connection, costs: Iterable[Cost], *, now: int) -> None:
    """Count these, in the transaction that proposes their entries."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for cost in costs:
        for kind, name in ((ACCOUNT, cost.account_id), (PROJECT, cost.project)):
            each = sums[kind, name]
            each[0] += cost.length
            each[1] += 1
            each[2] += cost.new_project and kind == ACCOUNT
    rows = [
        {"kind": kind, "name": name, "shard": os.getpid() % SHARDS, "day": now // DAY_SECONDS}
        | {"bytes": length, "entries": entries, "projects": projects}
        for (kind, name), (length, entries, projects) in sorted(sums.items())
        if name
    ]
    for row in rows:
        quick.run(connection, _UPSERTS[connection.dialect.name], row)


def _bytes(whose: str, spent: Any, more: int, most: int) -> None:
    so_far = 0 if spent is None else int(spent.bytes)
    if most and more and so_far + more > most:
        raise ServerError(
            "quota-bytes", f"{whose} has {so_far} bytes of files and may have {most}; this one has {more}"
        )


def _daily(what: str, spent: int | None, more: int, most: int, *, now: int) -> None:
    if most and (spent or 0) + more > most:
        raise ServerError(
            "quota-day",
            f"{spent or 0} {what} by this account today (UTC) and {more} more: at most {most} a day",
            retry_after=DAY_SECONDS - now % DAY_SECONDS,
        )


def _counting(insert: Any) -> Any:
    """Add to the row, or begin it; yesterday's counts are forgotten with the first of today."""
    new = insert.excluded
    added: Mapping[str, Any] = {
        name: case((_TABLE.c.day == new.day, _TABLE.c[name] + new[name]), else_=new[name])
        for name in ("entries", "projects")
    }
    return insert.on_conflict_do_update(
        index_elements=["kind", "name", "shard"],
        set_={"bytes": _TABLE.c.bytes + new.bytes, "day": new.day, **added},
    )


_UPSERTS = {
    "postgresql": _counting(postgresql.insert(_TABLE)),
    "sqlite": _counting(sqlite.insert(_TABLE)),
}
