"""A whole audit of a registry in memory: replay, tiles, bins and pages, without a network between."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from countermark.audit import audit
from countermark.replay import quicken
from figures import Figure
from tests.machine import Machine
from tests.simulator import World

PROJECTS, VERSIONS, RUNS = 20, 50, 5


def measure() -> list[Figure]:
    """Entries a second of a first audit, signatures and all; and what a later one costs when nothing is new."""
    quicken()  # as the command does
    world = World()
    for project in range(PROJECTS):
        for version in range(VERSIONS):
            world.verdict(world.publish(f"project-{project}", f"1.{version}", list_it=False))
    world.release()
    world.now += 300
    world.heartbeat()
    rates, again = [], []
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        for run in range(RUNS):
            machine = Machine(Path(folder) / str(run), world)
            first, position = _timed(machine, world)
            rates.append(position / first)
            again.append(1000 * _timed(machine, world)[0])
    return [
        Figure("audit, first, signed entries", "entries/s", rates, more_is_better=True),
        Figure(f"audit, again, nothing new, {PROJECTS} pages", "ms", again),
    ]


def _timed(machine: Machine, world: World) -> tuple[float, int]:
    started = time.process_time()  # CPU time: these machines are shared
    report = audit(machine.registry, world, now=world.now)
    assert not report.findings, report.to_json()
    return time.process_time() - started, report.position
