"""The doorway: what doors do alike - find out who asks, read what they bring, and let nobody keep the answer.

    callers.who("Basic X190b2tlbl9fOmNt...")     -> Principal; ServerError `not-authenticated`: nobody we know
    json_body()                                  -> the body as JSON, of any shape
    doors.after_request(never_cached)

A body is read up to a length, and holds nothing that no database could be asked for: what comes in here may go
everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from flask import Response, request
from sqlalchemy import Engine

from countermark_server import db
from countermark_server.accounts import tokens
from countermark_server.accounts.signin import SignIns
from countermark_server.accounts.tokenroom import Uses
from countermark_server.errors import ServerError

BODY_MAX_BYTES = 128 * 1024  # an envelope has at most 64 KiB
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # as JSON spells it


class Callers:
    """Who asks, by the token they bring: refused once the identity provider vouches no longer, and noted."""

    def __init__(
        self, engine: Engine, uses: Uses, sign_ins: SignIns | None, *, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._uses = uses
        self._sign_ins = sign_ins
        self._clock = clock

    def who(self, authorization: str | None) -> tokens.Principal:
        """Whose token this header holds, of either kind."""
        now = int(self._clock())
        with db.read(self._engine) as connection:
            principal = tokens.authenticate(connection, authorization, now=now)
        if self._sign_ins is not None:
            self._sign_ins.vouch(principal)
        self._uses.note(principal, now=now)
        return principal


def json_body(most: int = BODY_MAX_BYTES) -> object:
    """The request's body as JSON, of any shape. ServerError: it is not JSON, or too long."""
    if (request.content_length or 0) > most:
        raise ServerError("too-large", f"the body has more than {most} bytes")
    request.max_content_length = most
    try:
        found: object = request.get_json(force=True, silent=True)
        storable = _is_storable(request.get_data(), found)
    except RecursionError:
        raise ServerError("bad-request", "the body is nested too deep") from None
    if not storable:
        raise ServerError("bad-request", "the body holds a NUL, or half a character of UTF-16")
    return found


def _is_storable(raw: bytes, found: object) -> bool:
    """Whether all texts can be encoded, and asked of a database: PostgreSQL takes no NUL.

    JSON can spell what cannot (`"\\ud800"`), and Python reads it.
    """
    if raw.isascii() and b"\\" not in raw:
        return True
    text = json.dumps(found, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _NUL.search(text) is None


def never_cached(response: Response) -> Response:
    """What doors answer is of one person and one moment."""
    response.headers["Cache-Control"] = "no-store"
    return response
