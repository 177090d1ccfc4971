"""Access: who may read, where reading is not for everybody (`access.mode`).

    public   everybody
    token    who shows a token that may `read`: as password of HTTP Basic, or as Bearer
    mtls     whose certificate the proxy in front of us has verified, and says so with a secret that only it has

One function decides for every door, by its path: simple pages, files, log, TUF, blobs, advisories and the pages for
people alike. What is open in every mode is listed (`OPEN`), all else is not: a new door is closed until it is listed.
A token that is narrowed to projects reads the pages and files of these; lists, log and TUF it reads whole, since
there are no hidden projects inside of one log.

nginx serves the static trees and keeps simple pages without asking the application, so it asks `GET /api/v1/access`
whether it may (`X-Original-URI` says for what), and keeps the answer for seconds (deploy/nginx/access.conf). A path
that could be read in two ways is closed to every token that is narrowed.

The registry's own processes read with a secret of theirs, whose SHA-256 is a setting.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from flask import Blueprint, Flask, Response, request
from sqlalchemy import Engine
from werkzeug.datastructures import Headers

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark_server import db
from countermark_server.accounts import tokens
from countermark_server.accounts.tokenroom import Uses
from countermark_server.accounts.tokens import Principal
from countermark_server.errors import ServerError
from countermark_server.settings import Access, SettingsError

PUBLIC, TOKEN, MTLS = MODES = ("public", "token", "mtls")
READ = "read"
ASKED = "/api/v1/access"
CHECKPOINT = "/log/checkpoint"
SECRET_MIN_CHARS = 32
# Doors that ask for a token of their own, tell nothing of what is stored, or are how somebody gets a token.
OPEN = (
    "/healthz", "/metrics", "/legacy", "/legacy/", "/log/add", ASKED, "/api/v1/registry", "/api/v1/openapi.json",
    "/sign-in", "/sign-in/provider", "/sign-out", "/me", "/h/",
)  # fmt: skip
OPEN_BELOW = (
    "/h/", "/static/", "/login/", "/me/", "/_/oidc/", "/.well-known/", "/api/v1/login", "/api/v1/keys/",
    "/api/v1/entries/", "/api/v1/tokens", "/api/v1/staged/",
)  # fmt: skip
_OF_PROJECT = re.compile(
    r"/(?:simple|pypi|packages|integrity|api/v1/(?:files|projects|releases)|tuf/targets/files)/([^/]+)(?:/|$)"
)
_CLEAN = re.compile(r"(?:/[^/\\\x00]+)*/?")


class Gate:
    """Lets who may read in, and raises for everybody else."""

    def __init__(
        self,
        settings: Access,
        folder: Path,
        engine: Engine,
        *,
        uses: Uses,
        clock: Callable[[], float],
    ) -> None:
        if settings.mode not in MODES:
            raise SettingsError(f"access.mode is {settings.mode!r}, must be one of {', '.join(MODES)}")
        self._settings = settings
        self._engine = engine
        self._uses = uses
        self._clock = clock
        self._proxies = frozenset(settings.proxies.split())
        self._secret = _secret(settings, folder) if settings.mode == MTLS else b""

    @property
    def is_public(self) -> bool:
        """Whether everybody may read everything."""
        return self._settings.mode == PUBLIC

    def check(
        self,
        method: str,
        path: str,
        headers: Headers,
        peer: str | None,
        *,
        vouch: Callable[[Principal], None],
    ) -> None:
        """Somebody asks for this path. ServerError `not-authenticated`, `token-scope` or `certificate-needed`: no.

        `vouch` refuses people whom the identity provider has ended: who only reads comes by no other door.
        """
        if self.is_public or self._is_open(method, path):
            return
        authorization = headers.get("Authorization")
        if self._is_our_own(authorization):
            return
        if self._settings.mode == MTLS:
            self._check_certificate(headers, peer)
            return
        now = int(self._clock())
        with db.read(self._engine) as connection:
            principal = tokens.authenticate(connection, authorization, now=now)
        tokens.require_read(principal, _project(path))
        vouch(principal)
        self._uses.note(principal, now=now)

    def _is_open(self, method: str, path: str) -> bool:
        if not _is_clean(path):
            return False
        if path == CHECKPOINT and self._settings.public_checkpoint:
            return True
        # What is handed in asks for a token of its own, everywhere but at OSV's doors, which only read.
        hands_in = method not in ("GET", "HEAD", "OPTIONS") and not path.startswith("/v1/")
        return hands_in or path in OPEN or path.startswith(OPEN_BELOW)

    def _is_our_own(self, authorization: str | None) -> bool:
        secret = tokens.secret_of(authorization)
        if secret is None or not self._settings.reader_sha256:
            return False
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return hmac.compare_digest(digest, self._settings.reader_sha256)

    def _check_certificate(self, headers: Headers, peer: str | None) -> None:
        """The proxy says that it verified a certificate, and is the proxy."""
        said = headers.get("X-Countermark-Proxy", "").encode()
        if peer not in self._proxies or not hmac.compare_digest(said, self._secret):
            raise ServerError(
                "certificate-needed", "this registry is read through its proxy, with a client certificate"
            )
        verdict = headers.get("X-Countermark-Client-Verify", "")
        if verdict.startswith("FAILED:"):
            raise ServerError(
                "certificate-needed",
                f"the client certificate is not accepted: {verdict.removeprefix('FAILED:')}",
            )
        if verdict != "SUCCESS":
            raise ServerError(
                "certificate-needed", "this registry is read with a client certificate, and none came"
            )


def install(app: Flask, gate: Gate) -> None:
    """Ask the gate before every door, and tell caches that what came through is nobody else's."""
    doors = Blueprint("access", __name__)
    sign_ins = app.extensions["sign_ins"]
    check = partial(gate.check, vouch=sign_ins.vouch if sign_ins else lambda _: None)

    @doors.get(ASKED)
    def access() -> Response:
        method = request.headers.get("X-Original-Method", "GET")
        path = unquote(request.headers.get("X-Original-URI", "/").partition("?")[0])
        check(method, path, request.headers, request.remote_addr)
        return Response(status=204, headers={"Cache-Control": "no-store"})

    @app.before_request
    def _check() -> None:
        check(request.method, request.path, request.headers, request.remote_addr)

    @app.after_request
    def _private(response: Response) -> Response:
        if not gate.is_public:
            cache = response.headers.get("Cache-Control", "")
            if cache.startswith("public"):
                response.headers["Cache-Control"] = "private" + cache.removeprefix("public")
            response.vary.add("Authorization")
        return response

    app.register_blueprint(doors)


def _secret(settings: Access, folder: Path) -> bytes:
    """What the proxy proves itself with. SettingsError: there is none, or one that could be guessed."""
    if not settings.proxy_secret_file:
        raise SettingsError(
            "access.mode is mtls, and access.proxy_secret_file names no file: anybody could say they were the proxy"
        )
    try:
        secret = (folder / settings.proxy_secret_file).read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"access.proxy_secret_file: {error}") from None
    if len(secret) < SECRET_MIN_CHARS:
        raise SettingsError(
            f"access.proxy_secret_file holds {len(secret)} characters, must hold at least {SECRET_MIN_CHARS}"
        )
    return secret.encode()


def _is_clean(path: str) -> bool:
    """Whether every server reads this (decoded) path as it stands: no dots, no empty parts, no escapes left."""
    parts = path.split("/")
    return _CLEAN.fullmatch(path) is not None and "." not in parts and ".." not in parts and "%" not in path


def _project(path: str) -> str | None:
    """The (normalised) project whose pages or files these are; "" for what is about all; None: unclear."""
    if not _is_clean(path):
        return None
    match = _OF_PROJECT.match(path)
    if match is None:
        return ""
    try:
        return normalise_project(match[1])
    except MalformedError:
        return None
