"""The trust-file walk: what a client follows, what it waits for, and what it refuses; nothing changes on refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.bundling import make
from countermark.clientpolicy import Policies
from countermark.entry import Entry
from countermark.offline import verify_bundles
from countermark.timeline import Timeline
from countermark.tlog.note import Note
from countermark.trustfile import CentralPolicy, TrustFile
from countermark.trustwalk import TrustStep, fewest_witnesses
from tests.machine import Machine, artifact
from tests.simulator import HOUR, Published, World
from tests.trust_chain import TrustChain


@pytest.fixture
def chain(world: World, wheel: Published) -> TrustChain:
    return TrustChain(world)


def version(machine: Machine) -> int:
    return Timeline.load(machine.registry.folder / "timeline.json").trust_version


def test_a_new_witness_counts_a_day_after_the_quorum_saw_it(
    tmp_path: Path, machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """Waiting is said in every result; after the day old and fresh machines follow, and remember."""
    chain.announce(chain.with_witness("w2"), "w2")
    report = machine.accept(wheel)
    assert "trust file 2 is announced" in " ".join(report.remarks) and version(machine) == 1
    chain.pass_hours(23)
    assert machine.accept(wheel).remarks and version(machine) == 1
    chain.pass_hours(2)
    assert not machine.accept(wheel).remarks and version(machine) == 2
    fresh = Machine(tmp_path / "fresh", machine.world)
    fresh.accept(wheel)
    assert version(fresh) == 2
    # The overlap is over: the old witness is gone, and both machines go on.
    machine.world.keys.witness = chain.witness("w3")
    chain.pass_hours(1)
    machine.accept(wheel)
    fresh.accept(wheel)


def test_our_clock_alone_ends_no_waiting(machine: Machine, wheel: Published, chain: TrustChain) -> None:
    """A clock that runs a day ahead, over a registry whose quorum is not that far."""
    chain.announce(chain.with_witness("w2"), "w2")
    machine.world.now += 23 * HOUR
    machine.world.timestamp_expires_in = 24 * HOUR
    machine.world.heartbeat()
    machine.world.now += 2 * HOUR
    machine.accept(wheel)
    assert version(machine) == 1


def test_a_machine_that_slept_follows_every_version(
    tmp_path: Path, machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """Three versions in one view, each under its predecessor's quorum; the last one still waits."""
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    chain.announce(chain.with_witness("w2", "w3"), "w3")
    chain.pass_hours(25)
    chain.announce(chain.with_witness("w2", "w3", "w4", threshold=2), "w4")
    report = machine.accept(wheel)
    assert version(machine) == 3 and "trust file 4 is announced" in report.remarks[0]
    chain.pass_hours(25)
    machine.accept(wheel)
    assert version(machine) == 4
    Machine(tmp_path / "fresh", machine.world).accept(wheel)


def test_a_walked_trust_file_serves_offline(machine: Machine, wheel: Published, chain: TrustChain) -> None:
    """No root lists it; this machine remembers that it followed it."""
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    machine.accept(wheel)
    machine.world.down = lambda path: True
    machine.accept(wheel)
    assert version(machine) == 2


def test_all_witnesses_lost_needs_a_root(machine: Machine, wheel: Published, chain: TrustChain) -> None:
    """The old quorum can see nothing any more: refused until a root lists the successor, then at once."""
    world = machine.world
    world.keys.witness = chain.witness("w2")
    second = chain.announce(chain.with_witness("w2"))
    machine.refuse(7, "lacks the quorum", wheel)
    chain.root_accepts(second)
    machine.accept(wheel)
    assert version(machine) == 2


