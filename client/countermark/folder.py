"""A folder that is mostly only read, and of which a private copy is made before anything is written.

    with lent(registry.folder / "tuf") as folder:
        folder.read("timestamp.json", max_bytes=12288)      # where it lies
        replace_file(folder.own() / "trust.file", data)     # into the copy, which is read from now on
    # the copy has replaced the folder, if there is one and the block ended without an error

To copy a cache of hundreds of files and to swap it takes longer than to look at a few of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from countermark.disk import read_plain, recover_swap, working_copy


class Folder:
    """The folder, or its copy from the moment it was asked for. Made by `lent`."""

    def __init__(self, path: Path, copied: Callable[[], Path]) -> None:
        self.path = path  # where to read now
        self._copied: Callable[[], Path] | None = copied

    def own(self) -> Path:
        """The private copy, to write into; from now on it is read, too."""
        if self._copied is not None:
            self.path, self._copied = self._copied(), None
        return self.path

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        """What a plain file of it holds; None for anything else in its place."""
        return read_plain(self.path / name, max_bytes=max_bytes)


@contextlib.contextmanager
def lent(
    folder: Path, *, within: Sequence[str] = (), shared: Callable[[str], bool] = lambda name: False
) -> Iterator[Folder]:
    """The folder to read, and a `working_copy` of it from the moment somebody wants to write.

    The caller holds a lock. Where the folder itself, or one `within`, is a link, it is copied at once: then nothing
    is read where that leads.
    """
    recover_swap(folder)
    with contextlib.ExitStack() as stack:
        found = Folder(
            folder, lambda: stack.enter_context(working_copy(folder, within=within, shared=shared))
        )
        if any((folder / name).is_symlink() for name in ("", *within)):
            found.own()
        yield found
