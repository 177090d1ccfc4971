"""Attacks on who installs, as stories: freeze, a warm cache, an older bin, a poisoned lock, a swap, another index."""

from __future__ import annotations

import json
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from countermark import run
from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.demands import read_demands
from countermark.errors import StaleError
from countermark.filestore import FileStore
from countermark.installers import plan
from countermark.proxy import Proxy
from countermark.serving import Request
from countermark.simplepage import JSON_TYPE
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.project import Project
from tests.simulator import HOUR, Published, World

STALE_AFTER = (24 + 48) * HOUR
UV = ["uv", "sync", "--frozen"]


def at(index: str, file: Published) -> str:
    """Where an index has a file."""
    return f"{index.removesuffix('simple/')}packages/{file.project}/{file.filename}"


def test_a_freeze_is_noticed_at_each_level(machine: Machine, world: World, wheel: Published) -> None:
    """Whoever withholds metadata wins a day, then two days for files known here, then nothing at all."""
    new = world.publish("newer")
    machine.accept(wheel)
    frozen, began = world.copy(), world.now
    report = machine.verify(wheel, world=frozen)
    assert (report.freshness, report.late) == ("fresh", None)
    frozen.now = began + 2 * HOUR
    report = machine.verify(wheel, world=frozen)
    assert report.exit_code == 0 and report.freshness == "ok"
    assert report.late and report.late.startswith("operator: its last timestamp was signed 2 h ago")
    frozen.now = began + 25 * HOUR
    report = machine.verify(wheel, world=frozen)
    assert report.exit_code == 0 and report.freshness == "grace"
    assert "expired" in str(report.outcomes[0].to_json()["remarks"])
    machine.refuse(4, "this file is new here", new, world=frozen)
    frozen.now = began + STALE_AFTER + HOUR
    machine.refuse(4, "beyond the grace period", wheel, world=frozen)
    strict = ClientPolicy(mode=Mode.OBSERVE, demands=read_demands({"max-age": "1h"}))
    frozen.now = began + 2 * HOUR
    judged = verify(
        [artifact(wheel)], machine.registry, frozen, now=frozen.now, policies=Policies(local=strict)
    )
    assert judged.exit_code == StaleError.exit_code, "who cannot wait a day says so in a policy"


def test_a_hold_reaches_a_warm_cache(tmp_path: Path, world: World, wheel: Published) -> None:
    """The file lies verified on the proxy's disk and in its memory; a minute after the hold it is not handed out."""
    machine = Machine(tmp_path / "home", world)
    proxy = Proxy(
        machine.registry, world, FileStore(tmp_path / "store"),
        policies=Policies(), clock=lambda: world.now, say=lambda text: None,
    )  # fmt: skip
    path = f"/packages/{wheel.project}/{wheel.filename}"
    assert proxy.answer(Request("GET", path)).status == 200
    world.decide("hold", wheel, "malware")
    world.heartbeat()
    assert len(list((tmp_path / "store").glob("??/*"))) == 1, "the bytes are there"
    world.now += 61
    answer = proxy.answer(Request("GET", path))
    assert answer.status == 403 and isinstance(answer.body, bytes)
    assert "hold by entry" in json.loads(answer.body)["detail"]
    page = proxy.answer(Request("GET", f"/simple/{wheel.project}/", {"accept": JSON_TYPE}))
    assert isinstance(page.body, bytes)
    for item in json.loads(page.body)["files"]:  # uv takes from its cache what a page lists
        assert item["filename"] != wheel.filename
        assert proxy.answer(Request("GET", item["url"].removeprefix("../.."))).status == 403


def test_an_older_bin_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """A mirror, or the registry, serves new metadata with a bin of before a takedown: it is not the committed one."""
    machine.accept(wheel)
    before = dict(world.tuf)
    world.decide("takedown", wheel, "malware")
    world.release()
    older = world.copy()
    for name, raw in before.items():
        role = name.rpartition("/")[2].partition(".")[2]
        if "bin" in role:
            for path in [path for path in world.tuf if path.rpartition("/")[2].partition(".")[2] == role]:
                older.override[f"/tuf/{path}"] = raw
    assert older.override, "no bin was put back"
    fresh = Machine(machine.home.path.parent / "fresh", world)
    fresh.refuse(7, "serves older metadata than before: Expected bins-", wheel, world=older)


def test_a_file_swapped_between_check_and_install_reaches_nobody(tmp_path: Path, world: World) -> None:
    """Verified, then the registry hands out other bytes: the proxy refuses them, and a child that ends well fails."""
    file = world.publish("acme-demo")
    project = Project(tmp_path, world)
    project.requirements(file)
    served: list[int] = []

    def install() -> None:
        world.packages[f"{file.project}/{file.filename}"] = b"swapped after the check"
        index = project.started[0][1]["PIP_INDEX_URL"]
        try:
            with urllib.request.urlopen(at(index, file)) as answer:
                served.append(answer.status)
        except urllib.error.HTTPError as error:
            served.append(error.code)

    project.during = install
    finished = project.run(["pip", "install", "--require-hashes", "-r", "requirements.txt"])
    assert served == [409]
    assert (finished.exit_code, finished.whose) == (7, "countermark")


