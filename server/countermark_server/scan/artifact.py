"""The artifact as analyzers see it: names of all members, and Python sources parsed once, each with its surface.

Surface is where code runs, and matters more than cleverer rules: what is normal in a library is alarming in setup.py.

    setup   setup.py and .pth files           run at install or at every start of the interpreter
    init    __init__.py and __main__.py       run at import
    code    other modules
    test    tests, docs, examples, tools      rarely run by anybody who installs
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from countermark_server.archive.distribution import open_archive
from countermark_server.archive.members import Limits, Member

SOURCE_MAX_BYTES = 5 * 1024 * 1024  # of one source file; generated tables are the largest honest ones
_TEST_PARTS = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "tools", "benchmarks", "bench", "ci"}
)


@dataclass(frozen=True)
class Source:
    """One Python source, as bytes. `tree` is its syntax tree, or None where it does not parse.

    Parsing is what a scan spends its time on (5 MB/s), so it happens when an analyzer first asks.
    """

    file: str
    surface: str
    text: bytes

    @cached_property
    def tree(self) -> ast.Module | None:
        return None if self.is_pth else _parse(self.text)

    @property
    def is_pth(self) -> bool:
        """A .pth file: lines for site.py, not a module."""
        return self.file.lower().endswith(".pth")


def surface_of(name: str, *, is_sdist: bool) -> str:
    """The surface of a member. In a source distribution names begin with the top directory."""
    parts = name.lower().split("/")
    if is_sdist and len(parts) == 2 and parts[1] == "setup.py":
        return "setup"
    if name.lower().endswith(".pth"):
        return "setup"
    if any(part in _TEST_PARTS or part.startswith("test_") for part in parts):
        return "test"
    return "init" if parts[-1] in ("__init__.py", "__main__.py") else "code"


class Artifact:
    """One distribution, read once from its first byte to its last."""

    def __init__(self, file: BinaryIO, filename: str, limits: Limits) -> None:
        self.filename = filename
        self.is_sdist = not filename.endswith(".whl")
        self._archive = open_archive(file, filename, limits)
        self.members: list[Member] = []

    def sources(self) -> Iterator[Source]:
        """Every Python source and .pth file; `members` fills while it runs."""
        for member, content in self._archive.walk():
            self.members.append(member)
            wanted = member.kind == "file" and member.name.lower().endswith((".py", ".pyw", ".pth"))
            if wanted and member.size <= SOURCE_MAX_BYTES:
                text = b"".join(content)
                yield Source(member.name, surface_of(member.name, is_sdist=self.is_sdist), text)


def _parse(text: bytes) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, LookupError, OSError):
        return None
