"""The compromise table: who has which keys, what that gets them, and what refuses or shows it.

docs/threat-model.md has the whole table. Here are the rows that no other file plays: keys that are stolen together,
a thief who signs what is old, a mirror that stands still, and what stolen keys are worth after a rotation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark import rules
from countermark.audit import audit
from countermark.entry import make_entry
from countermark.errors import EvidenceError
from countermark.statement import KeySigner, Statement, sign
from countermark.timeline import Timeline
from countermark.tlog.cosignature import MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, NoteSigner
from countermark.trustfile import TrustFile
from countermark_server.timestamper.errors import RefusalError
from tests.machine import Machine
from tests.simulator import ACCOUNT, HOUR, Published, World, signing_key
from tests.timestamped import TimestampedWorld
from tests.trust_chain import TrustChain

DAY = 24 * HOUR
THIEF = KeySigner(signing_key("thief"))


# --- log keys and publisher: both log keys, bins, snapshot, and the registry's role key -------------------


@pytest.fixture
def judged(tmp_path: Path) -> TimestampedWorld:
    """A registry with one release of a project that signs, and the real timestamper."""
    (tmp_path / "judged").mkdir()
    world = TimestampedWorld(tmp_path / "judged")
    world.publish("acme-demo")
    world.check()
    return world


def forged_release(world: World, filename: str, signer: KeySigner, key_index: int | None) -> dict[str, Any]:
    """Put a release of acme-demo and its verdict into the log, whatever the rules say; returns its target."""
    version = filename.split("-")[1]
    predicate = {
        "length": 6,
        "metadata_sha256": "22" * 32,
        "namespace": "",
        "origin": world.origin,
        "prev": None,
        "project": "acme-demo",
        "record_sha256": "11" * 32,
        "version": version,
    }
    said = Statement(filename, "66" * 32, "publish", predicate)
    registry = {"identity": None, "key_index": key_index, "uploader": ACCOUNT}
    entry = make_entry(type="publish", envelope=sign(said, signer), registry=registry, time=world.now)
    assert isinstance(rules.apply(world.view, entry), rules.Broken)
    index = world.append_raw(entry.raw)
    world.view.apply(rules.skip(world.view))
    custom = {"i": index, "lh": world.leaves[index].hex(), "verdict": None, "yank": None}
    return {"custom": custom, "hashes": {"sha256": "66" * 32}, "length": 6}


FORGERIES: dict[str, Callable[[World], dict[str, Any]]] = {
    "a key that nobody enrolled": lambda world: forged_release(
        world, "acme_demo-6.6-py3-none-any.whl", THIEF, world.key_index("acme-demo")
    ),
    "the registry in the owner's place": lambda world: forged_release(
        world, "acme_demo-6.6-py3-none-any.whl", world.keys.registry, None
    ),
    "a name that is taken": lambda world: forged_release(
        world, "acme_demo-1.0-py3-none-any.whl", world.publisher, world.key_index("acme-demo")
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_log_and_publisher_together_list_no_release_that_the_rules_forbid(
    judged: TimestampedWorld, how: str
) -> None:
    """They get a public entry that breaks a rule; the timestamper replays the rules, and signs no bin with it."""
    world = judged
    target = FORGERIES[how](world)
    filename = "acme_demo-1.0-py3-none-any.whl" if "taken" in how else "acme_demo-6.6-py3-none-any.whl"
    path = f"files/acme-demo/{filename}"
    world.targets = {**world.targets, path: target}
    world.log_tuf(len(world.entries), world.write_bins())
    world.sign_checkpoint()
    memory, public = world.memory(), world.tuf["timestamp.json"]
    with pytest.raises(RefusalError, match=filename) as caught:
        world.attempt()
    assert caught.value.code == "listing"
    assert (world.memory(), world.tuf["timestamp.json"]) == (memory, public)


def test_log_and_publisher_get_a_lie_in_the_open_about_a_project_that_never_signed(
    judged: TimestampedWorld, tmp_path: Path
) -> None:
    """The rules allow it, so it is listed; every reader says who signed, and the default policy refuses."""
    world = judged
    lie = world.publish("orphan", data=b"not what its owner wrote", signed=False)
    world.check()
    machine = Machine(tmp_path / "machine", world)
    error = machine.refuse(5, "registry", lie)
    assert error.exit_code == 5
    found = audit(machine.registry, world, now=world.now, files=True)
    assert (
        not found.findings
    )  # it is in the log, where its owner and monitors see it; nothing contradicts anything


@pytest.mark.parametrize("witnessed", [False, True], ids=["witnesses refuse", "witnesses too"])
def test_log_and_publisher_take_no_entry_back(judged: TimestampedWorld, witnessed: bool) -> None:
    """Another history from before the release: without witnesses no quorum, with them no extension of the last."""
    world = judged
    forger = World()
    forger.now = world.now + 60
    for version in range(1, 6):
        forger.publish("acme-demo", f"{version}.0", data=b"other bytes")
    forger.sign_checkpoint(witnessed=witnessed)
    world.override["/log/checkpoint"] = forger.checkpoint
    for path in {path for path in forger.asked if path.startswith("/log/tile")}:
        world.override[path] = forger._answer(path)
    real = world._tile
    world._tile = lambda tile: forger._tile(tile) or real(tile)  # type: ignore[method-assign]
    memory, public = world.memory(), world.tuf["timestamp.json"]
    with pytest.raises(EvidenceError) as caught:
        world.attempt(recarry=True)
    words = "the consistency proof of [0, 8)" if witnessed else "lacks the quorum"
    assert words in str(caught.value)
    assert (world.memory(), world.tuf["timestamp.json"]) == (memory, public)


# --- the timestamp key alone: what it signs is public, and old -------------------------------------------


def takedown_and_old_snapshot(world: World, wheel: Published) -> Callable[[int], bytes]:
    """A takedown is logged and applied; returns a thief who signs the snapshot from before it once more."""
    before, root = world.versions["snapshot"], world.bins_root
    old = world._applied()
    world.now += 60
    world.decide("takedown", wheel, "malware")
    world.release()

    def thief(applied: int) -> bytes:
        world.now += 60
        world.sign_checkpoint()
        current = world.versions["snapshot"], world.bins_root
        world.versions["snapshot"], world.bins_root = before, root
        signed = world.sign_timestamp(applied=applied)
        world.versions["snapshot"], world.bins_root = current
        return signed

    thief.old = old  # type: ignore[attr-defined]
    return thief


def test_an_old_snapshot_signed_again_is_refused_by_whoever_saw_the_new_one(
    machine: Machine, world: World, wheel: Published
) -> None:
    """The thief of the timestamp key gets no machine that was here since the takedown."""
    thief = takedown_and_old_snapshot(world, wheel)
    machine.refuse(6, "is removed (malware)", wheel)
    thief(world._applied())
    machine.refuse(7, "rollback", wheel)


def test_an_old_snapshot_signed_again_hides_no_takedown_behind_its_old_count(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """A machine that was never here reads the entries that the timestamp says are not applied."""
    thief = takedown_and_old_snapshot(world, wheel)
    thief(thief.old)  # type: ignore[attr-defined]
    Machine(tmp_path / "fresh", world).refuse(6, "", wheel)


def test_an_old_snapshot_under_a_false_count_fools_a_first_contact_and_no_audit(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """What the timestamp key gets its thief: a machine that was never here takes what was taken down, for a while."""
    thief = takedown_and_old_snapshot(world, wheel)
    thief(world._applied())
    Machine(tmp_path / "fresh", world).accept(wheel)
    auditor = Machine(tmp_path / "auditor", world)
    found = {finding.code for finding in audit(auditor.registry, world, now=world.now, files=True).findings}
    assert {"timestamp-snapshot", "timestamp-bins"} & found, found


def test_an_old_snapshot_signed_again_stops_the_honest_timestamper_with_an_alarm(
    judged: TimestampedWorld,
) -> None:
    """It won the number of its own last timestamp for other contents; the thief's has a number that nobody won."""
    world = judged
    honest = world.store.newest() if world.store else None
    assert honest is not None
    world.now += 60
    world.sign_checkpoint()
    World.sign_timestamp(world, applied=world._applied(), version=honest.version)
    memory, public = world.memory(), world.tuf["timestamp.json"]
    with pytest.raises(RefusalError) as caught:
        world.attempt(recarry=True)
    assert caught.value.code == "two-timestamps"
    assert (world.memory(), world.tuf["timestamp.json"]) == (memory, public)


