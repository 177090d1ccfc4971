"""Every proof of every tree of up to 130 leaves, with every bit of every hash flipped: all refused.

Taken literally these are 28 million checks. Checking is a fold from the leaf to the root, so two proofs of
one tree that share the rest of the way share its outcome: a flipped hash is climbed from where it stands, once
for every place (tree size, node, side) it can stand in. That is the checker's own fold on the rest of the
steps, and a root that differs is a refusal whatever came before. The whole check is run besides: for every
proof with one bit in every hash, for small and boundary trees with every bit.
"""

from __future__ import annotations

import pytest

from countermark.errors import ProofError
from countermark.tlog import merkle
from countermark.tlog.merkle import check_consistency, check_inclusion, prove_consistency, prove_inclusion

LARGEST = 130
LEAVES = [merkle.leaf_hash(bytes([i])) for i in range(LARGEST)]
READ = merkle.reader(LEAVES)
ROOTS = [merkle.subtree_hash(0, size, READ) for size in range(LARGEST + 1)]
BITS = [1 << bit for bit in range(256)]
EVERY_BIT_UP_TO = 16


def flips(hash: bytes, bits: list[int] = BITS) -> list[bytes]:
    number = int.from_bytes(hash, "big")
    return [(number ^ bit).to_bytes(32, "big") for bit in bits]


def bits_for(size: int, seed: int) -> list[int]:
    """Every bit in small trees and in one of 65 leaves; one bit, another each time, elsewhere."""
    return BITS if size <= EVERY_BIT_UP_TO else [BITS[seed * 37 % 256]]


def climb_flipped(
    done: set[object], size: int, steps: list[merkle._Step], proof: tuple[bytes, ...], hash: bytes
) -> int:
    """Flip every bit of every hash of this proof that was not yet flipped in the same place."""
    count = 0
    for at, (step, sibling) in enumerate(zip(steps, proof, strict=True)):
        if (size, step) not in done:
            done.add((size, step))
            _, tree = merkle._climb(steps[:at], proof[:at], hash)  # where the fold has come to
            rest_steps, rest = steps[at:], list(proof[at:])
            for rest[0] in flips(sibling):
                assert merkle._climb(rest_steps, rest, tree)[1] != ROOTS[size]
                count += 1
    return count


@pytest.mark.parametrize(
    "sizes",
    [
        range(2, 35),
        pytest.param(range(35, 63), marks=pytest.mark.exhaustive),
        range(63, 67),
        pytest.param(range(67, 98), marks=pytest.mark.exhaustive),
        pytest.param(range(98, 127), marks=pytest.mark.exhaustive),
        range(127, 131),
    ],
    ids=str,
)
def test_no_flipped_bit_leads_to_the_root(sizes: range) -> None:
    """All places a hash of a proof can stand in, in trees of these sizes, with all 256 bits.

    `make test` takes the small ones, and those around each power of two.
    """
    done: set[object] = set()
    count = 0
    for size in sizes:
        for index in range(size):
            proof = prove_inclusion(index, size, READ)
            count += climb_flipped(done, size, merkle._steps(index, index + 1, 0, size), proof, LEAVES[index])
            if index:
                proof = prove_consistency(index, size, READ)
                count += climb_flipped(done, size, merkle._steps(0, index, 0, size), proof, ROOTS[index])
    assert count == 256 * len(done)


def test_every_inclusion_proof_with_a_flipped_bit_in_every_hash_is_refused() -> None:
    """In each hash of the proof, in the leaf hash and in the root hash."""
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof, leaf, root = prove_inclusion(index, size, READ), LEAVES[index], ROOTS[size]
            check_inclusion(proof, index=index, size=size, leaf_hash=leaf, root_hash=root)
            for at, hash in enumerate((*proof, leaf, root)):
                for flipped in flips(hash, bits_for(size, size + index + at)):
                    parts = [*proof, leaf, root]
                    parts[at] = flipped
                    with pytest.raises(ProofError):
                        check_inclusion(
                            parts[:-2], index=index, size=size, leaf_hash=parts[-2], root_hash=parts[-1]
                        )


def test_every_consistency_proof_with_a_flipped_bit_in_every_hash_is_refused() -> None:
    """In each hash of the proof and in both root hashes."""
    for new in range(1, LARGEST + 1):
        for old in range(1, new + 1):
            proof = prove_consistency(old, new, READ)
            check_consistency(proof, old_size=old, old_root=ROOTS[old], new_size=new, new_root=ROOTS[new])
            for at, hash in enumerate((*proof, ROOTS[old], ROOTS[new])):
                for flipped in flips(hash, bits_for(new, old + new + at)):
                    parts = [*proof, ROOTS[old], ROOTS[new]]
                    parts[at] = flipped
                    with pytest.raises(ProofError):
                        check_consistency(
                            parts[:-2], old_size=old, old_root=parts[-2], new_size=new, new_root=parts[-1]
                        )
