"""Submissions a second: signed uploads through the front door, as many as it takes, each durable and proved.

Closed loop: a fixed number of clients, each with one connection that is kept alive, sends its next upload when
the last was answered. An upload counts when its answer carries the proof of inclusion. A sample of the proofs is
verified afterwards, with the registry's own trust file. The load generator runs on the same machine.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import urllib3

import registry
from bench_proof import Uploader
from figures import Figure, percentile

CLIENTS, RUNS, UPLOADS = 32, 3, 300
SAMPLE = 20  # one proof in so many is verified


def measure() -> list[Figure]:
    """Uploads a second, and how long the slowest hundredth waited."""
    rates, tails = [], []
    with registry.running() as world:
        pool = urllib3.PoolManager(maxsize=CLIENTS, retries=False)
        upload = Uploader(f"{world.url}/legacy/", world.token(), pool)
        for run in range(RUNS):
            wheels = registry.signed_wheels(world, UPLOADS, start=run * UPLOADS)
            rate, waits = _closed_loop(upload, wheels)
            rates.append(rate)
            tails.append(percentile(waits, 0.99))
            world.run("countermark", "status", *(wheel.path for wheel in wheels[::SAMPLE]))
    return [
        Figure(
            f"signed uploads, {CLIENTS} clients", "submissions/s", rates, budget=2_000, more_is_better=True
        ),
        Figure(f"signed uploads, {CLIENTS} clients, p99", "ms", tails, budget=100),
    ]


def _closed_loop(upload: Uploader, wheels: list[registry.Wheel]) -> tuple[float, list[float]]:
    turn = count()

    def client() -> list[float]:
        waits = []
        while (number := next(turn)) < len(wheels):
            waits.append(upload(wheels[number], time.perf_counter()))
        return waits

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(client) for _ in range(CLIENTS)]
        waits = [wait for each in clients for wait in each.result()]
    return len(waits) / (time.perf_counter() - started), waits
