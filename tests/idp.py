"""An identity provider that is not ours: oidc-provider-mock, a process in an environment of its own, on loopback."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.clients.pinned import executable
from tests.world.world import free_port

PEOPLE = {
    "ada": '{"sub":"ada","preferred_username":"ada@example.com","groups":["publishers"]}',
    "eve": '{"sub":"eve","preferred_username":"eve@example.com","groups":["guests"]}',
    "mallory": '{"sub":"mallory","preferred_username":"root","groups":["publishers"]}',
}


@dataclass
class Idp:
    """The provider, and how somebody is signed in or disabled there."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sign_in(self, url: str, sub: str) -> dict[str, str]:
        """A person at the provider's own page; what the provider sends the browser back with."""

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        opener = urllib.request.build_opener(Stay)
        try:
            opener.open(url, data=urllib.parse.urlencode({"sub": sub}).encode(), timeout=20)
        except urllib.error.HTTPError as answer:
            back = urllib.parse.urlsplit(answer.headers["Location"])
            assert answer.code == 302 and back.path == "/login/callback", back
            return dict(urllib.parse.parse_qsl(back.query))
        raise AssertionError("the provider did not send the browser back")

    def disable(self, sub: str) -> None:
        """The provider vouches for this person no longer."""
        urllib.request.urlopen(f"{self.issuer}/users/{sub}/revoke-tokens", data=b"", timeout=20).close()


@contextmanager
def running() -> Iterator[Idp]:
    """The provider at work, for the length of the block."""
    port = free_port()
    words = [word for each in PEOPLE.values() for word in ("--user-claims", each)]
    process = subprocess.Popen(
        [executable("oidc-provider-mock"), "--port", str(port), "--require-nonce", "true", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    made = Idp(port, process)
    try:
        for _ in range(400):
            try:
                urllib.request.urlopen(f"{made.issuer}/.well-known/openid-configuration", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait(20)
