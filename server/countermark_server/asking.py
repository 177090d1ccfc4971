"""Asking the log: would it take this entry, and has it? The two questions every door has.

`foresee` asks the log's own rules against the newest state, in a read transaction, before anything is stored: a
refusal then leaves nothing behind. Only the sequencer's answer counts, since others may be first; it runs the same
function. `Answers.wait_for` waits until a proposal is published, refused, or patience ends.

What is public is what a public checkpoint covers. Who is given `public_size` looks for themselves, and answers before
the log has written that down; others wait for the row that says it, with which a submission goes on its journey.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from countermark import rules
from countermark.entry import Entry, make_entry
from countermark.errors import CountermarkError
from countermark.rules_state import State, holder_key, settled
from countermark.statement import Envelope
from countermark_server import db, proposal
from countermark_server.bells import Bell
from countermark_server.errors import ServerError, from_rule
from countermark_server.news import News
from countermark_server.ruleview import SqlView
from countermark_server.together import Told

LOOK = 0.002  # seconds between two looks at the least; the log publishes within some milliseconds
DEAF = 3  # times that there was something to hear and nothing heard: then nobody rings
PATIENCE = 0.05  # seconds without a look while the log rings for what it has settled


def foresee(
    connection: Connection, type_: str, envelope: Envelope, registry: Mapping[str, Any], *, now: int
) -> None:
    """Raise the refusal that the log's rules would give this entry now."""
    view = SqlView(connection, db.rules_state)
    (refusal,) = foresee_all(view, [proposal.Offer(type_, envelope, registry)], now=now)
    if refusal is not None:
        raise refusal


def foresee_all(
    view: SqlView, offers: Sequence[proposal.Offer], *, now: int, fetched: bool = False
) -> list[ServerError | None]:
    """What the rules would say of each, were they taken in this order: None, or the refusal.

    `fetched`: the view has what they touch, so that nobody need find out twice what that is.

    Nothing is written: their changes are dropped with the view, which nobody may `flush`.
    """
    log = view.get(rules.LOG)
    if log is None or not log["size"]:
        raise ServerError(
            "unavailable", "the log has not begun yet: its first entries enrol the registry's keys"
        )
    time = max(now, log["time"])
    entries = [_formed(offer, time=time) for offer in offers]
    if not fetched:
        view.fetch(key for entry in entries if isinstance(entry, Entry) for key in rules.keys(entry))
    return [entry if isinstance(entry, ServerError) else _foresee(view, entry) for entry in entries]


def _formed(offer: proposal.Offer, *, time: int) -> Entry | ServerError:
    try:
        return make_entry(
            type=offer.type,
            envelope=offer.envelope,
            registry=offer.registry,
            time=time,
            statement=offer.statement,
        )
    except CountermarkError as error:
        return ServerError("statement-invalid", str(error))


def _foresee(view: SqlView, entry: Entry) -> ServerError | None:
    try:
        result = rules.apply(view, entry)
    except CountermarkError as error:
        return ServerError("statement-invalid", str(error))
    if isinstance(result, rules.Broken):
        return from_rule(result.code, result.message)
    for key, value in result.writes.items():
        view.put(key, value)
    return None


def busy(waiting: int, most: int) -> ServerError:
    """The refusal of a request with more entries than there are places."""
    return ServerError(
        "busy",
        f"{waiting} entries wait for the log, which keeps at most {most} waiting; nothing of this request was taken",
    )


def no_room(most: int) -> ServerError:
    """The refusal of one request that found no place beside others."""
    return ServerError(
        "busy",
        f"{most} entries wait for the log, which keeps no more waiting; nothing of this request was taken",
    )


def holder_state(connection: Connection, namespace: str, project: str, *, now: int) -> State | None:
    """The project (or namespace, where the project is empty) as the rules see it now; None: unknown to the log."""
    return holder_in(SqlView(connection, db.rules_state), namespace, project, now=now)


def holder_in(view: SqlView, namespace: str, project: str, *, now: int) -> State | None:
    """The same, in a view that is at hand."""
    state = view.get(holder_key(namespace, project))
    return None if state is None else settled(state, now)


def one_run_index(view: SqlView, namespace: str, project: str, keyid: str) -> int | None:
    """The enrolment of a CI job's key, which no project lists; the rules judge whether it lives."""
    enrolment = view.get(("enrolment", namespace, project, keyid))
    return enrolment["index"] if enrolment is not None and enrolment["scope"] == "ci" else None


def refusal_of(outcome: proposal.Outcome) -> ServerError:
    """Why the log did not take it."""
    return from_rule(outcome.refusal_code or "entry-refused", outcome.refusal or "refused by the log")


def taken(outcome: proposal.Outcome) -> proposal.Outcome:
    """The same. ServerError: the rules refused it."""
    if outcome.state == proposal.REFUSED:
        raise refusal_of(outcome)
    return outcome


class Expected(Told):
    """The outcome of one proposal, which somebody waits for."""

    def __init__(self, proposal_id: int, deadline: float) -> None:
        super().__init__()
        self.proposal_id = proposal_id
        self.deadline = deadline  # by the clock that never jumps; then it is told without an outcome
        self.outcome: proposal.Outcome | None = None
        self.error: BaseException | None = None


