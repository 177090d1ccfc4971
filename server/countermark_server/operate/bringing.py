"""`import --files DIR`: the bytes of imported files, from a folder of the machine that held them.

    DIR/acme-1.0.tar.gz   DIR/acme/acme-1.0.tar.gz   DIR/58/91/b5b5.../acme-1.0.tar.gz      any folders

A file of DIR belongs to a line of the MANIFEST if it has the line's name and the bytes of its leaf, by length and
SHA-256. Each is copied once, into a temporary file without a name, hashed on the way, examined like any upload and
given its name as a blob; then its submission begins at `logged` (upload/bring.py), and scan, TUF and index do the
rest. Of DIR nothing is changed and nothing is believed: a file that changes meanwhile has another hash.

What stands in the way of one file is told and stops no other. A file that has its submission is not read again, so
the command may be killed at any moment and run again, beside itself, or years after the import.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, select, tuple_

from countermark.errors import PolicyError, UsageError
from countermark.manifest import Line, file_key
from countermark.rules import State
from countermark_server import closing, db
from countermark_server.errors import ServerError
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.settings import Settings
from countermark_server.stores.blobs import Blobs
from countermark_server.upload.bring import bring, fit, form_of, is_removed
from countermark_server.upload.form import SHA256, HashingFile

AT_ONCE = 1000  # lines whose state is asked for in one go
CHUNK = 1 << 20  # bytes
TELL = 1.0  # seconds between two lines of progress

Say = Callable[[str], None]


@dataclass(frozen=True)
class Without:
    """An imported file that has no bytes here, and why: `missing`, `changed`, `unreadable`, or an upload's code."""

    project: str
    filename: str
    code: str
    detail: str


@dataclass
class Brought:
    """What a run found and did; `files` in the summary of `import --json`."""

    imported: int = 0  # lines whose file an import recorded, and nobody took down
    before: int = 0  # of these, what had its bytes already
    brought: int = 0  # by this run
    bytes: int = 0  # of these
    removed: int = 0  # taken down or removed: their bytes are wanted no more
    without: list[Without] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """One document."""
        return {**asdict(self), "seconds": round(self.seconds, 3), "without_bytes": len(self.without)}


class _UnusableError(Exception):
    """These bytes are not the leaf's, or can't be had; nothing was stored."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Bringer:
    """One run over the lines of a MANIFEST and the files of a folder."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        blobs: Blobs,
        published: Published,
        *,
        say: Say,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._engine, self._blobs, self._published = settings, engine, blobs, published
        self._say, self._clock, self._monotonic = say, clock, monotonic

    def run(self, lines: Sequence[Line], folder: Path) -> Brought:
        """Bring what is missing and can be had. UsageError: no such folder; PolicyError: the log is frozen."""
        if not folder.is_dir():
            raise UsageError(f'"{folder}" is not a folder')
        started = self._monotonic()
        found = Brought()
        due = [line for line, _ in self._due(lines, found)]
        paths = find(folder, {line.filename for line in due}, self._say) if due else {}
        progress = _Progress(len(due), sum(line.length for line in due), self._say, self._monotonic)
        for line, file in self._due(due, Brought()):
            try:
                self._bring(line, file, paths.get(line.filename, ()))
            except _UnusableError as error:
                found.without.append(Without(line.project, line.filename, error.code, error.detail))
                self._say(f"{line.filename}: {error.detail}")
            else:
                found.brought += 1
                found.bytes += line.length
            progress.passed(line.length)
        found.seconds = self._monotonic() - started
        return found

    def _due(self, lines: Iterable[Line], found: Brought) -> Iterator[tuple[Line, State]]:
        """Lines whose file is imported and has no submission, with what the rules know of it; the rest is counted."""
        rest = iter(lines)
        while chunk := list(itertools.islice(rest, AT_ONCE)):
            with db.read(self._engine) as connection:
                view = SqlView(connection, db.rules_state)
                view.fetch({file_key(line) for line in chunk})
                there = _submitted(connection, chunk)
                files = [view.get(file_key(line)) for line in chunk]
            for line, file in zip(chunk, files, strict=True):
                if file is None or "import" not in file or file["sha256"] != line.sha256:
                    continue  # an upload's file, or a line that was left out
                if is_removed(file):
                    found.removed += 1
                    continue
                found.imported += 1
                if (line.project, line.name.normalised) in there:
                    found.before += 1
                else:
                    yield line, file

    def _bring(self, line: Line, file: State, paths: Sequence[Path]) -> None:
        """Copy, examine, keep, and let the submission begin. _UnusableError: nothing was stored."""
        if not self._published.covers(file["index"]):
            raise _UnusableError("unavailable", "its entry is not public yet: run this again")
        with self._copy(line, file["index"], paths) as stream:
            form = form_of(file, stream, sha256=line.sha256, length=line.length)
            try:
                artifact = fit(file, form, self._settings.upload)
            except ServerError as error:
                raise _UnusableError(error.code, error.detail) from None
            self._blobs.keep({artifact.sha256: stream})
        # The blob is durable. If we stop here no row names it, and the next run keeps the same bytes again.
        with db.write(self._engine) as connection:
            if closing.find(connection, self._settings.registry.origin) or closing.frozen(connection):
                raise PolicyError("the log is frozen: it takes nothing more, and serves what it has")
            bring(connection, file, artifact, now=int(self._clock()))
        # Committed. If we stop here the scan takes it up, and the next run leaves it out.

    def _copy(self, line: Line, at: int, paths: Sequence[Path]) -> BinaryIO:
        """The first of these files that has the leaf's bytes, copied. _UnusableError: none; says why of the last."""
        error = _UnusableError("missing", "no file of this name is in the folder")
        for path in paths:
            try:
                return self._copied(line, at, path)
            except _UnusableError as found:
                error = found
        raise error

    def _copied(self, line: Line, at: int, path: Path) -> BinaryIO:
        copy = HashingFile(self._settings.data / "incoming", self._settings.upload.max_bytes, [SHA256])
        try:
            for chunk in _read(path, line.length, at):
                copy.write(chunk)
            if (sha256 := copy.digests()[SHA256]) != line.sha256:
                said = f"{path} has SHA-256 {sha256}, entry {at} says {line.sha256}"
                raise _UnusableError("changed", said)
        except ServerError as error:
            copy.stream.close()
            raise _UnusableError(error.code, error.detail) from None
        except BaseException:
            copy.stream.close()
            raise
        return copy.stream


