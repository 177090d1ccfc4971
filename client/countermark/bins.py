"""The bins root: one hash in the timestamp that commits to every target of the registry.

TUF's snapshot names a version for each of 4,096 bins. `x-countermark-bins` in the timestamp adds one Merkle
root (RFC 6962) over all bins in order, so that one target and two short paths prove a listing offline, at a
size that does not depend on the registry's. Stock TUF clients ignore it; ours requires it.

The leaf of a bin is a line of text,

    bins-0a7 12 5ba1...c3 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n

role, version, hex SHA-256 of the metadata file, base64 RFC 6962 root over the bin's targets in path order.
The leaf of a target is canonical JSON:

    {"path":"files/demo/demo-1.0.tar.gz","target":{"custom":{"i":4,...},"hashes":{...},"length":9000}}

Tiles hold up to 256 hashes, 32 bytes each, one after the other. A tile is served under the name of the
RFC 6962 root of its hashes (`bins/<hex>`), so a tile proves itself and never changes. The signed root names
the top tile; each hash of a tile names the tile below it; the lowest hold the leaf hashes of bins. 4,096
bins are 17 tiles, of which a publish of one file rewrites two.

Everything here is arithmetic on values; who signed the root is the caller's business.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from countermark.canonical import encode_canonical
from countermark.digest import HEX, is_hex, sha256
from countermark.errors import MalformedError, ProofError, UsageError
from countermark.limits import BIN_BITS_MAX, BIN_MAX_BYTES
from countermark.tlog import merkle
from countermark.values import dataclass

TILE_HEIGHT = 8  # of the tree in one tile
TILE_WIDTH = 1 << TILE_HEIGHT
_SMALL = "abcdefghijklmnopqrstuvwxyz0123456789"
TILE_MAX_BYTES = TILE_WIDTH * merkle.HASH_SIZE

Target = Mapping[str, object]  # a TUF target as it stands in metadata: {"custom", "hashes", "length"}


def _is_leaf(role: str, version: str, sha256: str, root: str) -> bool:
    """Whether these are the words of a bin leaf; that the root is base64 is seen later. (No pattern: digest.py)"""
    name, _, number = role.partition("-")
    return (
        all((name, number))
        and not name.strip(_SMALL)
        and not number.strip(HEX)
        and version.isascii()
        and version.isdigit()
        and version[0] != "0"
        and len(version) <= 16
        and is_hex(sha256, 64)
        and len(root) == 45
        and root.endswith("=\n")
    )


def target_leaf_hash(path: str, target: Target) -> bytes:
    """The leaf hash of one target in its bin's own small tree."""
    return merkle.leaf_hash(encode_canonical({"path": path, "target": target}))


def targets_root(targets: Mapping[str, Target]) -> bytes:
    """The root over one bin's targets, in path order."""
    return merkle.root_hash([target_leaf_hash(path, targets[path]) for path in sorted(targets)])


@dataclass(frozen=True)
class BinLeaf:
    """One bin as the bins root commits to it."""

    role: str
    version: int
    sha256: str  # of the metadata file, hex
    targets_root: bytes

    def format(self) -> bytes:
        """The line."""
        root = base64.b64encode(self.targets_root).decode()
        return f"{self.role} {self.version} {self.sha256} {root}\n".encode("ascii")

    @classmethod
    def parse(cls, raw: bytes) -> BinLeaf:
        """The bin in this line, in its one spelling."""
        words = raw.decode("latin-1").split(" ")
        if len(raw) > 1024 or len(words) != 4 or not _is_leaf(*words):
            raise MalformedError("bin leaf is not `role version sha256 root`")
        try:
            root = base64.b64decode(words[3].removesuffix("\n"), validate=True)
        except ValueError as error:
            raise MalformedError("bin leaf has a root that is not base64") from error
        found = cls(words[0], int(words[1]), words[2], root)
        if found.format() != raw:
            raise MalformedError("bin leaf is not in canonical form")
        return found

    @property
    def leaf_hash(self) -> bytes:
        """Its leaf hash in the tree over all bins."""
        return merkle.leaf_hash(self.format())


def role_name(index: int, bit_length: int, prefix: str = "bins") -> str:
    """The role of the bin at `index`, as TUF's succinct delegation names it."""
    if not 1 <= bit_length <= BIN_BITS_MAX:
        raise UsageError(f"bit length {bit_length} is not within 1 to {BIN_BITS_MAX}")
    return f"{prefix}-{index:0{(bit_length - 1) // 4 + 1}x}"


