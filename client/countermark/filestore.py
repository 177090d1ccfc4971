"""The proxy's store: verified files on this disk, named by their hash, of a bounded size.

    <store>/58/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    <store>/incoming/                      what is on its way; nothing in it is ever served

    with store.incoming() as arriving:     written and hashed; keep() gives it its name, or it is gone
    store.open(sha256)                     hashed once more before a byte of it is read

A file gets its name only from who knows its hash and has compared. Reading compares again, so that a damaged disk
is a miss and not a refusal. When the store grows beyond its bound, what was not used for longest goes first.

The folder is trusted like the pins beside it: who can write it while a file is being served can change that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from countermark.limits import PROXY_STORE_BYTES

SMALL_BYTES = 256 * 1024  # read at once: hashing in pieces asks the system twice as often


class Incoming:
    """A file on its way: hashed as it is written."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path = file, path
        self.length = 0
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        self.file.write(piece)
        self._digest.update(piece)
        self.length += len(piece)

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

    def open(self, sha256: str) -> IO[bytes] | None:
        """The file with this hash, at its beginning; None when it is not here, or no longer what it was."""
        path = self._path(sha256)
        try:
            if (whole := _small(path)) is not None and hashlib.sha256(whole).hexdigest() == sha256:
                os.utime(path)
                return io.BytesIO(whole)
            file = path.open("rb")
        except FileNotFoundError:
            return None
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            file.close()
            path.unlink(missing_ok=True)
            return None
        os.utime(path)  # used now
        file.seek(0)
        return file

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A nameless file to write; it is gone at the end of the block unless it was kept."""
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        arriving = Incoming(os.fdopen(descriptor, "wb"), Path(name))
        try:
            yield arriving
        finally:
            arriving.file.close()
            arriving.path.unlink(missing_ok=True)

    def keep(self, arriving: Incoming) -> None:
        """Store what arrived under its hash, which the caller has compared with what it must be."""
        arriving.file.close()
        path = self._path(arriving.sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(PermissionError):  # the same file is being read, on Windows: it is there
            arriving.path.replace(path)
        self._trim()

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _trim(self) -> None:
        files = []
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            with contextlib.suppress(OSError):  # being read, on Windows
                path.unlink()
                total -= size


def _small(path: Path) -> bytes | None:
    """All of a small file, so that what is hashed is what is served; None of a larger one."""
    with path.open("rb", buffering=0) as file:
        found = file.read(SMALL_BYTES + 1)
    return found if len(found) <= SMALL_BYTES else None
