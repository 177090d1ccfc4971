"""What an install fetches of TUF, at 16,384 bins: first, after a publish, and with nothing new.

The registry is a real one (tests/tuf_registry.py). Counted is what a client asks for, each file gzipped as a
server would send it; the one bin looked at holds 139 targets, as PEP 458 supposes. In so young a registry
nearly all versions in the snapshot are 1; versions of five random digits add 60,000 bytes. PEP 458's figures
stand as budgets: 1,517,722 bytes for a new user, 207,002 for one who returns after a publish, 108,698 for one
who returns before it.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from securesystemslib.signer import CryptoSigner

from bench_tuf import BASE, _PublicFolder
from countermark.pins import Home
from countermark.trust import opened
from countermark_server.tufbytes import sign_bin
from figures import Figure
from tests.log_world import key
from tests.tuf_registry import TufRegistry

BIT_LENGTH, FILES = 14, 3_000
PEP_TARGETS, PEP_COLD, PEP_WARM, PEP_SAME = 139, 1_517_722, 207_002, 108_698


def measure() -> list[Figure]:
    """Bytes on the wire."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        world = TufRegistry(Path(folder), bit_length=BIT_LENGTH)
        world.settle()
        world.list_files(range(FILES))
        world.settle()
        return _bytes(world, Path(folder))


def _bytes(world: TufRegistry, folder: Path) -> list[Figure]:
    """What one view of a registry and one bin cost on the wire: first, after a publish, and with nothing new."""
    fetcher = _Counting(world)
    registry = Home(folder / "home").add(BASE, world.public.read("tuf/1.root.json") or b"")
    sizes = []
    for number in range(3):
        if number == 1:
            world.list_file(FILES)
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
