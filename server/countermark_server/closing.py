"""Closing: how a registry comes to its log's last entry. Three rooms and a command read and write one row.

    closing.begin(connection, origin, "successor", now=now)      the command: from here on no door takes anything
    closing.is_quiet(connection)                                 tufrepo: what was taken has come to its end
    closing.publish_last(connection, origin, candidate_id)       tufrepo: this publish is the one that will stay
    closing.find(connection, origin)                             doors, tufrepo, the command: how far is it?

The row is a promise of this machine, kept by its doors; what holds for everybody is the `log-freeze` entry, behind
which the rules allow nothing. So a lost row opens doors at most, and the log still refuses what comes through them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from countermark import rules
from countermark_server import db
from countermark_server.journey import State
from countermark_server.proposal import PENDING, SEQUENCED
from countermark_server.ruleview import SqlView

_TABLE = db.closing
_ONE = select(_TABLE).where(_TABLE.c.origin == bindparam("o"))
_WAITING = (State.RECEIVED, State.LOGGED, State.SCANNED, State.CLEARED)  # somebody still moves these
_SUBMISSIONS = select(db.submission.c.id).where(db.submission.c.state.in_(_WAITING)).limit(1)
_PROPOSALS = select(db.proposal.c.id).where(db.proposal.c.state.in_((PENDING, SEQUENCED))).limit(1)


@dataclass(frozen=True)
class Closing:
    """Since when, why, and the candidate of the last publish once there is one."""

    since: int
    reason: str
    last_candidate: int | None


def find(connection: Connection, origin: str) -> Closing | None:
    """The row, or None where nobody froze anything."""
    row = connection.execute(_ONE, {"o": origin}).mappings().first()
    return None if row is None else Closing(row["since"], row["reason"], row["last_candidate"])


def frozen(connection: Connection) -> int | None:
    """The index of the entry that froze the log; None while it grows."""
    log = SqlView(connection, db.rules_state).get(rules.LOG)
    index: int | None = None if log is None else log.get("frozen")
    return index


def begin(connection: Connection, origin: str, reason: str, *, now: int) -> Closing:
    """Close the doors; one that was begun before goes on, with its own reason."""
    if (found := find(connection, origin)) is not None:
        return found
    connection.execute(_TABLE.insert().values(origin=origin, since=now, reason=reason))
    return Closing(now, reason, None)


def cancel(connection: Connection, origin: str) -> None:
    """Open the doors again."""
    connection.execute(_TABLE.delete().where(_TABLE.c.origin == origin))


def is_quiet(connection: Connection) -> bool:
    """Whether nothing that was taken still moves by itself: what people decide may wait for ever."""
    log = SqlView(connection, db.rules_state).get(rules.LOG)
    history = None if log is None else log.get("import")
    if history is not None and history["left"]:
        return False
    return all(connection.execute(query).first() is None for query in (_PROPOSALS, _SUBMISSIONS))


def publish_last(connection: Connection, origin: str, candidate_id: int | None) -> None:
    """Note which publish will stay; None: there is to be another."""
    connection.execute(update(_TABLE).where(_TABLE.c.origin == origin).values(last_candidate=candidate_id))
