"""Bytes of imported files: taken from owners, if they are the leaf's, and never shown as an upload or as signed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.manifest import ZERO_NONCE, Line, format_manifest, predicate
from countermark.statement import Statement, sign
from countermark_server.moderation.decisions import Decision, Desk
from countermark_server.operate.giving import give
from countermark_server.stores import places
from countermark_server.upload import receive
from tests.archives import sdist
from tests.doors import DoorWorld, Person
from tests.log_world import NOW, ORIGIN

pytestmark = pytest.mark.usefixtures("database")

FILE, BYTES = "demo-1.0.tar.gz", sdist()


def imported(world: DoorWorld, length: int = len(BYTES)) -> None:
    line = Line("demo", "1.0", FILE, hashlib.sha256(BYTES).hexdigest(), length)
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest([line]))
    said = predicate([line], origin=ORIGIN, prev=None, source="old.example")
    statement = Statement.about(f"import:{said['manifest_sha256']}", "import", said)
    world.propose("import", sign(statement, world.roles["registry"]).to_dict())
    for _ in range(200):
        world.quiet()
        if world.client.get(f"/api/v1/files/demo/{FILE}").get_json().get("proof"):
            return
    raise AssertionError("the line did not become public")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    with made.run():
        yield made
    made.close()


def owner(world: DoorWorld) -> Person:
    ada = world.person("ada")
    signer = world.roles["registry"]
    give(world.engine, "demo", ada.account, origin=ORIGIN, signer=signer, wait=10.0, now=NOW)
    world.quiet()
    return ada


def test_the_same_bytes_answer_with_the_import_s_leaf(world: DoorWorld) -> None:
    """No second entry; shown as imported on every page, listed without an upload time, again the same answer."""
    imported(world)
    ada, size = owner(world), world.head().tree_size
    before = world.client.get("/api/v1/files/demo").get_json()["files"]
    assert [each["state"] for each in before] == ["imported"]
    assert world.client.get("/simple/demo/").status_code == 200  # an empty page: no other index is asked
    body = ada.upload(FILE, BYTES).get_json()
    assert (body["state"], body["index"]) == ("logged", before[0]["index"])
    assert body["message"].startswith(f"imported by entry {before[0]['import']}, not signed; first seen")
    assert ada.upload(FILE, BYTES).get_json() == body
    assert world.head().tree_size == size
    (row,) = world.submissions()
    assert (row["uploader"], row["import_index"]) == (None, before[0]["import"])
    world.set_state(FILE, state="listed")
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    (shown,) = world.client.get("/simple/demo/", headers=accept).get_json()["files"]
    assert shown["_countermark"]["import"] == before[0]["import"]
    assert "upload-time" not in shown and "core-metadata" not in shown
    (after,) = world.client.get("/api/v1/files/demo").get_json()["files"]
    assert after["first_seen"] == NOW and "uploaded" not in after["message"]


@pytest.mark.parametrize(("step", "rows"), [("bring", 0), ("standing", 1)])
def test_a_death_while_bytes_are_brought_loses_nothing(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch, step: str, rows: int
) -> None:
    """Before the row and after it: the blob is kept, no entry is made, the same upload again goes on."""
    imported(world)
    ada, size = owner(world), world.head().tree_size

    def dies(*_: object, **__: object) -> None:
        raise OSError("the machine died here")

    with monkeypatch.context() as patched:
        patched.setattr(receive, step, dies)
        assert ada.upload(FILE, BYTES).status_code == 500
    assert len(world.submissions()) == rows
    assert places.blobs(world.settings).read(hashlib.sha256(BYTES).hexdigest()) == BYTES
    assert ada.upload(FILE, BYTES).get_json()["state"] == "logged"
    assert len(world.submissions()) == 1 and world.head().tree_size == size


@pytest.mark.parametrize("said", [0, 1])
def test_bytes_that_are_not_the_line_s_are_refused(world: DoorWorld, said: int) -> None:
    """Another hash, or a length that the leaf denies: refused, and nothing has changed."""
    imported(world, len(BYTES) + said)
    ada = owner(world)
    before = world.state()
    data = BYTES if said else BYTES + b"\0"
    answer = ada.upload(FILE, data)
    assert answer.status_code == 400
    assert answer.get_json()["code"] == ("statement-mismatch" if said else "file-exists")
    assert world.state() == before


def test_nobody_but_an_owner_takes_an_imported_name(world: DoorWorld) -> None:
    """Another account has the very bytes, or others: refused both times, and nothing has changed."""
    imported(world)
    owner(world)
    mallory = world.person("mallory")
    before = world.state()
    for data in (BYTES, BYTES + b"\0"):
        assert mallory.upload(FILE, data).get_json()["code"] == "not-owner"
    assert world.state() == before


def test_an_imported_file_is_taken_down_before_its_bytes_come(world: DoorWorld) -> None:
    """The decision is an entry; the file is said to be removed, and its bytes are not taken any more."""
    imported(world)
    ada = owner(world)
    desk = Desk(world.engine, origin=ORIGIN, signer=world.roles["moderation"], wait=10.0, clock=world.clock)
    for kind in ("hold", "clear", "takedown"):
        reason = "false-positive" if kind == "clear" else "malware"
        desk.decide(Decision(kind, "demo", FILE, reason, moderator="ee" * 16))
        world.quiet()
    shown = world.client.get(f"/api/v1/files/demo/{FILE}").get_json()
    assert (shown["standing"], shown["standing_reason"]) == ("removed", "malware")
    assert world.client.get(f"/packages/demo/{FILE}").status_code == 410
    before = world.state()
    assert ada.upload(FILE, BYTES).get_json()["code"] == "filename-spent"
    assert world.state() == before
