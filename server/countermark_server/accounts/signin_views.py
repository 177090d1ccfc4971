"""The doors of signing in with the provider (signin.py): two for the machine, three for the browser.

Pages have no script. Their one form posts back here, and the cookie that holds the browser is for these doors alone,
gone with the browser, and never sent along from another site's form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request
from sqlalchemy import Engine

from countermark_server import db
from countermark_server.accounts.desk import Session, inside
from countermark_server.accounts.pages import NEXT_COOKIE, SIGN_IN_COOKIE
from countermark_server.accounts.people import Account
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.signin import CODE_SECONDS, PAGE, POLL_SECONDS, SignIns
from countermark_server.accounts.views import json_body, opened_session
from countermark_server.errors import CODES, ServerError, problem

COOKIE = SIGN_IN_COOKIE
ATTEMPTS, SECONDS = 30, 60.0  # of one address; a polling machine asks every two seconds, elsewhere


def blueprint(
    engine: Engine,
    provided: SignIns | None,
    session: Session,
    *,
    base_url: str,
    issuer: str,
    policy: str,
    clock: Callable[[], float],
) -> Blueprint:
    """The doors, opened onto these collaborators; without a provider they lead nowhere, and say so.

    `policy` is what browsers shall keep to on these pages.
    """
    doors = Blueprint("signin", __name__)
    limit = RateLimit(ATTEMPTS, SECONDS)

    def sign_ins() -> SignIns:
        if provided is None:
            raise ServerError(
                "not-found", "this registry has no identity provider; it signs in with one-time codes"
            )
        return provided

    def count() -> None:
        limit.count(request.remote_addr or "", now=clock())

    @doors.post("/api/v1/login/device")
    def begin_device() -> Response:
        count()
        device, user_code = sign_ins().begin_device()
        at = f"{base_url}/login/device"
        return jsonify(
            device_code=device,
            user_code=user_code,
            verification_uri=at,
            verification_uri_complete=f"{at}?code={user_code}",
            expires_in=CODE_SECONDS,
            interval=POLL_SECONDS,
        )

    @doors.post("/api/v1/login/device/token")
    def device_token() -> Response:
        body = json_body()
        device = body.get("device_code") if isinstance(body, dict) and len(body) == 1 else None
        if not isinstance(device, str) or len(device) > 128:
            raise ServerError("bad-request", 'the body must be {"device_code": "..."}')
        account: Account = sign_ins().redeem_device(device)
        with db.write(engine) as connection:
            return jsonify(opened_session(connection, account, now=int(clock())))

    @doors.get("/login/device")
    def device() -> Any:
        code = request.args.get("code", "")
        if not code:
            sign_ins()
            return page("sign_in.html")
        count()
        begun = sign_ins().begin(code[:32])
        return held(redirect(begun.url, 303), begun.cookie)

    @doors.get("/login/callback")
    def callback() -> Any:
        count()
        state, code = request.args.get("state", ""), request.args.get("code", "")
        if not state or not code:
            raise ServerError("login-refused", f"{issuer} did not sign you in")
        returned = sign_ins().came_back(state, code, request.cookies.get(COOKIE, ""))
        if returned.user_code.startswith(PAGE):
            where = inside(request.cookies.get(NEXT_COOKIE, ""))
            return session.open(sign_ins().enter(returned), make_response(redirect(where, 303)))
        shown = page("sign_in_confirm.html", login=returned.login, user_code=returned.user_code)
        return held(shown, returned.cookie)

    @doors.post("/login/device")
    def grant() -> Any:
        count()
        login = sign_ins().grant(request.form.get("code", ""), request.cookies.get(COOKIE, ""))
        answer = page("sign_in_done.html", login=login)
        answer.delete_cookie(COOKIE, path="/login")
        return answer

    def page(template: str, **values: str) -> Response:
        answer = make_response(render_template(template, issuer=issuer, **values))
        answer.headers["Content-Security-Policy"] = policy
        return answer

    def held(answer: Any, cookie: str) -> Any:
        answer.set_cookie(
            COOKIE, cookie, max_age=CODE_SECONDS, path="/login", httponly=True, samesite="Lax",
            secure=base_url.startswith("https:"),
        )  # fmt: skip
        return answer

    @doors.errorhandler(ServerError)
    def refused(error: ServerError) -> Response:
        """A refusal as a page where a person looks, else as everywhere."""
        made = problem(error, base_url)
        if "text/html" not in request.headers.get("Accept", ""):
            return Response(made.body, status=made.status, headers=made.headers)
        answer = page("refused.html", title=CODES[error.code].title, detail=error.detail, code=error.code)
        answer.status = made.status
        return answer

    @doors.after_request
    def _never_cached(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        return response

    return doors
