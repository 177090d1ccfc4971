"""The journey of an upload: READ THIS FIRST.

    received -> logged -> scanned -> cleared -> listed
                             |          ^
                             v          |
                            held -------+----> rejected

A *submission* is one artifact on its way into the registry. Each state has one room that moves it on; no room
calls another: work is handed over by a row that changes state. `submission.py` refuses every move that is not
in `MOVES`.

An imported file has its leaf before anybody here has its bytes. When they come and match, it begins at `logged`.

The journey ends at `listed` or `rejected`. What happens to a file afterwards (yanked, held, removed) is its
*standing*, a pure function of its entries in the log (`countermark.rules`), and no state here.

Log first, then scan: what was accepted is committed publicly before anyone can install it, so a refusal is
accountable and the publisher has a proof in the same request. (Design, section 3.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a submission stands. The order is the order of the journey; two are the siding."""

    RECEIVED = "received"
    LOGGED = "logged"
    SCANNED = "scanned"
    CLEARED = "cleared"
    LISTED = "listed"
    HELD = "held"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Station:
    """Who moves a submission out of a state, and in which room that happens."""

    room: str
    does: str


STATIONS: dict[State, Station] = {
    State.RECEIVED: Station(
        "log", "sequences the publish entry, integrates it, publishes a cosigned checkpoint"
    ),
    State.LOGGED: Station("scan", "examines the artifact in a sandbox and proposes a verdict entry"),
    State.SCANNED: Station("scan", "waits until the verdict is published, then clears or holds"),
    State.CLEARED: Station("tufrepo", "writes the target into its bin and waits for the timestamp"),
    State.HELD: Station("moderation", "a person decides: clear or reject, by a logged entry"),
}

MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        (State.RECEIVED, State.LOGGED),
        (State.LOGGED, State.SCANNED),
        (State.SCANNED, State.CLEARED),
        (State.SCANNED, State.HELD),
        (State.CLEARED, State.LISTED),
        (State.CLEARED, State.HELD),  # a hold entry overtook the listing
        (State.HELD, State.CLEARED),
        (State.HELD, State.REJECTED),
    }
)

ENDS: frozenset[State] = frozenset({State.LISTED, State.REJECTED})

SAID: dict[State, str] = {
    State.RECEIVED: "received, waiting for its place in the log",
    State.LOGGED: "logged, not yet listed: waiting for the scan",
    State.SCANNED: "logged, not yet listed: the verdict is on its way into the log",
    State.CLEARED: "logged and cleared, not yet listed: waiting for the next TUF timestamp",
    State.LISTED: "listed: in the log, in TUF metadata and on the simple index",
    State.HELD: "logged, held for a moderator's decision",
    State.REJECTED: "logged, rejected; the filename is spent",
}


def is_legal(old: State, new: State) -> bool:
    """Whether the journey allows this move."""
    return (old, new) in MOVES
