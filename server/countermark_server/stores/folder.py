"""A folder: both promises on a file system (`immutable.py` says how files appear whole and durable)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from countermark_server.stores import syncs
from countermark_server.stores.immutable import (
    Prepared,
    checked_name,
    make_folders,
    name_file,
    replace_file,
    sync_folder,
    sync_open,
    write_files,
)
from countermark_server.stores.promises import Allowed


class Folder:
    """The files below one folder; a private one, when it has to be made, is for this account alone."""

    def __init__(self, root: Path, *, private: bool = False) -> None:
        self.root = root
        self._private = private
        self._prepared: Prepared | None = None  # of the one process and thread that prepares anything here

    def prepare(self, files: Mapping[str, bytes]) -> None:
        self._drop_prepared()
        self._prepared = Prepared(self.root, files)
        self._prepared.begin()

    def _drop_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.drop()

    def write(self, files: Mapping[str, bytes]) -> None:
        if self._private and not self.root.is_dir():
            self.root.mkdir(mode=0o700, parents=True)
            sync_folder(self.root.parent)
        if self._prepared is None or self._prepared.files != files:
            self._drop_prepared()  # what it was for did not happen
            return write_files(self.root, files)
        try:
            self._prepared.name()
        finally:
            self._drop_prepared()
        return None

    def write_open(self, files: Mapping[str, BinaryIO]) -> None:
        folders = set[Path]()
        syncs.together([partial(sync_open, file) for file in files.values()])
        for name, file in files.items():
            path = self.path(name)
            folders |= {path.parent, *make_folders(path.parent, self.root)}
            # If we stop here some of the names exist, each of them whole.
            name_file(file, path)
        syncs.together([partial(sync_folder, folder) for folder in folders])

    def replace(self, name: str, data: bytes, allowed: Allowed | None = None) -> None:
        path = self.path(name)
        if allowed is None:
            return replace_file(path, data)
        make_folders(path.parent, self.root)
        with _turn(path.parent):  # between the look and the new value nobody else of this machine replaces it
            allowed(self.read(name))
            replace_file(path, data)
        return None

    def read(self, name: str) -> bytes | None:
        try:  # a Path for each, and a buffer, would cost more than a small file
            with FileIO(f"{self.root}/{checked_name(name)}") as file:
                return file.readall()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        path = self.path(name)
        path.stat()
        yield path

    def open(self, name: str) -> BinaryIO:
        return self.path(name).open("rb")

    def names(self, below: str) -> Iterator[str]:
        start = self.path(below) if below else self.root
        for path in start.iterdir() if start.is_dir() else ():
            if path.is_file() and not path.name.startswith(".new-"):
                yield path.relative_to(self.root).as_posix()

    def remove(self, name: str) -> None:
        """Forget a file, and the folder of partial tiles that it was the last of; the power may bring it back."""
        path = self.path(name)
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".p"):
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def path(self, name: str) -> Path:
        """Where the file lies; never outside of this folder."""
        return self.root / checked_name(name)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Alone among those who take turns on this folder; whoever dies lets go."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
