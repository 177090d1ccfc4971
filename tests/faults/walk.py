"""The walk: one world after another from the same template, one system call broken in each, and all of it checked.

    with Walk(kind, folder) as walk:
        trace = walk.record()
        for call in trace: walk.run(call, fault)      # -> Result; AssertionError: a promise was broken

A world is a log of 254 entries with three more waiting, so that the round under test fills a tile, starts the next
one and has partial tiles to clean up. The witness lives in this process, behind a socket, and remembers.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from countermark.serving import Request, Response, listening
from tests import postgres, s3
from tests.faults import strace
from tests.faults.recovery import Acknowledged, recover
from tests.faults.strace import Call
from tests.faults.subject import FATAL, PROGRESS, REFUSED, WAITING, Order
from tests.log_world import LogWorld, drain

ROOT = Path(__file__).resolve().parents[2]
BEFORE = 250  # entries of the template after its genesis: the round under test crosses into the second tile
WAITING_ENTRIES = 3
PATIENCE = 45  # seconds for one run; a silent subject is a failure
OUTCOMES = {PROGRESS: "progress", REFUSED: "refused", WAITING: "refused", FATAL: "fatal", -9: "killed"}


@dataclass(frozen=True)
class Result:
    """One broken call: what it was about as it happened, and how the subject took it."""

    about: str | None  # None: the call did not come; nothing was broken
    phase: str  # in which it broke; "" when that thread makes no marks
    outcome: str
    said: str


class Walk:
    """All runs of one kind of world: "sqlite files" or "postgresql s3"."""

    def __init__(self, kind: str, folder: Path, *, before: int = BEFORE) -> None:
        self.kind, self.folder, self._before = kind, folder, before
        self._numbers = itertools.count(1)
        self._current: LogWorld | None = None

    def __enter__(self) -> Walk:
        self._listening = listening(self._witness, "127.0.0.1", 0, max_body=1 << 20)
        self._server = self._listening.__enter__()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        self.ports = {int(urlsplit(self._server.url).port or 0): "witness"}
        if "s3" in self.kind:
            self.ports[int(urlsplit(s3.server().endpoint).port or 0)] = "object store"
        self._make_template()
        environment = {**os.environ, "TOKIO_WORKER_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._subjects = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.subject"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._subjects.stdin is not None
        self._subjects.stdin.close()
        self._subjects.wait(PATIENCE)
        self._server.shutdown()
        self._thread.join()
        self._listening.__exit__(None, None, None)

    # --- worlds ---------------------------------------------------------------------------------------
    def _make_template(self) -> None:
        environment = self._environment(self.folder / "template", fresh=True)
        world = self._open(self.folder / "template", environment)
        world.begin()
        station = world.station()
        station.check_start()
        drain(station)
        for number in range(self._before):
            world.upload(number)
            if number == self._before // 2:
                drain(station)
        drain(station)
        self.ids = [world.upload(self._before + number) for number in range(WAITING_ENTRIES)]
        station.engine.dispose()
        world.close()
        self._template = environment
        self._objects = (
            s3.server().contents(environment["COUNTERMARK_STORAGE_PREFIX"]) if "s3" in self.kind else {}
        )

    def _environment(self, folder: Path, *, fresh: bool = False) -> dict[str, str]:
        folder.mkdir(parents=True, exist_ok=True)
        environment: dict[str, str] = {}
        if "postgresql" in self.kind:
            environment["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
            if not fresh:
                source = self._template["COUNTERMARK_DATABASE_URL"]
                postgres.server().copy(source, environment["COUNTERMARK_DATABASE_URL"])
        if "s3" in self.kind:
            environment |= s3.server().world()
            if not fresh:
                bucket = s3.server().bucket(environment["COUNTERMARK_STORAGE_PREFIX"])
                bucket.write(self._objects)
        return environment

    def _open(self, folder: Path, environment: dict[str, str]) -> LogWorld:
        saved = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            return LogWorld(folder)
        finally:
            for name, value in saved.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)

    def _witness(self, request: Request) -> Response:
        assert self._current is not None
        if len(request.body) != int(request.headers["content-length"]):
            return Response(400)  # the log died in the middle of its sentence
        answer = self._current.fetcher.post("", request.body)
        return Response(answer.status, answer.body, headers=answer.headers)

    # --- runs -----------------------------------------------------------------------------------------
    def record(self, mutant: str = "") -> list[Call]:
        """The trace of a run in which nothing is broken."""
        result, out = self._run(None, mutant)
        assert result.outcome == "progress", result
        with out.open(encoding="utf-8", errors="replace") as lines:
            trace = list(strace.calls(lines, self.ports))
        self._main = next(call.thread for call in trace if call.phase)
        shutil.rmtree(out.parent)
        return trace

    def run(self, call: Call, fault: str, mutant: str = "") -> Result:
        """Break this call in this way, restart, and check everything."""
        result, out = self._run((call.name, fault, call.nth), mutant, worker=call.thread != self._main)
        shutil.rmtree(out.parent)
        return result

    def _run(
        self, inject: tuple[str, str, int] | None, mutant: str, *, worker: bool = False
    ) -> tuple[Result, Path]:
        folder = self.folder / f"run-{next(self._numbers)}"
        shutil.copytree(self.folder / "template", folder) if "sqlite" in self.kind else folder.mkdir()
        if "sqlite" not in self.kind:
            for name in (self.folder / "template").glob("witness.sqlite*"):
                shutil.copy(name, folder)
        environment = self._environment(folder)
        world = self._current = self._open(folder, environment)
        control = folder.with_name(folder.name + "-control")
        control.mkdir()
        go, report, out = control / "go", control / "report", control / "trace"
        os.mkfifo(go)
        report.touch()
        order = Order(str(folder), environment, self._server.url, str(go), str(report), mutant)
        child = int(self._say(json.dumps(asdict(order))))
        while "worker" not in (ready := report.read_text()):
            time.sleep(0.001)
        tracer = strace.attach(int(ready.split()[1]) if worker else child, out, inject=inject)
        go.write_bytes(b".")
        watch = threading.Timer(PATIENCE, os.kill, (child, signal.SIGKILL))
        watch.start()
        status = int(self._hear())
        watch.cancel()
        tracer.wait(PATIENCE)
        assert tracer.stderr is not None
        tracer.stderr.close()
        about, phase = (None, "") if inject is None else strace.injected(out, self.ports)
        said = report.read_text("utf-8", "replace")
        lines = [line for line in said.splitlines() if not line.startswith(("ack", "worker"))]
        assert status != -signal.SIGKILL or (inject or ("", "", 0))[1] == strace.KILL, "the subject hung"
        result = Result(about, phase, OUTCOMES.get(status, f"exit {status}"), " ".join(lines)[-2000:])
        recover(world, told(said), self.ids)
        world.close()
        shutil.rmtree(folder)
        return result, out

    def _say(self, line: str) -> str:
        assert self._subjects.stdin is not None
        self._subjects.stdin.write(line + "\n")
        self._subjects.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._subjects.stdout is not None
        line = self._subjects.stdout.readline()
        assert line, "the server of subjects ended"
        return line


def told(said: str) -> Acknowledged:
    """What the subject acknowledged before it ended; the log is held to it."""
    found: Acknowledged = {}
    for line in said.splitlines():
        word, *rest = line.split()
        if word == "ack" and len(rest) == 3:
            found[int(rest[0])] = int(rest[1]), rest[2]
    return found
