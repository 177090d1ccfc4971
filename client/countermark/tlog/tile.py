"""Tiles: the tree cut into immutable files of up to 256 hashes, and the entries into bundles of up to 256.

    tile/0/000                hashes of the leaves 0 to 255                              (8,192 bytes)
    tile/0/x067/001.p/12      hashes of the leaves 17152256 to 17152267, more to come    (384 bytes)
    tile/1/000.p/1            hash of the subtree [0, 256)                               (32 bytes)
    tile/entries/000          the entries 0 to 255, each behind its length in 2 bytes

Hash i of tile (level, index) covers 256**level leaves. A *full* tile never changes; a *partial* one, with its
width in its path, is what exists of it at some size, and may go once the full tile is there. A log serves the
partial tiles of every size it ever published a checkpoint for.

Tiles carry no signature: `TileHashes` believes a hash only after its tile has led to the root hash of a
checkpoint. Entries are believed when they hash to their slot in a level-0 tile (`open_bundle`).

Format: https://c2sp.org/tlog-tiles@v0.1.0. Countermark never prunes: the minimum index is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from countermark.errors import MalformedError, NetworkError, ProofError
from countermark.limits import ENTRY_MAX_BYTES, TREE_SIZE_MAX
from countermark.tlog.merkle import HASH_SIZE, HashReader, RightEdge, leaf_hash, reader, root_hash
from countermark.values import dataclass, pattern, replace

WIDTH = 256
ENTRIES = -1  # the level of entry bundles
_PATH = pattern(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_GONE = (NetworkError, LookupError, FileNotFoundError)


@dataclass(frozen=True, order=True)
class Tile:
    """The name of a tile, or of an entry bundle (level ENTRIES)."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        exists = ENTRIES <= self.level <= 63 and 0 <= self.index <= TREE_SIZE_MAX >> 8
        if not exists or not 1 <= self.width <= WIDTH:
            raise MalformedError(f"no tile has level {self.level}, index {self.index} and width {self.width}")

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    def path(self) -> str:
        *high, low = (group.zfill(3) for group in f"{self.index:,}".split(","))
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.full else f".p/{self.width}"
        return f"tile/{level}/{''.join(f'x{group}/' for group in high)}{low}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        match = _PATH.fullmatch(path) if len(path) <= 64 else None
        if match is None:
            raise MalformedError(f"{path[:64]!r} is not the path of a tile")
        level, high, low, width = match.groups()
        index = int(high.replace("x", "").replace("/", "") + low)
        tile = cls(ENTRIES if level == "entries" else int(level), index, int(width or WIDTH))
        if tile.path() != path:
            raise MalformedError(f"{path!r} is not the path of a tile, {tile.path()!r} would be")
        return tile

    def bundle(self) -> Tile:
        """The bundle of the entries under a level-0 tile."""
        return replace(self, level=ENTRIES)


def tile_at(level: int, index: int, size: int) -> Tile:
    """The tile (level, index) as it is in a tree of `size` leaves."""
    hashes = size >> 8 * max(level, 0)
    return Tile(level, index, min(WIDTH, hashes - index * WIDTH))


