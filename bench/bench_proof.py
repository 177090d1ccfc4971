"""Time to proof: from the first byte of an upload, or of a statement, to an answer that carries its proof.

Open loop: they start at a fixed rate whatever the earlier ones do, so a slow registry cannot slow the load
down. Each answer's covering checkpoint is durable, signed twice, cosigned by one witness and public. The load
generator runs on the same machine.

An upload is a signed wheel, which is admitted, stored, and scanned meanwhile. A statement goes into the log alone:
its time is the log's own, and scanner, tufrepo and timestamper stand still as in bench_doors.py.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import urllib3

import connections
import registry
from bench_doors import STATIONS, THREADS, enrolled, stand_still
from figures import Figure, percentile
from tests import postgres

RATES = ((10, 5.0), (100, 4.0))  # uploads a second, for so many seconds
RUNS = 3
STATEMENTS = 400  # a run


def measure() -> list[Figure]:
    """Latency of uploads at each rate, and of statements by database, in milliseconds."""
    return [*_uploads(), *_statements("postgresql"), *_statements("sqlite")]


def _statements(database: str) -> list[Figure]:
    settings = {"COUNTERMARK_WEB_THREADS": str(THREADS)}
    if database == "postgresql":
        settings["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
    everything, tails = list[float](), list[float]()
    with registry.running(settings) as world:
        os.environ["COUNTERMARK_DATABASE_URL"] = settings.get("COUNTERMARK_DATABASE_URL", "")
        publisher = enrolled(world)
        del os.environ["COUNTERMARK_DATABASE_URL"]
        stand_still(world, settings)
        for run in range(RUNS):
            numbers = range(run * STATEMENTS, (run + 1) * STATEMENTS)
            requests = [
                connections.post("/api/v1/entries", publisher.statement(each), publisher.token)
                for each in numbers
            ]
            samples = [1000 * each for each in connections.open_loop(world.port, requests, rate=100)]
            everything += samples
            tails.append(percentile(samples, 0.99))
        for station in STATIONS:
            world.resume(station)
    what = f"time to proof of statements at 100/s, {database}, 1 witness"
    return [Figure(what, "ms", everything, 15), Figure(f"{what}, p99", "ms", tails, 50)]


def _uploads() -> list[Figure]:
    figures = []
    with registry.running() as world:
        pool = urllib3.PoolManager(maxsize=64, retries=False)
        upload = Uploader(f"{world.url}/legacy/", world.token(), pool)
        started = 0
        for rate, seconds in RATES:
            count = int(rate * seconds)
            everything: list[float] = []
            tails = []
            for _ in range(RUNS):
                wheels = registry.signed_wheels(world, count, start=started)
                started += count
                samples = _open_loop(upload, wheels, rate)
                everything += samples
                tails.append(percentile(samples, 0.99))
            budget = (15, 50) if rate == 100 else (None, None)
            figures.append(Figure(f"time to proof at {rate}/s, 1 witness", "ms", everything, budget[0]))
            figures.append(Figure(f"time to proof at {rate}/s, 1 witness, p99", "ms", tails, budget[1]))
    return figures


class Uploader:
    """Sends one wheel; answers how many milliseconds after `due` its proof was there."""

    def __init__(self, url: str, token: str, pool: urllib3.PoolManager) -> None:
        self.url, self.pool = url, pool
        self.headers = urllib3.make_headers(basic_auth=f"__token__:{token}")

    def __call__(self, wheel: registry.Wheel, due: float) -> float:
        fields = {
            ":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel", "pyversion": "py3",
            "name": registry.PROJECT, "version": wheel.path.name.split("-")[1], "metadata_version": "2.1",
            "attestations": f"[{wheel.attestation.decode()}]",
            "content": (wheel.path.name, wheel.body, "application/octet-stream"),
        }  # fmt: skip
        answer = self.pool.request("POST", self.url, fields=fields, headers=self.headers, timeout=30)
        took = time.perf_counter() - due
        if answer.status != 200 or not json.loads(answer.data)["proof"]:
            raise RuntimeError(f"{answer.status} {answer.reason}: {answer.data[:300]!r}")
        return took * 1000


def _open_loop(upload: Uploader, wheels: list[registry.Wheel], rate: int) -> list[float]:
    with ThreadPoolExecutor(max_workers=64) as threads:
        begun = time.perf_counter()
        futures = []
        for number, wheel in enumerate(wheels):
            due = begun + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            futures.append(threads.submit(upload, wheel, due))
        return [future.result() for future in futures]
