"""disk.py: whole files, one writer at a time, and what a crash leaves behind."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from countermark import disk
from countermark.errors import NetworkError, UsageError


def test_replace_is_whole_and_private(tmp_path: Path) -> None:
    """The new content replaces the old one; nothing else stays in the folder; the mode is private."""
    path = tmp_path / "sub" / "file"
    disk.replace_file(path, b"one")
    disk.replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_failed_replace_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the rename fails, the old content and nothing else is there."""
    path = tmp_path / "file"
    disk.replace_file(path, b"one")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        disk.replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_create_never_overwrites(tmp_path: Path) -> None:
    """A second create is refused and changes nothing."""
    disk.create_file(tmp_path / "key", b"one")
    with pytest.raises(UsageError, match="already exists"):
        disk.create_file(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    """A missing file is None, a larger one than allowed is an error."""
    assert disk.read_file(tmp_path / "none", max_bytes=3) is None
    (tmp_path / "file").write_bytes(b"four")
    assert disk.read_file(tmp_path / "file", max_bytes=4) == b"four"
    with pytest.raises(UsageError, match="larger than 3"):
        disk.read_file(tmp_path / "file", max_bytes=3)


def test_a_working_copy_replaces_the_folder_only_on_success(tmp_path: Path) -> None:
    """An error inside the block throws the copy away; success swaps it in; strays never stay."""
    folder = tmp_path / "cache"
    with disk.working_copy(folder) as copy:
        (copy / "a").write_bytes(b"1")
    with pytest.raises(RuntimeError), disk.working_copy(folder) as copy:
        (copy / "a").write_bytes(b"2")
        raise RuntimeError
    assert (folder / "a").read_bytes() == b"1"
    with disk.working_copy(folder) as copy:
        (copy / "b").write_bytes(b"3")
    assert sorted(p.name for p in folder.iterdir()) == ["a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_crash_between_the_two_renames_is_repaired(tmp_path: Path) -> None:
    """When only the old folder is there, under its side name, it comes back."""
    folder = tmp_path / "cache"
    with disk.working_copy(folder) as copy:
        (copy / "a").write_bytes(b"1")
    folder.rename(tmp_path / ".cache.old")
    disk.recover_swap(folder)
    assert (folder / "a").read_bytes() == b"1"


def test_copies_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """Their names are ours alone, and whoever works on the folder holds its lock."""
    for name in (".tuf.k1ll3d", "tuf", "other"):
        (tmp_path / name).mkdir()
    with disk.working_copy(tmp_path / "tuf"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tuf"]


def test_a_lock_excludes_and_dies_with_its_process(tmp_path: Path) -> None:
    """Another process waits in vain while we hold the lock, and gets it when we were killed."""
    path = tmp_path / "lock"
    code = "import sys; from countermark.disk import locked; from pathlib import Path\n" + (
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(NetworkError, match="another process"), disk.locked(path, timeout=0.1):
        pass
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with disk.locked(path, timeout=5):
        pass


def test_home_is_where_the_environment_says() -> None:
    """COUNTERMARK_HOME wins over the platform's place."""
    assert disk.config_home({"COUNTERMARK_HOME": "/x"}) == Path("/x")
    assert disk.config_home({"XDG_CONFIG_HOME": "/y"}).name == "countermark"


class Windows:
    """As much of Windows as the client can tell: locks by msvcrt, and files that cannot be replaced while open."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.open: set[Path] = set()
        self.refused = 0
        self._replace = Path.replace

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError at once, as there

    def replace(self, source: Path, target: Path) -> Path:
        if self.open & {source, target}:
            self.refused += 1
            raise PermissionError(13, "Access is denied")
        return self._replace(source, target)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    windows = Windows()
    module = types.ModuleType("msvcrt")
    module.LK_NBLCK, module.locking = windows.LK_NBLCK, windows.locking  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msvcrt", module)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "replace", lambda source, target: windows.replace(source, Path(target)))
    return windows


def test_on_windows_a_file_that_is_open_is_replaced_when_it_is_let_go(
    windows: Windows, tmp_path: Path
) -> None:
    """A reader or a scanner delays a replace and does not fail it; who never lets go leaves the old bytes."""
    path = tmp_path / "timeline.json"
    disk.replace_file(path, b"one")
    windows.open.add(path)
    reader = threading.Timer(0.15, windows.open.clear)
    reader.start()
    disk.replace_file(path, b"two")
    reader.join()
    assert path.read_bytes() == b"two" and windows.refused > 1
    windows.open.add(path)
    with pytest.MonkeyPatch.context() as patience:
        patience.setattr(disk, "MOVE_PATIENCE", 0.1)
        with pytest.raises(PermissionError):
            disk.replace_file(path, b"three")
    assert path.read_bytes() == b"two" and [p.name for p in tmp_path.iterdir()] == ["timeline.json"]


def test_on_windows_a_folder_is_swapped_when_it_is_let_go(windows: Windows, tmp_path: Path) -> None:
    """The cache is exchanged as a whole, also when somebody looks into it at that moment."""
    folder = tmp_path / "tuf"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    windows.open.add(folder)
    reader = threading.Timer(0.15, windows.open.clear)
    reader.start()
    with disk.working_copy(folder) as copy:
        (copy / "a").write_bytes(b"new")
    reader.join()
    assert (folder / "a").read_bytes() == b"new" and windows.refused > 1
    assert [p.name for p in tmp_path.iterdir()] == ["tuf"]


def test_on_windows_locks_exclude(windows: Windows, tmp_path: Path) -> None:
    """The same promise by msvcrt: one at a time, and the next one after it."""
    lock = tmp_path / "lock"
    refused = pytest.raises(NetworkError, match="another process holds")
    with disk.locked(lock), refused, disk.locked(lock, timeout=0.1):
        pass
    with disk.locked(lock, timeout=0.1):
        pass


@pytest.mark.parametrize("name", ["con", "NUL.json", "aux.tar.gz", "com1", "lpt9.whl"])
def test_names_of_devices_get_a_dash(name: str) -> None:
    """On Windows `con.json` is the console; nothing else is renamed."""
    assert disk.safe_name(name) == f"-{name}"
    for other in ("console.json", "con-1.0.whl", "com0", "com10", "corp.json"):
        assert disk.safe_name(other) == other
