"""The Merkle tree of RFC 6962 over SHA-256: roots, proofs, and the right edge that lets a tree grow.

    leaf_hash(b"")              6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
    leaf_hash(b"\\x00")          96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7
    node_hash(the two above)    fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125

The last line is the root hash of the tree of these two entries. A leaf is hashed behind a zero byte and a
node behind a one, so no entry can pass for a node. A tree of n leaves splits at the largest power of two
below n: the left side is complete and never changes again, which is why a log can publish its inner hashes
as immutable tiles, and why the few hashes of its *right edge* are all that an append needs.

A *subtree* [start, end) is one that a complete tree could hold: `start` is 0, or a multiple of the smallest
power of two that is not below end - start. A proof shows a subtree to be part of a tree: one leaf (inclusion),
or an old tree (consistency). Which hashes it needs follows from the numbers alone (`_steps`): proving reads
them, checking folds them.

What a proof does not say: the size of the tree. The same hashes may lead to the same root under a size one
off. Take size and root hash from one verified checkpoint, never from whoever offers the proof.

Formats: RFC 6962, section 2.1; subtrees: draft-ietf-plants-merkle-tree-certs-02, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from countermark.digest import sha256
from countermark.errors import ProofError
from countermark.limits import TREE_SIZE_MAX
from countermark.values import dataclass

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

Hashes = Sequence[bytes]
# Reads the hashes of complete subtrees: (level, index) is [index * 2**level, (index + 1) * 2**level).
HashReader = Callable[[Sequence[tuple[int, int]]], list[bytes]]
Known = dict[tuple[int, int], bytes]  # the hashes of subtrees [start, end) of one tree


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root_hash(leaf_hashes: Hashes) -> bytes:
    """The root hash of the tree with these leaves."""
    return RightEdge.empty().extend(leaf_hashes).root()


@dataclass(frozen=True)
class RightEdge:
    """All that a tree must remember to grow: its complete subtrees, the largest (leftmost) first."""

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.hashes) != self.size.bit_count():
            raise ProofError(
                f"{len(self.hashes)} hashes cannot be the right edge of a tree of size {self.size}"
            )

    @classmethod
    def empty(cls) -> RightEdge:
        return cls(0, ())

    @classmethod
    def read(cls, size: int, read: HashReader) -> RightEdge:
        """The right edge of a stored tree."""
        return cls(size, tuple(read(_complete(0, size))))

    def append(self, leaf_hash: bytes) -> RightEdge:
        return self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> RightEdge:
        size, edge = self.size, list(self.hashes)
        for leaf in leaf_hashes:
            edge.append(leaf)
            merges, size = size, size + 1
            while merges & 1:  # every trailing one is a complete subtree that was waiting for its sibling
                right = edge.pop()
                edge[-1] = sha256(b"\x01" + edge[-1] + right).digest()
                merges >>= 1
        return RightEdge(size, tuple(edge))

    def root(self) -> bytes:
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT


def reader(leaf_hashes: Hashes) -> HashReader:
    """Reads the complete subtrees of a tree whose leaf hashes are at hand."""
    levels = [list(leaf_hashes)]
    while len(below := levels[-1]) > 1:
        levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])
    return lambda places: [levels[level][index] for level, index in places]


def subtree_hash(start: int, end: int, read: HashReader) -> bytes:
    """The hash of the subtree [start, end)."""
    _check_subtree(start, end, TREE_SIZE_MAX)
    return _fold(read(_complete(start, end))) if start < end else EMPTY_ROOT


def prove_inclusion(
    index: int, size: int, read: HashReader, *, start: int = 0, known: Known | None = None
) -> tuple[bytes, ...]:
    """Prove that the leaf at `index` is in the (sub)tree [start, size); the leaf's sibling comes first.

    `known`: what the proofs of other leaves of the same tree have read; neighbours share all but the lowest hashes.
    """
    return _read(_leaf_steps(index, start, size), read, {} if known is None else known)


def check_inclusion(
    proof: Hashes, *, index: int, size: int, leaf_hash: bytes, root_hash: bytes, start: int = 0
) -> None:
    """Check that `leaf_hash` is the leaf at `index` of the (sub)tree [start, size) with `root_hash`."""
    _, root = _climb(_leaf_steps(index, start, size), proof, leaf_hash)
    if root != root_hash:
        what = f"the inclusion proof of leaf {index} in [{start}, {size})"
        raise ProofError(f"{what} leads to {root.hex()}, not to {root_hash.hex()}")


def prove_consistency(old_size: int, new_size: int, read: HashReader, *, start: int = 0) -> tuple[bytes, ...]:
    """Prove that the (sub)tree [start, old_size) is part of the tree of `new_size` leaves."""
    _check_subtree(start, old_size, new_size)
    return _read(_steps(start, old_size, 0, new_size), read, {}) if start < old_size else ()


def check_consistency(
    proof: Hashes, *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, start: int = 0
) -> None:
    """Check that the (sub)tree [start, old_size) is part of the new tree, as the empty tree always is."""
    _check_subtree(start, old_size, new_size)
    if start < old_size:
        part, root = _climb(_steps(start, old_size, 0, new_size), proof, old_root)
    else:  # nothing leads to the root hash; only that of the empty tree is known without a proof
        part, _ = _climb([], proof, EMPTY_ROOT)
        root = new_root if new_size else EMPTY_ROOT
    if (part, root) != (old_root, new_root):
        what = f"the consistency proof of [{start}, {old_size}) in a tree of size {new_size}"
        wanted = f"{old_root.hex()} and {new_root.hex()}"
        raise ProofError(f"{what} leads to {part.hex()} and {root.hex()}, not to {wanted}")


# A hash of a proof: that of [lo, hi), and where it goes. "right" and "left" of the tree reached so far; "both":
# left of the tree and of the part of the subtree reached so far; "start": it is where the climb begins.
_Step = tuple[Literal["right", "left", "both", "start"], int, int]


def _leaf_steps(index: int, start: int, end: int) -> list[_Step]:
    _check_subtree(start, end, TREE_SIZE_MAX)
    if not start <= index < end:
        raise ProofError(f"there is no leaf {index} in [{start}, {end})")
    return _steps(index, index + 1, start, end)


def _steps(start: int, end: int, lo: int, hi: int) -> list[_Step]:
    """The hashes that prove the non-empty subtree [start, end) part of [lo, hi), from the subtree upwards."""
    steps: list[_Step] = []
    whole = True
    while (lo, hi) != (start, end):
        middle = lo + (1 << ((hi - lo - 1).bit_length() - 1))
        if end <= middle:
            steps.append(("right", middle, hi))
            hi = middle
        elif start >= middle:
            steps.append(("left", lo, middle))
            lo = middle
        else:  # here start == lo: the left half belongs to both, go on with the rest of the subtree
            steps.append(("both", lo, middle))
            lo = start = middle
            whole = False
    if not whole:
        steps.append(("start", lo, hi))  # else the verifier has this hash: the subtree's own
    steps.reverse()
    return steps


def _read(steps: Sequence[_Step], read: HashReader, known: Known) -> tuple[bytes, ...]:
    """The hashes of these steps; those that are not known yet are fetched at once."""
    spans = [(lo, hi) for _, lo, hi in steps]
    missing = [span for span in spans if span not in known]
    if missing:
        places = [_complete(lo, hi) for lo, hi in missing]
        hashes = iter(read([place for group in places for place in group]))
        for span, group in zip(missing, places, strict=True):
            known[span] = _fold([next(hashes) for _ in group])
    return tuple([known[span] for span in spans])


def _climb(steps: Sequence[_Step], proof: Hashes, hash: bytes) -> tuple[bytes, bytes]:
    """Fold a proof; returns what it makes of the subtree and of the tree."""
    if len(proof) != len(steps):
        raise ProofError(f"the proof has {len(proof)} hashes, but this place in this tree needs {len(steps)}")
    part = tree = hash
    for (side, _, _), sibling in zip(steps, proof, strict=True):
        if len(sibling) != HASH_SIZE:
            raise ProofError(f"a hash of {len(sibling)} bytes in a proof")
        if side == "right":
            tree = node_hash(tree, sibling)
        elif side == "left":
            tree = node_hash(sibling, tree)
        elif side == "both":
            part, tree = node_hash(sibling, part), node_hash(sibling, tree)
        else:
            part = tree = sibling
    return part, tree


def _complete(start: int, end: int) -> list[tuple[int, int]]:
    """The complete subtrees that a subtree consists of, as (level, index), from left to right."""
    places = []
    while start < end:
        level = (end - start).bit_length() - 1
        places.append((level, start >> level))
        start += 1 << level
    return places


def _fold(hashes: Hashes) -> bytes:
    """The hash over complete subtrees that shrink from left to right."""
    *others, hash = hashes
    for left in reversed(others):
        hash = node_hash(left, hash)
    return hash


def _check_subtree(start: int, end: int, size: int) -> None:
    if not 0 <= start <= end <= size <= TREE_SIZE_MAX:
        raise ProofError(f"[{start}, {end}) is not inside a tree of size {size}")
    width = 1 << (end - start - 1).bit_length() if start < end else 1
    if start % width:
        raise ProofError(f"[{start}, {end}) is not a subtree: {start} is not a multiple of {width}")
