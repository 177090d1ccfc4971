"""logreader.py: entries out of tiles, at sizes where tiles begin, end and disappear."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.errors import EvidenceError, NetworkError, ProofError
from countermark.logreader import LogReader
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.tile import Tile
from tests.machine import Machine
from tests.simulator import World


def grow(world: World, size: int) -> LogReader:
    while len(world.entries) < size:
        world.append_raw(b"entry %d" % len(world.entries))
    world.heartbeat()
    checkpoint = open_checkpoint(world.checkpoint, world.policy, now=world.now)
    return LogReader(f"{world.base}/log", checkpoint, world)


@pytest.mark.parametrize("size", [5, 255, 256, 257, 511, 512, 700])
def test_every_entry_is_read_and_proved(size: int) -> None:
    """First, last and neighbours of tile borders; beyond the end there is nothing."""
    world = World()
    log = grow(world, size)
    for index in {0, 1, 254, 255, 256, 257, size // 2, size - 1}:
        if index < size:
            assert log.entry(index) == world.entries[index]
    assert [raw for _, raw in log.entries(size - 3, size + 10)] == world.entries[size - 3 :]
    for index in (-1, size, size + 1):
        with pytest.raises(ProofError, match="not in the tree"):
            log.entry(index)


def test_a_partial_tile_that_is_gone_is_read_from_the_full_one() -> None:
    """The log has grown since: the full tile and bundle start with the same entries."""
    world = World()
    log = grow(world, 300)
    head = open_checkpoint(world.checkpoint, world.policy, now=world.now)
    grow(world, 600)
    for level in (0, -1):
        world.override[f"/log/{Tile(level, 1, 300 - 256).path()}"] = None
    old = LogReader(f"{world.base}/log", head, world)
    assert old.entry(299) == world.entries[299] and log.checkpoint.size == 300


def test_what_is_withheld_is_a_network_error() -> None:
    """A missing full tile can't be worked around."""
    world = World()
    log = grow(world, 600)
    world.override["/log/tile/0/000"] = None
    with pytest.raises(NetworkError, match="404"):
        log.entry(3)


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\xff" * 40])
def test_a_damaged_bundle_is_refused(damage: bytes) -> None:
    """Truncated, empty, oversized lengths: malformed or not in the tree, never a leaked exception."""
    world = World()
    log = grow(world, 300)
    path = f"/log/{Tile(-1, 1, 44).path()}"
    whole = world.get(world.base + path) or b""
    for raw in (damage, whole[:-1] + damage, damage + whole):
        if raw == whole:
            continue
        world.override[path] = raw
        with pytest.raises(EvidenceError):
            LogReader(f"{world.base}/log", log.checkpoint, world).entry(299)


def test_verify_in_a_log_of_several_tiles(tmp_path: Path) -> None:
    """The whole way, with an entry in the first tile and the head in the third."""
    world = World()
    file = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(file)
    grow(world, 600)
    machine.accept(file)
    grow(world, 700)
    machine.accept(file)
