"""Immutable files: a name is written once, whole, durably, and stays.

    write_files(Path("public/log"), {"tile/0/000.p/3": hashes, "tile/entries/000.p/3": entries})

A file appears under its name only when all its bytes are on the disk: they are written beside it under a
temporary name, synced, and linked. A link never replaces, so of two writers of one name one is first and the
other finds the file there; it compares, and bytes that differ are a ConflictError. Nothing is overwritten.

Several files of one round are synced together: every file, then every folder once, each group at the same time
(syncs.py). If the power fails in between, any subset of the names exists, each of them whole; writing the same files
again completes them, and syncs the folders of those that are there: who gave them their names may not have come so
far. Whoever knows early what it will write may have the bytes synced ahead (`Prepared`): until it gives them their
names, readers see nothing, and a crash leaves temporary files.
Files of equal bytes (a new registry has thousands of empty bins) are one synced file with several names, which
is what a file that never changes may be.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from countermark_server.contradiction import ContradictionError
from countermark_server.stores import syncs

MODE = 0o444
CHUNK = 1 << 20  # bytes
OPEN_MAX = 64  # files written and not synced: they keep a descriptor
NAMES_MAX = 1000  # of one file; ext4 allows 65,000, others less
_NUMBERS = count(secrets.randbits(64))  # of temporary files: no two processes begin near each other


class StoreError(ContradictionError):
    """A store does not hold what it must, or was asked for what it must not do."""


class ConflictError(StoreError):
    """A name that never changes was to be given other bytes. Nothing was written under it."""


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Make every file exist under `root` with exactly these bytes, durably. ConflictError: one differs."""
    prepared = Prepared(root, files)
    try:
        prepared.name()
    finally:
        prepared.drop()


