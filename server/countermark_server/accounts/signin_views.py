"""The doors of signing in with the provider (signin.py): two for the machine, three for the browser.

Pages have no script. Their one form posts back here, and the cookie that holds the browser is for these doors alone,
gone with the browser, and never sent along from another site's form.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from sqlalchemy import Engine

from countermark_server import db
from countermark_server.accounts.desk import Session, inside, onward
from countermark_server.accounts.doorway import json_body, never_cached
from countermark_server.accounts.pages import NEXT_COOKIE, SIGN_IN_COOKIE
from countermark_server.accounts.people import Account
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.signin import CODE_SECONDS, PAGE, POLL_SECONDS, SignIns
from countermark_server.accounts.views import opened_session
from countermark_server.errors import CODES, ServerError, problem

COOKIE = SIGN_IN_COOKIE
ATTEMPTS, SECONDS = 30, 60.0  # of one address; a polling machine asks every two seconds, elsewhere


class Doors:
    """The views, over their collaborators; without a provider they lead nowhere, and say so.

    `policy` is what browsers shall keep to on these pages.
    """

    def __init__(
        self,
        engine: Engine,
        sign_ins: SignIns | None,
        session: Session,
        *,
        base_url: str,
        issuer: str,
        policy: str,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._provided = sign_ins
        self._session = session
        self._base_url = base_url
        self._issuer = issuer
        self._policy = policy
        self._clock = clock
        self._limit = RateLimit(ATTEMPTS, SECONDS)

    def blueprint(self) -> Blueprint:
        """Every door by its address."""
        doors = Blueprint("signin", __name__)
        for method, rule, view in (
            ("POST", "/api/v1/login/device", self.begin_device),
            ("POST", "/api/v1/login/device/token", self.device_token),
            ("GET", "/login/device", self.device),
            ("GET", "/login/callback", self.callback),
            ("POST", "/login/device", self.grant),
        ):
            doors.add_url_rule(rule, view.__name__, view, methods=[method])
        doors.register_error_handler(ServerError, self._refused)
        doors.after_request(never_cached)
        return doors

    # --- the machine ---------------------------------------------------------------------------------------
    def begin_device(self) -> Response:
        self._count()
        device, user_code = self._sign_ins().begin_device()
        at = f"{self._base_url}/login/device"
        return jsonify(
            device_code=device,
            user_code=user_code,
            verification_uri=at,
            verification_uri_complete=f"{at}?code={user_code}",
            expires_in=CODE_SECONDS,
            interval=POLL_SECONDS,
        )

    def device_token(self) -> Response:
        body = json_body()
        device = body.get("device_code") if isinstance(body, dict) and len(body) == 1 else None
        if not isinstance(device, str) or len(device) > 128:
            raise ServerError("bad-request", 'the body must be {"device_code": "..."}')
        account: Account = self._sign_ins().redeem_device(device)
        with db.write(self._engine) as connection:
            return jsonify(opened_session(connection, account, now=int(self._clock())))

    # --- the browser ---------------------------------------------------------------------------------------
    def device(self) -> Response:
        code = request.args.get("code", "")
        if not code:
            self._sign_ins()
            return self._page("sign_in.html")
        self._count()
        begun = self._sign_ins().begin(code[:32])
        return self._held(onward(begun.url), begun.cookie)

    def callback(self) -> Response:
        self._count()
        state, code = request.args.get("state", ""), request.args.get("code", "")
        if not state or not code:
            raise ServerError("login-refused", f"{self._issuer} did not sign you in")
        returned = self._sign_ins().came_back(state, code, request.cookies.get(COOKIE, ""))
        if returned.user_code.startswith(PAGE):
            where = inside(request.cookies.get(NEXT_COOKIE, ""))
            return self._session.open(self._sign_ins().enter(returned), onward(where))
        shown = self._page("sign_in_confirm.html", login=returned.login, user_code=returned.user_code)
        return self._held(shown, returned.cookie)

    def grant(self) -> Response:
        self._count()
        login = self._sign_ins().grant(request.form.get("code", ""), request.cookies.get(COOKIE, ""))
        answer = self._page("sign_in_done.html", login=login)
        answer.delete_cookie(COOKIE, path="/login")
        return answer

    # --- what they share -----------------------------------------------------------------------------------
    def _sign_ins(self) -> SignIns:
        if self._provided is None:
            raise ServerError(
                "not-found", "this registry has no identity provider; it signs in with one-time codes"
            )
        return self._provided

    def _count(self) -> None:
        self._limit.count(request.remote_addr or "", now=self._clock())

    def _page(self, template: str, **values: str) -> Response:
        answer = make_response(render_template(template, issuer=self._issuer, **values))
        answer.headers["Content-Security-Policy"] = self._policy
        return answer

    def _held(self, answer: Response, cookie: str) -> Response:
        answer.set_cookie(
            COOKIE, cookie, max_age=CODE_SECONDS, path="/login", httponly=True, samesite="Lax",
            secure=self._base_url.startswith("https:"),
        )  # fmt: skip
        return answer

    def _refused(self, error: ServerError) -> Response:
        """A refusal as a page where a person looks, else as everywhere."""
        made = problem(error, self._base_url)
        if "text/html" not in request.headers.get("Accept", ""):
            return Response(made.body, status=made.status, headers=made.headers)
        answer = self._page(
            "refused.html", title=CODES[error.code].title, detail=error.detail, code=error.code
        )
        answer.status = made.status
        return answer
