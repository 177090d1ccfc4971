"""Published: what the log has made public, read the way a stranger reads it.

    published = Published(public, clock)
    proof = published.prove(6, leaf_hash)        # bytes of a .tlog-proof, checked before they are handed out

The doors answer with proofs. They are built from the public checkpoint, tiles and entry bundles alone - never from
the database, which may say anything -, and verified against the checkpoint exactly as a client will, so that this
registry never hands out a proof that does not hold. The checkpoint is opened under the newest trust file's policy:
both log signatures and the witness quorum, or it does not exist for us either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from countermark.errors import CountermarkError, ProofError
from countermark.tlog import proof as tlog_proof
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.tlog.merkle import Known, leaf_hash, prove_inclusion
from countermark.tlog.policy import Policy
from countermark.tlog.proof import TlogProof
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, TileHashes, decode_bundle, tile_at
from countermark_server import adopted
from countermark_server.errors import ServerError
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import CHECKPOINT, Public

FRESH_SECONDS = (
    1.0  # so long proofs are made to the checkpoint that was the newest, if it covers their entries
)
PROOFS_PER_READER = 10_000  # then what is remembered for one checkpoint is dropped, and memory with it
BUNDLE_BYTES_PER_READER = (
    16 * 1024 * 1024
)  # entry bundles taken apart: one has some 400 kB, and this at the most


@dataclass
class _Tree:
    """One checkpoint, opened, and a reader of the tree below it; what proofs share is read once for all threads."""

    checkpoint: VerifiedCheckpoint
    read: TileHashes
    looked: float  # when it was the newest, by the clock that never jumps
    proofs: int = 0
    bundles: dict[Tile, list[bytes]] = field(default_factory=dict)  # not verified
    bundle_bytes: int = 0  # of these, together
    hashes: Known = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Published:
    """The public log of this registry."""

    def __init__(
        self, public: Public, clock: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._public = public
        self._clock = clock
        self._monotonic = monotonic
        self._policy: Policy | None = None
        self._tree: _Tree | None = None
        self._lock = threading.Lock()

    def checkpoint(self) -> VerifiedCheckpoint:
        """The newest public checkpoint. ServerError `unavailable`: there is none that holds."""
        return self._current().checkpoint

    def size(self) -> int:
        """The size of the newest public checkpoint; 0 where there is none that holds, or none can be read."""
        try:
            return self.checkpoint().size
        except (ServerError, StoreError, OSError):
            return 0

    def covers(self, index: int) -> bool:
        """Whether the newest public checkpoint covers the entry at `index`."""
        return index < self.checkpoint().size

    def entry(self, index: int) -> bytes:
        """The entry at `index`, proved to be in the tree."""
        return self._entry(self._current(), index)

    def prove(self, index: int, leaf: str) -> bytes:
        """A proof that the entry with this leaf hash is at `index`. ServerError `proof-invalid`: it is not."""
        return self._prove(self._covering(index), index, leaf).format()

    def prove_all(self, leaves: Sequence[tuple[int, str]]) -> tuple[bytes, list[tuple[bytes, ...]]]:
        """One checkpoint, and for each (index, leaf hash) the hashes that lead to it; all of them checked."""
        tree = self._covering(max((index for index, _ in leaves), default=0))
        return tree.checkpoint.raw, [self._prove(tree, index, leaf).hashes for index, leaf in leaves]

    def _prove(self, tree: _Tree, index: int, leaf: str) -> TlogProof:
        try:
            entry = self._entry(tree, index)
            if leaf_hash(entry).hex() != leaf:
                raise ServerError(
                    "proof-invalid",
                    f"entry {index} of the log has leaf hash {leaf_hash(entry).hex()}, not {leaf}",
                )
            hashes = prove_inclusion(index, tree.checkpoint.size, tree.read, known=tree.hashes)
            proof = TlogProof(index, hashes, tree.checkpoint.raw)
            tlog_proof.check(entry, proof, tree.checkpoint)
        except (CountermarkError, OSError, LookupError, ValueError) as error:
            raise ServerError("proof-invalid", f"entry {index} cannot be proved: {error}") from error
        return proof

    def _covering(self, index: int) -> _Tree:
        """A checkpoint that covers this entry: the last one opened, while it is fresh, or the newest."""
        tree = self._tree
        if tree is None or not self._serves(tree, index):
            with self._lock:  # those whose entries became public together come together: one reads for all
                tree = self._tree
                if tree is None or not self._serves(tree, index):
                    tree = self._newest()
        tree.proofs += 1  # a count that threads may lose one of
        return tree

    def _serves(self, tree: _Tree, index: int) -> bool:
        fresh = self._monotonic() - tree.looked <= FRESH_SECONDS
        return fresh and index < tree.checkpoint.size and tree.proofs < PROOFS_PER_READER

    def _current(self) -> _Tree:
        with self._lock:
            return self._newest()

    def _newest(self) -> _Tree:
        """The newest checkpoint, opened once; the caller holds the lock."""
        raw = self._public.read(CHECKPOINT)
        if raw is None:
            raise ServerError("unavailable", "the log has no public checkpoint yet")
        tree = self._tree
        if tree is None or tree.checkpoint.raw != raw or tree.proofs >= PROOFS_PER_READER:
            tree = self._tree = self._opened(raw)
        tree.looked = self._monotonic()
        return tree

    def _opened(self, raw: bytes) -> _Tree:
        try:
            if self._policy is None:
                self._policy = adopted.trust_file(self._public).policy
            checkpoint = open_checkpoint(raw, self._policy, now=int(self._clock()))
        except CountermarkError as error:
            self._policy = None  # a newer trust file may know more keys
            raise ServerError("unavailable", f"the public checkpoint does not verify: {error}") from error
        reader = TileHashes(checkpoint.size, checkpoint.root_hash, self._fetch)
        return _Tree(checkpoint, reader, self._monotonic())

    def _entry(self, tree: _Tree, index: int) -> bytes:
        if not 0 <= index < tree.checkpoint.size:
            raise ServerError(
                "unavailable",
                f"entry {index} is not covered by the checkpoint of size {tree.checkpoint.size} yet",
            )
        at = tile_at(0, index // WIDTH, tree.checkpoint.size).bundle()
        # Its neighbours are not looked at: only this entry is handed out, and only with its own place in the tree.
        entry = self._bundle(tree, at)[index % WIDTH]
        found, leaf = leaf_hash(entry), tree.read([(0, index)])[0]
        if found != leaf:
            raise ProofError(f"entry {index} has the leaf hash {found.hex()}, the tree has {leaf.hex()}")
        return entry

    def _bundle(self, tree: _Tree, at: Tile) -> list[bytes]:
        known = tree.bundles.get(at)
        if known is None:
            with tree.lock:  # those whose entries became public together ask together: one reads for all
                known = tree.bundles.get(at) or self._read_bundle(tree, at)
        return known

    def _read_bundle(self, tree: _Tree, at: Tile) -> list[bytes]:
        raw = self._public.tile(at)
        if raw is None:
            raise ServerError("proof-invalid", f"the log has no {at.path()}")
        if tree.bundle_bytes + len(raw) > BUNDLE_BYTES_PER_READER:
            tree.bundles, tree.bundle_bytes = {}, 0
        entries = decode_bundle(raw, at.width)
        tree.read([(0, at.index * WIDTH)])  # believed now, and not by each of them
        tree.bundles[at] = entries
        tree.bundle_bytes += len(raw)
        return entries

    def _fetch(self, tile: Tile) -> bytes:
        assert tile.level != ENTRIES
        raw = self._public.tile(tile)
        if raw is None:
            raise FileNotFoundError(tile.path())
        return raw
