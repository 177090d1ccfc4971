"""The bins root: tiles that prove themselves, proofs that break at every bit."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark import bins
from countermark.errors import CountermarkError, EvidenceError, MalformedError, ProofError, UsageError
from countermark.tlog import merkle


def a_target(number, **more):
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return {"custom": {"i": number, "lh": digest}, "hashes": {"sha256": digest}, "length": number, **more}


def some_targets(count):
    return {f"files/p{n}/p{n}-1.tar.gz": a_target(n) for n in range(count)}


def a_leaf(index, bit_length, *, version=1, targets=None):
    role = bins.role_name(index, bit_length)
    digest = hashlib.sha256(f"{role} {version}".encode()).hexdigest()
    return bins.BinLeaf(role, version, digest, bins.targets_root(targets or {}))


def a_tree(bit_length):
    return bins.BinsTree.build([a_leaf(i, bit_length).leaf_hash for i in range(1 << bit_length)])


def test_the_line_of_the_docstring_is_real():
    """The essay's bin is an empty one at version 12."""
    line = next(line for line in (bins.__doc__ or "").splitlines() if line.startswith("    bins-0a7"))
    root = bins.BinLeaf.parse(
        line.strip().replace("5ba1...c3", "5b" * 32).removesuffix("\\n").encode() + b"\n"
    )
    assert (root.version, root.targets_root) == (12, bins.targets_root({}))


def test_role_names_are_those_of_tufs_succinct_delegation():
    """Ours and tuf's SuccinctRoles give the same names in the same order."""
    from tuf.api.metadata import SuccinctRoles

    for bit_length in (1, 4, 5, 8, 9, 12):
        theirs = list(SuccinctRoles(["k"], 1, bit_length, "bins").get_roles())
        assert [bins.role_name(i, bit_length) for i in range(1 << bit_length)] == theirs


@pytest.mark.parametrize("bit_length", [1, 2, 8, 9, 12])
def test_every_bin_is_readable_from_tiles_and_provable(bit_length):
    """The tiles lead to each bin's leaf hash; RFC 6962 over all bins is the root; proofs check."""
    tree = a_tree(bit_length)
    tiles = tree.tiles()
    assert tree.root == merkle.root_hash(tree.levels[0])
    step = max(1, tree.count // 16)
    for index in range(0, tree.count, step):
        found = bins.read_leaf_hash(tiles.__getitem__, index=index, bit_length=bit_length, root=tree.root)
        leaf = a_leaf(index, bit_length)
        assert found == leaf.leaf_hash
        bins.check_bin(leaf, index=index, bit_length=bit_length, proof=tree.prove(index), root=tree.root)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([2, 8, 9, 10]), st.sets(st.integers(0, 1023), max_size=5))
