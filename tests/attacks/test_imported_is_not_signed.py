"""An imported file is never taken for a signed one, whatever else is true of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.errors import PolicyError
from countermark.verified import Refused, Verified
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import Published, World

WORDS = "imported by entry #"


@pytest.fixture
def world() -> World:
    world = World()
    world.publish("acme-demo")
    return world


@pytest.fixture
def machine(tmp_path: Path, world: World) -> Machine:
    return Machine(tmp_path, world)


def imported(world: World) -> Published:
    (file,) = world.import_files(("old-1.0.tar.gz", b"history"))
    return file


def test_a_recorded_file_is_refused_in_its_own_words(world: World, machine: Machine) -> None:
    """Nobody scanned it, so TUF does not list it; what is told is that it is imported, and since when it is known."""
    file = imported(world)
    error = machine.refuse(5, WORDS, file)
    assert "not signed; first seen by the log at" in str(error)
    assert "it is not listed" in str(error)
    assert "upload" not in str(error)


def test_other_bytes_under_a_recorded_name_are_tampering(world: World, machine: Machine) -> None:
    """The log knows the hash: that is what an import is for."""
    file = imported(world)
    machine.refuse(7, f"entry #{file.index} of", replace(file, data=b"other bytes"))


def test_a_listed_one_is_a_finding_and_never_verified(tmp_path: Path) -> None:
    """Scanned and listed, it is still signed by nobody: let pass under warn and shown, refused under enforce."""
    world = World(mode="warn")
    machine = Machine(tmp_path, world)
    file = imported(world)
    world.verdict(file)
    world.release()
    report = machine.verify(file, local=Mode.WARN)
    (outcome,) = report.outcomes
    assert isinstance(outcome, Verified)
    assert not outcome.verified
    assert outcome.signed_by is not None
    assert (outcome.signed_by.party, outcome.signed_by.keyids) == ("nobody", frozenset())
    assert WORDS in outcome.signed_by.sentence
    strict = machine.verify(file, local=Mode.ENFORCE)
    (refused,) = strict.outcomes
    assert isinstance(refused, Refused)
    assert refused.exit_code == 5
    assert WORDS in str(refused.error)


def test_a_pin_is_not_satisfied_by_nobody(world: World, machine: Machine) -> None:
    """Who pinned a key for a project gets no file that nobody signed, under any mode."""
    file = imported(world)
    world.verdict(file)
    world.release()
    rule = Rule("old", Mode.OBSERVE, frozenset({"ab" * 32}))
    policies = Policies(local=ClientPolicy(mode=Mode.OBSERVE, rules=(rule,)))
    report = verify([artifact(file)], machine.registry, world, now=world.now, policies=policies)
    (outcome,) = report.outcomes
    error = outcome.error if isinstance(outcome, Refused) else getattr(outcome, "error", None)
    assert isinstance(error, PolicyError)
    assert "not pinned" in str(error)


def test_a_line_passed_over_proves_nothing(world: World, machine: Machine) -> None:
    """Its leaf is in the log and names the file; it published nothing, so nothing can point to it."""
    live = world.publish("live", "1.0", list_it=False)
    lines = world.import_files((live.filename, b"other bytes"), ("old-1.0.tar.gz", b"history"))
    passed = lines[0]
    asked = f"/api/v1/files/live/{live.filename}"
    world.override[asked] = b'{"index":%d,"standing":"ok","state":"logged"}' % passed.index
    machine.refuse(5, "no entry for", passed)


def test_a_target_that_names_a_line_passed_over_is_tampering(world: World, machine: Machine) -> None:
    """tufrepo and timestamper together list bytes by a leaf that published nothing."""
    live = world.publish("live", "1.0", list_it=False)
    passed, _ = world.import_files((live.filename, b"other bytes"), ("old-1.0.tar.gz", b"history"))
    target = {
        "custom": {"i": passed.index, "lh": world.leaves[passed.index].hex(), "verdict": None, "yank": None},
        "hashes": {"sha256": passed.sha256},
        "length": len(passed.data),
    }
    world.listing = lambda: {passed.target: target}  # type: ignore[method-assign]
    world.release()
    machine.refuse(7, "published nothing (file-exists)", passed)
