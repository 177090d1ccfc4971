"""`up`: a whole registry, its processes real, from an empty folder to ready and back to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from countermark.tlog.checkpoint import open_checkpoint
from countermark_server import adopted
from countermark_server.cli import commands
from countermark_server.operate.processes import ChildDiedError, free_port
from countermark_server.operate.up import Request, _Registry
from countermark_server.settings import load
from countermark_server.stores.public import CHECKPOINT, Public

NAMES = {"witness", "log", "timestamper", "tufrepo", "scan", "web"}


class Up:
    """One `countermark-server up`, and what it said."""

    def __init__(self, folder: Path, *arguments: str, url: str = "") -> None:
        self.data = folder / "data"
        self.url = url or f"http://127.0.0.1:{free_port()}"
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


def status(up: Up, code: int, *words: str) -> str:
    """What `countermark-server status` prints."""
    shown = words or ("--json",)
    done = CliRunner().invoke(commands, ["status", "--data", str(up.data), *shown])
    assert getattr(done.exception, "exit_code", 0) == code, done.output
    return done.stdout


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Up:
    """An empty folder that became a registry, and was stopped."""
    running = Up(
        tmp_path_factory.mktemp("first"), "--trial", "--origin", "up.test/registry", "--bit-length", "3"
    )
    try:
        running.wait_ready()
        assert set(running.pids()) == NAMES
    finally:
        code = running.stop()
    assert code == 0
    return running


@pytest.fixture
def up(first: Up, tmp_path: Path) -> Iterator[Up]:
    """The same registry, copied and running again."""
    shutil.copytree(first.data, tmp_path / "data")
    running = Up(tmp_path)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def test_an_empty_folder_becomes_a_registry(first: Up) -> None:
    """Genesis is in the first public checkpoint; people are told the words and what one witness is worth."""
    public = Public(first.data / "public")
    trust = adopted.trust_file(public)
    raw = public.read(CHECKPOINT)
    assert raw is not None
    checkpoint = open_checkpoint(raw, trust.policy, now=int(time.time()))
    assert checkpoint.origin == "up.test/registry" and checkpoint.size >= 4
    assert "says nothing about split views" in first.said() and "root words" in first.said()
    assert not list((first.data / "run").glob("*.ready.json"))


def test_a_raw_log_is_three_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With testing.raw_add: witness, log and web; bytes go in, and the leaf outlives a restart."""
    monkeypatch.setenv("COUNTERMARK_TESTING_RAW_ADD", "true")
    for index, body in enumerate((b"first", b"second")):
        running = Up(tmp_path, "--trial", "--origin", "raw.test/log", "--bit-length", "3")
        try:
            running.wait_ready()
            assert set(running.pids()) == {"witness", "log", "web"}
            with urllib.request.urlopen(running.url + "/log/add", data=body, timeout=30) as answer:
                assert answer.read() == b"%d" % index
            assert body in running.get(f"/log/tile/entries/000.p/{index + 1}")
        finally:
            assert running.stop() == 0


def test_a_restart_goes_on_where_it_was_and_stops_cleanly(first: Up, up: Up) -> None:
    """Six processes, each with metrics, behind one address; SIGTERM ends all of them."""
    pids = up.pids()
    assert set(pids) == NAMES and all(map(alive, pids.values()))
    before = Public(first.data / "public")
    policy = adopted.trust_file(before).policy
    old = open_checkpoint(before.read(CHECKPOINT) or b"", policy, now=None)
    assert open_checkpoint(up.get("/log/checkpoint"), policy, now=int(time.time())).size >= old.size
    assert json.loads(up.get("/tuf/timestamp.json"))["signed"]["version"] >= 1
    assert up.get("/healthz") and b"countermark_" in up.get("/metrics")
    run = up.data / "run"
    urls = {name: json.loads((run / f"{name}.json").read_text()) for name in NAMES - {"web"}}
    for name, facts in urls.items():
        with urllib.request.urlopen(facts.get("metrics") or facts["url"] + "/metrics", timeout=10) as answer:
            assert b"countermark_" in answer.read(), name
    found = json.loads(status(up, 0))
    assert found["problems"] == [] and found["signed"] == found["public"] >= 4
    assert [part["name"] for part in found["parts"]] == ["web", "log", "tufrepo", "timestamper", "scan"]
    assert up.stop() == 0
    assert "scan         not here" in status(up, 3, "--part", "scan")
    assert not any(map(alive, pids.values()))
    with pytest.raises(urllib.error.URLError):
        up.get("/healthz")


@pytest.mark.parametrize("name", ["log", "timestamper"])
def test_a_child_that_dies_ends_everything_with_its_name(up: Up, name: str) -> None:
    """Nothing is restarted silently; after a kill -9 the next start recovers."""
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


def test_a_log_that_contradicts_itself_ends_with_its_own_words(first: Up, tmp_path: Path) -> None:
    """The head row is not what was signed: exit code 7, the page to read, and every byte as it was."""
    shutil.copytree(first.data, tmp_path / "data")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "registry.sqlite")) as database, database:
        assert database.execute("UPDATE head SET tree_size = tree_size * 2").rowcount == 1
    public = tmp_path / "data" / "public"
    before = {path: path.read_bytes() for path in public.rglob("*") if path.is_file()}
    refused = Up(tmp_path)
    assert refused.process.wait(60) == 1
    said = refused.said()
    assert "error: log ended with exit code 7" in said and "disagrees with the checkpoint in it" in said, said
    assert "hint: docs/operations/refusals.md" in said
    assert {path: path.read_bytes() for path in public.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("log", ["refuses", "is-ready"])
def test_whoever_stumbles_first_the_logs_refusal_is_told(first: Up, tmp_path: Path, log: str) -> None:
    """tufrepo ends at once, the log a moment later or not at all: the cause is the log's, where it has one."""
    settings, stop = replace(load(first.data), data=tmp_path), threading.Event()
    registry = _Registry(settings, Request(tmp_path, "127.0.0.1:1"), stop, print)
    late = "import time; time.sleep(0.5); raise SystemExit(7)"
    if log == "is-ready":
        late = "import time; time.sleep(60)"
    try:
        registry.children.start("log", [sys.executable, "-c", late], os.environ)
        registry.children.start("tufrepo", [sys.executable, "-c", "raise SystemExit(3)"], os.environ)
        with pytest.raises(ChildDiedError, match="tufrepo ended with exit code 3") as stumbled:
            registry.children.wait_until("x", lambda: False, seconds=20, stop=stop)
        if log == "is-ready":
            (registry.run / "log.ready.json").touch()
        cause = registry._cause(stumbled.value)
        expected = "log ended with exit code 7" if log == "refuses" else "tufrepo ended with exit code 3"
        assert str(cause).startswith(expected)
    finally:
        registry.children.stop(["tufrepo", "log"])


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
