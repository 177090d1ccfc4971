"""`up`: a whole registry, its processes real, from an empty folder to ready and back to nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.tlog.checkpoint import open_checkpoint
from countermark_server import adopted
from countermark_server.processes import free_port
from countermark_server.stores.public import CHECKPOINT, Public

NAMES = {"witness", "log", "timestamper", "tufrepo", "scan", "web"}


class Up:
    """One `countermark-server up`, and what it said."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.output = folder / f"up-{time.time_ns()}.txt"
        env = {**os.environ, "COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}
        argv = [sys.executable, "-m", "countermark_server.cli", "up", "--data", str(self.data)]
        argv += ["--listen", self.url.removeprefix("http://"), *arguments]
        with self.output.open("xb") as stream:
            self.process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return self.output.read_text("utf-8", "replace")

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while "\nready  " not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def stop(self, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(seconds)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def pids(self) -> dict[str, int]:
        """The registry's processes, by what run/ says."""
        run = self.data / "run"
        found = {}
        for name in NAMES:
            if (path := run / f"{name}.json").exists():
                found[name] = int(json.loads(path.read_text())["pid"])
        return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path, "--trial", "--origin", "up.test/registry", "--bit-length", "3")
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def test_an_empty_folder_becomes_a_registry_and_stops_cleanly(up: Up) -> None:
    """Six processes, each with metrics; the first checkpoint holds genesis; SIGTERM ends all; a restart works."""
    pids = up.pids()
    assert set(pids) == NAMES and all(map(alive, pids.values()))
    public = Public(up.data / "public")
    trust = adopted.trust_file(public)
    raw = up.get("/log/checkpoint")
    checkpoint = open_checkpoint(raw, trust.policy, now=int(time.time()))
    assert checkpoint.origin == "up.test/registry" and checkpoint.size >= 4
    assert json.loads(up.get("/tuf/timestamp.json"))["signed"]["version"] >= 1
    assert up.get("/healthz")
    for name in ("log", "scan", "tufrepo", "timestamper"):
        metrics = json.loads((up.data / "run" / f"{name}.json").read_text())["metrics"]
        with urllib.request.urlopen(metrics, timeout=10) as answer:
            assert b"countermark_" in answer.read(), name
    assert (
        b"countermark_witness_"
        in urllib.request.urlopen(
            json.loads((up.data / "run" / "witness.json").read_text())["url"] + "/metrics", timeout=10
        ).read()
    )
    assert b"countermark_" in up.get("/metrics")
    assert "says nothing about split views" in up.said() and "root words" in up.said()
    assert up.stop() == 0
    assert not any(map(alive, pids.values()))
    with pytest.raises(urllib.error.URLError):
        up.get("/healthz")
    again = Up(up.data.parent)
    try:
        again.wait_ready()
        assert open_checkpoint(again.get("/log/checkpoint"), trust.policy, now=None).size >= checkpoint.size
    finally:
        assert again.stop() == 0


@pytest.mark.parametrize("name", ["log", "timestamper"])
def test_a_child_that_dies_ends_everything_with_its_name(up: Up, name: str) -> None:
    """Nothing is restarted silently; after a kill -9 of the log the next start recovers."""
    pids = up.pids()
    os.kill(pids[name], signal.SIGKILL)
    assert up.process.wait(30) == 1
    assert f"{name} ended with signal SIGKILL" in up.said()
    assert not any(map(alive, pids.values()))
    again = Up(up.data.parent)
    try:
        again.wait_ready()
    finally:
        assert again.stop() == 0
    raw = Public(up.data / "public").read(CHECKPOINT)
    assert raw is not None


def test_a_second_up_on_the_same_folder_is_refused(up: Up) -> None:
    """The first goes on undisturbed."""
    second = Up(up.data.parent)
    assert second.process.wait(30) == 2
    assert "is up already" in second.said()
    assert up.process.poll() is None and up.get("/healthz")


@pytest.mark.parametrize("arguments", [(), ("--ceremony", "nowhere")])
def test_an_uninitialised_folder_says_what_to_do(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Without --trial nothing is made."""
    running = Up(tmp_path, *arguments)
    assert running.process.wait(30) == 2
    assert "is not initialised" in running.said() and "init --data" in running.said()
    assert not running.data.exists()


def test_an_initialised_folder_without_a_root_says_what_to_do(tmp_path: Path) -> None:
    """`init` alone is not enough: somebody has to hold a ceremony."""
    argv = [sys.executable, "-m", "countermark_server.cli", "init", "--data", str(tmp_path / "data")]
    subprocess.run([*argv, "--origin", "up.test/x"], check=True, capture_output=True, timeout=60)
    running = Up(tmp_path)
    assert running.process.wait(30) == 2
    assert "has no root yet" in running.said() and "--ceremony" in running.said()
