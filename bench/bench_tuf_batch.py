"""What a batch costs: a thousand files listed by one publish, the timestamper's check of it, and its replay.

The rooms are the real ones, in one process and one folder (tests/tuf_registry.py); CPU time of each room alone. A
thousand files are two thousand entries and touch nearly a thousand bins. The publish holds a signature for each bin
and a check of each entry's; the timestamper checks every entry and every changed bin again, by code of its own.

The replay without signatures is the rules alone: reading, canonical form, schema, state. Auditors and a restarted
timestamper pay it for every entry of the log, and the signatures beside it on as many cores as they have.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import structlog

from countermark import statement
from countermark.replay import DictView, quicken, replay
from countermark.rules import genesis
from figures import Figure
from tests.log_world import ORIGIN
from tests.tuf_registry import TufRegistry

BITS, FILES, BATCHES, REPLAYS = 14, 1000, 3, 5


def measure() -> list[Figure]:
    """CPU milliseconds of a publish and of its check; entries a CPU second of the replay."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    quicken()  # as the processes of both rooms do
    publishes, checks = [], []
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        world = TufRegistry(Path(folder), bit_length=BITS)
        world.settle()
        for batch in range(BATCHES):
            world.list_files(range(batch * FILES, (batch + 1) * FILES))
            published, checked = _settled(world)
            publishes.append(1000 * published)
            checks.append(1000 * checked)
        leaves = world.entries()
        authority = world.trust.authority_key
    rates = [_replayed(leaves, authority) for _ in range(REPLAYS)]
    return [
        Figure(
            f"TUF publish of {FILES:,} files at once, {1 << BITS:,} bins", "CPU ms", publishes, budget=200
        ),
        Figure(f"timestamper's check of {FILES:,} files at once", "CPU ms", checks, budget=300),
        Figure(
            "replay of entries, signatures not checked", "entries/CPU s", rates, 20_000, more_is_better=True
        ),
    ]


def _settled(world: TufRegistry) -> tuple[float, float]:
    """Let every room work until none has anything to do; CPU seconds of tufrepo and of the timestamper."""
    spent = [0.0, 0.0]

    def step(room: int, work: Callable[[], bool]) -> bool:
        started = time.process_time()
        busy = work()
        spent[room] += time.process_time() - started
        return busy

    while any([step(0, world.repository.step), world.work_log(), step(1, world.service.step)]):
        pass
    return spent[0], spent[1]


def _replayed(leaves: list[bytes], authority: bytes) -> float:
    view, findings = DictView(), []
    view.apply(genesis(origin=ORIGIN, authority_key=authority))
    with mock.patch.object(statement, "_verify", lambda *_: None):
        started = time.process_time()
        size = replay(leaves, view, on_finding=findings.append)
        spent = time.process_time() - started
    assert size == len(leaves) and not findings
    return size / spent
