"""The doors of this room: sign in, enrol a key, act on one's files and keys, ask about a project.

    POST /api/v1/login            {"code": "K7QM-..."}      -> session and upload token
    POST /api/v1/keys             {"envelope": {...}}       -> index, leaf hash, proof
    POST /api/v1/entries          {"envelope": {...}}       -> the same, of a yank, unyank, remove or key-revoke
    GET  /api/v1/keys/KEYID                                 -> projects a key may sign for
    GET  /api/v1/projects/NAME                              -> owners, keys, what to sign next

Views only translate between HTTP and the functions beside them.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Engine

from countermark_server import db
from countermark_server.accounts import codes, tokens
from countermark_server.accounts.acts import act
from countermark_server.accounts.keys import Keys
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.errors import ACCEPTED, ServerError

BODY_MAX_BYTES = 128 * 1024  # an envelope has at most 64 KiB
LOGIN_ATTEMPTS, LOGIN_SECONDS = 10, 60.0
CODE_MAX_CHARS = 64


def blueprint(engine: Engine, statements: Statements, keys: Keys, *, clock: Callable[[], float]) -> Blueprint:
    """The doors, opened onto these collaborators."""
    doors = Blueprint("accounts", __name__, url_prefix="/api/v1")
    limit = RateLimit(LOGIN_ATTEMPTS, LOGIN_SECONDS)

    @doors.post("/login")
    def login() -> Response:
        now = clock()
        limit.count(request.remote_addr or "", now=now)
        body = json_body()
        code = body.get("code") if isinstance(body, dict) else None
        if not isinstance(code, str) or not 1 <= len(code) <= CODE_MAX_CHARS:
            raise ServerError("bad-request", 'the body must be {"code": "..."}')
        with db.write(engine) as connection:
            account = codes.redeem_login_code(connection, code, now=int(now))
            expires = int(now) + tokens.SESSION_SECONDS
            session = tokens.issue_token(
                connection, account.id, tokens.SESSION, now=int(now), expires=expires
            )
            upload = tokens.issue_token(connection, account.id, tokens.UPLOAD, now=int(now), expires=None)
        return jsonify(
            account=account.id,
            login=account.login,
            session=session,
            session_expires=expires,
            upload_token=upload,
        )

    @doors.post("/keys")
    def enrol() -> tuple[Response, int] | Response:
        return _placed(keys.enrol(principal(), json_body()))

    @doors.post("/entries")
    def entries() -> tuple[Response, int] | Response:
        return _placed(act(statements, principal(), json_body()))

    @doors.get("/keys/<keyid>")
    def enrolments(keyid: str) -> Response:
        return jsonify(keys.enrolments(principal(), keyid))

    @doors.get("/projects/<project>")
    def project(project: str) -> Response:
        return jsonify(keys.project(project))

    def principal() -> tokens.Principal:
        with db.read(engine) as connection:
            return tokens.authenticate(connection, request.headers.get("Authorization"), now=int(clock()))

    @doors.after_request
    def _never_cached(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        return response

    return doors


def _placed(done: Placed) -> tuple[Response, int] | Response:
    answer = jsonify(index=done.index, leaf_hash=done.leaf_hash, proof=done.proof)
    return answer if done.proof is not None else (answer, ACCEPTED)


def json_body() -> object:
    """The request's body as JSON, of any shape. ServerError: it is not JSON, or too long."""
    if (request.content_length or 0) > BODY_MAX_BYTES:
        raise ServerError("too-large", f"the body has more than {BODY_MAX_BYTES} bytes")
    request.max_content_length = BODY_MAX_BYTES
    try:
        return request.get_json(force=True, silent=True)
    except RecursionError:
        raise ServerError("bad-request", "the body is nested too deep") from None
