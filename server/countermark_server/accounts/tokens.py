"""Tokens: secrets that say who is asking, and what for.

    cmu_3q2-7w...   an upload token: may upload files and hand in signed statements, or less
    cmj_Xb02lq...   a CI job's: uploads to the projects that trust the job, for fifteen minutes (jobs.py)
    cms_Zk9V1T...   a session: may enrol keys too; expires after an hour

Prefix and form let secret scanners recognise a leaked token (`SCANNED`); what it may do stands in the table, not
in the prefix. Upload clients send it as password of HTTP Basic (any user name, `__token__` by custom), our own as
Bearer.

An upload token may be narrowed to projects (`demo`, `acme-*`, `corp/*` for a namespace), to actions (`upload`,
`entries`, `read`) and to a time. A service account has tokens and no sign-in; its owner makes and revokes them, and
they end with the service account's last day, and with its owner. Making tokens and speaking of them: tokenroom.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from countermark_server import db, quick
from countermark_server.accounts.people import Randomness
from countermark_server.errors import ServerError

SESSION, UPLOAD, JOB = "session", "upload", "job"
_PREFIX = {SESSION: "cms_", UPLOAD: "cmu_", JOB: "cmj_"}
SCANNED = (
    r"\bcm[jsu]_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"  # what a scanner looks for; one in 2**256 is another's
)
SECRET_BYTES = 32
SESSION_SECONDS = 3600
FRESH_SECONDS = 600  # a sign-in that allows what no key confirms
HEADER_MAX_CHARS = 1024  # a token has 47
READ = "read"  # asked for only where reading is not for everybody (access.py)
ACTIONS = ("entries", READ, "upload")  # statements without a file, ahead of one or about one; reading; files
_ROWS = select(db.token, db.account.c.expires.label("ends")).join(
    db.account, db.account.c.id == db.token.c.account_id
)
_BY_DIGEST = _ROWS.where(db.token.c.secret_sha256 == bindparam("d"))
_BY_DIGESTS = _ROWS.where(db.token.c.secret_sha256.in_(bindparam("d", expanding=True)))


@dataclass(frozen=True)
class Principal:
    """Who is asking, proved by a token of this kind; and what the token is narrowed to, where it is."""

    account_id: str
    kind: str
    token_id: str = ""
    projects: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    since: int = 0  # UTC seconds when the token was made: for a session, when the person signed in
    identity: Mapping[str, Any] | None = None  # of the CI job that the token was made for


def issue_token(
    connection: Connection,
    account_id: str,
    kind: str,
    *,
    now: int,
    expires: int | None,
    name: str | None = None,
    projects: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    identity: str | None = None,
    randomness: Randomness = secrets.token_bytes,
) -> str:
    """Make a token; only its SHA-256 is kept, so it can be shown this once."""
    secret = _PREFIX[kind] + base64.urlsafe_b64encode(randomness(SECRET_BYTES)).rstrip(b"=").decode()
    connection.execute(
        db.token.insert().values(
            secret_sha256=digest_of(secret),
            account_id=account_id,
            kind=kind,
            created=now,
            expires=expires,
            revoked=None,
            id=id_of(secret),
            name=name,
            projects=None if projects is None else json.dumps(sorted(projects)),
            actions=None if actions is None else json.dumps(sorted(actions)),
            identity=identity,
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
    secrets_given = [secret_of(authorization) for authorization in authorizations]
    digests = [None if secret is None else digest_of(secret) for secret in secrets_given]
    wanted = sorted({digest for digest in digests if digest is not None})
    found = {row["secret_sha256"]: row for row in _rows(connection, wanted)}
    return [_principal(digest, found.get(digest or ""), now=now) for digest in digests]


def _rows(connection: Connection, digests: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    if not digests:
        return []
    # A list of one is spelled out for each question anew, which costs more than the question.
    if len(digests) == 1:
        return quick.mappings(connection, _BY_DIGEST, {"d": digests[0]})
    return [dict(row) for row in connection.execute(_BY_DIGESTS, {"d": digests}).mappings()]


def _principal(digest: str | None, row: Mapping[str, Any] | None, *, now: int) -> Principal | ServerError:
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
    if row["ends"] is not None and row["ends"] < now:
        return ServerError("not-authenticated", "the service account of this token has expired")
    return Principal(
        row["account_id"],
        row["kind"],
        row["id"],
        names_of(row["projects"]),
        names_of(row["actions"]),
        row["created"],
        None if row["identity"] is None else json.loads(row["identity"]),
    )


def find(connection: Connection, secret: object) -> Mapping[str, Any] | None:
    """The row of a secret that somebody shows; None: there is none."""
    if not isinstance(secret, str) or len(secret) > HEADER_MAX_CHARS:
        return None
    return next(iter(_rows(connection, [digest_of(secret)])), None)


def require_session(principal: Principal) -> None:
    """Only somebody who signed in interactively may go on."""
    if principal.kind != SESSION:
        raise ServerError(
            "session-required", "an upload token may only upload; sign in with `countermark login` for this"
        )


def require_fresh(principal: Principal, *, now: int) -> None:
    """Only somebody who signed in a moment ago may go on: what follows needs no key of theirs."""
    require_session(principal)
    if now - principal.since > FRESH_SECONDS:
        raise ServerError(
            "sign-in-stale",
            f"this needs a sign-in of the last {FRESH_SECONDS // 60} minutes, yours is"
            f" {(now - principal.since) // 60} minutes old: `countermark login` again",
        )


def require_scope(principal: Principal, action: str, project: str, namespace: str = "") -> None:
    """The token is good for this action in this (normalised) project. Whose the project is, is asked elsewhere."""
    if principal.actions is not None and action not in principal.actions:
        may = ", ".join(principal.actions)
        raise ServerError("token-scope", f"this token ({principal.token_id}) is for {may}, not for {action}")
    name = f"{namespace}/{project}" if namespace else project
    if principal.projects is not None and not any(matches(name, each) for each in principal.projects):
        for_ = ", ".join(principal.projects)
        raise ServerError("token-scope", f"this token ({principal.token_id}) is for {for_}, not for {name}")


def require_read(principal: Principal, project: str | None) -> None:
    """The token may read here: "" for what is about all projects, None where it is unclear which one is meant."""
    if principal.actions is not None and READ not in principal.actions:
        may = ", ".join(principal.actions)
        raise ServerError("token-scope", f"this token ({principal.token_id}) is for {may}, not for {READ}")
    if principal.projects is None or project == "":
        return
    if project is None or not any(matches(project, each) for each in principal.projects):
        for_ = ", ".join(principal.projects)
        raise ServerError(
            "token-scope", f"this token ({principal.token_id}) is for {for_}, not for this project"
        )


def matches(name: str, pattern: str) -> bool:
    """Whether a project is meant: its own name, or all that begin like the pattern before its star."""
    if pattern.endswith("*"):
        # A star stays in its namespace: `*` is all of the default one.
        return name.startswith(pattern[:-1]) and ("/" in pattern or "/" not in name)
    return name == pattern


def names_of(text: str | None) -> tuple[str, ...] | None:
    """A scope as the table has it."""
    return None if text is None else tuple(json.loads(text))


def secret_of(authorization: str | None) -> str | None:
    """The secret in an Authorization header, Basic or Bearer; None where there is none."""
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


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def id_of(secret: str) -> str:
    """By which people speak of a token; it gives nothing away that helps to guess one."""
    return digest_of(secret)[:16]
