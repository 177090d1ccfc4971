"""evidence_check.py: saved evidence checked anew elsewhere, in three sentences, and what does not hold refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.errors import CountermarkError, EvidenceError, MalformedError
from countermark.evidence import Evidence, EvidenceClass, parse
from countermark.evidence_check import Checked, check
from countermark.tufjson import Root
from tests.machine import Machine, artifact
from tests.simulator import Published, World


def forked(folder: Path, *, ours: int, theirs: int) -> tuple[World, Path]:
    """A machine that saw one history, then was shown another: the evidence file it wrote."""
    world = World()
    wheel = world.publish("acme-demo")
    fork = world.copy()
    for number in range(ours):
        world.publish("acme-demo", f"2.{number}")
    for number in range(theirs):
        fork.publish("acme-demo", f"2.{number}", data=b"another %d" % number)
    machine = Machine(folder, world)
    machine.accept(wheel)
    fork.versions = fork.versions | {"timestamp": 50}
    fork.heartbeat()
    machine.refuse(7, "fork", wheel, world=fork)
    (path,) = machine.evidence()
    return world, path


def checked(world: World, path: Path) -> Checked:
    return check(*parse(path.read_bytes()), Root.parse(world.root))


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (1, 3), (2, 6), (5, 6)])
def test_every_fork_proves_itself(tmp_path: Path, ours: int, theirs: int) -> None:
    """Two notes of one size, or a larger one with the proof that its prefix is another history."""
    world, path = forked(tmp_path, ours=ours, theirs=theirs)
    found = checked(world, path)
    assert found.proved and found.registry == world.base
    first, second, third = found.sentences
    assert "signed two histories: at size" in first
    assert (
        "all 2 keys of the log, and cosigned by w1: only who holds the log's keys and that of w1 can"
        in second
    )
    assert "self-proving" in third and "this file alone" in third


@pytest.mark.parametrize("bare", ["checkpoint-seen", "checkpoint-offered"])
def test_only_who_cosigned_both_histories_is_accused(tmp_path: Path, bare: str) -> None:
    """A witness that cosigned one history followed its rules: the log's keys alone were used against them."""
    world, path = forked(tmp_path, ours=1, theirs=1)
    evidence, time = parse(path.read_bytes())
    lines = evidence.objects[bare].splitlines(keepends=True)
    log_only = b"".join(line for line in lines if b"/w1 " not in line)
    assert log_only != evidence.objects[bare]
    changed = replace(evidence, objects={**evidence.objects, bare: log_only})
    second = check(changed, time, Root.parse(world.root)).sentences[1]
    one, other = ("no quorum", "w1") if bare == "checkpoint-seen" else ("w1", "no quorum")
    assert f"seen first is cosigned by {one}, the one offered later by {other}: " in second
    assert "only who holds the log's keys can make" in second


def test_evidence_altered_anywhere_is_refused(tmp_path: Path) -> None:
    """Each object altered, removed, or swapped for the other: it no longer proves what it claims."""
    world, path = forked(tmp_path, ours=1, theirs=3)
    evidence, time = parse(path.read_bytes())
    root = Root.parse(world.root)
    assert set(evidence.objects) == {
        "checkpoint-seen", "checkpoint-offered", "consistency-proof", "prefix-root", "root", "trust-file",
    }  # fmt: skip
    for name in evidence.objects.keys() - {"root"}:  # the root comes from whoever checks
        raw = evidence.objects[name]
        middle = len(raw) // 2
        flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        for other in (None, b"", flipped, raw[:-32]):
            objects = {n: o for n, o in evidence.objects.items() if n != name}
            if other is not None:
                objects[name] = other
            with pytest.raises(CountermarkError):
                check(replace(evidence, objects=objects), time, root)
    same = {**evidence.objects, "checkpoint-offered": evidence.objects["checkpoint-seen"]}
    with pytest.raises(EvidenceError, match="no fork"):
        check(replace(evidence, objects=same), time, root)


