"""Keys, checkpoints and whole logs that the tests of `countermark.tlog` share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, Note, NoteSigner, sign_note
from countermark.tlog.policy import Policy
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, encode_bundle, grow

VECTORS = Path(__file__).parent / "vectors"
ORIGIN = "log.example.org/countermark"
TIME = 1790000000


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def ed25519(seed_byte: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed_byte]) * 32)


def ml_dsa(seed_byte: int) -> MLDSA44PrivateKey:
    return MLDSA44PrivateKey.from_seed_bytes(bytes([seed_byte]) * 32)


LOG = Ed25519NoteSigner(ORIGIN, ed25519(1))
LOG_PQ = MlDsaSigner(ORIGIN, ml_dsa(1))
W1 = Ed25519CosignatureSigner("witness.example.org/w1", ed25519(2))
W2 = MlDsaSigner("witness.example.org/w2", ml_dsa(3))
W3 = Ed25519CosignatureSigner("witness.example.org/w3", ed25519(4))
STRANGER = Ed25519CosignatureSigner("stranger.example/w", ed25519(9))

POLICY = Policy.parse(
    f"log {LOG.vkey.format()}\nlog {LOG_PQ.vkey.format()}\n"
    f"witness w1 {W1.vkey.format()}\nwitness w2 {W2.vkey.format()}\nwitness w3 {W3.vkey.format()}\n"
    "group two-of-three 2 w1 w2 w3\nquorum two-of-three\n"
)


def entries(size: int) -> list[bytes]:
    """The log of the tile-boundary vectors."""
    return [b"entry %d" % i for i in range(size)]


def leaves(size: int) -> list[bytes]:
    return [merkle.leaf_hash(entry) for entry in entries(size)]


def checkpoint(size: int = 256) -> Checkpoint:
    return Checkpoint(ORIGIN, size, merkle.root_hash(leaves(size)))


def signed(
    signers: Sequence[NoteSigner] = (LOG, LOG_PQ, W1, W2), *, size: int = 256, time: int = TIME
) -> Note:
    return sign_note(checkpoint(size).text(), signers, time=time)


def log_files(size: int) -> dict[str, bytes]:
    """Every tile and bundle of the log of this size, by path."""
    tiles = grow(0, {}, leaves(size))
    all_entries = entries(size)
    for tile in [tile for tile in tiles if tile.level == 0]:
        tiles[tile.bundle()] = encode_bundle(all_entries[tile.index * WIDTH :][: tile.width])
    return {tile.path(): data for tile, data in tiles.items()}


def tile_files(tiles: dict[str, bytes]) -> Any:
    """A fetch for TileHashes that serves these files and counts what it was asked for."""

    def fetch(tile: Tile) -> bytes:
        fetch.asked.append(tile.path())  # type: ignore[attr-defined]
        assert tile.level != ENTRIES
        return tiles[tile.path()]

    fetch.asked = []  # type: ignore[attr-defined]
    return fetch
