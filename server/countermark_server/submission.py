"""Submissions: the rows that travel, and the only functions that move them.

`receive` puts an artifact on its journey, `claim` leases the oldest ones waiting in a state to a worker,
`finish` moves one on, `finish_covered` all those that a checkpoint covers, `discard` takes those back that the log
refused. The bytes of an imported file are put in by
`bring`: they are logged already, and their journey begins there. A move that `journey.MOVES` does not know
is refused; a dead worker is replaced when its lease runs out, so every station must be able to do its step
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from countermark_server import db, quick
from countermark_server.journey import State, is_legal
from countermark_server.proposal import SEQUENCED

MOVED_MAX = 512  # rows in one statement; SQLite takes 999 parameters at the least
LEASE_SECONDS = 120  # longer than any scan may take
_TABLE = db.submission
# Statements are built once: building them costs more than running them.
_INSERT = {
    dialect: insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.id)
    for dialect, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
_NAMED_BY = ("project", "version", "filename", "served_name", "display_name", "sha256", "length", "filetype")
_UNLESS_GIVEN = {
    "namespace": "", **dict.fromkeys(("requires_python", "metadata_sha256", "uploader", "attestations"))
}  # fmt: skip
_RECEIVE = {
    dialect: insert.values(
        {
            **{name: bindparam(name) for name in (*_NAMED_BY, *_UNLESS_GIVEN)},
            **dict.fromkeys(("state_since", "uploaded"), bindparam("now")),
            "state": State.RECEIVED,
        }
    )
    for dialect, insert in _INSERT.items()
}
_NAMED = select(_TABLE).where(
    _TABLE.c.namespace == bindparam("n"),
    _TABLE.c.project == bindparam("p"),
    _TABLE.c.filename == bindparam("f"),
)
# Which publish entries a checkpoint of some size newly covers; the log tells of them once (log/publish.py). Where it
# knows how far it has told, their indexes say it: of a state that all rows pass through PostgreSQL reads dead rows.
_ENTRY = db.proposal
_OF_FILES = (
    _ENTRY.c.leaf_index >= bindparam("told"),
    _ENTRY.c.leaf_index < bindparam("size"),
    _ENTRY.c.type == "publish",
)
_ANY_FILES = select(_ENTRY.c.id).where(*_OF_FILES, _ENTRY.c.submission_id.is_not(None)).limit(1)
_JOINED = (*_OF_FILES, _ENTRY.c.submission_id == _TABLE.c.id)
_FINISH = (
    update(_TABLE)
    .where(*_JOINED, _TABLE.c.state == State.RECEIVED)
    .values(
        state=State.LOGGED,
        state_since=bindparam("now"),
        lease_until=None,
        leaf_index=_ENTRY.c.leaf_index,
        leaf_hash=_ENTRY.c.leaf_hash,
    )
)
_ELSEWHERE = select(_TABLE.c.id).where(*_JOINED, _TABLE.c.leaf_index.is_distinct_from(_ENTRY.c.leaf_index))
_OF_ANY = (_FINISH.where(_ENTRY.c.state == SEQUENCED), _ELSEWHERE.where(_ENTRY.c.state == SEQUENCED))
_FORGET = update(_ENTRY).where(_ENTRY.c.submission_id == bindparam("s")).values(submission_id=None)
_DISCARD = delete(_TABLE).where(_TABLE.c.id == bindparam("s"), _TABLE.c.state == State.RECEIVED)


class IllegalMoveError(Exception):
    """A station tried a move that the journey does not know, or the row had moved already."""


def receive(connection: Connection, *, now: int, **columns: Any) -> int | None:
    """Insert a submission in state `received`; returns its id, or None where the name is taken.

    (PostgreSQL waits for who is about to take it. Several names of one transaction go in sorted, so that no two wait
    for each other.)
    """
    values = {**_UNLESS_GIVEN, **columns, "now": now}
    row = quick.run(connection, _RECEIVE[connection.dialect.name], values).fetchone()
    return None if row is None else int(row[0])


def bring(connection: Connection, *, now: int, leaf_index: int, leaf_hash: str, **columns: Any) -> bool:
    """Insert an imported file, whose leaf is public, in state `logged`; False where its bytes came before."""
    leaf = {"leaf_index": leaf_index, "leaf_hash": leaf_hash}
    row = {**columns, **leaf, "state": State.LOGGED, "state_since": now}
    return connection.execute(_INSERT[connection.dialect.name], row).scalar() is not None


def claim(connection: Connection, state: State, *, now: int, limit: int = 1) -> Sequence[RowMapping]:
    """Lease up to `limit` submissions waiting in `state`, oldest first; history waits behind live uploads."""
    table = db.submission
    free = (table.c.state == state, (table.c.lease_until.is_(None)) | (table.c.lease_until < now))
    rows: Sequence[RowMapping] = []
    for history in (table.c.import_index.is_(None), table.c.import_index.is_not(None)):
        waiting = (
            select(table)
            .where(*free, history)
            .order_by(table.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)  # SQLite ignores it: the write transaction is the lock there
        )
        if rows := connection.execute(waiting).mappings().all():
            break
    if rows:
        connection.execute(
            update(table)
            .where(table.c.id.in_([row["id"] for row in rows]))
            .values(lease_until=now + LEASE_SECONDS, attempts=table.c.attempts + 1)
        )
    return rows


def finish(
    connection: Connection, submission_id: int, old: State, new: State, *, now: int, **columns: Any
) -> None:
    """Move one submission from `old` to `new` and end its lease. IllegalMoveError: nothing changed."""
    if not is_legal(old, new):
        raise IllegalMoveError(f"submission {submission_id}: {old} -> {new} is not in the journey")
    table = db.submission
    result = connection.execute(
        update(table)
        .where(table.c.id == submission_id, table.c.state == old)
        .values(state=new, state_since=now, lease_until=None, **columns)
    )
    if result.rowcount != 1:
        raise IllegalMoveError(f"submission {submission_id} is no longer {old}")


def finish_all(
    connection: Connection, submission_ids: Sequence[int], old: State, new: State, *, now: int
) -> None:
    """Move submissions from `old` to `new`, as `finish` does one. IllegalMoveError: do not commit."""
    if not is_legal(old, new):
        raise IllegalMoveError(f"{old} -> {new} is not in the journey")
    table = db.submission
    for first in range(0, len(submission_ids), MOVED_MAX):
        moved = submission_ids[first : first + MOVED_MAX]
        result = connection.execute(
            update(table)
            .where(table.c.id.in_(moved), table.c.state == old)
            .values(state=new, state_since=now, lease_until=None)
        )
        if result.rowcount != len(moved):
            raise IllegalMoveError(f"of {len(moved)} submissions, {result.rowcount} are still {old}")


def finish_covered(connection: Connection, size: int, *, told: int | None = None, now: int) -> list[int]:
    """Move those on from `received` whose publish entries a public checkpoint of this size covers, all at once.

    Before their proposals are told; `told`: the size for which that was done before, where the caller knows it.
    Returns those that were elsewhere already, and are left there.
    """
    assert is_legal(State.RECEIVED, State.LOGGED)
    covered = {"told": told or 0, "size": size}
    if told is not None and quick.run(connection, _ANY_FILES, covered).fetchone() is None:
        return []
    finish, elsewhere = (_FINISH, _ELSEWHERE) if told is not None else _OF_ANY
    quick.run(connection, finish, {**covered, "now": now})
    return [row[0] for row in quick.run(connection, elsewhere, covered).fetchall()]


def discard(connection: Connection, submission_ids: Sequence[int]) -> None:
    """Take back received submissions whose publish entries were refused: they have no leaf, their names are free."""
    if submission_ids:
        gone = [{"s": each} for each in submission_ids]
        connection.execute(_FORGET, gone)
        connection.execute(_DISCARD, gone)


def find(connection: Connection, namespace: str, project: str, filename: str) -> dict[str, Any] | None:
    """The submission that owns this (normalised) file name."""
    found = quick.mappings(connection, _NAMED, {"n": namespace, "p": project, "f": filename})
    return found[0] if found else None
