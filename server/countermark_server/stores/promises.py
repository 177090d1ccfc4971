"""The two promises of a place where bytes live, as types; a folder and a bucket keep both.

    Once      a name is written once: the same bytes again are fine, others are a ConflictError
    Replaced  a name has one value at a time, and moves from a value that was looked at to the next

Code that needs one promise takes that type, so that nothing replaces a tile or writes a checkpoint once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

Allowed = Callable[[bytes | None], None]  # raises when the value found must not be replaced


class Once(Protocol):
    """Names that never change."""

    def write(self, files: Mapping[str, bytes]) -> None:
        """Make every name hold exactly these bytes, durably. After an error any of them may exist, whole."""

    def prepare(self, files: Mapping[str, bytes]) -> None:
        """Say what `write` will soon be asked for, so that it takes less time; no name exists by that."""

    def write_open(self, files: Mapping[str, BinaryIO]) -> None:
        """Make every name hold, durably, the bytes of an open file that nobody writes to any more."""

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there are none."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """The bytes as a file of this machine, for the length of the block. FileNotFoundError."""

    def open(self, name: str) -> BinaryIO:
        """The bytes as a stream. FileNotFoundError."""

    def names(self, below: str) -> Iterator[str]:
        """The names right below `below`, or right here when it is empty; not those in folders of theirs."""

    def remove(self, name: str) -> None:
        """Forget a name that nobody needs; it may be gone already."""


class Replaced(Protocol):
    """Names whose value is replaced as a whole."""

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there are none."""

    def replace(self, name: str, data: bytes, allowed: Allowed | None = None) -> None:
        """Give a name its next value, durably; `allowed` looks at the value that it takes the place of."""


class Place(Once, Replaced, Protocol):
    """A place that keeps both promises."""
