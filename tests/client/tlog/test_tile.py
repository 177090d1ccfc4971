"""tile.py: paths, which tiles exist, bundles, and that no hash is believed before the root hash says so."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.errors import MalformedError, NetworkError, ProofError
from countermark.limits import ENTRY_MAX_BYTES
from countermark.tlog import merkle
from countermark.tlog.merkle import prove_inclusion
from countermark.tlog.tile import (
    ENTRIES,
    Tile,
    TileHashes,
    decode_bundle,
    decode_tile,
    encode_bundle,
    grow,
    new_tiles,
    open_bundle,
    tile_at,
)
from tests.log_samples import checkpoint, entries, leaves, log_files, tile_files

LEAVES = leaves(70_000)
READ = merkle.reader(LEAVES)
FILES = {size: log_files(size) for size in (1, 255, 256, 257, 65_536, 65_537, 70_000)}


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999), "tile/0/999"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(0, 67_000), "tile/0/x067/000"),
        (Tile(5, 1_234_067), "tile/5/x001/x234/067"),
        (Tile(0, 1_234_067, 12), "tile/0/x001/x234/067.p/12"),
        (Tile(0, 67_001, 12), "tile/0/x067/001.p/12"),
        (Tile(63, 0, 255), "tile/63/000.p/255"),
        (Tile(ENTRIES, 0), "tile/entries/000"),
        (Tile(ENTRIES, 1000, 1), "tile/entries/x001/000.p/1"),
        (Tile(0, 2**55 - 1), "tile/0/x036/x028/x797/x018/x963/967"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    """Groups of three digits, all but the last behind an x."""
    assert tile.path() == path
    assert Tile.parse(path) == tile


NO_PATHS = [
    "tile",
    "/tile/0/000",
    "tile/0/000/",
    "tile/00/000",
    "tile/64/000",
    "tile/-1/000",
    "tile/100/000",
    "tile/0/0",
    "tile/0/0000",
    "tile/0/x000/000",
    "tile/0/x000/x001/000",
    "tile/0/001/000",
    "tile/0/x001",
    "tile/0/000.p/0",
    "tile/0/000.p/256",
    "tile/0/000.p/01",
    "tile/0/000.p/",
    "tile/0/000.p",
    "tile/0/000.P/1",
    "tile/0/000.p/1/",
    "tile/8/0/000",
    "tile/data/000",
    "tile/Entries/000",
    "tile/0/../000",
    "tile/0/000?x",
    "tile/0/x036/x028/x797/x018/x963/968",
]


@pytest.mark.parametrize(
    "path", [*NO_PATHS, "", "tile/0/000\n", "tile/0/\u0660\u0660\u0660", "tile/0/" + "x999/" * 12 + "999"]
)
def test_what_is_not_the_path_of_a_tile_is_refused(path: str) -> None:
    """Nothing that a file system could read as another file, either."""
    with pytest.raises(MalformedError):
        Tile.parse(path)


@pytest.mark.parametrize(("level", "index", "width"), [(-2, 0, 1), (64, 0, 1), (0, -1, 1), (0, 2**55, 1), (0, 0, 0),
                                                       (0, 0, 257)])  # fmt: skip
def test_what_no_tree_has_is_no_tile(level: int, index: int, width: int) -> None:
    """Level, index and width have bounds."""
    with pytest.raises(MalformedError):
        Tile(level, index, width)


@pytest.mark.parametrize(
    ("size", "edge"),
    [
        (0, []),
        (1, ["tile/0/000.p/1"]),
        (255, ["tile/0/000.p/255"]),
        (256, ["tile/0/000", "tile/1/000.p/1"]),
        (257, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]),
        (65_536, ["tile/0/255", "tile/1/000", "tile/2/000.p/1"]),
        (70_000, ["tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]),
    ],
)
def test_the_tiles_that_exist_at_a_size_are_the_known_ones(size: int, edge: list[str]) -> None:
    """All full level-0 tiles, and these."""
    full = [Tile(0, index).path() for index in range(size // 256)]
    paths = [tile.path() for tile in new_tiles(0, size)]
    assert sorted(paths) == sorted({*full, *edge})
    if size:
        bundles = {tile.bundle().path() for tile in new_tiles(0, size) if tile.level == 0}
        assert {*FILES.get(size, log_files(size))} == {*paths} | bundles


def test_a_log_that_grows_writes_what_a_log_of_that_size_has() -> None:
    """Whatever the steps, each new tile holds the hashes of the whole tree, and each was announced."""
    steps = random.Random(7)  # the same walk every time
    size = 0
    files: dict[Tile, bytes] = {}
    while size < 70_000:
        count = min(steps.choice([1, 2, 255, 256, 257, 1000, 30_000]), 70_000 - size)
        edge = {level: files[tile_at(level, (size >> 8 * level) // 256, size)] for level in range(3)
                if (size >> 8 * level) % 256}  # fmt: skip
        grown = grow(size, edge, LEAVES[size : size + count])
        assert sorted(grown) == new_tiles(size, size + count)
        files.update(grown)
        size += count
    for tile, data in files.items():
        places = [(8 * tile.level, tile.index * 256 + slot) for slot in range(tile.width)]
        assert decode_tile(data, tile.width) == READ(places)
    assert {tile.path(): data for tile, data in files.items() if tile.full} == {
        path: data for path, data in FILES[70_000].items() if ".p/" not in path and "entries" not in path
    }


def test_nothing_new_means_no_tiles() -> None:
    """An append of no leaf writes no file."""
    assert new_tiles(70_000, 70_000) == []
    assert grow(0, {}, []) == {}


@pytest.mark.parametrize("size", list(FILES))
def test_every_hash_read_from_tiles_is_the_trees(size: int) -> None:
    """Leaves, inner hashes and peaks, at tile boundaries and between."""
    fetch = tile_files(FILES[size])
    hashes = TileHashes(size, checkpoint(size).root_hash, fetch)
    places = [
        (level, index)
        for level in range(size.bit_length())
        for last in [(size >> level) - 1]
        for index in sorted({0, 1, last // 2, last - 1, last})
        if 0 <= index <= last
    ]
    assert hashes(places) == READ(places)
    assert len(fetch.asked) == len(set(fetch.asked)), "a tile was fetched twice"


def test_an_inclusion_proof_takes_few_tiles() -> None:
    """From 70,000 entries, a proof needs the edge and the way down to its leaf."""
    fetch = tile_files(FILES[70_000])
    proof = merkle.prove_inclusion(12_345, 70_000, TileHashes(70_000, checkpoint(70_000).root_hash, fetch))
    assert proof == merkle.prove_inclusion(12_345, 70_000, READ)
    assert fetch.asked == [
        "tile/2/000.p/1", "tile/1/001.p/17", "tile/0/273.p/112", "tile/1/000", "tile/0/048",
    ]  # fmt: skip


def test_the_empty_tree_has_no_tiles_and_no_hashes() -> None:
    """Its root hash is believed without a fetch; another one is refused."""
    fetch = tile_files({})
    for root in (merkle.EMPTY_ROOT, bytes(32)):
        with pytest.raises(ProofError):
            TileHashes(0, root, fetch)([(0, 0)])
    assert TileHashes(0, merkle.EMPTY_ROOT, fetch)([]) == []
    assert fetch.asked == []


@pytest.mark.parametrize("place", [(0, 257), (8, 1), (9, 0), (-1, 0), (0, -1), (64, 0), (200, 0)])
def test_a_subtree_that_is_not_complete_is_not_read(place: tuple[int, int]) -> None:
    """The tree of 257 leaves has [0, 256) and leaf 256, nothing beyond."""
    fetch = tile_files(FILES[257])
    hashes = TileHashes(257, checkpoint(257).root_hash, fetch)
    with pytest.raises(ProofError, match="no complete subtree"):
        hashes([place])
    assert fetch.asked == []


@pytest.mark.parametrize("path", ["0/000", "0/010", "0/273.p/112", "1/000", "1/001.p/17", "2/000.p/1"])
def test_a_flipped_bit_in_any_tile_is_refused_before_a_hash_of_it_is_used(path: str) -> None:
    """First, last and some hash between: nothing of a false tile comes out, and nothing is remembered of it."""
    good = FILES[70_000]
    name = f"tile/{path}"
    tile = Tile.parse(name)
    for slot in {0, tile.width // 2, tile.width - 1}:
        for bit in (0, 255):
            data = bytearray(good[name])
            data[slot * 32 + bit // 8] ^= 1 << bit % 8
            files = {**good, name: bytes(data)}
            hashes = TileHashes(70_000, checkpoint(70_000).root_hash, tile_files(files))
            place = (8 * tile.level, tile.index * 256)
            for _ in range(2):
                with pytest.raises(ProofError):
                    hashes([place])
            files[name] = good[name]
            assert hashes([place]) == READ([place])


@pytest.mark.parametrize(("size", "root_size"), [(256, 257), (257, 256), (70_000, 65_537)])
def test_tiles_of_another_tree_are_refused(size: int, root_size: int) -> None:
    """Size and root hash must be of one checkpoint."""
    hashes = TileHashes(size, checkpoint(root_size).root_hash, tile_files(FILES[70_000] | FILES[size]))
    with pytest.raises(ProofError, match=checkpoint(root_size).root_hash.hex()):
        hashes([(0, 0)])


@pytest.mark.parametrize("change", [b"", b"\0", bytes(32)], ids=["short", "one byte long", "one hash long"])
def test_a_tile_of_another_length_is_refused(change: bytes) -> None:
    """Also when it is full, also when it merely goes on."""
    for name in ("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"):
        data = FILES[257][name] + change if change else FILES[257][name][:-1]
        hashes = TileHashes(257, checkpoint(257).root_hash, tile_files({**FILES[257], name: data}))
        with pytest.raises(MalformedError, match="a tile of width"):
            hashes([(0, 0)])


@pytest.mark.parametrize("error", [NetworkError("404"), KeyError("gone"), FileNotFoundError("gone")])
def test_a_partial_tile_that_is_gone_is_read_from_the_full_one(error: Exception) -> None:
    """The log has grown and dropped it; the prefix of the full tile leads to the old root hash."""
    size = 257

    def fetch(tile: Tile) -> bytes:
        if not tile.full:
            raise error
        return FILES[70_000].get(tile.path(), FILES[70_000]["tile/1/000"])

    hashes = TileHashes(size, checkpoint(size).root_hash, fetch)
    places = [(0, 0), (0, 255), (0, 256), (8, 0)]
    assert hashes(places) == READ(places)


def test_a_tile_that_is_nowhere_is_the_fetchers_error() -> None:
    """Missing data is not evidence: the error stays what the reader of files or the network said."""

    def fetch(tile: Tile) -> bytes:
        raise NetworkError(f"no {tile.path()}")

    with pytest.raises(NetworkError, match=r"no tile/1/000$"):
        TileHashes(256, checkpoint(256).root_hash, fetch)([(0, 0)])


def test_a_bundle_holds_its_entries() -> None:
    """Also empty ones and the longest, and up to 256."""
    for some in ([b""], [b"a", b"", b"x" * ENTRY_MAX_BYTES], entries(256)):
        assert decode_bundle(encode_bundle(some), len(some)) == some
    assert encode_bundle([b"ab"]) == b"\x00\x02ab"


@pytest.mark.parametrize("some", [[], [b""] * 257, [b"x" * (ENTRY_MAX_BYTES + 1)]])
def test_what_fits_no_bundle_is_not_encoded(some: list[bytes]) -> None:
    """None, too many, too long."""
    with pytest.raises(MalformedError):
        encode_bundle(some)


def test_a_bundle_of_another_shape_is_refused() -> None:
    """Every truncation, every other width, and anything behind the last entry."""
    raw = encode_bundle([b"one", b"", b"three"])
    for length in range(len(raw)):
        with pytest.raises(MalformedError):
            decode_bundle(raw[:length], 3)
    for width in (0, 1, 2, 4, 256):
        with pytest.raises(MalformedError):
            decode_bundle(raw, width)
    with pytest.raises(MalformedError, match="goes on"):
        decode_bundle(raw + b"\0", 3)


@pytest.mark.parametrize("size", [1, 257, 70_000])
def test_entries_are_believed_when_they_hash_to_their_slots(size: int) -> None:
    """A changed, moved or missing entry is refused with its index."""
    hashes = TileHashes(size, checkpoint(size).root_hash, tile_files(FILES[size]))
    bundle = tile_at(ENTRIES, (size - 1) // 256, size)
    raw, first = FILES[size][bundle.path()], (size - 1) // 256 * 256
    good = entries(size)[first:]
    assert open_bundle(raw, bundle, hashes) == good
    with pytest.raises(ProofError, match=f"entry {size - 1} has"):
        open_bundle(raw[:-1] + b"x", bundle, hashes)
    if len(good) > 1:
        swapped = encode_bundle([good[1], good[0], *good[2:]])
        with pytest.raises(ProofError, match=f"entry {first} has"):
            open_bundle(swapped, bundle, hashes)
        with pytest.raises(MalformedError):
            open_bundle(encode_bundle(good[:-1]), bundle, hashes)
    with pytest.raises(ProofError):
        open_bundle(raw, replace(bundle, index=bundle.index + 1), hashes)


def test_the_edge_is_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that sees a part of it would look for the rest where it is not: it sees nothing, or all."""
    hashes = TileHashes(70_000, checkpoint(70_000).root_hash, tile_files(FILES[70_000]))
    seen: list[int] = []

    def watched(leaves: merkle.Hashes) -> merkle.HashReader:
        seen.append(len(hashes._believed))
        return merkle.reader(leaves)

    monkeypatch.setattr("countermark.tlog.tile.reader", watched)
    prove_inclusion(69_999, 70_000, hashes)
    assert seen == [0, 0, 0]  # the partial tiles of three levels


@given(st.integers(1, 70_000), st.data())
@settings(max_examples=40, deadline=None)
def test_proofs_from_tiles_equal_proofs_from_the_tree(size: int, data: st.DataObject) -> None:
    """Any size, any leaf, any older size: the tiles of the larger log serve, partial ones cut from the full."""
    index = data.draw(st.integers(0, size - 1))
    root = merkle.subtree_hash(0, size, READ)

    def fetch(tile: Tile) -> bytes:
        places = [(8 * tile.level, tile.index * 256 + slot) for slot in range(tile.width)]
        return b"".join(READ(places))

    hashes = TileHashes(size, root, fetch)
    assert merkle.prove_inclusion(index, size, hashes) == merkle.prove_inclusion(index, size, READ)
    assert merkle.prove_consistency(index + 1, size, hashes) == merkle.prove_consistency(
        index + 1, size, READ
    )
