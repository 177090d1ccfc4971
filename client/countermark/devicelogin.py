"""Signing this machine in by a browser: the registry's identity provider says who the person is.

    open https://registry.example/login/device?code=K7QM-2XHD and compare the code K7QM-2XHD

The shape is RFC 8628's, between this machine and the registry. The registry is checked against the pinned root
first, as before a one-time code is handed over; what it shows here is a link for a person, who sees in the browser
whose page it is. The answer is a session like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from countermark.errors import MalformedError, NetworkError, PolicyError
from countermark.fetch import Fetcher
from countermark.pins import Registry
from countermark.publish import JSON, check_answer, document_of
from countermark.session import Session
from countermark.trust import opened
from countermark.values import dataclass

DOING = "signing in"
PENDING = "login-pending"


@dataclass(frozen=True)
class Waiting:
    """A machine that waits to be vouched for: where a person does that, and how often one may ask."""

    device_code: str
    user_code: str
    url: str
    expires_in: int
    interval: int


def begin(registry: Registry, fetcher: Fetcher, *, now: int) -> Waiting | None:
    """Ask the registry for codes. None: it has no identity provider, and signs in with one-time codes."""
    with opened(registry, fetcher, now=now):
        pass
    answer = fetcher.post(f"{registry.url}/api/v1/login/device", b"{}", content_type=JSON)
    if answer.status == 404:
        return None
    check_answer(answer, DOING)
    document = document_of(answer)
    try:
        waiting = Waiting(
            str(document["device_code"]),
            str(document["user_code"]),
            str(document["verification_uri_complete"]),
            int(document["expires_in"]),
            max(1, int(document["interval"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise MalformedError(f"{registry.url} begins a sign-in in a way we can't read: {error!r}") from None
    if not (waiting.user_code + waiting.url).isprintable():
        raise MalformedError(f"{registry.url} shows a code or an address that can't be printed")
    return waiting


def wait(
    registry: Registry,
    fetcher: Fetcher,
    waiting: Waiting,
    *,
    timer: Callable[[], float],
    sleep: Callable[[float], None],
) -> Session:
    """Ask until somebody vouched for this machine; the session, not kept yet. PolicyError: nobody did in time."""
    body, deadline = json.dumps({"device_code": waiting.device_code}).encode(), timer() + waiting.expires_in
    while timer() < deadline:
        sleep(waiting.interval)
        try:
            answer = fetcher.post(f"{registry.url}/api/v1/login/device/token", body, content_type=JSON)
        except NetworkError:
            continue  # the person is still busy in the browser; the next question may come through
        if answer.status == 400 and document_of(answer).get("code") == PENDING:
            continue
        check_answer(answer, DOING)
        return Session.parse(answer.body)
    raise PolicyError("nobody vouched for this machine in time", hint=f"countermark login {registry.url}")
