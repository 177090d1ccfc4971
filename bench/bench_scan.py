"""Scan: one small artifact, examined by a child that is forked, and by a Python that is started for it.

CPU seconds of all that takes part: the worker, its nurseries, their children. The latter way is the same code with a
nursery for each artifact. Both examine the same wheel in turn, so that other load falls on both.
"""

from __future__ import annotations

import hashlib
import resource
import tempfile
from pathlib import Path

from countermark_server.scan import sandbox as sandbox_module
from countermark_server.scan.sandbox import Sandbox
from countermark_server.settings import Scan, Upload
from figures import Figure
from tests.archives import wheel

ROUNDS, SCANS = 15, 20
NAME = "demo-1.0-py3-none-any.whl"


def measure() -> list[Figure]:
    """CPU milliseconds of one examination, either way."""
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        path = Path(folder) / NAME
        path.write_bytes(wheel())
        forked, started = [], []
        for _ in range(ROUNDS):
            forked.append(_milliseconds(path, sandbox_module.SCANS_PER_NURSERY))
            started.append(_milliseconds(path, 1))
    return [
        Figure("scan of a small wheel, child forked from the nursery", "CPU ms", forked, budget=10),
        Figure(
            "scan of a small wheel, Python started for it",
            "CPU ms",
            started,
            beside="scan of a small wheel, child forked from the nursery",
        ),
    ]


def _milliseconds(path: Path, scans_per_nursery: int) -> float:
    """CPU milliseconds of one examination; a nursery that serves many is started before, and not counted."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    kept = sandbox_module.SCANS_PER_NURSERY
    sandbox_module.SCANS_PER_NURSERY = scans_per_nursery
    try:
        return 1000 * (_cpu(path, sha256, SCANS + 1) - _cpu(path, sha256, 1)) / SCANS
    finally:
        sandbox_module.SCANS_PER_NURSERY = kept


def _cpu(path: Path, sha256: str, scans: int) -> float:
    before = _spent()
    with Sandbox(Scan(), Upload()) as sandbox:
        for _ in range(scans):
            assert sandbox.examine(path, NAME, sha256).findings == ()
    return _spent() - before


def _spent() -> float:
    """CPU seconds of this process and of those it has waited for, with theirs."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
