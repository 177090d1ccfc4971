"""The proxy's store: verified files on this disk, named by their hash, of a bounded size.

    <store>/58/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    <store>/incoming/                      what is on its way; nothing in it is ever served

    with store.incoming() as arriving:     written and hashed; keep() gives it its name, or it is gone
        file = store.keep(arriving)        open at its beginning: it can be read whatever becomes of its name
    store.open(sha256)                     hashed once more before a byte of it is read

A file gets its name only from who knows its hash and has compared. Reading compares again, so that a damaged disk
is a miss and not a refusal. When the store grows beyond its bound, what was not used for longest goes first; a file
that alone is larger gets no name and drives nobody out. A disk that is full keeps nothing, and says so to who needs
the file from it; bytes that are on their way elsewhere go on, hashed all the same.

To look through the whole store takes a tenth of a second for some ten thousand files. So it is done for the first
file that a process keeps, and then whenever a sixteenth of the bound has come in: what other processes bring
meanwhile can exceed the bound by as much, each.

The folder is trusted like the pins beside it: who can write it while a file is being served can change that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from countermark.errors import NetworkError
from countermark.limits import PROXY_STORE_BYTES

SMALL_BYTES = 256 * 1024  # read at once: hashing in pieces asks the system twice as often
STRAY_SECONDS = 24 * 3600  # after which what is on its way belongs to a process that was killed


class Incoming:
    """A file on its way: hashed as it is written. `lost` is why the disk does not have it, if it has not."""

    def __init__(self, file: IO[bytes] | None, path: Path, lost: OSError | None = None) -> None:
        self.file, self.path = file, path
        self.length = 0
        self.lost = lost
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Hash and write; a disk that refuses is remembered, and what comes after is hashed alone."""
        self._digest.update(piece)
        self.length += len(piece)
        if self.file is not None and self.lost is None:
            try:
                self.file.write(piece)
            except OSError as error:
                self.lost = error

    def written(self) -> None:
        """All of it is on the disk, or a NetworkError that says why not."""
        if self.file is not None and self.lost is None:
            try:
                self.file.close()
            except OSError as error:  # what was buffered did not fit
                self.lost = error
        if self.lost is not None:
            raise NetworkError(
                f"this machine's disk does not take it: {self.lost.strerror or self.lost}",
                hint=f'make room in "{self.path.parent.parent}"',
            )

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._digest.hexdigest()


class FileStore:
    """One folder of verified files. Safe to share between threads and processes."""

    def __init__(self, folder: Path, *, max_bytes: int = PROXY_STORE_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._incoming = folder / "incoming"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._counting = threading.Lock()
        self._room: int | None = None  # bytes that may come in before the store is looked through again

    def open(self, sha256: str) -> IO[bytes] | None:
        """The file with this hash, at its beginning; None when it is not here, or no longer what it was."""
        path = self._path(sha256)
        try:
            if (whole := _small(path)) is not None and hashlib.sha256(whole).hexdigest() == sha256:
                _used(path)
                return io.BytesIO(whole)
            file = path.open("rb")
        except FileNotFoundError:
            return None
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            file.close()
            with contextlib.suppress(PermissionError):  # being read, on Windows: found again
                path.unlink(missing_ok=True)
            return None
        _used(path)
        file.seek(0)
        return file

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A nameless file to write; it is gone at the end of the block unless it was kept."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
        except OSError as error:
            yield Incoming(None, self._incoming / "none", error)
            return
        file = os.fdopen(descriptor, "wb")
        arriving = Incoming(file, Path(name))
        try:
            yield arriving
        finally:
            with contextlib.suppress(OSError):  # a disk that is full says it once more
                file.close()
            with contextlib.suppress(PermissionError):  # being read, on Windows: a stray from now on
                arriving.path.unlink(missing_ok=True)

    def keep(self, arriving: Incoming) -> IO[bytes]:
        """Store what arrived under its hash, which the caller has compared with what it must be.

        The file at its beginning, to be closed by the caller. NetworkError: the disk did not take it.
        """
        arriving.written()
        if arriving.length > self._max_bytes:
            return arriving.path.open("rb")
        path = self._path(arriving.sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if sys.platform == "win32":
            with contextlib.suppress(PermissionError):  # the same file is being read: it is there
                arriving.path.replace(path)
            file = path.open("rb")
        else:
            file = arriving.path.open("rb")  # before others can make it go
            arriving.path.replace(path)
        self._count(arriving.length)
        return file

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _count(self, length: int) -> None:
        """So much has come in; from time to time, or when it could be too much, the store is looked through."""
        with self._counting:
            if self._room is None or length >= self._room:
                self._room = self._trim()
            else:
                self._room -= length

    def _trim(self) -> int:
        """Let the longest unused go until some room is left; how much may come in before the next look."""
        files, total = [], 0
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
                total += about.st_size
        self._sweep()
        look = self._max_bytes // 16
        if total > self._max_bytes:
            for _, size, path in sorted(files):
                if total <= self._max_bytes - look:
                    break
                with contextlib.suppress(OSError):  # being read, on Windows
                    path.unlink(missing_ok=True)  # another process may look through it, too
                    total -= size
        return min(look, self._max_bytes - total)

    def _sweep(self) -> None:
        """What a process that was killed had on its way."""
        now = self._incoming.stat().st_mtime  # something has just left it
        for path in self._incoming.iterdir():
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > STRAY_SECONDS:
                    path.unlink()


def _used(path: Path) -> None:
    """It was used now. Its name may just have gone: who has it open reads it all the same."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def _small(path: Path) -> bytes | None:
    """All of a small file, so that what is hashed is what is served; None of a larger one."""
    with path.open("rb", buffering=0) as file:
        found = file.read(SMALL_BYTES + 1)
    return found if len(found) <= SMALL_BYTES else None
