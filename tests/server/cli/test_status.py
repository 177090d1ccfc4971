"""`status`: which part is not well, what is late and what has ended, by words and by exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from countermark.errors import NetworkError
from countermark_server import cli_log, db, telemetry
from countermark_server.cli import commands
from countermark_server.console import counted
from countermark_server.log.sequence import Sequencer
from countermark_server.operate import status
from countermark_server.operate.status import Status, Waiting, lines, look
from countermark_server.stores import heads
from countermark_server.stores.public import Public
from tests.archives import wheel
from tests.doors import DoorWorld
from tests.log_world import ORIGIN

WHEEL = "demo-1.0-py3-none-any.whl"
DAY = 86_400


class Parts:
    """What answers where."""

    def __init__(self) -> None:
        self.down = set[str]()
        self.asked = list[str]()

    def get(self, url: str, **_: Any) -> bytes | None:
        self.asked.append(url)
        if any(each in url for each in self.down):
            raise NetworkError(f"{url}: connection refused")
        return b"ok"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with one file on its way, whose log runs."""
    made = DoorWorld(tmp_path)
    with made.run():
        assert made.person("ada").upload(WHEEL, wheel()).status_code == 200
        made.quiet()
        for number, name in enumerate(("log", "tufrepo", "scan")):
            telemetry.record(
                made.settings.data / "run", name, {"metrics": f"http://{name}.test:{number}/metrics"}
            )
        tuf(made)
        yield made
    made.close()


def tuf(world: DoorWorld, **days: int) -> None:
    """Metadata as far as it is looked at, good for so many days."""
    public = Public(world.settings.public)
    for role, name in (("root", "1.root"), ("snapshot", "3.snapshot"), ("timestamp", "timestamp")):
        expires = datetime.fromtimestamp(int(world.clock()) + days.get(role, 90) * DAY, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        signed = {"_type": role, "spec_version": "1.0.31", "version": 3, "expires": expires}
        signed["meta"] = {"snapshot.json": {"version": 3}}
        path = world.settings.public / "tuf" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"signed": signed, "signatures": []}))
    assert public.read("tuf/timestamp.json")


def seen(world: DoorWorld, parts: Parts, *names: str) -> Status:
    return look(world.settings, world.engine, parts, parts=names, clock=world.clock)  # type: ignore[arg-type]


def test_all_is_well(world: DoorWorld) -> None:
    """Every part was asked where it listens, and the numbers are those of the log."""
    parts = Parts()
    found = seen(world, parts)
    assert found.problems == [] and found.silent == []
    assert [part.name for part in found.parts] == ["web", "log", "tufrepo", "timestamper", "scan"]
    assert parts.asked[0] == "http://127.0.0.1:8080/healthz" and parts.asked[1] == "http://log.test:0/metrics"
    assert found.signed == found.public > 4 and found.quorum_age is not None
    assert found.expires["root"] == (3, 90 * DAY)
    said = lines(found)
    assert f"{found.signed} entries signed, {found.public} public, seen by the witness quorum" in said[5]
    assert said[7].startswith("waiting      1 file at scan (the oldest for ")
    assert json.loads(json.dumps(found.to_json()))["expires"]["snapshot"] == {
        "version": 3,
        "seconds": 90 * DAY,
    }


def test_a_part_that_is_silent_is_named(world: DoorWorld) -> None:
    """Refused connections, and parts that never said where they listen; others may run elsewhere."""
    parts = Parts()
    parts.down = {"log.test"}
    (world.settings.data / "run" / "scan.json").unlink()
    (world.settings.data / "run" / "tufrepo.json").write_text("{")
    found = seen(world, parts)
    assert found.silent == ["log", "tufrepo", "scan"]
    assert found.problems[0] == "log: http://log.test:0/metrics: connection refused"
    assert "it left no run/scan.json" in found.problems[2]
    assert lines(found)[1].split() == ["log", "not", "well", "http://log.test:0/metrics"]
    assert lines(found)[4].split() == ["scan", "not", "here"]
    assert seen(world, parts, "web").problems == []


def test_what_waits_too_long_is_said(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part may answer and get nowhere; what waits for people is no fault of a part's."""
    with db.write(world.engine) as connection:
        connection.execute(db.submission.update().values(state_since=int(world.clock()) - 301))
    assert seen(world, Parts()).problems == ["scan: 1 file waiting, the oldest for 5 min"]
    with db.write(world.engine) as connection:
        connection.execute(db.submission.update().values(state="held", state_since=1))
        head = heads.load(connection, ORIGIN)
    assert head is not None
    monkeypatch.setattr(heads, "load", lambda *_: replace(head, tree_size=head.tree_size + 1))
    assert seen(world, Parts()).problems == []  # signed just now
    world.clock.now += 61
    assert seen(world, Parts()).problems == ["head: the newest 1 entry signed and not public"]
    monkeypatch.setattr(Sequencer, "round", lambda _: 0)
    world.quiet()  # no round is on its way any more
    with db.write(world.engine) as connection:
        pending = db.proposal.insert().values(
            type="x", registry="{}", state="pending", created=int(world.clock()) - 61
        )
        connection.execute(pending)
    found = seen(world, Parts())
    assert "log: 1 entry waiting, the oldest for 61 s" in found.problems
    assert Waiting("log", 1, 61) in found.waiting


def test_metadata_that_ends_is_said(world: DoorWorld) -> None:
    """Expired; missing; or a root that wants a ceremony soon."""
    tuf(world, timestamp=0, root=29)
    assert seen(world, Parts()).problems == [
        "tuf: the timestamp has expired", "tuf: the root expires in 29 d: hold the next ceremony",
    ]  # fmt: skip
    (world.settings.public / "tuf" / "3.snapshot.json").unlink()
    assert seen(world, Parts()).problems == ["tuf: there is no snapshot"]
    (world.settings.public / "log" / "checkpoint").write_bytes(b"x")
    assert any(
        each.startswith("head: the public checkpoint does not verify")
        for each in seen(world, Parts()).problems
    )


def test_a_full_disk_is_said(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is full."""
    monkeypatch.setattr(
        status.shutil, "disk_usage", lambda _: status.shutil._ntuple_diskusage(10**12, 0, 4 * 10**10)
    )
    assert seen(world, Parts()).problems == ["disk: 40.0 GB of 1000.0 GB free"]


@pytest.mark.parametrize(("down", "code"), [("", 0), ("log.test", 3), ("tuf", 4)])
def test_the_exit_code_says_what_is_wrong(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch, down: str, code: int
) -> None:
    """3: a part is silent; 4: all answer, and something is late or has expired; numbers on stdout either way."""
    parts = Parts()
    if down == "tuf":
        tuf(world, snapshot=-1)
    elif down:
        parts.down = {down}
    monkeypatch.setattr("countermark.fetch.HttpFetcher", lambda **_: parts)
    monkeypatch.setattr(cli_log.time, "time", world.clock)
    monkeypatch.setattr(cli_log, "settings_of", lambda _: world.settings)
    monkeypatch.setattr(cli_log, "engine_of", lambda _: world.engine)
    for more in ([], ["--json"]):
        done = CliRunner().invoke(commands, ["status", "--data", str(world.settings.data), *more])
        assert getattr(done.exception, "exit_code", 0) == code, done.output
        assert "head " in done.stdout or json.loads(done.stdout)["signed"] > 4
        assert ("all is well" in done.stderr) == (code == 0)


def test_one_is_one() -> None:
    """Words for numbers."""
    assert [counted(number, "entry") for number in (0, 1, 2)] == ["0 entries", "1 entry", "2 entries"]
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
