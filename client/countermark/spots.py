"""Spots: where a result is to be shown, which is where somebody can do something about it.

    spots = Spots([Path("uv.lock")], locks=[read_lock(Path("uv.lock"))])
    spots.of(artifact)                  # (Spot("uv.lock", 14),): the line that pins this hash of this package

A pin is shown at the line of its hash, in every lock that has it; what a lock cannot pin, at the package's name.
A file is shown as itself, a finding of an environment at the installed file. Paths are relative to the repository
that the current folder is in, or to that folder, because code hosts look for them there; outside of it they are
absolute.

Locks are read again here as lines, for `tomllib` tells of none. That decides nothing: what a lock pins is what
lockfile.py read, and a lock spelled as no tool writes it is shown at its first line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from countermark.errors import CountermarkError
from countermark.lockfile import REQUIREMENT, LockFile, logical_lines, loose_name, text_of
from countermark.values import dataclass
from countermark.verified import Artifact

_PACKAGE = re.compile(r"\s*\[\[\s*packages?\s*\]\]")
_HEAD = re.compile(
    r"\s*\[\[?\s*(?!packages?\s*\.)[\w.-]+\s*\]\]?\s*(?:#.*)?"
)  # of a table, not within a package
_SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_KEY = re.compile(r"(name|version)\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True)
class Spot:
    """A line of a file; the path as it is shown, with `/` between its parts."""

    path: str
    line: int = 1

    @property
    def uri(self) -> str:
        """As an RFC 3986 reference: relative where the path is."""
        path = Path(self.path)
        return path.as_uri() if path.is_absolute() else quote(os.fsencode(self.path))


class Spots:
    """Where each artifact of one result is shown. `given` is what the command was given: files, locks or a folder."""

    def __init__(
        self, given: Sequence[Path], locks: Sequence[LockFile] = (), *, is_environment: bool = False
    ) -> None:
        self._given, self._is_environment = given, is_environment
        self._locks = [_Lines(lock) for lock in locks]
        self._root = _repository(Path.cwd())

    def of(self, artifact: Artifact) -> tuple[Spot, ...]:
        """Every place where it stands; never none."""
        found = list(filter(None, (lock.find(artifact) for lock in self._locks)))
        if not found:
            found = [(self._path(artifact), 1)]
        return tuple(Spot(self._shown(path), line) for path, line in dict.fromkeys(found))

    def _path(self, artifact: Artifact) -> Path:
        folder = self._given[0]
        if not self._is_environment:
            return Path(artifact.source or folder)
        if artifact.filename and not artifact.sha256:  # a finding, whose file name is a path in there
            return folder / artifact.filename
        return Path(artifact.source) if artifact.source else folder

    def _shown(self, path: Path) -> str:
        absolute = Path(os.path.normpath(Path.cwd() / path))  # not resolved: a link is shown where it lies
        inside = absolute.is_relative_to(self._root)
        return (absolute.relative_to(self._root) if inside else absolute).as_posix()


def _repository(folder: Path) -> Path:
    """The root of the repository a folder is in; without one, the folder."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), folder)


# --- locks, line by line ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Package:
    """What a lock says of one package; `at` is where it names it."""

    project: str
    version: str
    at: tuple[Path, int]


class _Lines:
    """One lock as lines: which package each hash stands at, and where."""

    def __init__(self, lock: LockFile) -> None:
        self._named: dict[str, list[tuple[_Package, tuple[Path, int]]]] = {}
        self._hashed: dict[str, list[tuple[_Package, tuple[Path, int]]]] = {}
        with suppress(OSError, CountermarkError):  # gone since it was read: all is shown at its first line
            self._read(lock)

    def find(self, artifact: Artifact) -> tuple[Path, int] | None:
        """The line of its hash, the one at this project and version if several are; else the line of its name."""
        found = self._hashed.get(artifact.sha256) or self._named.get(artifact.project) or []
        wanted = (artifact.project, artifact.version)
        exact = [at for package, at in found if (package.project, package.version) == wanted]
        named = [at for package, at in found if package.project == artifact.project]
        return next(iter([*exact, *named, *(at for _, at in found)]), None)

    def _read(self, lock: LockFile) -> None:
        texts = {path: _lines(path) for path in lock.inputs}
        is_toml = lock.kind != "requirements"
        for package, numbers in _tables(lock.path, texts[lock.path]) if is_toml else _requirements(lock.path):
            path = package.at[0]
            self._named.setdefault(package.project, []).append((package, package.at))
            for number in numbers:
                for digest in _SHA256.findall(texts[path][number - 1].lower()):
                    self._hashed.setdefault(digest, []).append((package, (path, number)))


def _lines(path: Path) -> list[str]:
    return text_of(path, path.read_bytes()).split("\n")


def _requirements(path: Path) -> Iterator[tuple[_Package, range]]:
    """One package a logical line, in this file and in those that it includes."""
    for each, numbers, line in logical_lines(path, {}):
        match = REQUIREMENT.fullmatch(line)
        yield _Package(loose_name(line), match["version"] if match else "", (each, numbers[0])), numbers


def _tables(path: Path, lines: Sequence[str]) -> Iterator[tuple[_Package, range]]:
    """One package a `[[package]]`, with the tables that belong to it."""
    heads = [(number, line) for number, line in enumerate(lines, 1) if _HEAD.fullmatch(line)]
    for (start, head), (end, _) in pairwise([*heads, (len(lines) + 1, "")]):
        if not _PACKAGE.match(head):
            continue
        said: dict[str, tuple[int, str]] = {}
        for number in range(start, end):
            if key := _KEY.match(lines[number - 1]):
                said.setdefault(key[1], (number, key[2]))
        at, name = said.get("name", (start, ""))
        yield _Package(loose_name(name), said.get("version", (0, ""))[1], (path, at)), range(start, end)
