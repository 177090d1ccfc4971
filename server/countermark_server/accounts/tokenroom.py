"""The token room: make tokens, list them, revoke them. For people who are signed in, and for finders.

    POST   /api/v1/tokens         {"name": "laptop", "projects": ["demo"], "actions": ["upload"], "expires_in": 86400}
    GET    /api/v1/tokens         what there is: names, scopes, last use; never a secret
    POST   /api/v1/tokens/ID/revoke                        at once, for ever
    POST   /api/v1/tokens/revoke  {"token": "cmu_..."}     by anybody who has it: who finds one ends it

A session is asked for, so a stolen upload token makes no others. `for` names a service account that one owns. Last
use is to within the hour: each process notes a token at most that often, so that reading stays reading.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark.schema import is_namespace
from countermark_server import db
from countermark_server.accounts import tokens
from countermark_server.accounts.people import find_account
from countermark_server.accounts.tokens import ACTIONS, Principal, require_session
from countermark_server.errors import ServerError

NAME_MAX_CHARS = 64
SCOPE_MAX = 100  # projects and patterns of one token
TOKENS_MAX = 200  # of one account, dead ones not counted
EXPIRES_MAX_SECONDS = 366 * 86_400
NOTED_SECONDS = 3600
NOTED_MAX = 10_000
_MEMBERS = {"name", "projects", "actions", "expires_in", "for"}


class TokenRoom:
    """Makes, lists and revokes the tokens of who is signed in."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def make(self, principal: Principal, body: object) -> dict[str, Any]:
        """A new upload token. The answer is the only place where its secret ever stands."""
        require_session(principal)
        if not isinstance(body, Mapping) or not body.keys() <= _MEMBERS or "name" not in body:
            raise ServerError(
                "bad-request",
                'the body must be {"name": "..."}, and may have "projects", "actions", "expires_in" and "for"',
            )
        name, lasts = body["name"], body.get("expires_in")
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX_CHARS or not name.isprintable():
            raise ServerError("bad-request", f"a token's name has 1 to {NAME_MAX_CHARS} printable characters")
        if lasts is not None and (type(lasts) is not int or not 1 <= lasts <= EXPIRES_MAX_SECONDS):
            raise ServerError(
                "bad-request", f"expires_in must be 1 to {EXPIRES_MAX_SECONDS} seconds, or null"
            )
        projects, actions = _projects(body.get("projects")), _actions(body.get("actions"))
        now = int(self._clock())
        with db.write(self._engine) as connection:
            account_id = _account(connection, principal, body.get("for"), now=now)
            alive = [row for row in _mine(connection, account_id) if _alive(row, now=now)]
            if sum(row["kind"] == tokens.UPLOAD for row in alive) >= TOKENS_MAX:
                raise ServerError(
                    "bad-request", f"this account has {TOKENS_MAX} tokens: revoke one before another is made"
                )
            secret = tokens.issue_token(
                connection,
                account_id,
                tokens.UPLOAD,
                now=now,
                expires=None if lasts is None else now + lasts,
                name=name,
                projects=projects,
                actions=actions,
            )
            (made,) = (row for row in _mine(connection, account_id) if row["id"] == tokens.id_of(secret))
            return {**shown(made), "token": secret}

    def listed(self, principal: Principal) -> list[dict[str, Any]]:
        """The account's tokens and those of its service accounts, the newest first; sessions too."""
        require_session(principal)
        with db.read(self._engine) as connection:
            return [shown(row) for row in _mine(connection, principal.account_id, services=True)]

    def revoke(self, principal: Principal, token_id: str) -> dict[str, Any]:
        """End one of them. ServerError `not-found`: there is none of this id that is the account's to revoke."""
        require_session(principal)
        with db.write(self._engine) as connection:
            rows = _mine(connection, principal.account_id, services=True)
            if not any(row["id"] == token_id for row in rows):
                raise ServerError("not-found", f"you have no token {token_id[:64]!r}")
            return revoke_token(connection, token_id, now=int(self._clock()))

    def found(self, body: object) -> dict[str, Any]:
        """Somebody found a secret and ends it; having it is all the proof there could be."""
        secret = body.get("token") if isinstance(body, Mapping) and body.keys() == {"token"} else None
        if not isinstance(secret, str) or len(secret) > tokens.HEADER_MAX_CHARS:
            raise ServerError("bad-request", 'the body must be {"token": "..."}')
        with db.write(self._engine) as connection:
            row = tokens.find(connection, secret)
            if row is None:
                raise ServerError("not-found", "this token is not known here")
            return revoke_token(connection, row["id"], now=int(self._clock()))


