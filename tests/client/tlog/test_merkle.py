"""merkle.py against its vectors, against RFC 6962's own recursion, and against false proofs."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.errors import ProofError
from countermark.limits import TREE_SIZE_MAX
from countermark.tlog import merkle
from countermark.tlog.merkle import (
    EMPTY_ROOT,
    RightEdge,
    check_consistency,
    check_inclusion,
    prove_consistency,
    prove_inclusion,
)
from tests.log_samples import leaves, vectors
from tests.oracles import naive_merkle

VECTORS = vectors("merkle")
BYTES = [bytes([i]) for i in range(256)]
BYTE_LEAVES = [merkle.leaf_hash(entry) for entry in BYTES]
READ = merkle.reader(BYTE_LEAVES)
SUBTREES = [
    (start, end)
    for end in range(131)
    for start in range(end + 1)
    if start == end or start % (1 << (end - start - 1).bit_length()) == 0
]


def flip(data: bytes, bit: int = 0) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def test_the_trees_of_certificate_transparency_have_their_known_roots() -> None:
    """RFC 6962's classic eight leaves give the published root at every size."""
    given_ = VECTORS["certificate_transparency"]
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in given_["leaf_inputs_hex"]]
    roots = {str(size): merkle.root_hash(hashes[:size]).hex() for size in range(9)}
    assert roots == given_["roots"]


def test_the_trees_of_single_bytes_have_their_known_roots() -> None:
    """Leaf i is the byte i."""
    for size, root in VECTORS["byte_leaves"]["roots"].items():
        assert merkle.root_hash(BYTE_LEAVES[: int(size)]).hex() == root


def test_the_trees_at_tile_boundaries_have_their_known_roots() -> None:
    """One edge grown through 70,000 leaves passes every known root on its way."""
    hashes = leaves(70_000)
    edge = RightEdge.empty()
    for size, root in VECTORS["tile_boundaries"]["roots"].items():
        edge = edge.extend(hashes[edge.size : int(size)])
        assert base64.b64encode(edge.root()).decode() == root


def test_every_subtree_up_to_130_leaves_has_its_known_hash() -> None:
    """The draft's accumulated digest over the hashes of all subtrees."""
    digest = sha256()
    for start, end in SUBTREES:
        digest.update(f"[{start}, {end}) {merkle.subtree_hash(start, end, READ).hex()}\n".encode())
    assert digest.hexdigest() == VECTORS["accumulated"]["sha256"]["subtree_hash"]


def test_every_inclusion_proof_up_to_130_leaves_is_the_known_one_and_checks() -> None:
    """The draft's accumulated digest over the inclusion proofs in all subtrees."""
    digest = sha256()
    for start, end in SUBTREES:
        root = merkle.subtree_hash(start, end, READ)
        for index in range(start, end):
            proof = prove_inclusion(index, end, READ, start=start)
            check_inclusion(
                proof, index=index, start=start, size=end, leaf_hash=BYTE_LEAVES[index], root_hash=root
            )
            line = [f"{index} [{start}, {end})", *(hash.hex() for hash in proof)]
            digest.update((" ".join(line) + "\n").encode())
    assert digest.hexdigest() == VECTORS["accumulated"]["sha256"]["inclusion"]


def test_what_one_proof_has_read_serves_the_others_of_its_tree() -> None:
    """With all that is known handed on, every proof is the one that is made alone, and few subtrees are read."""
    for size in (1, 2, 7, 64, 100, 130):
        known, asked = merkle.Known(), list[tuple[int, int]]()

        def read(places: Sequence[tuple[int, int]], asked: list[tuple[int, int]] = asked) -> list[bytes]:
            asked.extend(places)
            return READ(places)

        for index in range(size):
            assert prove_inclusion(index, size, read, known=known) == prove_inclusion(index, size, READ)
        assert len(asked) < 4 * size


def test_every_consistency_proof_up_to_130_leaves_is_the_known_one_and_checks() -> None:
    """The draft's accumulated digest over the consistency proofs of all subtrees in all trees."""
    digest = sha256()
    hashes = {subtree: merkle.subtree_hash(*subtree, READ) for subtree in SUBTREES}
    for size in range(131):
        for start, end in SUBTREES:
            if end > size:
                continue
            proof = prove_consistency(end, size, READ, start=start)
            check_consistency(
                proof,
                start=start,
                old_size=end,
                old_root=hashes[start, end],
                new_size=size,
                new_root=hashes[0, size],
            )
            line = [f"[{start}, {end}) {size}", *(hash.hex() for hash in proof)]
            digest.update((" ".join(line) + "\n").encode())
    assert digest.hexdigest() == VECTORS["accumulated"]["sha256"]["consistency"]


