"""Browsers: sessions of people who look at pages, and the proof that a form is theirs.

    Set-Cookie: __Host-countermark=3q2-7w...; Secure; HttpOnly; SameSite=Lax; Path=/

A cookie is worth a browser and nothing else: no door of the API takes it, and no page takes a token. Only its SHA-256
is kept. Its session lasts eight hours; weighty acts want a sign-in of the last ten minutes, which moves with a new
sign-in alone. Every form carries a value that is made from the cookie and that no other site can know; a form that
comes without it does nothing. Whoever the identity provider disables is out within 15 minutes, as with tokens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from countermark_server import orgtables
from countermark_server.accounts import tokens
from countermark_server.accounts.people import Account, Randomness, get_account
from countermark_server.accounts.tokens import Principal
from countermark_server.errors import ServerError

SESSION_SECONDS = 8 * 3600
SECRET_MAX_CHARS = 128  # a secret has 43
_TABLE = orgtables.browser_session


@dataclass(frozen=True)
class Browser:
    """Somebody's browser: who, since when, and what its forms must carry."""

    account: Account
    signed_in: int
    csrf: str

    @property
    def principal(self) -> Principal:
        """Whoever sits before it, as the rooms of this folder ask: a session that may do what sessions may."""
        return Principal(self.account.id, tokens.SESSION)

    def is_fresh(self, *, now: int) -> bool:
        """Whether they signed in just now: what a browser that was left open is not enough for asks this."""
        return now - self.signed_in <= tokens.FRESH_SECONDS


def open_session(
    connection: Connection, account: Account, *, now: int, randomness: Randomness = secrets.token_bytes
) -> str:
    """A session for who has just signed in; the cookie's value, which is kept nowhere. Old sessions go."""
    secret = base64.urlsafe_b64encode(randomness(32)).rstrip(b"=").decode()
    connection.execute(delete(_TABLE).where(_TABLE.c.expires < now))
    row = {"secret_sha256": tokens.digest_of(secret), "account_id": account.id}
    connection.execute(_TABLE.insert().values(**row, signed_in=now, expires=now + SESSION_SECONDS))
    return secret


def find_session(connection: Connection, cookie: str | None, *, now: int) -> Browser | None:
    """Whose browser this is; None: nobody's who is signed in."""
    if not cookie or len(cookie) > SECRET_MAX_CHARS:
        return None
    digest = tokens.digest_of(cookie)
    query = select(_TABLE).where(_TABLE.c.secret_sha256 == digest, _TABLE.c.expires >= now)
    row = connection.execute(query).mappings().first()
    if row is None or not hmac.compare_digest(row["secret_sha256"], digest):
        return None
    account = get_account(connection, row["account_id"])
    return None if account is None else Browser(account, row["signed_in"], form_value(cookie))


def end_session(connection: Connection, cookie: str) -> None:
    """Sign this browser out."""
    connection.execute(delete(_TABLE).where(_TABLE.c.secret_sha256 == tokens.digest_of(cookie)))


def end_all(connection: Connection, account_id: str) -> None:
    """Sign every browser of this account out."""
    connection.execute(delete(_TABLE).where(_TABLE.c.account_id == account_id))


def form_value(cookie: str) -> str:
    """What a form of the browser with this cookie carries."""
    return hmac.new(cookie.encode(), b"countermark form", hashlib.sha256).hexdigest()


def check_form(expected: str, given: str | None) -> None:
    """ServerError `form-foreign`: the form was not made for this browser."""
    if not hmac.compare_digest(expected.encode(), (given or "").encode()):
        raise ServerError(
            "form-foreign", "this form is not of this browser's session: open the page again, then send it"
        )
