"""Rows follow decisions: `held -> cleared | rejected`, by what the log's entries make of the file.

    settle(engine, now=...)     # -> how many submissions moved

Who decided, and by which program, is of no matter here: a moderator's clear or takedown, or an owner who removed
the file meanwhile. A step may be done twice or by two processes; the loser learns it and goes on. The room has no
process of its own: its loop is a thread beside the scan (worker.py).
"""

from __future__ import annotations

import threading
import time

from sqlalchemy import Engine, select

from countermark_server import db, submission, telemetry
from countermark_server.journey import State
from countermark_server.settings import Settings
from countermark_server.standings import Standing, standings

POLL_SECONDS = 0.5  # between looks; a decision has acted on page and file door before


def settle(engine: Engine, *, now: int) -> int:
    """Move every held submission on whose entries say that it goes on, or that it never will."""
    waiting = select(db.submission).where(db.submission.c.state == State.HELD).order_by(db.submission.c.id)
    with db.read(engine) as connection:
        rows = connection.execute(waiting).mappings().all()
        found = standings(connection, rows) if rows else {}
    moved = 0
    for row in rows:
        new = _next(found[row["id"]])
        if new is None:
            continue
        columns = {"reason": None} if new is State.CLEARED else {}
        try:
            with db.write(engine) as connection:
                submission.finish(connection, row["id"], State.HELD, new, now=now, **columns)
        except submission.IllegalMoveError:
            continue  # another worker was first
        moved += 1
    return moved


def _next(standing: Standing) -> State | None:
    if standing.name == "removed":
        return State.REJECTED
    return State.CLEARED if standing.listable else None


def run(settings: Settings, stop: threading.Event) -> None:
    """Settle until `stop`; what goes wrong is said and tried again, since nothing here is remembered."""
    engine = db.open_engine(settings.database_url)
    try:
        while not stop.wait(POLL_SECONDS):
            try:
                settle(engine, now=int(time.time()))
            except Exception as error:  # a thread that died unseen would leave files held for ever
                telemetry.logger().error("settling failed", error=str(error), kind=type(error).__name__)
    finally:
        engine.dispose()
