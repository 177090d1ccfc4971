"""The pages of approvals: what waits, what is new in it, and the form that takes a signed approval.

    GET  /me/approvals                          releases of one's projects that wait for somebody
    GET  /me/projects/NAME/releases/VERSION     files, who has said what, the difference to the release before
    POST /me/projects/NAME/releases/VERSION     a file that `countermark approve --act FILE` wrote

An approval is a signature by an enrolled key, and no browser here holds one: whoever steals a session, or sits down
at a browser that was left open, approves nothing (ADR 31, ADR 38). The page shows, and hands in what was signed
elsewhere; for that it asks a sign-in of the last ten minutes. What it sends then goes the way of every owner's
statement (acts.py), and the log's rules count it.
"""

from __future__ import annotations

from flask import Blueprint, Response, request
from sqlalchemy import Connection, Engine

from countermark.actfile import Act
from countermark.entry import normalise_project, normalise_version
from countermark.errors import MalformedError
from countermark.limits import ENTRY_MAX_BYTES
from countermark_server import db
from countermark_server.accounts import holdings, staged
from countermark_server.accounts.acts import APPROVE, Acts
from countermark_server.accounts.browsers import Browser
from countermark_server.accounts.desk import Desk, onward, to_sign_in
from countermark_server.accounts.seats import check_seat
from countermark_server.asking import holder_in
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView
from countermark_server.stores.blobs import Blobs

FORM_MAX_BYTES = 4 * ENTRY_MAX_BYTES  # an act is base64 of a statement below one entry's size


class Approvals:
    """The views, over their collaborators."""

    def __init__(self, engine: Engine, desk: Desk, acts: Acts, blobs: Blobs) -> None:
        self._engine = engine
        self._desk = desk
        self._acts = acts
        self._blobs = blobs

    def blueprint(self) -> Blueprint:
        """Every page by its address."""
        pages = Blueprint("approvals", __name__)
        release = "/me/projects/<name>/releases/<version>"
        for method, rule, view in (
            ("GET", "/me/approvals", self.waiting),
            ("GET", release, self.release),
            ("POST", release, self.hand_in),
        ):
            pages.add_url_rule(rule, view.__name__, view, methods=[method])
        return self._desk.install(pages)

    def waiting(self) -> Response:
        if (browser := self._desk.session.find()) is None:
            return to_sign_in()
        with db.read(self._engine) as connection:
            mine = holdings.projects_of(connection, browser.account.id)
            found = staged.of_projects(connection, mine, now=self._desk.now())
        return self._desk.page("me_approvals.html", browser, releases=found)

    def release(self, name: str, version: str) -> Response:
        if (browser := self._desk.session.find()) is None:
            return to_sign_in()
        project, version = _named(name, version)
        with db.read(self._engine) as connection:
            self._check_owner(connection, browser, project)
            found = staged.find(connection, project, version, now=self._desk.now())
            older = None if found is None else staged.before(connection, found)
            owners = holdings.owners_of(connection, project, now=self._desk.now())
        if found is None:
            raise ServerError(
                "not-found",
                f"no file of {project} {version} waits for approval: it is listed, or there is none",
            )
        return self._desk.page(
            "me_release.html",
            browser,
            release=found,
            before=None if older is None else older.version,
            changes=staged.changes(self._blobs, found, older),
            logins={owner.account_id: owner.login for owner in owners},
        )

    def hand_in(self, name: str, version: str) -> Response:
        if (request.content_length or 0) > FORM_MAX_BYTES:
            raise ServerError("too-large", f"the form has more than {FORM_MAX_BYTES} bytes")
        request.max_content_length = FORM_MAX_BYTES
        browser = self._desk.sent_by()
        if browser is None or not browser.is_fresh(now=self._desk.now()):
            return to_sign_in()
        project, version = _named(name, version)
        act = _signed(project, version)
        body = {"entries": [{"envelope": act.envelope.to_dict()}]}
        (done,) = self._acts.batch(browser.principal, body, now=self._desk.now())
        if isinstance(done, ServerError):
            raise done
        # In the log. If it was the last one that lacked, the release waits no longer and has no page here.
        return onward(f"/me/projects/{project}")

    def _check_owner(self, connection: Connection, browser: Browser, project: str) -> None:
        state = holder_in(SqlView(connection, db.rules_state), "", project, now=self._desk.now())
        if state is None or browser.account.id not in state["owners"]:
            raise ServerError("not-owner", f"only owners of {project!r} see what waits there")
        check_seat(connection, browser.account.id, "", project)


def _named(name: str, version: str) -> tuple[str, str]:
    try:
        return normalise_project(name), normalise_version(version)
    except MalformedError as error:
        raise ServerError("not-found", str(error)) from None


def _signed(project: str, version: str) -> Act:
    """The approval in the form's file. ServerError: it is none, or one of another release."""
    given = request.files.get("act")
    raw = b"" if given is None else given.read(FORM_MAX_BYTES)
    if not raw:
        raise ServerError(
            "bad-request",
            f"no file was chosen: `countermark approve {project} {version} --act approval.act` writes it",
        )
    try:
        act = Act.parse(raw)
    except MalformedError as error:
        raise ServerError("statement-invalid", f"the file is no signed approval: {error}") from None
    said = act.statement.predicate
    found = (act.statement.type, said["namespace"], said["project"], said.get("version"))
    if found != (APPROVE, "", project, version):
        raise ServerError(
            "statement-mismatch",
            f"the file is a {found[0]} of {found[2]!r} {found[3] or ''}, this page takes an approve of "
            f"{project!r} {version}",
        )
    return act
