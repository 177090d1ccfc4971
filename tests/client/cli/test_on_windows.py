"""What people type, on a machine whose files behave as on Windows (tests/windows.py): no command trips over itself.

Every file that a command replaces, removes or renames must be closed by then, in this process, too, and have a name
that Windows takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.filestore import FileStore
from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)
from tests.client.cli.test_policy_commands import pylock
from tests.elsewhere import Elsewhere
from tests.project import Project
from tests.windows import Windows


@pytest.fixture
def windows(desk: Desk) -> Iterator[Windows]:  # noqa: F811
    desk.run("verify", desk.wheel)  # whatever is imported on the way is imported before the platform changes
    with Windows(desk.folder) as windows:
        yield windows


def test_verifying_again_and_again(desk: Desk, windows: Windows) -> None:  # noqa: F811
    """The cache is swapped, the memory grows, evidence is kept, and the next view is as good."""
    for version in ("2.0", "3.0"):
        file = desk.world.publish("acme-demo", version)
        path = desk.folder / file.filename
        path.write_bytes(file.data)
        desk.run("verify", path, desk.wheel)
    (held,) = (desk.folder / "home" / "registries").glob("*/timeline.json")
    desk.wheel.write_bytes(b"swapped")
    desk.run("verify", desk.wheel, expect=7)
    (kept,) = desk.json("evidence", "list")
    desk.run("evidence", "check", kept["file"])
    assert windows.refused == 0 and held.is_file()


def test_a_reader_of_the_cache_delays_and_spoils_nothing(desk: Desk, windows: Windows) -> None:  # noqa: F811
    """A file of it that somebody never lets go: said with its name, exit 2, and good again afterwards."""
    (cached,) = (desk.folder / "home" / "registries").glob("*/tuf/timestamp.json")
    with pytest.MonkeyPatch.context() as patience:
        patience.setattr("countermark.disk.MOVE_PATIENCE", 0.1)
        windows.hold(cached)
        desk.world.now += 1
        desk.world.heartbeat()
        desk.run("verify", desk.wheel, expect=2)
        assert "cannot access the file" in desk.err and windows.refused > 0
    windows.let_go()
    desk.run("verify", desk.wheel)
    assert sorted(path.name for path in cached.parent.parent.iterdir() if path.is_dir()) == ["tuf"]


def test_keys_of_any_name_that_is_allowed(
    desk: Desk,  # noqa: F811
    windows: Windows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that is a device: made, listed by its own name, and never made twice."""
    monkeypatch.setenv("COUNTERMARK_PASSPHRASE", "a long one")
    for name in ("publisher", "con", "com1"):
        desk.run("key", "new", "--name", name)
        desk.run("key", "new", "--name", name, expect=2)
    listed = desk.run("key", "list")
    assert all(name in listed.split() for name in ("publisher", "con", "com1"))
    assert windows.refused == 0


def test_bundles_of_both_kinds_locks_and_pins(desk: Desk, windows: Windows) -> None:  # noqa: F811
    """Made, replaced, and read without network; the namespace is one that Windows keeps for itself."""
    corp = Elsewhere(desk.world, "con").publish("another")
    desk.world.release()
    logged = desk.folder / corp.filename
    logged.write_bytes(corp.data)
    (desk.folder / "home" / "policy.toml").write_text('[[log-only]]\nnamespace = "con"\n')
    mode = ("--log-only", "--namespace", "con")
    for _ in range(2):
        desk.run("bundle", "make", "--replace", desk.wheel)
        desk.run("bundle", "make", "--replace", *mode, logged)
        desk.run("verify", *mode, logged)
    desk.run("bundle", "make", desk.wheel, expect=2)
    desk.run("pin", "update", "acme-demo", "--write")
    lock = pylock(desk.folder, desk.published)
    desk.run("lock", "annotate", lock, "--write")
    desk.world.down = lambda path: True
    desk.run("bundle", "verify", desk.wheel)
    desk.run("bundle", "verify", *mode, logged)
    assert windows.refused == 0


def test_trust_audits_and_installers(
    desk: Desk,  # noqa: F811
    windows: Windows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pinned, audited twice and from the start, an installer configured and undone, and started beside a lock."""
    root = desk.folder / "root.json"
    root.write_bytes(desk.world.root)
    desk.run("trust", "add", desk.world.base, "--root", root)
    for more in ((), (), ("--from-start",)):
        desk.run("audit", *more)
    pip = desk.folder / "pip.ini"
    for act in ("--write", "--write", "--undo"):
        desk.run("configure", "pip", act, "--file", pip)
    assert not pip.exists()
    (desk.folder / "sub").mkdir()
    lock = Project(desk.folder / "sub", desk.world).uv_lock(desk.published)
    monkeypatch.chdir(lock.parent)
    monkeypatch.setattr("countermark.run._start", lambda command, environment: 0)
    for _ in range(2):
        desk.run("run", "--json", desk.folder / "run.json", "--", "uv", "sync", "--frozen")
    assert windows.refused == 0


def test_a_bundle_of_the_longest_name(desk: Desk) -> None:  # noqa: F811
    """A file's name may be as long as a name can be, and its bundle's then has no room for the ending."""
    file = desk.world.publish("acme-demo", "1.0+" + "b" * (255 - len("acme_demo-1.0+-py3-none-any.whl")))
    assert len(file.filename) == 255
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    desk.run("bundle", "make", path)
    (made,) = (desk.folder / "countermark").iterdir()
    assert len(made.name) == 255 and made.name.endswith(".countermark")
    desk.run("bundle", "verify", path)


def test_the_proxys_store_while_its_files_are_read(desk: Desk, windows: Windows) -> None:  # noqa: F811
    """The same file comes in twice while it is served; one that is damaged while it is read is a miss."""
    store = FileStore(desk.folder / "files", max_bytes=10_000)
    readers = []
    for _ in range(2):
        with store.incoming() as arriving:
            arriving.write(b"x" * 1000)
            readers.append(store.keep(arriving))
    assert [reader.read() for reader in readers] == [b"x" * 1000] * 2
    name = arriving.sha256
    stored = desk.folder / "files" / name[:2] / name
    with stored.open("r+b") as damaged:
        damaged.write(b"y")
    assert store.open(name) is None and stored.exists()  # somebody reads it
    for reader in readers:
        reader.close()
    assert store.open(name) is None and not stored.exists()
    for number in range(20):  # past its bound, with a reader on the oldest
        with store.incoming() as arriving:
            arriving.write(bytes([number]) * 1000)
            store.keep(arriving).close()
        os.utime(desk.folder / "files" / arriving.sha256[:2] / arriving.sha256, (time.time() + number,) * 2)
    assert sum(path.stat().st_size for path in Path(desk.folder / "files").glob("??/*")) <= 10_000
