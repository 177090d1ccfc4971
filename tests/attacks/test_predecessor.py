"""An auditor holds a successor's entry 0 against the log it names: every lie about where that ended is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from countermark import rules
from countermark.audit import audit
from countermark.audit_predecessor import Old
from countermark.audit_report import AuditReport
from countermark.entry import make_entry
from countermark.predecessor import Predecessor
from countermark.statement import sign
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import Note
from tests.machine import Machine
from tests.simulator import World

OLD, OLD_BASE = "old.test/log", "https://old.test"
PLANTED = {  # the checks whose faults this file plants
    *("predecessor", "predecessor-checkpoint", "predecessor-origin", "predecessor-size"),
    *("predecessor-root", "predecessor-frozen", "predecessor-grew"),
}


def old_world(*, frozen: bool = True) -> World:
    world = World(keys="old", origin=OLD, base=OLD_BASE)
    world.publish("acme-demo")
    if frozen:
        world.freeze()
    return world


def named(old: World, **changes: Any) -> Predecessor:
    head = Checkpoint.parse(Note.parse(old.checkpoint).text)
    return Predecessor(**{"log": OLD, "tree_size": head.size, "root_hash": head.root_hash.hex()} | changes)


def successor(said: Predecessor, *signers: str) -> World:
    """A new registry whose entry 0 says this; signed by others than the authority it is appended unjudged."""

    def first(world: World) -> None:
        keys = [getattr(world.keys, name) for name in signers or ("authority",)]
        envelope = sign(said.statement(world.origin), *keys)
        if signers:
            raw = make_entry(type="predecessor", envelope=envelope, registry={}, time=world.now).raw
            world.view.apply(rules.skip(world.view))
            world.append_raw(raw)
        else:
            world.append("predecessor", envelope, {})

    return World(first=first)


def audited(tmp_path: Path, world: World, old: World | None) -> AuditReport:
    machine = Machine(tmp_path, world)
    given = None if old is None else Old(f"{old.base}/log", old.trust_file, old)
    return audit(machine.registry, world, now=world.now, predecessor=given)


def codes(report: AuditReport) -> set[str]:
    return {found.code for found in report.findings}


def test_a_true_predecessor_is_covered(tmp_path: Path) -> None:
    """Origin, size and root agree and the last entry is the freeze: no finding."""
    old = old_world()
    report = audited(tmp_path, successor(named(old)), old)
    assert report.findings == () and report.covered["predecessor named by entry 0"] == 1
    assert any(f"the entries of {OLD} before its last" in text for text in report.not_covered)


def test_without_the_old_log_the_report_says_what_it_did_not_check(tmp_path: Path) -> None:
    """Entry 0 alone is the authority's word: said, not judged."""
    report = audited(tmp_path, successor(said := named(old_world())), None)
    assert report.findings == () and any(str(said) in text for text in report.not_covered)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"log": "another.test/log"}, "predecessor-origin"),
        ({"tree_size": 3}, "predecessor-size"),
        ({"tree_size": 999}, "predecessor-size"),
        ({"root_hash": "00" * 32}, "predecessor-root"),
    ],
)
def test_each_lie_of_entry_0_is_its_own_finding(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """Another origin, size or root than the old log's; with both values and an evidence file."""
    old = old_world()
    report = audited(tmp_path, successor(named(old, **changes)), old)
    found = next(found for found in report.findings if found.code == code)
    assert report.exit_code == 7 and set(found.values) == {"entry", "log"}
    assert found.evidence is not None and Path(found.evidence).exists()


def test_a_predecessor_that_was_never_frozen_is_found(tmp_path: Path) -> None:
    """Size and root agree, but the old log can go on."""
    old = old_world(frozen=False)
    report = audited(tmp_path, successor(named(old)), old)
    assert codes(report) == {"predecessor-frozen"} and report.findings[0].party == "predecessor"


def test_a_predecessor_that_grew_behind_its_freeze_contradicts_itself(tmp_path: Path) -> None:
    """Its own larger checkpoint and the `log-freeze` entry are both in the evidence."""
    old = old_world()
    said = named(old)
    old.append_raw(b"{}")
    old.sign_checkpoint()
    report = audited(tmp_path, successor(said), old)
    assert codes(report) == {"predecessor-size", "predecessor-grew"}
    grew = next(found for found in report.findings if found.code == "predecessor-grew")
    assert grew.values == {"frozen": str(said.tree_size - 1), "size": str(said.tree_size + 1)}
    assert grew.evidence is not None


@pytest.mark.parametrize("attack", ["stripped", "unwitnessed", "other keys"])
def test_a_predecessor_whose_checkpoint_is_not_signed_as_its_trust_file_says_is_found(
    tmp_path: Path, attack: str
) -> None:
    """A log line or the quorum is missing, or it is another registry under the same name."""
    old = old_world()
    world = successor(named(old))
    if attack == "stripped":
        old.sign_checkpoint(log_keys=old.keys.log[:1])
    elif attack == "unwitnessed":
        old.sign_checkpoint(witnessed=False)
    else:
        old.trust_file = World(keys="rogue", origin=OLD).trust_file
    report = audited(tmp_path, world, old)
    assert codes(report) == {"predecessor-checkpoint"} and report.exit_code == 7


@pytest.mark.parametrize("signer", ["registry", "moderation"])
def test_a_predecessor_signed_by_a_role_key_counts_for_nothing(tmp_path: Path, signer: str) -> None:
    """The entry is a finding, and the log has no predecessor that anything could be compared with."""
    old = old_world()
    report = audited(tmp_path, successor(named(old), signer), old)
    assert codes(report) == {"rule-identity", "predecessor"}


def test_a_second_predecessor_is_a_finding_and_changes_nothing(tmp_path: Path) -> None:
    """Entry 0 stands; a later one breaks a rule, whoever signed it."""
    old = old_world()
    world = successor(named(old))
    envelope = sign(named(old, tree_size=1).statement(world.origin), world.keys.authority)
    world.append_raw(make_entry(type="predecessor", envelope=envelope, registry={}, time=world.now).raw)
    world.view.apply(rules.skip(world.view))
    world.heartbeat()
    report = audited(tmp_path, world, old)
    assert codes(report) == {"rule"} and report.covered["predecessor named by entry 0"] == 1


def test_a_log_without_a_predecessor_is_told_apart(tmp_path: Path) -> None:
    """The auditor was given one, the log names none: a promise not kept, nothing false."""
    report = audited(tmp_path, World(), old_world())
    assert codes(report) == {"predecessor"} and report.exit_code == 5