# --- a mirror that stands still ----------------------------------------------------------------------------


def test_a_stale_mirror_gets_a_day_and_the_next_source_goes_on(
    tmp_path: Path, machine: Machine, world: World, wheel: Published
) -> None:
    """Old and true: named as late to whoever knows no better, a rollback to whoever does, too old after a day."""
    mirror = world.copy()
    fresh = Machine(tmp_path / "fresh", world)
    world.now += 2 * HOUR
    newer = world.publish("acme-demo", "2.0")
    mirror.now = world.now
    report = fresh.accept(wheel, world=mirror)  # it never saw the registry itself
    assert "ok" in str(report.to_json()["freshness"]), report.to_json()
    machine.accept(newer)
    machine.refuse(7, "rollback", wheel, world=mirror)
    machine.accept(wheel, newer)  # the next source: nothing was forgotten, nothing is in the way
    mirror.now = world.now = world.now + 23 * HOUR
    world.heartbeat()
    later = Machine(tmp_path / "later", world)
    later.refuse(4, "expired", wheel, world=mirror)
    fresh.accept(newer)
    later.accept(wheel, newer)


def test_a_mirror_that_does_not_answer_costs_nothing_but_the_time(
    machine: Machine, world: World, wheel: Published
) -> None:
    """Silence in the middle of a refresh: what this machine knows stays, and the next source is asked anew."""
    newer = world.publish("acme-demo", "2.0")
    mirror = world.copy()
    mirror.down = lambda path: path.endswith(".snapshot.json")
    before = machine.snapshot()
    report = machine.verify(newer, world=mirror)
    assert report.exit_code in {3, 4}, report.to_json()
    assert machine.snapshot() == before
    machine.accept(wheel, newer)