def find(folder: Path, names: set[str], say: Say = lambda text: None) -> dict[str, list[Path]]:
    """Where files of these names lie, in any folder below this one; links to folders are not followed."""
    found = dict[str, list[Path]]()

    def unreadable(error: OSError) -> None:
        say(f"{error.filename}: {error.strerror}")

    for where, _, files in os.walk(folder, onerror=unreadable):
        for name in names.intersection(files):
            path = Path(where, name)
            if path.is_file():  # a pipe of that name would be waited for
                found.setdefault(name, []).append(path)
    return {name: sorted(paths) for name, paths in found.items()}


def _read(path: Path, length: int, at: int) -> Iterator[bytes]:
    """The bytes of a file of this length. _UnusableError: it has another, or can't be read."""
    try:
        with path.open("rb") as stream:
            if (size := os.fstat(stream.fileno()).st_size) != length:
                raise _UnusableError("changed", f"{path} has {size} bytes, entry {at} says {length}")
            while chunk := stream.read(CHUNK):
                yield chunk
    except OSError as error:
        raise _UnusableError("unreadable", f"{path}: {error.strerror}") from None


def _submitted(connection: Connection, lines: Sequence[Line]) -> set[tuple[str, str]]:
    """Of these files, by project and normalised name, which have a submission."""
    table = db.submission
    names = [(line.project, line.name.normalised) for line in lines]
    where = (table.c.namespace == "", tuple_(table.c.project, table.c.filename).in_(names))
    return {(row.project, row.filename) for row in connection.execute(select(table).where(*where))}


class _Progress:
    """Says once a second how far it is, and how long it will take at this pace."""

    def __init__(self, files: int, total: int, say: Say, monotonic: Callable[[], float]) -> None:
        self._files, self._total, self._say, self._monotonic = files, total, say, monotonic
        self._began = self._told = monotonic()
        self._done = self._bytes = 0

    def passed(self, length: int) -> None:
        """One more file is done with, whatever became of it."""
        self._done += 1
        self._bytes += length
        now = self._monotonic()
        if now - self._told < TELL:
            return
        self._told = now
        left = (self._total - self._bytes) * (now - self._began) / self._bytes
        megabytes = f"{self._bytes / 1e6:.0f} of {self._total / 1e6:.0f} MB"
        self._say(f"bytes: file {self._done} of {self._files}, {megabytes}, {left:.0f} s to go")
