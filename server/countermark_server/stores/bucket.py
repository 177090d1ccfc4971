"""A bucket: both promises on S3-compatible storage (the extra `countermark-server[s3]`).

    PUT /registry/public/log/tile/0/000.p/3     If-None-Match: *         write once
    PUT /registry/public/log/checkpoint         If-Match: "<etag>"       replace what was looked at

A name is written once by a conditional create: of two writers one is first, the other gets 412, reads the bytes
back and compares. A name is replaced by a conditional put: a paused process that wakes cannot put an old
checkpoint over a newer one, since the value it looked at is gone. The server must know both headers; `check`
asks it, once at the start, and refuses one that ignores them.

An answer may be lost after the bytes were stored. Then the caller hears UnreachableError, which says nothing about
what was stored; doing the same again ends well, as after a crash. Requests are tried again for a few seconds
before that, and a repeated create that finds its own bytes is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from countermark.errors import UsageError
from countermark_server.stores.immutable import ConflictError, StoreError, checked_name
from countermark_server.stores.promises import Allowed

if TYPE_CHECKING:
    from obstore.store import S3Config  # has no name at run time

AT_ONCE = 16  # requests in flight for one call
REQUEST_SECONDS = 30
RETRY_SECONDS = 10  # a server that is silent for longer is reported, and the round tried again
RETRIES = 4
CHUNK = 1 << 20  # bytes
WHOLE = 16 << 20  # bytes of an object that is sent in one piece, and held in memory for it
PART, PARTS = (
    5 << 20,
    2,
)  # bytes of a part of a larger one (no service takes less), and how many are on their way
SWAPS = 20  # tries to replace a name that others replace beside us
_PROBE = ".countermark-probe"
# By a name: the headers that the object is served with (Content-Type, Cache-Control); None: the server's own.
Attributes = Callable[[str], dict[str, str] | None]


class UnreachableError(OSError):
    """The object store did not do what was asked, as far as we know; what was to be written may be there."""


def open_store(
    bucket: str, *, endpoint: str, region: str, access_key_id: str = "", secret_access_key: str = ""
) -> S3Store:
    """The bucket. Without keys, the usual AWS_* variables of the environment say who we are."""
    config: S3Config = {"region": region, "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if access_key_id:
        config["access_key_id"], config["secret_access_key"] = access_key_id, secret_access_key
    return S3Store(
        bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=5),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )


class Bucket:
    """The objects below one prefix of a bucket."""

    def __init__(self, store: S3Store, prefix: str, attributes: Attributes = lambda name: None) -> None:
        self._store = store
        self._attributes = attributes
        self.prefix = f"{checked_name(prefix)}/"

    def write(self, files: Mapping[str, bytes]) -> None:
        if len(files) == 1:
            ((name, data),) = files.items()
            return self._write(name, data)
        with ThreadPoolExecutor(min(AT_ONCE, max(1, len(files)))) as pool:
            # If we stop here some of the names exist, each of them whole; the next call writes the rest.
            writes = [pool.submit(self._write, name, data) for name, data in files.items()]
        errors = [error for write in writes if (error := write.exception()) is not None]
        for error in sorted(errors, key=lambda one: not isinstance(one, ConflictError)):
            raise error

    def prepare(self, files: Mapping[str, bytes]) -> None:
        """An object without a name is nowhere: there is nothing to do before `write`."""

    def write_open(self, files: Mapping[str, BinaryIO]) -> None:
        for name, file in files.items():
            self._write_open(name, file)

    def _write_open(self, name: str, file: BinaryIO) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with _talking(name):
                if size <= WHOLE:
                    obstore.put(self._store, self._key(name), file, mode="create", use_multipart=False)
                else:
                    self._write_parts(name, file)
        except AlreadyExistsError:
            file.seek(0)
            with self.open(name) as there:
                if _digest(there) != _digest(file):
                    raise ConflictError(f"{name} exists already with other bytes") from None

    def _write_parts(self, name: str, file: BinaryIO) -> None:
        """An object too large to be held in memory. AlreadyExistsError: it is there.

        No condition goes with parts. Two that write such a name at once both look before, and the later one's bytes
        stay: open files are blobs, named by the hash of their bytes, so these are the same.
        """
        with contextlib.suppress(NotFoundError, FileNotFoundError):
            obstore.head(self._store, self._key(name))
            raise AlreadyExistsError(name)
        # If we stop here, or before all parts are there, nothing has the name; the parts cost space until the
        # bucket's rule for unfinished uploads drops them.
        obstore.put(
            self._store, self._key(name), file, use_multipart=True, chunk_size=PART, max_concurrency=PARTS
        )

    def replace(self, name: str, data: bytes, allowed: Allowed | None = None) -> None:
        for _ in range(SWAPS):
            found, tag = self._read(name)
            if found == data:
                return  # also the end of a try whose answer was lost
            if allowed is not None:
                allowed(found)
            try:
                with _talking(name):
                    mode = "create" if tag is None else {"e_tag": tag}
                    self._put(name, data, mode)
            except (AlreadyExistsError, PreconditionError):
                continue  # somebody else was first: look again
            return
        raise UnreachableError(f"{name} was replaced by others {SWAPS} times")

    def read(self, name: str) -> bytes | None:
        return self._read(name)[0]

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with self._spooled(name) as copy:
            yield Path(copy.name)

    def open(self, name: str) -> BinaryIO:
        copy = self._spooled(name)
        copy.seek(0)
        return cast(BinaryIO, copy)

    def names(self, below: str) -> Iterator[str]:
        start = f"{self.prefix}{checked_name(below)}/" if below else self.prefix
        with _talking(start):
            found = obstore.list_with_delimiter(self._store, prefix=start)
        for item in found["objects"]:
            if item["path"].startswith(start):  # some servers name the emptied folder itself
                yield item["path"].removeprefix(self.prefix)

    def remove(self, name: str) -> None:
        with _talking(name), contextlib.suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._store, self._key(name))

    def check(self, nonce: str) -> None:
        """Refuse a server that ignores either condition: it would let two writers both be first."""
        name = f"{_PROBE}-{nonce}"
        put = self._put_probe(name)
        try:
            put(b"one", "create")
            with contextlib.suppress(AlreadyExistsError, PreconditionError):
                put(b"two", "create")
                raise UsageError("the object store ignores If-None-Match: names could be overwritten")
            tag = self._read(name)[1]
            put(b"two", {"e_tag": tag})
            with contextlib.suppress(PreconditionError):
                put(b"three", {"e_tag": tag})
                raise UsageError("the object store ignores If-Match: a checkpoint could go back")
        finally:
            self.remove(name)

    def _put_probe(self, name: str) -> Callable[[bytes, object], None]:
        def put(data: bytes, mode: object) -> None:
            with _talking(name):
                obstore.put(self._store, self._key(name), data, mode=mode, use_multipart=False)  # type: ignore[arg-type]

        return put

    def _write(self, name: str, data: bytes) -> None:
        try:
            with _talking(name):
                self._put(name, data, "create")
        except AlreadyExistsError:
            found = self.read(name)
            if found is None:
                raise UnreachableError(f"{name} was there and is gone") from None
            if found != data:
                raise ConflictError(
                    f"{name} exists already with other bytes ({len(found)} bytes, these are {len(data)})"
                ) from None

    def _put(self, name: str, data: bytes, mode: object) -> None:
        said = self._attributes(name)
        obstore.put(self._store, self._key(name), data, attributes=said, mode=mode, use_multipart=False)  # type: ignore[arg-type]

    def _read(self, name: str) -> tuple[bytes | None, str | None]:
        try:
            with _talking(name):
                answer = obstore.get(self._store, self._key(name))
                return bytes(answer.bytes()), answer.meta["e_tag"]
        except (NotFoundError, FileNotFoundError):
            return None, None

    def _spooled(self, name: str) -> tempfile._TemporaryFileWrapper[bytes]:
        copy = tempfile.NamedTemporaryFile(prefix="countermark-")  # noqa: SIM115 (the caller closes it)
        try:
            with _talking(name):
                for chunk in obstore.get(self._store, self._key(name)).stream():
                    copy.write(chunk)
            copy.flush()
        except BaseException:
            copy.close()
            raise
        return copy

    def _key(self, name: str) -> str:
        return self.prefix + checked_name(name)


@contextmanager
def _talking(name: str) -> Iterator[None]:
    """What the client library raises, in our words; answers that mean something pass."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError, StoreError):
        raise
    except (BaseError, OSError) as error:
        raise UnreachableError(f"{name}: {' '.join(itertools.islice(str(error).split(), 60))}") from error


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
