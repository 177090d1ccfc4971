"""disk.py: whole files, one writer at a time, and what a crash leaves behind."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark import disk
from countermark.errors import NetworkError, UsageError
from countermark.folder import lent
from tests.windows import Windows


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


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[Windows]:
    with Windows(tmp_path) as windows:
        yield windows


def test_on_windows_a_file_that_is_open_is_replaced_when_it_is_let_go(
    windows: Windows, tmp_path: Path
) -> None:
    """A reader or a scanner delays a replace and does not fail it; who never lets go leaves the old bytes."""
    path = tmp_path / "timeline.json"
    disk.replace_file(path, b"one")
    windows.hold(path)
    reader = threading.Timer(0.15, windows.let_go)
    reader.start()
    disk.replace_file(path, b"two")
    reader.join()
    assert path.read_bytes() == b"two" and windows.refused > 1
    windows.hold(path)
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
    windows.hold(folder)
    reader = threading.Timer(0.15, windows.let_go)
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


def test_on_windows_a_file_is_removed_and_read_when_it_is_let_go(windows: Windows, tmp_path: Path) -> None:
    """By whoever has it open, and that may be this process; a link to nothing more is no error."""
    path = tmp_path / "key.json"
    disk.replace_file(path, b"one")
    stream = path.open("rb")
    reader = threading.Timer(0.15, stream.close)
    reader.start()
    disk.remove_file(path)
    reader.join()
    assert not path.exists() and windows.refused > 1
    disk.remove_file(path)


def test_on_windows_what_a_swap_left_behind_goes_when_it_is_let_go(windows: Windows, tmp_path: Path) -> None:
    """A file of the old cache that is still being read is waited for, and never in the next one's way."""
    folder = tmp_path / "tuf"
    (tmp_path / ".tuf.old").mkdir()
    (tmp_path / ".tuf.old" / "bin").write_bytes(b"older")
    folder.mkdir()
    (folder / "bin").write_bytes(b"old")
    stream = (tmp_path / ".tuf.old" / "bin").open("rb")
    reader = threading.Timer(0.15, stream.close)
    reader.start()
    with disk.working_copy(folder) as copy:
        (copy / "bin").write_bytes(b"new")
    reader.join()
    assert (folder / "bin").read_bytes() == b"new" and windows.refused > 1
    assert [p.name for p in tmp_path.iterdir()] == ["tuf"]


def test_on_windows_a_folder_in_a_files_place_is_said_at_once(windows: Windows, tmp_path: Path) -> None:
    """Its error there is the one of a file that is open; nobody waits for a folder to be let go."""
    (tmp_path / "timeline.json").mkdir()
    began = time.monotonic()
    with pytest.raises(UsageError, match="is a directory"):
        disk.replace_file(tmp_path / "timeline.json", b"x")
    with pytest.raises(UsageError, match="is a directory"):
        disk.read_file(tmp_path / "timeline.json", max_bytes=9)
    assert time.monotonic() - began < disk.MOVE_PATIENCE and windows.refused == 0
    assert [p.name for p in tmp_path.iterdir()] == ["timeline.json"]


def test_on_windows_names_that_differ_in_case_are_one(windows: Windows, tmp_path: Path) -> None:
    """Nothing is overwritten there either; and the simulation can tell: the test of the test."""
    disk.create_file(tmp_path / "Key.json", b"one")
    with pytest.raises(UsageError, match="already exists"):
        disk.create_file(tmp_path / "key.json", b"two")
    assert disk.read_file(tmp_path / "KEY.JSON", max_bytes=9) == b"one"
    for name in ("a:b", "nul.json", "ends.", "LPT\xb9"):
        with pytest.raises(OSError, match="syntax is incorrect"):
            (tmp_path / name).write_bytes(b"")


@pytest.mark.parametrize(
    "name", ["con", "NUL.json", "aux.tar.gz", "com1", "lpt9.whl", "CONOUT$", "prn .txt", "-con"]
)
def test_names_of_devices_get_a_dash(name: str) -> None:
    """On Windows `con.json` is the console; nothing else is renamed."""
    assert disk.safe_name(name) == f"-{name}"
    for other in ("console.json", "con-1.0.whl", "com0", "com10", "corp.json", "x.con"):
        assert disk.safe_name(other) == other


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a:b", "a%3Ab"),
        ("../x", "..%2Fx"),
        ("..", ".%2E"),
        (".", "%2E"),
        ("", "%"),
        ("%", "%25"),
        ("dot.", "dot%2E"),
        ("blank ", "blank%20"),
        ("a\\b\0\n\x7f", "a%5Cb%00%0A%7F"),
        ('<>"|?*', "%3C%3E%22%7C%3F%2A"),
        ("COM\xb9", "COM%C2%B9"),
        ("\u00e9", "%C3%A9"),  # macOS would keep it in another spelling
        ("lone \udc80", "lone %ED%B2%80"),
        ("acme_demo-1!2.0+local.1-py3-none-any.whl", "acme_demo-1!2.0+local.1-py3-none-any.whl"),
    ],
)
def test_what_no_name_may_hold_is_spelled_otherwise(name: str, safe: str) -> None:
    """Characters and ends; what is legal in a distribution's name is legal everywhere."""
    assert disk.safe_name(name) == safe


