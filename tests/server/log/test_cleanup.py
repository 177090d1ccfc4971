"""Clean-up: partial files go when the public log has the full ones, never before, and a crash costs nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from countermark.tlog.checkpoint import open_checkpoint
from countermark_server.log.cleanup import CLEANED, FILES, Cleanup, completed_by
from countermark_server.log.publish import IDLE_SECONDS
from countermark_server.log.station import Station
from countermark_server.log.tree import public_tree
from countermark_server.stores import places
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import CHECKPOINT, Public
from tests.log_world import LogWorld, drain

pytestmark = pytest.mark.usefixtures("either_backend")


@pytest.fixture
def world(tmp_path: Path):
    world = LogWorld(tmp_path)
    world.begin()
    yield world
    world.close()


def partials(world: LogWorld) -> list[str]:
    return sorted(
        name.removeprefix("public/") for name in world.files() if ".p/" in name and name.startswith("public/")
    )


def grow(world: LogWorld, first: int, count: int) -> None:
    station = world.station()
    station.check_start()
    for number in range(first, first + count):
        world.upload(number, submitted=False)
    drain(station)
    station.engine.dispose()


def test_partial_files_go_with_the_full_ones(world: LogWorld) -> None:
    """At 250 all stay; past 256 those of the first tile go, and every older checkpoint is still served."""
    grow(world, 0, 100)
    old = open_checkpoint(world.public.read(CHECKPOINT) or b"", world.trust.policy, now=None)
    before = partials(world)
    assert "log/tile/0/000.p/104" in before and "log/tile/entries/000.p/104" in before
    grow(world, 100, 170)
    left = partials(world)
    assert left and not [name for name in left if "/000.p/" in name and "/1/" not in name]
    # A reader of the old checkpoint finds the same bytes at the beginning of the full files.
    tree = public_tree(world.public)
    entries = tree.entries(0, old.size, tree.reader(old.size, old.root_hash))
    assert len(entries) == old.size == 104
    world.check()
    grow(world, 300, 1)
    world.check()


def test_nothing_goes_before_it_is_public(world: LogWorld) -> None:
    """Full tiles that no public checkpoint covers remove nothing: a witness may be shown the smaller size."""
    grow(world, 0, 100)
    before = partials(world)
    world.fetcher.down = True
    station = world.station()
    station.sequencer.load()
    for number in range(100, 270):
        world.upload(number, submitted=False)
    while station.sequencer.round():
        pass
    assert world.head().tree_size > 256 and world.published_size() == 104
    assert set(before) <= set(partials(world))
    world.fetcher.down = False
    station.publisher.publish(station.sequencer.checkpoint)
    assert not set(before) & {name for name in partials(world) if "/1/" not in name}
    station.engine.dispose()
    world.check()


@pytest.mark.parametrize("where", ["first removal", "last removal", "remembering"])
def test_a_crash_in_the_middle_is_gone_on_with(world: LogWorld, monkeypatch, where: str) -> None:
    """Dying between two removals, or before the place is remembered: the next step does the rest."""
    grow(world, 0, 100)
    place = places.place(world.settings, "staging")
    real_remove, real_replace = Public.remove, type(place).replace
    removed: list[str] = []

    def remove(self: Public, name: str) -> None:
        if where == "first removal":
            raise KeyboardInterrupt
        real_remove(self, name)
        removed.append(name)
        if where == "last removal":
            raise KeyboardInterrupt

    def replace(self, name, data, allowed=None):
        if name == CLEANED and where == "remembering":
            raise KeyboardInterrupt
        real_replace(self, name, data, allowed)

    with monkeypatch.context() as patch:
        patch.setattr(Public, "remove", remove)
        patch.setattr(type(place), "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            grow(world, 100, 170)
    assert bool(removed) == (where != "first removal")
    world.check()
    grow(world, 300, 1)
    assert not [name for name in partials(world) if "/000.p/" in name and "/1/" not in name]
    assert place.read(CLEANED) == b"1\n"
    world.check()


@pytest.mark.parametrize("raw", [b"", b"-1\n", b"1e3\n", b"\xff\n", b"9" * 5000])
def test_a_damaged_memory_costs_work_and_nothing_else(world: LogWorld, raw: bytes) -> None:
    """The publisher does not stop over it: the work begins again at the first tile."""
    grow(world, 0, 270)
    place = places.place(world.settings, "staging")
    place.replace(CLEANED, raw)
    world.public.put("log/tile/0/000.p/8", (world.public.read("log/tile/0/000") or b"")[:256])
    assert Cleanup(world.public, place).step(270) == 1
    assert place.read(CLEANED) == b"1\n"
    world.check()


def test_a_partial_file_that_disagrees_stays(world: LogWorld) -> None:
    """What is no beginning of the full file is evidence: it stays, and so does the full one, step after step."""
    grow(world, 0, 270)
    place = places.place(world.settings, "staging")
    place.replace(CLEANED, b"0\n")
    full = world.public.read("log/tile/0/000") or b""
    left_over(world, range(3, 40))
    world.public.put("log/tile/0/000.p/77", b"x" * 32 * 77)
    cleanup = Cleanup(world.public, place)
    for _ in range(8):
        with contextlib.suppress(StoreError):
            cleanup.step(270)
    with pytest.raises(StoreError, match=r"000\.p/77 is not the beginning"):
        cleanup.step(270)
    assert world.public.read("log/tile/0/000.p/77") == b"x" * 32 * 77
    assert world.public.read("log/tile/0/000") == full
    assert place.read(CLEANED) == b"0\n"
    world.public.remove("log/tile/0/000.p/77")
    while cleanup.is_behind(270):
        cleanup.step(270)
    assert not here(world)


def left_over(world: LogWorld, sizes: range) -> None:
    """Partial tiles of these sizes, as so many rounds leave them."""
    full = world.public.read("log/tile/0/000") or b""
    for size in sizes:
        world.public.put(f"log/tile/0/000.p/{size}", full[: 32 * size])


def here(world: LogWorld) -> list[str]:
    """The partial files of the first level-0 tile."""
    return list(world.public.names("log/tile/0/000.p"))


def test_a_step_is_short_whatever_a_full_tile_leaves(world: LogWorld) -> None:
    """The next checkpoint waits for it: no more than a few files are even looked at."""
    grow(world, 0, 270)
    place = places.place(world.settings, "staging")
    place.replace(CLEANED, b"0\n")
    left_over(world, range(1, 101))
    cleanup, steps = Cleanup(world.public, place), list[int]()
    while here(world):
        assert place.read(CLEANED) == b"0\n"
        steps.append(cleanup.step(270))
    assert steps == [FILES] * 12 + [100 - 12 * FILES]
    assert place.read(CLEANED) == b"1\n" and not cleanup.is_behind(270)
    assert cleanup.step(270) == 0
    world.check()


def test_an_idle_log_goes_on_to_the_end(world: LogWorld) -> None:
    """No checkpoint comes any more, and what the last one left to do is done all the same."""
    grow(world, 0, 270)
    places.place(world.settings, "staging").replace(CLEANED, b"0\n")
    left_over(world, range(1, 41))
    with published(world):
        wait_for(lambda: not here(world))
    world.check()


def test_what_cannot_be_removed_is_not_tried_again_and_again(world: LogWorld) -> None:
    """An idle log waits for its next checkpoint, instead of failing twenty times a second."""
    grow(world, 0, 270)
    places.place(world.settings, "staging").replace(CLEANED, b"0\n")
    world.public.put("log/tile/0/000.p/77", b"x" * 32 * 77)
    failed = REGISTRY.get_sample_value("countermark_log_cleanup_failures_total") or 0
    with published(world) as station:
        # Whatever waits for the publication has it before anything is cleaned up.
        wait_for(lambda: REGISTRY.get_sample_value("countermark_log_cleanup_failures_total") != failed)
        before = REGISTRY.get_sample_value("countermark_log_cleanup_failures_total")
        time.sleep(5 * IDLE_SECONDS)
        assert REGISTRY.get_sample_value("countermark_log_cleanup_failures_total") == before
        assert world.published_size() == station.sequencer.checkpoint.size


@contextmanager
def published(world: LogWorld) -> Iterator[Station]:
    """A station whose publisher has the newest checkpoint, and gets no other."""
    station = world.station()
    station.sequencer.load()
    station.publisher.start()
    station.publisher.offer(station.sequencer.checkpoint)
    try:
        yield station
    finally:
        station.publisher.stop()
        station.engine.dispose()


def wait_for(true: Callable[[], bool]) -> None:
    """Until it is, or half a minute has gone."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_work_follows_the_index(monkeypatch) -> None:
    """Each level-0 tile completes its bundle, itself and at times tiles above; a step looks at a few."""
    names = [[tile.path() for tile in completed_by(number)] for number in (0, 255, 65_535)]
    assert names == [
        ["tile/entries/000", "tile/0/000"],
        ["tile/entries/255", "tile/0/255", "tile/1/000"],
        ["tile/entries/x065/535", "tile/0/x065/535", "tile/1/255", "tile/2/000"],
    ]
