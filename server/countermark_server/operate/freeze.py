"""`freeze`: the log's last entry, after everything that was taken has come to its end. The registry runs meanwhile.

    done = freeze(settings, "successor", ...)       # FrozenLog; NetworkError: not yet, run it again

    (1) The doors close: a row that web processes read (closing.py). Nothing new comes in.
    (2) Log and scan finish what was taken; what a person must decide about stays as it is.
    (3) tufrepo publishes bins and snapshot once more, good for as long as the offline roles are; it is timestamped.
    (4) The `log-freeze` entry is proposed. It follows the newest `tuf` entry, and behind it the rules allow nothing.
    (5) A cosigned checkpoint covers it: the final one. Cosignatures and timestamps go on over the same tree.

Each step is a row or an entry that is there or not, so the command may be killed at any moment and run again; until
(4) it can be taken back. Whoever reads the log sees (4): a later entry breaks the rules in every reader's eyes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, select

from countermark import rules
from countermark.errors import NetworkError, UsageError
from countermark.statement import Signer, Statement, sign
from countermark.tlog.checkpoint import open_checkpoint
from countermark_server import adopted, closing, db, proposal, signing
from countermark_server.ruleview import SqlView
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.stores.public import CHECKPOINT
from countermark_server.tufrepo import store

LOOK = 0.1  # seconds between two looks
TYPE = "log-freeze"
_OPEN = select(db.proposal.c.id).where(
    db.proposal.c.type == TYPE, db.proposal.c.state.in_((proposal.PENDING, proposal.SEQUENCED))
)


@dataclass(frozen=True)
class FrozenLog:
    """A log that has ended: its final tree, and the entry that says so."""

    origin: str
    tree_size: int
    root_hash: str
    entry: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def freeze(
    settings: Settings,
    reason: str,
    *,
    patience: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> FrozenLog:
    """Freeze the log, or go on where an earlier call stopped. NetworkError: `patience` seconds were not enough."""
    if settings.testing.raw_add:
        raise UsageError(
            "a log of raw bytes has no entry that could freeze it", hint="stop it, and keep the folder"
        )
    engine, origin = db.open_engine(settings.database_url), settings.registry.origin
    signer = signing.role_signer(settings, "moderation")
    until, told = clock() + patience, ""
    try:
        with db.write(engine) as connection:
            begun = closing.begin(connection, origin, reason, now=int(clock()))  # (1)
        # Closed. If we stop here doors refuse, tufrepo goes on to its last publish, and this command goes on later.
        while True:
            waits = _step(engine, signer, origin, begun.reason, now=int(clock()))
            if waits is None and (done := _final(settings, engine)) is not None:
                return done
            if clock() >= until:
                raise NetworkError(
                    f"not frozen yet: {waits or 'the final checkpoint is not public'}",
                    hint="are log, scan, tufrepo and timestamper running? then run this again",
                )
            if waits and waits != told:
                say(told := waits)
            wait(LOOK)
    finally:
        engine.dispose()


def cancel(settings: Settings) -> None:
    """Open the doors again. UsageError: the entry is in the log, or on its way."""
    engine = db.open_engine(settings.database_url)
    try:
        with db.write(engine) as connection:
            if closing.frozen(connection) is not None or connection.execute(_OPEN).first() is not None:
                raise UsageError("the log is frozen by an entry: nothing takes that back")
            closing.cancel(connection, settings.registry.origin)
    finally:
        engine.dispose()


def _step(engine: Engine, signer: Signer, origin: str, reason: str, *, now: int) -> str | None:
    """(2) to (4): propose the entry once everything is quiet; what is waited for, or None."""
    with db.write(engine) as connection:
        if closing.frozen(connection) is not None or connection.execute(_OPEN).first() is not None:
            return None
        found = closing.find(connection, origin)
        if found is None:
            raise UsageError("somebody opened the doors again")
        if found.last_candidate is None:
            return "waiting for what was taken before: the log, the scan, and the last TUF publish"
        if store.newest_state(connection) != store.TIMESTAMPED:
            return "waiting for the timestamp of the last TUF publish"
        log = SqlView(connection, db.rules_state).get(rules.LOG)
        assert log is not None  # a candidate was timestamped
        if not closing.is_quiet(connection) or log["applied"] + 1 != log["size"]:
            return "waiting for entries that came in behind the last TUF publish"
        _propose(connection, signer, origin, reason, now=now)
    # Proposed. If we stop here the log takes the entry all the same.
    return None


def _propose(connection: Connection, signer: Signer, origin: str, reason: str, *, now: int) -> None:
    log = SqlView(connection, db.rules_state).get(rules.LOG)
    assert log is not None and log["tuf"] is not None  # a candidate was timestamped
    predicate = {
        "origin": origin,
        "namespace": "",
        "project": "",
        "prev": log["tuf"]["head"],
        "reason": reason,
    }
    envelope = sign(Statement.about(f"log:{origin}", TYPE, predicate), signer).to_dict()
    proposal.propose(connection, TYPE, envelope, {"case": None}, now=now)


def _final(settings: Settings, engine: Engine) -> FrozenLog | None:
    """(5) The final checkpoint, once it is public."""
    with db.read(engine) as connection:
        entry = closing.frozen(connection)
    public = places.public(settings)
    raw = public.read(CHECKPOINT)
    if entry is None or raw is None:
        return None
    checkpoint = open_checkpoint(raw, adopted.trust_file(public).policy, now=None)
    if checkpoint.size <= entry:
        return None
    return FrozenLog(checkpoint.origin, checkpoint.size, checkpoint.root_hash.hex(), entry)
