"""The journey's last move: cleared -> listed, for files that the public timestamp lists.

A thousand files come due in one publish, so their state is asked for at once and they move in few statements. A
hold that overtook a file on its way sends it to its people instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, select

from countermark import rules
from countermark.rules import Key
from countermark_server import db, quick, serials, submission
from countermark_server.journey import State
from countermark_server.ruleview import SqlView

HELD = ("held", "removed")
# Built once: building a statement costs more than running it.
_TABLE = db.submission
_WAITING = select(_TABLE.c.id, _TABLE.c.namespace, _TABLE.c.project, _TABLE.c.filename).where(
    _TABLE.c.state == State.CLEARED
)
_FIRST = _WAITING.with_only_columns(_TABLE.c.id).limit(1)


def is_any_cleared(connection: Connection) -> bool:
    """Whether a submission waits for it."""
    return quick.run(connection, _FIRST, {}).fetchone() is not None


def list_cleared(connection: Connection, *, now: int) -> None:
    """Move the submissions that wait for it. The state of the last candidate is the one that is public."""
    move(connection, quick.mappings(connection, _WAITING, {}), now=now)


def move(connection: Connection, cleared: Iterable[Mapping[Any, Any]], *, now: int) -> None:
    """Move the cleared submissions that are listed; those that a later entry holds go to its people."""
    rows = {_key(row): row["id"] for row in cleared}
    view = _state(connection, db.tufrepo_state, rows)
    done = [key for key in rows if rules.is_listed(view, key)]
    submission.finish_all(connection, [rows[key] for key in done], State.CLEARED, State.LISTED, now=now)
    serials.touch(connection, [project for _, namespace, project, _ in done if not namespace], now=now)
    # What we applied may be older than a moderator's clear that moved the row here: the newest state decides.
    left = [key for key in rows.keys() - set(done) if rules.standing_of(view, key) in HELD]
    newest = _state(connection, db.rules_state, left)
    for key in left:
        if rules.standing_of(newest, key) in HELD:
            said = "a later entry in the log holds this file"
            submission.finish(connection, rows[key], State.CLEARED, State.HELD, now=now, reason=said)


def _key(row: Mapping[Any, Any]) -> Key:
    return rules.file_key(row["namespace"], row["project"], row["filename"])


def _state(connection: Connection, table: Table, files: Collection[Key]) -> SqlView:
    """A view that knows these files and those who hold them."""
    view = SqlView(connection, table)
    holders = {rules.holder_key(namespace, project) for _, namespace, project, _ in files}
    holders |= {("namespace", namespace) for _, namespace, _, _ in files if namespace}
    view.fetch([*files, *holders])
    return view
