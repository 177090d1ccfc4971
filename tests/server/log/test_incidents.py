"""What ended or harmed other logs, tried here: the rows of docs/incidents.md that no other test covers."""

from __future__ import annotations

import gc
import hashlib
import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from countermark.entry import Entry
from countermark.statement import Statement, sign
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.merkle import check_inclusion, prove_inclusion
from countermark_server import proposal
from countermark_server.app import create_app
from countermark_server.db import write
from countermark_server.log import station as stations
from countermark_server.log.tree import public_tree
from countermark_server.settings import Log, Upload
from countermark_server.stores.public import CHECKPOINT, Public
from tests.archives import wheel
from tests.doors import DoorWorld
from tests.log_world import NOW, ORIGIN, LogWorld, begun, drain

WHEEL = "demo-1.0-py3-none-any.whl"
GROWN_BYTES = 192 * 1024  # kept after 4,096 more entries; an index of their hashes would keep twice that


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LogWorld]:
    with begun(tmp_path) as world:
        yield world


def test_nothing_is_sequenced_while_reloads_fail(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles cannot be written, and then cannot be written again: three reloads fail, and the head stays."""
    monkeypatch.setattr(stations, "RELOAD_SECONDS", 0)
    station = world.station()
    station.check_start()
    first = world.upload(1)
    real, failures, heads = Public.put_all, [4], list[tuple[int, str]]()

    def failing(self: Public, files: Any) -> None:
        heads.append((world.head().tree_size, world.outcome(second).state if failures[0] < 4 else "pending"))
        if failures[0]:
            failures[0] -= 1
            raise OSError(5, "input/output error")
        real(self, files)

    second = first
    monkeypatch.setattr(Public, "put_all", failing)
    second = world.upload(2)
    station.sequencer._batch = 1
    assert station._round()
    assert heads == [(5, "pending")] * 5, "one failed round, three failed reloads, one that succeeded"
    assert world.published_size() == 4
    drain(station)
    assert [world.outcome(number).index for number in (first, second)] == [4, 5]
    world.check()
    station.engine.dispose()


def propose(world: LogWorld, filename: str, sha256: str) -> int:
    predicate = {
        "origin": ORIGIN, "namespace": "", "project": "acme", "prev": None, "version": "1", "length": 10,
        "metadata_sha256": sha256, "record_sha256": None,
    }  # fmt: skip
    envelope = sign(Statement(filename, sha256, "publish", predicate), world.roles["registry"])
    registry = {"uploader": "a1" * 16, "key_index": None, "identity": None}
    return world.propose("publish", envelope.to_dict(), registry)


def test_hashes_that_agree_in_all_but_the_last_digit_are_two(world: LogWorld) -> None:
    """Under one name the second is refused, never told to be the first; under two names each has its own proof."""
    digest = hashlib.sha256(b"artifact").hexdigest()
    twin = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    station = world.station()
    station.check_start()
    one, same, other = (
        propose(world, "acme-1.tar.gz", digest),
        propose(world, "acme-1.tar.gz", twin),
        propose(world, "acme-1.zip", twin),
    )
    drain(station)
    assert world.outcome(same).state == "refused" and world.outcome(same).index is None
    raw = world.public.read(CHECKPOINT)
    assert raw is not None
    checkpoint = open_checkpoint(raw, world.trust.policy, now=None)
    tree = public_tree(world.public)
    read = tree.reader(checkpoint.size, checkpoint.root_hash)
    entries = tree.entries(0, checkpoint.size, read)
    for number, sha256 in ((one, digest), (other, twin)):
        told = world.outcome(number)
        assert told.index is not None and told.leaf_hash is not None
        statement = Entry.parse(entries[told.index]).statement
        assert statement is not None and statement.subject_sha256 == sha256, (
            "the proof is for other bytes than were submitted"
        )
        check_inclusion(
            prove_inclusion(told.index, checkpoint.size, read),
            index=told.index,
            size=checkpoint.size,
            leaf_hash=bytes.fromhex(told.leaf_hash),
            root_hash=checkpoint.root_hash,
        )
    world.check()
    station.engine.dispose()


@pytest.mark.parametrize("name", [spec.name for spec in fields(Log) if spec.metadata["least"] is not None])
def test_every_limit_of_the_log_can_be_lowered_and_raised(world: LogWorld, name: str) -> None:
    """On a log that has entries, with proposals waiting: at its least, at its most, and back."""
    (spec,) = (spec for spec in fields(Log) if spec.name == name)
    kind = type(spec.default)
    for start, bound in enumerate((spec.metadata["least"], spec.metadata["most"], spec.default)):
        log = replace(world.settings.log, **{name: kind(bound)})
        world.settings = replace(world.settings, log=log)
        ids = [world.upload(10 * start + number, submitted=False) for number in range(3)]
        station = world.station()
        station.check_start()
        drain(station)
        assert {world.outcome(number).state for number in ids} == {"published"}
        station.engine.dispose()
    world.check()


def test_a_lowered_upload_limit_takes_nothing_back(tmp_path: Path) -> None:
    """What was taken under a larger limit is served under a smaller one; only new files are measured by it."""
    world = DoorWorld(tmp_path)
    with world.run():
        assert world.person("grace").upload(WHEEL, wheel()).status_code == 200
    world.set_state(WHEEL, state="listed")
    lowered = replace(world.settings, upload=Upload(max_bytes=1024, max_unpacked_bytes=1024, max_members=1))
    for settings in (lowered, world.settings):
        app = create_app(settings, clock=world.clock, engine=world.engine, registry=world.roles["registry"])
        assert WHEEL in app.test_client().get("/simple/demo/").get_data(as_text=True)
        answer = app.test_client().get(f"/packages/demo/{WHEEL}")
        assert (answer.status_code, answer.data) == (200, wheel())
    world.close()


def test_tiles_are_served_without_the_database(tmp_path: Path) -> None:
    """Many readers cannot exhaust what they do not use: checkpoint, tiles and bundles are files."""
    world = DoorWorld(tmp_path)
    with world.run():
        assert world.person("grace").upload(WHEEL, wheel()).status_code == 200
    size = world.published_size()
    asked = ["/log/checkpoint", f"/log/tile/0/000.p/{size}", f"/log/tile/entries/000.p/{size}"]
    before = {path: world.client.get(path).data for path in asked}
    world.lose_database()
    for path in asked:
        answer = world.client.get(path)
        assert (answer.status_code, answer.data) == (200, before[path])
    world.close()


def test_the_sequencer_keeps_no_index_in_memory(tmp_path: Path) -> None:
    """Twice as many entries, no more memory: what was logged is in the database and the tree, nowhere else."""
    world = LogWorld(tmp_path, raw_add=True)
    world.create()
    station = world.station()
    station.check_start()

    def grow(rounds: int) -> None:
        for number in range(rounds):
            with write(world.engine) as connection:
                bodies = [b"%d.%d" % (number, body) for body in range(256)]
                proposal.propose_raw(connection, bodies, now=NOW)
            drain(station)

    grow(4)
    tracemalloc.start()
    try:
        kept = []
        for rounds in (12, 16, 16, 16):
            grow(rounds)
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # An index grows in every span; what else a busy process begins to keep, it keeps once.
    assert min(after - before for before, after in itertools.pairwise(kept)) < GROWN_BYTES, kept
    assert station.sequencer.checkpoint.size == 64 * 256
    station.engine.dispose()
    world.close()
