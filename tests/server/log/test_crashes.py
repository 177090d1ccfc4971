"""Crashes: killed, or failing, at every durable step, then restarted: nothing acknowledged is lost, no index is
reused, no size is signed twice.

Each step is broken in two ways: *not persisted* (it fails before it did anything) and *persisted* (it did its
work and then fails, as a disk or a database may). A killed process runs no more code; a failing one reloads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import Transaction

from countermark_server import db
from countermark_server.log import publish as publishing
from countermark_server.log import sequence
from countermark_server.log.staging import Staging
from countermark_server.log.station import Station
from countermark_server.stores import heads
from countermark_server.stores.public import Public
from tests.faults.recovery import acknowledged, recover
from tests.log_world import LogWorld, begun, drain


class Crash(BaseException):
    """The process is gone: nothing in it may catch this."""


Fault = Callable[[], None]

# What can break, as (object, attribute): the durable steps of a round and of a publication, in their order.
STEPS: dict[str, tuple[object, str]] = {
    "staging bundle": (Staging, "put"),
    "reading it back": (Staging, "read"),
    "signing": (sequence, "sign_note"),
    "head swap": (heads, "swap"),
    "commit": (db, "write"),
    "tiles": (Public, "put_all"),
    "cosigning": (publishing.Publisher, "cosigned"),
    "public checkpoint": (Public, "replace"),
    "telling": (publishing.Publisher, "settle"),
    "dropping staging": (Staging, "drop"),
}


@contextmanager
def broken(
    monkeypatch: pytest.MonkeyPatch, step: str, fault: Fault, *, persisted: bool
) -> Iterator[list[int]]:
    """Break the first use of a step; the list says whether it was reached."""
    where, name = STEPS[step]
    real = getattr(where, name)
    hits: list[int] = []

    def faulty(*args, **kwargs):
        if hits:
            return real(*args, **kwargs)
        hits.append(1)
        if persisted:
            real(*args, **kwargs)
        fault()

    @contextmanager
    def faulty_write(engine):
        if hits:
            with real(engine) as connection:
                yield connection
            return
        hits.append(1)
        if persisted:
            with real(engine) as connection:
                yield connection
            fault()
        else:
            with real(engine) as connection:
                yield connection
                fault()  # rolls back

    with monkeypatch.context() as patch:
        patch.setattr(where, name, faulty_write if step == "commit" else faulty)
        yield hits


@pytest.fixture
def world(either_backend: str, tmp_path: Path):
    with begun(tmp_path) as world:
        yield world


def crash() -> None:
    raise Crash


def fail() -> None:
    raise OSError(5, "input/output error")


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
@pytest.mark.parametrize("step", STEPS)
def test_death_at_every_durable_step(world: LogWorld, monkeypatch, step: str, persisted: bool) -> None:
    """The process dies at the step; a new one recovers everything."""
    ids = [world.upload(number) for number in range(3)]
    station = world.station()
    station.check_start()
    with broken(monkeypatch, step, crash, persisted=persisted) as hits, pytest.raises(Crash):
        drain(station)
    assert hits
    station.engine.dispose()
    recover(world, acknowledged(world, ids), ids)


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
@pytest.mark.parametrize("step", STEPS)
def test_failure_at_every_durable_step(world: LogWorld, monkeypatch, step: str, persisted: bool) -> None:
    """The step raises an I/O error; the same process reloads and goes on, as the station does."""
    ids = [world.upload(number) for number in range(3)]
    station = world.station()
    station.check_start()
    with broken(monkeypatch, step, fail, persisted=persisted) as hits:
        work(station)
    assert hits
    world.check()
    assert sorted(acknowledged(world, ids)) == ids
    station.engine.dispose()
    recover(world, acknowledged(world, ids), ids)


def work(station: Station) -> None:
    """The station's own loop, without threads: rounds with reload, publication with retry."""
    while station._round():
        pass
    for _ in range(3):
        try:
            station.publisher.publish(station.sequencer.checkpoint)
            return
        except OSError:
            continue


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
@pytest.mark.parametrize("step", list(STEPS)[:6])
def test_after_a_failed_round_nothing_is_sequenced_before_a_load(
    world: LogWorld, monkeypatch, step: str, persisted: bool
) -> None:
    """Two faults in a row: the second round is refused, storage is not touched."""
    world.upload(1)
    station = world.station()
    station.check_start()
    with broken(monkeypatch, step, fail, persisted=persisted), pytest.raises(OSError):
        station.sequencer.round()
    before = world.rows(), world.files()
    with pytest.raises(sequence.LogError, match="not loaded"):
        station.sequencer.round()
    assert (world.rows(), world.files()) == before
    station.engine.dispose()


@pytest.mark.parametrize("step", list(STEPS)[:6])
def test_two_crashes_in_a_row(world: LogWorld, monkeypatch, step: str) -> None:
    """Dying again while recovering changes nothing about the outcome."""
    ids = [world.upload(number) for number in range(3)]
    for _ in range(2):
        station = world.station()
        with broken(monkeypatch, step, crash, persisted=True), pytest.raises(Crash):
            station.check_start()
            drain(station)
            raise Crash
        station.engine.dispose()
    recover(world, acknowledged(world, ids), ids)


OPERATIONS = {"sqlite": 44, "postgresql": 42}


@pytest.mark.parametrize("nth", range(1, 46))  # one more than there are in a start, a round and a publication
def test_a_killed_process_at_the_nth_write(database: str, tmp_path: Path, nth: int) -> None:
    """A real SIGKILL, at one file or database operation after another, leaves a world that recovers."""
    world = LogWorld(tmp_path)
    world.begin()
    ids = [world.upload(number) for number in range(2)]
    world.close()
    child = os.fork()
    if child == 0:
        kill_at(nth)
        try:
            own = LogWorld(tmp_path)
            station = own.station()
            station.check_start()
            drain(station)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if nth > OPERATIONS[database]:
        assert status == 0
    else:
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    again = LogWorld(tmp_path)
    recover(again, acknowledged(again, ids), ids)
    again.close()


def kill_at(nth: int) -> None:
    """In this process, die at the nth call that makes something durable."""
    count = [0]

    def counted(real):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    os.link, os.fsync = counted(os.link), counted(os.fsync)
    os.replace, os.unlink = counted(os.replace), counted(os.unlink)  # pathlib calls them, too
    Transaction.commit = counted(Transaction.commit)  # type: ignore[method-assign]
