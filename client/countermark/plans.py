"""Plans: a command line taken apart, and what it would install from. installers.py and poetryplan.py make them.

    plan = Plan(command, "uv sync", options, locks, project=folder)
    plan.is_pinned          # locks pin every hash
    plan.unprovable()       # what no hash covers: folders, repositories, what exists only as source
    plan.changed()          # locks and settings that are no longer the bytes we read

Options are read strictly: one that is not known by its full name is refused, whatever it may do.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from countermark.errors import PolicyError, UsageError
from countermark.lockfile import LockFile, Pinned, Unprovable
from countermark.values import dataclass, field

KNOWN = (
    "installs that pin every hash (uv sync --frozen, poetry install, uv pip sync pylock.toml, "
    "pip install --require-hashes -r FILE) "
    "and installs by name (pip install NAME, uv pip install NAME, uv sync without a lock)"
)
_REPEATED = re.compile(r"-(?:v+|q+)")  # -vv, -qqq


def option_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


INDEXES = option_set(
    "-i --index-url --extra-index-url --index --default-index -f --find-links --index-strategy --trusted-host "
    "--allow-insecure-host --keyring-provider"
)


@dataclass(frozen=True)
class Options:
    """A command line taken apart."""

    positional: tuple[str, ...]
    flags: frozenset[str]
    values: tuple[tuple[str, str], ...]

    def last(self, name: str) -> str:
        """The value that counts, or the empty text."""
        return next((value for option, value in reversed(self.values) if option == name), "")

    def named(self, names: frozenset[str]) -> list[str]:
        """The values of these options, in order."""
        return [value for option, value in self.values if option in names]

    @classmethod
    def parse(cls, words: Sequence[str], flags: frozenset[str], values: frozenset[str]) -> Options:
        """Refuses what is neither a known flag nor a known option with its value."""
        positional, found, valued = [], set(), []
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if word in flags or _REPEATED.fullmatch(word):
                found.add(word)
            elif not word.startswith("-"):
                positional.append(word)
            elif word in values:
                valued.append((word, _next(rest, word)))
            elif word.startswith("--") and equals and name in values:
                valued.append((name, value))
            elif word[:2] in values and not word.startswith("--") and word[2] != "=":  # -rFILE
                valued.append((word[:2], word[2:]))
            elif name == "--only-binary" and (value if equals else _next(rest, word)) == ":all:":
                found.add(name)
            else:
                raise PolicyError(f"`{word}`: {REFUSED.get(name, UNKNOWN)}", hint=KNOWN)
        return cls(tuple(positional), frozenset(found), tuple(valued))


UNKNOWN = "nobody here knows what this option makes the installer do"
REFUSED = {
    "--no-verify-hashes": "it tells the installer to ignore the hashes that were verified",
    "--no-require-hashes": "it tells the installer to go on without hashes",
    "--no-binary": "it builds from source, and a build runs code that no hash pins",
    "--no-binary-package": "it builds from source, and a build runs code that no hash pins",
    "--isolated": "it hides from pip that builds and other indexes are turned off",
    "-e": "a folder has no hash",
    "--editable": "a folder has no hash",
    "--script": "it installs from another lock",
}


@dataclass(frozen=True)
class Plan:
    """What a command would install from. `project` is the folder of the project that uv would sync."""

    command: tuple[str, ...]
    installer: str  # "pip", "uv pip", "uv sync" or "poetry"
    options: Options
    locks: tuple[LockFile, ...]
    project: Path | None = None
    settings: Mapping[Path, str | None] = field(default_factory=dict)
    sources: tuple[str, ...] = ()  # the indexes that it will ask, whatever its environment says
    asks_registry: bool = False  # it compares its lock with an index, which must be the one the lock names
    added: tuple[
        str, ...
    ] = ()  # what the child is given beside what was typed, so that it leaves its lock alone

    @property
    def is_pinned(self) -> bool:
        """Whether locks pin every hash; if not, everything must come through the proxy."""
        return bool(self.locks)

    @property
    def pinned(self) -> list[Pinned]:
        return [pin for lock in self.locks for pin in lock.pinned]

    @property
    def indexes(self) -> list[str]:
        """Index settings in the locks or on the command line; hashes bind what comes from there."""
        inside = [setting for lock in self.locks for setting in lock.indexes]
        return inside + [f"{name} {value}" for name, value in self.options.values if name in INDEXES]

    @property
    def asks_index(self) -> bool:
        """Whether the installer asks an index for what is pinned: requirements name neither files nor URLs."""
        return any(lock.kind == "requirements" for lock in self.locks)

    def past_the_index(self) -> list[str]:
        """What makes a build that was let pass take its tools from elsewhere than the child's one index."""
        if not self.unprovable():
            return []
        found = list(self.indexes)
        for lock in self.locks:
            folders = [i.folder for i in lock.unprovable if i.folder and not self._left_out(lock, i)]
            for path in (lock.path.parent / folder / "pyproject.toml" for folder in folders):
                found += [f"{what} of {path}" for what in builds_elsewhere(path)] if path.is_file() else []
        return found

    def unprovable(self) -> list[Unprovable]:
        """What no hash covers, without the folders that the command leaves out."""
        return [i for lock in self.locks for i in lock.unprovable if not self._left_out(lock, i)]

    def _left_out(self, lock: LockFile, item: Unprovable) -> bool:
        flags = self.options.flags
        if item.folder is None or self.project is None:
            return False
        if "--no-install-local" in flags or ("--no-install-workspace" in flags and item.member):
            return True
        several = "--all-packages" in flags or self.options.last("--package")
        own = (lock.path.parent / item.folder).resolve() == self.project.resolve()
        return bool({"--no-install-project", "--no-root"} & flags) and own and not several

    def other_sources(self, registry_url: str) -> list[str]:
        """Indexes that it will ask and that are not this registry's."""
        return [each for each in self.sources if each.rstrip("/") != f"{registry_url}/simple"]

    def changed(self) -> list[Path]:
        """Locks, and the settings beside them, whose bytes are no longer the ones we read."""
        found = [path for lock in self.locks for path in lock.changed()]
        return found + [path for path, digest in self.settings.items() if digest_of(path) != digest]


def builds_elsewhere(path: Path) -> Iterator[str]:
    """What a project's build takes from URLs, or from where `tool.uv.sources` says."""
    document = toml(path)
    build, sources = (
        document.get("build-system", {}),
        document.get("tool", {}).get("uv", {}).get("sources", {}),
    )
    if not isinstance(build, dict) or not isinstance(sources, dict):
        raise UsageError(f'cannot read "{path}": a table is expected')
    named = {loose(name) for name in sources}
    for item in build.get("requires", []):
        if isinstance(item, str) and "@" in item.partition(";")[0]:
            yield f'"{item}" in build-system.requires'
        elif isinstance(item, str) and loose(item) in named:
            yield f"{loose(item)} in tool.uv.sources"


def loose(requirement: str) -> str:
    """The project that a requirement begins with, as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]).lower()


def toml(path: Path) -> Any:
    """A pyproject.toml, as far as its tables are tables."""
    try:
        document: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = [
            document.get("tool", {}),
            document.get("tool", {}).get("uv", {}),
            document.get("project", {}),
        ]
        if not all(isinstance(table, dict) for table in tables):
            raise ValueError("a table is expected")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f'cannot read "{path}": {error}') from None
    return document


def _next(rest: Iterator[str], option: str) -> str:
    for word in rest:
        return word
    raise UsageError(f"`{option}` needs a value")


def digest_of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
