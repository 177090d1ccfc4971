"""Asking the log: would it take this entry, and has it? The two questions every door has.

`foresee` asks the log's own rules against the newest state, in a read transaction, before anything is stored: a
refusal then leaves nothing behind. Only the sequencer's answer counts, since others may be first; it runs the same
function. `Answers.wait_for` waits until a proposal is published, refused, or patience ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
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

LOOK = 0.002  # seconds between two looks; the log publishes within some milliseconds


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


class Answers:
    """What the log answers to proposals, for all threads of a process that wait for one.

    One thread looks for all of them, and only while somebody waits: a hundred waiting uploads cost no more looks
    than one, and hear of a publication within milliseconds.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._waiting: dict[Future[proposal.Outcome], int] = {}
        self._watching = False

    def wait_for(self, proposal_id: int, *, seconds: float) -> proposal.Outcome:
        """The proposal's outcome, once settled or after `seconds`. ServerError: the rules refused it."""
        future = Future[proposal.Outcome]()
        with self._lock:
            self._waiting[future] = proposal_id
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="answers", daemon=True).start()
        try:
            outcome = future.result(seconds)
        except FutureTimeoutError:
            with db.read(self._engine) as connection:
                outcome = proposal.outcome(connection, proposal_id)
        finally:
            with self._lock:
                self._waiting.pop(future, None)
        if outcome.state == proposal.REFUSED:
            raise from_rule(outcome.refusal_code or "entry-refused", outcome.refusal or "refused by the log")
        return outcome

    def _watch(self) -> None:
        """Look until nobody waits; an error goes to everybody who does."""
        news, asked = db.News(self._engine), set[int]()
        try:
            while True:
                with self._lock:
                    wanted = set(self._waiting.values())
                    if not wanted:
                        self._watching = False
                        return
                # Somebody new may have been answered before we knew of them.
                if news.any() or not wanted <= asked:
                    self._tell(wanted)
                asked = wanted
                time.sleep(LOOK)
        except BaseException as error:
            with self._lock:
                self._watching = False
                futures, self._waiting = list(self._waiting), {}
            for future in futures:
                future.set_exception(error)
        finally:
            news.close()

    def _tell(self, wanted: set[int]) -> None:
        with db.read(self._engine) as connection:
            outcomes = proposal.settled(connection, wanted)
        with self._lock:
            told = [(f, outcomes[p]) for f, p in self._waiting.items() if p in outcomes]
            for future, _ in told:
                del self._waiting[future]
        for future, outcome in told:
            future.set_result(outcome)