def test_replacing_bins_equals_building_anew_and_writes_only_touched_tiles(bit_length, touched):
    """Incremental and complete computation agree, tile for tile."""
    tree = a_tree(bit_length)
    changed = {i: a_leaf(i, bit_length, version=2).leaf_hash for i in touched if i < tree.count}
    after, new = tree.replace(changed)
    hashes = [changed.get(i, before) for i, before in enumerate(tree.levels[0])]
    assert after == bins.BinsTree.build(hashes)
    assert tree.tiles() | new == tree.tiles() | after.tiles()
    tiles_touched = {i // bins.TILE_WIDTH for i in changed}
    assert len(new) == len(tiles_touched) + (1 if len(after.levels) > 1 and changed else 0)


def test_a_flipped_bit_anywhere_in_a_tile_is_refused():
    """No hash of a tile is used before the tile proved its name."""
    tree = a_tree(9)
    for name, raw in tree.tiles().items():
        for bit in range(0, len(raw) * 8, 61):
            bad = bytearray(raw)
            bad[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ProofError):
                bins.open_tile(bytes(bad), bytes.fromhex(name))


def test_a_top_tile_of_another_width_is_refused():
    """A tile may prove itself and still not be the tree's: its width is checked."""
    small, big = a_tree(2), a_tree(3)
    tiles = small.tiles() | big.tiles()
    with pytest.raises(ProofError, match="holds 4 hashes, 8 belong there"):
        bins.read_leaf_hash(tiles.__getitem__, index=0, bit_length=3, root=small.root)


@pytest.mark.parametrize("raw", [b"", b"x", b"x" * 31, b"x" * 33, b"x" * (257 * 32)])
def test_a_tile_of_a_wrong_size_is_malformed(raw):
    """Empty, torn or oversized."""
    with pytest.raises(MalformedError):
        bins.open_tile(raw, b"n" * 32)


def test_bin_proofs_break_at_every_bit_and_for_every_other_bin():
    """Mutated proofs, another index, another version, another file: refused."""
    tree = a_tree(4)
    leaf, proof = a_leaf(5, 4), tree.prove(5)
    for at in range(len(proof)):
        for bit in range(256):
            bad = list(proof)
            bad[at] = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
            with pytest.raises(ProofError):
                bins.check_bin(leaf, index=5, bit_length=4, proof=bad, root=tree.root)
    for other in range(16):
        if other != 5:
            with pytest.raises(ProofError):
                bins.check_bin(leaf, index=other, bit_length=4, proof=proof, root=tree.root)
    with pytest.raises(ProofError):
        bins.check_bin(a_leaf(5, 4, version=2), index=5, bit_length=4, proof=proof, root=tree.root)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_each_target_is_provable_in_its_bin_and_no_other_is(count):
    """A target's path, length, hashes and custom are all committed to."""
    targets = some_targets(count)
    leaf = a_leaf(0, 4, targets=targets)
    for path, target in targets.items():
        proof = bins.prove_target(targets, path)
        bins.check_target(path, target, proof, leaf)
        for wrong in (
            target | {"length": 99},
            target | {"hashes": {"sha256": "00" * 32}},
            target | {"custom": target["custom"] | {"i": 99}},
        ):
            with pytest.raises(ProofError):
                bins.check_target(path, wrong, proof, leaf)
        with pytest.raises(ProofError):
            bins.check_target(path + "x", target, proof, leaf)
    with pytest.raises(UsageError):
        bins.prove_target(targets, "files/absent/absent-1.tar.gz")


def test_targets_are_taken_in_path_order_whatever_order_they_come_in():
    """One set of targets has one root."""
    targets = some_targets(5)
    assert bins.targets_root(dict(reversed(targets.items()))) == bins.targets_root(targets)


def test_lists_of_changed_bins_have_one_spelling():
    """Formatting sorts; parsing refuses disorder and repetition."""
    leaves = [a_leaf(i, 4) for i in (3, 1, 2)]
    raw = bins.format_changes(leaves)
    assert bins.parse_changes(raw) == tuple(sorted(leaves, key=lambda leaf: leaf.role))
    lines = raw.splitlines(keepends=True)
    for bad in (lines[1] + lines[0], lines[0] * 2):
        with pytest.raises(MalformedError):
            bins.parse_changes(bad)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_mutated_line_is_refused_or_another_bin(at, flip):
    """No leaf line has two spellings, and nothing but our errors comes out."""
    leaf = a_leaf(3, 4)
    raw = bytearray(leaf.format())
    raw[at % len(raw)] ^= flip
    try:
        found = bins.BinLeaf.parse(bytes(raw))
    except EvidenceError:
        return
    assert found != leaf and found.format() == bytes(raw)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_our_errors_only(raw):
    """Lines, lists and tiles."""
    for parse in (bins.BinLeaf.parse, bins.parse_changes, lambda raw: bins.open_tile(raw, b"n" * 32)):
        try:
            parse(raw)
        except CountermarkError:
            continue
        assert raw == b""


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_a_tree_has_a_power_of_two_bins(count):
    """Succinct delegations come in powers of two."""
    with pytest.raises(UsageError):
        bins.BinsTree.build([b"h" * 32] * count)
