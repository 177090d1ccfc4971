"""Growth: what an append, an entry's storage and a recovery cost in a small log and in a large one.

    .venv/bin/python bench/bench_growth.py 10000 1058576 10037008      # prints, and writes bench/growth.json

A log of a given size is built by the functions that a round uses (`grow`, `encode_bundle`, `RightEdge`), but without
a transaction and a sync for every round; then the real sequencer, publisher and a real witness work on it, in one
process. Entries are raw bodies of 1 KiB. The sizes lie at the same place of the tree (10,000 past a multiple of
65,536), because what a round writes again depends on how full the last tile is, not on the log's size. Rows of
proposals are there for every entry, without the bodies.

Recovery is what `check_start` takes after `kill -9` of a process that appends: reading the head, applying what is
staged, checking the right edge, asking the witness, telling, cleaning up. Nothing acknowledged may be missing after.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from countermark.tlog.checkpoint import Checkpoint  # noqa: E402
from countermark.tlog.merkle import RightEdge, leaf_hash  # noqa: E402
from countermark.tlog.note import sign_note  # noqa: E402
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, encode_bundle, grow, tile_at  # noqa: E402
from countermark_server import db, proposal  # noqa: E402
from countermark_server.log.cleanup import CLEANED, Cleanup  # noqa: E402
from countermark_server.log.station import Station  # noqa: E402
from countermark_server.stores import heads  # noqa: E402
from figures import Figure, load, pace, table  # noqa: E402
from tests.log_world import NOW, ORIGIN, LogWorld, drain  # noqa: E402

BLOCK = WIDTH * WIDTH
SHORT = (10_000, 3 * BLOCK + 10_000)
APPENDS, BATCHES, KILLS, STORED = 200, 20, 5, 512
RECOVERY_SECONDS = 2.0


def measure(sizes: tuple[int, ...] = SHORT) -> list[Figure]:
    """All figures, for logs of these sizes; the first is what the others are compared with."""
    figures = _storage()
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
            started = time.monotonic()
            _build(Path(folder), size)
            print(f"  built {size:,} entries in {time.monotonic() - started:.0f} s", flush=True)
            figures += _appends(Path(folder), size, sizes[0]) + _recoveries(Path(folder), size)
    return figures


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[tuple[LogWorld, Station]]:
    world = LogWorld(folder, raw_add=True)
    station = world.station()
    try:
        yield world, station
    finally:
        station.quorum.close()
        station.engine.dispose()
        world.close()


def _entry(number: int) -> bytes:
    """The raw body of an entry: 1 KiB."""
    return (b"%d." % number).ljust(1024, b".")


def _build(folder: Path, size: int) -> None:
    """A log of this size, published and cosigned."""
    with _opened(folder) as (world, station):
        world.create()
        edge, partial = RightEdge.empty(), dict[int, bytes]()
        for start in range(0, size, BLOCK):
            entries = [_entry(number) for number in range(start, min(size, start + BLOCK))]
            hashes = [leaf_hash(entry) for entry in entries]
            tiles = grow(start, partial, hashes)
            edge = edge.extend(hashes)
            partial |= {tile.level: raw for tile, raw in tiles.items() if not tile.full}
            files = {tile.path(): raw for tile, raw in tiles.items() if tile.full}
            if edge.size == size:
                files |= {
                    tile_at(level, size >> 8 * (level + 1), size).path(): raw
                    for level, raw in partial.items()
                }
            for first in range(0, len(entries), WIDTH):
                group = entries[first : first + WIDTH]
                files[Tile(ENTRIES, (start + first) // WIDTH, len(group)).path()] = encode_bundle(group)
            for name, raw in files.items():
                path = world.settings.public / "log" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)
            _rows(world, start, hashes)
        body = sign_note(Checkpoint(ORIGIN, edge.size, edge.root()).text(), world.signers, time=NOW)
        head = heads.Head(ORIGIN, body.format().decode(), edge.size, b"".join(edge.hashes), None)
        with db.write(world.engine) as connection:
            old = heads.load(connection, ORIGIN)
            assert old is not None
            heads.swap(connection, old, head)
        (folder / "staging").mkdir(exist_ok=True)
        (folder / "staging" / CLEANED).write_bytes(b"%d\n" % (size // WIDTH))
        station.check_start()
        station.publisher.publish(station.sequencer.checkpoint)


def _rows(world: LogWorld, start: int, hashes: list[bytes]) -> None:
    rows = [("opaque", "{}", NOW, "published", start + i, leaf.hex()) for i, leaf in enumerate(hashes)]
    with db.write(world.engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO proposal (type, registry, created, state, leaf_index, leaf_hash) VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def _append(world: LogWorld, station: Station, first: int, count: int) -> float:
    """One round of this many entries and its publication; CPU seconds, the witness's included."""
    with db.write(world.engine) as connection:
        proposal.propose_raw(connection, [_entry(first + i) for i in range(count)], now=NOW)
    started = time.process_time()
    assert station.sequencer.round() == count
    verified = station.publisher.publish(station.sequencer.checkpoint)
    assert verified.size == station.sequencer.checkpoint.size
    return time.process_time() - started


