"""Backfill: existing history into the log, lines a second, on both databases.

The sequencer is the real one, in one process with its database (PostgreSQL beside it), folders and witness: manifest
read and checked, every line judged by the rules, state, staging, tiles, checkpoint. What is measured is the time from
the round that takes the `import` entry to the published checkpoint behind its last line, and this process's CPU time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

import structlog

from countermark.manifest import ZERO_NONCE, Line, format_manifest, predicate
from countermark.statement import Statement, sign
from countermark_server.log.station import quicken
from countermark_server.stores import places
from figures import Figure
from tests import postgres
from tests.log_world import ORIGIN, LogWorld, drain

LINES, RUNS = 20_000, 3
PER_PROJECT = 5  # files


def measure() -> list[Figure]:
    """Lines a second, and what a line costs."""
    quicken()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures = []
    for database in ("SQLite", "PostgreSQL"):
        taken = [_import(database) for _ in range(RUNS)]
        name = f"backfill, {LINES:,} lines, {database}"
        rates = [LINES / wall for wall, _ in taken]
        figures.append(
            Figure(
                name,
                "entries/s",
                rates,
                budget=20_000 if database == "PostgreSQL" else None,
                more_is_better=True,
            )
        )
        figures.append(Figure(f"{name}, a line", "CPU us", [1e6 * cpu / LINES for _, cpu in taken]))
    return figures


def _import(database: str) -> tuple[float, float]:
    """Wall and CPU seconds of one import into an empty log."""
    before = os.environ.pop("COUNTERMARK_DATABASE_URL", None)
    if database == "PostgreSQL":
        os.environ["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
    try:
        with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
            world = LogWorld(Path(folder))
            world.begin()
            station = world.station()
            station.sequencer.load()
            drain(station)
            _propose(world)
            wall, cpu = time.perf_counter(), time.process_time()
            drain(station)
            taken = time.perf_counter() - wall, time.process_time() - cpu
            assert station.sequencer.checkpoint.size > LINES
            station.engine.dispose()
            world.close()
            return taken
    finally:
        os.environ.pop("COUNTERMARK_DATABASE_URL", None)
        if before is not None:
            os.environ["COUNTERMARK_DATABASE_URL"] = before


def _propose(world: LogWorld) -> None:
    lines = [_line(*divmod(number, PER_PROJECT)) for number in range(LINES)]
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest(lines))
    said = predicate(lines, origin=ORIGIN, prev=None, source="old.example")
    statement = Statement.about(f"import:{said['manifest_sha256']}", "import", said)
    world.propose("import", sign(statement, world.roles["registry"]).to_dict())


def _line(project: int, number: int) -> Line:
    name = f"history_{project}-1.{number}-py3-none-any.whl"
    return Line(f"history-{project}", f"1.{number}", name, hashlib.sha256(name.encode()).hexdigest(), 1000)
