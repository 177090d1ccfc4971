"""After a fault: restart, finish, add more, and hold the log to everything that it ever acknowledged."""

from __future__ import annotations

from collections.abc import Collection

from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.merkle import check_inclusion, leaf_hash, prove_inclusion
from countermark.tlog.policy import Policy
from countermark.tlog.tile import WIDTH
from countermark_server.log.tree import public_tree
from countermark_server.stores.public import CHECKPOINT, Public
from tests.log_world import LogWorld, drain

Promise = tuple[int | None, str | None]  # index and leaf hash
Acknowledged = dict[int, Promise]  # by proposal


def acknowledged(world: LogWorld, ids: list[int]) -> Acknowledged:
    """What the log has said is published."""
    found = {i: world.outcome(i) for i in ids}
    return {i: (o.index, o.leaf_hash) for i, o in found.items() if o.state == "published"}


def recover(world: LogWorld, before: Acknowledged, ids: list[int]) -> None:
    """A new process takes over; `before` was acknowledged, and `ids` were proposed, by then."""
    world.check_signatures()
    station = world.station()
    station.check_start()
    world.check()
    drain(station)
    after = acknowledged(world, ids)
    assert sorted(after) == sorted(ids), "a proposal was lost"
    assert acknowledged(world, list(before)) == before, "an acknowledged entry moved"
    more = world.upload(99_999)
    drain(station)
    assert world.outcome(more).state == "published"
    world.check()
    assert not list(station.staging.sizes())
    station.engine.dispose()
    check_proofs(world.public, world.trust.policy, (before | after).values())


def check_proofs(public: Public, policy: Policy, promised: Collection[Promise]) -> None:
    """From the public files alone: every entry is where it was promised, under the public checkpoint."""
    raw = public.read(CHECKPOINT)
    assert raw is not None
    checkpoint = open_checkpoint(raw, policy, now=None)
    tree = public_tree(public)
    read = tree.reader(checkpoint.size, checkpoint.root_hash)
    for index, promise in promised:
        assert index is not None and index < checkpoint.size, "acknowledged, and beyond the public checkpoint"
        width = min(WIDTH, checkpoint.size - index // WIDTH * WIDTH)
        entry = tree.entries(index, index // WIDTH * WIDTH + width, read)[0]
        assert leaf_hash(entry).hex() == promise, f"entry {index} is not the one that was acknowledged"
        proof = prove_inclusion(index, checkpoint.size, read)
        leaf, root = leaf_hash(entry), checkpoint.root_hash
        check_inclusion(proof, index=index, size=checkpoint.size, leaf_hash=leaf, root_hash=root)
