"""Asking the log: would it take this entry, and has it? The two questions every door has.

`foresee` asks the log's own rules against the newest state, in a read transaction, before anything is stored: a
refusal then leaves nothing behind. Only the sequencer's answer counts, since others may be first; it runs the same
function. `wait_for` looks until a proposal is published, refused, or patience ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine

from countermark import rules
from countermark.entry import make_entry
from countermark.errors import CountermarkError
from countermark.rules_state import State, holder_key, settled
from countermark.statement import Envelope
from countermark_server import db, proposal
from countermark_server.errors import ServerError, from_rule
from countermark_server.ruleview import SqlView

FIRST_LOOK = 0.002  # seconds; a quick log publishes within some milliseconds ...
LAST_LOOK = 0.025  # ... and a slow one need not be asked more often than this


def foresee(
    connection: Connection, type_: str, envelope: Envelope, registry: Mapping[str, Any], *, now: int
) -> None:
    """Raise the refusal that the log's rules would give this entry now."""
    view = SqlView(connection, db.rules_state)
    log = view.get(("log",))
    if log is None or not log["size"]:
        raise ServerError(
            "unavailable", "the log has not begun yet: its first entries enrol the registry's keys"
        )
    try:
        entry = make_entry(type=type_, envelope=envelope, registry=registry, time=max(now, log["time"]))
    except CountermarkError as error:
        raise ServerError("statement-invalid", str(error)) from None
    result = rules.apply(view, entry)
    if isinstance(result, rules.Broken):
        raise from_rule(result.code, result.message)


def holder_state(connection: Connection, namespace: str, project: str, *, now: int) -> State | None:
    """The project (or namespace, where the project is empty) as the rules see it now; None: unknown to the log."""
    state = SqlView(connection, db.rules_state).get(holder_key(namespace, project))
    return None if state is None else settled(state, now)


def wait_for(
    engine: Engine, proposal_id: int, *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> proposal.Outcome:
    """The proposal's outcome, once it is settled or `seconds` have passed. ServerError: the rules refused it."""
    deadline, pause = time.monotonic() + seconds, FIRST_LOOK
    while True:
        with db.read(engine) as connection:
            outcome = proposal.outcome(connection, proposal_id)
        if outcome.state == proposal.REFUSED:
            raise from_rule(outcome.refusal_code or "entry-refused", outcome.refusal or "refused by the log")
        if outcome.settled or time.monotonic() >= deadline:
            return outcome
        sleep(pause)
        pause = min(pause * 1.5, LAST_LOOK)
