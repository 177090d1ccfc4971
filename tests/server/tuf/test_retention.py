"""Old snapshots and bins go after `tuf.retention`, and nothing that a reader within it may ask for."""

import json

import pytest

from countermark_server import db
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import TIMESTAMP
from countermark_server.tufrepo import retention
from tests.tuf_registry import TufRegistry

DAY = 86_400
KEPT = ("root", "targets", "trust", "index")


@pytest.fixture
def world(tmp_path):
    """Four publishes, an hour after each other."""
    world = TufRegistry(tmp_path)
    world.settle()
    for number in range(4):
        world.clock.now += 600
        world.list_file(number)
        world.settle()
    return world


def metadata(world):
    return {name for name in world.public.names("tuf") if name[4:5].isdigit()}


def named(world, timestamp):
    """Every file that a reader of this timestamp may ask for."""
    version = json.loads(timestamp)["signed"]["meta"]["snapshot.json"]["version"]
    raw = world.public.read(f"tuf/{version}.snapshot.json")
    assert raw is not None, "the snapshot went"
    meta = json.loads(raw)["signed"]["meta"]
    return {f"tuf/{version}.snapshot.json"} | {f"tuf/{m['version']}.{name}" for name, m in meta.items()}


def clean(world, age):
    while retention.clean(world.engine, world.public, before=int(world.clock()) - age):
        pass


def test_what_is_old_goes_and_the_rest_stays(world):
    """After the bound only what the public timestamp leads to is left, and the roots; publishing goes on."""
    before = metadata(world)
    needed = named(world, world.public.read(TIMESTAMP))
    clean(world, DAY)
    assert metadata(world) == before
    world.clock.now += DAY + 1
    clean(world, DAY)
    left = metadata(world)
    assert left == needed | {name for name in before if name.split(".")[1] in KEPT} < before
    world.restart()
    world.list_file(9)
    world.settle()
    world.check()


def test_a_reader_in_the_middle_loses_nothing_within_the_bound(world):
    """Whoever read a timestamp just before it was replaced finds all of it until the bound, and not beyond."""
    read = world.public.read(TIMESTAMP)
    needed = named(world, read)
    world.clock.now += 3 * DAY  # it was the public one for so long: its age is not what counts
    world.list_file(9)
    world.settle()
    world.clock.now += DAY - 60
    clean(world, DAY)
    assert needed <= metadata(world)
    world.clock.now += 120
    clean(world, DAY)
    assert not needed <= metadata(world)


def test_a_publish_without_a_timestamp_makes_nothing_old(world):
    """While the timestamper is down the files of the public timestamp stay, however long that takes."""
    needed = named(world, world.public.read(TIMESTAMP))
    world.list_file(9)
    for _ in range(10):
        world.repository.step()
        world.work_log()
    world.timestamper.down = True
    world.clock.now += 30 * DAY
    clean(world, DAY)
    assert needed <= metadata(world)


def test_a_kill_between_deletes_is_made_good(world, monkeypatch):
    """Die after each file in turn: the next run removes the rest, and the same files as ever are left."""
    world.clock.now += 2 * DAY
    needed, remove = named(world, world.public.read(TIMESTAMP)), world.public.remove
    for survived in range(4):
        left = iter(range(survived))

        def die(name, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            remove(name)

        monkeypatch.setattr(world.public, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            clean(world, DAY)
        assert needed <= metadata(world)
    monkeypatch.setattr(world.public, "remove", remove)
    clean(world, DAY)
    assert {name for name in metadata(world) if name.split(".")[1] not in KEPT} <= needed
    world.check()


def test_an_idle_registry_cleans_up_by_itself(world):
    """The station's own steps do it, once nothing else is to do."""
    assert "tuf/1.snapshot.json" in metadata(world)
    world.clock.now += world.repository._parts.retention + 1
    for _ in range(20):
        world.settle()
        world.clock.now += 61
    left = metadata(world)
    assert left.isdisjoint(f"tuf/{number}.snapshot.json" for number in (1, 2, 3))
    assert named(world, world.public.read(TIMESTAMP)) <= left
    world.check()


def test_a_registry_that_is_never_idle_keeps_pace(world):
    """Every publish takes the files of an old one along: no step of these finds nothing to do."""
    world.clock.now += world.repository._parts.retention + 1
    for number in range(20, 24):
        world.list_file(number)
        before = world.public.read(TIMESTAMP)
        while world.public.read(TIMESTAMP) == before:
            assert any([world.repository.step(), world.work_log(), world.service.step()])
        world.clock.now += 61
    left = metadata(world)
    assert left.isdisjoint(f"tuf/{number}.snapshot.json" for number in (1, 2, 3))
    assert named(world, world.public.read(TIMESTAMP)) <= left
    world.check()


@pytest.mark.parametrize(
    "name", ["tuf/1.root.json", "tuf/1.index.json", "tuf/timestamp.json", "log/checkpoint"]
)
def test_what_stays_for_ever_is_refused(tmp_path, name):
    """A note that names a root removes nothing."""
    world = TufRegistry(tmp_path)
    world.settle()
    with db.write(world.engine) as connection:
        retention.note(connection, 99, [name])
        retention.begin(connection, now=0)
    with pytest.raises(StoreError, match="never goes"):
        retention.clean(world.engine, world.public, before=1)
    assert world.public.read(name) is not None
