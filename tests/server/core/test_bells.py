"""Bells: a ring hurries a look and changes nothing else, whoever rings, however often, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark_server import asking, bells, db, proposal
from countermark_server.asking import Answers
from countermark_server.bells import RUNG_MAX, Bell, Desk
from countermark_server.log.station import Station
from tests.doors import DoorWorld
from tests.log_world import NOW

SOON = 5.0  # seconds: nobody waits so long for a ring that was sent


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_a_ring_is_heard_and_answered(desk: Desk, tmp_path: Path) -> None:
    """The desk hears whoever rings, answers those who did, and nobody else."""
    (tmp_path / "link").symlink_to(tmp_path)
    near, far, silent = Bell(tmp_path), Bell(tmp_path / "link" / "x" / ".."), Bell(tmp_path)
    assert not desk.wait(0)
    near.ring()
    far.ring()
    assert desk.wait(SOON)
    desk.wait(0)
    assert not desk.wait(0), "one wait takes all rings that are there"
    desk.ring()
    assert near.wait(SOON)
    assert far.wait(SOON)
    assert not silent.wait(0)
    assert not near.wait(0)


def test_who_is_gone_is_forgotten_and_rung_no_more(desk: Desk, tmp_path: Path) -> None:
    """A bell that was closed, as by a death of its process, is dropped at the next ring; the others hear it."""
    gone, here = Bell(tmp_path), Bell(tmp_path)
    gone.ring()
    here.ring()
    desk.wait(SOON)
    desk.wait(0)
    gone.close()
    desk.ring()
    assert here.wait(SOON)
    assert len(desk._rung) == 1


def test_a_log_that_starts_again_hears_again(tmp_path: Path) -> None:
    """The name is free as soon as its owner ends; the bell needs no new start."""
    bell, first = Bell(tmp_path), Desk(tmp_path)
    first.close()
    bell.ring()  # into the void
    second = Desk(tmp_path)
    assert second.heard
    bell.ring()
    assert second.wait(SOON)
    second.close()


def test_a_taken_name_means_no_bell(desk: Desk, tmp_path: Path) -> None:
    """Who finds the name taken waits and works without; the first keeps it."""
    second, bell = Desk(tmp_path), Bell(tmp_path)
    assert desk.heard
    assert not second.heard
    bell.ring()
    assert not second.wait(0.001)
    second.ring()
    assert desk.wait(SOON)
    second.close()


def test_without_an_abstract_namespace_nobody_rings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends wait as long as they are told and fail at nothing."""
    monkeypatch.setattr(bells, "_bound", lambda name: None)
    desk, bell = Desk(tmp_path), Bell(tmp_path)
    bell.ring()
    desk.ring()
    begun = time.monotonic()
    assert not desk.wait(0.01)
    assert not bell.wait(0.01)
    assert time.monotonic() - begun >= 0.02
    desk.close()
    bell.close()


def test_strangers_cannot_fill_the_desk_or_make_it_write_elsewhere(desk: Desk, tmp_path: Path) -> None:
    """Of many only the newest are remembered; one with a path, or without any name, is not answered."""
    strangers = [Bell(tmp_path) for _ in range(RUNG_MAX + 5)]
    for stranger in strangers:
        stranger.ring()
        desk.wait(SOON)
    path = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path.bind(str(tmp_path / "s"))
    nameless = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for each in (path, nameless):
        each.sendto(b"anything", bells._name(tmp_path))
        assert desk.wait(SOON)
    assert len(desk._rung) == RUNG_MAX
    desk.ring()
    assert [stranger.wait(0) for stranger in strangers] == [False] * 5 + [True] * RUNG_MAX
    path.setblocking(False)
    with pytest.raises(BlockingIOError):
        path.recv(1)
    for each in (*strangers, path, nameless):
        each.close()


@pytest.mark.usefixtures("database")
class TestRegistry:
    """A log and its web process, with a bell that works, is mute, or is rung by a stranger."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[DoorWorld]:
        world = DoorWorld(tmp_path / "data", raw_add=True)
        yield world
        world.close()

    def test_the_log_is_told_and_tells(self, world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a minute between its own looks the log begins at once, and its ring is what ends the wait."""
        heard: list[bool] = []
        real = Bell.wait
        monkeypatch.setattr(Bell, "wait", lambda self, s: (heard.append(real(self, s)), heard[-1])[1])
        monkeypatch.setattr(asking, "LOOK", 10.0)
        monkeypatch.setattr(Answers, "_wait", lambda self, least, most: self._bell.wait(most))
        bell = Bell(world.settings.data)
        with working(world, poll_interval=60.0) as log:
            bell.ring()  # a proposal may be answered before its own ring is heard: by then the log knows who rings
            while not log.desk._rung:
                time.sleep(0.001)
            assert settled_in(world, bell) < SOON
        assert heard[-1]  # it may have rung before that, when the checkpoint was public

    @pytest.mark.parametrize("fault", ["lost at the log", "lost at the web process"])
    def test_a_lost_ring_costs_one_look(
        self, world: DoorWorld, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Either direction mute: the answer comes by the looks that nobody rings for."""
        where = Bell if fault == "lost at the log" else Desk
        monkeypatch.setattr(where, "ring", lambda self: None)
        with working(world, poll_interval=0.005):
            assert settled_in(world, Bell(world.settings.data)) < SOON

    def test_a_flood_of_rings_hurries_nobody(self, world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rung without pause by a stranger, the log begins no more rounds than its breath allows."""
        rounds: list[float] = []
        real = Station._round
        monkeypatch.setattr(Station, "_round", lambda self: (rounds.append(time.monotonic()), real(self))[1])
        stop = threading.Event()

        def flood() -> None:
            bell = Bell(world.settings.data)
            while not stop.is_set():
                bell.ring()
            bell.close()

        with working(world, poll_interval=0.005):
            stranger = threading.Thread(target=flood)
            stranger.start()
            begun, before = time.monotonic(), len(rounds)
            assert settled_in(world, Bell(world.settings.data)) < SOON
            time.sleep(0.2)
            taken, seconds = len(rounds) - before, time.monotonic() - begun
            stop.set()
            stranger.join()
        assert taken <= seconds / 0.001 + 2


class working:
    """The log at work, for the length of the block."""

    def __init__(self, world: DoorWorld, *, poll_interval: float) -> None:
        self._stop, self._log = threading.Event(), world.station()
        arguments = {"poll_interval": poll_interval}
        self._thread = threading.Thread(target=self._log.work, args=(self._stop,), kwargs=arguments)
        self._world, self._data = world, world.settings.data

    def __enter__(self) -> Station:
        self._log.check_start()
        self._thread.start()
        self._world.quiet()
        return self._log

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        Bell(self._data).ring()
        self._thread.join(SOON)
        assert not self._thread.is_alive()


def settled_in(world: DoorWorld, bell: Bell) -> float:
    """Seconds from a proposal's commit to its answer."""
    with db.write(world.engine) as connection:
        (asked,) = proposal.propose_raw(connection, [b"raw"], now=NOW)
    begun = time.monotonic()
    outcome = Answers(world.engine, bell).outcome(asked, seconds=40)
    assert outcome.settled
    return time.monotonic() - begun
