"""Reading a log: entries, inclusion and consistency out of static tiles, against a checkpoint already
verified.

    log = LogReader("https://registry.example/log", checkpoint, fetcher)
    raw = log.entry(104)                # the bytes of entry 104, proved to be in the checkpoint's tree
    for index, raw in log.entries(98, 105): ...
    log.check_prefix(older)             # the older head is a prefix of this one, or ProofError

Every hash and every entry is believed only after it led to the checkpoint's root hash (tlog/tile.py): a
server or a mirror can withhold tiles (NetworkError), it cannot alter them (ProofError). One tile serves 256
neighbours, so reading it tells the server little about which entry was meant.

Tiles and bundles are kept in memory as long as the reader lives; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from countermark.errors import ProofError
from countermark.limits import BUNDLE_MAX_BYTES
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint, VerifiedCheckpoint
from countermark.tlog.tile import (
    WIDTH,
    Tile,
    TileHashes,
    decode_bundle,
    encode_bundle,
    open_bundle,
    tile_at,
)
from countermark.values import replace

if TYPE_CHECKING:
    from countermark.fetch import Fetcher
    from countermark.prefetch import Wanted

TILE_MAX_BYTES = WIDTH * merkle.HASH_SIZE


class TreeReader:
    """The tree under one checkpoint: prefixes and earlier roots. The caller vouches for the checkpoint."""

    def __init__(self, base_url: str, head: Checkpoint, fetcher: Fetcher) -> None:
        self._base_url = base_url.rstrip("/")
        self._head = head
        self._fetcher = fetcher
        self._hashes = TileHashes(head.size, head.root_hash, self._tile)
        self._read: set[Tile] = set()

    def check_prefix(self, older: Checkpoint) -> tuple[bytes, ...]:
        """Check that `older` is a prefix of this tree; returns the consistency proof that says so."""
        proof = self.prove_prefix(older.size)
        merkle.check_consistency(
            proof,
            old_size=older.size,
            old_root=older.root_hash,
            new_size=self._head.size,
            new_root=self._head.root_hash,
        )
        return proof

    def prove_prefix(self, size: int) -> tuple[bytes, ...]:
        """The consistency proof from the root this tree had at an earlier size, whatever that root was."""
        return merkle.prove_consistency(size, self._head.size, self._hashes)

    def root_at(self, size: int) -> bytes:
        """The root hash this tree had at an earlier size."""
        return merkle.subtree_hash(0, size, self._hashes)

    def against(self, head: Checkpoint) -> TreeReader:
        """The same log under another head, one that was verified when it was stored."""
        return TreeReader(self._base_url, head, self._fetcher)

    def _tile(self, tile: Tile) -> bytes:
        raw = self._get(tile, TILE_MAX_BYTES)
        assert raw is not None
        self._read.add(tile)
        return raw

    def _get(self, tile: Tile, max_bytes: int, *, missing_ok: bool = False) -> bytes | None:
        return self._fetcher.get(
            f"{self._base_url}/{tile.path()}", max_bytes=max_bytes, missing_ok=missing_ok
        )


class LogReader(TreeReader):
    """A log as one verified checkpoint commits to it: its entries, too."""

    def __init__(self, base_url: str, checkpoint: VerifiedCheckpoint, fetcher: Fetcher) -> None:
        super().__init__(base_url, checkpoint, fetcher)
        self.checkpoint = checkpoint
        self._bundles: dict[int, list[bytes]] = {}

    def entry(self, index: int) -> bytes:
        """The entry at `index`, proved to be there."""
        if not 0 <= index < self.checkpoint.size:
            raise ProofError(f"entry {index} is not in the tree of size {self.checkpoint.size}")
        # Opening the bundle has compared its hash with its slot of a tile, and the tile with the root hash: making an
        # inclusion proof of the same hashes, and checking it, would say nothing more.
        return self._bundle(index // WIDTH)[index % WIDTH]

    def entries(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The entries from `start` up to but not including `end`, in order; each hashes to its slot."""
        for index in range(start, min(end, self.checkpoint.size)):
            yield index, self._bundle(index // WIDTH)[index % WIDTH]

    def ahead(self, indices: Iterable[int]) -> list[Wanted]:
        """What reading these entries will ask for: their bundles, and the full tiles above them, if not read yet."""
        from countermark.prefetch import Wanted  # noqa: PLC0415  (lazy: offline nobody is asked)

        found: dict[Tile, int] = {}
        for bundle in sorted({index // WIDTH for index in indices} - self._bundles.keys()):
            tile = tile_at(0, bundle, self.checkpoint.size)
            found[tile.bundle()] = BUNDLE_MAX_BYTES
            while tile.full and tile not in self._read:  # partial ones, the tree's edge, are read all at once
                found[tile] = TILE_MAX_BYTES
                tile = tile_at(tile.level + 1, tile.index // WIDTH, self.checkpoint.size)
        return [Wanted(f"{self._base_url}/{tile.path()}", bound) for tile, bound in found.items()]

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of the entry at `index`."""
        return merkle.prove_inclusion(index, self.checkpoint.size, self._hashes)

    def _bundle(self, index: int) -> list[bytes]:
        if index not in self._bundles:
            tile = tile_at(0, index, self.checkpoint.size)
            raw = self._get(tile.bundle(), BUNDLE_MAX_BYTES, missing_ok=not tile.full)
            if raw is None:
                # The log has grown and dropped the partial bundle: the full one starts with the same entries.
                full = self._get(replace(tile.bundle(), width=WIDTH), BUNDLE_MAX_BYTES)
                assert full is not None
                raw = encode_bundle(decode_bundle(full, WIDTH)[: tile.width])
            self._bundles[index] = open_bundle(raw, tile.bundle(), self._hashes)
        return self._bundles[index]
