"""TUF: what one more file costs to publish, at two sizes of the registry's bins.

The rooms are the real ones, in one process and one folder (tests/tuf_registry.py); what is measured is the CPU
time of tufrepo alone, from the cleared file to the timestamp in its place: reading the log, replaying the rules,
signing a bin and the snapshot, and the rows and files of it. Every fiftieth snapshot is verified by tuf itself
and costs more; so does the first, which is left out.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import structlog

from figures import Figure
from tests.tuf_registry import TufRegistry

BIT_LENGTHS, FILES = (12, 14), 25


def measure() -> list[Figure]:
    """CPU milliseconds of one publish of one file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return [
        Figure(
            f"TUF publish of one more file, {1 << bits:,} bins",
            "CPU ms",
            _publishes(bits),
            budget=15 if bits == 14 else None,
        )
        for bits in BIT_LENGTHS
    ]


def _publishes(bit_length: int) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        world = TufRegistry(Path(folder), bit_length=bit_length)
        world.settle()
        samples = []
        for number in range(FILES + 1):
            world.list_file(number)
            samples.append(1000 * _settle(world))
        return samples[1:]


def _settle(world: TufRegistry) -> float:
    """Let every room work until none has anything to do; CPU seconds of tufrepo's steps."""
    spent = 0.0
    while True:
        started = time.process_time()
        busy = world.repository.step()
        spent += time.process_time() - started
        if not any([busy, world.work_log(), world.service.step()]):
            return spent
