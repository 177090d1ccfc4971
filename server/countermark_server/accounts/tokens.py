"""Tokens: secrets that say who is asking, and what for.

    cmu_3q2-7w...   an upload token: may upload files
    cms_Zk9V1T...   a session: may enrol keys too; expires after an hour

The prefix lets secret scanners recognise a leaked token; what it may do stands in the table, not in the prefix.
Upload clients send it as password of HTTP Basic (any user name, `__token__` by custom), our own as Bearer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, bindparam, select

from countermark_server import db
from countermark_server.accounts.people import Randomness
from countermark_server.errors import ServerError

SESSION, UPLOAD = "session", "upload"
_PREFIX = {SESSION: "cms_", UPLOAD: "cmu_"}
SECRET_BYTES = 32
SESSION_SECONDS = 3600
HEADER_MAX_CHARS = 1024  # a token has 47
_BY_DIGEST = select(db.token).where(db.token.c.secret_sha256 == bindparam("d"))
_BY_DIGESTS = select(db.token).where(db.token.c.secret_sha256.in_(bindparam("d", expanding=True)))


@dataclass(frozen=True)
class Principal:
    """Who is asking, proved by a token of this kind."""

    account_id: str
    kind: str


def issue_token(
    connection: Connection,
    account_id: str,
    kind: str,
    *,
    now: int,
    expires: int | None,
    randomness: Randomness = secrets.token_bytes,
) -> str:
    """Make a token; only its SHA-256 is kept, so it can be shown this once."""
    secret = _PREFIX[kind] + base64.urlsafe_b64encode(randomness(SECRET_BYTES)).rstrip(b"=").decode()
    connection.execute(
        db.token.insert().values(
            secret_sha256=_digest(secret),
            account_id=account_id,
            kind=kind,
            created=now,
            expires=expires,
            revoked=None,
        )
    )
    return secret


def authenticate(connection: Connection, authorization: str | None, *, now: int) -> Principal:
    """Who sent this Authorization header. ServerError `not-authenticated`: nobody we know (any more)."""
    (who,) = authenticate_all(connection, [authorization], now=now)
    if isinstance(who, ServerError):
        raise who
    return who


def authenticate_all(
    connection: Connection, authorizations: Sequence[str | None], *, now: int
) -> list[Principal | ServerError]:
    """Who sent each of these headers, all asked for at once; or why that is nobody we know."""
    secrets_given = [_secret(authorization) for authorization in authorizations]
    digests = [None if secret is None else _digest(secret) for secret in secrets_given]
    wanted = sorted({digest for digest in digests if digest is not None})
    found = {row["secret_sha256"]: row for row in _rows(connection, wanted)}
    return [_principal(digest, found.get(digest or ""), now=now) for digest in digests]


def _rows(connection: Connection, digests: Sequence[str]) -> Sequence[RowMapping]:
    if not digests:
        return []
    # A list of one is spelled out for each question anew, which costs more than the question.
    query, asked = (_BY_DIGEST, digests[0]) if len(digests) == 1 else (_BY_DIGESTS, digests)
    return connection.execute(query, {"d": asked}).mappings().all()


def _principal(digest: str | None, row: RowMapping | None, *, now: int) -> Principal | ServerError:
    if digest is None:
        return ServerError(
            "not-authenticated", "this needs a token: user name __token__, the token as password"
        )
    # The lookup is by digest, which an attacker cannot steer byte by byte; the comparison repeats it in
    # constant time, so that no database's collation decides what is equal.
    if row is None or not hmac.compare_digest(row["secret_sha256"], digest):
        return ServerError("not-authenticated", "this token is not known here")
    if row["revoked"] is not None or (row["expires"] is not None and row["expires"] < now):
        return ServerError("not-authenticated", "this token has expired or was revoked")
    return Principal(row["account_id"], row["kind"])


def require_session(principal: Principal) -> None:
    """Only somebody who signed in interactively may go on."""
    if principal.kind != SESSION:
        raise ServerError(
            "session-required", "an upload token may only upload; sign in with `countermark login` for this"
        )


def _secret(authorization: str | None) -> str | None:
    if not authorization or len(authorization) > HEADER_MAX_CHARS:
        return None
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return password if colon and password else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
