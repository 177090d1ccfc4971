"""Heads: the one row that decides which tree was signed last.

    UPDATE head SET body = :new ... WHERE origin = :origin AND body = :old
    -- must change exactly one row

The row holds the newest checkpoint that the log's keys signed. There is one history because there is one row:
a sequencer swaps the checkpoint it started from for the one it just signed, and whoever finds another body
there has lost. The loser's signature is destroyed with its transaction and never leaves the process.

A round of the log begins with `hold`, which locks the row until the transaction ends: on PostgreSQL, where
writers run side by side, two rounds take turns there. Whoever held it and was given up (a paused machine) finds
its transaction gone.

`create` is not `load`: a log begins once, by hand (`adopt`), so a lost database cannot silently begin a
second history under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from countermark_server import db, quick

# Statements are built once: building them costs more than running them.
_TABLE = db.head
_LOAD = select(_TABLE).where(_TABLE.c.origin == bindparam("o"))
_HOLD = _LOAD.with_for_update()  # SQLite has no such words: there the write transaction is the lock
_SWAP = (
    update(_TABLE)
    .where(
        _TABLE.c.origin == bindparam("o"),
        _TABLE.c.body == bindparam("old_body"),
        _TABLE.c.tree_size == bindparam("old_size"),
    )
    .values(
        body=bindparam("new_body"),
        tree_size=bindparam("new_size"),
        edge=bindparam("new_edge"),
        staging=bindparam("new_staging"),
    )
)
_APPLIED = (
    update(_TABLE)
    .where(
        _TABLE.c.origin == bindparam("o"),
        _TABLE.c.tree_size <= bindparam("size"),
        _TABLE.c.staging.is_not(None),
    )
    .values(staging=None)
)


class HeadLostError(Exception):
    """The head is not the one we started from: another sequencer moved it. Nothing was changed."""


class HeadExistsError(Exception):
    """This log was created already."""


@dataclass(frozen=True)
class Head:
    """The newest signed checkpoint of a log, and what is needed to go on from it."""

    origin: str
    body: str  # the signed note: the log's own lines only
    tree_size: int
    edge: bytes  # right edge of the tree, 32 bytes a peak, the largest first
    staging: str | None  # bundle not known to be applied to the public tree


def load(connection: Connection, origin: str) -> Head | None:
    """The head of this log, or None when the log was never created."""
    return _head(connection, _LOAD, origin)


def hold(connection: Connection, origin: str) -> Head | None:
    """The head of this log, and nobody else's to move until the caller's write transaction ends."""
    return _head(connection, _HOLD, origin)


def _head(connection: Connection, statement: Select[Any], origin: str) -> Head | None:
    found = quick.mappings(connection, statement, {"o": origin})
    if not found:
        return None
    (row,) = found
    return Head(row["origin"], row["body"], row["tree_size"], bytes(row["edge"]), row["staging"])


def check_held(connection: Connection, old: Head) -> None:
    """Lock the row and see that it still holds `old`. HeadLostError: somebody moved it; nothing was done."""
    held = hold(connection, old.origin)
    if held is None or (held.body, held.tree_size) != (old.body, old.tree_size):
        raise HeadLostError(_lost(old))


def _lost(old: Head) -> str:
    return (
        f"the head of {old.origin} is no longer the one at size {old.tree_size}: "
        "is another sequencer running?"
    )


def create(connection: Connection, head: Head) -> None:
    """Begin a log. HeadExistsError: it has begun already."""
    try:
        connection.execute(db.head.insert().values(**vars(head)))
    except IntegrityError:
        raise HeadExistsError(f"the log {head.origin} exists already") from None


def swap(connection: Connection, old: Head, new: Head) -> None:
    """Put `new` in the place of `old`, in the caller's transaction. HeadLostError: it is no longer there."""
    assert old.origin == new.origin
    was = {"o": old.origin, "old_body": old.body, "old_size": old.tree_size}
    becomes = {
        "new_body": new.body,
        "new_size": new.tree_size,
        "new_edge": new.edge,
        "new_staging": new.staging,
    }
    changed = quick.run(connection, _SWAP, {**was, **becomes})
    if changed.rowcount != 1:
        raise HeadLostError(_lost(old))


def applied(connection: Connection, origin: str, size: int) -> None:
    """Note that the tree of this size is public: a head of it needs no staging bundle, a newer one keeps its own."""
    quick.run(connection, _APPLIED, {"o": origin, "size": size})
