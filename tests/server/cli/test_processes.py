"""Children of `up`, and workers: who dies is named, who hangs is killed, nothing outlives the parent's stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from countermark.errors import UsageError
from countermark_server import stopping, telemetry, worker
from countermark_server.operate import processes
from countermark_server.operate.processes import ChildDiedError, Children
from countermark_server.settings import Log, Settings

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def start(children: Children, name: str, code: str) -> None:
    children.start(name, [sys.executable, "-c", code], dict(os.environ))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def said_up(folder: Path, name: str) -> bool:
    return "up" in (folder / f"{name}.log").read_text()


def test_a_child_that_dies_is_named_with_its_code_and_its_last_words(tmp_path: Path) -> None:
    """The others are found running, and stop."""
    children = Children(tmp_path)
    start(children, "log", SLEEP)
    start(children, "scan", "import sys; print('no disk', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ChildDiedError, match="scan ended with exit code 3\n    no disk"):
        children.wait_until("web", lambda: False, seconds=20, stop=threading.Event())
    pid = children.pids()["log"]
    assert children.stop(["log", "scan"]) == []
    assert not alive(pid)


def test_a_killed_child_is_named_with_its_signal(tmp_path: Path) -> None:
    """SIGKILL, as the kernel's out-of-memory killer sends it."""
    children = Children(tmp_path)
    start(children, "log", SLEEP)
    os.kill(children.pids()["log"], signal.SIGKILL)
    with pytest.raises(ChildDiedError, match="log ended with signal SIGKILL"):
        children.wait_until("web", lambda: False, seconds=20, stop=threading.Event())


def test_a_child_that_is_never_ready_is_named(tmp_path: Path) -> None:
    """Bounded waiting."""
    children = Children(tmp_path)
    start(children, "log", SLEEP)
    with pytest.raises(ChildDiedError, match="log was not ready within 0 s"):
        children.wait_until("log", lambda: False, seconds=0.1, stop=threading.Event())
    children.stop(["log"])


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    """SIGTERM while starting up."""
    stop = threading.Event()
    stop.set()
    assert not Children(tmp_path).wait_until("log", lambda: False, seconds=20, stop=stop)


def test_a_deaf_child_is_killed_after_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And said to have been."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    children = Children(tmp_path)
    start(children, "web", DEAF)
    children.wait_until("web", lambda: said_up(tmp_path, "web"), seconds=20, stop=threading.Event())
    pid = children.pids()["web"]
    assert children.stop(["web"]) == ["web"]
    assert not alive(pid)


def test_a_worker_says_where_it_is_and_stops_on_sigterm(tmp_path: Path, monkeypatch) -> None:
    """run/<station>.json while it works, nothing afterwards; the signal sets the event."""
    seen: list[set[str]] = []

    def run(settings: Settings, stop: threading.Event, **options: object) -> None:
        telemetry.ready(settings.data / "run", "log")
        seen.append({path.name for path in (settings.data / "run").iterdir()})
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not stop.wait(0.01):
            assert time.monotonic() < deadline
        assert options == {"accept_unwitnessed": True}

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(worker, "station", lambda name: run)
    try:
        worker.work("log", Settings(tmp_path, log=Log(metrics="127.0.0.1:0")), accept_unwitnessed=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == [{"log.json", "log.ready.json"}]
    assert list((tmp_path / "run").iterdir()) == []


def test_an_unknown_station_is_refused() -> None:
    """The sentence names those that exist."""
    with pytest.raises(UsageError, match="log, scan, tufrepo"):
        worker.station("lgo")


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_in_the_middle_of_a_wait_is_heard(number: int) -> None:
    """The handler runs while its own thread holds the event's lock, as within `wait`; it must not want that lock."""
    before = {each: signal.getsignal(each) for each in stopping.SIGNALS}
    try:
        stop = stopping.stop_on_signals()
        with stop._cond:
            os.kill(os.getpid(), number)
            assert not stop.is_set()
        assert stop.wait(10)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
