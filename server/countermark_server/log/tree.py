"""The public tree as the log itself reads it: from the files everybody reads, believing none of them.

    tree = public_tree(public)
    read = tree.reader(size, root_hash)                    # a HashReader; every tile leads to the root first
    entries = tree.entries(0, size, read)                  # each hashed to its slot

The sequencer keeps no copy of the tree in memory: each round reads the few tiles of the right edge back and
proves from them that the old tree is a prefix of the new one, so a damaged disk stops the log before it signs
something it could never repair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from countermark.tlog.merkle import HashReader
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, TileHashes, decode_bundle, open_bundle, tile_at
from countermark_server.stores.public import Public

PREFIX = "log/"


class MissingTileError(FileNotFoundError):
    """A tile or bundle that must be in the public tree is not there."""


class PublicTree:
    """Tiles and entry bundles, by their paths below the log's prefix."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self.read = read

    def fetch(self, tile: Tile) -> bytes:
        """The bytes of a tile or bundle, not verified; MissingTileError when there is none."""
        raw = self.read(tile.path())
        if raw is None:
            raise MissingTileError(tile.path())
        return raw

    def overlaid(self, files: Mapping[str, bytes]) -> PublicTree:
        """The tree as it will be once these files are written."""
        return PublicTree(lambda path: files[path] if path in files else self.read(path))

    def reader(self, size: int, root_hash: bytes) -> HashReader:
        """Reads hashes of the tree of this size, each proved to lead to `root_hash`."""
        return TileHashes(size, root_hash, self.fetch)

    def edge(self, size: int, root_hash: bytes) -> dict[int, bytes]:
        """The partial tile of each level at this size, proved to lead to `root_hash`."""
        found = {
            level: self.fetch(tile_at(level, size >> 8 * (level + 1), size))
            for level in range(8)
            if (size >> 8 * level) % WIDTH
        }
        tiles = {tile_at(level, size >> 8 * (level + 1), size): raw for level, raw in found.items()}
        if tiles:  # asking for the last leaf makes TileHashes believe the whole edge, or refuse it
            TileHashes(size, root_hash, lambda tile: tiles[tile] if tile in tiles else self.fetch(tile))(
                [(0, size - 1)]
            )
        return found

    def last_entries(self, size: int) -> list[bytes]:
        """The entries of the partial bundle at this size, not verified; none when the last one is full."""
        if size % WIDTH == 0:
            return []
        return decode_bundle(self.fetch(Tile(ENTRIES, size // WIDTH, size % WIDTH)), size % WIDTH)

    def entries(self, start: int, end: int, read: HashReader) -> list[bytes]:
        """The entries [start, end) of the tree that `read` reads, hashed to their slots."""
        found: list[bytes] = []
        for index in range(start // WIDTH, (end - 1) // WIDTH + 1 if end > start else start // WIDTH):
            width = min(WIDTH, end - index * WIDTH)
            bundle = Tile(ENTRIES, index, width)
            found += open_bundle(self.fetch(bundle), bundle, read)
        return found[start % WIDTH :]


def public_tree(public: Public) -> PublicTree:
    """The tree that everybody can read."""

    def read(path: str) -> bytes | None:
        raw = public.read(PREFIX + path)
        return public.tile(Tile.parse(path)) if raw is None else raw  # perhaps cleaned up (cleanup.py)

    return PublicTree(read)