def _appends(folder: Path, size: int, base: int) -> list[Figure]:
    with _opened(folder) as (world, station):
        station.check_start()
        one = [1000 * _append(world, station, size + i, 1) for i in range(APPENDS)]
        many = [
            1e6 * _append(world, station, size + APPENDS + i * WIDTH, WIDTH) / WIDTH for i in range(BATCHES)
        ]
    beside = None if size == base else base
    return [
        Figure(
            f"append, one entry a round, at {size:,}", "CPU ms", one,
            beside=beside and f"append, one entry a round, at {beside:,}",
        ),
        Figure(
            f"append, {WIDTH} entries a round, at {size:,}", "CPU us an entry", many,
            beside=beside and f"append, {WIDTH} entries a round, at {beside:,}",
        ),
    ]  # fmt: skip


def _recoveries(folder: Path, size: int) -> list[Figure]:
    """Kill a process that appends, start again; nothing that it told may be gone."""
    seconds = []
    for _ in range(KILLS):
        command = [sys.executable, str(Path(__file__)), "--append", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            told = [int(child.stdout.readline()) for _ in range(20)]
            child.kill()
        started = time.perf_counter()
        with _opened(folder) as (world, station):
            station.check_start()
            seconds.append(time.perf_counter() - started)
            assert station.sequencer.checkpoint.size >= told[-1]
            assert world.published_size() >= told[-1]
            drain(station)  # what was proposed and not sequenced before the kill
    return [Figure(f"recovery after kill -9, at {size:,}", "s", seconds, budget=RECOVERY_SECONDS)]


def _endless(folder: Path) -> None:
    """Append until somebody kills this process; a line for every size that was told."""
    with _opened(folder) as (world, station):
        station.check_start()
        while True:
            _append(world, station, station.sequencer.checkpoint.size, 3)
            print(station.sequencer.checkpoint.size, flush=True)


def _storage() -> list[Figure]:
    """Bytes below public/log an entry, before and after clean-up, by how many entries share a round."""
    figures = []
    for count in (1, 16, WIDTH):
        with (
            tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder,
            _opened(Path(folder)) as (world, station),
        ):
            world.create()
            station.check_start()
            cleanup, station.publisher._cleanup = station.publisher._cleanup, _Nothing()
            for first in range(0, STORED, count):
                _append(world, station, first, count)
            names = f"storage an entry of 1 KiB, {count} a round"
            before = _stored(world) / STORED
            while cleanup.step(STORED):
                pass
            figures += [
                Figure(f"{names}, partial files kept", "bytes", [before]),
                Figure(f"{names}, cleaned up", "bytes", [_stored(world) / STORED]),
            ]
    return figures


class _Nothing(Cleanup):
    """No clean-up."""

    def __init__(self) -> None:
        pass

    def step(self, size: int) -> int:
        return 0


def _stored(world: LogWorld) -> int:
    return sum(path.stat().st_size for path in (world.settings.public / "log").rglob("*") if path.is_file())


def main(arguments: list[str]) -> int:
    """The full run: its figures go to growth.json, beside those of the short one in results.json."""
    if arguments[:1] == ["--append"]:
        _endless(Path(arguments[1]))
    before, speed = load(), pace()
    rows = [figure.row(before, speed) for figure in measure(tuple(map(int, arguments)) or SHORT)]
    print(table(rows))
    (HERE / "growth.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
