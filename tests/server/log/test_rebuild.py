"""Rebuild: tiles from bundles byte for byte, rows from the tree, and never another tree than was seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark import rules
from countermark.errors import CountermarkError, EvidenceError
from countermark.tlog.note import Note
from countermark.tlog.tile import decode_bundle, encode_bundle
from countermark_server import db, migrations
from countermark_server.log import rebuild as tree
from countermark_server.log.fsck import check_log
from countermark_server.log.sequence import LogError
from countermark_server.stores import heads
from tests import s3
from tests.log_world import ORIGIN, LogWorld, drain

pytestmark = pytest.mark.usefixtures("either_backend")


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LogWorld]:
    world = LogWorld(tmp_path / "data")
    world.begin()
    yield world
    world.close()


def grow(world: LogWorld, first: int, *counts: int) -> None:
    station = world.station()
    station.check_start()
    drain(station)
    for count in counts:
        for number in range(first, first + count):
            world.upload(number, submitted=False)
        first += count
        drain(station)
    station.engine.dispose()


def rebuild(world: LogWorld) -> tuple[int, int]:
    """The log's part of the command; how many tiles and entries were missing."""
    told: list[tuple[str, int, int]] = []

    def progress(*said: object) -> None:
        told.append(said)  # type: ignore[arg-type]

    with db.read(world.engine) as connection:
        head = heads.load(connection, ORIGIN)
    ground = tree.find_ground(world.public, world.station().staging, head, world.trust)
    tree.check_bundles(ground, progress)
    tiles = tree.write_tiles(ground, world.public, progress)
    genesis = rules.genesis(origin=ORIGIN, authority_key=world.trust.authority_key)
    entries = tree.write_rows(ground, world.engine, genesis, progress)
    tree.put_head(ground, world.engine, world.signers)
    assert told[-1][1] == told[-1][2] and {what for what, _, _ in told} >= {
        "bundles checked",
        "tiles written",
    }
    return tiles, entries


def tile_names(world: LogWorld) -> list[str]:
    return [name for name in world.files() if name.startswith("public/log/tile/") and "/entries/" not in name]


def remove(world: LogWorld, names: list[str]) -> None:
    for name in names:
        world.public.remove(name.removeprefix("public/"))


def empty_database(world: LogWorld) -> None:
    """Lost, and made anew with nothing in it."""
    world.lose_database()
    migrations.upgrade(world.engine)


def overwrite(world: LogWorld, name: str, data: bytes) -> None:
    """What somebody with access to the storage does."""
    if prefix := world.settings.storage.prefix:
        s3.server().bucket(f"{prefix}/public").replace(name, data)
    else:
        path = world.settings.public / name
        path.chmod(0o644)
        path.write_bytes(data)


def test_lost_tiles_come_back_byte_for_byte(world: LogWorld) -> None:
    """All levels, full and partial, those of older checkpoints too; rows are left as they are."""
    grow(world, 0, 100, 170, 3, 250, 40, 5)
    before, rows = world.files(), world.rows()
    names = tile_names(world)
    assert any("/1/" in name for name in names) and any(".p/" in name for name in names)
    remove(world, names)
    with pytest.raises(LogError, match="is missing from the public tree"):
        world.station().check_start()
    assert rebuild(world) == (len(names), 0)
    assert world.files() == before and world.rows() == rows
    assert rebuild(world) == (0, 0)
    world.check()


def test_a_lost_database_comes_back_from_the_tree(world: LogWorld) -> None:
    """fsck is clean, the same head, and the next upload has the next index."""
    grow(world, 0, 300)
    head, files = world.head(), world.files()
    empty_database(world)
    assert rebuild(world) == (0, 304)
    assert (world.head(), world.files()) == (head, files)
    world.check()
    station = world.station()
    station.check_start()
    asked = world.upload(900, submitted=False)
    drain(station)
    assert world.outcome(asked).index == 304
    world.check()
    again = world.upload(0, submitted=False)  # what was published stays published
    drain(station)
    assert world.outcome(again).refusal_code == "file-exists"


@pytest.mark.parametrize("database", ["kept", "lost"])
def test_a_changed_bundle_is_refused_and_nothing_is_written(world: LogWorld, database: str) -> None:
    """However its tiles look: the root that was published decides, and the bundle at fault is named."""
    grow(world, 0, 300)
    if database == "lost":
        empty_database(world)
    name = "log/tile/entries/000"
    good = world.public.read(name) or b""
    entries = decode_bundle(good, 256)
    entries[100] = entries[100].replace(b'"time":', b'"time":1', 1)
    overwrite(world, name, encode_bundle(entries))
    before, rows = world.files(), world.rows()
    with pytest.raises(
        EvidenceError, match=r"lead to the root hash .*; tile/entries/000 is not what its tile says"
    ):
        rebuild(world)
    remove(world, tile_names(world))
    emptied = world.files()
    with pytest.raises(EvidenceError, match="lead to the root hash"):
        rebuild(world)
    assert world.rows() == rows and world.files() == emptied and before.keys() > emptied.keys()
    overwrite(world, name, good)
    rebuild(world)
    world.check()


