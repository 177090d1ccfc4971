"""Signing in with the identity provider: a browser vouches for a machine, and the provider for the person.

    machine   POST /api/v1/login/device                -> a device code, and a user code K7QM-2XHD with an address
    browser   GET  /login/device?code=K7QM-2XHD        -> to the provider (authorization code + PKCE) and back
              GET  /login/callback?code=...&state=...  -> "the machine that shows K7QM-2XHD will be you": a button
              POST /login/device                       -> granted
    machine   POST /api/v1/login/device/token          -> `login-pending`, or a session, as for a one-time code

The browser is held by a cookie from the first step to the last, so nobody's sign-in ends in another's browser; the
person compares the code, because a stranger may have sent them the address. Codes live ten minutes and are spent
once. Whoever signs in for the pages alone (pages.py) takes the same way without a machine: the browser that comes
back is the one that is signed in, and there is nothing to compare.

**Dead here within 15 minutes.** With every account that came by the provider its refresh token is kept (sealed.py).
Whoever uses a session or token of such an account, or of a service account it owns, more than ten minutes after the
provider was last asked makes the registry ask again first. A refusal ends all of that account's sessions, and its
tokens rest until the person has signed in anew. A provider that does not answer is waited for until the fifteenth
minute; then these accounts get 503, for nobody vouches for them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from countermark.errors import UsageError
from countermark_server import db, telemetry
from countermark_server.accounts import browsers, people, tokens
from countermark_server.accounts.issuer import ProviderDownError, ProviderError
from countermark_server.accounts.organisations import note_groups
from countermark_server.accounts.people import Account, Randomness
from countermark_server.accounts.provider import GoneError, Provider, Vouched
from countermark_server.accounts.sealed import Sealed
from countermark_server.accounts.tokens import Principal
from countermark_server.errors import ServerError

CODE_SECONDS = 600
POLL_SECONDS = 2
ASK_SECONDS, DEAD_SECONDS = 600, 900
PAGE = "page-"  # how the code of a sign-in begins that no machine waits for; nobody can type it
_USER_CODE = re.compile(r"[A-Z2-7]{4}-[A-Z2-7]{4}")
_NO_MACHINE = "no machine shows this code now: mistyped, used, or too old"
_IN, _ID = db.sign_in, db.identity


@dataclass(frozen=True)
class Begun:
    """A sign-in that goes to the provider: where, and the cookie that holds the browser."""

    url: str
    cookie: str


@dataclass(frozen=True)
class Returned:
    """Somebody came back from the provider: who, and which machine shows which code."""

    login: str
    user_code: str
    cookie: str


class SignIns:
    """Sign-ins on their way, and whether the provider still vouches for who has signed in."""

    def __init__(
        self,
        engine: Engine,
        provider: Provider,
        sealed: Sealed,
        *,
        groups: tuple[str, ...],
        roles: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        clock: Callable[[], float],
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._provider = provider
        self._sealed = sealed
        self._groups = groups
        self._roles = roles
        self._clock = clock
        self._random = randomness

    # --- the machine ---------------------------------------------------------------------------------------
    def begin_device(self) -> tuple[str, str]:
        """A device code and a user code. One row until it is redeemed or forgotten."""
        plain = base64.b32encode(self._random(5)).decode()
        return self._waiting(f"{plain[:4]}-{plain[4:]}")

    def _waiting(self, user_code: str) -> tuple[str, str]:
        now, device = int(self._clock()), self._secret()
        with db.write(self._engine) as connection:
            connection.execute(delete(_IN).where(_IN.c.expires < now))
            connection.execute(
                _IN.insert().values(
                    device_sha256=_digest(device), user_code=user_code, expires=now + CODE_SECONDS
                )
            )
        return device, user_code

    def redeem_device(self, device: str) -> Account:
        """Whom the browser vouched for; the row is spent. ServerError: not yet, or never."""
        now = int(self._clock())
        with db.write(self._engine) as connection:
            mine = _IN.c.device_sha256 == _digest(device)
            row = connection.execute(select(_IN).where(mine, _IN.c.expires >= now)).mappings().first()
            if row is None:
                raise ServerError("login-refused", "this sign-in is not known: spent, refused, or too old")
            if not row["granted"]:
                raise ServerError("login-pending", "nobody has vouched for this machine yet")
            # Whoever redeems beside us waits here for our commit, and then finds no row: one session per sign-in.
            if connection.execute(delete(_IN).where(mine)).rowcount != 1:
                raise ServerError("login-refused", "this sign-in is spent")
            account = people.get_account(connection, row["account_id"])
        if account is None:
            raise ServerError("login-refused", "the account of this sign-in is gone")
        return account

    # --- the browser ---------------------------------------------------------------------------------------
    def begin(self, user_code: str) -> Begun:
        """Send the browser to the provider, for the machine that shows this code."""
        return self._to_provider(_typed(user_code))

    def begin_page(self) -> Begun:
        """Send the browser to the provider for itself; the provider shall ask who it is, whoever it was before."""
        _, user_code = self._waiting(PAGE + base64.b32encode(self._random(5)).decode())
        return self._to_provider(user_code, fresh=True)

    def enter(self, returned: Returned) -> Account:
        """Who came back for the pages alone, in the browser that began; the row is spent."""
        now = int(self._clock())
        with db.write(self._engine) as connection:
            row = self._row(connection, _IN.c.user_code == returned.user_code, returned.cookie, now=now)
            connection.execute(delete(_IN).where(_IN.c.device_sha256 == row["device_sha256"]))
            account = people.get_account(connection, row["account_id"] or "")
        if account is None:
            raise ServerError("login-refused", "the account of this sign-in is gone")
        return account

    def _to_provider(self, user_code: str, *, fresh: bool = False) -> Begun:
        state, nonce, verifier, cookie = (self._secret() for _ in range(4))
        now = int(self._clock())
        try:
            url = self._provider.authorize_url(state=state, nonce=nonce, verifier=verifier, fresh=fresh)
        except (ProviderDownError, ProviderError) as error:
            raise _unavailable(error) from None
        with db.write(self._engine) as connection:
            done = connection.execute(
                update(_IN)
                .where(
                    _IN.c.user_code == user_code,
                    _IN.c.expires >= now,
                    _IN.c.account_id.is_(None),
                )
                .values(
                    state_sha256=_digest(state),
                    cookie_sha256=_digest(cookie),
                    nonce=nonce,
                    verifier=verifier,
                )
            )
        if done.rowcount != 1:
            raise ServerError("login-refused", _NO_MACHINE)
        return Begun(url, cookie)

    def came_back(self, state: str, code: str, cookie: str) -> Returned:
        """The provider sent the browser back: who is it? Nothing is granted before they press the button."""
        now = int(self._clock())
        with db.write(self._engine) as connection:
            row = self._row(connection, _IN.c.state_sha256 == _digest(state), cookie, now=now)
            connection.execute(  # a state is good for one answer, whatever it is
                update(_IN).where(_IN.c.device_sha256 == row["device_sha256"]).values(state_sha256=None)
            )
        try:
            vouched = self._provider.redeem(code, verifier=row["verifier"], nonce=row["nonce"])
        except (ProviderError, GoneError) as error:
            telemetry.logger().warning("sign-in refused", error=str(error))
            raise ServerError("login-refused", "the identity provider did not sign you in") from None
        except ProviderDownError as error:
            raise _unavailable(error) from None
        if self._groups and not set(vouched.groups or ()) & set(self._groups):
            raise ServerError(
                "login-refused", f"{vouched.name} is in none of the groups that may sign in here"
            )
        try:
            return self._returned(row, vouched, now=now)
        except (IntegrityError, UsageError):
            # The same person came first by another browser, and has an account now.
            return self._returned(row, vouched, now=now)

    def _returned(self, row: RowMapping, vouched: Vouched, *, now: int) -> Returned:
        cookie = self._secret()  # another one: what the browser had before it signed in is worth nothing now
        with db.write(self._engine) as connection:
            account = self._account(connection, vouched, now=now)
            note_groups(connection, account.id, vouched.groups, self._roles, now=now)
            connection.execute(
                update(_IN)
                .where(_IN.c.device_sha256 == row["device_sha256"])
                .values(account_id=account.id, cookie_sha256=_digest(cookie), verifier=None, nonce=None)
            )
        return Returned(account.login, row["user_code"], cookie)

    def grant(self, user_code: str, cookie: str) -> str:
        """The button was pressed, in the browser that signed in; the login."""
        now = int(self._clock())
        with db.write(self._engine) as connection:
            row = self._row(connection, _IN.c.user_code == _typed(user_code), cookie, now=now)
            account = people.get_account(connection, row["account_id"] or "")
            if account is None or row["granted"]:
                raise ServerError("login-refused", "nobody signed in for this code, or it was used")
            connection.execute(
                update(_IN)
                .where(_IN.c.device_sha256 == row["device_sha256"])
                .values(granted=True, cookie_sha256=None)
            )
        return account.login

    def _row(self, connection: Connection, which: Any, cookie: str, *, now: int) -> RowMapping:
        row = connection.execute(select(_IN).where(which, _IN.c.expires >= now)).mappings().first()
        held = "" if row is None else row["cookie_sha256"] or ""
        if row is None or not hmac.compare_digest(held, _digest(cookie)):
            raise ServerError("login-refused", "this sign-in was not begun in this browser, or is too old")
        return row

    def _account(self, connection: Connection, vouched: Vouched, *, now: int) -> Account:
        """The account of an identity; a new one never takes over one of the same name."""
        mine = (_ID.c.issuer == self._provider.issuer) & (_ID.c.subject == vouched.subject)
        account_id = connection.execute(select(_ID.c.account_id).where(mine)).scalar()
        kept = {"refresh": self._sealed.seal(vouched.refresh), "checked": now, "gone": None, "asking": None}
        if account_id is not None:
            connection.execute(update(_ID).where(mine).values(**kept))
            found = people.get_account(connection, account_id)
            assert found is not None, "a row of `identity` goes with its account"
            return found
        login = "".join(c for c in vouched.name if c.isprintable()).strip()[:200] or vouched.subject
        if people.find_account(connection, login) is not None:
            login = f"{login}#{self._random(4).hex()}"
        account = people.add_account(connection, login, now=now)
        identity = {"issuer": self._provider.issuer, "subject": vouched.subject, "account_id": account.id}
        connection.execute(_ID.insert().values(**identity, **kept))
        return account

    # --- everybody who comes with a token ------------------------------------------------------------------
    def vouch(self, principal: Principal) -> None:
        """Refuse whom the provider vouches for no longer. Most calls ask one row and nobody else."""
        if principal.identity is not None:  # a job: its project trusts it, whoever once said so
            return
        now = int(self._clock())
        with db.read(self._engine) as connection:
            row = _identity_of(connection, principal.account_id)
        if row is None:
            return
        if row["gone"] is not None:
            raise _gone()
        if now - row["checked"] < ASK_SECONDS:
            return
        if not self._my_turn(row, now=now):
            self._wait_or_refuse(row, now=now, why="it is being asked")
            return
        try:
            vouched = self._provider.ask(row["subject"], self._sealed.open(row["refresh"]))
        except ProviderDownError as error:
            self._wait_or_refuse(row, now=now, why=str(error))
            return
        except (GoneError, ProviderError) as error:
            telemetry.logger().warning(
                "not vouched for any more", account=row["account_id"], error=str(error)
            )
            self._end(row["account_id"], now=now)
            raise _gone() from None
        if self._groups and vouched.groups is not None and not set(vouched.groups) & set(self._groups):
            self._end(row["account_id"], now=now)
            raise _gone()
        with db.write(self._engine) as connection:
            connection.execute(
                update(_ID)
                .where(_ID.c.account_id == row["account_id"])
                .values(checked=now, asking=None, refresh=self._sealed.seal(vouched.refresh))
            )
            note_groups(connection, row["account_id"], vouched.groups, self._roles, now=now)

    def _my_turn(self, row: RowMapping, *, now: int) -> bool:
        """One process asks at a time: a refresh token may be good for one use."""
        free = or_(_ID.c.asking.is_(None), _ID.c.asking < now - 30)
        mine = (_ID.c.account_id == row["account_id"], _ID.c.checked == row["checked"], free)
        with db.write(self._engine) as connection:
            return connection.execute(update(_ID).where(*mine).values(asking=now)).rowcount == 1

    def _wait_or_refuse(self, row: RowMapping, *, now: int, why: str) -> None:
        if now - row["checked"] >= DEAD_SECONDS:
            raise _unavailable(why)

    def _end(self, account_id: str, *, now: int) -> None:
        with db.write(self._engine) as connection:
            connection.execute(update(_ID).where(_ID.c.account_id == account_id).values(gone=now, refresh=""))
            connection.execute(
                update(db.token)
                .where(
                    db.token.c.account_id == account_id,
                    db.token.c.kind == tokens.SESSION,
                    db.token.c.revoked.is_(None),
                )
                .values(revoked=now)
            )
            browsers.end_all(connection, account_id)

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()


def _typed(user_code: str) -> str:
    """A machine's code as somebody typed it. ServerError `login-refused`: no code looks like this."""
    plain = user_code.strip().upper()
    if _USER_CODE.fullmatch(plain) is None:
        raise ServerError("login-refused", _NO_MACHINE)
    return plain


def _identity_of(connection: Connection, account_id: str) -> RowMapping | None:
    """The identity behind an account; behind a service account, its owner's."""
    owner = select(db.account.c.owner).where(db.account.c.id == account_id).scalar_subquery()
    query = select(_ID).where(or_(_ID.c.account_id == account_id, _ID.c.account_id == owner))
    return connection.execute(query).mappings().first()


def _gone() -> ServerError:
    return ServerError(
        "not-authenticated", "the identity provider no longer vouches for this account; sign in again"
    )


def _unavailable(why: object) -> ServerError:
    telemetry.logger().warning("identity provider", error=str(why))
    return ServerError("unavailable", "the identity provider does not answer; try again")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
