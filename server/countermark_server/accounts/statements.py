"""Statements at the doors of this room: read one, foresee the log's answer, propose, wait for its place.

    {"envelope": {"payload": ..., "signatures": [...]}}     ->     {"index": 31, "leaf_hash": "9f2c...", "proof": ...}

Whoever sends a statement has signed it elsewhere; here nothing is signed in anybody's place. A statement that the
rules would refuse is refused before anything is stored. Without a proof in the answer it is durable and on its way.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine

from countermark.entry import check_statement
from countermark.errors import MalformedError
from countermark.rules import file_key
from countermark.statement import Envelope, Statement
from countermark_server import db, proposal
from countermark_server.allowance import Cost, check_allowance
from countermark_server.asking import Answers, Expected, busy, foresee_all, no_room, refusal_of
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.settings import Limits


@dataclass(frozen=True)
class Placed:
    """Where a statement stands in the log. Not public: durable and on its way, ask again by its proposal."""

    public: bool
    index: int | None
    leaf_hash: str | None
    proposal: int | None  # None: the log had this file before


Judged: TypeAlias = Offer | Placed | ServerError  # an offer that would be taken, or its answer already


class Statements:
    """Takes statements to the log."""

    def __init__(
        self,
        engine: Engine,
        published: Published,
        answers: Answers,
        *,
        origin: str,
        wait: float,
        queue_max: int,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._published = published
        self._answers = answers
        self._origin = origin
        self._wait = wait
        self._queue_max = queue_max
        self._limits = limits
        self._clock = clock

    def read(self, body: object, *, types: Collection[str], what: str) -> tuple[Envelope, Statement]:
        """The statement in a request's body, of one of these types and for this registry."""
        given = body.get("envelope") if isinstance(body, Mapping) else None
        if not isinstance(given, Mapping) or (isinstance(body, Mapping) and body.keys() != {"envelope"}):
            raise ServerError("bad-request", 'the body must be {"envelope": {...}}')
        try:
            envelope = Envelope.parse(given)
            statement = Statement.parse(envelope.payload)
            check_statement(statement)
        except MalformedError as error:
            raise ServerError("statement-invalid", f"{what}: {error}") from None
        if statement.type not in types:
            raise ServerError(
                "statement-invalid", f"this door takes {', '.join(types)}, not a {statement.type} statement"
            )
        if statement.predicate["origin"] != self._origin:
            raise ServerError(
                "statement-mismatch",
                f"{what} says origin {statement.predicate['origin']!r}, this registry is {self._origin!r}",
            )
        return envelope, statement

    def place(
        self,
        type_: str,
        envelope: Envelope,
        registry: Mapping[str, Any],
        cost: Cost,
        *,
        beside: Callable[[Connection], None] = lambda _: None,
    ) -> Placed:
        """Propose an entry that the rules would take now, and wait for its place in the log.

        `beside` writes what belongs to it in the same transaction.
        """
        offer, now = Offer(type_, envelope, registry, cost=cost), int(self._clock())
        with db.read(self._engine) as connection:
            (judged,) = self.judge(SqlView(connection, db.rules_state), [offer], now=now)
        if isinstance(judged, ServerError):
            raise judged
        with db.write(self._engine) as connection:
            (taken,) = self.take_in(connection, [judged], now=now, all_or_none=True)
            if isinstance(taken, ServerError):
                raise taken
            beside(connection)
        # Committed. If we stop here the log takes the entry all the same, and the sender finds it there.
        (done,) = self.finish([offer], [taken])
        if isinstance(done, ServerError):
            raise done
        return done

    def judge(
        self, view: SqlView, asked: Sequence[Offer | ServerError], *, now: int, fetched: bool = False
    ) -> list[Judged]:
        """What each would be answered, were they proposed together: still the offer, if the rules would take it.

        What is refused already stays refused. A file that the log has, with the same bytes, is answered like the
        first time.
        """
        offers = [each for each in asked if isinstance(each, Offer)]
        refusals = iter(foresee_all(view, offers, now=now, fetched=fetched) if offers else [])
        judged = list[Judged]()
        for each in asked:
            refusal = each if isinstance(each, ServerError) else next(refusals)
            if refusal is None or isinstance(each, ServerError):
                judged.append(each)
            else:
                judged.append(self._known(view, each, refusal))
        return judged

    def take(self, judged: Sequence[Judged], *, now: int, all_or_none: bool) -> list[Placed | ServerError]:
        """Propose the offers among these, in one transaction; each is now on its way.

        ServerError `busy`: there is no room for all of them, and none was taken; without `all_or_none` those who
        find no room are answered so, one by one.
        """
        if not any(isinstance(each, Offer) for each in judged):
            return [each for each in judged if not isinstance(each, Offer)]
        with db.write(self._engine) as connection:
            return self.take_in(connection, judged, now=now, all_or_none=all_or_none)
        # Committed. If we stop here the log takes the entries all the same, and the sender finds them there.

    def take_in(
        self, connection: Connection, judged: Sequence[Judged], *, now: int, all_or_none: bool
    ) -> list[Placed | ServerError]:
        """The same, in the caller's transaction."""
        judged = self._allowed(connection, judged, now=now)
        offers = [each for each in judged if isinstance(each, Offer)]
        left = proposal.room(connection, most=self._queue_max) if offers else 0
        if all_or_none and len(offers) > left:
            raise busy(self._queue_max - left, self._queue_max)
        ids = iter(proposal.propose_all(connection, offers[: max(left, 0)], now=now))
        answers = list[Placed | ServerError]()
        for each in judged:
            if not isinstance(each, Offer):
                answers.append(each)
            elif (given := next(ids, None)) is not None:
                answers.append(Placed(False, None, None, given))
            else:
                answers.append(no_room(self._queue_max))
        return answers

    def _allowed(self, connection: Connection, judged: Sequence[Judged], *, now: int) -> Sequence[Judged]:
        """The same, without the offers of accounts that may cause no more entries today."""
        costs: dict[str, list[Cost]] = {}
        for each in judged:
            if isinstance(each, Offer) and each.cost is not None:
                costs.setdefault(each.cost.account_id, []).append(each.cost)
        refused: dict[str, ServerError] = {}
        for account_id, asked in costs.items():
            try:
                check_allowance(connection, self._limits, asked, now=now)
            except ServerError as error:
                refused[account_id] = error
        if not refused:
            return judged
        return [
            refused.get(each.cost.account_id, each) if isinstance(each, Offer) and each.cost else each
            for each in judged
        ]

    def finish(
        self, asked: Sequence[Offer | ServerError], taken: Sequence[Placed | ServerError]
    ) -> list[Placed | ServerError]:
        """Wait once for all that are on their way; an answer for each, in order."""
        waited = _on_their_way(taken)
        return self._told(asked, taken, self._answers.outcomes(waited, seconds=self._wait) if waited else {})

    def expect(self, taken: Sequence[Placed | ServerError]) -> list[Expected | None]:
        """What each of these that is on its way waits for, from now on."""
        expected = {
            each.proposal_id: each for each in self._answers.expect(_on_their_way(taken), seconds=self._wait)
        }
        return [expected.get(each.proposal or 0) if isinstance(each, Placed) else None for each in taken]

    def answered(
        self, asked: Offer | ServerError, taken: Placed | ServerError, expected: Expected | None
    ) -> Placed | ServerError:
        """The answer, once what it waited for was told."""
        outcomes = {} if expected is None else {expected.proposal_id: self._answers.heard(expected)}
        (done,) = self._told([asked], [taken], outcomes)
        return done

    def _told(
        self,
        asked: Sequence[Offer | ServerError],
        taken: Sequence[Placed | ServerError],
        outcomes: Mapping[int, proposal.Outcome],
    ) -> list[Placed | ServerError]:
        refused = any(outcome.state == proposal.REFUSED for outcome in outcomes.values())
        # Only who was refused meanwhile needs another look: the log may have taken the same file from another.
        with db.read(self._engine) if refused else nullcontext() as connection:
            return [
                self._answer(connection, offer, each, outcomes)
                for offer, each in zip(asked, taken, strict=True)
            ]

    def _answer(
        self,
        connection: Connection | None,
        offer: Offer | ServerError,
        taken: Placed | ServerError,
        outcomes: Mapping[int, proposal.Outcome],
    ) -> Placed | ServerError:
        if isinstance(taken, ServerError) or taken.proposal is None:
            return taken
        outcome = outcomes[taken.proposal]
        if outcome.state != proposal.REFUSED:
            return _placed(taken.proposal, outcome)
        assert connection is not None
        assert isinstance(offer, Offer)
        return self._known(SqlView(connection, db.rules_state), offer, refusal_of(outcome))

    def status(self, asked_id: int) -> Placed:
        """What became of a proposal. ServerError: it was refused, or never made."""
        try:
            with db.read(self._engine) as connection:
                outcome = proposal.outcome(connection, asked_id, public_size=self._published.size)
        except LookupError:
            raise ServerError("not-found", f"no entry was ever proposed under {asked_id}") from None
        if outcome.state == proposal.REFUSED:
            raise refusal_of(outcome)
        return _placed(asked_id, outcome)

    def proof(self, placed: Placed) -> str | None:
        """The proof of one entry as a .tlog-proof; None: not public yet."""
        if not placed.public or placed.index is None or placed.leaf_hash is None:
            return None
        return self._published.prove(placed.index, placed.leaf_hash).decode()

    def proofs(self, placed: Sequence[Placed]) -> tuple[str | None, list[list[str]]]:
        """One checkpoint, and the hashes in base64 that lead to it from each of these public entries."""
        leaves = [(each.index, each.leaf_hash) for each in placed]
        wanted = [(index, leaf) for index, leaf in leaves if index is not None and leaf is not None]
        if not wanted:
            return None, []
        checkpoint, proofs = self._published.prove_all(wanted)
        return checkpoint.decode(), [[base64.b64encode(h).decode("ascii") for h in each] for each in proofs]

    def _known(self, view: SqlView, offer: Offer, refusal: ServerError) -> Placed | ServerError:
        """A publish of bytes that the log has under this name is no refusal: its first entry stands."""
        if refusal.code != "file-exists":
            return refusal
        said = Statement.parse(offer.envelope.payload)
        key = file_key(said.predicate["namespace"], said.predicate["project"], said.subject_name)
        file = view.get(key)
        if file is None or file["sha256"] != said.subject_sha256:
            return refusal
        return Placed(self._published.covers(file["index"]), file["index"], file["lh"], None)


def _on_their_way(taken: Sequence[Placed | ServerError]) -> list[int]:
    found = (each.proposal for each in taken if isinstance(each, Placed) and not each.public)
    return [each for each in found if each is not None]


def _placed(asked_id: int, outcome: proposal.Outcome) -> Placed:
    return Placed(outcome.state == proposal.PUBLISHED, outcome.index, outcome.leaf_hash, asked_id)
