"""Files and keys afterwards, over real processes: each command acts on page, file door, TUF and verify."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.cli.test_commands import wheel
from tests.world.world import Done, World, as_json, fresh

APPLIED = 15.0  # seconds; the design's five minutes, with tuf.min_interval at 0.2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A trial registry with Alice signed in, who has published nothing yet."""
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.up("--trial", "--origin", world.origin)
        world.login("alice", world.words(world.data / "ceremony"))
        yield world


@pytest.fixture(scope="module")
def files(world: World) -> dict[str, Path]:
    """A wheel of each project, published by Alice with one command."""
    projects = ("early-one", "held-one", "gone-one", "removed-one", "rotated-one")
    made = {project: wheel(world.root, project) for project in projects}
    world.run("countermark", "publish", "--yes", *made.values())
    return made


def decide(world: World, kind: str, file: Path, reason: str, *, expect: int = 0) -> int:
    """The operator's decision about a file; the index of its entry."""
    project = file.name.split("-")[0].replace("_", "-")
    done = world.run(
        "countermark-server", kind, "--data", world.data, project, file.name, "--reason", reason,
        expect=expect,
    )  # fmt: skip
    return int(done.out.split("#")[1].split()[0]) if expect == 0 else -1


def page(world: World, project: str) -> dict[str, Any]:
    """The files of a project's simple page, by name."""
    return {file["filename"]: file for file in json.loads(world.get(f"/simple/{project}/"))["files"]}


def door(world: World, path: Path) -> tuple[int, str]:
    """How the file door answers, and the SHA-256 of what it hands out or the refusal's words."""
    project = path.name.split("-")[0].replace("_", "-")
    try:
        return 200, hashlib.sha256(world.get(f"/packages/{project}/{path.name}")).hexdigest()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["detail"]


def target(world: World, path: Path) -> dict[str, Any] | None:
    """The file's target in the newest bins, found as TUF finds it."""
    snapshot = json.loads(world.get("/tuf/timestamp.json"))["signed"]["meta"]["snapshot.json"]["version"]
    meta = json.loads(world.get(f"/tuf/{snapshot}.snapshot.json"))["signed"]["meta"]
    project = path.name.split("-")[0].replace("_", "-")
    name = f"files/{project}/{path.name}"
    roles = sorted(role for role in meta if role.startswith("bins-"))
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") * len(roles) >> 32
    bin_name = f"{meta[roles[number]]['version']}.{roles[number]}"
    found: dict[str, Any] | None = json.loads(world.get(f"/tuf/{bin_name}"))["signed"]["targets"].get(name)
    return found


def carried(world: World, index: int) -> bool:
    """Whether the served timestamp's checkpoint covers this entry: from then on every client reads it."""
    size = json.loads(world.get("/tuf/timestamp.json"))["signed"]["x-countermark-log"]["size"]
    return bool(size > index)


