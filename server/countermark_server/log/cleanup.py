"""Clean-up: partial tiles and bundles go once the full ones are there, a few at a time.

    tile/0/000.p/3  tile/0/000.p/200  tile/entries/000.p/200     go when a public checkpoint covers tile/0/000

Every round leaves the partial tiles of its size; they are what readers of that checkpoint ask for, and stay for
every size that was published or shown to a witness, until the *public* log has the full tile, in which such
readers find the same bytes at the beginning (C2SP tlog-tiles says so). A partial file is compared with the full
one before it goes. One that is no beginning of it stays, as evidence, and the work stops there.

The work goes along the index: `cleaned` remembers up to which full level-0 tile it is done, so a step looks at a
few folders, whatever the size of the log. A step removes a few files and no more, since the next checkpoint waits
for it: hundreds, which a full tile leaves behind, would make everybody wait who asks for a proof meanwhile. If we die
in the middle, the same tiles are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator

from countermark.errors import MalformedError
from countermark.tlog.note import parse_decimal
from countermark.tlog.tile import ENTRIES, WIDTH, Tile
from countermark_server.log.tree import PREFIX
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.promises import Replaced
from countermark_server.stores.public import Public

CLEANED = "cleaned"  # beside the staging bundles: a number of level-0 tiles, and nothing is lost with it
STEP = 4  # level-0 tiles a step; each public checkpoint makes one step, and an idle log goes on
FILES = 8  # a step: more than a round leaves, and little enough to wait for


class Cleanup:
    """Removes what full tiles have replaced. One thread: the publisher's."""

    def __init__(self, public: Public, memory: Replaced) -> None:
        self._public = public
        self._memory = memory
        self._done: int | None = None
        self._left: list[tuple[str, str]] | None = None  # of tile `_done`: file, and its full one

    def step(self, size: int) -> int:
        """Clean up behind a public checkpoint of this size; how many files went. StoreError: one must stay."""
        if self._done is None:
            self._done = _remembered(self._memory.read(CLEANED))
        before, removed = self._done, 0
        for _ in range(STEP):
            if self._done >= size // WIDTH:
                break
            if self._left is None:
                self._left = list(self._partials(self._done))
            while self._left and removed < FILES:
                removed += self._remove(*self._left[-1])
                self._left.pop()
            if self._left:
                break
            self._done, self._left = self._done + 1, None
        if self._done > before:
            # Removed. If we stop here the next step finds nothing left of these tiles, and goes on.
            self._memory.replace(CLEANED, b"%d\n" % self._done)
        return removed

    def is_behind(self, size: int) -> bool:
        """Whether another step would find something to do."""
        return self._done is not None and self._done < size // WIDTH

    def _partials(self, number: int) -> Iterator[tuple[str, str]]:
        for tile in completed_by(number):
            full = PREFIX + tile.path()
            for partial in self._public.names(f"{full}.p"):
                yield partial, full

    def _remove(self, partial: str, name: str) -> int:
        raw, full = self._public.read(partial), self._public.read(name)
        if full is None:
            raise StoreError(f"{name} is not there, its partial files stay")
        if raw is None:
            return 0
        if not full.startswith(raw):
            raise StoreError(f"{partial} is not the beginning of {name}; it stays")
        self._public.remove(partial)
        return 1


def _remembered(raw: bytes | None) -> int:
    """How far the work is. What cannot be read is begun again: done tiles have nothing left to remove."""
    try:
        return parse_decimal((raw or b"0").decode("ascii").removesuffix("\n"))
    except (UnicodeDecodeError, MalformedError):
        return 0


def completed_by(number: int) -> Iterator[Tile]:
    """The tiles that are full once level-0 tile `number` is: its bundle, itself, and at times those above."""
    yield Tile(ENTRIES, number, WIDTH)
    level, index = 0, number
    while True:
        yield Tile(level, index, WIDTH)
        if (index + 1) % WIDTH:
            return
        level, index = level + 1, index // WIDTH
