"""Blobs: bytes that never change, named by their SHA-256.

    blobs/9f/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Artifacts, their metadata files and findings live here. `put` returns the name; the same bytes twice are one
blob. A reader that relies on the bytes hashes them: whoever can write this folder can swap a file (the third
act of `make demo` does), and the log, not the file system, is what says so.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO

from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import StoreError, make_folders, unnamed_file
from countermark_server.stores.promises import Once

_NAME = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """Blobs in one place."""

    def __init__(self, place: Once | Path) -> None:
        self._place: Once = Folder(place) if isinstance(place, Path) else place

    def put(self, source: bytes) -> str:
        """Keep these bytes durably; returns their SHA-256 in hex."""
        sha256 = hashlib.sha256(source).hexdigest()
        self.keep({sha256: source})
        return sha256

    def keep(self, files: Mapping[str, BinaryIO | bytes]) -> None:
        """Keep all of these durably, each under the SHA-256 that its maker computed.

        A file is one that had no name and is not written to any more. Its bytes are not read again for this: the
        caller vouches for the digest, and every reader checks it.
        """
        with ExitStack() as until:
            opened = dict[str, BinaryIO]()
            for sha256, source in files.items():
                if isinstance(source, bytes):
                    file = until.enter_context(self._temporary())
                    file.write(source)
                else:
                    file = source
                opened[_name(sha256)] = file
            self._place.write_open(opened)

    def _temporary(self) -> BinaryIO:
        if not isinstance(self._place, Folder):
            return tempfile.TemporaryFile()
        folder = self._place.root  # where a file can get its name without a copy
        make_folders(folder, folder.parent)
        return unnamed_file(folder)

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
