"""The pages of who is signed in: projects, tokens, keys, organisations. Views only translate.

    GET  /sign-in                     with a one-time code, or at the identity provider
    GET  /me                          projects and organisations
    GET  /me/projects/NAME            releases with standing, keys with their chain, owners; each with its entries
    GET  /me/tokens  POST /me/tokens  POST /me/tokens/ID/revoke
    GET  /me/organisations/NAME       owners, teams, names, projects
    GET  /me/attention                for admins: projects whose people have gone
    POST /sign-out

Releases that wait for approvals have pages of their own (approvals.py). No page has a script, and each fact links to
the entry of the log that makes it true. Forms carry a value of this browser's session (browsers.py); whoever makes a
token has signed in within the last ten minutes.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Engine
from werkzeug.datastructures import MultiDict

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark_server import db
from countermark_server.accounts import browsers, codes, holdings
from countermark_server.accounts.desk import Desk, next_page, onward, to_sign_in
from countermark_server.accounts.keys import Keys
from countermark_server.accounts.membership import organisation_of, organisations_of
from countermark_server.accounts.organisations import ADMIN, has_role, role_in
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.seats import orphans
from countermark_server.accounts.signin import SignIns
from countermark_server.accounts.tokenroom import TokenRoom
from countermark_server.errors import ServerError
from countermark_server.published import Published

SIGN_IN_COOKIE, NEXT_COOKIE = "countermark_sign_in", "countermark_next"  # on the way to the provider and back
FORM_COOKIE = "countermark_form"
ATTEMPTS, SECONDS = 10, 60.0  # of one address, at signing in
CODE_MAX_CHARS = 64
DAY_SECONDS = 86_400


class Pages:
    """The views, over their collaborators."""

    def __init__(
        self,
        engine: Engine,
        desk: Desk,
        *,
        sign_ins: SignIns | None,
        keys: Keys,
        room: TokenRoom,
        published: Published,
    ) -> None:
        self._engine = engine
        self._desk = desk
        self._session = desk.session
        self._sign_ins = sign_ins
        self._keys = keys
        self._room = room
        self._published = published
        self._limit = RateLimit(ATTEMPTS, SECONDS)

    def blueprint(self) -> Blueprint:
        """Every page by its address."""
        pages = Blueprint("me", __name__)
        for method, rule, view in (
            ("GET", "/sign-in", self.sign_in),
            ("POST", "/sign-in", self.with_code),
            ("GET", "/sign-in/provider", self.with_provider),
            ("POST", "/sign-out", self.sign_out),
            ("GET", "/me", self.mine),
            ("GET", "/me/projects/<name>", self.project),
            ("GET", "/me/organisations/<name>", self.organisation),
            ("GET", "/me/attention", self.attention),
            ("GET", "/me/tokens", self.tokens),
            ("POST", "/me/tokens", self.make_token),
            ("POST", "/me/tokens/<token_id>/revoke", self.revoke_token),
        ):
            pages.add_url_rule(rule, view.__name__, view, methods=[method])
        return self._desk.install(pages)

    # --- signing in and out --------------------------------------------------------------------------------
    def sign_in(self) -> Response:
        knock = secrets.token_urlsafe(
            32
        )  # before anybody is signed in it ties the form to the page that showed it
        answer = self._desk.page("me_sign_in.html", csrf=browsers.form_value(knock), next=next_page())
        self._set(answer, FORM_COOKIE, knock, path="/sign-in", samesite="Strict")
        return answer

    def with_code(self) -> Response:
        self._limit.count(request.remote_addr or "", now=self._desk.now())
        knock = request.cookies.get(FORM_COOKIE, "")
        browsers.check_form(browsers.form_value(knock) if knock else "no cookie", request.form.get("csrf"))
        code = request.form.get("code", "")[:CODE_MAX_CHARS]
        with db.write(self._engine) as connection:
            account = codes.redeem_login_code(connection, code, now=self._desk.now())
        return self._session.open(account, onward(next_page()))

    def with_provider(self) -> Response:
        self._limit.count(request.remote_addr or "", now=self._desk.now())
        if self._sign_ins is None:
            raise ServerError("not-found", "this registry has no identity provider")
        begun = self._sign_ins.begin_page()
        answer = onward(begun.url)
        self._set(answer, SIGN_IN_COOKIE, begun.cookie, path="/login", samesite="Lax")
        self._set(answer, NEXT_COOKIE, next_page(), path="/login", samesite="Lax")
        return answer

    def sign_out(self) -> Response:
        self._desk.sent_by()
        return self._session.end(onward("/"))

    # --- what is somebody's --------------------------------------------------------------------------------
    def mine(self) -> Response:
        if (browser := self._session.find()) is None:
            return to_sign_in()
        with db.read(self._engine) as connection:
            projects = holdings.projects_of(connection, browser.account.id)
            organisations = organisations_of(connection, browser.account.id)
            admin = has_role(connection, browser.account.id, ADMIN)
        return self._desk.page(
            "me.html", browser, projects=projects, organisations=organisations, admin=admin
        )

    def project(self, name: str) -> Response:
        if (browser := self._session.find()) is None:
            return to_sign_in()
        try:
            said = self._keys.project(normalise_project(name))
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        now = self._desk.now()
        with db.read(self._engine) as connection:
            role = role_in(connection, browser.account.id, "", said["project"])
            if not {browser.account.id, role.account_id if role else ""} & set(said["owners"]):
                raise ServerError("not-owner", f"you are no owner of {said['project']!r}")
            releases = holdings.releases_of(connection, said["project"])
            held = holdings.keys_of(connection, said["project"], self._published.entry, now=now)
            owners = holdings.owners_of(connection, said["project"], now=now)
        logins = {owner.account_id: owner.login for owner in owners}
        return self._desk.page(
            "me_project.html",
            browser,
            project=said,
            releases=releases,
            keys=held,
            owners=owners,
            logins=logins,
        )

    def organisation(self, name: str) -> Response:
        if (browser := self._session.find()) is None:
            return to_sign_in()
        with db.read(self._engine) as connection:
            found = organisation_of(connection, name, browser.account.id)
        return self._desk.page("me_organisation.html", browser, organisation=found)

    def attention(self) -> Response:
        if (browser := self._session.find()) is None:
            return to_sign_in()
        with db.read(self._engine) as connection:
            if not has_role(connection, browser.account.id, ADMIN):
                raise ServerError("not-found", "this page is for the admins of the registry")
            found = list(orphans(connection, now=self._desk.now()))
        return self._desk.page("me_attention.html", browser, orphans=found)

    # --- tokens --------------------------------------------------------------------------------------------
    def tokens(self) -> Response:
        if (browser := self._session.find()) is None:
            return to_sign_in()
        listed = self._room.listed(browser.principal)
        return self._desk.page("me_tokens.html", browser, tokens=listed, made=None)

    def make_token(self) -> Response:
        browser = self._desk.sent_by()
        if browser is None or not browser.is_fresh(now=self._desk.now()):
            return to_sign_in("/me/tokens")
        made = self._room.make(browser.principal, _wanted_token(request.form))
        listed = self._room.listed(browser.principal)
        return self._desk.page("me_tokens.html", browser, tokens=listed, made=made)

    def revoke_token(self, token_id: str) -> Response:
        if (browser := self._desk.sent_by()) is None:
            return to_sign_in("/me/tokens")
        self._room.revoke(browser.principal, token_id)  # an old sign-in is enough to take power away
        return onward("/me/tokens")

    def _set(self, answer: Response, name: str, value: str, *, path: str, samesite: str) -> None:
        answer.set_cookie(name, value, path=path, httponly=True, samesite=samesite, secure=self._desk.secure)


def _wanted_token(asked: MultiDict[str, str]) -> dict[str, Any]:
    """What a form asks for, as the API's door takes it. ServerError: days that are no number."""
    days = asked.get("days", "").strip()
    if days and not (days.isascii() and days.isdecimal() and len(days) < 6):
        raise ServerError("bad-request", f"{days[:20]!r} is no number of days")
    return {
        "name": asked.get("name", ""),
        "projects": asked.get("projects", "").split() or None,
        "actions": asked.getlist("actions") or None,
        "expires_in": int(days) * DAY_SECONDS if days else None,
    }