def test_the_recursion_of_rfc_6962_gives_the_same_roots_and_proofs() -> None:
    """The naive oracle agrees on every tree of up to 40 leaves, and on some around 64 and 128."""
    for size in [*range(1, 41), 63, 64, 65, 127, 128, 129, 130]:
        D = BYTES[:size]
        assert merkle.root_hash(BYTE_LEAVES[:size]) == naive_merkle.mth(D)
        for m in range(size) if size <= 40 else (0, 1, size // 2, size - 1):
            assert list(prove_inclusion(m, size, READ)) == naive_merkle.path(m, D)
            assert list(prove_consistency(m + 1, size, READ)) == naive_merkle.proof(m + 1, D)


def test_an_edge_grown_leaf_by_leaf_equals_the_edge_read_from_the_tree() -> None:
    """Append, extend and read agree at every size."""
    edge = RightEdge.empty()
    assert edge.root() == EMPTY_ROOT
    for size, leaf in enumerate(BYTE_LEAVES, 1):
        edge = edge.append(leaf)
        assert edge == RightEdge.read(size, READ) == RightEdge.empty().extend(BYTE_LEAVES[:size])
        assert edge.root() == merkle.subtree_hash(0, size, READ)
    with pytest.raises(ProofError, match="right edge"):
        RightEdge(3, (EMPTY_ROOT,))


def test_the_examples_in_the_docstring_are_real() -> None:
    """The three lines at the top of merkle.py hash as they say."""
    lines = re.findall(r"^    (leaf_hash|node_hash).*([0-9a-f]{64})$", merkle.__doc__ or "", re.M)
    empty, zero = merkle.leaf_hash(b""), merkle.leaf_hash(b"\x00")
    assert [hash for _, hash in lines] == [h.hex() for h in (empty, zero, merkle.node_hash(empty, zero))]


def test_the_empty_tree_is_a_prefix_of_every_tree_and_needs_no_proof() -> None:
    """Consistency from 0 and from n to n is the empty list, and nothing longer."""
    root = merkle.root_hash(BYTE_LEAVES[:5])
    check_consistency((), old_size=0, old_root=EMPTY_ROOT, new_size=5, new_root=root)
    check_consistency((), old_size=0, old_root=EMPTY_ROOT, new_size=0, new_root=EMPTY_ROOT)
    check_consistency((), old_size=5, old_root=root, new_size=5, new_root=root)
    for old_size, old_root, new_size, new_root, proof in [
        (0, EMPTY_ROOT, 5, root, (root,)),
        (0, root, 5, root, ()),
        (0, EMPTY_ROOT, 0, root, ()),
        (5, root, 5, root, (root,)),
        (5, root, 5, flip(root), ()),
        (5, flip(root), 5, root, ()),
    ]:
        with pytest.raises(ProofError):
            check_consistency(
                proof, old_size=old_size, old_root=old_root, new_size=new_size, new_root=new_root
            )


@pytest.mark.parametrize(
    ("start", "end", "size"),
    [(1, 3, 8), (2, 5, 8), (4, 9, 16), (3, 2, 8), (0, 9, 8), (-1, 1, 8), (0, 1, TREE_SIZE_MAX + 1)],
)
def test_what_no_complete_tree_could_hold_is_not_a_subtree(start: int, end: int, size: int) -> None:
    """Neither proved nor checked: unaligned, backwards, outside, beyond 2**63 - 1."""
    with pytest.raises(ProofError):
        prove_consistency(end, size, READ, start=start)
    with pytest.raises(ProofError):
        check_consistency(
            (), start=start, old_size=end, old_root=EMPTY_ROOT, new_size=size, new_root=EMPTY_ROOT
        )


@pytest.mark.parametrize("index", [-1, 8, 9, 2**63])
def test_an_index_outside_the_tree_has_no_proof(index: int) -> None:
    """Neither proved nor checked, whatever hashes are offered."""
    root = merkle.root_hash(BYTE_LEAVES[:8])
    with pytest.raises(ProofError):
        prove_inclusion(index, 8, READ)
    for proof in [(), prove_inclusion(7, 8, READ)]:
        with pytest.raises(ProofError):
            check_inclusion(proof, index=index, size=8, leaf_hash=BYTE_LEAVES[7], root_hash=root)


def test_a_hash_of_another_length_in_a_proof_is_refused() -> None:
    """31 or 33 bytes never shift a boundary between two hashes."""
    proof = prove_inclusion(2, 4, READ)
    root = merkle.root_hash(BYTE_LEAVES[:4])
    for wrong in (proof[0][:-1], proof[0] + b"\x00", b""):
        with pytest.raises(ProofError, match="bytes in a proof"):
            check_inclusion((wrong, proof[1]), index=2, size=4, leaf_hash=BYTE_LEAVES[2], root_hash=root)


def _refused_inclusion(proof: tuple[bytes, ...], index: int, size: int, leaf: bytes, root: bytes) -> None:
    with pytest.raises(ProofError):
        check_inclusion(proof, index=index, size=size, leaf_hash=leaf, root_hash=root)


def _refused_consistency(proof: tuple[bytes, ...], old: int, old_root: bytes, new: int, root: bytes) -> None:
    with pytest.raises(ProofError):
        check_consistency(proof, old_size=old, old_root=old_root, new_size=new, new_root=root)


BIG = leaves(66_000)
BIG_READ = merkle.reader(BIG)
SIZES = st.one_of(
    st.integers(2, 600), st.sampled_from([n + d for n in (256, 512, 65_536) for d in range(-2, 3)])
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_inclusion_proof_is_refused(data: st.DataObject) -> None:
    """Every mutation of the list; but not size +-1, which a proof does not bind (a checkpoint does)."""
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    proof, root, leaf = (
        prove_inclusion(index, size, BIG_READ),
        merkle.subtree_hash(0, size, BIG_READ),
        BIG[index],
    )
    check_inclusion(proof, index=index, size=size, leaf_hash=leaf, root_hash=root)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    _refused_inclusion(proof[:at] + proof[at + 1 :], index, size, leaf, root)  # a hash dropped
    _refused_inclusion((root, *proof), index, size, leaf, root)  # one more in front
    _refused_inclusion((*proof, root), index, size, leaf, root)  # one more at the end
    _refused_inclusion((*proof[:at], flip(proof[at], bit), *proof[at + 1 :]), index, size, leaf, root)
    _refused_inclusion(proof, index, size, leaf, flip(root, bit))
    _refused_inclusion(proof, index, size, flip(leaf, bit), root)
    _refused_inclusion(proof, index, size, BIG[index ^ 1 if index ^ 1 < size else index - 1], root)
    _refused_inclusion(proof, index ^ 1, size, leaf, root)
    _refused_inclusion(proof, index + size, size, leaf, root)
    _refused_inclusion(proof, index, size * 2, leaf, root)
    _refused_inclusion(proof, index, size // 2, leaf, root)
    _refused_inclusion(proof, index, size, root, leaf)  # root and leaf swapped


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_consistency_proof_is_refused(data: st.DataObject) -> None:
    """Every mutation of the list; but not the new size +-1, which a proof does not bind."""
    new = data.draw(SIZES)
    old = data.draw(st.one_of(st.integers(1, new - 1), st.integers(max(1, new - 3), new - 1)))
    proof = prove_consistency(old, new, BIG_READ)
    old_root, new_root = merkle.subtree_hash(0, old, BIG_READ), merkle.subtree_hash(0, new, BIG_READ)
    check_consistency(proof, old_size=old, old_root=old_root, new_size=new, new_root=new_root)
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    _refused_consistency(proof[:at] + proof[at + 1 :], old, old_root, new, new_root)
    _refused_consistency((old_root, *proof), old, old_root, new, new_root)
    _refused_consistency((*proof, new_root), old, old_root, new, new_root)
    flipped = (*proof[:at], flip(proof[at], bit), *proof[at + 1 :])
    _refused_consistency(flipped, old, old_root, new, new_root)
    _refused_consistency(proof, old, flip(old_root, bit), new, new_root)
    _refused_consistency(proof, old, old_root, new, flip(new_root, bit))
    _refused_consistency(proof, old, new_root, new, old_root)  # roots swapped
    _refused_consistency(proof, new, new_root, old, old_root)  # an old tree larger than the new one
    if old >= 2:
        _refused_consistency(proof, old - 1, old_root, new, new_root)
        _refused_consistency(proof, old + 1, old_root, new, new_root)
    _refused_consistency(proof, old, old_root, new * 2, new_root)
    if new // 2 != old:
        _refused_consistency(proof, old, old_root, new // 2, new_root)


def test_a_proof_does_not_bind_the_size_of_its_tree() -> None:
    """The trap: one list of hashes serves leaf 0 in size 3 and in size 4; only a checkpoint tells which."""
    proof = prove_inclusion(0, 3, READ)
    root = merkle.root_hash(BYTE_LEAVES[:3])
    for size in (3, 4):
        check_inclusion(proof, index=0, size=size, leaf_hash=BYTE_LEAVES[0], root_hash=root)