# --- key set and witnesses rotate, with an overlap -----------------------------------------------------------


def new_log_keys(origin: str, word: str) -> tuple[NoteSigner, NoteSigner]:
    seed = copy.copy(word.encode().ljust(32, b"."))
    return (
        Ed25519NoteSigner(origin, signing_key(f"{word} log")),
        MlDsaSigner(origin, MLDSA44PrivateKey.from_seed_bytes(seed)),
    )


class Rotation:
    """Log keys and witness are replaced together; both sets sign until `end_overlap`."""

    def __init__(self, world: World) -> None:
        self.world, self.chain = world, TrustChain(world)
        self.old = world.copy()
        self.old_keys = copy.copy(world.keys)
        self.new = new_log_keys(world.origin, "next")
        lines = [f"log {signer.vkey.format()}" for signer in self.new]
        lines += [f"witness w2 {self.chain.witness('w2').vkey.format()}", "quorum w2"]
        policy = "".join(f"{line}\n" for line in lines)
        self.trust_file: TrustFile = replace(
            world.trust_file, version=world.trust_file.version + 1, witness_policy=policy
        )

    def begin_overlap(self) -> None:
        self.world.also += [*self.new]
        self.chain.announce(self.trust_file, "w2")

    def end_overlap(self) -> None:
        """Seven days later the old keys are destroyed, or stolen."""
        for _ in range(7):
            publish_after(self.world, DAY)
        self.world.keys = copy.copy(self.world.keys)
        self.world.keys.log, self.world.keys.witness = self.new, self.chain.witness("w2")
        self.world.also = []
        self.chain.pass_hours(1)


def stolen_fork(rotation: Rotation, thief: World) -> World:
    """Every online key of before the rotation goes on from there, with versions as high as the honest ones."""
    thief.now = rotation.world.now
    for role in ("snapshot", "timestamp"):
        thief.versions[role] = rotation.world.versions[role]
    for version in range(2, 22):
        thief.publish("acme-demo", f"{version}.0", data=b"stolen", list_it=False)
    publish_after(thief, 0)
    return thief


def publish_after(world: World, seconds: int) -> None:
    """Time goes by; then the snapshot is signed anew, as tufrepo does when it grows old."""
    world.now += seconds
    applied = len(world.entries)
    world.log_tuf_of_snapshot()
    world.sign_checkpoint()
    world.sign_timestamp(applied=applied)


