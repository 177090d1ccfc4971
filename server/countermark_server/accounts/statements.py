"""Statements at the doors of this room: read one, foresee the log's answer, propose, wait for its place.

    {"envelope": {"payload": ..., "signatures": [...]}}     ->     {"index": 31, "leaf_hash": "9f2c...", "proof": ...}

Whoever sends a statement has signed it elsewhere; here nothing is signed in anybody's place. A statement that the
rules would refuse is refused before anything is stored. Without a proof in the answer it is durable and on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from countermark.entry import check_statement
from countermark.errors import MalformedError
from countermark.statement import Envelope, Statement
from countermark_server import db, proposal
from countermark_server.asking import Answers, foresee
from countermark_server.errors import ServerError
from countermark_server.published import Published


@dataclass(frozen=True)
class Placed:
    """Where a statement stands in the log. Without proof: the log has not published it yet."""

    index: int | None
    leaf_hash: str | None
    proof: str | None


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
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._published = published
        self._answers = answers
        self._origin = origin
        self._wait = wait
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
        now = int(self._clock())
        with db.read(self._engine) as connection:
            foresee(connection, type_, envelope, registry, now=now)
        with db.write(self._engine) as connection:
            asked = proposal.propose(connection, type_, envelope.to_dict(), registry, now=now)
        # Committed. If we stop here the log takes the entry all the same, and the sender finds it there.
        outcome = self._answers.wait_for(asked, seconds=self._wait)
        if outcome.state != proposal.PUBLISHED:
            return Placed(outcome.index, outcome.leaf_hash, None)
        assert outcome.index is not None and outcome.leaf_hash is not None
        proof = self._published.prove(outcome.index, outcome.leaf_hash)
        return Placed(outcome.index, outcome.leaf_hash, proof.decode())
