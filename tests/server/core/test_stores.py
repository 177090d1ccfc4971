"""Stores: immutable names stay, replaced names change as a whole, heads move by compare-and-swap."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from countermark_server import db, migrations
from countermark_server.stores import heads, immutable
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import ConflictError, StoreError
from countermark_server.stores.public import CHECKPOINT, Public


def stored(blobs: Blobs, name: str) -> Path:
    with blobs.local(name) as path:
        return path


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_blob_is_named_by_its_hash_and_read_only(tmp_path: Path) -> None:
    """The same bytes twice are one file, and it can't be written."""
    blobs = Blobs(tmp_path / "blobs")
    name = blobs.put(b"bytes")
    assert name == hashlib.sha256(b"bytes").hexdigest() == blobs.put(b"bytes")
    assert blobs.read(name) == b"bytes"
    assert stat.S_IMODE(stored(blobs, name).stat().st_mode) == 0o444
    assert len(files(tmp_path)) == 1


def test_a_swapped_blob_is_neither_read_nor_overwritten(tmp_path: Path) -> None:
    """Other bytes under a name: `read` and `put` say so, and the evidence stays where it is."""
    blobs = Blobs(tmp_path / "blobs")
    name = blobs.put(b"genuine")
    stored(blobs, name).chmod(0o644)
    stored(blobs, name).write_bytes(b"swapped")
    with pytest.raises(StoreError, match="other bytes"):
        blobs.read(name)
    with pytest.raises(ConflictError):
        blobs.put(b"genuine")
    assert list(files(tmp_path).values()) == [b"swapped"]


@pytest.mark.parametrize("name", ["", "ab", "../../etc/passwd", "A" * 64, "g" * 64])
def test_a_blob_name_that_is_no_sha256_is_refused(tmp_path: Path, name: str) -> None:
    """No name leads out of the store."""
    with pytest.raises(StoreError):
        Blobs(tmp_path).open(name)


def unlinked(folder: Path) -> BinaryIO:
    """A file that lost its name, as where the system knows no unnamed ones: no link leads to it any more."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    Path(name).unlink()
    return os.fdopen(descriptor, "w+b")


@pytest.mark.parametrize("make", [immutable.unnamed_file, unlinked])
def test_an_open_file_becomes_a_blob(
    tmp_path: Path, make: Callable[[Path], BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that arrived and bytes are kept together, each synced before it has its name, every folder after."""
    steps: list[str] = []
    real_sync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def link(source: str | Path, target: Path, **options: Any) -> None:
        real_link(source, target, **options)
        steps.append("name")

    arriving = make(tmp_path)
    number = os.fstat(arriving.fileno()).st_ino
    arriving.write(b"an artifact" * 500_000)
    artifact, small = (hashlib.sha256(data).hexdigest() for data in (b"an artifact" * 500_000, b"metadata"))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    Blobs(tmp_path / "blobs").keep({artifact: arriving, small: b"metadata"})
    at_name = [steps[:at] for at, step in enumerate(steps) if step == "name"]
    assert [before.count("file") - before.count("name") > 0 for before in at_name] == [True, True]
    assert "folder" not in steps[: steps.index("name")] and steps[-2:] == ["folder", "folder"]
    assert (
        steps[len(steps) - 1 - steps[::-1].index("name") :].count("folder") >= 3
    )  # two folders, and their root
    monkeypatch.undo()
    kept = files(tmp_path)
    assert sorted(kept.values()) == [b"an artifact" * 500_000, b"metadata"]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in kept} == {0o444}
    copied = number not in {(tmp_path / name).stat().st_ino for name in kept}
    assert copied == (make is unlinked)
    arriving.close()


def test_an_open_file_never_replaces_a_blob(tmp_path: Path) -> None:
    """A name in use: the same bytes are fine and nothing changes, others are a conflict and leave nothing."""
    blobs = Blobs(tmp_path / "blobs")
    name = blobs.put(b"genuine")
    with (
        immutable.unnamed_file(tmp_path) as same,
        immutable.unnamed_file(tmp_path) as other,
        immutable.unnamed_file(tmp_path) as longer,
    ):
        same.write(b"genuine")
        other.write(b"swapped")
        longer.write(b"genuine, and more")
        blobs.keep({name: same})
        for file in (other, longer):
            with pytest.raises(ConflictError):
                blobs.keep({name: file})
    assert list(files(tmp_path).values()) == [b"genuine"]


