"""Signed statements at the door: what owners do to files and keys, and publishes of files served elsewhere.

    POST /api/v1/entries         {"envelope": {"payload": ..., "signatures": [...]}}
    POST /api/v1/entries         {"envelope": {...}, "blob": "<base64>"}      an attest, with what it speaks of
    POST /api/v1/entries/batch   {"entries": [{"envelope": {...}}, ...]}      thousands, told apart one by one

**yank, unyank, remove, key-revoke.** Two proofs are asked for, and neither replaces the other: the session says which
account acts, and the statement is signed by an enrolled key of the project. So a stolen upload token withdraws
nothing, nor does a stolen key without its owner's sign-in. The registry adds the account; the rules judge the whole,
`prev` included, so an old statement taken out of the public log and sent again is refused.

**owner**: who owns a project (add, remove, transfer), that it signs no more (signing-off), and the veto against the
recovery of a key; signed by enrolled keys and brought by a session, like the above. To decide about a veto is for two
moderators and not for this door.

**trusted-publisher**: which jobs of a CI system may publish for a project; signed and brought like the above.

**approve**, **require-approvals**: that a staged release may be listed, and how many people must say so. Whose
session brings an approval is its approver, and the rules want the key to be theirs.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from countermark import rules
from countermark.entry import Entry
from countermark.statement import Envelope, Statement
from countermark_server import db
from countermark_server.accounts.jobs import uploader_of
from countermark_server.accounts.seats import check_seat
from countermark_server.accounts.statements import Judged, Placed, Statements
from countermark_server.accounts.tokenroom import Uses
from countermark_server.accounts.tokens import (
    Principal,
    authenticate,
    authenticate_all,
    require_scope,
    require_session,
)
from countermark_server.allowance import Cost
from countermark_server.asking import Expected, holder_in, one_run_index
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.ruleview import SqlView
from countermark_server.stores.blobs import Blobs
from countermark_server.together import Together

PUBLISH, ATTEST = "publish", "attest"
OWNER, BY_OWNERS = "owner", ("add", "remove", "transfer", "signing-off", "veto")
PUBLISHER = "trusted-publisher"
APPROVE, REQUIRE = "approve", "require-approvals"
TYPES = ("yank", "unyank", "remove", "key-revoke", PUBLISHER, OWNER, APPROVE, REQUIRE, PUBLISH, ATTEST)
OPEN_NONCE = bytes(32)  # of blobs that are public from the start


@dataclass(frozen=True)
class _Said:
    """What was signed, and the blob that an attest brings along."""

    envelope: Envelope
    statement: Statement
    blob: bytes | None


@dataclass(frozen=True)
class _Asked:
    """One request as it came: who says to send it, and what was signed. Only its form was checked."""

    authorization: str | None
    said: _Said
    now: int


@dataclass(frozen=True)
class _Taken:
    """What became of a request: the entry it asks for, where that stands, and what is waited for still."""

    offer: Offer | ServerError
    taken: Placed | ServerError
    expected: Expected | None


class Acts:
    """The two doors of this module."""

    def __init__(
        self, engine: Engine, statements: Statements, blobs: Blobs, *, uses: Uses, batch_max: int
    ) -> None:
        self._engine = engine
        self._uses = uses
        self._blobs = blobs
        self._statements = statements
        self._batch_max = batch_max
        self._propose = Together(self._propose_all, until=lambda taken: taken.expected)

    def one(self, authorization: str | None, body: object, *, now: int) -> Placed:
        """Propose the statement in `body`, together with what others send meanwhile, and wait for its place."""
        said = self._read(body)
        if isinstance(said, ServerError):
            with db.read(self._engine) as connection:
                authenticate(connection, authorization, now=now)  # a stranger hears that first
            raise said
        asked = _Asked(authorization, said, now)
        if said.blob is None:
            taken = self._propose(asked)
        else:  # nobody else waits for a blob to be written
            taken = Together(self._propose_all, until=lambda taken: taken.expected)(asked)
        done = self._statements.answered(taken.offer, taken.taken, taken.expected)
        if isinstance(done, ServerError):
            raise done
        return done

    def batch(self, principal: Principal, body: object, *, now: int) -> list[Placed | ServerError]:
        """Propose all statements of the batch that can be taken; one wait, and an answer for each, in order."""
        given = body.get("entries") if isinstance(body, Mapping) and body.keys() == {"entries"} else None
        if not isinstance(given, list) or not 1 <= len(given) <= self._batch_max:
            raise ServerError(
                "bad-request", f'the body must be {{"entries": [...]}} with 1 to {self._batch_max} items'
            )
        read = [self._read(item) for item in given]
        with db.read(self._engine) as connection:
            view = SqlView(connection, db.rules_state)
            view.fetch(_touched(each for each in read if not isinstance(each, ServerError)))
            offers = [
                each
                if isinstance(each, ServerError)
                else _unseated(connection, principal, each) or _offer(view, principal, each, now=now)
                for each in read
            ]
            judged = self._statements.judge(view, offers, now=now, fetched=True)
        self._keep(read, judged)
        taken = self._statements.take(judged, now=now, all_or_none=True)
        return self._statements.finish(offers, taken)

    def _propose_all(self, asked: Sequence[_Asked]) -> list[_Taken]:
        """One look at tokens and state for all who ask now, and one transaction for those the rules would take."""
        now = max(each.now for each in asked)
        if db.reads_beside_writers(self._engine):
            with db.write(self._engine) as connection:
                principals, offers, judged = self._judge(connection, asked, now=now)
                taken = self._statements.take_in(connection, judged, now=now, all_or_none=False)
        else:  # nobody else writes while a signature is verified: that is done before
            with db.read(self._engine) as connection:
                principals, offers, judged = self._judge(connection, asked, now=now)
            taken = self._statements.take(judged, now=now, all_or_none=False)
        # Committed. If we stop here the log takes the entries all the same, and their senders find them there.
        expected = self._statements.expect(taken)
        for who in principals:
            if isinstance(who, Principal):
                self._uses.note(who, now=now)
        return list(map(_Taken, offers, taken, expected))

    def _judge(
        self, connection: Connection, asked: Sequence[_Asked], *, now: int
    ) -> tuple[list[Principal | ServerError], list[Offer | ServerError], list[Judged]]:
        """Who asks, for which entry, and what the log would say; the blobs of what it would take are kept."""
        principals = authenticate_all(connection, [each.authorization for each in asked], now=now)
        view = SqlView(connection, db.rules_state)
        view.fetch(_touched(each.said for each in asked))
        offers = [
            who
            if isinstance(who, ServerError)
            else _unseated(connection, who, each.said) or _offer(view, who, each.said, now=now)
            for who, each in zip(principals, asked, strict=True)
        ]
        judged = self._statements.judge(view, offers, now=now, fetched=True)
        self._keep([each.said for each in asked], judged)
        return principals, offers, judged

    def _keep(self, said: Sequence[_Said | ServerError], judged: Sequence[object]) -> None:
        """Keep the blobs of those that nothing speaks against: a refusal leaves none behind."""
        for each, answer in zip(said, judged, strict=True):
            if isinstance(each, _Said) and each.blob is not None and isinstance(answer, Offer):
                self._blobs.put(OPEN_NONCE + each.blob)
                # Kept. If we stop here nothing names it, and the same request again finds it there.

    def _read(self, body: object) -> _Said | ServerError:
        """What a request, or an item of a batch, says; or why it says nothing that this door takes."""
        try:
            body, blob = _parted(body)
            envelope, statement = self._statements.read(body, types=TYPES, what="statement")
        except ServerError as error:
            return error
        if (blob is None) == (statement.type == ATTEST):
            return ServerError(
                "bad-request",
                f"an attest comes with its blob, and nothing else does; this is a {statement.type}",
            )
        return _Said(envelope, statement, blob)


def _touched(said: Iterable[_Said]) -> Iterator[rules.Key]:
    """The rules' keys that these statements touch, those of projects and namespaces among them."""
    for each in said:
        statement = each.statement
        yield from rules.keys(Entry(1, statement.type, 0, each.envelope, {}, b"", statement))


