"""History with its bytes, over real processes: imported, scanned, listed, verified, installed, withdrawn, rebuilt."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.cli.test_commands import wheel
from tests.journeys.test_standing import APPLIED, carried, within
from tests.world.installers import installed, pip
from tests.world.world import World, as_json, fresh

PROJECT = "built-old"  # under warn: the world's central policy enforces signatures of everything else
MANY = 60  # files of the folder, so that a kill finds some done and some not
SCANNED = 90.0  # seconds for all of them, on a machine that does other things
WORDS = re.compile(r"imported by entry #?\d+, not signed; first seen by the log at \d{4}-\d\d-\d\d[T ]")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry after its ceremony, with an old one's files beside it; bob has pinned the root and installs."""
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        words = world.words(ceremony)
        world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
        yield world


@pytest.fixture(scope="module")
def folder(world: World) -> Path:
    """The old registry's files."""
    folder = world.root / "old" / "packages"
    folder.mkdir(parents=True)
    for number in range(MANY):
        wheel(folder, PROJECT, f"1.{number}")
    return folder


@pytest.fixture(scope="module")
def history(world: World, folder: Path) -> Path:
    """The old registry's database, as a list."""
    path = world.root / "history.txt"
    rows = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        rows.append(f"{PROJECT} {version(file)} {file.name} {hashlib.sha256(data).hexdigest()} {len(data)}\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


def version(file: Path) -> str:
    return file.name.split("-")[1]


def page(world: World) -> dict[str, Any]:
    """The files of the project's simple page, by name."""
    return {file["filename"]: file for file in json.loads(world.get(f"/simple/{PROJECT}/"))["files"]}


def imports(world: World, history: Path, *more: str | Path, expect: int = 0) -> dict[str, Any]:
    done = world.operator("import", "--source", "old.example", history, "--json", *more, expect=expect)
    found: dict[str, Any] = as_json(done)
    return found


def wait_listed(world: World, count: int) -> None:
    deadline = time.monotonic() + SCANNED
    while (found := len(page(world))) < count:
        assert time.monotonic() < deadline, f"{found} of {count} are listed\n{world.log_tail()}"
        time.sleep(0.2)


def test_killed_in_the_middle_the_same_command_completes_it(
    world: World, folder: Path, history: Path
) -> None:
    """kill -9 while bytes come; then the same command: each file once, and all of them are scanned and listed."""
    imported = imports(world, history)
    assert (imported["recorded"], "files" in imported) == (MANY, False)
    assert page(world) == {}, "listed without bytes"
    size = world.size()
    command = ("import", "--data", world.data, "--source", "old.example", history, "--files", folder)
    child = subprocess.Popen(
        ["countermark-server", *map(str, command)],
        cwd=world.root, env=world.env(**world.settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    first = sorted(folder.iterdir())[2]
    while child.poll() is None and not kept(world, first):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it was killed"
    missing = folder / f"{PROJECT.replace('-', '_')}-1.7-py3-none-any.whl"
    data = missing.read_bytes()
    missing.write_bytes(data[:-1] + b"\1")
    files = imports(world, history, "--files", folder, expect=5)["files"]
    assert [(each["filename"], each["code"]) for each in files["without"]] == [(missing.name, "changed")]
    assert 0 < files["before"] < MANY and files["before"] + files["brought"] + 1 == MANY
    missing.write_bytes(data)
    files = imports(world, history, "--files", folder)["files"]
    assert (files["imported"], files["before"], files["brought"]) == (MANY, MANY - 1, 1)
    wait_listed(world, MANY)
    assert world.size() > size
    assert imports(world, history, "--files", folder)["files"]["before"] == MANY
    assert not list((world.data / "incoming").iterdir()), "a second copy stayed behind"


def kept(world: World, file: Path) -> bool:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return (world.data / "blobs" / digest[:2] / digest).exists()


def test_a_brought_file_is_served_verified_and_installed_as_imported(world: World, folder: Path) -> None:
    """Page, file door, API, verify and pip through the proxy; nothing says that anybody uploaded or signed it."""
    file = folder / f"{PROJECT.replace('-', '_')}-1.3-py3-none-any.whl"
    shown = page(world)[file.name]
    assert (
        "upload-time" not in shown
        and shown["hashes"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    )
    assert world.get(f"/packages/{PROJECT}/{file.name}") == file.read_bytes()
    said = json.loads(world.get(f"/api/v1/files/{PROJECT}/{file.name}"))
    assert WORDS.match(said["message"]) and "upload" not in json.dumps(said), said
    verified = world.run("countermark", "verify", "--json", file, home="bob")
    document = json.loads(verified.out)
    assert document["verified"] is False and WORDS.search(verified.out)
    assert "upload" not in verified.said
    python = world.machine("pip-bob")
    done = pip(world, python, f"{PROJECT}==1.3")
    assert installed(world, python, PROJECT) and WORDS.search(done.said), done.said
    assert "upload" not in done.err


def test_a_brought_file_is_held_and_taken_down_like_any_other(world: World, folder: Path) -> None:
    """A moderator's decisions reach page, file door and verify; taken down, its bytes are wanted no more."""
    file = folder / f"{PROJECT.replace('-', '_')}-1.4-py3-none-any.whl"
    for kind, reason, shown in (("hold", "malware", False), ("clear", "false-positive", True)):
        world.operator(kind, PROJECT, file.name, "--reason", reason)
        assert (file.name in page(world)) == shown
    world.run("countermark", "verify", file, home="bob")
    done = world.operator("takedown", PROJECT, file.name, "--reason", "malware")
    assert file.name not in page(world)
    with pytest.raises(urllib.error.HTTPError) as gone:
        world.get(f"/packages/{PROJECT}/{file.name}")
    assert gone.value.code == 410
    within(APPLIED, lambda: carried(world, int(done.out.split("#")[1])))
    assert "malware" in world.run("countermark", "verify", file, home="bob", expect=6).said


def test_a_rebuilt_registry_has_the_bytes_that_its_store_kept(
    world: World, folder: Path, history: Path
) -> None:
    """The database is lost, and two blobs: what is left of the bytes goes on, and a folder brings the rest."""
    before = page(world)
    world.down()
    for path in world.data.glob("registry.sqlite*"):
        path.unlink()
    lost = [folder / f"{PROJECT.replace('-', '_')}-1.{number}-py3-none-any.whl" for number in (8, 9)]
    for number, file in enumerate(lost):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        blob = world.data / "blobs" / digest[:2] / digest
        blob.unlink()
        if number:
            blob.write_bytes(b"other bytes")
    rebuilt = as_json(world.operator("rebuild", "--json"))
    assert rebuilt["imported"] == {"brought": MANY - 2, "without": 2}
    assert "no findings" in world.operator("fsck").err
    world.up()
    wait_listed(world, len(before) - 2)
    shown = page(world)
    assert before.keys() - shown.keys() == {file.name for file in lost}
    assert all(shown[name] == before[name] for name in shown)
    blob.unlink()  # the false one
    files = imports(world, history, "--files", folder)["files"]
    assert (files["brought"], files["removed"], files["without_bytes"]) == (2, 1, 0)
    wait_listed(world, len(before))
    assert page(world) == before
    world.run("countermark", "verify", lost[0], home="bob")
    assert world.run("countermark", "audit", "--files", world.url, home="bob").code == 0
