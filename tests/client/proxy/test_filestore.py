"""filestore.py: a bound that holds while files come in, whoever reads meanwhile; and a disk that is full."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark import proxy as proxy_module
from countermark.clientpolicy import Policies
from countermark.filestore import STRAY_SECONDS, FileStore
from countermark.proxy import Proxy
from countermark.serving import Request, Response
from tests.machine import Machine
from tests.simulator import Published, World

BOUND = 64_000  # bytes


COUNT = 24  # releases of 8,000 bytes: three times what the store may hold


@pytest.fixture(scope="module")
def published() -> tuple[World, list[Published]]:
    world = World()
    return world, [world.publish("acme", f"{n}.0", data=bytes([n]) * 8000) for n in range(1, COUNT + 1)]


@pytest.fixture
def world(published: tuple[World, list[Published]]) -> World:
    return published[0].copy()


@pytest.fixture
def files(published: tuple[World, list[Published]]) -> list[Published]:
    return published[1]


@pytest.fixture
def machine(tmp_path: Path, world: World) -> Machine:
    return Machine(tmp_path / "home", world)


def proxy_of(machine: Machine, folder: Path, *, max_bytes: int = BOUND) -> Proxy:
    return Proxy(
        machine.registry, machine.world, FileStore(folder, max_bytes=max_bytes),
        policies=Policies(), clock=lambda: machine.world.now, say=lambda text: None,
    )  # fmt: skip


def install(proxy: Proxy, file: Published) -> bytes:
    answer = proxy.answer(Request("GET", f"/packages/{file.project}/{file.filename}"))
    assert answer.status == 200, answer
    return sent(answer)


def sent(answer: Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body.pieces)


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def put(store: FileStore, data: bytes) -> str:
    with store.incoming() as arriving:
        arriving.write(data)
        with store.keep(arriving) as file:
            assert file.read() == data
    return hashlib.sha256(data).hexdigest()


def test_the_store_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    """Its size is bounded; what is on its way has no name."""
    store = FileStore(tmp_path, max_bytes=25)
    hashes = []
    for number in range(3):
        with store.incoming() as arriving:
            arriving.write(bytes([number]) * 10)
            assert store.open(arriving.sha256) is None
            store.keep(arriving).close()
            hashes.append(arriving.sha256)
    kept = [store.open(sha256) for sha256 in hashes]
    assert kept[0] is None and kept[1] is not None and kept[2] is not None
    assert kept[2].read() == b"\x02" * 10
    for file in kept[1:]:
        file.close()  # type: ignore[union-attr]
    with pytest.raises(ValueError), store.incoming() as arriving:
        arriving.write(b"x")
        raise ValueError
    assert list((tmp_path / "incoming").iterdir()) == []


def test_installs_past_the_bound_all_arrive_and_the_bound_holds(
    tmp_path: Path, machine: Machine, files: list[Published]
) -> None:
    """Eight installers at once, each of all files, from two processes' stores in one folder: every byte is right."""
    folder, wrong = tmp_path / "store", list[str]()
    proxies = [proxy_of(machine, folder) for _ in range(2)]

    def all_of(number: int) -> None:
        for file in files[number:] + files[:number]:
            if install(proxies[number % 2], file) != file.data:
                wrong.append(file.filename)

    threads = [threading.Thread(target=all_of, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert 0 < kept(folder) <= BOUND + BOUND // 16  # the second store's share between two looks
    assert install(proxies[0], files[0]) == files[0].data


def test_a_file_larger_than_the_bound_is_served_and_drives_nobody_out(
    tmp_path: Path, machine: Machine, world: World, files: list[Published]
) -> None:
    """It is hashed like every other, and has no name afterwards."""
    folder, large = tmp_path / "store", world.publish("large", data=b"x" * (BOUND + 1))
    proxy = proxy_of(machine, folder)
    install(proxy, files[0])
    for _ in range(2):
        assert install(proxy, large) == large.data
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [files[0].sha256]
    world.packages[f"large/{large.filename}"] = b"y" * (BOUND + 1)
    answer = proxy.answer(Request("GET", f"/packages/large/{large.filename}"))
    assert answer.status == 409 and large.sha256 in sent(answer).decode()


def test_a_file_that_is_let_go_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was given it has it open; a name that goes meanwhile takes nothing from them."""
    store = FileStore(tmp_path, max_bytes=100)
    with store.incoming() as arriving:
        arriving.write(b"first" * 10)
        reader = store.keep(arriving)
    for number in range(4):
        put(store, bytes([number]) * 60)
    assert store.open(hashlib.sha256(b"first" * 10).hexdigest()) is None
    with reader:
        assert reader.read() == b"first" * 10
    sha256 = put(store, b"last")
    utime = os.utime

    def too_late(path: Path) -> None:
        path.unlink()
        utime(path)

    monkeypatch.setattr(os, "utime", too_late)
    file = store.open(sha256)
    assert file is not None
    with file:
        assert file.read() == b"last"


def test_the_whole_store_is_looked_through_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each of a thousand files: once, and then for each sixteenth of the bound."""
    looks: list[int] = []
    trim = FileStore._trim
    monkeypatch.setattr(FileStore, "_trim", lambda self: (looks.append(1), trim(self))[1])
    store = FileStore(tmp_path, max_bytes=16_000)
    for number in range(1000):
        put(store, number.to_bytes(2) * 5)
    assert 1 < len(looks) <= 12
    assert kept(tmp_path) <= 16_000


def test_what_a_killed_process_had_on_its_way_goes_after_a_day(tmp_path: Path) -> None:
    """Younger ones may be somebody's download."""
    store = FileStore(tmp_path)
    young, old = (tmp_path / "incoming" / name for name in ("young", "old"))
    for path, age in ((young, 0), (old, STRAY_SECONDS + 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    put(store, b"whole")
    assert young.exists() and not old.exists()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A disk without room: each byte meets ENOSPC, as the kernel says it."""

    def made(**where: Any) -> tuple[int, str]:
        is_here = "prefix" not in where  # the rest of the client writes elsewhere
        return (
            (os.open("/dev/full", os.O_WRONLY), str(where["dir"] / "full")) if is_here else mkstemp(**where)
        )

    mkstemp = tempfile.mkstemp
    monkeypatch.setattr("tempfile.mkstemp", made)
    yield monkeypatch


def test_a_full_disk_is_said_where_the_file_was_asked_for(
    tmp_path: Path, machine: Machine, files: list[Published], full: pytest.MonkeyPatch
) -> None:
    """Exit code 3 with what to do, nothing kept; with room again the same proxy serves it."""
    proxy = proxy_of(machine, tmp_path / "store")
    for _ in range(2):
        answer = proxy.answer(Request("GET", f"/packages/acme/{files[0].filename}"))
        problem = json.loads(sent(answer))
        assert answer.status == 403 and problem["code"] == "exit-3"
        assert (
            f"{files[0].filename}: this machine's disk does not take it: No space left" in problem["detail"]
        )
        assert "make room in" in problem["detail"]
    assert kept(tmp_path / "store") == 0
    full.undo()
    assert install(proxy, files[0]) == files[0].data and proxy.report().exit_code == 0


def test_a_disk_that_is_full_everywhere_is_no_connection_that_ends(
    machine: Machine, files: list[Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the view of the registry can be kept: exit code 3 at whatever the page names, and words."""
    proxy = proxy_of(machine, tmp_path / "store")

    def refuse(**where: Any) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    page = proxy.answer(Request("GET", "/simple/acme/", {"accept": "application/vnd.pypi.simple.v1+json"}))
    assert isinstance(page.body, bytes) and b"refused" in page.body
    answer = proxy.answer(Request("GET", "/packages/acme/acme-1.0+refused-py3-none-any.whl"))
    assert answer.status == 403 and "No space left" in str(answer.reason) and "exit-3" in str(answer.reason)


def test_a_large_file_passes_a_full_disk(
    tmp_path: Path, machine: Machine, world: World, full: pytest.MonkeyPatch
) -> None:
    """It needs none on its way through: hashed, its end held back, and refused when it is false."""
    full.setattr(proxy_module, "PROXY_WHOLE_BYTES", 100_000)
    good, bad = (world.publish("large", v, data=v.encode() * 100_000) for v in ("1.0", "2.0"))
    world.packages[f"large/{bad.filename}"] = b"9.9" * 100_000
    proxy = proxy_of(machine, tmp_path / "store")
    assert install(proxy, good) == good.data
    answer = proxy.answer(Request("GET", f"/packages/large/{bad.filename}"))
    with pytest.raises(Exception, match=r"the log says|entry #"):
        sent(answer)
    assert proxy.report().exit_code == 7


def test_metadata_passes_a_full_disk(
    tmp_path: Path, machine: Machine, files: list[Published], full: pytest.MonkeyPatch
) -> None:
    """It is in memory anyway."""
    proxy = proxy_of(machine, tmp_path / "store")
    assert proxy.answer(Request("GET", f"/packages/acme/{files[0].filename}.metadata")).status == 200


def test_a_store_that_cannot_be_read_is_this_machines_business(
    tmp_path: Path, machine: Machine, files: list[Published]
) -> None:
    """A folder in a file's place: refused with words, and not a connection that ends."""
    folder = tmp_path / "store"
    (folder / files[0].sha256[:2] / files[0].sha256).mkdir(parents=True)
    answer = proxy_of(machine, folder).answer(Request("GET", f"/packages/acme/{files[0].filename}"))
    assert answer.status == 403 and b"this machine's disk" in sent(answer)
