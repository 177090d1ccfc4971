"""TUF: what one more file costs to publish, at two sizes of the registry's bins.

The rooms are the real ones, in one process and one folder (tests/tuf_registry.py); what is measured is the CPU
time of tufrepo alone, from the cleared file to the timestamp in its place: reading the log, replaying the rules,
signing a bin and the snapshot, and the rows and files of it. Every fiftieth snapshot is verified by tuf itself
and costs more; so does the first, which is left out. Beside it, what a client's refresh costs that has been there
before: two files are fetched, and the cached snapshot of all bins is verified.

An import lists many files in one publish. Here its candidate is made: every bin serialised and signed with its
targets, the tiles of the bins, the snapshot; not the log's entries before it, nor the rows and files after it. A
smaller import stands for a million (its bins are as many, so a file costs more); BENCH_MILLION=1 makes the million.

More bins are one publish, too: here the candidate that spreads the same files over 16,384 bins instead of 4,096.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from securesystemslib.signer import CryptoSigner

from countermark.errors import NetworkError
from countermark.fetch import Answer
from countermark.pins import Home
from countermark.trust import opened
from countermark_server.listing import Target, bin_index
from countermark_server.tufrepo.candidate import Candidate, Current, Online, binding, build
from countermark_server.tufrepo.rebinning import spread
from countermark_server.tufrepo.snapshot import Fragments
from figures import Figure
from tests.log_world import ORIGIN, key
from tests.tuf_registry import TufRegistry

BIT_LENGTHS, FILES = (12, 14), 25
BASE = "https://registry.test"
WARM = 20  # views of a client that has been there before
MILLION, PART, SECONDS = 1_000_000, 100_000, 60
IMPORT_BITS = 12  # up to three million files
SPLIT_BITS = 14  # beyond


def measure() -> list[Figure]:
    """CPU milliseconds of one publish of one file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = _imports()
    for bits in BIT_LENGTHS:
        publishes, views = _publishes(bits)
        name = f"TUF publish of one more file, {1 << bits:,} bins"
        found.append(Figure(name, "CPU ms", publishes, budget=15 if bits == 14 else None))
        name = f"client refresh, warm, {1 << bits:,} bins"
        found.append(Figure(name, "CPU ms", views, budget=25 if bits == 14 else None))
    return found


def _publishes(bit_length: int) -> tuple[list[float], list[float]]:
    """CPU milliseconds of each publish, and of each view of a client beside them that has been there before."""
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        world = TufRegistry(Path(folder), bit_length=bit_length)
        world.settle()
        samples = []
        for number in range(FILES + 1):
            world.list_file(number)
            samples.append(1000 * _settle(world))
        return samples[1:], _views(world, Path(folder))


def _views(world: TufRegistry, folder: Path) -> list[float]:
    """A client's views of a registry that has not changed: the smallest refresh there is, tuf imported."""
    registry = Home(folder / "home").add(BASE, world.public.read("tuf/1.root.json") or b"")
    fetcher, samples = _PublicFolder(world), []
    for _ in range(WARM + 1):
        start = time.process_time()
        with opened(registry, fetcher, now=int(world.clock())):
            pass
        samples.append(1000 * (time.process_time() - start))
    return samples[1:]


class _PublicFolder:
    """The registry's public folder as a client's fetcher."""

    def __init__(self, world: TufRegistry) -> None:
        self._public = world.public

    def get(self, url: str, *, missing_ok: bool = False, **_: Any) -> bytes | None:
        raw = self._public.read(url.removeprefix(f"{BASE}/"))
        if raw is None and not missing_ok:
            raise NetworkError(f"{url} answered 404")
        return raw

    def post(self, url: str, body: bytes, **_: Any) -> Answer:
        raise NetworkError(url)


def _settle(world: TufRegistry) -> float:
    """Let every room work until none has anything to do; CPU seconds of tufrepo's steps."""
    spent = 0.0
    while True:
        started = time.process_time()
        busy = world.repository.step()
        spent += time.process_time() - started
        if not any([busy, world.work_log(), world.service.step()]):
            return spent


def _imports() -> list[Figure]:
    """Files a CPU second; and the whole million where it was asked for."""
    rates = [PART / _import(PART) for _ in range(3)]
    found = [
        Figure(
            f"TUF candidate of an import of {PART:,} files",
            "files/CPU s",
            rates,
            budget=round(MILLION / SECONDS),
            more_is_better=True,
        )
    ]
    if os.environ.get("BENCH_MILLION"):
        name = f"TUF candidate of an import of {MILLION:,} files"
        found.append(Figure(name, "CPU s", [_import(MILLION)], budget=SECONDS))
    name = f"TUF candidate of {1 << SPLIT_BITS:,} bins instead of {1 << IMPORT_BITS:,}, {PART:,} files"
    found.append(Figure(name, "CPU s", [_split(PART) for _ in range(3)]))
    return found


def _import(files: int) -> float:
    """CPU seconds of the candidate that lists so many files in a registry that was empty."""
    return _listed(files)[2]


def _split(files: int) -> float:
    """CPU seconds of the candidate that puts so many files into more bins."""
    online, made, _ = _listed(files)
    current, contents = made.after, _contents(files)
    started = time.process_time()
    ground, spread_out = spread(current, contents, SPLIT_BITS)
    after = _candidate(ground, dict(spread_out), 3, online)
    spent = time.process_time() - started
    assert len(after.changed) == 1 << SPLIT_BITS and len(after.after.left) == 1 << IMPORT_BITS
    return spent


def _listed(files: int) -> tuple[Online, Candidate, float]:
    """The candidate of a first import, what signed it, and the CPU seconds it took."""
    online = Online(CryptoSigner(key("tuf bins")), [CryptoSigner(key("tuf snapshot"))])
    contents: dict[int, dict[str, Target]] = {number: {} for number in range(1 << IMPORT_BITS)}
    nothing = Current(IMPORT_BITS, {"targets": 1, "trust": 1, "index": 1}, (), None, None, 0, 0, None)
    before = _candidate(nothing, contents, 1, online).after
    contents = _contents(files)
    started = time.process_time()
    made = _candidate(before, contents, 2, online)
    spent = time.process_time() - started
    assert len(made.changed) == 1 << IMPORT_BITS
    return online, made, spent


def _contents(files: int) -> dict[int, dict[str, Target]]:
    """So many files in the bins of an import."""
    contents: dict[int, dict[str, Target]] = {number: {} for number in range(1 << IMPORT_BITS)}
    for number in range(files):
        path = f"files/project-{number % 50_000}/project-{number % 50_000}-1.{number}.tar.gz"
        digest = hashlib.sha256(path.encode()).hexdigest()
        custom = {"i": number, "lh": digest, "verdict": None, "yank": None}
        target = {"custom": custom, "hashes": {"sha256": digest}, "length": 1000 + number}
        contents[bin_index(path, IMPORT_BITS)][path] = target
    return contents


def _candidate(
    current: Current, contents: Mapping[int, Mapping[str, Target]], version: int, online: Online
) -> Candidate:
    roles = [current.role(number) for number in contents]
    return build(
        current,
        contents,
        claimed=dict.fromkeys([*roles, "snapshot"], version),
        fragments=Fragments({f"{current.role(i)}.json": b.version for i, b in enumerate(current.bins)}),
        online=online,
        binding=binding(ORIGIN),
        applied=version,
        now=int(time.time()),
    )
