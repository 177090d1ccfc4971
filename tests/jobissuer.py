"""An issuer of tokens for CI jobs: a small HTTP server on loopback, whose tokens are made by PyJWT.

The server under test reads them with another library. `github(...)` and `gitlab(...)` are the claims of a job as
those systems write them; a test changes the member that it is about.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


class JobIssuer:
    """Its keys, and what it signs with the newest one."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.down = False
        self.asked: list[str] = []
        self.jobs: dict[
            str, Callable[[str], dict[str, Any]]
        ] = {}  # by a job's bearer: claims for an audience
        self.rotate("k1")

    def rotate(self, kid: str, *, keep: bool = False) -> None:
        """A new key signs from now on; the older ones are withdrawn unless they are kept."""
        kept = dict(self.keys) if keep else {}
        self.keys = {**kept, kid: rsa.generate_private_key(65537, 2048)}

    def sign(
        self, claims: dict[str, Any], *, kid: str | None = None, key: Any = None, alg: str = "RS256"
    ) -> str:
        """A token with these claims."""
        kid = kid or list(self.keys)[-1]
        return jwt.encode(
            claims, key if key is not None else self.keys[kid], algorithm=alg, headers={"kid": kid}
        )

    def jwks(self) -> dict[str, Any]:
        found = []
        for kid, key in self.keys.items():
            public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            found.append({**public, "kid": kid, "use": "sig", "alg": "RS256"})
        return {"keys": found}

    def begin_job(self, claims: Callable[[str], dict[str, Any]]) -> dict[str, str]:
        """What GitHub puts into a job's environment: a door at which it asks for tokens, and its secret for it."""
        secret = secrets.token_urlsafe(24)
        self.jobs = {secret: claims}
        door = f"{self.url}/job/idtoken?api-version=2.0"
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": door,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": secret,
        }

    def answer(self, path: str, bearer: str = "") -> dict[str, Any] | None:
        self.asked.append(path)
        url = urlsplit(path)
        if url.path == "/job/idtoken":
            claims = self.jobs.get(bearer.removeprefix("Bearer "))
            said = parse_qs(url.query)
            if claims is None or said.get("api-version") != ["2.0"] or len(said.get("audience", [])) != 1:
                return None
            return {"count": 1, "value": self.sign(claims(said["audience"][0]))}
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return self.jwks() if path == "/jwks" else None

    def times(self, audience: str, now: float | None = None) -> dict[str, Any]:
        """What every token says of itself."""
        at = int(time.time() if now is None else now)
        return {
            **{"iss": self.url, "aud": audience, "iat": at, "nbf": at, "exp": at + 300},
            "jti": secrets.token_hex(8),
        }

    def github(self, audience: str, now: float | None = None, **changes: Any) -> dict[str, Any]:
        """A release job of acme/widgets, for the tag v1.0."""
        claims = self.times(audience, now) | {
            "sub": "repo:acme/widgets:ref:refs/tags/v1.0",
            "repository": "Acme/Widgets",
            "repository_id": "4711",
            "repository_owner": "Acme",
            "job_workflow_ref": "Acme/Widgets/.github/workflows/release.yml@refs/tags/v1.0",
            "event_name": "push",
            "ref": "refs/tags/v1.0",
            "sha": "ab" * 20,
            "run_id": "9001",
            "actor": "ada",
            "actor_id": "17",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def gitlab(self, audience: str, now: float | None = None, **changes: Any) -> dict[str, Any]:
        """The same job on GitLab."""
        host = self.url.removeprefix("http://")
        claims = self.times(audience, now) | {
            "sub": "project_path:acme/widgets:ref_type:tag:ref:v1.0",
            "project_path": "acme/widgets",
            "project_id": "4711",
            "ci_config_ref_uri": f"{host}/acme/widgets//.gitlab-ci.yml@refs/tags/v1.0",
            "pipeline_source": "push",
            "pipeline_id": "9001",
            "ref": "v1.0",
            "ref_type": "tag",
            "ref_path": "refs/tags/v1.0",
            "sha": "ab" * 20,
            "user_id": "17",
            "user_email": "ada@example.com",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}


@contextmanager
def running(port: int = 0) -> Iterator[JobIssuer]:
    """The issuer at work, for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = None if made.down else made.answer(self.path, self.headers.get("Authorization", ""))
            body = json.dumps(found or {}).encode()
            self.send_response(503 if made.down else 404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    made = JobIssuer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)
