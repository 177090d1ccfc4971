"""The desk: what every signed-in page needs - whose browser asks, which form is theirs, how a page goes out.

Pages keep to the form policy, are never cached, and say a refusal in the words it has everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from flask import Blueprint, Response, make_response, redirect, render_template, request
from sqlalchemy import Engine

from countermark_server import db
from countermark_server.accounts import browsers, people
from countermark_server.accounts.browsers import Browser
from countermark_server.accounts.doorway import never_cached
from countermark_server.accounts.signin import SignIns
from countermark_server.errors import CODES, ServerError, problem


class Session:
    """The cookie of a browser: named, set, read and ended in one place."""

    def __init__(
        self, engine: Engine, sign_ins: SignIns | None, *, base_url: str, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._sign_ins = sign_ins
        self._clock = clock
        self._secure = base_url.startswith("https:")
        # The prefix makes browsers refuse the cookie from another host or path, or without TLS.
        self.name = "__Host-countermark" if self._secure else "countermark"

    def find(self) -> Browser | None:
        """Who is signed in in the browser that asks; refused once the identity provider vouches no longer."""
        with db.read(self._engine) as connection:
            found = browsers.find_session(connection, request.cookies.get(self.name), now=int(self._clock()))
        if found is not None and self._sign_ins is not None:
            self._sign_ins.vouch(found.principal)
        return found

    def open(self, account: people.Account, answer: Response) -> Response:
        """Sign this browser in; what it held before is worth nothing from now on."""
        with db.write(self._engine) as connection:
            browsers.end_session(connection, request.cookies.get(self.name, ""))
            cookie = browsers.open_session(connection, account, now=int(self._clock()))
        answer.set_cookie(
            self.name,
            cookie,
            max_age=browsers.SESSION_SECONDS,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=self._secure,
        )
        return answer

    def end(self, answer: Response) -> Response:
        """Sign it out."""
        with db.write(self._engine) as connection:
            browsers.end_session(connection, request.cookies.get(self.name, ""))
        answer.delete_cookie(self.name, path="/", secure=self._secure, httponly=True, samesite="Lax")
        return answer


class Desk:
    """Whose browser asks, and a page for it; `policy` is what browsers shall keep to."""

    def __init__(
        self, session: Session, *, base_url: str, issuer: str, policy: str, clock: Callable[[], float]
    ) -> None:
        self.session = session
        self.secure = base_url.startswith("https:")
        self._base_url = base_url
        self._issuer = issuer
        self._policy = policy
        self._clock = clock

    def install(self, pages: Blueprint) -> Blueprint:
        """Refusals as pages, and nothing in a cache, for all pages of a blueprint."""
        pages.register_error_handler(ServerError, self._refused)
        pages.after_request(never_cached)
        return pages

    def sent_by(self) -> Browser | None:
        """Whose form this is; ServerError `form-foreign`: another browser's, or another site's."""
        browser = self.session.find()
        if browser is not None:
            browsers.check_form(browser.csrf, request.form.get("csrf"))
        return browser

    def page(self, template: str, browser: Browser | None = None, **values: object) -> Response:
        """A page of this template, for who is signed in; it knows whether that was just now."""
        fresh = browser is not None and browser.is_fresh(now=self.now())
        answer = make_response(
            render_template(template, browser=browser, fresh=fresh, issuer=self._issuer, day=day, **values)
        )
        answer.headers["Content-Security-Policy"] = self._policy
        return answer

    def now(self) -> int:
        return int(self._clock())

    def _refused(self, error: ServerError) -> Response:
        """A refusal as a page, with the status and the words it has everywhere."""
        answer = self.page(
            "refused.html", title=CODES[error.code].title, detail=error.detail, code=error.code
        )
        answer.status = problem(error, self._base_url).status
        return answer


def to_sign_in(back: str | None = None) -> Response:
    """On to signing in, and back to where this was asked."""
    return onward(f"/sign-in?next={back or request.path}")


def next_page() -> str:
    """Where to go afterwards: a page of ours, by its path alone."""
    return inside(request.values.get("next", ""))


def inside(path: str) -> str:
    """The path if it is one of these pages, else the first of them: nobody is sent elsewhere from here."""
    plain = all(c.isascii() and (c.isalnum() or c in "/-._") for c in path)
    upwards = any(part.strip(".") == "" for part in path.split("/")[2:])
    return path if plain and path.startswith("/me/") and not upwards else "/me"


def onward(url: str) -> Response:
    """To another page, with GET."""
    return make_response(redirect(url, 303))


def day(seconds: int | None) -> str:
    """A moment, for people."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
