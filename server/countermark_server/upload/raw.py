"""`POST /log/add`: raw bytes into a log for load tests (`testing.raw_add`).

    POST /log/add        any 1 to 65,535 bytes
    200 text/plain       41                       the index; the leaf there is exactly these bytes

So that hammers which know nothing of registries can drive the log. The answer comes when a public, cosigned
checkpoint covers the leaf, like an upload's. Nobody signs in, nothing is scanned, the same bytes sent again are
another leaf. Such a log takes nothing else: every other door that writes answers 409, and the rules refuse what
would come in by another way. No client can take it for a registry, since it never has a timestamp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from flask import Blueprint, Response, request
from sqlalchemy import Engine

from countermark.limits import ENTRY_MAX_BYTES
from countermark_server import db, proposal
from countermark_server.asking import Answers, Expected, no_room, taken
from countermark_server.errors import ServerError
from countermark_server.settings import Settings
from countermark_server.together import Together

PATH = "/log/add"
READS = ("GET", "HEAD", "OPTIONS")


def blueprint(
    settings: Settings, engine: Engine, answers: Answers, *, clock: Callable[[], float]
) -> Blueprint:
    """The one write door of a raw log, and the bar in front of all others."""
    doors = Blueprint("raw", __name__)
    propose: Together[bytes, Expected] = Together(
        partial(_propose, settings, engine, answers, clock), until=lambda expected: expected
    )

    @doors.before_app_request
    def _nothing_else() -> None:
        if request.method not in READS and request.path != PATH:
            raise ServerError(
                "raw-log", f"testing.raw_add is set: this log takes raw bytes at {PATH} and nothing else"
            )

    @doors.post(PATH)
    def add() -> Response:
        # Once this returns the leaf comes in any case; its sender, if we stop here, knows no index.
        index = _index(taken(answers.heard(propose(_body()))))
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        return Response(str(index), headers=headers)

    return doors


def _body() -> bytes:
    """The request's body. ServerError: none, or more than an entry may have."""
    declared = request.content_length or 0
    # A body of unknown length may end silently at a limit of the framework's: one byte more shows that it was longer.
    request.max_content_length = ENTRY_MAX_BYTES + 1
    body = b"" if declared > ENTRY_MAX_BYTES else request.get_data(cache=False)
    if max(declared, len(body)) > ENTRY_MAX_BYTES:
        raise ServerError("too-large", f"the body has more than {ENTRY_MAX_BYTES} bytes")
    if not body:
        raise ServerError("bad-request", "the body is empty: a leaf needs at least one byte")
    return body


def _propose(
    settings: Settings,
    engine: Engine,
    answers: Answers,
    clock: Callable[[], float],
    bodies: Sequence[bytes],
) -> list[Expected | Exception]:
    """Their proposals, in one transaction: for as many as there is room for."""
    most = settings.entries.queue_max
    with db.write(engine) as connection:
        fit = bodies[: max(proposal.room(connection, most=most), 0)]
        ids = proposal.propose_raw(connection, fit, now=int(clock()))
    return [*answers.expect(ids, seconds=settings.web.wait), *(no_room(most) for _ in bodies[len(fit) :])]


def _index(outcome: proposal.Outcome) -> int:
    if outcome.state != proposal.PUBLISHED:
        raise ServerError(
            "unavailable",
            "the leaf is durable and not public yet; sending it again makes a second leaf",
        )
    assert outcome.index is not None
    return outcome.index
