"""Pace: a round shares its cost with who comes during a publication, and waits for no witness for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from countermark_server.log import station as room
from tests.log_world import LogWorld, drain

SOON = 20.0  # seconds for what happens within milliseconds


class SlowWitness:
    """The world's witness, which answers when it may."""

    def __init__(self, world: LogWorld) -> None:
        self._real = world.fetcher.post
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def __call__(self, url: str, body: bytes, **options: Any) -> Any:
        self.asked.set()
        assert self.may_answer.wait(SOON)
        return self._real(url, body, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LogWorld]:
    world = LogWorld(tmp_path)
    world.begin()
    yield world
    world.close()


@contextmanager
def working(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SlowWitness, list[int]]]:
    """The log at work behind a slow witness, and how many proposals each of its rounds settled."""
    station, settled = world.station(), list[int]()
    station.check_start()
    drain(station)
    witness, real = SlowWitness(world), station.sequencer.round

    def counted() -> int:
        settled.append(real())
        return settled[-1]

    monkeypatch.setattr(world.fetcher, "post", witness)
    monkeypatch.setattr(station.sequencer, "round", counted)
    stop = threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.001})
    thread.start()
    try:
        yield witness, settled
    finally:
        witness.may_answer.set()
        stop.set()
        thread.join(SOON)
    assert not thread.is_alive()


def state_of(world: LogWorld, asked: int, wanted: str) -> bool:
    """Whether a proposal gets there soon."""
    pause = threading.Event()
    return any(world.outcome(asked).state == wanted or pause.wait(0.005) for _ in range(int(SOON / 0.005)))


def test_who_comes_during_a_publication_shares_the_next_round(world: LogWorld, monkeypatch) -> None:
    """The first makes a round of its own at once; twelve that come while it is cosigned make one more together."""
    monkeypatch.setattr(room, "PACE", SOON)
    with working(world, monkeypatch) as (witness, settled):
        first = world.upload(100)
        assert witness.asked.wait(SOON)
        others = [world.upload(number) for number in range(101, 113)]
        assert {world.outcome(each).state for each in others} == {"pending"}
        witness.may_answer.set()
        assert all(state_of(world, each, "published") for each in (first, *others))
    assert [each for each in settled if each] == [1, 12]
    world.check()


def test_a_silent_witness_delays_rounds_and_stops_none(world: LogWorld, monkeypatch) -> None:
    """Nothing is published, and what comes is sequenced all the same."""
    with working(world, monkeypatch) as (witness, _settled):
        first = world.upload(100)
        assert witness.asked.wait(SOON)
        assert state_of(world, world.upload(101), "sequenced")
        assert world.outcome(first).state == "sequenced"


def test_an_idle_log_waits_for_nothing(world: LogWorld, monkeypatch) -> None:
    """What was published long ago holds nobody up, however long a round may wait for a publication."""
    monkeypatch.setattr(room, "PACE", 10 * SOON)
    with working(world, monkeypatch) as (witness, _settled):
        witness.may_answer.set()
        for number in (100, 101):
            assert state_of(world, world.upload(number), "published")
