"""Standings: what the log's history makes of a file that has ended its journey. Read, never stored.

    standings(connection, rows)[row["id"]]      -> Standing("held", entry=31): a hold, by entry 31

A file's standing is a pure function of its entries (`countermark.rules`), so no column repeats it: the doors ask the
rules' state at the head of the log. A hold or takedown therefore acts on page and file door as soon as it has its
place in the log, before any timestamp says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select

from countermark import rules
from countermark_server import db
from countermark_server.journey import SAID, State
from countermark_server.ruleview import encode_key

KEYS_PER_QUERY = 300  # SQLite takes 999 parameters at the least
_ROWS = select(db.rules_state).where(db.rules_state.c.key.in_(bindparam("k", expanding=True)))


@dataclass(frozen=True)
class Standing:
    """ok, yanked, held or removed; and the entry that made it so, where one did."""

    name: str
    entry: int | None = None

    @property
    def served(self) -> bool:
        """Whether installers may have the file (a yanked one by exact pin)."""
        return self.name in ("ok", "yanked")


def said(state: State, standing: Standing) -> str:
    """Where a file is, in words: its standing where its entries gave it one, else the state of its journey."""
    if standing.name == "ok":
        return SAID[state]
    by = f" by entry {standing.entry} of the log" if standing.entry is not None else ""
    return f"{standing.name}{by}; {SAID[state]}" if standing.name == "yanked" else f"{standing.name}{by}"


def standings(connection: Connection, rows: Sequence[RowMapping]) -> dict[int, Standing]:
    """The standing of each submission, by its id. A file that the log does not know yet is `ok`."""
    keys = {row["id"]: rules.file_key(row["namespace"], row["project"], row["served_name"]) for row in rows}
    wanted = set(keys.values())
    for namespace, project in {(row["namespace"], row["project"]) for row in rows}:
        wanted |= {rules.project_key(namespace, project), rules.holder_key(namespace, "")}
    view = _load(connection, wanted)
    return {row_id: _standing(view, key) for row_id, key in keys.items()}


def standing(connection: Connection, row: RowMapping) -> Standing:
    """The standing of one submission."""
    return standings(connection, [row])[row["id"]]


def _standing(view: Mapping[rules.Key, Any], key: rules.Key) -> Standing:
    name = rules.standing_of(view, key)
    if name is None or name == "ok":
        return Standing("ok")
    file = view[key]
    causes = {"removed": ("takedown", "removed"), "held": ("hold",), "yanked": ("yank",)}[name]
    return Standing(name, next((file[cause] for cause in causes if file[cause] is not None), None))


def _load(connection: Connection, keys: Iterable[rules.Key]) -> dict[rules.Key, Any]:
    spelled = {encode_key(key): key for key in keys}
    found = dict[rules.Key, Any]()
    names = sorted(spelled)
    for start in range(0, len(names), KEYS_PER_QUERY):
        chunk = names[start : start + KEYS_PER_QUERY]
        for name, value in connection.execute(_ROWS, {"k": chunk}):
            found[spelled[name]] = json.loads(value)
    return found
