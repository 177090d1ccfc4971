"""A log for load tests: raw bytes in, the index out, the leaf exactly those bytes; and nothing else, by any door."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from werkzeug.serving import make_server

from countermark.errors import UsageError
from countermark_server.log.sequence import LogError
from countermark_server.log.tree import public_tree
from countermark_server.settings import SettingsError, load
from tests.doors import DoorWorld
from tests.log_world import LogWorld, drain

HAMMER = Path(__file__).resolve().parents[3] / "bench" / "hammer.py"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    world = DoorWorld(tmp_path, raw_add=True)
    with world.run():
        yield world
    world.close()


def leaves(world: LogWorld) -> list[bytes]:
    station = world.station()
    head = station.sequencer.load()
    tree = public_tree(world.public)
    return tree.entries(0, head.size, tree.reader(head.size, head.root_hash))


@pytest.mark.parametrize(
    "body",
    [b"\0", b"{}", b"\xff" * 65_535, b'{"type":"publish"}'],
    ids=["one byte", "json", "the longest", "like an entry"],
)
def test_the_leaf_is_exactly_the_body(world: DoorWorld, body: bytes) -> None:
    """The first leaf of a raw log is the first body; the answer is its index in decimal, once it is public."""
    answer = world.client.post("/log/add", data=body)
    assert (answer.status_code, answer.data) == (200, b"0"), answer.data
    assert answer.content_type == "text/plain; charset=utf-8"
    assert world.published_size() == 1
    assert world.client.post("/log/add", data=body).data == b"1"  # the same bytes again: another leaf
    world.quiet()
    assert leaves(world) == [body, body]
    world.check()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b"", 400, "bad-request"), (b"x" * 65_536, 413, "too-large")],
    ids=["empty", "too long"],
)
def test_a_body_that_is_no_leaf_is_refused(world: DoorWorld, body: bytes, status: int, code: str) -> None:
    """Empty or longer than an entry may be: a problem document, and nothing changed."""
    before = world.state()
    answer = world.client.post("/log/add", data=body)
    assert (answer.status_code, answer.get_json(force=True)["code"]) == (status, code)
    assert world.state() == before


def test_a_body_of_unknown_length_stops_at_the_limit(world: DoorWorld) -> None:
    """Sent in chunks, without Content-Length: read to the limit and refused; a shorter one is taken."""
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    before = world.state()
    long = world.client.post("/log/add", input_stream=BytesIO(b"x" * 70_000), environ_overrides=chunked)
    assert long.status_code == 413
    assert world.state() == before
    short = world.client.post("/log/add", input_stream=BytesIO(b"abc"), environ_overrides=chunked)
    assert (short.status_code, short.data) == (200, b"0")
    world.quiet()
    assert leaves(world) == [b"abc"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/legacy/"),
        ("POST", "/api/v1/login"),
        ("POST", "/api/v1/keys"),
        ("POST", "/api/v1/entries"),
        ("PUT", "/log/add"),
        ("DELETE", "/simple/demo/"),
        ("POST", "/no/such/door"),
    ],
)
def test_every_other_door_that_writes_answers_409(world: DoorWorld, method: str, path: str) -> None:
    """With a problem that names the setting; nothing changed."""
    before = world.state()
    answer = world.client.open(path, method=method, data=b"{}")
    if (method, path) == ("PUT", "/log/add"):
        assert answer.status_code == 405
    else:
        said = answer.get_json(force=True)
        assert (answer.status_code, said["code"]) == (409, "raw-log")
        assert "testing.raw_add" in said["detail"]
    assert world.state() == before


def test_the_rules_keep_signed_entries_out(tmp_path: Path) -> None:
    """What would come in beside the doors is refused by the sequencer, without an index; raw leaves go on."""
    world = LogWorld(tmp_path, raw_add=True)
    world.create()
    tuf = world.propose("tuf", world.tuf())
    station = world.station()
    station.check_start()
    drain(station)
    assert (world.outcome(tuf).state, world.outcome(tuf).refusal_code) == ("refused", "opaque")
    assert world.head().tree_size == 0
    world.close()


def test_a_registry_has_no_such_door(tmp_path: Path) -> None:
    """Without the setting: no POST /log/add, whatever is sent."""
    world = DoorWorld(tmp_path)
    before = world.state()
    assert world.client.post("/log/add", data=b"abc").status_code == 405
    assert world.state() == before
    world.close()


@pytest.mark.parametrize("raw", [True, False])
def test_a_log_stays_of_its_kind(tmp_path: Path, raw: bool) -> None:
    """A raw log is not opened as a registry's, nor the other way round; nothing changed."""
    LogWorld(tmp_path, raw_add=raw).create()
    world = LogWorld(tmp_path, raw_add=not raw)
    rows, files = world.rows(), world.files()
    with pytest.raises(LogError, match=r"testing\.raw_add is"):
        world.station().check_start()
    assert (world.rows(), world.files()) == (rows, files)
    world.close()


