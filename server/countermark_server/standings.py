"""Standings: what the log's history makes of a file that has ended its journey. Read, never stored.

    standings(connection, rows)[row["id"]]      -> Standing("held", entry=31, reason="malware", ...)

A file's standing is a pure function of its entries (`countermark.rules`), so no column repeats it: the doors ask the
rules' state at the head of the log. A hold or takedown therefore acts on page and file door as soon as it has its
place in the log, before any timestamp says so. The reason code comes from the entry's proposal and is for people;
clients read it in the log.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, RowMapping, bindparam, select

from countermark import rules
from countermark.rules_approve import Waiting, waiting
from countermark.rules_state import approved, compromised_by, holders, listable, release_key
from countermark.rules_state import standing as judged
from countermark_server import db
from countermark_server.journey import SAID, State
from countermark_server.ruleview import SqlView

# A submission, or what is said of an imported file in the same words.
Row: TypeAlias = RowMapping | Mapping[str, Any]
STAGED = "logged and cleared, not listed"
BEFORE_LISTING = (State.LOGGED, State.SCANNED, State.CLEARED)
KEYS_PER_QUERY = 300  # SQLite takes 999 parameters at the least
_ENTRIES = select(db.proposal.c.leaf_index, db.proposal.c.envelope).where(
    db.proposal.c.leaf_index.in_(bindparam("i", expanding=True))
)


class Standing(NamedTuple):
    """ok, yanked, held or removed; and the entry that made it so with its reason code, where one did."""

    name: str
    entry: int | None = None
    reason: str | None = None
    listed: bool = False  # whether the rules list it: served, and passed by verdict or moderator
    listable: bool = False  # the same, but for approvals that may be missing
    waiting: Waiting | None = None  # the approvals that its release still needs
    cause: str | None = None  # the type of that entry
    owner_head: str | None = None  # leaf hash of the owner's newest entry: what their next one follows

    @property
    def served(self) -> bool:
        """Whether installers may have the file (a yanked one by exact pin)."""
        return self.name in ("ok", "yanked")

    @property
    def by(self) -> str:
        """Which entry did it and why, to stand behind a word: ` by entry 31 of the log (malware)`."""
        if self.entry is None:
            return ""
        return f" by entry {self.entry} of the log" + (f" ({self.reason})" if self.reason else "")


def state_of(row: Row, standing: Standing) -> State:
    """Where a submission is to its readers: a rejection ends the journey, and a won appeal lists the file again."""
    restored = row["state"] == State.REJECTED and standing.listed
    return State.LISTED if restored else State(row["state"])


def said(state: State, standing: Standing) -> str:
    """Where a file is, in words: its standing where its entries gave it one, else the state of its journey."""
    if standing.name == "ok" and standing.waiting is not None and state in BEFORE_LISTING:
        return (
            f"{SAID[state]}; {standing.waiting}"
            if state != State.CLEARED
            else f"{STAGED}: {standing.waiting}"
        )
    if standing.name == "ok":
        return SAID[state]
    words = f"{standing.name}{standing.by}"
    return f"{words}; {SAID[state]}" if standing.name == "yanked" else words


def standings(connection: Connection, rows: Sequence[Row]) -> dict[int, Standing]:
    """The standing of each submission, by its id. A file that the log does not know yet is `ok`."""
    keys = {row["id"]: rules.file_key(row["namespace"], row["project"], row["served_name"]) for row in rows}
    wanted = set(keys.values())
    for namespace, project in {(row["namespace"], row["project"]) for row in rows}:
        wanted |= {rules.project_key(namespace, project), rules.holder_key(namespace, "")}
    view = SqlView(connection, db.rules_state)
    view.fetch(wanted)
    if staged := [file for key in keys.values() if (file := view.get(key)) and "staged" in file]:
        view.fetch({rules.LOG, *map(release_key, staged)})
    found = {row_id: _standing(view, key) for row_id, key in keys.items()}
    why = _reasons(connection, {each.entry for each in found.values() if each.entry is not None})
    return {
        row_id: each if each.entry is None else each._replace(reason=why.get(each.entry))
        for row_id, each in found.items()
    }


def standing(connection: Connection, row: Row) -> Standing:
    """The standing of one submission."""
    return standings(connection, [row])[row["id"]]


def _standing(view: rules.View, key: rules.Key) -> Standing:
    file = view.get(key)
    if file is None:
        return Standing("ok")
    project, namespace = holders(view, key[1], key[2])
    assert project is not None, "a publish makes its project"
    name = judged(file, project, namespace)
    could, may = listable(file, project, namespace), approved(view, file)
    rest = {
        "listed": could and may,
        "listable": could,
        "owner_head": file["owner_head"],
        "waiting": None if may else _waiting(view, file),
    }
    causes = {"removed": ("takedown", "removed"), "held": ("hold",), "yanked": ("yank",)}.get(name, ())
    cause = next((cause for cause in causes if file[cause] is not None), None)
    entry = None if cause is None else file[cause]
    if name == "held" and entry is None:  # its key was revoked as compromised
        cause, entry = "key-revoke", compromised_by(file, project, namespace)
    return Standing(name, entry, cause={"removed": "remove"}.get(cause or "", cause), **rest)


def _waiting(view: rules.View, file: rules.State) -> Waiting | None:
    """Counted at the time of the newest entry: the log's own clock, so that all say the same."""
    log = view.get(rules.LOG)
    assert log is not None, "a file was published"
    return waiting(view, file["namespace"], file["project"], file["version"], log["time"])


def _reasons(connection: Connection, entries: Iterable[int]) -> dict[int, str]:
    """The reason codes of these entries, as their proposals kept them."""
    found, wanted = dict[int, str](), sorted(entries)
    for start in range(0, len(wanted), KEYS_PER_QUERY):
        for index, envelope in connection.execute(_ENTRIES, {"i": wanted[start : start + KEYS_PER_QUERY]}):
            statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
            found[index] = statement["predicate"]["reason"]
    return found