def revoke_token(connection: Connection, token_id: str, *, now: int) -> dict[str, Any]:
    """End a token, at once and for ever; when it was ended before, that stays the moment."""
    table = db.token
    connection.execute(
        update(table).where(table.c.id == token_id, table.c.revoked.is_(None)).values(revoked=now)
    )
    row = connection.execute(_QUERY.where(table.c.id == token_id)).mappings().one()
    return shown(row)


def tokens_of(connection: Connection, account_id: str) -> list[dict[str, Any]]:
    """All tokens of an account, for its operator."""
    return [shown(row) for row in _mine(connection, account_id)]


class Uses:
    """Notes when a token was last used."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._noted: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, principal: Principal, *, now: int) -> None:
        """This token was used now. Upload tokens only: a session's hour is its use."""
        if principal.kind != tokens.UPLOAD:
            return
        with self._lock:
            if self._noted.get(principal.token_id, -NOTED_SECONDS) + NOTED_SECONDS > now:
                return
            self._noted[principal.token_id] = now
            while len(self._noted) > NOTED_MAX:
                self._noted.popitem(last=False)
        with db.write(self._engine) as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            row = insert(db.token_use).values(token_id=principal.token_id, last_used=now)
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=["token_id"], set_={"last_used": row.excluded.last_used}
                )
            )


_QUERY = (
    select(db.token, db.account.c.login, db.token_use.c.last_used)
    .join(db.account, db.account.c.id == db.token.c.account_id)
    .outerjoin(db.token_use, db.token_use.c.token_id == db.token.c.id)
)


def _mine(connection: Connection, account_id: str, *, services: bool = False) -> Sequence[RowMapping]:
    mine = db.token.c.account_id == account_id
    if services:
        mine = or_(mine, and_(db.account.c.owner == account_id))
    return (
        connection.execute(_QUERY.where(mine).order_by(db.token.c.created.desc(), db.token.c.id))
        .mappings()
        .all()
    )


def _account(connection: Connection, principal: Principal, service: object, *, now: int) -> str:
    """Whose token it shall be: the account's own, or that of a service account it owns."""
    if service is None:
        return principal.account_id
    found = find_account(connection, service) if isinstance(service, str) else None
    if found is None or found.owner != principal.account_id:
        raise ServerError("not-found", f"you own no service account {str(service)[:64]!r}")
    if found.expires is not None and found.expires < now:
        raise ServerError("not-found", f"the service account {found.login!r} has expired")
    return found.id


def _alive(row: RowMapping, *, now: int) -> bool:
    return row["revoked"] is None and (row["expires"] is None or row["expires"] >= now)


def shown(row: RowMapping) -> dict[str, Any]:
    """A token as people see it: everything but what it is."""
    projects, actions = (
        None if row[name] is None else list(tokens.names_of(row[name]) or ())
        for name in ("projects", "actions")
    )
    plain = ("id", "kind", "name", "login", "created", "expires", "revoked", "last_used")
    return {**{name: row[name] for name in plain}, "projects": projects, "actions": actions}


def _projects(given: object) -> list[str] | None:
    """Names and patterns in their one spelling; null for no narrowing, and never an empty list."""
    if given is None:
        return None
    if not isinstance(given, list) or not 1 <= len(given) <= SCOPE_MAX:
        raise ServerError("bad-request", f"projects must be 1 to {SCOPE_MAX} names or patterns, or null")
    return sorted({read_pattern(each) for each in given})


def read_pattern(given: object) -> str:
    """A project's name or a pattern in its one spelling. ServerError `bad-request`: it is neither."""
    text = given if isinstance(given, str) else ""
    namespace, slash, name = text.rpartition("/")
    stem = name.removesuffix("*")
    try:
        if slash and (not namespace or not is_namespace(namespace)):
            raise MalformedError("no namespace")
        if name == stem:
            return namespace + slash + normalise_project(name)
        if stem and normalise_project(stem.rstrip("-") or "-") != stem.rstrip("-"):
            raise MalformedError("not normalised")
    except MalformedError:
        raise ServerError(
            "bad-request",
            f"{str(given)[:80]!r} is neither a project nor a pattern such as acme-* or corp/acme-*",
        ) from None
    return namespace + slash + name


def _actions(given: object) -> list[str] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(each in ACTIONS for each in given):
        raise ServerError("bad-request", f"actions must be some of {', '.join(ACTIONS)}, or null")
    return sorted(set(given))
