"""The doors of this room: sign in, enrol a key, act on one's files and keys, ask about a project.

    POST /api/v1/login            {"code": "K7QM-..."}      -> session and upload token
    POST /api/v1/keys             {"envelope": {...}}       -> index, leaf hash, proof
    POST /api/v1/entries          {"envelope": {...}}       -> the same: an owner's act, a publish in a namespace
    POST /api/v1/entries/batch    {"entries": [...]}        -> for each the same, or why not
    GET  /api/v1/entries/NUMBER                             -> what became of an entry that was answered 202
    GET  /api/v1/keys/KEYID                                 -> projects a key may sign for
    GET  /api/v1/projects/NAME                              -> owners, keys, what to sign next
    GET  /api/v1/namespaces/NAME[/projects/NAME | /files/NAME | /releases/NAME/VERSION]   -> of files served elsewhere
    POST /api/v1/projects/NAME/owners                       -> owners of a project that does not sign (unsigned.py)
    GET  /api/v1/releases/NAME/VERSION  /api/v1/staged/NAME/FILE    -> what waits for approvals (releases.py)
    POST /api/v1/tokens  GET /api/v1/tokens  POST /api/v1/tokens/ID/revoke  /api/v1/tokens/revoke   (tokenroom.py)

An answer of 202 says: durable, and not public yet; its status URL will have index and proof. A batch is answered
202 as long as one of its items is on its way. Views only translate between HTTP and the functions beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection, Engine

from countermark.limits import JSON_MAX_INTEGER
from countermark_server import db
from countermark_server.accounts import codes, tokens
from countermark_server.accounts.acts import Acts
from countermark_server.accounts.doorway import Callers, json_body, never_cached
from countermark_server.accounts.keys import Keys
from countermark_server.accounts.people import Account
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.releases import Releases
from countermark_server.accounts.signin import SignIns
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokenroom import TokenRoom
from countermark_server.accounts.unsigned import Unsigned
from countermark_server.errors import ACCEPTED, ServerError, document

LOGIN_ATTEMPTS, LOGIN_SECONDS = 10, 60.0
CODE_MAX_CHARS = 64


def blueprint(
    engine: Engine,
    callers: Callers,
    statements: Statements,
    keys: Keys,
    acts: Acts,
    *,
    unsigned: Unsigned,
    releases: Releases,
    room: TokenRoom,
    sign_ins: SignIns | None,
    base_url: str,
    batch_max_bytes: int,
    clock: Callable[[], float],
) -> Blueprint:
    """The doors, opened onto these collaborators."""
    doors = Blueprint("accounts", __name__, url_prefix="/api/v1")
    doors.after_request(never_cached)
    limit = RateLimit(LOGIN_ATTEMPTS, LOGIN_SECONDS)

    def principal() -> tokens.Principal:
        return callers.who(request.headers.get("Authorization"))

    def counted() -> object:
        """The body of who asks without a token, and may be guessing one, or a code."""
        limit.count(request.remote_addr or "", now=clock())
        return json_body()

    def answer(done: Placed) -> tuple[Response, int] | Response:
        response = jsonify(**_where(done, base_url), proof=statements.proof(done))
        return response if done.public else (response, ACCEPTED)

    @doors.post("/login")
    def login() -> Response:
        return jsonify(_signed_in(engine, counted(), now=int(clock())))

    @doors.post("/keys")
    def enrol() -> tuple[Response, int] | Response:
        return answer(keys.enrol(principal(), json_body()))

    @doors.post("/entries")
    def entries() -> tuple[Response, int] | Response:
        if sign_ins is not None:  # otherwise who asks is found out together with others who ask now
            principal()
        return answer(acts.one(request.headers.get("Authorization"), json_body(), now=int(clock())))

    @doors.post("/entries/batch")
    def batch() -> tuple[Response, int] | Response:
        who = principal()  # before a long body is read
        done = acts.batch(who, json_body(batch_max_bytes), now=int(clock()))
        late = any(isinstance(each, Placed) and not each.public for each in done)
        response = jsonify(_told_apart(statements, done, base_url))
        return (response, ACCEPTED) if late else response

    @doors.get("/entries/<int:number>")
    def status(number: int) -> tuple[Response, int] | Response:
        principal()
        if number > JSON_MAX_INTEGER:
            raise ServerError("not-found", "no entry was ever proposed under such a number")
        return answer(statements.status(number))

    @doors.post("/projects/<project>/owners")
    def change_owners(project: str) -> tuple[Response, int] | Response:
        return answer(unsigned.change(principal(), project, json_body()))

    _questions(doors, keys, releases, principal)
    _tokens(doors, room, principal, counted)
    return doors


def _questions(
    doors: Blueprint, keys: Keys, releases: Releases, principal: Callable[[], tokens.Principal]
) -> None:
    """What is asked of keys, projects, namespaces and releases."""

    @doors.get("/keys/<keyid>")
    def enrolments(keyid: str) -> Response:
        return jsonify(keys.enrolments(principal(), keyid))

    @doors.get("/projects/<project>")
    def project(project: str) -> Response:
        return jsonify(keys.project(project))

    @doors.get("/namespaces/<namespace>")
    def namespace_(namespace: str) -> Response:
        return jsonify(keys.namespace(namespace))

    @doors.get("/namespaces/<namespace>/projects/<project>")
    def covered(namespace: str, project: str) -> Response:
        return jsonify(keys.namespace(namespace, project))

    @doors.get("/namespaces/<namespace>/files/<project>")
    def covered_files(namespace: str, project: str) -> Response:
        return jsonify(releases.files(namespace, project))

    @doors.get("/namespaces/<namespace>/releases/<project>/<version>")
    def covered_release(namespace: str, project: str, version: str) -> Response:
        return jsonify(releases.release(project, version, namespace=namespace))

    @doors.get("/releases/<project>/<version>")
    def release(project: str, version: str) -> Response:
        return jsonify(releases.release(project, version))

    @doors.get("/staged/<project>/<filename>")
    def staged(project: str, filename: str) -> Response:
        return releases.staged(principal(), project, filename)


def _tokens(
    doors: Blueprint,
    room: TokenRoom,
    principal: Callable[[], tokens.Principal],
    counted: Callable[[], object],
) -> None:
    """Tokens made, listed and revoked by whose they are, or by who found one."""

    @doors.post("/tokens")
    def make_token() -> Response:
        return jsonify(room.make(principal(), json_body()))

    @doors.get("/tokens")
    def tokens_listed() -> Response:
        return jsonify(tokens=room.listed(principal()))

    @doors.post("/tokens/<token_id>/revoke")
    def revoke_token(token_id: str) -> Response:
        return jsonify(room.revoke(principal(), token_id))

    @doors.post("/tokens/revoke")
    def found_token() -> Response:
        return jsonify(room.found(counted()))


def _signed_in(engine: Engine, body: object, *, now: int) -> dict[str, Any]:
    """A session and an upload token for a one-time code, which is used up in the same transaction."""
    code = body.get("code") if isinstance(body, dict) else None
    if not isinstance(code, str) or not 1 <= len(code) <= CODE_MAX_CHARS:
        raise ServerError("bad-request", 'the body must be {"code": "..."}')
    with db.write(engine) as connection:
        return opened_session(connection, codes.redeem_login_code(connection, code, now=now), now=now)


def opened_session(connection: Connection, account: Account, *, now: int) -> dict[str, Any]:
    """A session and an upload token for who has just signed in, by whatever way."""
    expires = now + tokens.SESSION_SECONDS
    session = tokens.issue_token(connection, account.id, tokens.SESSION, now=now, expires=expires)
    upload = tokens.issue_token(connection, account.id, tokens.UPLOAD, now=now, expires=None)
    return {
        "account": account.id,
        "login": account.login,
        "session": session,
        "session_expires": expires,
        "upload_token": upload,
    }


def _where(done: Placed, base_url: str) -> dict[str, Any]:
    url = None if done.proposal is None else f"{base_url}/api/v1/entries/{done.proposal}"
    return {"index": done.index, "leaf_hash": done.leaf_hash, "status_url": url}


def _told_apart(
    statements: Statements, done: Sequence[Placed | ServerError], base_url: str
) -> dict[str, Any]:
    """A batch's answer: one checkpoint for all, and for each item its place and hashes, or its problem."""
    public = [each for each in done if isinstance(each, Placed) and each.public]
    checkpoint, proofs = statements.proofs(public)
    proved = iter(proofs)
    items = [
        {"problem": document(each, base_url)}
        if isinstance(each, ServerError)
        else {**_where(each, base_url), "proof": next(proved) if each.public else None}
        for each in done
    ]
    return {"checkpoint": checkpoint, "entries": items}
