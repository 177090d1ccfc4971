"""The pages of who is signed in: projects, tokens, keys, organisations. Views only translate.

    GET  /sign-in                     with a one-time code, or at the identity provider
    GET  /me                          projects and organisations
    GET  /me/projects/NAME            releases with standing, keys with their chain, owners; each with its entries
    GET  /me/tokens  POST /me/tokens  POST /me/tokens/ID/revoke
    GET  /me/organisations/NAME       owners, teams, names, projects
    GET  /me/attention                for admins: projects whose people have gone
    POST /sign-out

No page has a script, and each fact links to the entry of the log that makes it true. Forms carry a value of this
browser's session (browsers.py); whoever makes a token has signed in within the last ten minutes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request
from sqlalchemy import Engine

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark_server import db
from countermark_server.accounts import browsers, codes, holdings, people
from countermark_server.accounts.browsers import Browser
from countermark_server.accounts.keys import Keys
from countermark_server.accounts.membership import organisation_of, organisations_of
from countermark_server.accounts.organisations import ADMIN, has_role, role_in
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.seats import orphans
from countermark_server.accounts.signin import SignIns
from countermark_server.accounts.tokenroom import TokenRoom
from countermark_server.errors import ServerError, problem
from countermark_server.published import Published

SIGN_IN_COOKIE, NEXT_COOKIE = "countermark_sign_in", "countermark_next"  # on the way to the provider and back
FORM_COOKIE = "countermark_form"
ATTEMPTS, SECONDS = 10, 60.0  # of one address, at signing in
CODE_MAX_CHARS = 64
DAY_SECONDS = 86_400


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


def blueprint(
    engine: Engine,
    session: Session,
    *,
    sign_ins: SignIns | None,
    keys: Keys,
    room: TokenRoom,
    published: Published,
    base_url: str,
    issuer: str,
    policy: str,
    clock: Callable[[], float],
) -> Blueprint:
    """The pages, opened onto these collaborators; `policy` is what browsers shall keep to on them."""
    pages = Blueprint("me", __name__)
    limit = RateLimit(ATTEMPTS, SECONDS)
    secure = base_url.startswith("https:")

    # --- signing in and out --------------------------------------------------------------------------------
    @pages.get("/sign-in")
    def sign_in() -> Any:
        answer = page("me_sign_in.html", csrf=browsers.form_value(knock := _knock()), next=_next())
        answer.set_cookie(
            FORM_COOKIE, knock, path="/sign-in", httponly=True, samesite="Strict", secure=secure
        )
        return answer

    @pages.post("/sign-in")
    def with_code() -> Any:
        limit.count(request.remote_addr or "", now=clock())
        knock = request.cookies.get(FORM_COOKIE, "")
        browsers.check_form(browsers.form_value(knock) if knock else "no cookie", request.form.get("csrf"))
        code = request.form.get("code", "")[:CODE_MAX_CHARS]
        with db.write(engine) as connection:
            account = codes.redeem_login_code(connection, code, now=int(clock()))
        return session.open(account, _redirect(_next()))

    @pages.get("/sign-in/provider")
    def with_provider() -> Any:
        limit.count(request.remote_addr or "", now=clock())
        if sign_ins is None:
            raise ServerError("not-found", "this registry has no identity provider")
        begun = sign_ins.begin_page()
        answer = _redirect(begun.url)
        answer.set_cookie(
            SIGN_IN_COOKIE, begun.cookie, path="/login", httponly=True, samesite="Lax", secure=secure
        )
        answer.set_cookie(NEXT_COOKIE, _next(), path="/login", httponly=True, samesite="Lax", secure=secure)
        return answer

    @pages.post("/sign-out")
    def sign_out() -> Any:
        browser = session.find()
        if browser is not None:
            browsers.check_form(browser.csrf, request.form.get("csrf"))
        return session.end(_redirect("/"))

    # --- what is somebody's --------------------------------------------------------------------------------
    @pages.get("/me")
    def mine() -> Any:
        if (browser := session.find()) is None:
            return to_sign_in()
        with db.read(engine) as connection:
            projects = holdings.projects_of(connection, browser.account.id)
            organisations = organisations_of(connection, browser.account.id)
            admin = has_role(connection, browser.account.id, ADMIN)
        return page("me.html", browser, projects=projects, organisations=organisations, admin=admin)

    @pages.get("/me/projects/<name>")
    def project(name: str) -> Any:
        if (browser := session.find()) is None:
            return to_sign_in()
        try:
            said = keys.project(normalise_project(name))
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        with db.read(engine) as connection:
            role = role_in(connection, browser.account.id, "", said["project"])
            if not {browser.account.id, role.account_id if role else ""} & set(said["owners"]):
                raise ServerError("not-owner", f"you are no owner of {said['project']!r}")
            releases = holdings.releases_of(connection, said["project"])
            held = holdings.keys_of(connection, said["project"], published.entry, now=int(clock()))
            owners = holdings.owners_of(connection, said["project"], now=int(clock()))
        logins = {owner.account_id: owner.login for owner in owners}
        return page(
            "me_project.html",
            browser,
            project=said,
            releases=releases,
            keys=held,
            owners=owners,
            logins=logins,
        )

    @pages.get("/me/organisations/<name>")
    def organisation(name: str) -> Any:
        if (browser := session.find()) is None:
            return to_sign_in()
        with db.read(engine) as connection:
            found = organisation_of(connection, name, browser.account.id)
        return page("me_organisation.html", browser, organisation=found)

    @pages.get("/me/attention")
    def attention() -> Any:
        if (browser := session.find()) is None:
            return to_sign_in()
        with db.read(engine) as connection:
            if not has_role(connection, browser.account.id, ADMIN):
                raise ServerError("not-found", "this page is for the admins of the registry")
            found = list(orphans(connection, now=int(clock())))
        return page("me_attention.html", browser, orphans=found)

    # --- tokens --------------------------------------------------------------------------------------------
    @pages.get("/me/tokens")
    def tokens() -> Any:
        if (browser := session.find()) is None:
            return to_sign_in()
        return page("me_tokens.html", browser, tokens=room.listed(browser.principal), made=None)

    @pages.post("/me/tokens")
    def make_token() -> Any:
        if (browser := sent_by()) is None or not browser.is_fresh(now=int(clock())):
            return to_sign_in("/me/tokens")
        asked = request.form
        days = asked.get("days", "").strip()
        body = {
            "name": asked.get("name", ""),
            "projects": asked.get("projects", "").split() or None,
            "actions": asked.getlist("actions") or None,
            "expires_in": int(days) * DAY_SECONDS
            if days.isascii() and days.isdecimal() and len(days) < 6
            else None,
        }
        if days and body["expires_in"] is None:
            raise ServerError("bad-request", f"{days[:20]!r} is no number of days")
        made = room.make(browser.principal, body)
        return page("me_tokens.html", browser, tokens=room.listed(browser.principal), made=made)

    @pages.post("/me/tokens/<token_id>/revoke")
    def revoke_token(token_id: str) -> Any:
        if (browser := sent_by()) is None:
            return to_sign_in("/me/tokens")
        room.revoke(browser.principal, token_id)  # an old sign-in is enough to take power away
        return _redirect("/me/tokens")

    # --- shared --------------------------------------------------------------------------------------------
    def sent_by() -> Browser | None:
        """Whose form this is; ServerError `form-foreign`: another browser's, or another site's."""
        browser = session.find()
        if browser is not None:
            browsers.check_form(browser.csrf, request.form.get("csrf"))
        return browser

    def to_sign_in(back: str | None = None) -> Response:
        return _redirect(f"/sign-in?next={back or request.path}")

    def page(template: str, browser: Browser | None = None, **values: object) -> Response:
        fresh = browser is not None and browser.is_fresh(now=int(clock()))
        answer = make_response(
            render_template(template, browser=browser, fresh=fresh, issuer=issuer, day=_day, **values)
        )
        answer.headers["Content-Security-Policy"] = policy
        return answer

    @pages.errorhandler(ServerError)
    def refused(error: ServerError) -> Response:
        """A refusal as a page, with the status and the words it has everywhere."""
        answer = page("me_refused.html", detail=error.detail, code=error.code)
        answer.status = problem(error, base_url).status
        return answer

    @pages.after_request
    def _never_cached(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _knock() -> str:
    """What a browser holds before anybody has signed in: it ties the form to the page that showed it."""
    return secrets.token_urlsafe(32)


def _next() -> str:
    """Where to go afterwards: a page of ours, by its path alone."""
    return inside(request.values.get("next", ""))


def inside(path: str) -> str:
    """The path if it is one of these pages, else the first of them: nobody is sent elsewhere from here."""
    plain = all(c.isascii() and (c.isalnum() or c in "/-._") for c in path)
    upwards = any(part.strip(".") == "" for part in path.split("/")[2:])
    return path if plain and path.startswith("/me/") and not upwards else "/me"


def _redirect(url: str) -> Response:
    return make_response(redirect(url, 303))


def _day(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
