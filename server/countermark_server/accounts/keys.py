"""Publisher keys at the door: an enrolment is a signed statement that waits for its place in the log.

    POST /api/v1/keys   Authorization: Bearer <session>    {"envelope": {"payload": ..., "signatures": [...]}}

The statement is signed by the new key and, where the project has keys, by as many of them as it demands; without
these the registry vouches that an owner signed in, which works at once for a first key and waits seven days
otherwise. What the registry adds is this account and who authorised it; the rules judge the whole.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from countermark.entry import check_statement, normalise_project
from countermark.errors import MalformedError
from countermark.statement import Envelope, Statement, keyid_of
from countermark_server import db, proposal
from countermark_server.accounts.tokens import Principal, require_session
from countermark_server.asking import Answers, foresee, holder_state
from countermark_server.errors import ServerError
from countermark_server.published import Published

PUBLISHER_SCOPES = ("project", "namespace")


@dataclass(frozen=True)
class Enrolled:
    """Where the enrolment stands in the log. Without proof: the log has not published it yet."""

    index: int | None
    leaf_hash: str | None
    proof: str | None


class Keys:
    """Enrols keys, and says which a project has."""

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
        self._answers = answers
        self._published = published
        self._origin = origin
        self._wait = wait
        self._clock = clock

    def enrol(self, principal: Principal, body: object) -> Enrolled:
        """Propose the enrolment in `body` and wait for its place in the log."""
        require_session(principal)
        envelope, statement = self._read(body)
        now = int(self._clock())
        with db.read(self._engine) as connection:
            project = statement.predicate["project"]
            state = holder_state(connection, statement.predicate["namespace"], project, now=now)
            keys = {} if state is None else state["keys"]
            registry = {
                "account": principal.account_id,
                "authorised_by": _authorised_by(envelope, statement, keys),
                "identity": None,
            }
            foresee(connection, "key-enroll", envelope, registry, now=now)
        with db.write(self._engine) as connection:
            asked = proposal.propose(connection, "key-enroll", envelope.to_dict(), registry, now=now)
        outcome = self._answers.wait_for(asked, seconds=self._wait)
        if outcome.state != proposal.PUBLISHED:
            return Enrolled(outcome.index, outcome.leaf_hash, None)
        assert outcome.index is not None and outcome.leaf_hash is not None
        proof = self._published.prove(outcome.index, outcome.leaf_hash)
        return Enrolled(outcome.index, outcome.leaf_hash, proof.decode())

    def project(self, name: str) -> dict[str, Any]:
        """What a publisher must know of a project to sign for it; empty for a project nobody has used."""
        try:
            project = normalise_project(name)
        except MalformedError as error:
            raise ServerError("name-invalid", str(error)) from None
        now = int(self._clock())
        with db.read(self._engine) as connection:
            state = holder_state(connection, "", project, now=now)
        keys = {} if state is None else state["keys"]
        return {
            "project": project,
            "namespace": "",
            "signed": bool(state and state["signed"]),
            "threshold": 1 if state is None else state["threshold"],
            "frozen": None if state is None else state["frozen"],
            "prev": None if state is None else state["head"],
            "keys": [
                {"keyid": keyid, "index": item["index"], "scope": "project", "valid_until": item["until"]}
                for keyid, item in sorted(keys.items())
            ],
            "owners": [] if state is None else sorted(state["owners"]),
        }

    def _read(self, body: object) -> tuple[Envelope, Statement]:
        given = body.get("envelope") if isinstance(body, Mapping) else None
        if not isinstance(given, Mapping) or (isinstance(body, Mapping) and body.keys() != {"envelope"}):
            raise ServerError("bad-request", 'the body must be {"envelope": {...}}')
        try:
            envelope = Envelope.parse(given)
            statement = Statement.parse(envelope.payload)
            check_statement(statement)
        except MalformedError as error:
            raise ServerError("statement-invalid", f"enrolment: {error}") from None
        if statement.type != "key-enroll" or statement.predicate["scope"] not in PUBLISHER_SCOPES:
            raise ServerError(
                "statement-invalid",
                f"this door takes enrolments of publisher keys, not a {statement.type} statement",
            )
        if statement.predicate["origin"] != self._origin:
            raise ServerError(
                "statement-mismatch",
                f"enrolment says origin {statement.predicate['origin']!r}, this registry is {self._origin!r}",
            )
        return envelope, statement


def _authorised_by(envelope: Envelope, statement: Statement, keys: Mapping[str, Any]) -> int | str:
    """The enrolment of a key that signs beside the new one, or `registry` where none does."""
    new = keyid_of(base64.b64decode(statement.predicate["key"]))
    signers = [keyid for keyid in envelope.keyids if keyid != new]
    known = [keys[keyid]["index"] for keyid in signers if keyid in keys]
    if signers and not known:
        raise ServerError(
            "key-unknown", f"key {signers[0]} is not enrolled here, so it cannot authorise another"
        )
    return min(known) if known else "registry"
