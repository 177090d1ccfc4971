"""Statements at the doors of this room: read one, foresee the log's answer, propose, wait for its place.

    {"envelope": {"payload": ..., "signatures": [...]}}     ->     {"index": 31, "leaf_hash": "9f2c...", "proof": ...}

Whoever sends a statement has signed it elsewhere; here nothing is signed in anybody's place. A statement that the
rules would refuse is refused before anything is stored. Without a proof in the answer it is durable and on its way.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from countermark.entry import check_statement
from countermark.errors import MalformedError
from countermark.rules import file_key
from countermark.statement import Envelope, Statement
from countermark_server import db, proposal
from countermark_server.asking import Answers, foresee_all, make_room, refusal_of
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.published import Published
from countermark_server.ruleview import SqlView


@dataclass(frozen=True)
class Placed:
    """Where a statement stands in the log. Not public: durable and on its way, ask again by its proposal."""

    public: bool
    index: int | None
    leaf_hash: str | None
    proposal: int | None  # None: the log had this file before


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
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._published = published
        self._answers = answers
        self._origin = origin
        self._wait = wait
        self._queue_max = queue_max
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

    def place(self, type_: str, envelope: Envelope, registry: Mapping[str, Any]) -> Placed:
        """Propose an entry that the rules would take now, and wait for its place in the log."""
        (done,) = self.place_all([Offer(type_, envelope, registry)])
        if isinstance(done, ServerError):
            raise done
        return done

    def place_all(self, asked: Sequence[Offer | ServerError]) -> list[Placed | ServerError]:
        """Propose those that the rules would take, together, and wait once; an answer for each, in order.

        What is refused already stays refused. A file that the log has, with the same bytes, is answered like the
        first time. ServerError `busy`: there is no room for all of them, and none was taken.
        """
        answers, taken, now = (
            list[Placed | ServerError | None](asked_only(asked)),
            list[int](),
            int(self._clock()),
        )
        offers = [(n, each) for n, each in enumerate(asked) if isinstance(each, Offer)]
        with db.read(self._engine) as connection:
            foreseen = foresee_all(connection, [offer for _, offer in offers], now=now) if offers else []
            for (n, offer), refusal in zip(offers, foreseen, strict=True):
                if refusal is None:
                    taken.append(n)
                else:
                    answers[n] = self._known(connection, offer, refusal)
        chosen = dict(offers)
        with db.write(self._engine) as connection:
            make_room(connection, len(taken), most=self._queue_max)
            ids = proposal.propose_all(connection, [chosen[n] for n in taken], now=now)
        # Committed. If we stop here the log takes the entries all the same, and the sender finds them there.
        outcomes = self._answers.outcomes(ids, seconds=self._wait)
        with db.read(self._engine) as connection:
            for n, asked_id in zip(taken, ids, strict=True):
                outcome = outcomes[asked_id]
                answers[n] = (
                    self._known(connection, chosen[n], refusal_of(outcome))
                    if outcome.state == proposal.REFUSED
                    else _placed(asked_id, outcome)
                )
        assert None not in answers
        return [answer for answer in answers if answer is not None]

    def status(self, asked_id: int) -> Placed:
        """What became of a proposal. ServerError: it was refused, or never made."""
        try:
            with db.read(self._engine) as connection:
                outcome = proposal.outcome(connection, asked_id)
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

    def _known(self, connection: Connection, offer: Offer, refusal: ServerError) -> Placed | ServerError:
        """A publish of bytes that the log has under this name is no refusal: its first entry stands."""
        if refusal.code != "file-exists":
            return refusal
        said = Statement.parse(offer.envelope.payload)
        key = file_key(said.predicate["namespace"], said.predicate["project"], said.subject_name)
        file = SqlView(connection, db.rules_state).get(key)
        if file is None or file["sha256"] != said.subject_sha256:
            return refusal
        return Placed(self._published.covers(file["index"]), file["index"], file["lh"], None)


def asked_only(asked: Sequence[Offer | ServerError]) -> list[ServerError | None]:
    """What is answered already: the refusals."""
    return [each if isinstance(each, ServerError) else None for each in asked]


def _placed(asked_id: int, outcome: proposal.Outcome) -> Placed:
    return Placed(outcome.state == proposal.PUBLISHED, outcome.index, outcome.leaf_hash, asked_id)
