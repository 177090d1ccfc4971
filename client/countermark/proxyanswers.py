"""Proxy answers: what an installer gets from the proxy, as HTTP, and how long a cache before it may keep that.

    ETag: "5891..."                    page, file or metadata, by its hash; each use asks again (304)
    Cache-Control: no-cache
    X-Accel-Expires: @1763803659       nginx alone reads this: keep it until then, and no longer

    409 acme-1.0-py3-none-any.whl is sha256:8d0f3a1c77b2..., entry #9 says ... exit-7 https://registry.example/h/exit-7

A refusal says its reason where installers show it: in the status line and as problem+json. Nothing is a 5xx:
installers retry those and lose the reason.

Only an answer that is the same for everybody says how long it may be kept: until the judgement ends from which it was
made. So a cache in front (deploy/nginx/team-proxy.conf) delays no hold, and what it hands out the proxy would hand
out, too. A refusal and an answer in somebody's name say nothing of the kind, and no cache may keep them.
"""

from __future__ import annotations

import re

from countermark.console import plain
from countermark.errors import CountermarkError, EvidenceError
from countermark.fetch import StatusError
from countermark.serving import Request, Response, Stream
from countermark.simplepage import JSON_TYPE, encode_page
from countermark.values import replace

FRONT_KEEPS = "X-Accel-Expires"
REASON_MAX = 130  # characters of an error in a status line; the problem document has all of it
TITLES = {
    3: "The registry cannot be reached",
    4: "Too old to judge",
    5: "Refused by policy",
    6: "Withdrawn",
    7: "Evidence false",
}


def found(
    request: Request,
    body: bytes | Stream,
    media_type: str,
    tag: str,
    *,
    until: int | None = None,
    varies: bool = False,
) -> Response:
    """The body, or that nothing changed for who holds it already. Each use asks again.

    `until`: the last second in which the same answer may go to somebody else; None: it may not.
    """
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    if varies:
        headers["Vary"] = "Accept"
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(304, headers=headers)
    if until is not None and request.method == "GET":
        headers[FRONT_KEEPS] = f"@{until}"
    return Response(200, body, media_type, headers)


def unbuffered(answer: Response) -> Response:
    """The same, whose bytes still come in: a server before us sends them on as they come, and ends where we end."""
    return replace(answer, headers={**answer.headers, "X-Accel-Buffering": "no"})


def private(answer: Response) -> Response:
    """The same answer for nobody else: no cache on the way keeps it."""
    marks = {"Cache-Control": "private", "Vary": "Authorization", FRONT_KEEPS: "0"}
    return replace(answer, headers={**answer.headers, **marks})


def refusal(
    error: CountermarkError, registry_url: str, *, about: str = "", status: int | None = None
) -> Response:
    """The reason three ways at once, since each installer shows another one."""
    code = error.exit_code
    status = status or (409 if code == EvidenceError.exit_code else 403)
    help_url = f"{registry_url}/h/exit-{code}"
    said = plain(told(about, error))
    # The next step; where our evidence lies on this machine is nobody else's business.
    step = f" ({plain(error.hint)})" if error.hint and code != EvidenceError.exit_code else ""
    short = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", said)
    if len(short) > REASON_MAX:
        short = short[: REASON_MAX - 3] + "..."
    problem = {
        "type": help_url,
        "title": TITLES.get(code, "Refused"),
        "status": status,
        "detail": said + step,
        "code": f"exit-{code}",
    }
    body = encode_page(problem, JSON_TYPE)
    reason = f"{short} exit-{code} {help_url}".encode("ascii", "backslashreplace").decode()
    return Response(status, body, "application/problem+json", {"Cache-Control": "no-store"}, reason)


def told(filename: str, error: CountermarkError) -> str:
    """The error, with the name of what it is about."""
    return str(error) if filename in str(error) else f"{filename}: {error}"


def closed(error: CountermarkError | None) -> Response | None:
    """The registry's own question for credentials, and its refusal of those that came: installers know what to do."""
    if not isinstance(error, StatusError) or error.answer.status not in (401, 403):
        return None
    status = error.answer.status
    asks = {"WWW-Authenticate": error.answer.headers.get("www-authenticate", 'Basic realm="registry"')}
    words = b"the registry asks who you are\n" if status == 401 else b"the registry does not show you this\n"
    return Response(status, words, headers=asks if status == 401 else {})
