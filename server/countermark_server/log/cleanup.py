"""Clean-up: partial tiles and bundles go once the full ones are there, a few at a time.

    tile/0/000.p/3  tile/0/000.p/200  tile/entries/000.p/200     go when a public checkpoint covers tile/0/000

Every round leaves the partial tiles of its size; they are what readers of that checkpoint ask for, and stay for
every size that was published or shown to a witness, until the *public* log has the full tile, in which such
readers find the same bytes at the beginning (C2SP tlog-tiles says so). A partial file is compared with the full
one before it goes.

The work goes along the index: `cleaned` remembers up to which full level-0 tile it is done, so a step looks at a
few folders, whatever the size of the log. If we die in the middle, the same tiles are looked at again.
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
STEP = 4  # level-0 tiles a step; each public checkpoint makes one step


class Cleanup:
    """Removes what full tiles have replaced. One thread: the publisher's."""

    def __init__(self, public: Public, memory: Replaced) -> None:
        self._public = public
        self._memory = memory
        self._done: int | None = None

    def step(self, size: int) -> int:
        """Clean up behind a public checkpoint of this size; how many files went. StoreError: one must stay."""
        if self._done is None:
            self._done = _remembered(self._memory.read(CLEANED))
        last = min(size // WIDTH, self._done + STEP)
        removed = 0
        for number in range(self._done, last):
            for tile in completed_by(number):
                removed += self._remove_partials(tile)
        if last > self._done:
            # Removed. If we stop here the next step finds nothing left of these tiles, and goes on.
            self._memory.replace(CLEANED, b"%d\n" % last)
            self._done = last
        return removed

    def _remove_partials(self, tile: Tile) -> int:
        name = PREFIX + tile.path()
        partials = list(self._public.names(f"{name}.p"))
        if not partials:
            return 0
        full = self._public.read(name)
        if full is None:
            raise StoreError(f"{name} is not there, its partial files stay")
        for partial in partials:
            raw = self._public.read(partial)
            if raw is not None and not full.startswith(raw):
                raise StoreError(f"{partial} is not the beginning of {name}; both stay")
        for partial in partials:
            self._public.remove(partial)
        return len(partials)


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
