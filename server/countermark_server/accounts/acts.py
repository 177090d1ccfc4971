"""Signed statements at the door: what owners do to files and keys, and publishes of files served elsewhere.

    POST /api/v1/entries         {"envelope": {"payload": ..., "signatures": [...]}}
    POST /api/v1/entries         {"envelope": {...}, "blob": "<base64>"}      an attest, with what it speaks of
    POST /api/v1/entries/batch   {"entries": [{"envelope": {...}}, ...]}      thousands, told apart one by one

**yank, unyank, remove, key-revoke.** Two proofs are asked for, and neither replaces the other: the session says which
account acts, and the statement is signed by an enrolled key of the project. So a stolen upload token withdraws
nothing, nor does a stolen key without its owner's sign-in. The registry adds the account; the rules judge the whole,
`prev` included, so an old statement taken out of the public log and sent again is refused.

**publish**, in a namespace only: for a registry that keeps serving its files itself and wants them in a witnessed
log. Nobody hands in bytes, so nothing here says that they match, nothing is scanned, no verdict comes, and no TUF
metadata ever lists the file; a reader is told "in the log, no TUF, no verdict". Files of the default namespace come
in by upload. An upload token may publish, for that is what it may do at the other door too; the namespace must be
enrolled, the account one of its owners, and the key one of its keys.

**attest**, about a file that is logged, in any namespace: a further signature, provenance or bill of materials. The
statement names it by digest, and whoever reads the log must be able to have it, so it comes along and is kept as an
open blob (`GET /blobs/<sha256>`) before its entry is proposed. Nobody here checked what it says; so the entry says.
It withdraws nothing and allows nothing: an upload token may attest, too, for an account that owns the project.

No other type passes: verdicts and moderation acts are the registry's, keys come in at their own door.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from countermark.statement import Envelope, Statement
from countermark_server import db
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokens import Principal, require_session
from countermark_server.asking import foresee, holder_state
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.stores.blobs import Blobs

PUBLISH, ATTEST = "publish", "attest"
TYPES = ("yank", "unyank", "remove", "key-revoke", PUBLISH, ATTEST)
OPEN_NONCE = bytes(32)  # of blobs that are public from the start


class Acts:
    """The two doors of this module."""

    def __init__(self, engine: Engine, statements: Statements, blobs: Blobs, *, batch_max: int) -> None:
        self._engine = engine
        self._blobs = blobs
        self._statements = statements
        self._batch_max = batch_max

    def one(self, principal: Principal, body: object, *, now: int) -> Placed:
        """Propose the statement in `body` and wait for its place in the log."""
        offer = self._offer(principal, body, now=now)
        return self._statements.place(offer.type, offer.envelope, offer.registry)

    def batch(self, principal: Principal, body: object, *, now: int) -> list[Placed | ServerError]:
        """Propose all statements of the batch that can be taken; one wait, and an answer for each, in order."""
        given = body.get("entries") if isinstance(body, Mapping) and body.keys() == {"entries"} else None
        if not isinstance(given, list) or not 1 <= len(given) <= self._batch_max:
            raise ServerError(
                "bad-request", f'the body must be {{"entries": [...]}} with 1 to {self._batch_max} items'
            )
        return self._statements.place_all([self._try(principal, item, now=now) for item in given])

    def _try(self, principal: Principal, item: object, *, now: int) -> Offer | ServerError:
        try:
            return self._offer(principal, item, now=now)
        except ServerError as error:
            return error

    def _offer(self, principal: Principal, body: object, *, now: int) -> Offer:
        body, blob = _parted(body)
        envelope, statement = self._statements.read(body, types=TYPES, what="statement")
        if (blob is None) == (statement.type == ATTEST):
            raise ServerError(
                "bad-request",
                f"an attest comes with its blob, and nothing else does; this is a {statement.type}",
            )
        if blob is not None:
            return self._attest(principal, envelope, statement, blob, now=now)
        if statement.type == PUBLISH:
            return Offer(PUBLISH, envelope, self._publish(principal, envelope, statement, now=now))
        require_session(principal)
        if not statement.predicate["project"] and not statement.predicate["namespace"]:
            raise ServerError(
                "statement-invalid",
                "a role key of the registry is revoked by the authority key, not at this door",
            )
        return Offer(statement.type, envelope, {"actor": principal.account_id})

    def _publish(
        self, principal: Principal, envelope: Envelope, statement: Statement, *, now: int
    ) -> dict[str, Any]:
        """What the registry adds to a publish: who sent it, and which enrolment its key has."""
        namespace, project = statement.predicate["namespace"], statement.predicate["project"]
        if not namespace:
            raise ServerError(
                "statement-invalid",
                f"{statement.subject_name} is of the default namespace, whose files come in by upload",
            )
        with db.read(self._engine) as connection:
            holders = [holder_state(connection, namespace, name, now=now) for name in (project, "")]
        indexes = [h["keys"][k]["index"] for h in holders if h for k in envelope.keyids if k in h["keys"]]
        index = indexes[0] if indexes else None  # a key of the project goes before one of its namespace
        return {"identity": None, "key_index": index, "uploader": principal.account_id}

    def _attest(
        self, principal: Principal, envelope: Envelope, statement: Statement, blob: bytes, *, now: int
    ) -> Offer:
        """Keep what the statement names, once nothing else speaks against it: a refusal leaves no blob behind."""
        said = statement.predicate
        raw = OPEN_NONCE + blob
        if (found := hashlib.sha256(raw).hexdigest()) != said["statement_sha256"]:
            raise ServerError(
                "statement-mismatch",
                f"the statement names blob {said['statement_sha256']}, the one that came along is {found}",
            )
        offer = Offer(ATTEST, envelope, {"verified": "not-checked"})
        with db.read(self._engine) as connection:
            holders = [holder_state(connection, said["namespace"], n, now=now) for n in (said["project"], "")]
            if not any(principal.account_id in holder["owners"] for holder in holders if holder):
                raise ServerError(
                    "not-owner", f"{principal.account_id} may not attest in {said['project']!r}"
                )
            foresee(connection, offer.type, offer.envelope, offer.registry, now=now)
        self._blobs.put(raw)
        # Kept. If we stop here nothing names it, and the same request again finds it there.
        return offer


def _parted(body: object) -> tuple[object, bytes | None]:
    """A request's body without its blob, and the blob's bytes."""
    if not isinstance(body, Mapping) or "blob" not in body:
        return body, None
    text = body["blob"]
    try:
        blob = base64.b64decode(text if isinstance(text, str) else "*", validate=True)
    except (binascii.Error, ValueError):
        raise ServerError("bad-request", "the blob is not base64") from None
    if base64.b64encode(blob).decode() != text:  # one spelling
        raise ServerError("bad-request", "the blob is not base64 in its one spelling")
    return {name: value for name, value in body.items() if name != "blob"}, blob
