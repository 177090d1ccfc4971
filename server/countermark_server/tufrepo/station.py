"""`countermark-server work tufrepo`: the loop around one Repository.

After an error everything is loaded anew from the database and tried again; what is not public has not happened.
Only a refusal by the log, or files of ours that are not what we wrote, end the process: going on would be
guessing. A database that was restored from a backup is refused at the start, in the words in which the log
refuses it: it would have us write files for a second time that are public already.
"""

from __future__ import annotations

import json
import threading
import time

from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError
from tuf.api.exceptions import RepositoryError

from countermark import replay
from countermark.errors import CountermarkError, UsageError
from countermark.fetch import HttpFetcher
from countermark_server import adopted, db, onlinekeys, signing, telemetry
from countermark_server.pace import Pace
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.tufrepo.keys import Keys
from countermark_server.tufrepo.parts import Parts
from countermark_server.tufrepo.publish import Repository

NAME = "tufrepo"
RETRY_SECONDS = 0.5  # after an error
FAILURES = (OSError, SQLAlchemyError, CountermarkError, RepositoryError)

STEPS = Counter("countermark_tufrepo_steps_total", "steps by outcome", ["outcome"])
APPLIED = Gauge("countermark_tuf_applied", "entries that the newest TUF candidate has applied")
UNAPPLIED = Gauge(
    "countermark_tuf_unapplied_seconds", "age of the oldest status entry no candidate has taken"
)
EXPIRES = Gauge("countermark_tuf_expires_seconds", "when online metadata expires, by role", ["role"])


def run(settings: Settings, stop: threading.Event) -> None:
    """Work until `stop`."""
    replay.quicken()
    parts = open_parts(settings)
    try:
        repository = Repository(parts)
        telemetry.ready(settings.data / "run", NAME)
        pace = Pace(settings.tuf.poll_interval)
        while not stop.is_set():
            done = step(repository, stop)
            report(repository, parts.clock())
            pace.wait(stop, busy=done)
    finally:
        parts.engine.dispose()


def step(repository: Repository, stop: threading.Event) -> bool:
    """One step; after a failure a fresh load."""
    try:
        done = repository.step()
        if done:
            STEPS.labels("done").inc()
        return done
    except FAILURES as error:
        STEPS.labels("failed").inc()
        telemetry.logger().error("tufrepo step failed", error=str(error), kind=type(error).__name__)
        stop.wait(RETRY_SECONDS)
        repository.load()
        return False


def report(repository: Repository, now: float) -> None:
    """Say where this room stands."""
    current, since = repository.current, repository.waiting_since
    APPLIED.set(current.applied)
    UNAPPLIED.set(0 if since is None else max(0.0, now - since))
    EXPIRES.labels("snapshot").set(current.snapshot_expires)
    EXPIRES.labels("bins").set(min((record.expires for record in current.bins), default=0))


def open_parts(settings: Settings) -> Parts:
    """What a repository works with, from this data directory."""
    public = places.public(settings)
    trust_file = adopted.trust_file(public)
    if trust_file.origin != settings.registry.origin:
        raise UsageError(
            f"registry.origin is {settings.registry.origin}, the trust file is for {trust_file.origin}"
        )
    return Parts(
        engine=db.open_engine(settings.database_url),
        public=public,
        keys=Keys(onlinekeys.open_keys(settings, "bins"), onlinekeys.open_keys(settings, "snapshot")),
        registry=signing.role_signer(settings, "registry"),
        trust_file=trust_file,
        timestamper=HttpFetcher(),
        timestamper_url=timestamper_url(settings),
        clock=time.time,
        min_interval=settings.tuf.min_interval,
        heartbeat=settings.tuf.heartbeat,
        retention=settings.tuf.retention,
    )


def timestamper_url(settings: Settings) -> str:
    """Where the timestamper serves; with port 0, what it says about itself in run/timestamper.json."""
    listen = settings.timestamper.listen
    if not listen.endswith(":0"):
        return f"http://{listen}"
    try:
        return str(json.loads((settings.data / "run" / "timestamper.json").read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError("the timestamper listens on port 0 and has not said where yet") from error
