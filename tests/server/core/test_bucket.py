"""A bucket keeps both promises: names that stay, and values that move only from what was looked at."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import obstore
import pytest

from countermark.errors import UsageError
from countermark_server.settings import load
from countermark_server.stores import places
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.bucket import PART, WHOLE, Bucket, UnreachableError, open_store
from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import ConflictError, StoreError
from countermark_server.stores.promises import Place
from countermark_server.stores.public import CHECKPOINT, Public
from tests import s3

NUMBERS = itertools.count()


def file_of(data: bytes) -> BinaryIO:
    """An open file that has no name."""
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    return file


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Folder(tmp_path / "place")
    return s3.server().bucket(f"place-{next(NUMBERS)}")


def test_a_name_is_written_once(place: Place) -> None:
    """The same bytes again are fine; other bytes are refused, and the first ones stay."""
    place.write({"log/a": b"one", "log/b": b"two"})
    place.write({"log/a": b"one", "log/c": b"three"})
    with pytest.raises(ConflictError, match="other bytes"):
        place.write({"log/a": b"other"})
    with pytest.raises(ConflictError):
        place.write({"log/d": b"new", "log/a": b"other"})
    assert (place.read("log/a"), place.read("log/c"), place.read("log/none")) == (b"one", b"three", None)
    assert {"log/a", "log/b", "log/c"} <= set(place.names("log")) <= {"log/a", "log/b", "log/c", "log/d"}
    assert list(place.names("elsewhere")) == []


def test_of_many_writers_one_is_first(place: Place) -> None:
    """Sixteen at once, each with its own bytes: one wins, fifteen are told, the winner's bytes are there."""

    def write(number: int) -> int | None:
        try:
            place.write({"log/x": b"%d" % number})
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        won = [number for number in pool.map(write, range(16)) if number is not None]
    assert len(won) == 1
    assert place.read("log/x") == b"%d" % won[0]