def former(names: Collection[str], bit_length: int) -> set[str]:
    """Those of these roles that fewer bins have left behind in the snapshot, from which TUF lets no role go.

    Whole sets of bins with shorter names, as a smaller bit length makes them: `bins-000` to `bins-fff` beside
    `bins-0000` and so on.
    """
    found: set[str] = set()
    for fewer in range(1, (bit_length - 1) // 4 * 4 + 1):
        if role_name((1 << fewer) - 1, fewer) in names:
            whole = {role_name(number, fewer) for number in range(1 << fewer)}
            found |= whole if whole <= set(names) else set()
    return found


def bin_number(path: str, bit_length: int) -> int:
    """Which bin a target path belongs to: the first bits of its SHA-256, as TUF's succinct delegation says."""
    if not 1 <= bit_length <= BIN_BITS_MAX:
        raise MalformedError(f"bit length {bit_length} is not within 1 to {BIN_BITS_MAX}")
    return int.from_bytes(sha256(path.encode("utf-8", "surrogatepass")).digest()[:4]) >> (32 - bit_length)


@dataclass(frozen=True)
class BinsTree:
    """Every hash of it, row by row: row 0 holds the bins' leaf hashes, the last row the root.

    So when bins change, only what lies above them is hashed again. Tiles are cut from every eighth row.
    """

    rows: tuple[tuple[bytes, ...], ...]

    @classmethod
    def build(cls, leaf_hashes: Sequence[bytes]) -> BinsTree:
        """The tree over these bins; their number is a power of two."""
        count = len(leaf_hashes)
        if count < 2 or count & count - 1 or count > 1 << BIN_BITS_MAX:
            raise UsageError(f"{count} bins: a bins tree has 2 to 2^{BIN_BITS_MAX}, a power of two")
        rows = [tuple(leaf_hashes)]
        while len(below := rows[-1]) > 1:
            rows.append(
                tuple([merkle.node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=True)])
            )
        return cls(tuple(rows))

    @property
    def count(self) -> int:
        """How many bins."""
        return len(self.rows[0])

    @property
    def root(self) -> bytes:
        """The bins root."""
        return self.rows[-1][0]

    @property
    def levels(self) -> tuple[tuple[bytes, ...], ...]:
        """What tiles hold: at level 0 the bins' leaf hashes, at the last level the hashes of the one top tile."""
        return self.rows[:-1:TILE_HEIGHT]

    def replace(self, changed: Mapping[int, bytes]) -> tuple[BinsTree, dict[str, bytes]]:
        """The tree with some bins changed, and the tiles that are new."""
        if odd := [index for index in changed if not 0 <= index < self.count]:
            raise UsageError(f"bin {odd[0]} of {self.count}")
        rows, moved = [_changed(self.rows[0], changed)], set(changed)
        for row in self.rows[1:]:
            below, moved = rows[-1], {index // 2 for index in moved}
            rows.append(_changed(row, {i: merkle.node_hash(*below[2 * i : 2 * i + 2]) for i in moved}))
        tree = BinsTree(tuple(rows))
        touched = [
            {index >> TILE_HEIGHT * (level + 1) for index in changed} for level in range(len(tree.levels))
        ]
        return tree, dict(tree._tile(level, tile) for level, tiles in enumerate(touched) for tile in tiles)

    def tiles(self) -> dict[str, bytes]:
        """Every tile by name."""
        return dict(
            self._tile(level, tile)
            for level, hashes in enumerate(self.levels)
            for tile in range(-(-len(hashes) // TILE_WIDTH))
        )

    def _tile(self, level: int, tile: int) -> tuple[str, bytes]:
        """A tile's name, which is the hash over it, and its bytes."""
        above = self.rows[min(TILE_HEIGHT * (level + 1), len(self.rows) - 1)]
        hashes = self.rows[TILE_HEIGHT * level][tile * TILE_WIDTH : (tile + 1) * TILE_WIDTH]
        return above[tile].hex(), b"".join(hashes)

    def prove(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of the bin at `index`."""
        return merkle.prove_inclusion(
            index, self.count, lambda places: [self.rows[row][place] for row, place in places]
        )


def _changed(row: tuple[bytes, ...], hashes: Mapping[int, bytes]) -> tuple[bytes, ...]:
    changed = list(row)
    for index, hash in hashes.items():
        changed[index] = hash
    return tuple(changed)


def check_bin(leaf: BinLeaf, *, index: int, bit_length: int, proof: Sequence[bytes], root: bytes) -> None:
    """Refuse unless the bins root commits to this bin at this place."""
    expected = role_name(index, bit_length, leaf.role.rpartition("-")[0])
    if leaf.role != expected:
        raise ProofError(f"the bin at {index} is {expected!r}, this one says {leaf.role!r}")
    merkle.check_inclusion(
        tuple(proof), index=index, size=1 << bit_length, leaf_hash=leaf.leaf_hash, root_hash=root
    )


def read_leaf_hash(fetch: Callable[[str], bytes], *, index: int, bit_length: int, root: bytes) -> bytes:
    """The leaf hash of one bin, read from tiles that are each checked against the name they were asked by.

    `fetch` brings the tile of a hex name; nothing of a tile is used before it proved itself.
    """
    *_, (place, hashes) = _way_down(fetch, index, bit_length, root)
    return hashes[place]


def read_proof(
    fetch: Callable[[str], bytes], *, index: int, bit_length: int, root: bytes
) -> tuple[bytes, ...]:
    """The inclusion proof of one bin, read from the same tiles."""
    way = list(_way_down(fetch, index, bit_length, root))
    return tuple(
        hash
        for place, hashes in reversed(way)
        for hash in merkle.prove_inclusion(place, len(hashes), merkle.reader(hashes))
    )


def _way_down(
    fetch: Callable[[str], bytes], index: int, bit_length: int, root: bytes
) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """The tiles from the top to the one that holds the bin's leaf hash, and the place in each."""
    if not 1 <= bit_length <= BIN_BITS_MAX or not 0 <= index < 1 << bit_length:
        raise ProofError(f"no bin {index} with bit length {bit_length}")
    name = root
    for level in range((bit_length - 1) // 8, -1, -1):
        hashes = open_tile(fetch(name.hex()), name)
        width = min(TILE_WIDTH, 1 << (bit_length - 8 * level))
        if len(hashes) != width:
            raise ProofError(f"bins tile {name.hex()} holds {len(hashes)} hashes, {width} belong there")
        place = (index >> 8 * level) % TILE_WIDTH
        yield place, hashes
        name = hashes[place]


@lru_cache(maxsize=64)  # every file of a lock is looked up in one of few tiles
def open_tile(raw: bytes, name: bytes) -> tuple[bytes, ...]:
    """The hashes of a tile, once their root is its name."""
    if not raw or len(raw) % merkle.HASH_SIZE or len(raw) > TILE_MAX_BYTES:
        raise MalformedError(f"bins tile {name.hex()} has {len(raw)} bytes")
    hashes = tuple(raw[at : at + merkle.HASH_SIZE] for at in range(0, len(raw), merkle.HASH_SIZE))
    found = merkle.root_hash(hashes)
    if found != name:
        raise ProofError(f"bins tile {name.hex()} has the root {found.hex()}")
    return hashes


@dataclass(frozen=True)
class TargetProof:
    """Where a target stands among its bin's targets, and the path to their root."""

    index: int
    size: int
    hashes: tuple[bytes, ...]


def prove_target(targets: Mapping[str, Target], path: str) -> TargetProof:
    """The proof that `path` is among these targets."""
    paths = sorted(targets)
    if path not in targets:
        raise UsageError(f"{path!r} is not among the bin's targets")
    leaf_hashes = [target_leaf_hash(each, targets[each]) for each in paths]
    index = paths.index(path)
    proof = merkle.prove_inclusion(index, len(paths), merkle.reader(leaf_hashes))
    return TargetProof(index, len(paths), proof)


def check_target(path: str, target: Target, proof: TargetProof, leaf: BinLeaf) -> None:
    """Refuse unless the bin holds exactly this target."""
    merkle.check_inclusion(
        proof.hashes,
        index=proof.index,
        size=proof.size,
        leaf_hash=target_leaf_hash(path, target),
        root_hash=leaf.targets_root,
    )


def format_changes(changed: Iterable[BinLeaf]) -> bytes:
    """The list of changed bins, in order: one leaf line each."""
    return b"".join(leaf.format() for leaf in sorted(changed, key=lambda leaf: leaf.role))


def parse_changes(raw: bytes) -> tuple[BinLeaf, ...]:
    """The changed bins in such a list, each once, in order."""
    if len(raw) > BIN_MAX_BYTES * 4:
        raise MalformedError(f"list of changed bins of {len(raw)} bytes")
    leaves = tuple(BinLeaf.parse(line) for line in raw.splitlines(keepends=True))
    if any(before.role >= after.role for before, after in pairwise(leaves)):
        raise MalformedError("list of changed bins is not in order")
    return leaves