def new_tiles(old_size: int, new_size: int) -> list[Tile]:
    """The tiles that a log writes when it grows; a level-0 tile's bundle comes with it (`Tile.bundle`)."""
    tiles = []
    for level in range(8):
        old, new = old_size >> 8 * level, new_size >> 8 * level
        changed = range(old // WIDTH, -(-new // WIDTH)) if old != new else ()
        tiles += [tile_at(level, index, new_size) for index in changed]
    return tiles


def grow(old_size: int, edge: Mapping[int, bytes], leaf_hashes: Sequence[bytes]) -> dict[Tile, bytes]:
    """The tiles that appending these leaves makes; `edge` maps a level to its partial tile at `old_size`."""
    tiles: dict[Tile, bytes] = {}
    level, added = 0, list(leaf_hashes)
    while added:
        count = old_size >> 8 * level
        hashes = (decode_tile(edge[level], count % WIDTH) if count % WIDTH else []) + added
        added = []
        for start in range(0, len(hashes), WIDTH):
            group = hashes[start : start + WIDTH]
            tiles[Tile(level, (count + start) // WIDTH, len(group))] = b"".join(group)
            if len(group) == WIDTH:
                added.append(root_hash(group))
        level += 1
    return tiles


def decode_tile(raw: bytes, width: int) -> list[bytes]:
    """The hashes of a tile, not verified."""
    if len(raw) != width * HASH_SIZE:
        raise MalformedError(f"a tile of width {width} has {width * HASH_SIZE} bytes, not {len(raw)}")
    return [raw[i : i + HASH_SIZE] for i in range(0, len(raw), HASH_SIZE)]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    if not 1 <= len(entries) <= WIDTH or any(len(entry) > ENTRY_MAX_BYTES for entry in entries):
        raise MalformedError(f"a bundle holds 1 to {WIDTH} entries of at most {ENTRY_MAX_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(raw: bytes, width: int) -> list[bytes]:
    """The entries of a bundle, not verified."""
    entries: list[bytes] = []
    start = 0
    for _ in range(width):
        end = start + 2 + int.from_bytes(raw[start : start + 2], "big")
        if end > len(raw) or start + 2 > len(raw):
            raise MalformedError(f"a bundle of {width} entries ends inside entry {len(entries)}")
        entries.append(raw[start + 2 : end])
        start = end
    if start != len(raw):
        raise MalformedError(f"a bundle of {width} entries goes on for {len(raw) - start} bytes")
    return entries


def open_bundle(raw: bytes, bundle: Tile, read: HashReader) -> list[bytes]:
    """The entries of a bundle, each of which hashes to its slot in the tree that `read` reads."""
    entries = decode_bundle(raw, bundle.width)
    first = bundle.index * WIDTH
    leaves = read([(0, first + i) for i in range(len(entries))])
    for index, (entry, leaf) in enumerate(zip(entries, leaves, strict=True), first):
        if (found := leaf_hash(entry)) != leaf:
            raise ProofError(f"entry {index} has the leaf hash {found.hex()}, the tree has {leaf.hex()}")
    return entries


class TileHashes:
    """A HashReader over tiles that believes none of them before it leads to the root hash."""

    def __init__(self, size: int, root_hash: bytes, fetch: Callable[[Tile], bytes]) -> None:
        self.size, self.root_hash, self._fetch = size, root_hash, fetch
        # By level and index of a tile: its hashes and those of the complete subtrees above them, made once.
        self._believed: dict[tuple[int, int], HashReader] = {}

    def __call__(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self._hash(level, index) for level, index in places]

    def _hash(self, level: int, index: int) -> bytes:
        if not (0 <= level < 64 and index >= 0 and (index + 1) << level <= self.size):
            raise ProofError(f"a tree of size {self.size} has no complete subtree {index} at level {level}")
        row, height = divmod(level, 8)
        tile, slot = divmod(index << height, WIDTH)
        read = self._believed.get((row, tile)) or self._believe(row, tile)
        return read([(height, slot >> height)])[0]

    def _believe(self, level: int, index: int) -> HashReader:
        """The hashes of a tile, up the tree first: a full tile is believed by its hash in the tile above."""
        if not self._believed:
            self._believe_edge()
        if (level, index) not in self._believed:
            parent = self._believe(level + 1, index // WIDTH)
            tile = tile_at(level, index, self.size)
            read = reader(self._read(tile))
            (claimed,), (expected,) = read([(8, 0)]), parent([(0, index % WIDTH)])
            if claimed != expected:
                raise ProofError(f"{tile.path()} hashes to {claimed.hex()}, the tree has {expected.hex()}")
            self._believed[level, index] = read
        return self._believed[level, index]

    def _believe_edge(self) -> None:
        """The partial tiles: their hashes, from the top level down, are all that the root hash is made of."""
        rows = [row for row in range(7, -1, -1) if (self.size >> 8 * row) % WIDTH]
        tiles = [tile_at(row, self.size >> 8 * (row + 1), self.size) for row in rows]
        reads = [reader(self._read(tile)) for tile in tiles]
        peaks = [
            peak
            for tile, read in zip(tiles, reads, strict=True)
            for peak in RightEdge.read(tile.width, read).hashes
        ]
        claimed = RightEdge(self.size, tuple(peaks)).root()
        if claimed != self.root_hash:
            paths = ", ".join(tile.path() for tile in tiles) or "no tiles"
            raise ProofError(f"{paths} lead to {claimed.hex()}, the checkpoint has {self.root_hash.hex()}")
        # All at once: another thread that sees one of them takes the edge for believed.
        self._believed |= {(t.level, t.index): read for t, read in zip(tiles, reads, strict=True)}

    def _read(self, tile: Tile) -> list[bytes]:
        try:
            return decode_tile(self._fetch(tile), tile.width)
        except _GONE:
            if tile.full:
                raise
        # The log has grown since and dropped the partial tile: the full one starts with the same hashes.
        return decode_tile(self._fetch(replace(tile, width=WIDTH)), WIDTH)[: tile.width]