def test_a_name_that_is_too_long_is_cut_in_its_middle() -> None:
    """255 bytes fit, and 256 do not: beginning and ending stay, and a digest keeps it apart from others."""
    ending = ".whl.log-only.countermark"
    assert disk.safe_name("x" * 255) == "x" * 255 and len(disk.safe_name("x" * 256)) == 255
    longer = {disk.safe_name(f"{'x' * 300}{n}{'y' * 300}{ending}") for n in range(9)}
    assert len(longer) == 9 and {len(name) for name in longer} == {255}
    assert all(name.startswith("xxx") and name.endswith(ending) for name in longer)
    assert len(disk.safe_name("\u00e9" * 100)) == 255


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=6) | st.sampled_from(["con", "-con", "a.", "a%2E", "COM\xb9"]), unique=True))
def test_two_names_never_become_one_and_every_name_can_be_made(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """Whatever they are, also where the names of files are those of Windows."""
    safe = [disk.safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    folder = tmp_path_factory.mktemp("names")
    with Windows(folder):
        for name in safe:
            (folder / name).write_bytes(b"")


def test_a_long_name_is_replaced_and_created(tmp_path: Path) -> None:
    """The name of what is written first has no room for all of it."""
    for act in (disk.replace_file, disk.create_file):
        path = tmp_path / ("x" * 250 + act.__name__[:3])
        act(path, b"one")
        assert path.read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2


# Names of files that are put together from something and not by `safe_name`, with what they are made of.
PUT_TOGETHER = {
    ("audit", "f'{hashlib.sha256(ground.trust_file.origin.encode()).hexdigest()[:16]}.sqlite'"): "a digest",
    ("binfiles", "f'{role}.json'"): "a bin, as a signature under the pinned root names it; read alone",
    ("binfiles", "f'{TILES}/{name}'"): "a hash; read alone",
    ("disk", "f'.{folder.name}.old'"): "a folder of ours",
    ("evidence", "f'{evidence.kind.value}-{identity}.json'"): "a word of ours and a digest",
    ("installed", "f'{entry.name}.exe'"): "what an installer made; read alone",
    ("installed", "f'{match['stem']}.py'"): "what an installer made; read alone",
    ("moment", "f'{role}.json'"): "a word of ours; read alone",
    ("pins", "f'{version}.root.json'"): "a number",
    ("session", "f'{FILE}.lock'"): "a word of ours",
    ("trust", "f'{role}.json'"): "a bin, as a signature under the pinned root names it; read alone",
}


def put_together(source: str) -> Iterator[str]:
    """What stands behind `path /`, in `with_name(...)` or `read(...)`, put together; each quote is a single one."""
    for node in ast.walk(ast.parse(source)):
        found: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            found = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found = node.args if node.func.attr in ("with_name", "with_stem", "joinpath", "read") else []
        yield from (ast.unparse(each).replace('"', "'") for each in found if isinstance(each, ast.JoinedStr))


def test_names_that_came_from_elsewhere_are_made_safe() -> None:
    """A file that is named after a project, a namespace, a key or another file is named by `safe_name`."""
    sources = {path.stem: path.read_text("utf-8") for path in Path(disk.__file__).parent.glob("*.py")}
    found = {(module, each) for module, source in sources.items() for each in put_together(source)}
    assert found == PUT_TOGETHER.keys()
    assert list(put_together("folder / f'{project}.json'; path.with_name(f'{n}.old')")) == [
        "f'{project}.json'", "f'{n}.old'",
    ]  # fmt: skip


# --- a folder that is mostly read ---------------------------------------------------------------------------


def test_a_lent_folder_is_copied_before_the_first_byte_is_written(tmp_path: Path) -> None:
    """Read where it lies; written into a copy, which replaces it at a good end and is thrown away at a bad one."""
    home = tmp_path / "tuf"
    home.mkdir()
    (home / "a").write_bytes(b"old")
    inode = home.stat().st_ino
    with lent(home) as folder:
        assert folder.read("a", max_bytes=9) == b"old" and folder.path == home
    assert home.stat().st_ino == inode and [path.name for path in tmp_path.iterdir()] == ["tuf"]
    with pytest.raises(ZeroDivisionError), lent(home) as folder:
        (folder.own() / "a").write_bytes(b"new")
        assert folder.read("a", max_bytes=9) == b"new" and (home / "a").read_bytes() == b"old"
        raise ZeroDivisionError
    assert (home / "a").read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["tuf"]
    with lent(home) as folder:
        assert folder.own() == folder.own() != home
        (folder.own() / "a").write_bytes(b"new")
    assert (home / "a").read_bytes() == b"new" and [path.name for path in tmp_path.iterdir()] == ["tuf"]


def test_a_lent_folder_reads_plain_files_alone(tmp_path: Path) -> None:
    """No link is followed, no pipe waited for; a folder that is a link itself is not read at all."""
    home = tmp_path / "tuf"
    home.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"x")
    (home / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(home / "pipe")
    (home / "folder").mkdir()
    with lent(home) as folder:
        for name in ("link", "pipe", "folder", "nothing", "folder/nothing"):
            assert folder.read(name, max_bytes=9) is None
    (tmp_path / "linked").symlink_to(home)
    with lent(tmp_path / "linked") as folder:
        assert folder.path not in (home, tmp_path / "linked") and not list(folder.path.iterdir())
    (home / "within").symlink_to(tmp_path)
    with lent(home, within=("within",)) as folder:
        assert folder.path != home and folder.read("within/elsewhere", max_bytes=9) is None