class Answers:
    """What the log answers to proposals, for all threads of a process that wait for one.

    One thread looks for all of them, and only while somebody waits: a hundred waiting uploads cost no more looks
    than one, and hear of a publication within milliseconds. With a bell the log says when to look; where it was
    not heard although there was something to hear, again and again, the thread looks by itself until it rings.

    `public_size`: of the checkpoint that everybody reads, once it is verified.
    """

    def __init__(
        self, engine: Engine, bell: Bell | None = None, *, public_size: Callable[[], int] = lambda: 0
    ) -> None:
        self._engine = engine
        self._bell = bell
        self._settled = partial(proposal.settled, public_size=public_size)
        self._news = threading.Condition()
        self._waiting: set[Expected] = set()
        self._watcher: threading.Thread | None = None

    def wait_for(self, proposal_id: int, *, seconds: float) -> proposal.Outcome:
        """The proposal's outcome, once settled or after `seconds`. ServerError: the rules refused it."""
        return taken(self.outcome(proposal_id, seconds=seconds))

    def outcomes(self, proposal_ids: Sequence[int], *, seconds: float) -> dict[int, proposal.Outcome]:
        """What became of these, proposed together, once all are settled or after `seconds`."""
        deadline, found = time.monotonic() + seconds, dict[int, proposal.Outcome]()
        while missing := [each for each in proposal_ids if each not in found]:
            # The log settles in the order of ids, but for refusals, which it knows at once: the last one that
            # is not settled is the last to be.
            last = self.outcome(missing[-1], seconds=max(0.0, deadline - time.monotonic()))
            found[missing[-1]] = last
            if len(missing) == 1:
                break
            with db.read(self._engine) as connection:
                found.update(self._settled(connection, missing))
                if not last.settled or time.monotonic() >= deadline:
                    late = [each for each in missing if each not in found]
                    return found | {each: proposal.outcome(connection, each) for each in late}
        return found

    def outcome(self, proposal_id: int, *, seconds: float) -> proposal.Outcome:
        """The proposal's outcome, refused ones too, once settled or after `seconds`."""
        (expected,) = self.expect([proposal_id], seconds=seconds)
        told = threading.Lock()  # held until there is something to tell: the cheapest way to wait once
        told.acquire()
        expected.then(told.release)
        if not told.acquire(timeout=seconds):
            with self._news:
                self._waiting.discard(expected)
        return self.heard(expected)

    def expect(self, proposal_ids: Sequence[int], *, seconds: float) -> list[Expected]:
        """Look for these, which are committed, from now on: each is told once it is settled, or after `seconds`."""
        deadline = time.monotonic() + seconds
        expected = [Expected(each, deadline) for each in proposal_ids]
        if not expected:
            return expected
        with self._news:
            self._waiting.update(expected)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="answers", daemon=True)
                self._watcher.start()
            self._news.notify()
        if self._bell is not None:
            self._bell.ring()  # what we wait for is committed: the log need not wait for its next look
        return expected

    def heard(self, expected: Expected) -> proposal.Outcome:
        """The outcome that was told; what is known so far, where nobody told one in time."""
        if expected.error is not None:
            raise expected.error
        if expected.outcome is None:
            with db.read(self._engine) as connection:
                return proposal.outcome(connection, expected.proposal_id)
        return expected.outcome

    def _watch(self) -> None:
        """Look while anybody waits, for ever; an error goes to everybody who does, and ends it until the next."""
        news, asked = News(self._engine), set[Expected]()
        pace, unheard = LOOK, DEAF
        try:
            while True:
                with self._news:
                    if not self._waiting:
                        news.close()
                        self._news.wait_for(lambda: self._waiting)
                rung = self._wait(pace, PATIENCE if unheard < DEAF else pace)
                with self._news:
                    wanted = set(self._waiting)
                begun = time.thread_time()
                told = 0
                # Somebody new may have been answered before we knew of them.
                if rung or self._is_worth_a_look(news, wanted, asked):
                    told = self._tell(news, wanted)
                asked = wanted
                now = time.monotonic()
                self._give([each for each in wanted if each.outcome is None and each.deadline <= now], {})
                unheard = 0 if rung else unheard + (told > 0)
                # A look costs as much as a request: under load never more than a tenth of this thread's time.
                pace = max(LOOK, 9 * (time.thread_time() - begun))
        except BaseException as error:
            with self._news:
                self._watcher = None
                failed, self._waiting = self._waiting, set()
            for waiting in failed:
                waiting.error = error
                waiting.tell()
        finally:
            news.close()

    def _is_worth_a_look(self, news: News, wanted: set[Expected], asked: set[Expected]) -> bool:
        """Whether anything may be settled that nobody rang for: a question cheaper than one about all of them."""
        if news.cheap:
            return news.any() or not wanted <= asked
        first = min((each.proposal_id for each in wanted), default=0)  # the log goes by their order
        return bool(news.ask(partial(self._settled, proposal_ids=(first,))))

    def _wait(self, least: float, most: float) -> bool:
        """Wait for the bell; at least so long, however often it rings, and no longer than `most`. True: it rang."""
        if self._bell is None:
            time.sleep(least)
            return False
        begun = time.monotonic()
        rung = self._bell.wait(max(least, most))
        time.sleep(max(0.0, least - (time.monotonic() - begun)))
        return rung

    def _tell(self, news: News, wanted: set[Expected]) -> int:
        """Give those of them their outcome who have one; how many."""
        ids = {waiting.proposal_id for waiting in wanted}
        outcomes = news.ask(partial(self._settled, proposal_ids=ids))
        told = [waiting for waiting in wanted if waiting.proposal_id in outcomes]
        self._give(told, outcomes)
        return len(told)

    def _give(self, told: Sequence[Expected], outcomes: Mapping[int, proposal.Outcome]) -> None:
        with self._news:
            self._waiting.difference_update(told)
        for waiting in told:
            waiting.outcome = outcomes.get(waiting.proposal_id)
            waiting.tell()
