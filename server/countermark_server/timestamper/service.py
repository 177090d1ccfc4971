"""The timestamper's process: it polls the registry, lets the judge decide, and serves its newest timestamp.

    GET /timestamp.json   the newest timestamp signed; tufrepo checks it and copies it to the public tree
    GET /unlogged.json    {"unlogged": ["<sha256>", ...]}: timestamps whose digests the log does not hold yet
    GET /healthz          200 while the newest timestamp is younger than two hours
    GET /metrics          Prometheus

It tries when the registry's `candidate.json` changes (a hint, never believed), again and again while a check fails,
and on its own an hour and five minutes after its last signature, when tufrepo's heartbeat did not come: then
it carries the same metadata with the newest checkpoint. Once a minute it looks for a withheld takedown.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from countermark.errors import CountermarkError, NetworkError
from countermark.fetch import Fetcher
from countermark.limits import TIMESTAMP_LIFETIME
from countermark.serving import Request, Response
from countermark.timestamp import Timestamp
from countermark_server import telemetry
from countermark_server.pace import Pace
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.judge import Judge
from countermark_server.timestamper.store import Store

RECARRY_AFTER = timedelta(minutes=65)  # tufrepo's heartbeat comes hourly; five minutes of grace
WATCH_EVERY = timedelta(minutes=1)
HEALTHY_AGE = timedelta(hours=2)
CANDIDATE_MAX_BYTES = 64 * 1024

VERSION = Gauge("countermark_timestamp_version", "version of the newest timestamp signed")
SIGNED_AT = Gauge("countermark_timestamp_signed_seconds", "when the newest timestamp was signed")
SIGNED = Counter("countermark_timestamps_signed_total", "timestamps signed")
REFUSALS = Counter("countermark_timestamper_refusals_total", "attempts refused, by code", ["code"])
ALARM = Gauge("countermark_timestamper_alarm", "1 while the newest attempt was refused")
UNREACHABLE = Counter("countermark_timestamper_unreachable_total", "attempts the registry did not answer")
FINDINGS = Gauge("countermark_timestamper_findings", "entries of the newest attempt that break a rule")


@dataclass
class Served:
    """What the HTTP side hands out; replaced as a whole, after the database has it."""

    timestamp: bytes = b""
    signed_at: int = 0
    unlogged: tuple[str, ...] = ()


class Service:
    """The loop. `engine` answers HTTP from other threads and only reads `served`."""

    def __init__(
        self,
        store: Store,
        judge: Judge,
        fetcher: Fetcher,
        base_url: str,
        *,
        clock: Callable[[], float],
        retry_interval: float,  # seconds after a refusal: what is missing may arrive
    ) -> None:
        self._store = store
        self._judge = judge
        self._fetcher = fetcher
        self._candidate_url = f"{base_url.rstrip('/')}/tuf/candidate.json"
        self._clock = clock
        self._retry_interval = retry_interval
        self._considered: str | None = None  # digest of the candidate we signed for
        self._not_before = 0.0
        self._watched = 0.0
        self.served = Served()
        self._serve_newest()

    def run(self, stop: threading.Event, *, poll_interval: float) -> None:
        """Until `stop`."""
        pace = Pace(poll_interval)
        while not stop.is_set():
            pace.wait(stop, busy=self.step())

    def step(self) -> bool:
        """One look; True when a timestamp was signed."""
        now = self._clock()
        if now < self._not_before:
            return False
        try:
            return self._step(int(now))
        except RefusalError as refusal:
            self._refused(refusal.code, str(refusal))
        except NetworkError as error:
            UNREACHABLE.inc()
            telemetry.logger().warning("the registry is out of reach", error=str(error))
        except (CountermarkError, sqlite3.Error) as error:
            self._refused(type(error).__name__, str(error))
        self._not_before = now + self._retry_interval
        return False

    def engine(self, request: Request) -> Response:
        """Answer one request."""
        served = self.served
        no_store = {"Cache-Control": "no-store"}
        if request.method != "GET":
            return Response(405, b"GET only\n", headers=no_store)
        if request.path == "/timestamp.json" and served.timestamp:
            return Response(200, served.timestamp, "application/json", no_store)
        if request.path == "/unlogged.json":
            body = json.dumps({"unlogged": list(served.unlogged)}).encode()
            return Response(200, body, "application/json", no_store)
        if request.path == "/metrics":
            return Response(200, generate_latest(), CONTENT_TYPE_LATEST, no_store)
        if request.path == "/healthz":
            age = self._clock() - served.signed_at
            healthy = bool(served.timestamp) and age < HEALTHY_AGE.total_seconds()
            said = f"newest timestamp is {int(age)} s old" if served.timestamp else "nothing signed yet"
            return Response(200 if healthy else 503, said.encode() + b"\n", headers=no_store)
        return Response(404, b"not found\n", headers=no_store)

    def _step(self, now: int) -> bool:
        hint = self._fetcher.get(self._candidate_url, max_bytes=CANDIDATE_MAX_BYTES, missing_ok=True)
        if hint is None:
            return False  # nothing was published yet
        candidate = hashlib.sha256(hint).hexdigest()
        due = bool(self.served.timestamp) and now - self.served.signed_at >= RECARRY_AFTER.total_seconds()
        if candidate != self._considered or due:
            try:
                signed = self._judge.attempt(now=now, recarry=due)
            finally:
                self._serve_newest()  # ours, or one that was adopted before a refusal
            self._passed()
            if signed is not None or _hinted(hint) <= self._judge.entry:
                self._considered = candidate
            else:  # a cache showed us an older log than the hint speaks of: the hint stays new
                self._not_before = now + self._retry_interval
            if signed is not None:
                SIGNED.inc()
                telemetry.logger().info("timestamp signed", version=signed.version, bytes=len(signed.raw))
                return True
        if now - self._watched >= WATCH_EVERY.total_seconds():
            self._judge.watch(now=now)
            self._watched = now
            self._passed()
        return False

    def _serve_newest(self) -> None:
        newest = self._store.newest()
        if newest is None:
            return
        signed_at = Timestamp.parse(newest.raw).expires - int(TIMESTAMP_LIFETIME.total_seconds())
        self.served = Served(newest.raw, signed_at, tuple(self._store.unlogged()))
        VERSION.set(newest.version)
        SIGNED_AT.set(signed_at)

    def _passed(self) -> None:
        ALARM.set(0)
        FINDINGS.set(len(self._judge.findings))
        for finding in self._judge.findings:
            telemetry.logger().error("finding", finding=str(finding))

    def _refused(self, code: str, why: str) -> None:
        REFUSALS.labels(code).inc()
        ALARM.set(1)
        telemetry.logger().error("timestamp refused", code=code, error=why)


def _hinted(hint: bytes) -> int:
    """The index of the `tuf` entry that a candidate.json speaks of; -1 where it says none."""
    try:
        entry = json.loads(hint)["entry"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return -1
    return entry if type(entry) is int else -1
