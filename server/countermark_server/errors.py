"""Errors of the registry, and the one place that knows HTTP status codes.

A room raises `ServerError("file-exists", "File already exists: ...")`: a code from the table below and one
sentence with the values that disagree. Here it becomes an answer that says the same thing three ways at once,
because each client shows another one (twine and pip the reason phrase, uv the problem document):

    HTTP/1.1 400 demo-1.0.tar.gz was not signed: see https://registry.example/h/signature-missing
    Content-Type: application/problem+json

    {"code":"signature-missing","detail":"demo-1.0.tar.gz was not signed","status":400,
     "title":"Signature missing","type":"https://registry.example/h/signature-missing"}

Upload refusals are 400 (429 where waiting helps), never 409 or 5xx: flit shows our words only for 400, poetry
takes any 409 for "exists", and twine sends the whole file again after a 5xx. The words `already exist` belong to
`file-exists` alone: `poetry publish --skip-existing` looks for them.

A person's browser is shown the same as a page: it asks for HTML first of all, which no installer or uploader does.

Each code has a help page (`web/help.py`), which a test asserts. No answer built here is ever cacheable, and
none carries a traceback: what we did not foresee is `internal`, and its story is in the telemetry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ACCEPTED = 202  # taken and durable, not public yet
RETRY_AFTER = 1  # seconds: what is missing now (a quorum, a free place in the queue) is usually back by then
HTML = "text/html; charset=utf-8"
REASON_MAX_CHARS = 180  # some clients and proxies cut a status line at 200


@dataclass(frozen=True)
class Code:
    """What a code means to a client: the HTTP status and a title of a few words."""

    status: int
    title: str


CODES: dict[str, Code] = {
    # --- who is asking ------------------------------------------------------------------------------------
    "not-authenticated": Code(401, "Token missing or not valid"),
    "certificate-needed": Code(403, "Client certificate missing or not valid"),
    "login-refused": Code(401, "Sign-in refused"),
    "login-pending": Code(400, "Nobody has vouched for this machine yet"),
    "session-required": Code(403, "An interactive session is required"),
    "sign-in-stale": Code(403, "A fresh sign-in is required"),
    "token-scope": Code(403, "Token is for something else"),
    "not-owner": Code(403, "Not an owner of this project"),
    "form-foreign": Code(403, "Form of another browser"),
    "too-many-attempts": Code(429, "Too many attempts"),
    # --- the request as a whole ---------------------------------------------------------------------------
    "bad-request": Code(400, "Request not understood"),
    "not-found": Code(404, "Not found"),
    "not-allowed": Code(405, "Method not allowed"),
    "not-acceptable": Code(406, "This form is not served"),
    "too-large": Code(413, "Too large"),
    "internal": Code(500, "Error in the registry"),
    "unavailable": Code(503, "The registry cannot answer now"),
    "busy": Code(503, "Too many entries are waiting"),
    # --- an upload ----------------------------------------------------------------------------------------
    "form-invalid": Code(400, "Form not valid"),
    "name-invalid": Code(400, "Name not allowed"),
    "name-confusable": Code(400, "Name too much like another"),
    "name-granted": Code(400, "Name belongs to an organisation"),
    "release-closed": Code(400, "Release closed to further files"),
    "quota-bytes": Code(400, "No room left"),
    "quota-day": Code(429, "No more today"),
    "filename-invalid": Code(400, "File name not allowed"),
    "digest-mismatch": Code(400, "Digest mismatch"),
    "file-exists": Code(400, "File already exists"),
    "filename-spent": Code(400, "File name spent"),
    "metadata-invalid": Code(400, "Metadata not valid"),
    "metadata-mismatch": Code(400, "Metadata contradicts the form"),
    "archive-malformed": Code(400, "Archive not valid"),
    "archive-ambiguous": Code(400, "Archive reads differently to different readers"),
    "archive-path": Code(400, "Archive member name not allowed"),
    "archive-link": Code(400, "Archive link not allowed"),
    "archive-budget": Code(400, "Archive unpacks to too much"),
    "archive-layout": Code(400, "Archive layout not allowed"),
    "record-mismatch": Code(400, "RECORD contradicts the archive"),
    # --- statements and what the rules say ----------------------------------------------------------------
    "statement-invalid": Code(400, "Statement not valid"),
    "statement-mismatch": Code(400, "Statement contradicts the file"),
    "signature-missing": Code(400, "Signature missing"),
    "statements-waiting": Code(400, "Too many statements waiting"),
    "signature-invalid": Code(400, "Signature not valid"),
    "signature-count": Code(400, "Wrong number of signatures"),
    "key-unknown": Code(400, "Key not enrolled"),
    "key-expired": Code(400, "Key expired"),
    "key-revoked": Code(400, "Key revoked"),
    "key-pending": Code(400, "Key not in effect yet"),
    "key-exists": Code(400, "Key is enrolled here"),
    "key-taken": Code(400, "Key belongs to another account"),
    "not-authorised": Code(400, "Not authorised by an enrolled key"),
    "recovery-pending": Code(400, "A recovery is under way"),
    "project-frozen": Code(400, "Project frozen"),
    "prev-stale": Code(400, "Statement follows an older entry"),
    "entry-refused": Code(400, "The log's rules refuse this entry"),
    # --- a job of a CI system -------------------------------------------------------------------------------
    "job-token-invalid": Code(422, "Token of the job not valid"),
    "job-token-expired": Code(422, "Token of the job is of another time"),
    "job-token-reused": Code(422, "Token of the job used before"),
    "job-audience": Code(422, "Token of the job made for somebody else"),
    "job-pull-request": Code(422, "Job started by a pull request"),
    "job-fork": Code(422, "Job of a fork"),
    "job-renamed": Code(422, "Repository renamed or replaced"),
    "job-unknown-publisher": Code(422, "Nobody trusts this job"),
    # --- a file that is asked for -------------------------------------------------------------------------
    "not-listed": Code(404, "Not listed yet"),
    "file-held": Code(403, "File held for review"),
    "file-removed": Code(410, "File removed"),
    "proof-invalid": Code(409, "Proof does not verify"),
    # --- a log that has ended -------------------------------------------------------------------------------
    "log-frozen": Code(409, "This registry is frozen"),
    # --- a log for load tests --------------------------------------------------------------------------------
    "raw-log": Code(409, "This log takes raw bytes only"),
}
# Some rules of the log say at a door the same as a refusal of the door's own; the rest keep their names.
_OF_RULE = {
    "signature-required": "signature-missing",
    "signature-false": "signature-invalid",
    "not-an-owner": "not-owner",
    "malformed": "statement-invalid",
}
_OF_STATUS = {
    400: "bad-request",
    401: "not-authenticated",
    404: "not-found",
    405: "not-allowed",
    406: "not-acceptable",
    413: "too-large",
    429: "too-many-attempts",
}


class ServerError(Exception):
    """A refusal: a code of `CODES`, and one sentence for the person at the other end."""

    def __init__(self, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.code = code if code in CODES else "entry-refused"
        self.detail = detail
        self.retry_after = retry_after  # seconds, where they are known


def from_rule(code: str, message: str) -> ServerError:
    """What the log's rules refused, as a refusal of the door."""
    known = _OF_RULE.get(code, code)
    return ServerError(known, message if known in CODES else f"{message} ({code})")


