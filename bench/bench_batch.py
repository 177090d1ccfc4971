"""TUF in batches: a publish of a thousand files at 16,384 bins, its check, a replay, and what an install fetches.

The rooms are the real ones (tests/tuf_registry.py). *Publish* is the CPU time of tufrepo, from a thousand cleared
files to their timestamp: it reads two thousand entries, verifies their signatures, signs nearly a thousand bins
and writes them durably. *Check* is the timestamper's: the same entries through the same rules, every bin that
changed, its signature. *Replay* is the rules alone over the same log, with the signatures left out by replacing the
one function that verifies them.

*Bytes* are what a client asks for, each file gzipped as a server would send it; the one bin looked at holds 139
targets, as PEP 458 supposes. In so young a registry nearly all versions in the snapshot are 1; versions of five
random digits add 60,000 bytes. PEP 458's figures stand as budgets: 1,517,722 bytes for a new user, 207,002 for one
who returns after a publish, 108,698 for one who returns before it.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import structlog
from securesystemslib.signer import CryptoSigner

from bench_tuf import BASE, _PublicFolder
from countermark import rules, statement
from countermark.pins import Home
from countermark.replay import DictView, put_all, replay
from countermark.trust import opened
from countermark_server.tufbytes import sign_bin
from figures import Figure
from tests.log_world import ORIGIN, key
from tests.tuf_registry import TufRegistry

BIT_LENGTH, BATCH, BATCHES, REPLAYS = 14, 1_000, 3, 3
PEP_TARGETS, PEP_COLD, PEP_WARM, PEP_SAME = 139, 1_517_722, 207_002, 108_698


def measure() -> list[Figure]:
    """CPU milliseconds of the two rooms, entries a second, and bytes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        world = TufRegistry(Path(folder), bit_length=BIT_LENGTH)
        world.settle()
        spent = [_batch(world, number) for number in range(BATCHES)]
        found = _bytes(world, Path(folder))
        rates = [_replay(world) for _ in range(REPLAYS)]
    bins = f"{1 << BIT_LENGTH:,} bins"
    return [
        Figure(f"TUF publish of {BATCH:,} files, {bins}", "CPU ms", [each[0] for each in spent], budget=200),
        Figure(
            f"timestamper's check of {BATCH:,} files, {bins}",
            "CPU ms",
            [each[1] for each in spent],
            budget=300,
        ),
        Figure("replay, signatures left out", "entries/s", rates, budget=20_000, more_is_better=True),
        *found,
    ]


def _batch(world: TufRegistry, number: int) -> tuple[float, float]:
    """CPU milliseconds of tufrepo and of the timestamper for one batch."""
    world.list_files(range(number * BATCH, (number + 1) * BATCH))
    publish = check = 0.0
    while True:
        times = [time.process_time()]
        busy = [world.repository.step()]
        times.append(time.process_time())
        busy.append(world.work_log())
        times.append(time.process_time())
        busy.append(world.service.step())
        times.append(time.process_time())
        publish, check = publish + times[1] - times[0], check + times[3] - times[2]
        if not any(busy):
            return 1000 * publish, 1000 * check


def _replay(world: TufRegistry) -> float:
    """Entries a CPU second through the rules, with state in memory and no signature verified."""
    leaves, view, findings = world.entries(), DictView(), list[Any]()
    put_all(view, rules.genesis(origin=ORIGIN, authority_key=world.authority.public_key))
    with mock.patch.object(statement, "_verify", lambda *_: True):
        started = time.process_time()
        replay(leaves, view, on_finding=findings.append)
        spent = time.process_time() - started
    assert not findings
    return len(leaves) / spent


def _bytes(world: TufRegistry, folder: Path) -> list[Figure]:
    """What one view of a registry and one bin cost on the wire: first, after a publish, and with nothing new."""
    fetcher = _Counting(world)
    registry = Home(folder / "home").add(BASE, world.public.read("tuf/1.root.json") or b"")
    sizes = []
    for number in range(3):
        if number == 1:
            world.list_file(BATCH * BATCHES)
            world.settle()
        fetcher.bytes = 0
        with opened(registry, fetcher, now=int(world.clock())) as view:
            if number < 2:
                view.bin("files/acme/acme-1.tar.gz")
        sizes.append(fetcher.bytes + (_pep_bin() if number < 2 else 0))
    names = ("a first install", "an install after a publish", "an install with nothing new")
    budgets = (PEP_COLD, PEP_WARM, PEP_SAME)
    return [
        Figure(f"TUF metadata of {name}, gzipped", "bytes", [size], budget=budget)
        for name, size, budget in zip(names, sizes, budgets, strict=True)
    ]


def _pep_bin() -> int:
    """A bin as full as PEP 458 supposes."""
    targets = {}
    for number in range(PEP_TARGETS):
        path = f"files/project-{number}/project-{number}-1.{number}.tar.gz"
        digest = hashlib.sha256(path.encode()).hexdigest()
        custom = {"i": number, "lh": digest[::-1], "verdict": number + 1, "yank": None}
        targets[path] = {"custom": custom, "hashes": {"sha256": digest}, "length": 1000 + number}
    raw = sign_bin(7, targets, CryptoSigner(key("tuf bins")), datetime(2026, 1, 1, tzinfo=UTC))
    assert raw is not None
    return len(gzip.compress(raw, 6))


class _Counting(_PublicFolder):
    """Counts what a server would send."""

    def __init__(self, world: TufRegistry) -> None:
        super().__init__(world)
        self.bytes = 0

    def get(self, url: str, *, missing_ok: bool = False, **options: Any) -> bytes | None:
        raw = super().get(url, missing_ok=missing_ok, **options)
        self.bytes += len(gzip.compress(raw or b"", 6))
        return raw