def within(seconds: float, what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def refused(world: World, path: Path, code: int = 6) -> str:
    """The file does not verify, and the words say why."""
    done: Done = world.run("countermark", "verify", path, expect=code)
    return done.said


def test_a_yank_is_shown_with_its_reason_and_warns_who_pinned(world: World, files: dict[str, Path]) -> None:
    """yank by version: page and API say entry and reason, TUF follows, verify warns; unyank ends it."""
    path = files["early-one"]
    done = as_json(world.run("countermark", "yank", "early-one==1.0", "--reason", "broken", "--json"))
    index = done["files"][0]["index"]  # type: ignore[index]
    assert page(world, "early-one")[path.name]["yanked"] == f"yanked by entry {index} of the log (broken)"
    assert door(world, path)[0] == 200, "a yanked file is there for who pinned it"
    within(APPLIED, lambda: (target(world, path) or {})["custom"]["yank"] == index)
    said = world.run("countermark", "verify", path).said
    assert f"yanked by entry #{index} (broken)" in said
    assert f"yanked by entry #{index} (broken)" in world.run("countermark", "status", path).said

    again = world.run("countermark", "yank", path, "--reason", "broken")
    assert "nothing to yank" in again.err
    world.run("countermark", "unyank", path, "--reason", "fixed")
    assert page(world, "early-one")[path.name]["yanked"] is False
    within(APPLIED, lambda: (target(world, path) or {})["custom"]["yank"] is None)
    assert "yanked" not in world.run("countermark", "verify", path).said


def test_a_hold_acts_at_once_and_a_clear_gives_back(world: World, files: dict[str, Path]) -> None:
    """Page and file door at once, verify with the next timestamp (it reads unapplied entries); clear undoes it."""
    path = files["held-one"]
    index = decide(world, "hold", path, "malware")
    assert page(world, "held-one") == {}
    assert door(world, path) == (403, f"{path.name} is held for review by entry {index} of the log (malware)")
    within(APPLIED, lambda: carried(world, index))
    assert f"hold by entry #{index} (malware)" in refused(world, path)  # whatever TUF's bins say yet
    within(APPLIED, lambda: target(world, path) is None)
    assert f"hold by entry #{index} (malware)" in refused(world, path)
    status = world.run("countermark", "status", path).said
    assert f"held by entry #{index} (malware)" in status

    cleared = decide(world, "clear", path, "false-positive")
    assert cleared > index and path.name in page(world, "held-one") and door(world, path)[0] == 200
    within(APPLIED, lambda: target(world, path) is not None)
    world.run("countermark", "verify", path)


def test_what_the_scanner_held_goes_on_when_it_is_cleared(world: World) -> None:
    """An automatic hold before the first listing: `clear` lets it be listed, `takedown` rejects it for ever."""
    suspicious = '")\nimport base64\nexec(base64.b64decode("cHJpbnQoMSk="))\nprint("'
    projects = ("cleared-one", "rejected-one")
    scanned = {project: wheel(world.root, project, body=suspicious) for project in projects}
    done = world.run("countermark", "publish", "--yes", *scanned.values(), expect=6)
    assert "is held" in done.said
    decide(world, "clear", scanned["cleared-one"], "reviewed")
    assert "listed" in world.run("countermark", "status", "--wait", scanned["cleared-one"]).out
    world.run("countermark", "verify", scanned["cleared-one"])

    decide(world, "takedown", scanned["rejected-one"], "malware")
    assert door(world, scanned["rejected-one"])[0] == 410
    assert "rejected, removed" in world.run("countermark", "status", scanned["rejected-one"]).said
    # A won appeal lists the same bytes again.
    decide(world, "clear", scanned["rejected-one"], "appeal-upheld")
    within(APPLIED, lambda: target(world, scanned["rejected-one"]) is not None)
    assert door(world, scanned["rejected-one"])[0] == 200
    world.run("countermark", "verify", scanned["rejected-one"])


def test_a_takedown_burns_the_name(world: World, files: dict[str, Path]) -> None:
    """Gone from page, door and TUF; other bytes under the name are refused for ever; the log keeps its entry."""
    path = files["gone-one"]
    size = int(world.get("/log/checkpoint").splitlines()[1])
    index = decide(world, "takedown", path, "malware")
    assert page(world, "gone-one") == {} and door(world, path)[0] == 410
    within(APPLIED, lambda: target(world, path) is None)
    assert f"takedown by entry #{index} (malware)" in refused(world, path)
    wheel(world.root, "gone-one", body="other bytes")
    done = world.run("countermark", "publish", "--yes", path, expect=5)
    assert "its name stays spent" in done.err
    assert door(world, path)[0] == 410 and index >= size
    assert decide(world, "hold", path, "malware", expect=5) == -1


def test_an_owner_removes_for_ever(world: World, files: dict[str, Path]) -> None:
    """remove asks first; then the file is gone for everybody, and only its owner could do it."""
    path = files["removed-one"]
    world.run("countermark", "remove", path.name, "--reason", "secret", expect=5)
    assert door(world, path)[0] == 200
    world.login("mallory", world.words(world.data / "ceremony"), home="mallory")
    world.run("countermark", "key", "new", home="mallory")
    stranger = world.run(
        "countermark", "remove", "--yes", path.name, "--reason", "secret", home="mallory", expect=5
    )
    assert "not enrolled" in stranger.err and door(world, path)[0] == 200
    done = as_json(world.run("countermark", "remove", "--yes", "--json", path.name, "--reason", "secret"))
    index = done["files"][0]["index"]  # type: ignore[index]
    assert door(world, path)[0] == 410 and page(world, "removed-one") == {}
    within(APPLIED, lambda: carried(world, index))
    assert f"remove by entry #{index}" in refused(world, path)


def test_a_rotated_key_is_shown_with_its_chain(world: World, files: dict[str, Path]) -> None:
    """rotate: the next publish verifies, chained to the first key; the old key signs nothing any more."""
    old = files["rotated-one"]
    keyid = json.loads(world.run("countermark", "key", "show", "--json").out)["keyid"]
    done = as_json(world.run("countermark", "key", "rotate", "rotated-one", "--yes", "--json"))
    first = as_json(world.run("countermark", "verify", "--json", old))["artifacts"][0]  # type: ignore[index]
    path = wheel(world.root, "rotated-one", "2.0")
    world.run("countermark", "publish", "--yes", path)
    second = as_json(world.run("countermark", "verify", "--json", path))["artifacts"][0]  # type: ignore[index]
    enrolled = done["keys"][0]["index"]  # type: ignore[index]
    assert second["signed_by"]["enrolled"] == enrolled
    assert second["signed_by"]["first"] == first["signed_by"]["first"]
    assert f"chained to #{first['signed_by']['first']} through 1 older key" in second["signed_by"]["sentence"]
    third = wheel(world.root, "rotated-one", "3.0")
    refused_ = world.run(
        "countermark", "publish", "--yes", "--key", f"publisher-{keyid[:16]}", third, expect=5
    )
    assert "not enrolled" in refused_.err


def test_a_compromise_holds_what_was_published_since(world: World) -> None:
    """--compromised-since: the earlier file stays, the later one is held everywhere, a clear gives it back."""
    world.run("countermark", "key", "new", "--name", "spare")
    first = wheel(world.root, "revoked-one", "1.0")
    world.run("countermark", "publish", "--yes", "--key", "spare", first)
    later = wheel(world.root, "revoked-one", "2.0")
    world.run("countermark", "publish", "--yes", "--key", "spare", later)
    since = as_json(world.run("countermark", "status", "--json", later))["artifacts"][0]["index"]  # type: ignore[index]
    world.run(
        "countermark", "key", "revoke", "spare", "--key", "spare", "--yes",
        "--reason", "compromised", "--compromised-since", str(since),
    )  # fmt: skip
    assert list(page(world, "revoked-one")) == [first.name]
    status, said = door(world, later)
    assert status == 403 and "(compromised)" in said
    within(APPLIED, lambda: target(world, later) is None)
    assert "revoked by entry #" in refused(world, later)
    world.run("countermark", "verify", first)
    decide(world, "clear", later, "reviewed")
    within(APPLIED, lambda: target(world, later) is not None)
    world.run("countermark", "verify", later)


def test_the_log_is_clean_at_the_end(world: World) -> None:
    """fsck finds nothing after all of this."""
    world.run("countermark-server", "fsck", "--data", world.data)