class Prepared:
    """Files whose bytes are written, under temporary names; `name` makes them exist, `drop` ends with them.

    ConflictError, here or in `name`: a name has other bytes already. Nothing was written under any name.
    """

    def __init__(self, root: Path, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._waiting: list[tuple[str, str]] = []
        self._named_in: set[str] = set()  # folders
        self._folders: set[Path] = set()
        self._open: list[int] = []  # descriptors of what is not synced
        self._synced: syncs.Call | None = None
        written: dict[tuple[str, bytes], list[str]] = {}  # the temporary file, once for each name it gets
        found_in = set[str]()  # folders with files that are there
        try:
            for name, data in files.items():
                # Plain text: a Path for each of a thousand names costs more than its file.
                path = f"{root}/{checked_name(name)}"
                folder = path.rpartition("/")[0]
                if _is_there(path, data):
                    if folder not in found_in:
                        self._folders |= _down_to(Path(folder), root)
                        found_in.add(folder)
                    continue
                if folder not in self._named_in:
                    self._folders |= make_folders(Path(folder), root)
                    self._named_in.add(folder)
                same = written.setdefault((folder, data), [])
                fresh = len(same) % NAMES_MAX == 0
                same.append(self._temporary(folder, data) if fresh else same[-1])
                self._waiting.append((same[-1], path))
        except BaseException:
            self.drop()
            raise

    def _temporary(self, folder: str, data: bytes) -> str:
        if len(self._open) == OPEN_MAX:
            self.begin()
            self._wait()
        descriptor, name = _write_temporary(folder, data)
        self._open.append(descriptor)
        return name

    def begin(self) -> None:
        """Start to sync the bytes; whoever waits for something else meanwhile need not wait for them."""
        opened, self._open = self._open, []
        if opened:
            self._synced = syncs.begin([partial(_sync_closing, descriptor) for descriptor in opened])

    def _wait(self) -> None:
        synced, self._synced = self._synced, None
        if synced is not None:
            synced()
        opened, self._open = self._open, []
        syncs.together([partial(_sync_closing, descriptor) for descriptor in opened])

    def name(self) -> None:
        """Give the files their names, durably."""
        self._wait()
        for temporary, path in self._waiting:
            # If we stop here some of the names exist, each of them whole; the next call writes the rest.
            link_once(temporary, path)
        named_in = map(Path, self._named_in if self._waiting else ())
        syncs.together([partial(sync_folder, folder) for folder in self._folders.union(named_in)])
        # Durable. If we stop here nothing of these files can be lost by a power failure.

    def drop(self) -> None:
        """Forget what has no name yet."""
        for descriptor in self._open:
            os.close(descriptor)
        for temporary, _ in self._waiting:
            _unlink(temporary)
        self._open, self._waiting = [], []


def replace_file(path: Path, data: bytes) -> None:
    """Give `path` new content as a whole, durably; readers see the old bytes or the new."""
    make_folders(path.parent, path.parent)
    descriptor, name = _write_temporary(str(path.parent), data)
    try:
        _sync_closing(descriptor)
        Path(name).replace(path)
    except BaseException:
        _unlink(name)
        raise
    sync_folder(path.parent)


def link_once(temporary: str, path: str) -> None:
    """Give a finished temporary file its name, unless the name is taken: then its bytes must be the same."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        with Path(temporary).open("rb") as file:
            _check_same(file, Path(path))


def unnamed_file(folder: Path) -> BinaryIO:
    """A new file in `folder` that has no name, and is gone when it is closed, unless `name_file` gave it one."""
    try:
        # Not tempfile's: its O_EXCL means that the file shall never get a name.
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    except OSError:  # a file system that has no such files
        made: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        return made


def sync_open(file: BinaryIO) -> None:
    """Bring the bytes of an open file to the disk; nobody writes to it any more."""
    file.flush()
    descriptor = file.fileno()
    os.fchmod(descriptor, MODE)
    os.fsync(descriptor)


def name_file(file: BinaryIO, path: Path) -> None:
    """Give an open file its name, once it was synced (`sync_open`); `link_once` says what happens to a name in use.

    An `unnamed_file` gets its first name here, without a copy, when it lies on the same file system. Elsewhere, and
    where the file system has no such files, a copy of it gets the name.
    """
    descriptor = file.fileno()
    try:
        # The descriptor stands for a folder that an absolute path needs none of: it makes Python call linkat,
        # which alone goes on to the file itself from what looks like a link.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    except FileExistsError:
        _check_same(file, path)
    except (OSError, NotImplementedError):
        _copy_once(file, path)


def _copy_once(file: BinaryIO, path: Path) -> None:
    file.seek(0)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            shutil.copyfileobj(file, stream, CHUNK)
            stream.flush()
            os.fchmod(descriptor, MODE)
            os.fsync(descriptor)
        link_once(name, str(path))
    finally:
        _unlink(name)


def _check_same(file: BinaryIO, path: Path) -> None:
    file.seek(0)
    with path.open("rb") as there:
        while (ours := file.read(CHUNK)) == there.read(CHUNK):
            if not ours:
                return
    raise ConflictError(f"{path.name} exists already with other bytes")


def _write_temporary(folder: str, data: bytes) -> tuple[int, str]:
    """A temporary file in `folder`, open and not synced; no reader takes a name with a dot for one of ours."""
    descriptor, name = _make_temporary(folder)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fchmod(descriptor, MODE)
    except BaseException:
        os.close(descriptor)
        _unlink(name)
        raise
    return descriptor, name


def _make_temporary(folder: str) -> tuple[int, str]:
    """A new file that nobody else has. (`tempfile.mkstemp` takes longer for each than the file does.)"""
    while True:
        name = f"{folder}/.new-{next(_NUMBERS):x}"
        try:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), name
        except FileExistsError:
            continue  # the parent of this process made it, or one that died: the next number


def _unlink(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # noqa: PTH108  (nothing but the call)


def _sync_closing(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, root: Path) -> set[Path]:
    """Make `folder` and what is missing above it, down from `root`; returns the folders to sync for that."""
    changed: set[Path] = set()
    missing = folder
    while not missing.is_dir():
        changed.add(missing.parent)
        if missing == root:
            break
        missing = missing.parent
    if changed:
        folder.mkdir(parents=True, exist_ok=True)
    return changed


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checked_name(name: str) -> str:
    """`name` if it is a plain relative path: nothing a store writes or reads lies outside of it."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") or part.startswith(".new-") for part in parts):
        raise StoreError(f"{name!r} is not a path inside a store")
    return name


def _down_to(folder: Path, root: Path) -> set[Path]:
    """The folders from `root` down to this one."""
    return {each for each in (folder, *folder.parents) if each.is_relative_to(root)}


def _is_there(path: str, data: bytes) -> bool:
    if not os.access(path, os.F_OK):
        return False
    found = Path(path).read_bytes()
    if found != data:
        name = path.rpartition("/")[2]
        raise ConflictError(
            f"{name} exists already with other bytes ({len(found)} bytes, these are {len(data)})"
        )
    return True
