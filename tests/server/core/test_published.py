"""Published: what many proofs share is read once, and no proof's checkpoint is older than a moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof, check
from countermark.tlog.tile import Tile
from countermark_server import published as published_module
from countermark_server.errors import ServerError
from countermark_server.published import FRESH_SECONDS, Published
from countermark_server.stores.folder import Folder
from countermark_server.stores.public import CHECKPOINT, Public
from tests.log_world import Clock, LogWorld, drain

COUNT = 40


class Counting(Public):
    """The public tree, and how often each file of it was read."""

    def __init__(self, world: LogWorld) -> None:
        super().__init__(Folder(world.settings.data / "public"))
        self.reads: Counter[str] = Counter()

    def read(self, name: str) -> bytes | None:
        self.reads[name] += 1
        return super().read(name)

    def tile(self, tile: Tile) -> bytes | None:
        self.reads[tile.path()] += 1
        return super().tile(tile)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LogWorld]:
    made = LogWorld(tmp_path)
    made.begin()
    yield made
    made.close()


def grow(world: LogWorld, first: int, count: int) -> list[tuple[int, str]]:
    """So many more entries, public: their indexes and leaf hashes."""
    station = world.station()
    station.check_start()
    asked = [world.upload(first + number, submitted=False) for number in range(count)]
    drain(station)
    station.engine.dispose()
    found = [world.outcome(each) for each in asked]
    return [(each.index, each.leaf_hash) for each in found if each.index is not None and each.leaf_hash]


def reading(world: LogWorld, moments: Clock) -> tuple[Published, Counting]:
    public = Counting(world)
    published = Published(public, world.clock, monotonic=moments)
    published._policy = world.trust.policy  # what `adopt` would have made public
    return published, public


def test_threads_that_ask_together_read_each_file_once(world: LogWorld) -> None:
    """One checkpoint, one tile, one bundle for all of them, and every proof holds."""
    leaves = grow(world, 0, COUNT)
    published, public = reading(world, Clock(0.0))
    with ThreadPoolExecutor(16) as threads:
        proofs = list(threads.map(lambda leaf: published.prove(*leaf), leaves))
    assert set(public.reads.values()) == {1}
    policy = world.trust.policy
    for (index, _), raw in zip(leaves, proofs, strict=True):
        proof = TlogProof.parse(raw)
        assert proof.index == index
        check(published.entry(index), proof, open_checkpoint(proof.checkpoint, policy, now=None))
    hashes = [TlogProof.parse(raw).hashes for raw in proofs]
    assert published.prove_all(leaves)[1] == hashes


def test_an_entry_that_is_new_is_proved_to_the_checkpoint_that_covers_it(world: LogWorld) -> None:
    """A checkpoint in hand serves no entry beyond it, however fresh it is."""
    (old,) = grow(world, 0, 1)
    published, _ = reading(world, Clock(0.0))
    published.prove(*old)
    (new,) = grow(world, 1, 1)
    assert TlogProof.parse(published.prove(*new)).checkpoint == world.public.read(CHECKPOINT)


def test_a_proof_is_made_to_the_newest_checkpoint_once_a_moment_has_passed(world: LogWorld) -> None:
    """Up to then it may be one that was the newest when somebody looked."""
    (leaf,) = grow(world, 0, 1)
    moments = Clock(0.0)
    published, _ = reading(world, moments)
    before = TlogProof.parse(published.prove(*leaf)).checkpoint
    grow(world, 1, 1)
    moments.now += FRESH_SECONDS
    assert TlogProof.parse(published.prove(*leaf)).checkpoint == before
    moments.now += 0.1
    assert TlogProof.parse(published.prove(*leaf)).checkpoint == world.public.read(CHECKPOINT) != before


def test_nothing_false_is_proved_from_what_is_remembered(world: LogWorld) -> None:
    """Another leaf hash, and an index beyond the tree, are refused after any number of proofs that hold."""
    leaves = grow(world, 0, COUNT)
    published, _ = reading(world, Clock(0.0))
    for leaf in leaves:
        published.prove(*leaf)
    (index, leaf), (_, other) = leaves[:2]
    with pytest.raises(ServerError, match=leaf):
        published.prove(index, other)
    with pytest.raises(ServerError, match="not covered"):
        published.prove(leaves[-1][0] + 1, leaf)


def test_what_is_remembered_of_bundles_is_bounded_in_bytes(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries may have 64 KiB each: what does not fit beside a new bundle goes, and is read again when asked for."""
    leaves = grow(world, 0, 300)
    monkeypatch.setattr(published_module, "BUNDLE_BYTES_PER_READER", 200_000)
    published, public = reading(world, Clock())
    for _ in range(2):
        for at in (0, 299, 1, 298):
            assert TlogProof.parse(published.prove(*leaves[at])).index == leaves[at][0]
    assert published._tree is not None
    assert len(published._tree.bundles) == 1
    assert published._tree.bundle_bytes <= 300_000
    assert public.reads["tile/entries/000"] > 1
