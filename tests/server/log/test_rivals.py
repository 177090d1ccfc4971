"""Rivals and outages: two sequencers, one that was paused, and servers that die in the middle of a batch."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import sign_note
from countermark_server.log.station import Station
from countermark_server.stores.heads import HeadLostError
from countermark_server.stores.public import CHECKPOINT
from tests import postgres, s3
from tests.log_world import NOW, ORIGIN, LogWorld, begun, drain

pytestmark = pytest.mark.usefixtures("either_backend")


@pytest.fixture
def world(tmp_path: Path):
    with begun(tmp_path) as world:
        yield world


def started(world: LogWorld) -> Station:
    station = world.station()
    station.check_start()
    return station


def test_two_sequencers_at_once_make_one_log(world: LogWorld) -> None:
    """Side by side, as fast as they can: each round is one's or the other's, whoever lost loads again."""
    stations = [started(world), started(world)]
    ids = [world.upload(number) for number in range(40)]
    lost: list[BaseException] = []

    def work(station: Station) -> None:
        for _ in range(400):
            try:
                if not station.sequencer.round():
                    return
            except HeadLostError as error:
                lost.append(error)
                station.sequencer.load()

    for station in stations:
        station.sequencer._batch = 2
    threads = [threading.Thread(target=work, args=(station,)) for station in stations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    last = started(world)
    drain(last)
    assert {world.outcome(number).state for number in ids} == {"published"}
    world.check()
    for station in [*stations, last]:
        station.engine.dispose()


def test_one_that_was_paused_finds_the_log_moved(world: LogWorld) -> None:
    """It wakes after another took over: no round, nothing changed."""
    paused, other = started(world), started(world)
    world.upload(1)
    drain(other)
    world.upload(2)
    before = world.rows(), world.files()
    with pytest.raises(HeadLostError, match="another sequencer"):
        paused.sequencer.round()
    assert (world.rows(), world.files()) == before
    drain(other)
    world.check()


def test_one_that_was_paused_before_it_published_takes_nothing_back(world: LogWorld, monkeypatch) -> None:
    """Cosigned at 5, paused, woken when 6 is public: the public checkpoint stays at 6."""
    paused, other = started(world), started(world)
    world.upload(1)
    assert paused.sequencer.round() == 1
    cosigned = paused.publisher.cosigned(paused.sequencer.checkpoint)
    other.sequencer.load()
    world.upload(2)
    drain(other)
    public = world.public.read(CHECKPOINT)
    monkeypatch.setattr(paused.publisher, "cosigned", lambda checkpoint: cosigned)
    before = world.rows(), world.files()
    with pytest.raises(HeadLostError, match="public checkpoint is at size 6, ours is of size 5"):
        paused.publisher.publish(paused.sequencer.checkpoint)
    assert (world.rows(), world.files()) == before
    assert world.public.read(CHECKPOINT) == public
    world.check()


def test_a_checkpoint_that_unknown_witnesses_cosigned_is_not_taken_back(world: LogWorld) -> None:
    """Who was paused while the witnesses changed can't count them, but knows the log's own keys."""
    paused = started(world)
    ours = paused.sequencer.checkpoint
    text = Checkpoint(ORIGIN, ours.size + 1, b"\1" * 32).text()
    newer = sign_note(text, world.signers, time=NOW).format()
    world.public.replace(CHECKPOINT, newer)
    with pytest.raises(HeadLostError, match=f"is at size {ours.size + 1}, ours is of size {ours.size}"):
        paused.publisher.publish(ours)
    assert world.public.read(CHECKPOINT) == newer
    paused.engine.dispose()


def test_another_root_of_our_size_is_left_where_everybody_can_read_it(world: LogWorld) -> None:
    """Two logs signed for one size: the one that finds out stops, and takes no evidence away."""
    station = started(world)
    ours = station.sequencer.checkpoint
    forked = sign_note(Checkpoint(ORIGIN, ours.size, b"\1" * 32).text(), world.signers, time=NOW).format()
    world.public.replace(CHECKPOINT, forked)
    said = f"size {ours.size} has root {'01' * 32}, ours has {ours.root_hash.hex()}: two logs sign"
    with pytest.raises(HeadLostError, match=said):
        station.publisher.publish(ours)
    assert world.public.read(CHECKPOINT) == forked
    station.engine.dispose()


@pytest.mark.parametrize("either_backend", ["postgresql s3"], indirect=True)
@pytest.mark.parametrize("victim", ["database", "store"])
def test_a_server_that_dies_in_the_middle_of_a_batch(world: LogWorld, victim: str) -> None:
    """Killed while rounds run and started again: the station reloads by itself, nothing is lost or told twice."""
    server = postgres.server() if victim == "database" else s3.server()
    station, stop = started(world), threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.001})
    thread.start()
    try:
        ids = [world.upload(number) for number in range(30)]
        server.kill()
        stop.wait(0.5)
        server.start()
        world.engine.dispose()
        for _ in range(6000):
            if all(world.outcome(number).state == "published" for number in ids):
                break
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert {world.outcome(number).state for number in ids} == {"published"}
    world.check()
    station.engine.dispose()
    last = started(world)
    more = world.upload(99)
    drain(last)
    assert world.outcome(more).state == "published"
    world.check()
    last.engine.dispose()
