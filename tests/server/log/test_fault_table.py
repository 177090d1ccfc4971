"""The fault table: {each durable step} x {failed, failed but persisted} x {once, every time}, and what must follow.

    progress   the same process goes on, and everything is published
    refused    nothing more is acknowledged while the fault lasts; when it is gone, everything is published

None of them is fatal: an error that ends the process fails the test.
`test_crashes.py` has the same steps under a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from countermark_server import db
from countermark_server.log import sequence
from countermark_server.log import station as stations
from countermark_server.log.publish import NoQuorumError, Publisher
from countermark_server.log.staging import Bundle, Staging
from countermark_server.log.station import Station
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import Public
from tests.faults.recovery import acknowledged, recover
from tests.log_world import LogWorld, begun

PROGRESS, REFUSED = "progress", "refused"
FAILED, PERSISTED = "failed", "failed but persisted"
ONCE, ALWAYS = "once", "every time"
TRIES = 4  # rounds and publications while the fault lasts

# step -> (failed once, failed every time, persisted once, persisted every time)
EXPECTED: dict[str, tuple[str, str, str, str]] = {
    "staging": (PROGRESS, REFUSED, PROGRESS, REFUSED),
    "staging re-read mismatch": (PROGRESS, REFUSED, PROGRESS, REFUSED),
    # Persisted: the next load finds the new head and takes it up, so that every round is done and none is told twice.
    "head row": (PROGRESS, REFUSED, PROGRESS, PROGRESS),
    # Every load applies the tiles again before anything else, so a store that always says no stops the log.
    "tile": (PROGRESS, REFUSED, PROGRESS, REFUSED),
    "entry bundle": (PROGRESS, REFUSED, PROGRESS, REFUSED),
    "cosign": (PROGRESS, REFUSED, PROGRESS, REFUSED),
    "checkpoint": (PROGRESS, REFUSED, PROGRESS, REFUSED),
}
CELLS = [
    (step, how, often, outcome)
    for step, outcomes in EXPECTED.items()
    for (how, often), outcome in zip(
        [(FAILED, ONCE), (FAILED, ALWAYS), (PERSISTED, ONCE), (PERSISTED, ALWAYS)], outcomes, strict=True
    )
]


class Fault:
    """Breaks one step, once or until it is told to stop."""

    def __init__(self, how: str, often: str) -> None:
        self.persisted, self.left = how == PERSISTED, 1 if often == ONCE else 10**6
        self.hits = 0

    def __call__(self, real: Callable[[], object]) -> object:
        if not self.left:
            return real()
        self.left, self.hits = self.left - 1, self.hits + 1
        if self.persisted:
            real()
        raise OSError(5, "input/output error")


def plant(patch: pytest.MonkeyPatch, step: str, fault: Fault) -> None:
    """Break this step of the sequencer."""
    put, read, put_all, cosigned, replace = (
        Staging.put, Staging.read, Public.put_all, Publisher.cosigned, Public.replace,
    )  # fmt: skip
    if step == "staging":
        patch.setattr(Staging, "put", lambda self, bundle: fault(lambda: put(self, bundle)))
    elif step == "staging re-read mismatch":

        def other(self: Staging, name: str) -> Bundle:
            try:
                return fault(lambda: read(self, name))  # type: ignore[return-value]
            except OSError:
                raise StoreError(f"staging bundle {name} holds other bytes") from None

        patch.setattr(Staging, "read", other)
    elif step == "head row":
        patch.setattr(sequence.db, "write", _committing(fault, db.write))
    elif step in ("tile", "entry bundle"):
        ours = "log/tile/entries/" if step == "entry bundle" else "log/tile/0/"

        def some(self: Public, files: dict[str, bytes]) -> None:
            mine = {name: raw for name, raw in files.items() if name.startswith(ours)}
            put_all(self, {name: raw for name, raw in files.items() if name not in mine})
            fault(lambda: put_all(self, mine))

        patch.setattr(Public, "put_all", some)
    elif step == "cosign":
        patch.setattr(Publisher, "cosigned", lambda self, c, **o: fault(lambda: cosigned(self, c, **o)))
    else:
        patch.setattr(Public, "replace", lambda self, *a: fault(lambda: replace(self, *a)))


def _committing(fault: Fault, real):
    """A write transaction whose commit fails, when it moved the head."""

    class Write:
        def __init__(self, engine) -> None:
            self.engine, self.inner = engine, real(engine)

        def __enter__(self):
            self.connection = self.inner.__enter__()
            self.before = self._size()
            return self.connection

        def __exit__(self, kind, error, trace):
            if kind is not None or self._size() == self.before:
                return self.inner.__exit__(kind, error, trace)
            try:
                fault(lambda: self.inner.__exit__(None, None, None))
            except OSError as failed:
                if not fault.persisted:
                    self.inner.__exit__(type(failed), failed, None)
                raise
            return None

        def _size(self) -> int:
            return int(self.connection.execute(db.head.select()).mappings().one()["tree_size"])

    return Write


@pytest.fixture
def world(either_backend: str, tmp_path: Path):
    with begun(tmp_path) as world:
        yield world


def outcome(world: LogWorld, station: Station, ids: list[int]) -> str:
    """Let the station work while the fault may last, and see what became of what waited. Fatal is what it raises."""
    for _ in range(TRIES):
        try:
            for _ in range(TRIES):
                if not station._round():
                    break
            station.publisher.publish(station.sequencer.checkpoint)
        except (NoQuorumError, OSError, SQLAlchemyError, StoreError, sequence.LogError):
            continue
    return PROGRESS if len(acknowledged(world, ids)) == len(ids) else REFUSED


@pytest.mark.parametrize("cell", CELLS, ids=[" ".join(cell) for cell in CELLS])
def test_the_fault_table(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch, cell: tuple[str, str, str, str]
) -> None:
    """The outcome is the table's, and whatever it is, a restart finds one log with everything that was told."""
    step, how, often, expected = cell
    monkeypatch.setattr(stations, "RELOAD_SECONDS", 0.001)
    station = world.station()
    station.check_start()
    station._stop.wait = _few(station)  # type: ignore[method-assign]
    ids = [world.upload(number) for number in range(3)]
    with monkeypatch.context() as patch:
        fault = Fault(how, often)
        plant(patch, step, fault)
        found = outcome(world, station, ids)
        before = acknowledged(world, ids)
    assert fault.hits, "the step was not reached"
    assert found == expected
    station.engine.dispose()
    recover(world, before, ids)


def _few(station: Station) -> Callable[..., bool]:
    """The station reloads until it is stopped; here it is stopped after some tries."""
    left = [TRIES]

    def wait(timeout: float | None = None) -> bool:
        left[0] -= 1
        if left[0] <= 0:
            station._stop.set()
        return station._stop.is_set()

    return wait
