"""Succinct bins at their borders: the first and the last hash of a bin, padded names, a target next door."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

from countermark import bins
from countermark.trust import opened
from countermark.verified import Refused
from tests.machine import Machine
from tests.simulator import World

# Bit length, and how its bins are named: the number in hexadecimal, as wide as the last one needs.
NAMES = {
    1: ("bins-0", "bins-1"),
    4: ("bins-0", "bins-f"),
    5: ("bins-00", "bins-1f"),
    9: ("bins-000", "bins-1ff"),
}


@cache
def versions(*starts: bytes) -> tuple[str, ...]:
    """Versions of acme-demo whose target paths hash to something that starts so."""
    found: dict[bytes, str] = {}
    number = 0
    while len(found) < len(starts):
        path = f"files/acme-demo/acme_demo-{number}-py3-none-any.whl"
        start = hashlib.sha256(path.encode()).digest()[: len(starts[0])]
        if start in starts:
            found.setdefault(start, str(number))
        number += 1
    return tuple(found[start] for start in starts)


@pytest.mark.parametrize("bit_length", NAMES)
def test_the_first_and_last_hash_of_a_bin_are_found_in_it(tmp_path: Path, bit_length: int) -> None:
    """At the border between two bins one hash decides, and at both ends no bin is missing."""
    border = 1 << (15 - (bit_length - 1))  # the first 16 bits of the first hash in bin 1
    starts = tuple(start.to_bytes(2, "big") for start in (0, border - 1, border, 0xFFFF))
    world = World(bit_length=bit_length)
    files = [world.publish("acme-demo", version, list_it=False) for version in versions(*starts)]
    for file in files:
        world.verdict(file)
    world.release()
    world.check()
    last = (1 << bit_length) - 1
    homes = [bins.bin_number(file.target, bit_length) for file in files]
    assert homes == [0, 0, 1, last]
    machine = Machine(tmp_path, world)
    machine.accept(*files)
    first_name, last_name = NAMES[bit_length]
    with opened(machine.registry, world, now=world.now) as view:
        found = [view.bin(file.target)[0].role for file in files]
    assert (found[0], found[-1]) == (first_name, last_name)
    assert found[2] == bins.role_name(1, bit_length) != found[1] == first_name


def test_a_target_next_door_is_not_listed(tmp_path: Path) -> None:
    """Signed, logged, in the bins root, and in the bin beside its own: nobody looks there."""
    low, high = versions(b"\x3f\xff", b"\x40\x00")  # the last of bin 0, the first of bin 1
    world = World()
    wheel = world.publish("acme-demo")
    for version, elsewhere in ((low, 1), (high, 0)):
        evil = world.copy()
        file = evil.publish("acme-demo", version, list_it=False)
        evil.misplaced[file.target] = elsewhere
        evil.verdict(file)
        evil.release()
        machine = Machine(tmp_path / version, evil)
        machine.accept(wheel)
        machine.refuse(5, "not listed yet", file, world=evil)
        evil.misplaced.clear()
        evil.release()  # mended: in its own bin again
        machine.accept(file, wheel)


def test_a_bin_under_a_name_of_another_width_is_no_bin(tmp_path: Path) -> None:
    """`bins-000` beside `bins-00`: the snapshot must name the one that the delegation makes."""
    world = World(bit_length=5)
    wheel = world.publish("acme-demo")
    role = bins.role_name(bins.bin_number(wheel.target, 5), 5)
    wide = role.replace("bins-", "bins-0")
    for version in list(range(1, 9)):
        if raw := world.tuf.pop(f"{version}.{role}.json", None):
            world.tuf[f"{version}.{wide}.json"] = raw
    machine = Machine(tmp_path, world)
    (outcome,) = machine.verify(wheel).outcomes
    assert isinstance(outcome, Refused) and outcome.exit_code == 3 and f"{role}.json" in str(outcome.error)
    assert not (machine.registry.folder / "verified.txt").exists()


@pytest.mark.parametrize("said", [1, 3])
def test_another_number_of_bins_than_the_bins_root_counts_is_refused(tmp_path: Path, said: int) -> None:
    """The delegation and the timestamp must agree on how many bins there are."""
    world = World()
    wheel = world.publish("acme-demo")
    assert world.bins_root is not None
    members = {"x-countermark-bins": {"bit_length": said, "root": world.bins_root.hex()}}
    world.sign_timestamp(applied=world._applied(), **members)
    machine = Machine(tmp_path, world)
    machine.refuse(7, f"the timestamp's bins root has 2^{said}", wheel)
