"""Asking the log: would it take this entry, and has it? The two questions every door has.

`foresee` asks the log's own rules against the newest state, in a read transaction, before anything is stored: a
refusal then leaves nothing behind. Only the sequencer's answer counts, since others may be first; it runs the same
function. `Answers.wait_for` waits until a proposal is published, refused, or patience ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
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
    (refusal,) = foresee_all(connection, [proposal.Offer(type_, envelope, registry)], now=now)
    if refusal is not None:
        raise refusal


def foresee_all(
    connection: Connection, offers: Sequence[proposal.Offer], *, now: int
) -> list[ServerError | None]:
    """What the rules would say of each, were they taken in this order: None, or the refusal. Nothing is written."""
    view = SqlView(connection, db.rules_state)  # its changes are dropped with it: nobody calls `flush`
    log = view.get(("log",))
    if log is None or not log["size"]:
        raise ServerError(
            "unavailable", "the log has not begun yet: its first entries enrol the registry's keys"
        )
    return [_foresee(view, offer, time=max(now, log["time"])) for offer in offers]


def _foresee(view: SqlView, offer: proposal.Offer, *, time: int) -> ServerError | None:
    try:
        entry = make_entry(type=offer.type, envelope=offer.envelope, registry=offer.registry, time=time)
        result = rules.apply(view, entry)
    except CountermarkError as error:
        return ServerError("statement-invalid", str(error))
    if isinstance(result, rules.Broken):
        return from_rule(result.code, result.message)
    for key, value in result.writes.items():
        view.put(key, value)
    return None


def make_room(connection: Connection, adding: int, *, most: int) -> None:
    """ServerError `busy` when so many more proposals would be too many; the caller's transaction ends with it."""
    try:
        proposal.check_room(connection, adding, most=most)
    except proposal.QueueFullError as error:
        raise ServerError("busy", f"{error}; nothing of this request was taken") from None


def holder_state(connection: Connection, namespace: str, project: str, *, now: int) -> State | None:
    """The project (or namespace, where the project is empty) as the rules see it now; None: unknown to the log."""
    state = SqlView(connection, db.rules_state).get(holder_key(namespace, project))
    return None if state is None else settled(state, now)


def refusal_of(outcome: proposal.Outcome) -> ServerError:
    """Why the log did not take it."""
    return from_rule(outcome.refusal_code or "entry-refused", outcome.refusal or "refused by the log")


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
        outcome = self.outcome(proposal_id, seconds=seconds)
        if outcome.state == proposal.REFUSED:
            raise refusal_of(outcome)
        return outcome

    def outcomes(self, proposal_ids: Sequence[int], *, seconds: float) -> dict[int, proposal.Outcome]:
        """What became of these, proposed together, once all are settled or after `seconds`."""
        deadline, found = time.monotonic() + seconds, dict[int, proposal.Outcome]()
        while missing := [each for each in proposal_ids if each not in found]:
            # The log settles in the order of ids, but for refusals, which it knows at once: the last one that
            # is not settled is the last to be.
            last = self.outcome(missing[-1], seconds=max(0.0, deadline - time.monotonic()))
            with db.read(self._engine) as connection:
                found.update(proposal.settled(connection, missing))
                if not last.settled or time.monotonic() >= deadline:
                    late = [each for each in missing if each not in found]
                    return found | {each: proposal.outcome(connection, each) for each in late}
        return found

    def outcome(self, proposal_id: int, *, seconds: float) -> proposal.Outcome:
        """The proposal's outcome, refused ones too, once settled or after `seconds`."""
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
