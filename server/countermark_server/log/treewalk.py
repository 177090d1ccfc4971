"""A whole log in one pass: every entry bundle and every tile against each other and against the checkpoint.

    for entries in walk(fetch, checkpoint, counts, on_finding): ...        # one bundle's entries at a time

    counts.bundles, counts.tiles, counts.entries

The walk goes from left to right and climbs: a bundle's entries hash to a level-0 tile, 256 hashes of a tile to one
hash of the tile above, and all of them to the root hash. Each stored file is held against what lies below it, so that
a finding names the one that is at odds; what is above is then held against the stored one, so that one wrong byte in
an entry is told once. At most one tile of every level is in memory, whatever the size of the log.

Entries are yielded before the root is known: who acts on them waits for the end. `fetch` gives the bytes of a tile or
bundle from wherever they lie, a folder (fsck.py) or another machine (httpcheck.py), or None. Of a log that has grown
meanwhile a partial tile may be gone: the full one starts with the same hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from countermark.errors import MalformedError
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.merkle import RightEdge, leaf_hash, root_hash
from countermark.tlog.note import format_base64
from countermark.tlog.tile import WIDTH, Tile, decode_bundle, decode_tile, encode_bundle, tile_at

Fetch = Callable[[Tile], bytes | None]
OnFinding = Callable[[str], None]


@dataclass
class Counts:
    """What was read."""

    entries: int = 0
    bundles: int = 0
    tiles: int = 0


def walk(
    fetch: Fetch, checkpoint: Checkpoint, counts: Counts, on_finding: OnFinding
) -> Iterator[list[bytes]]:
    """The entries of every sound bundle, in order; `on_finding` is told what is at odds, and may raise."""
    climb = _Climb(fetch, checkpoint, counts, on_finding)
    for index in range(-(-checkpoint.size // WIDTH)):
        tile = tile_at(0, index, checkpoint.size)
        entries = climb.bundle(tile.bundle())
        climb.add(tile, None if entries is None else [leaf_hash(entry) for entry in entries])
        if entries is not None:
            yield entries
    climb.finish()


class _Climb:
    """The hashes of one unfinished tile at each level."""

    def __init__(self, fetch: Fetch, checkpoint: Checkpoint, counts: Counts, on_finding: OnFinding) -> None:
        self._fetch, self._checkpoint = fetch, checkpoint
        self._counts, self._on_finding = counts, on_finding
        self._edge: RightEdge | None = RightEdge.empty()
        self._above: dict[int, list[bytes]] = {}
        self._done: dict[int, int] = {}  # finished tiles of each level

    def bundle(self, bundle: Tile) -> list[bytes] | None:
        """The entries of a bundle; None when they can't be had."""
        raw, whole = self._get(bundle)
        try:
            if raw is None:
                raise MalformedError("is missing")
            entries = decode_bundle(raw, WIDTH if whole else bundle.width)[: bundle.width]
            encode_bundle(entries)
        except MalformedError as error:
            self._on_finding(f"{bundle.path()}: {error}")
            return None
        self._counts.bundles += 1
        self._counts.entries += len(entries)
        return entries

    def add(self, tile: Tile, below: list[bytes] | None) -> None:
        """Hold a stored tile against the hashes of what lies below it, and take it into account above."""
        hashes = self._stored(tile, below)
        if tile.level == 0 and self._edge is not None:
            self._edge = None if hashes is None else self._edge.extend(hashes)
        self._done[tile.level] = tile.index + 1
        if not tile.full:
            return
        above = self._above.setdefault(tile.level + 1, [])
        above.append(b"" if hashes is None else root_hash(hashes))
        if len(above) == WIDTH:
            self._up(tile.level + 1)

    def finish(self) -> None:
        """The partial tiles of the right edge, and the root."""
        for level in range(1, 8):
            if self._above.get(level):
                self._up(level)
        if self._edge is None:
            return  # entries are missing in bundle and tile, which was told
        found, said = self._edge.root(), self._checkpoint.root_hash
        if found != said:
            self._on_finding(
                f"the tiles lead to the root hash {format_base64(found)}, the checkpoint of size "
                f"{self._checkpoint.size} says {format_base64(said)}"
            )

    def _up(self, level: int) -> None:
        hashes = self._above.pop(level)
        index = self._done.get(level, 0)
        self.add(Tile(level, index, len(hashes)), hashes)

    def _stored(self, tile: Tile, below: list[bytes] | None) -> list[bytes] | None:
        """A tile's hashes as stored; those of below where there is none. None when there are neither."""
        raw, whole = self._get(tile)
        try:
            if raw is None:
                raise MalformedError("is missing")
            hashes = decode_tile(raw, WIDTH if whole else tile.width)[: tile.width]
        except MalformedError as error:
            self._on_finding(f"{tile.path()}: {error}")
            return None if below is None or b"" in below else below
        self._counts.tiles += 1
        wrong = [at for at, hash in enumerate(below or ()) if hash not in (b"", hashes[at])]
        if wrong:
            what = "entry" if tile.level == 0 else f"tile of level {tile.level - 1}"
            first = tile.index * WIDTH + wrong[0]
            self._on_finding(
                f"{tile.path()}: {len(wrong)} of its hashes are not those of what lies below, first {what} {first}"
            )
        return hashes

    def _get(self, tile: Tile) -> tuple[bytes | None, bool]:
        """The bytes, and whether they are of the full tile where a part of it was asked for."""
        raw = self._fetch(tile)
        if raw is not None or tile.full:
            return raw, False
        return self._fetch(replace(tile, width=WIDTH)), True
