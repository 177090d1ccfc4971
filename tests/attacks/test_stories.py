"""The two stories of the demo, on a registry in memory: the insider's swap, and the fake registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.errors import EvidenceError, PolicyError
from countermark.pins import Home, find_root
from countermark.words import root_words
from tests.machine import Machine, artifact
from tests.simulator import World

SWAPPED = b"a wheel with a line its author did not write"


def test_the_insiders_swap_is_refused_with_both_hashes_and_the_entry(tmp_path: Path) -> None:
    """Stored bytes, index and API are swapped; log and TUF can't be: refused as evidence, whatever the mode."""
    world = World()
    wheel = world.publish("acme-demo")
    world.check()
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    swapped = artifact(wheel, data=SWAPPED)
    world.packages[f"acme-demo/{wheel.filename}"] = SWAPPED
    world.pages["acme-demo"][wheel.filename] = swapped.sha256
    error = machine.refuse(7, f"entry #{wheel.index}", swapped)
    assert wheel.sha256 in str(error) and swapped.sha256 in str(error)
    machine.accept(wheel)  # who holds the publisher's bytes is not disturbed


def test_an_insider_with_the_bins_key_is_refused_too(tmp_path: Path) -> None:
    """The index key signs the swapped hash under the old entry: the entry itself says otherwise."""
    world = World()
    wheel = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    swapped = artifact(wheel, data=SWAPPED)
    world.targets[wheel.target] |= {"hashes": {"sha256": swapped.sha256}, "length": len(SWAPPED)}
    world.write_bins()
    world.sign_timestamp(applied=len(world.entries))
    machine.refuse(7, f"entry #{wheel.index} says", swapped)


def test_a_fake_registry_is_refused_by_the_pinned_root(tmp_path: Path) -> None:
    """Own keys, log, witness and TUF at the same address, all consistent: not signed by the root we pinned."""
    world, fake = World(), World(keys="mallory")
    wheel, forged = world.publish("acme-demo"), fake.publish("acme-demo", data=SWAPPED)
    fake.check()
    machine = Machine(tmp_path, world)
    machine.refuse(7, "not the registry whose root is pinned", forged, world=fake)
    machine.accept(wheel)
    machine.refuse(7, "not the registry whose root is pinned", forged, world=fake)


def test_a_fake_registry_gets_no_trust_from_a_fresh_machine(tmp_path: Path) -> None:
    """Nothing pinned: refused with the command to run. The real words: its root is not the one they name."""
    world, fake = World(), World(keys="mallory")
    home = Home(tmp_path)
    with pytest.raises(PolicyError, match="never fetched from the server") as refused:
        home.registry(fake.base)
    assert refused.value.exit_code == 5 and "trust add" in (refused.value.hint or "")
    from countermark.pins import RootInfo

    words = root_words(RootInfo.parse(world.root).signed)
    with pytest.raises(EvidenceError, match="not the one the words name") as false:
        find_root(fake, fake.base, words)
    assert false.value.exit_code == 7
    assert not list(tmp_path.rglob("*")), "something of the fake was kept"
    assert find_root(world, world.base, words) == world.root