def _unseated(connection: Connection, principal: Principal, said: _Said) -> ServerError | None:
    """Why somebody may not act whom the log still names: a team let them in and does no longer (seats.py)."""
    if principal.identity is not None:  # a job sits in no team
        return None
    of = said.statement.predicate
    if said.statement.type == PUBLISH or not of["project"]:
        return None  # of a namespace, whose owners no team lets in
    try:
        check_seat(connection, principal.account_id, of["namespace"], of["project"])
    except ServerError as error:
        return error
    return None


def _offer(view: SqlView, principal: Principal, said: _Said, *, now: int) -> Offer | ServerError:
    """The entry that is asked for, with what the registry adds; or why this door takes no such statement."""
    envelope, statement, cost = said.envelope, said.statement, Cost(principal.account_id)
    said_of = statement.predicate
    try:
        require_scope(principal, "entries", said_of["project"], said_of["namespace"])
        if said.blob is not None:
            return _attest(view, principal, envelope, statement, said.blob, now=now)
        if statement.type == PUBLISH:
            added = _publish(view, principal, envelope, statement, now=now)
            return Offer(PUBLISH, envelope, added, statement, cost)
        require_session(principal)
    except ServerError as error:
        return error
    if not statement.predicate["project"] and not statement.predicate["namespace"]:
        return ServerError(
            "statement-invalid",
            "a role key of the registry is revoked by the authority key, not at this door",
        )
    registry: dict[str, Any] = {"actor": principal.account_id}
    if statement.type == APPROVE:
        registry = {"approver": principal.account_id}
    if statement.type == OWNER:
        if (action := statement.predicate["action"]) not in BY_OWNERS:
            return ServerError("statement-invalid", f"{action} is for two moderators, not for this door")
        registry["second"] = None
    if statement.type == PUBLISHER:
        holder = holder_in(view, said_of["namespace"], said_of["project"], now=now)
        registry["authorised_by"] = _signed_under(view, said_of, holder, envelope)
    return Offer(statement.type, envelope, registry, statement, cost)