def trust_version(machine: Machine) -> int:
    return Timeline.load(machine.registry.folder / "timeline.json").trust_version


def test_log_keys_and_witness_rotate_without_a_machine_noticing(
    tmp_path: Path, machine: Machine, world: World, wheel: Published
) -> None:
    """Who looks while both sets sign follows, and goes on with the new one alone; a new machine comes in between."""
    rotation = Rotation(world)
    rotation.begin_overlap()
    machine.accept(wheel)
    assert trust_version(machine) == 1
    rotation.chain.pass_hours(25)
    machine.accept(wheel)
    fresh = Machine(tmp_path / "fresh", world)
    fresh.accept(wheel)
    assert (trust_version(machine), trust_version(fresh)) == (2, 2)
    rotation.end_overlap()
    machine.accept(wheel)
    fresh.accept(wheel)


def test_who_slept_through_the_overlap_waits_for_a_root(
    tmp_path: Path, machine: Machine, world: World, wheel: Published
) -> None:
    """Only the successor's quorum could say that the day is over, and thieves may have named it: exit 5, no alarm."""
    rotation = Rotation(world)
    rotation.begin_overlap()
    rotation.end_overlap()
    machine.refuse(5, "this machine did not follow while both signed", wheel)
    assert machine.evidence() == []
    rotation.chain.root_accepts(rotation.trust_file)
    machine.accept(wheel)
    fresh = Machine(tmp_path / "fresh", world)
    fresh.accept(wheel)
    assert (trust_version(machine), trust_version(fresh)) == (2, 2)


@pytest.mark.parametrize("missing", [0, 1], ids=["ed25519", "ml-dsa-44"])
def test_in_the_overlap_the_new_key_set_is_demanded_whole(
    machine: Machine, world: World, wheel: Published, missing: int
) -> None:
    """Once the successor is followed, both of its log lines are asked for; the old set counts for nothing."""
    rotation = Rotation(world)
    rotation.begin_overlap()
    rotation.chain.pass_hours(25)
    machine.accept(wheel)
    world.also.remove(rotation.new[missing])
    rotation.chain.pass_hours(1)
    machine.refuse(7, "is not signed by its key", wheel)


def test_old_log_keys_and_witness_stolen_after_the_overlap_rewrite_nothing(
    tmp_path: Path, machine: Machine, world: World, wheel: Published
) -> None:
    """With every online key of last week: a fork for whoever never followed, a refusal for whoever did."""
    rotation = Rotation(world)
    rotation.begin_overlap()
    rotation.chain.pass_hours(25)
    machine.accept(wheel)
    rotation.end_overlap()
    machine.accept(wheel)
    thief = stolen_fork(rotation, rotation.old.copy())
    machine.refuse(7, "rollback", wheel, world=thief)  # the trust role went back
    copied = rotation.old.copy()
    copied.versions["trust"] = 2
    copied.tuf |= {name: raw for name, raw in world.tuf.items() if "trust" in name}
    machine.refuse(7, "no known key signed this note", wheel, world=stolen_fork(rotation, copied))
    machine.accept(wheel)
    # What they get: a machine that has seen nothing since before the rotation, for as long as it sees nobody else.
    rotation.chain.root_accepts(rotation.trust_file)
    victim = Machine(tmp_path / "victim", world)
    victim.accept(wheel, world=thief)
    for _ in range(3):
        publish_after(world, 60)
    victim.refuse(7, "seen before", wheel)  # two histories: with the next honest answer it knows
    assert victim.evidence()


class Ending(World):
    """A registry whose first trust file is in force for three days."""

    def _write_offline(self, trial: bool) -> None:
        self.trust_file = replace(self.trust_file, valid_until=self.now + 3 * DAY)
        super()._write_offline(trial)


def test_an_old_trust_file_that_ends_is_worth_nothing_after_its_end(tmp_path: Path) -> None:
    """`valid_until`: even a machine that never followed refuses the old key set once its time is over."""
    world = Ending()
    wheel = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    world.now += 3 * DAY
    world.heartbeat()
    machine.refuse(4, "is not in force now", wheel)
