"""What a batch costs: a thousand files listed by one publish, the timestamper's check of it, and its replay.

The rooms are the real ones, in one process and one folder (tests/tuf_registry.py); CPU time of each room alone. A
thousand files are two thousand entries and touch nearly a thousand bins. The publish holds a signature for each bin
and a check of each entry's; the timestamper checks every entry and every changed bin again, by code of its own.

The rows that begin with `floor` are what neither room can do without, taken in the same run: the entries replayed,
their signatures checked, and those of the bins made or checked, by nothing but the library's own calls. Writing the
bins' files stands beside them, without waiting for the disk. docs/performance.md says what follows.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark import statement
from countermark.replay import DictView, quicken, replay
from countermark.rules import genesis
from figures import Figure
from tests.log_world import ORIGIN
from tests.tuf_registry import TufRegistry

BITS, FILES, BATCHES, REPLAYS = 14, 1000, 3, 5
ENTRIES = 2 * FILES  # a publish and a verdict of each file
PUBLISH = f"TUF publish of {FILES:,} files at once, {1 << BITS:,} bins"
CHECK = f"timestamper's check of {FILES:,} files at once"
_PUBLISHING = f"floor: {ENTRIES:,} entries replayed and checked, {FILES:,} bins signed"
_CHECKING = f"floor: {ENTRIES:,} entries replayed and checked, {FILES:,} bins checked"


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
    replays = [1000 * ENTRIES / rate for rate in rates]
    return [
        Figure(PUBLISH, "CPU ms", publishes, budget=200, beside=_PUBLISHING),
        Figure(CHECK, "CPU ms", checks, budget=300, beside=_CHECKING),
        Figure(
            "replay of entries, signatures not checked", "entries/CPU s", rates, 20_000, more_is_better=True
        ),
        *_floors(replays),
    ]


def _floors(replays: list[float]) -> list[Figure]:
    """CPU milliseconds of what a publish of so many files, and its check, cannot do without."""
    signer = Ed25519PrivateKey.generate()
    message = b"x" * 700  # about as long as a statement, and as a bin of one file
    signature, public = signer.sign(message), signer.public_key()
    checks = [_spent(lambda: public.verify(signature, message), FILES) for _ in range(REPLAYS)]
    signs = [_spent(lambda: signer.sign(message), FILES) for _ in range(REPLAYS)]
    both = list(zip(replays, checks, signs, strict=True))
    share = ENTRIES // FILES
    return [
        Figure(_PUBLISHING, "CPU ms", [replay + share * check + sign for replay, check, sign in both]),
        Figure(_CHECKING, "CPU ms", [replay + (share + 1) * check for replay, check, _ in both]),
        Figure(f"floor: {FILES:,} signatures checked", "CPU ms", checks),
        Figure(f"floor: {FILES:,} bins signed", "CPU ms", signs),
        Figure(f"floor: {FILES:,} files written and named", "CPU ms", [_written() for _ in range(REPLAYS)]),
    ]


def _spent(call: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        call()
    return 1000 * (time.process_time() - started)


def _written() -> float:
    """Files of a bin's size, each written under another name and then given its own."""
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        started = time.process_time()
        for number in range(FILES):
            name = f"{folder}/{number}"
            descriptor = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            os.write(descriptor, b"x" * 900)
            os.close(descriptor)
            os.link(f"{name}.new", name)
            os.unlink(f"{name}.new")  # noqa: PTH108 - nothing but the call
        return 1000 * (time.process_time() - started)


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