def test_a_kept_file_that_is_changed_on_disk_is_fetched_anew(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """Somebody writes into the proxy's store between two installs: the bytes are hashed again before they go out."""
    machine = Machine(tmp_path / "home", world)
    proxy = Proxy(
        machine.registry, world, FileStore(tmp_path / "store"),
        policies=Policies(), clock=lambda: world.now, say=lambda text: None,
    )  # fmt: skip
    request = Request("GET", f"/packages/{wheel.project}/{wheel.filename}")
    for _ in range(2):
        answer = proxy.answer(request)
        assert not isinstance(answer.body, bytes) and b"".join(answer.body.pieces) == wheel.data
        (kept,) = (tmp_path / "store").glob("??/*")
        kept.write_bytes(b"x" * len(wheel.data))


LOCKS = {
    "uv.lock": (Project.uv_lock, UV, ', {{ url = "https://evil.test/{name}", hash = "sha256:{hash}" }}]'),
    "poetry.lock": (
        Project.poetry_lock, ["poetry", "install", "--no-root"], ', {{ file = "{name}", hash = "sha256:{hash}" }}]',
    ),
    "requirements.txt": (
        Project.requirements, ["pip", "install", "--require-hashes", "-r", "requirements.txt"],
        " --hash=sha256:{hash}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("poison", ["another project's", "an older version's", "nobody's", "one more"])
def test_a_lock_poisoned_in_review_starts_no_installer(
    tmp_path: Path, world: World, name: str, poison: str
) -> None:
    """One hash among hundreds, changed by a contributor: each is looked up for its project and version."""
    older, file, another = (
        world.publish("acme-demo"),
        world.publish("acme-demo", "2.0"),
        world.publish("other-demo"),
    )
    project = Project(tmp_path, world)
    write, command, more = LOCKS[name]
    lock = write(project, file, another)
    assert project.run(command).exit_code == 0 and project.started
    project.started.clear()
    good, unknown = lock.read_text("utf-8"), "e" * 64
    hashes = {"another project's": another.sha256, "an older version's": older.sha256, "nobody's": unknown}
    if poison == "one more":
        line = next(line for line in good.splitlines() if file.sha256 in line)
        bad = good.replace(line, line.removesuffix("]") + more.format(name=file.filename, hash=unknown))
    else:
        bad = good.replace(file.sha256, hashes[poison])
    assert bad != good
    lock.write_text(bad, "utf-8")
    nameless = poison == "one more" and name == "requirements.txt"  # of no file that the page names
    project.refuse(
        5 if nameless else 7, command, unknown if poison in ("nobody's", "one more") else file.filename
    )


@contextmanager
def decoy() -> Iterator[tuple[str, list[object]]]:
    """Another index, which writes down who asks it."""
    asked: list[object] = []

    class Asked(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_FIND_LINKS"])
def test_a_blocked_name_is_asked_of_nobody_else(tmp_path: Path, world: World, name: str) -> None:
    """Denied here, offered by a second index in the environment: refused by the proxy, and the other is not asked."""
    file = world.publish("evil-demo")
    project = Project(tmp_path, world)
    denied = ClientPolicy(
        mode=Mode.OBSERVE, demands=read_demands({"deny": ["evil-*"]}), source="countermark.toml"
    )
    registry = project.machine.registry
    proxy = Proxy(
        registry, world, FileStore(tmp_path / "store"),
        policies=Policies(project=denied), clock=lambda: world.now, say=project.said.append,
    )  # fmt: skip

    def start(words: object, environment: Mapping[str, str]) -> int:
        """An installer: it asks every index that its environment names."""
        indexes = {
            v for k, v in environment.items() if k.startswith(("PIP_", "UV_")) and v.startswith("http")
        }
        for index in indexes:
            try:
                with urllib.request.urlopen(at(index, file), timeout=5):
                    return 0
            except (urllib.error.URLError, OSError):
                pass
        return 1

    with decoy() as (other, asked):
        finished = run.run_proxied(
            plan(["pip", "install", "evil-demo"], folder=project.folder),
            proxy, registry, environment={name: other}, say=project.said.append, start=start,
        )  # fmt: skip
    assert finished.exit_code == 1 and asked == []
    assert any("evil-demo is denied" in line for line in project.said)
    assert any(f"cleared {name}" in line for line in project.said)


def test_two_machines_that_are_told_two_histories_find_out(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """Each sees a log that is whole; the moment one meets what the other was told, the fork is evidence."""
    left, right = Machine(tmp_path / "left", world), Machine(tmp_path / "right", world)
    left.accept(wheel)
    right.accept(wheel)
    other = world.copy()
    ours = world.publish("acme-demo", "2.0")
    theirs = other.publish("acme-demo", "2.0", data=b"another history")
    other.publish("acme-demo", "3.0")  # larger and newer: nothing but the comparison of heads tells
    left.accept(ours)
    right.accept(theirs, world=other)
    error = left.refuse(7, "fork: at size", theirs, world=other)
    assert error.hint and "evidence" in error.hint
    right.refuse(7, "", ours)