def _signed_under(
    view: SqlView, said: Mapping[str, Any], holder: Mapping[str, Any] | None, envelope: Envelope
) -> int | str:
    """The enrolment of a key that signed; the rules judge whether enough did, and whether it may."""
    namespace = view.get(rules.holder_key(said["namespace"], "")) if said["namespace"] else None
    keys = {**(namespace or {}).get("keys", {}), **(holder or {}).get("keys", {})}
    known = [keys[keyid]["index"] for keyid in envelope.keyids if keyid in keys]
    return min(known) if known else "registry"


def _publish(
    view: SqlView, principal: Principal, envelope: Envelope, statement: Statement, *, now: int
) -> dict[str, Any]:
    """What the registry adds to a publish: who sent it, and which enrolment its key has."""
    namespace, project = statement.predicate["namespace"], statement.predicate["project"]
    if not namespace:
        raise ServerError(
            "statement-invalid",
            f"{statement.subject_name} is of the default namespace, whose files come in by upload",
        )
    holders = [holder_in(view, namespace, name, now=now) for name in (project, "")]
    indexes = [h["keys"][k]["index"] for h in holders if h for k in envelope.keyids if k in h["keys"]]
    index = indexes[0] if indexes else None  # a key of the project goes before one of its namespace
    if index is None:
        index = one_run_index(view, namespace, project, envelope.keyids[0])
    uploader = uploader_of(principal, project, *holders)
    return {"identity": principal.identity, "key_index": index, "uploader": uploader}


def _attest(
    view: SqlView, principal: Principal, envelope: Envelope, statement: Statement, blob: bytes, *, now: int
) -> Offer:
    """An owner's statement about a blob, which is the one that came along."""
    said = statement.predicate
    if (found := hashlib.sha256(OPEN_NONCE + blob).hexdigest()) != said["statement_sha256"]:
        raise ServerError(
            "statement-mismatch",
            f"the statement names blob {said['statement_sha256']}, the one that came along is {found}",
        )
    holders = [holder_in(view, said["namespace"], name, now=now) for name in (said["project"], "")]
    if not any(principal.account_id in holder["owners"] for holder in holders if holder):
        raise ServerError("not-owner", f"{principal.account_id} may not attest in {said['project']!r}")
    return Offer(ATTEST, envelope, {"verified": "not-checked"}, statement, Cost(principal.account_id))


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
