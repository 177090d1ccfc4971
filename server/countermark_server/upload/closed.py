"""The bar in front of every door that writes, while a registry is being frozen and from then on.

    POST /legacy/        409 log-frozen

It asks the database at most once a second, so a door may let somebody in for that long; the freeze waits until what
they brought is logged, scanned and published, and behind the last entry the log's rules refuse everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Blueprint, request
from sqlalchemy import Engine

from countermark_server import closing, db
from countermark_server.errors import ServerError

LOOK_SECONDS = 1.0
READS = ("GET", "HEAD", "OPTIONS")


def blueprint(engine: Engine, *, origin: str, clock: Callable[[], float] = time.monotonic) -> Blueprint:
    """The bar; it has no door of its own."""
    doors = Blueprint("closed", __name__)
    looked: list[float] = []  # when the database was asked last; it said that the doors are open
    # One asks for all who come meanwhile: asking for themselves would take a connection each.
    asking = threading.Lock()

    def looked_just_now() -> bool:
        return bool(looked) and clock() - looked[0] < LOOK_SECONDS

    @doors.before_app_request
    def _nothing_more() -> None:
        if request.method in READS or looked_just_now():
            return
        with asking:
            if looked_just_now():
                return
            with db.read(engine) as connection:
                ended = closing.find(connection, origin) is not None or closing.frozen(connection) is not None
            if ended:
                raise ServerError(
                    "log-frozen", f"{origin} is frozen: it takes nothing more, and serves what it has"
                )
            looked[:] = [clock()]

    return doors
