"""Real sequencers, stopped before each of their steps: one thread runs at a time, and a test says which.

    with Gates(monkeypatch) as gates:
        a, b = Machine(gates, world), Machine(gates, world)
        a.step()          # to its next step, which it has not taken yet
        a.kill()          # the process is gone; what it had not committed is rolled back

A machine is two threads, as in the service: the sequencer (start check, then rounds) and the publisher. Each step is
told to the automaton of the model before it is taken, so a step in the wrong order fails where it happens. Steps are
seen by wrapping the functions that make something durable, or send it; their code runs as it is.

A thread that wants the database's write lock while another holds it is not runnable, as in the model.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from countermark.tlog.checkpoint import LogCheckpoint
from countermark_server import db
from countermark_server.contradiction import ContradictionError
from countermark_server.log import sequence, station
from countermark_server.log.publish import NoQuorumError, Publisher
from countermark_server.log.sequence import Sequencer
from countermark_server.log.staging import Staging
from countermark_server.stores import heads
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import CHECKPOINT, Public
from tests.log_world import LogWorld
from tests.model.steps import Order

PATIENCE = 60.0  # seconds for one step


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


class Thread:
    """One thread of a machine; it runs only inside `step`."""

    def __init__(self, gates: Gates, order: Order, work: Callable[[], None]) -> None:
        self.order = order
        self.within: set[str] = set()  # which of the wrapped functions it is in
        self.finished = self._killed = False
        self.fails = False  # its next step does, without having done anything
        self.error: BaseException | None = None
        self._gates = gates
        self._until: Callable[[], bool] | None = None  # what it waits for
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def runnable(self) -> bool:
        return not self.finished and (self._until is None or self._until())

    def step(self) -> None:
        """On to the next step, or to the end. OutOfOrderError: the model has no such step."""
        self._go.release()
        assert self._stopped.acquire(timeout=PATIENCE), f"no step after {self.order}"
        if self.finished:
            self._thread.join(PATIENCE)
        if isinstance(self.error, AssertionError) and not self._killed:
            raise self.error

    def kill(self) -> None:
        self._killed = True
        while not self.finished:
            self.step()

    def gate(self, step: str | None = None, *, until: Callable[[], bool] | None = None) -> None:
        """Stop here, before a step, or until something is so."""
        self._until = until
        self._stopped.release()
        self._go.acquire()
        self._until = None
        if self._killed:
            raise Killed
        if step is None:
            return
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, "the disk fails")
        self.order.take(step)
        self._gates.taken += 1

    def _run(self, work: Callable[[], None]) -> None:
        self._go.acquire()
        self._gates.threads[threading.get_ident()] = self
        try:
            if not self._killed:
                work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.finished = True
        self._stopped.release()


class Machine:
    """A process of the log: what `work log` starts, without its timers."""

    def __init__(self, gates: Gates, world: LogWorld) -> None:
        self.station = world.station()
        self.station.sequencer._batch = 1
        # Threads of one process take turns at a lock of theirs; here the gates see to it.
        self.station.sequencer._mutex = self.station.publisher._mutex = nullcontext()  # type: ignore[assignment]
        self.refused: BaseException | None = None
        self._gates = gates
        self.sequencer = Thread(gates, Order("at"), self._sequence)
        self.publisher = Thread(gates, Order("publisher"), self._publish)
        self.threads = (self.sequencer, self.publisher)

    def kill(self) -> None:
        for thread in self.threads:
            thread.kill()
        self.station.quorum.close()
        self.station.engine.dispose()

    def _sequence(self) -> None:
        """`run` and `work` of station.py: the checked start, then round after round."""
        try:
            self.station.check_start()
        except (*station.FAILURES, ContradictionError) as error:
            self.refused = error
            return
        self.station.publisher.offer(self.station.sequencer.checkpoint)
        while not self.station._stop.is_set() and self.station._round():
            pass

    def _publish(self) -> None:
        """`_run` of publish.py, which ends when its sequencer did."""
        publisher = self.station.publisher

        def offered() -> LogCheckpoint | None:
            newest = publisher._offered
            return newest if newest is not None and newest.size > publisher._published else None

        while True:
            self.publisher.gate(until=lambda: offered() is not None or self.sequencer.finished)
            checkpoint = offered()
            if checkpoint is None:
                return
            try:
                publisher.publish(checkpoint)
            except (NoQuorumError, OSError, SQLAlchemyError, StoreError):
                self.publisher.order.fail()
                self._gates.taken += 1  # a step, too, for those who count
            except AssertionError:
                raise
            except Exception:  # what `_run` calls fatal: the process ends
                self.station._stop.set()
                return


class Gates:
    """The wrapped functions, and who is inside the database's write lock."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.threads: dict[int, Thread] = {}
        self.holder: Thread | None = None
        self.taken = 0  # steps, of all threads

    def install(self, world: LogWorld) -> None:
        """Put a gate before every step of the real code."""
        self._patch.setattr(station, "RELOAD_SECONDS", 0)
        self._mark(Sequencer, "load", "load")
        self._mark(
            Sequencer, "sweep", "sweep"
        )  # like a load's: under the lock, what lies beyond the head is dead
        self._mark(Publisher, "tidy", "tidy")
        self._mark(Sequencer, "_round", "round")
        self._mark(station.Station, "check_start", "start")
        self._step(heads, "hold", "LOAD", lambda own, *_: "load" in own.within)
        self._step(heads, "check_held", "HOLD")
        self._step(Staging, "put", "STAGE")
        self._step(Staging, "read", "READ", lambda own, *_: "load" not in own.within)
        self._step(Staging, "drop", "DROP", lambda own, *_: not own.within & {"sweep", "tidy"})
        self._step(sequence, "sign_note", "SIGN")
        self._step(heads, "swap", "SWAP")
        self._step(Public, "put_all", "APPLY")
        self._step(Public, "replace", "PUBLISH")
        self._step(
            Public, "read", "COMPARE", lambda own, _, name: name == CHECKPOINT and "start" in own.within
        )
        self._step(Publisher, "tidy", "DROP")
        self._step(Publisher, "settle", "TELL")
        self._step(world.fetcher, "post", "ASK", lambda own, *_: own.order.last != "ASK")  # 409, and again
        self._patch.setattr(db, "write", self._writing(db.write))

    def _step(self, where: Any, name: str, step: str, when: Callable[..., bool] = lambda *_: True) -> None:
        """A gate before a function, where `when` says that it is this step."""
        real = getattr(where, name)

        def gated(*args: Any, **options: Any) -> Any:
            own = self.threads.get(threading.get_ident())
            if own is not None and when(own, *args):
                own.gate(step)
            return real(*args, **options)

        self._patch.setattr(where, name, gated)

    def _mark(self, where: Any, name: str, mark: str) -> None:
        """Remember that a thread is in this function; what it raises is a failure of the model's thread, too."""
        real = getattr(where, name)

        def marked(*args: Any, **options: Any) -> Any:
            own = self.threads.get(threading.get_ident())
            if own is None:
                return real(*args, **options)
            own.within.add(mark)
            try:
                return real(*args, **options)
            except Exception:
                own.order.fail()
                raise
            finally:
                own.within.discard(mark)

        self._patch.setattr(where, name, marked)

    def _writing(self, real: Any) -> Any:
        """Write transactions: who wants one waits for whoever has one; a round's commit is a step."""

        @contextmanager
        def write(engine: Any) -> Iterator[Any]:
            own = self.threads.get(threading.get_ident())
            if own is None:
                with real(engine) as connection:
                    yield connection
                return
            own.gate(until=lambda: self.holder is None)
            self.holder = own
            try:
                with real(engine) as connection:
                    yield connection
                    if "round" in own.within:
                        own.gate("COMMIT")
            finally:
                self.holder = None

        return write