@pytest.mark.parametrize("origin", ["registry.example.com/main", "test", "log.testing", "a/b.test", ""])
def test_the_setting_is_refused_for_names_that_could_be_real(tmp_path: Path, origin: str) -> None:
    """By the file and by the environment, before anything starts."""
    text = f'[registry]\norigin = "{origin}"\n'
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"testing\.raw_add") as refused:
        load(tmp_path, {"COUNTERMARK_TESTING_RAW_ADD": "true"})
    assert isinstance(refused.value, UsageError) and refused.value.hint
    assert not load(tmp_path, {"COUNTERMARK_TESTING_RAW_ADD": "false"}).testing.raw_add
    (tmp_path / "settings.toml").write_text(text + "[testing]\nraw_add = true\n")
    with pytest.raises(SettingsError, match=r"testing\.raw_add"):
        load(tmp_path, {})


@pytest.mark.parametrize("said", ["1", "yes", "True", ""])
def test_a_switch_is_true_or_false(tmp_path: Path, said: str) -> None:
    """Any other word in the environment is refused, not guessed."""
    (tmp_path / "settings.toml").write_text('[registry]\norigin = "log.test"\n')
    with pytest.raises(SettingsError, match="COUNTERMARK_TESTING_RAW_ADD must be a bool"):
        load(tmp_path, {"COUNTERMARK_TESTING_RAW_ADD": said})


def test_a_leaf_is_durable_before_its_sender_hears_of_it(tmp_path: Path) -> None:
    """No log at work: 503 with Retry-After and the truth; once it works, the leaf is there."""
    world = DoorWorld(tmp_path, wait=0.05, raw_add=True)
    answer = world.client.post("/log/add", data=b"abc")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "durable" in answer.get_json(force=True)["detail"]
    with world.run():
        pass
    assert leaves(world) == [b"abc"]
    world.check()
    world.close()


def load_hammer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hammer", HAMMER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_independent_hammer_finds_every_body(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads, connections kept alive; one changed bit in a served bundle or tile, and it says so."""
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hammer = load_hammer()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        argv = [sys.executable, str(HAMMER), url, "--threads", "8", "--count", "300"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["added"] == json.loads(done.stdout)["tree_size"] == 300
        placed, times, _ = hammer.hammer(url, 4, 100, 64)
        assert sorted(placed) == list(range(300, 400)) and len(times) == 100
        assert hammer.check(url, placed) == 400
        world.quiet()
        world.check()
        read = type(world.public).read
        for folder in ("tile/entries/", "tile/0/"):

            def lying(self: Any, name: str, folder: str = folder) -> bytes | None:
                data: bytes | None = read(self, name)
                return data[:-1] + bytes([data[-1] ^ 1]) if data and folder in name else data

            monkeypatch.setattr(type(world.public), "read", lying)
            with pytest.raises(hammer.HammerError, match=r"is not the body|has another hash"):
                hammer.check(url, placed)
    finally:
        server.shutdown()