def test_an_honest_log_cannot_be_accused(tmp_path: Path) -> None:
    """Two honest checkpoints, with the honest proof or with a false one, are no fork."""
    world, path = forked(tmp_path, ours=1, theirs=3)
    honest, time = parse(path.read_bytes())
    small = world.checkpoint
    world.publish("more")
    objects = {**honest.objects, "checkpoint-seen": small, "checkpoint-offered": world.checkpoint}
    for proof in (honest.objects["consistency-proof"], b"", b"\0" * 64):
        with pytest.raises(EvidenceError):
            check(
                replace(honest, objects={**objects, "consistency-proof": proof}), time, Root.parse(world.root)
            )


def test_another_root_proves_nothing(tmp_path: Path) -> None:
    """The keys come from who checks: under a stranger's root the file shows nothing."""
    _, path = forked(tmp_path, ours=1, theirs=1)
    with pytest.raises(CountermarkError):
        check(*parse(path.read_bytes()), Root.parse(World(keys="stranger").root))


def test_two_timestamps_of_one_version_prove_themselves(tmp_path: Path) -> None:
    """The timestamp key signed one version twice; the sentence says what they differ in."""
    world = World()
    wheel = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    world.now += 60
    world.sign_timestamp(applied=world._applied(), version=world.versions["timestamp"])
    machine.refuse(7, "two timestamps", wheel)
    (path,) = machine.evidence()
    found = checked(world, path)
    assert found.proved and "expires" in found.sentences[0] and "timestamp key" in found.sentences[1]
    evidence, time = parse(path.read_bytes())
    same = {**evidence.objects, "timestamp-offered": evidence.objects["timestamp-last"]}
    with pytest.raises(EvidenceError, match="same content"):
        check(replace(evidence, objects=same), time, Root.parse(world.root))


def test_an_observation_says_that_it_is_one(tmp_path: Path) -> None:
    """A swapped file, and a rollback: signed things may be in it, the contradiction is not."""
    world = World()
    wheel = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    machine.refuse(7, "says", artifact(wheel, data=b"swapped"))
    (path,) = machine.evidence()
    found = checked(world, path)
    assert not found.proved and found.kind is EvidenceClass.OBSERVATION
    assert "entry #" in found.sentences[0] and "observation" in found.sentences[2]


def test_a_class_that_is_claimed_is_not_believed(tmp_path: Path) -> None:
    """An observation that calls itself self-proving is refused; a fork that calls itself less is recognised."""
    world, path = forked(tmp_path, ours=1, theirs=1)
    evidence, time = parse(path.read_bytes())
    root = Root.parse(world.root)
    with pytest.raises(MalformedError):
        check(Evidence(EvidenceClass.SELF_PROVING, ["trust me"], {"timestamp": b"{}"}), time, root)
    modest = check(replace(evidence, kind=EvidenceClass.OBSERVATION), time, root)
    assert modest.proved and modest.claimed is EvidenceClass.OBSERVATION
    replayable = check(
        Evidence(EvidenceClass.REPLAYABLE, ["look"], {"checkpoint": world.checkpoint}), time, root
    )
    assert not replayable.proved and "replayable" in replayable.sentences[2]


def test_malformed_files_are_refused() -> None:
    """Whatever is no evidence file is said to be none."""
    good = json.loads(Evidence(EvidenceClass.OBSERVATION, ["x"], {"a": b"b"}).encode(time=1))
    assert parse(json.dumps(good).encode())[1] == 1
    mutants = [b"", b"[]", b"\xff", b"[" * 100_000]
    mutants += [json.dumps({k: v for k, v in good.items() if k != name}).encode() for name in good]
    mutants += [json.dumps(good | {"format": "countermark-evidence/v2"}).encode()]
    mutants += [json.dumps(good | {"objects": {"a": "!"}}).encode()]
    for mutant in mutants:
        with pytest.raises(MalformedError):
            parse(mutant)
    assert base64.b64decode(good["objects"]["a"]) == b"b"


def test_the_signed_content_signed_anew_is_no_proof(tmp_path: Path) -> None:
    """One timestamp in two spellings is refused, and called an observation: its key said nothing twice."""
    world = World()
    wheel: Published = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    spelled = json.dumps(json.loads(world.tuf["timestamp.json"]), indent=1).encode()
    world.tuf["timestamp.json"] = spelled
    machine.refuse(7, "not spelled as its key signed it", wheel)
    (path,) = machine.evidence()
    assert parse(path.read_bytes())[0].kind is EvidenceClass.OBSERVATION
