"""More bins over a registry that goes on publishing: one publish writes them all, and no client sees a mixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from countermark import bins
from countermark.errors import EvidenceError
from countermark_server import db
from countermark_server.stores.public import TIMESTAMP
from countermark_server.timestamper.errors import RefusalError
from countermark_server.tufrepo import rebinning, store
from countermark_server.tufrepo.snapshot import Fragments, sign_snapshot
from tests.server.tuf.test_online_rotation import Clients, adopted, finished, run
from tests.tuf_registry import TufRegistry

FILES = range(1, 6)
REFUSED = {
    "drops a file": "listing",
    "lists a file twice": "listing",
    "drops a left role": "role-dropped",
    "moves a left role": "role-unexpected",
    "adds a role": "role-unexpected",
}


def started(tmp_path: Path, bits: int = 3) -> tuple[TufRegistry, Clients]:
    world = TufRegistry(tmp_path / "registry", bit_length=bits)
    world.settle()
    for number in FILES:
        world.list_file(number)
    world.settle()
    return world, Clients(world, tmp_path / "clients")


def snapshot(world: TufRegistry) -> dict[str, int]:
    """Every role in the snapshot that the public timestamp names, and its version."""
    version = json.loads(world.public.read(TIMESTAMP) or b"")["signed"]["meta"]["snapshot.json"]["version"]
    meta = json.loads(world.public.read(f"tuf/{version}.snapshot.json") or b"")["signed"]["meta"]
    return {name: said["version"] for name, said in meta.items()}


@pytest.mark.parametrize(("before", "after"), [(3, 5), (2, 3)])
def test_bins_are_split_while_clients_look_and_every_process_dies(
    tmp_path: Path, before: int, after: int
) -> None:
    """Old and new clients find their file after every step; the names of fewer bins stay listed as they were."""
    world, clients = started(tmp_path, before)
    old = snapshot(world)
    adopted(world, {}, bits=after)
    run(world, clients, lambda: finished(world))
    world.bit_length = after
    assert world.timestamp().bit_length == after
    assert set(world.targets()) == {f"files/acme/acme-{number}.tar.gz" for number in FILES}
    new = snapshot(world)
    roles = {f"{bins.role_name(number, after)}.json" for number in range(1 << after)}
    assert old.keys() <= new.keys() and roles <= new.keys()
    assert all(new[name] == old[name] for name in old.keys() - roles if name.startswith("bins-"))
    world.check()
    for number in (20, 21, 22):  # and it goes on, after every process started anew
        world.restart()
        world.list_file(number)
        world.settle()
        clients.look()
    world.check()
    assert set(snapshot(world)) == set(new)


def test_splitting_twice_leaves_both_sets_behind(tmp_path: Path) -> None:
    """From 2^3 to 2^5 to 2^9 bins: a timestamper that begins only then accepts the names of both."""
    world, clients = started(tmp_path)
    adopted(world, {}, bits=5)
    world.settle()
    adopted(world, {}, version=3, bits=9)
    world.settle()
    world.bit_length = 9
    clients.look()
    world.check()
    assert len(snapshot(world)) == 3 + 8 + 32 + 512
    (world.settings.data / "timestamper/timestamper.sqlite").unlink()
    world.restart()
    world.list_file(20)
    for _ in range(4):  # it adopts the public timestamp, which the next publish logs
        world.settle()
        world.clock.now += 6
    assert "files/acme/acme-20.tar.gz" in world.targets()
    world.check()


def test_replaced_bins_go_after_the_bound_and_not_before(tmp_path: Path) -> None:
    """Who read the timestamp before the split finds all bins of then for `tuf.retention`."""
    world, _ = started(tmp_path)
    old = {name: version for name, version in snapshot(world).items() if name.startswith("bins-")}
    files = [f"tuf/{version}.{name}" for name, version in old.items()]
    adopted(world, {}, bits=5)
    world.settle()
    assert all(world.public.read(name) is not None for name in files)
    world.clock.now += 8 * 86_400
    for _ in range(200):
        world.repository._clean_at = 0.0
        if not world.repository._clean():
            break
    assert all(world.public.read(name) is None for name in files)


def test_fewer_bins_are_refused_by_tufrepo(tmp_path: Path) -> None:
    """An index with a smaller number is not published, and what is public stays."""
    world, _ = started(tmp_path, 5)
    before = world.public.read(TIMESTAMP)
    adopted(world, {}, bits=3)
    with pytest.raises(EvidenceError, match="they only grow"):
        for _ in range(10):
            world.repository.step()
    assert world.public.read(TIMESTAMP) == before and world.public.read("tuf/2.root.json") is None


@pytest.mark.parametrize("how", sorted(REFUSED))
def test_a_split_that_is_not_the_listing_gets_no_timestamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever owns the publisher can use the split for nothing: the timestamper looks at every new bin."""
    world, _ = started(tmp_path)
    before, real = world.public.read(TIMESTAMP), rebinning.spread

    def bad(current: Any, contents: Any, bit_length: int) -> Any:
        grown, found = real(current, contents, bit_length)
        number = next(n for n, targets in found.items() if targets)
        path, target = next(iter(found[number].items()))
        if how == "drops a file":
            found[number] = {}
        elif how == "lists a file twice":
            found[(number + 1) % len(found)] = {**found[(number + 1) % len(found)], path: target}
        return grown, found

    def bad_snapshot(fragments: Fragments, *arguments: Any) -> bytes:
        versions = {name: int(text.rpartition(":")[2].rstrip("}")) for name, text in fragments._text.items()}
        if how == "drops a left role":
            del versions["bins-0.json"]
        elif how == "moves a left role":
            versions["bins-0.json"] += 1
        elif how == "adds a role":
            versions["bins-8.json"] = 1
        return sign_snapshot(Fragments(versions), *arguments)

    monkeypatch.setattr("countermark_server.tufrepo.publish.spread", bad)
    monkeypatch.setattr("countermark_server.tufrepo.candidate.sign_snapshot", bad_snapshot)
    adopted(world, {}, bits=5)
    world.repository.step()
    world.work_log()
    world.repository.step()
    with pytest.raises(RefusalError) as refused:
        world.judge.attempt(now=int(world.clock()))
    assert refused.value.code == REFUSED[how]
    assert world.public.read(TIMESTAMP) == before


def test_former_names_are_whole_sets_of_fewer_digits() -> None:
    """One name more or less, or a set of as many digits, is none of them."""
    eight = {bins.role_name(number, 3) for number in range(8)}
    assert bins.former(eight, 5) == eight
    assert bins.former(eight | {"bins-8"}, 5) == eight
    assert bins.former(eight - {"bins-7"}, 5) == {bins.role_name(number, 2) for number in range(4)}
    assert bins.former({bins.role_name(number, 5) for number in range(32)}, 6) == set()
    both = eight | {bins.role_name(number, 5) for number in range(32)}
    assert bins.former(both, 9) == both
    assert bins.former(set(), 12) == set() == bins.former(eight, 3)


def test_a_restart_knows_what_was_left_behind(tmp_path: Path) -> None:
    """What the database says after a restart is what was published: bit length, bins, and what was left behind."""
    world, _ = started(tmp_path)
    adopted(world, {}, bits=5)
    world.settle()
    with db.read(world.engine) as connection:
        found = store.load(connection)
    assert found is not None and found.bit_length == 5 and len(found.bins) == 32
    assert set(found.left) == {bins.role_name(number, 3) for number in range(8)}
    assert found.bins_root == world.timestamp().bins_root.hex()
