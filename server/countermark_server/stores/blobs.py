"""Blobs: bytes that never change, named by their SHA-256.

    blobs/9f/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Artifacts, their metadata files and findings live here. `put` returns the name; the same bytes twice are one
blob. A reader that relies on the bytes hashes them: whoever can write this folder can swap a file (the third
act of `make demo` does), and the log, not the file system, is what says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import MODE, StoreError, make_folders
from countermark_server.stores.promises import Once

CHUNK = 1 << 20  # bytes
_NAME = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """Blobs in one place."""

    def __init__(self, place: Once | Path) -> None:
        self._place: Once = Folder(place) if isinstance(place, Path) else place

    def put(self, source: BinaryIO | bytes) -> str:
        """Keep these bytes durably; returns their SHA-256 in hex. A stream is read from where it stands."""
        folder = None  # a bucket's temporary files may lie anywhere; a folder's beside their final names
        if isinstance(self._place, Folder):
            folder = self._place.root
            make_folders(folder, folder.parent)
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                sha256 = _copy(source, stream)
                stream.flush()
                os.fchmod(descriptor, MODE)
                os.fsync(descriptor)
            self._place.write_file(_name(sha256), temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def open(self, sha256: str) -> BinaryIO:
        """The blob as a stream; StoreError when there is none."""
        try:
            return self._place.open(_name(sha256))
        except FileNotFoundError:
            raise StoreError(f"no blob {sha256}") from None

    def read(self, sha256: str) -> bytes:
        """The whole blob, hashed again; StoreError when it is missing or its bytes were changed."""
        with self.open(sha256) as stream:
            data = stream.read()
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise StoreError(f"blob {sha256} holds other bytes, their SHA-256 is {found}")
        return data

    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """The blob as a file of this machine, for the length of the block. FileNotFoundError: there is none."""
        return self._place.local(_name(sha256))


def _name(sha256: str) -> str:
    if not _NAME.fullmatch(sha256):
        raise StoreError(f"{sha256!r} is not a SHA-256 in hex")
    return f"{sha256[:2]}/{sha256}"


def _copy(source: BinaryIO | bytes, target: BinaryIO) -> str:
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        digest.update(source)
        target.write(source)
        return digest.hexdigest()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
