"""Stores: immutable names stay, replaced names change as a whole, heads move by compare-and-swap."""

from __future__ import annotations

import hashlib
import io
import stat
from pathlib import Path

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
    """Bytes and streams give the same name; the file can't be written."""
    blobs = Blobs(tmp_path / "blobs")
    name = blobs.put(b"bytes")
    assert name == hashlib.sha256(b"bytes").hexdigest() == blobs.put(io.BytesIO(b"bytes"))
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


def test_a_failing_source_leaves_no_blob(tmp_path: Path) -> None:
    """A stream that breaks off leaves nothing behind."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("gone")

    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(OSError, match="gone"):
        blobs.put(Broken())
    assert files(tmp_path) == {}


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


def test_applied_forgets_only_the_bundle_it_names(engine) -> None:
    """A newer staging bundle's name stays in the head."""
    with db.write(engine) as connection:
        heads.create(connection, head(2))
        heads.applied(connection, "log.test/x", "staged 1")
        assert heads.load(connection, "log.test/x") == head(2)
        heads.applied(connection, "log.test/x", "staged 2")
        found = heads.load(connection, "log.test/x")
    assert found is not None and found.staging is None