def test_two_of_three_witnesses_lost_needs_a_root(
    machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """2 of 3 are asked for, one is left; a smaller quorum is the root's to allow."""
    world = machine.world
    three = chain.announce(chain.with_witness("w2", "w3", "w4", threshold=2), "w2", "w3", "w4")
    chain.root_accepts(three)
    machine.accept(wheel)
    world.also = [chain.witness("w4")]
    world.now += 60
    one = chain.announce(chain.with_witness("w4"))
    machine.refuse(7, "lacks the quorum", wheel)
    chain.root_accepts(three, one)
    machine.accept(wheel)
    assert version(machine) == 3


def test_thieves_of_the_trust_keys_act_in_the_open_or_not_at_all(
    machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """Within the day the root takes the theft back; the stolen version never counted here."""
    stolen = chain.with_witness("thief")
    chain.announce(stolen, "thief")
    assert "trust file 2" in machine.accept(wheel).remarks[0]
    good = chain.announce(chain.with_witness("w2"), "w2")
    chain.root_accepts(good)
    machine.accept(wheel)
    assert version(machine) == 3


# --- refusals: the world, the chain and the honest successor, made wrong -----------------------------------
def _no_step(world: World, chain: TrustChain) -> None:
    del world.tuf["trust/2.step.json"]


def _another_entry(world: World, chain: TrustChain) -> None:
    chain.show_step(2, index=0)


def _no_quorum(world: World, chain: TrustChain) -> None:
    note = Note.parse(world.checkpoint)
    bare = Note(note.text, note.signatures[:2]).format()
    chain.show_step(2, index=world.log_size - 1, checkpoint=bare)


def _own_quorum_only(world: World, chain: TrustChain) -> None:
    note = Note.parse(world.checkpoint)
    lines = [line for line in note.signatures if line.name != "witness.test/w1"]
    chain.show_step(2, index=world.log_size - 1, checkpoint=Note(note.text, tuple(lines)).format())


def _altered(world: World, chain: TrustChain) -> None:
    raw = world.tuf["trust/2.step.json"]
    world.tuf["trust/2.step.json"] = raw.replace(b"index ", b"index  ")


def _altered_trust_file(world: World, chain: TrustChain) -> None:
    world.override[f"/tuf/targets/trust/{world.trust_file.digest}.trust.json"] = b"{}"


def _unsigned_metadata(world: World, chain: TrustChain) -> None:
    step = TrustStep.parse(world.tuf["trust/2.step.json"])
    mallory = World(keys="mallory")
    forged = replace(step, metadata=mallory.tuf["1.trust.json"])
    world.tuf["trust/2.step.json"] = forged.format()


def _earlier_trust_entry(world: World, chain: TrustChain) -> None:
    first = next(i for i, raw in enumerate(world.entries) if Entry.parse(raw).type == "tuf")
    chain.show_step(2, index=first)


def _entry_that_nobody_logged(world: World, chain: TrustChain) -> None:
    step = TrustStep.parse(world.tuf["trust/2.step.json"])
    forged = replace(step, entry=Entry.parse(step.entry).at(world.now).raw)
    world.tuf["trust/2.step.json"] = forged.format()


REFUSALS: dict[str, tuple[Callable[[World, TrustChain], None], int, str]] = {
    "no step is shown": (_no_step, 5, "no step from version 1 to 2"),
    "an entry about something else": (_another_entry, 7, "does not name the trust metadata"),
    "the entry of an earlier version": (_earlier_trust_entry, 7, "does not name the trust metadata"),
    "an entry that is not in the log": (_entry_that_nobody_logged, 7, "lead"),
    "no quorum saw the entry": (_no_quorum, 7, "lacks the quorum"),
    "only its own witnesses saw the entry": (_own_quorum_only, 7, "lacks the quorum"),
    "a step of another spelling": (_altered, 7, "not a decimal number"),
    "other bytes for the trust file": (_altered_trust_file, 7, "served with other bytes"),
    "metadata the trust role did not sign": (_unsigned_metadata, 7, "is not the registry whose root"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_a_false_step_is_refused(machine: Machine, wheel: Published, chain: TrustChain, why: str) -> None:
    """Nothing is followed, and nothing is remembered, but the evidence."""
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    attack, code, words = REFUSALS[why]
    attack(machine.world, chain)
    before = machine.snapshot()
    machine.refuse(code, words, wheel)
    assert machine.snapshot() == before and version(machine) == 1


def _skipped(chain: TrustChain) -> TrustFile:
    return replace(chain.with_witness("w2"), version=3)


def _not_forward(chain: TrustChain) -> TrustFile:
    return replace(chain.with_witness("w2"), version=1)


def _another_registry(chain: TrustChain) -> TrustFile:
    elsewhere = World(keys="mallory", origin="elsewhere.test/log").trust_file
    return replace(elsewhere, version=2)


def _no_witness(chain: TrustChain) -> TrustFile:
    text = chain.with_witness("w2").witness_policy.replace("quorum all", "quorum none")
    return replace(chain.with_witness("w2"), witness_policy=text)


def _classical_only(chain: TrustChain) -> TrustFile:
    lines = chain.with_witness("w2").witness_policy.splitlines(keepends=True)
    return replace(chain.with_witness("w2"), witness_policy="".join(lines[:1] + lines[2:]))


WEAKER: dict[str, tuple[Callable[[TrustChain], TrustFile], int, str]] = {
    "a skipped version": (_skipped, 7, "not to version 2"),
    "a version that does not rise": (_not_forward, 7, "not to version 2"),
    "another registry's": (_another_registry, 7, "of elsewhere.test/log"),
    "no witness any more": (_no_witness, 5, "0 witnesses make its quorum, 1 did"),
    "no post-quantum log key any more": (_classical_only, 5, "a kind of log key is missing"),
}


@pytest.mark.parametrize("why", WEAKER)
def test_a_successor_that_is_none_or_weaker_is_refused(
    machine: Machine, wheel: Published, chain: TrustChain, why: str
) -> None:
    """Signed by the trust role, logged, a day old: still not what trust keys alone may do."""
    make, code, words = WEAKER[why]
    successor = make(chain)
    chain.announce(successor, "w2")
    if (step := machine.world.tuf.pop(f"trust/{successor.version}.step.json", None)) is not None:
        machine.world.tuf["trust/2.step.json"] = step
    chain.pass_hours(25)
    before = machine.snapshot()
    machine.refuse(code, words, wheel)
    assert machine.snapshot() == before and version(machine) == 1


def test_a_lowered_floor_is_refused_after_a_day_too(tmp_path: Path) -> None:
    """`min_tree_size` only rises, but for a root."""
    world = World(floor=3)
    wheel = world.publish("acme-demo")
    machine, chain = Machine(tmp_path, world), TrustChain(world)
    machine.accept(wheel)
    lowered = replace(chain.with_witness("w2"), client_policy=CentralPolicy(0, "observe"))
    chain.announce(lowered, "w2")
    chain.pass_hours(25)
    machine.refuse(5, "its floor of 0 entries is below 3", wheel)
    assert version(machine) == 1
    chain.root_accepts(lowered)
    machine.accept(wheel)


def test_a_followed_trust_file_is_never_left_for_an_older_one(
    machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """The trust role, rolled back to the first version that the root still lists: refused with evidence."""
    first = machine.world.trust_file
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    machine.accept(wheel)
    chain.announce(first)
    machine.refuse(7, "trust file version 1, seen before: version 2", wheel)
    assert version(machine) == 2


def test_fewest_witnesses_counts_through_groups() -> None:
    """A quorum's strength is the smallest set of witnesses that fulfils it."""
    chain = TrustChain(World())
    for names, threshold, expected in ((("a",), 1, 1), (("a", "b", "c"), 2, 2), (("a", "b", "c"), 3, 3)):
        assert fewest_witnesses(chain.with_witness(*names, threshold=threshold).policy) == expected


def test_a_bundle_under_a_walked_trust_file_needs_a_machine_that_walked(
    tmp_path: Path, machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """No root lists the trust file: who followed it believes the bundle, a machine that never did refuses it."""
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    machine.accept(wheel)
    world, held = machine.world, artifact(wheel)
    (raw,) = make(
        [held], machine.registry, world, now=world.now, policies=Policies()
    ).values()  # fmt: skip
    stranger = Machine(tmp_path / "stranger", world)
    before = [each.snapshot() for each in (machine, stranger)]
    for judge, code in ((machine, 0), (stranger, 5)):
        report = verify_bundles(
            [(held, raw)], judge.registry, now=world.now, max_age=24 * HOUR, policies=Policies()
        )
        assert report.exit_code == code, report.to_json()
    assert [each.snapshot() for each in (machine, stranger)] == before


def test_a_bundle_is_judged_by_the_trust_file_of_its_time(
    machine: Machine, wheel: Published, chain: TrustChain
) -> None:
    """Made before the change it stays good; made under the old trust file after the overlap it is a rollback."""
    world, held = machine.world, artifact(wheel)
    first = world.trust_file
    (raw,) = make([held], machine.registry, world, now=world.now, policies=Policies()).values()
    old = world.copy()
    chain.announce(chain.with_witness("w2"), "w2")
    chain.pass_hours(25)
    machine.accept(wheel)

    def judged(bundle: bytes) -> int:
        before = machine.snapshot()
        report = verify_bundles(
            [(held, bundle)], machine.registry, now=world.now, max_age=30 * 24 * HOUR, policies=Policies()
        )
        assert machine.snapshot() == before
        return report.exit_code

    assert judged(raw) == 0
    world.now = old.now = world.now + 8 * 24 * HOUR
    old.trust_file = first
    old._write_snapshot()
    old.sign_checkpoint()
    old.sign_timestamp(applied=old._applied(), version=99)
    stranger = Machine(machine.home.path.parent / "stranger", old)
    (late,) = make([held], stranger.registry, old, now=old.now, policies=Policies()).values()
    assert judged(raw) == 0
    assert judged(late) == 7