@dataclass(frozen=True)
class Problem:
    """One refusal as HTTP wants it: status line, headers and body."""

    status: str
    headers: dict[str, str]
    body: bytes


def problem(error: ServerError, base_url: str) -> Problem:
    """The answer for `error`; the one function that builds refusals."""
    code, said = CODES[error.code], document(error, base_url)
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if (
        code.status == 401 or error.code == "certificate-needed"
    ):  # the registry's own processes have a token instead
        headers["WWW-Authenticate"] = 'Basic realm="countermark"'
    if code.status == 503 or error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after or RETRY_AFTER)
    body = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return Problem(f"{code.status} {reason(error.detail, said['type'])}", headers, body)


def document(error: ServerError, base_url: str) -> dict[str, Any]:
    """The problem document of a refusal (RFC 9457): an answer's body, or one item's part of it."""
    code = CODES[error.code]
    found: dict[str, Any] = {
        "type": f"{base_url}/h/{error.code}",
        "title": code.title,
        "status": code.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.code.startswith("job-"):  # what upload tools print of a refused trusted publisher
        told = {"code": error.code, "description": f"{error.detail}: see {found['type']}"}
        found |= {"message": "Token request failed", "success": False, "errors": [told]}
    return found


def reason(detail: str, help_url: str) -> str:
    """The reason phrase: printable ASCII on one line, the help page last, shortened in the middle."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in " ".join(detail.split()))
    tail = f": see {help_url}"
    room = REASON_MAX_CHARS - len(tail)
    if room < 40:  # a very long base URL: the sentence matters more, the body has the address
        tail, room = "", REASON_MAX_CHARS
    return (plain if len(plain) <= room else plain[: room - 3] + "...") + tail


def from_status(status: int, detail: str) -> ServerError:
    """What the web framework refused by itself (an unknown path, a method), as one of our codes."""
    return ServerError(_OF_STATUS.get(status, "bad-request" if status < 500 else "internal"), detail)


def install(app: Any, base_url: str, log: Any, *, page: Callable[[ServerError], str] | None = None) -> None:
    """Teach a Flask application to answer every error through `problem`; a browser gets `page` for its body."""
    from flask import Response, request  # noqa: PLC0415  (rooms that only raise need no web framework)
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError  # noqa: PLC0415
    from werkzeug.exceptions import HTTPException  # noqa: PLC0415

    def answer(error: ServerError) -> Response:
        made = problem(error, base_url)
        if (
            page is not None
            and request.method == "GET"
            and dict(request.accept_mimetypes).get("text/html") == 1
        ):
            return Response(page(error), made.status, made.headers | {"Content-Type": HTML})
        return Response(made.body, status=made.status, headers=made.headers)

    def framework(error: HTTPException) -> Response:
        said = f"there is nothing at {request.path[:200]}" if error.code == 404 else error.description
        response = answer(from_status(error.code or 500, said or error.name))
        if error.code == 405 and (methods := getattr(error, "valid_methods", None)):
            response.headers["Allow"] = ", ".join(sorted(methods))
        return response

    def unforeseen(error: Exception) -> Response:
        log.error("unforeseen", error=repr(error), exc_info=error)
        return answer(ServerError("internal", "an error in the registry, not in your request"))

    def no_connection(error: Exception) -> Response:
        # Every database connection of this process stayed taken for the pool's whole patience: nothing was begun.
        log.error("no database connection is free", error=repr(error))
        return answer(
            ServerError("unavailable", "every database connection is in use: nothing was done, try again")
        )

    app.register_error_handler(ServerError, answer)
    app.register_error_handler(PoolTimeoutError, no_connection)
    app.register_error_handler(HTTPException, framework)
    app.register_error_handler(Exception, unforeseen)