def test_names_that_nobody_synced_are_synced_by_who_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's sync failed, or its writer died before: the names are there, and now no power failure takes them."""
    written = {"log/tile/0/000.p/1": b"a", "log/tile/entries/000.p/1": b"b"}
    real, synced, failing = os.fsync, set[str](), True

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            synced.add(path.relative_to(tmp_path).as_posix())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    public = Public(tmp_path / "public")
    with pytest.raises(OSError, match="Input/output"):
        public.put_all(written)
    assert files(tmp_path / "public") == written
    failing = False
    public.put_all(written)
    folders = {folder.as_posix() for name in written for folder in Path("public", name).parents}
    assert synced == folders - {"."}


def test_public_files_never_change(tmp_path: Path) -> None:
    """The same bytes again are fine; other bytes are refused, and no file of that call is written over."""
    public = Public(tmp_path)
    public.put_all({"log/tile/0/000.p/1": b"a", "log/tile/entries/000.p/1": b"b"})
    before = files(tmp_path)
    public.put("log/tile/0/000.p/1", b"a")
    assert files(tmp_path) == before
    with pytest.raises(ConflictError, match="other bytes"):
        public.put_all({"log/tile/0/000.p/2": b"new", "log/tile/0/000.p/1": b"x"})
    assert files(tmp_path) == before


def test_equal_bytes_written_together_are_one_file_with_many_names(tmp_path: Path, monkeypatch) -> None:
    """Thousands of empty bins cost one sync; each has its own name, mode and bytes, and nothing else is left."""
    monkeypatch.setattr(immutable, "NAMES_MAX", 3)
    wanted = {f"tuf/1.bins-{number}.json": b"empty" for number in range(7)} | {"tuf/1.bins-8.json": b"other"}
    Public(tmp_path).put_all(wanted)
    assert files(tmp_path) == wanted
    inodes = {path: (tmp_path / path).stat().st_ino for path in wanted}
    assert len(set(inodes.values())) == 4 and inodes["tuf/1.bins-8.json"] not in list(inodes.values())[:7]
    assert {stat.S_IMODE((tmp_path / path).stat().st_mode) for path in wanted} == {0o444}


def test_only_the_three_named_files_are_replaced(tmp_path: Path) -> None:
    """`replace` refuses an immutable name, `put` a replaced one."""
    public = Public(tmp_path)
    public.replace(CHECKPOINT, b"one")
    public.replace(CHECKPOINT, b"two")
    with pytest.raises(StoreError):
        public.put(CHECKPOINT, b"three")
    with pytest.raises(StoreError):
        public.replace("tuf/1.root.json", b"x")
    assert files(tmp_path) == {CHECKPOINT: b"two"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "log/../../x", "", "log//x", "log/./x", "log/x/", ".new-x", "a/\0"]
)
def test_no_name_leads_out_of_the_public_tree(tmp_path: Path, name: str) -> None:
    """Reading and writing refuse every path that is not plain and relative."""
    public = Public(tmp_path / "public")
    with pytest.raises(StoreError):
        public.read(name)
    with pytest.raises(StoreError):
        public.put(name, b"x")
    assert files(tmp_path) == {}


@pytest.fixture
def engine(database_url: str):
    engine = db.open_engine(database_url)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


def head(size: int) -> heads.Head:
    return heads.Head("log.test/x", f"body {size}", size, b"e" * 32 * size.bit_count(), f"staged {size}")


def test_the_head_moves_only_from_what_it_is(engine) -> None:
    """A swap from an old head changes nothing and says that somebody else moved it."""
    with db.write(engine) as connection:
        heads.create(connection, head(0))
        heads.swap(connection, head(0), head(3))
    with pytest.raises(heads.HeadLostError), db.write(engine) as connection:
        heads.swap(connection, head(0), head(5))
    with db.read(engine) as connection:
        assert heads.load(connection, "log.test/x") == head(3)


def test_a_log_is_created_once(engine) -> None:
    """`create` on an existing log changes nothing; `load` never creates."""
    with db.read(engine) as connection:
        assert heads.load(connection, "log.test/x") is None
    with db.write(engine) as connection:
        heads.create(connection, head(2))
    with pytest.raises(heads.HeadExistsError), db.write(engine) as connection:
        heads.create(connection, head(0))
    with db.read(engine) as connection:
        assert heads.load(connection, "log.test/x") == head(2)


def test_applied_forgets_only_what_is_public(engine) -> None:
    """A newer staging bundle's name stays in the head."""
    with db.write(engine) as connection:
        heads.create(connection, head(2))
        heads.applied(connection, "log.test/x", 1)
        assert heads.load(connection, "log.test/x") == head(2)
        heads.applied(connection, "log.test/x", 2)
        found = heads.load(connection, "log.test/x")
    assert found is not None and found.staging is None