def test_a_missing_bundle_and_a_missing_checkpoint_are_said(world: LogWorld) -> None:
    """Entries follow from nothing; without a checkpoint nothing says what the tree must be."""
    grow(world, 0, 300)
    empty_database(world)
    raw = world.public.read("log/tile/entries/000") or b""
    world.public.remove("log/tile/entries/000")
    rows = world.rows()
    with pytest.raises(EvidenceError, match="tile/entries/000 is missing: 256 entries"):
        rebuild(world)
    world.public.put("log/tile/entries/000", raw)
    overwrite(world, "log/checkpoint", b"no checkpoint\n")
    with pytest.raises(CountermarkError):
        rebuild(world)
    assert world.rows() == rows


def test_a_tile_with_other_bytes_is_never_overwritten(world: LogWorld) -> None:
    """Who finds two versions of what never changes keeps both, and says so."""
    grow(world, 0, 300)
    overwrite(world, "log/tile/0/000", b"x" * 8192)
    before = world.files()
    with pytest.raises(Exception, match="exists already with other bytes"):
        rebuild(world)
    assert world.files() == before


@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_rebuild_that_was_killed_goes_on(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Death between any two durable steps: the log cannot be started, and the next rebuild ends where one would."""
    grow(world, 0, 300)
    files, names, head = world.files(), tile_names(world), world.head()
    empty_database(world)
    remove(world, names)
    monkeypatch.setattr(tree, "COMMIT", 100)
    monkeypatch.setattr(tree, "TILES_AT_ONCE", 1)
    steps = [after]

    def count(real):
        def call(*args, **kwargs):
            done = real(*args, **kwargs)
            if steps[0] == 0:
                raise Killed
            steps[0] -= 1
            return done

        return call

    with monkeypatch.context() as patch:
        patch.setattr(type(world.public), "put_all", count(type(world.public).put_all))
        patch.setattr(tree, "_replay", count(tree._replay))
        with pytest.raises(Killed):
            rebuild(world)
    with pytest.raises(LogError, match="there is no log"):
        world.station().check_start()
    rebuild(world)
    assert (world.files(), world.head()) == (files, head)
    world.check()


def test_a_round_that_was_not_public_is_taken_up_from_staging(world: LogWorld) -> None:
    """Sequenced, shown to the witness, the database lost: the same tree again, for nobody may get its indexes."""
    grow(world, 0, 4)
    station = world.station()
    station.check_start()
    for number in (10, 11):
        world.upload(number, submitted=False)
        station.sequencer.round()
    station.publisher.cosigned(station.sequencer.checkpoint)  # and died before it was public
    head = world.head()
    station.engine.dispose()
    empty_database(world)
    assert rebuild(world) == (0, 10)
    assert (world.head().tree_size, world.head().edge) == (10, head.edge)
    last = world.station()
    last.check_start()
    drain(last)
    assert world.published_size() == 10
    # Signed anew, since the first signature is lost with the database: the same size, the same root.
    heads_signed = {Note.parse(note).text for note in (*world.fetcher.seen, world.head().body.encode())}
    assert len({text.splitlines()[1] for text in heads_signed}) == len(heads_signed)
    assert check_log(world.public, world.engine, world.trust) == []


def test_yesterdays_database_is_brought_to_todays_tree(world: LogWorld, tmp_path: Path) -> None:
    """What its start refuses, a rebuild mends: the rows it has stay, those that waited find their place."""
    grow(world, 0, 4)
    waiting = [world.upload(number) for number in (50, 51)]
    world.save_database(tmp_path / "backup")
    grow(world, 60, 3)
    indexes = [world.outcome(number).index for number in waiting]
    head = world.head()
    world.restore_database(tmp_path / "backup")
    with pytest.raises(Exception, match="the database is older than what the world has seen"):
        world.station().check_start()
    assert rebuild(world) == (0, 5)
    assert (world.head().body, world.head().tree_size) == (head.body, 13)
    assert [(world.outcome(n).index, world.outcome(n).state) for n in waiting] == [
        (index, "published") for index in indexes
    ]


def test_yesterdays_tree_under_todays_database_is_refused(world: LogWorld, tmp_path: Path) -> None:
    """Start and rebuild say what is missing; what a mirror still has is put back, and all is well."""
    grow(world, 0, 4)
    old = {name: data for name, data in world.files().items() if name.startswith("public/")}
    grow(world, 10, 300)
    new = world.files()
    remove(world, [name for name in new if name.startswith("public/") and name not in old])
    for name, data in old.items():
        if name not in world.files():  # cleaned up since
            world.public.put(name.removeprefix("public/"), data)
    overwrite(world, "log/checkpoint", old["public/log/checkpoint"])
    before = world.rows(), world.files()
    with pytest.raises(LogError, match=r"tile/.* is missing from the public tree"):
        world.station().check_start()
    with pytest.raises(EvidenceError, match=r"is missing: .* entries that the log has signed are not here"):
        rebuild(world)
    assert (world.rows(), world.files()) == before
    for name, data in new.items():
        if "/entries/" in name:
            world.public.put(name.removeprefix("public/"), data)
    rebuild(world)
    grow(world, 900, 1)
    world.check()
    shutil.rmtree(tmp_path / "backup", ignore_errors=True)
