"""The sequencer under test: a process that opens the log, sequences what waits, publishes it, and ends.

    python -m tests.faults.subject            # one order a line on stdin, see `Order`

A server that forks one child for each order, so that a run costs what the publish path costs and no imports. The
child waits until somebody (strace) is attached and says go. It tells what happened on its own pipe, as the web
process would tell a publisher, and marks where it is with a call that does nothing (`readlink("/mark/...")`).

    mark start     read what is stored, ask the witness
    mark round     sequence, with the station's own reload
    mark publish   cosign, publish, tell, tidy, with the station's own retry
    mark end       it says what is acknowledged

Exit status: 0 all is published (progress), 3 it refused to start, 4 it ended with an error (fatal), 5 it works and
the entries still wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from countermark.fetch import HttpFetcher
from countermark_server import db
from countermark_server.contradiction import ContradictionError
from countermark_server.log import station as stations
from countermark_server.log.publish import NoQuorumError
from countermark_server.log.station import FAILURES, Station
from countermark_server.settings import load
from countermark_server.stores import places, syncs
from countermark_server.stores.immutable import StoreError
from tests.faults.mutants import MUTANTS
from tests.log_world import LogWorld

PROGRESS, REFUSED, FATAL, WAITING = 0, 3, 4, 5
PR_SET_PTRACER, ANYBODY = 0x59616D61, -1
TRIES = 3  # of a publication; one fault is injected, so the second should do
RELOADS = 3


@dataclass(frozen=True)
class Order:
    """One run: where the log is, how to reach the witness, where to speak, and what is wrong on purpose."""

    folder: str
    environment: dict[str, str]
    witness: str
    go: str  # a named pipe: a byte comes when the child may begin
    report: str  # a file that the child appends to
    mutant: str = ""


def mark(phase: str) -> None:
    """A call that a trace shows and that does nothing."""
    with contextlib.suppress(OSError):
        Path(f"/mark/{phase}").readlink()


def run(order: Order) -> int:
    """One child's life."""
    os.environ.update(order.environment)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
    report = os.open(order.report, os.O_WRONLY | os.O_APPEND)
    if order.mutant:
        MUTANTS[order.mutant]()
    stations.RELOAD_SECONDS = 0.01
    syncs.begin = _one_by_one
    with Path(os.devnull).open("w", encoding="utf-8") as silence:
        os.dup2(silence.fileno(), 1)  # telemetry; our parent speaks there
    worker = _object_store_thread() if order.environment.get("COUNTERMARK_STORAGE_BUCKET") else 0
    os.write(report, f"worker {worker}\n".encode())
    with Path(order.go).open("rb") as go:
        go.read(1)
    mark("start")
    try:
        world = LogWorld(Path(order.folder), fetcher=HttpFetcher(), witness_url=order.witness)
        station = world.station()
        station.check_start()
    except (*FAILURES, ContradictionError) as error:
        os.write(report, f"refused {type(error).__name__}: {error}\n".encode())
        return REFUSED
    sequence(station)
    publish(station)
    mark("end")
    with contextlib.suppress(SQLAlchemyError):
        return PROGRESS if tell(world, report) else WAITING
    return PROGRESS if tell(world, report) else WAITING  # whoever reads tries again, too


def _one_by_one(calls: Sequence[syncs.Call]) -> syncs.Call:
    """Syncs in this thread, which alone is watched. Those that run together depend on each other in nothing."""
    for call in calls:
        call()
    return lambda: None


def _object_store_thread() -> int:
    """Start the object store's runtime, and find the one thread in which it talks (TOKIO_WORKER_THREADS=1)."""
    places.place(load(Path()), "public").read("nothing")
    names = {int(task.name): (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()}
    (worker,) = [thread for thread, name in names.items() if name.startswith("tokio")]
    return worker


def sequence(station: Station) -> None:
    """The station's rounds, until nothing waits."""
    mark("round")
    while station._round():
        pass


def publish(station: Station) -> None:
    """The publisher's thread, without the thread: again after what it tries again after."""
    mark("publish")
    for _ in range(TRIES):
        try:
            station.publisher.publish(station.sequencer.checkpoint)
            return
        except (NoQuorumError, OSError, SQLAlchemyError, StoreError):
            continue


def tell(world: LogWorld, report: int) -> bool:
    """Acknowledge what the rows say is published; whether that is everything."""
    table = db.proposal
    with db.read(world.engine) as connection:
        rows = connection.execute(
            select(table.c.id, table.c.state, table.c.leaf_index, table.c.leaf_hash)
        ).all()
    for row in rows:
        if row.state == "published":
            os.write(report, f"ack {row.id} {row.leaf_index} {row.leaf_hash}\n".encode())
    return all(row.state == "published" for row in rows)


def serve() -> None:
    """Fork a child for each line; say its process id, then how it ended."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            status = FATAL
            try:
                status = run(order)
            except BaseException:
                with Path(order.report).open("a", encoding="utf-8") as report:
                    report.write("fatal " + traceback.format_exc().strip().replace("\n", " | ") + "\n")
            finally:
                os._exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