@pytest.mark.parametrize("extra", [0, 1, PART])
def test_a_large_file_is_written_once_too(place: Place, extra: int) -> None:
    """In one piece or in parts: again is fine, other bytes are refused, and what came first stays, whole."""
    data = (bytes(range(251)) * ((WHOLE + PART) // 251 + 1))[: WHOLE + extra]
    for _ in range(2):
        place.write_open({"ab/large": file_of(data)})
    with pytest.raises(ConflictError, match="other bytes"):
        place.write_open({"ab/large": file_of(data[1:] + b"!")})
    assert place.read("ab/large") == data


def test_a_value_moves_only_from_what_was_looked_at(place: Place) -> None:
    """`allowed` sees the value that would be lost, and may refuse."""
    seen: list[bytes | None] = []
    place.replace("head", b"1", seen.append)
    place.replace("head", b"2", seen.append)
    assert (place.read("head"), seen) == (b"2", [None, b"1"])

    def never(_: bytes | None) -> None:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        place.replace("head", b"3", never)
    assert place.read("head") == b"2"


def test_of_two_who_count_none_overwrites_the_other(place: Place) -> None:
    """Look and new value are one step: every success is one more, whoever had it."""
    place.replace("head", b"0 nobody")

    def count(who: bytes) -> int:
        done = 0
        for _ in range(20):
            seen = place.read("head")
            assert seen is not None

            def same(found: bytes | None, seen: bytes = seen) -> None:
                if found != seen:
                    raise StoreError("another was first")
                time.sleep(0.001)  # time enough for the other to come in between

            with contextlib.suppress(StoreError):
                place.replace("head", b"%d %s" % (int(seen.split()[0]) + 1, who), same)
                done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        won = sum(pool.map(count, (b"ada", b"bob")))
    assert won >= 20 and (place.read("head") or b"").split()[0] == b"%d" % won


def test_a_rival_between_look_and_put_is_noticed() -> None:
    """The value that was looked at is gone: the put is refused by the server, and the look repeated."""
    bucket = s3.server().bucket(f"place-{next(NUMBERS)}")
    bucket.replace("head", b"1")
    seen: list[bytes | None] = []

    def slow(found: bytes | None) -> None:
        seen.append(found)
        if found == b"1":
            bucket.replace("head", b"2")  # the rival
        elif found == b"2":
            raise StoreError("a newer one is there")

    with pytest.raises(StoreError, match="newer"):
        bucket.replace("head", b"0", slow)
    assert (seen, bucket.read("head")) == ([b"1", b"2"], b"2")


def test_removing_twice_is_fine(place: Place) -> None:
    """Clean-up may repeat itself."""
    place.write({"a/b": b"x"})
    place.remove("a/b")
    place.remove("a/b")
    assert place.read("a/b") is None


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a//x", "a/./x", "a/x/", "a/\0"])
def test_no_name_leads_out(place: Place, name: str) -> None:
    """Reading and writing refuse every name that is not plain and relative."""
    with pytest.raises(StoreError):
        place.read(name)
    with pytest.raises(StoreError):
        place.write({name: b"x"})


def test_blobs_in_any_place(place: Place) -> None:
    """Named by their hash, streamed in and out; a swapped one is neither read nor written over."""
    blobs = Blobs(place)
    data = b"bytes" * 300_000
    name = blobs.put(data)
    assert name == hashlib.sha256(data).hexdigest() == blobs.put(data)
    with tempfile.TemporaryFile() as file:
        file.write(b"file")
        kept = hashlib.sha256(b"file").hexdigest()
        for _ in range(2):
            blobs.keep({kept: file, name: data})
    assert blobs.read(kept) == b"file"
    with blobs.open(name) as stream:
        assert stream.read(5) == b"bytes"
    with blobs.local(name) as path:
        assert path.read_bytes() == data
    assert blobs.read(name) == data
    with pytest.raises(StoreError, match="no blob"):
        blobs.open("a" * 64)
    with pytest.raises(FileNotFoundError), blobs.local("a" * 64):
        pass
    place.remove(f"{name[:2]}/{name}")
    place.write({f"{name[:2]}/{name}": b"swapped"})
    with pytest.raises(StoreError, match="other bytes"):
        blobs.read(name)
    with pytest.raises(ConflictError):
        blobs.put(data)
    assert place.read(f"{name[:2]}/{name}") == b"swapped"


def test_public_in_any_place(place: Place) -> None:
    """`replace` refuses an immutable name, `put` and `remove` a replaced one."""
    public = Public(place)
    public.put("log/tile/0/000.p/1", b"a")
    public.replace(CHECKPOINT, b"one")
    public.replace(CHECKPOINT, b"two")
    for refused in (
        lambda: public.put(CHECKPOINT, b"three"),
        lambda: public.remove(CHECKPOINT),
        lambda: public.replace("log/tile/0/000.p/1", b"x"),
    ):
        with pytest.raises(StoreError):
            refused()
    assert (public.read(CHECKPOINT), public.read("log/tile/0/000.p/1")) == (b"two", b"a")


def test_a_server_that_is_away_is_said_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known about what was to be written; what was written before is there again."""
    monkeypatch.setattr("countermark_server.stores.bucket.RETRIES", 1)
    bucket = s3.server().bucket(f"place-{next(NUMBERS)}")
    bucket.write({"a": b"1"})
    s3.server().kill()
    try:
        with pytest.raises(UnreachableError):
            bucket.read("a")
        with pytest.raises(UnreachableError):
            bucket.write({"b": b"2"})
    finally:
        s3.server().start()
    assert bucket.read("a") == b"1"
    bucket.write({"b": b"2"})
    assert bucket.read("b") == b"2"


def test_a_server_that_keeps_the_promises_passes(tmp_path: Path) -> None:
    """The check leaves nothing behind; a bucket that nobody may use is named."""
    bucket = s3.server().bucket(f"place-{next(NUMBERS)}")
    bucket.check("nonce")
    assert list(bucket.names("")) == []
    stranger = open_store(
        s3.BUCKET, endpoint=s3.server().endpoint, region="us-east-1", access_key_id="x", secret_access_key="y"
    )
    with pytest.raises(UnreachableError):
        Bucket(stranger, "x").check("nonce")


@pytest.mark.parametrize("ignored", ["create", "e_tag"])
def test_a_server_that_ignores_a_condition_is_refused(monkeypatch, ignored: str) -> None:
    """Two writers could both be first: the start ends here."""
    import obstore

    real = obstore.put

    def careless(store, path, data, *, mode, **options):
        if (mode == "create") == (ignored == "create"):
            mode = "overwrite"
        return real(store, path, data, mode=mode, **options)

    monkeypatch.setattr(obstore, "put", careless)
    with pytest.raises(UsageError, match="ignores If-"):
        s3.server().bucket(f"place-{next(NUMBERS)}").check("nonce")


def test_settings_say_where(tmp_path: Path) -> None:
    """`storage.bucket` moves public tree, blobs and staging; without it they are folders."""
    environment = s3.server().world()
    settings = load(tmp_path, environment)
    places.check(settings)
    name = places.blobs(settings).put(b"x")
    assert places.blobs(settings).read(name) == b"x"
    assert list(tmp_path.iterdir()) == []
    prefix = environment["COUNTERMARK_STORAGE_PREFIX"]
    assert s3.server().bucket(f"{prefix}/blobs").read(f"{name[:2]}/{name}") == b"x"
    plain = load(tmp_path, {})
    places.check(plain)
    places.blobs(plain).put(b"x")
    assert (tmp_path / "blobs" / name[:2] / name).read_bytes() == b"x"


def test_public_objects_say_how_they_are_served(tmp_path: Path) -> None:
    """Type and caching lie beside each object, so that a CDN before the bucket says what the application says."""
    environment = s3.server().world()
    public = places.public(load(tmp_path, environment))
    public.put_all({"log/tile/0/000.p/3": b"x" * 96, "log/tile/entries/000": b"y", "tuf/1.root.json": b"{}"})
    public.put("tuf/ceremony/1/transcript.jsonl", b"{}")
    for body in (b"one", b"two"):
        public.replace(CHECKPOINT, body)
    public.put("tuf/ceremony/2.root.json", b"waits")
    store = s3.server().bucket("any")._store
    immutable = "public, max-age=604800, immutable"
    expected = {
        "log/tile/0/000.p/3": ("application/octet-stream", immutable),
        "log/tile/entries/000": ("application/octet-stream", immutable),
        "tuf/1.root.json": ("application/json", immutable),
        "tuf/ceremony/1/transcript.jsonl": ("text/plain; charset=utf-8", immutable),
        CHECKPOINT: ("text/plain; charset=utf-8", "no-cache"),
    }
    prefix = environment["COUNTERMARK_STORAGE_PREFIX"]
    for name, said in expected.items():
        found = obstore.get(store, f"{prefix}/public/{name}").attributes
        assert (found["Content-Type"], found["Cache-Control"]) == said, name
    other = obstore.get(store, f"{prefix}/public/tuf/ceremony/2.root.json").attributes
    assert "Cache-Control" not in other
