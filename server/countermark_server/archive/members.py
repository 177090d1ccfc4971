"""Members of an archive, the names they may have, and how much they may unpack to.

    demo-1.0/src/demo.py          fine
    ../demo.py  /etc/demo.py  C:demo.py  demo\\x.py  ./demo.py      refused: written elsewhere by somebody
    Demo.py beside demo.py        refused: one file on some systems, two on others

An `ArchiveError` carries one of the registry's error codes and a sentence that names the member.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

MEMBER_NAME_MAX_BYTES = 1024  # paths longer than this fail to unpack on common systems
RATIO_MAX = 50  # unpacked over packed; honest distributions stay far below ...
RATIO_FREE_BYTES = 64 * 1024 * 1024  # ... except small ones, which may be as regular as they like
CHUNK = 64 * 1024

Kind = Literal["file", "directory", "link"]


class ArchiveError(Exception):
    """This archive is refused. `code` is one of the registry's error codes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold. `packed_bytes` is the size of the archive itself."""

    packed_bytes: int
    max_unpacked_bytes: int
    max_members: int


@dataclass(frozen=True)
class Member:
    """One member: its name without trailing slash, what it is, and how long its content is said to be."""

    name: str
    kind: Kind
    size: int


@dataclass
class Budget:
    """What was really seen so far. Every reader spends from it; overspending refuses the archive."""

    limits: Limits
    members: int = 0
    unpacked: int = 0

    def spend_member(self) -> None:
        """One more member."""
        self.members += 1
        if self.members > self.limits.max_members:
            raise ArchiveError("archive-budget", f"archive has more than {self.limits.max_members} members")

    def spend_bytes(self, count: int) -> None:
        """`count` more unpacked bytes, headers and padding included."""
        self.unpacked += count
        if self.unpacked > self.limits.max_unpacked_bytes:
            raise ArchiveError(
                "archive-budget", f"archive unpacks to more than {self.limits.max_unpacked_bytes} bytes"
            )
        if self.unpacked > RATIO_FREE_BYTES and self.unpacked > RATIO_MAX * self.limits.packed_bytes:
            raise ArchiveError(
                "archive-budget",
                f"archive unpacks to more than {RATIO_MAX} times its {self.limits.packed_bytes} bytes",
            )


@dataclass
class Names:
    """The names seen so far: each is checked alone, and against all others as a file system would see it."""

    _kinds: dict[str, Kind] = field(default_factory=dict)
    _spelled: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, kind: Kind) -> None:
        """Accept one more member's name, or raise."""
        check_name(name)
        folded = fold(name)
        if folded in self._spelled:
            raise ArchiveError(
                "archive-path",
                f"archive members {self._spelled[folded]!r} and {name!r} are one file on some systems",
            )
        self._spelled[folded] = name
        self._kinds[folded] = kind

    def finish(self) -> None:
        """Once all names are known: nothing lies inside a file or a link, and a directory has one spelling."""
        parents: dict[str, str] = {}
        for folded, name in self._spelled.items():
            for inner, outer in zip(_ancestors(folded), _ancestors(name), strict=False):
                if self._kinds.get(inner, "directory") != "directory":
                    raise ArchiveError(
                        "archive-path",
                        f"archive member {name!r} lies inside {outer!r}, which is no directory",
                    )
                if parents.setdefault(inner, outer) != outer:
                    raise ArchiveError(
                        "archive-path",
                        f"archive directories {parents[inner]!r} and {outer!r} are one on some systems",
                    )


def fold(name: str) -> str:
    """The name as the most forgetful file system sees it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_name(name: str) -> None:
    """Refuse a name that any reader would write elsewhere, or that people cannot read."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > MEMBER_NAME_MAX_BYTES:
        raise ArchiveError("archive-path", f"archive member name of {len(name)} characters")
    if not name.isprintable():
        raise ArchiveError("archive-path", f"archive member name {name!r} holds unprintable characters")
    parts = name.split("/")
    if "\\" in name or name[1:2] == ":" or any(part in ("", ".", "..") for part in parts):
        raise ArchiveError("archive-path", f"archive member {name!r} would be written elsewhere")


def _ancestors(name: str) -> Iterator[str]:
    at = name.find("/")
    while at != -1:
        yield name[:at]
        at = name.find("/", at + 1)
