"""Attacks on where trust comes from: the trust file, the floor in it, the quorum it asks for."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from tuf.api.metadata import Metadata, Root

from countermark.trustfile import CentralPolicy
from tests.machine import Machine
from tests.simulator import HOUR, World


def test_stolen_trust_keys_change_nothing_at_once(tmp_path: Path) -> None:
    """A trust file of another witness, signed by the trust role: the root does not list it."""
    world, mallory = World(), World(keys="mallory")
    wheel = world.publish("acme-demo")
    stolen = replace(world.trust_file, witness_policy=mallory.trust_file.witness_policy, version=2)
    world.sign_trust(stolen.format())
    machine = Machine(tmp_path, world)
    before = machine.snapshot()
    machine.refuse(5, "not one the root of", wheel)
    assert machine.snapshot() == before


def test_an_older_trust_file_that_the_root_still_lists_is_a_rollback(tmp_path: Path) -> None:
    """Trust files are listed for ever; who holds old log keys wants the one that names them back."""
    world = World()
    wheel = world.publish("acme-demo")
    old = world.trust_file.format()
    new = replace(world.trust_file, version=2).format()
    root = Metadata[Root].from_bytes(world.root)
    digests = [hashlib.sha256(raw).hexdigest() for raw in (old, new)]
    root.signed.unrecognized_fields["x-countermark-trust"] = digests
    for role in ("root-a", "root-b"):
        root.sign(world.keys.tuf[role], append=role == "root-b")
    world.tuf["1.root.json"] = root.to_bytes()
    world.sign_trust(new)
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    world.sign_trust(old)
    shutil.rmtree(machine.cache)
    machine.refuse(7, "trust file version 1, seen before: version 2", wheel)


def test_a_lowered_floor_is_a_changed_trust_file(tmp_path: Path) -> None:
    """`min_tree_size` can't be lowered by whoever holds the trust keys alone."""
    world = World(floor=1_000)
    lowered = replace(world.trust_file, client_policy=CentralPolicy(0, "observe"))
    world.sign_trust(lowered.format())
    Machine(tmp_path, world).refuse(5, "not one the root of", world.publish("acme-demo"))


def test_a_log_below_the_signed_floor_is_refused_at_first_contact(tmp_path: Path) -> None:
    """No memory needed: the trust file says how large the log was when it was signed."""
    world = World(floor=1_000)
    wheel = world.publish("acme-demo")
    Machine(tmp_path, world).refuse(7, "below 1000, the floor", wheel)
    low = World(floor=3)
    Machine(tmp_path / "low", low).accept(low.publish("acme-demo"))


def test_no_witness_is_for_names_nobody_can_own(tmp_path: Path) -> None:
    """`quorum none` is accepted for .test, and for no name that somebody could own."""
    named = World(origin="registry.dev/log", quorum="none")
    Machine(tmp_path / "a", named).refuse(5, "asks for no witness", named.publish("acme-demo"))
    test = World(origin="registry.test/log", quorum="none")
    Machine(tmp_path / "b", test).accept(test.publish("acme-demo"))


def test_a_broken_trust_file_is_refused(tmp_path: Path) -> None:
    """Not canonical, empty, of another origin: the root lists none of them."""
    for number, raw in enumerate((b"", b"{}", b"\xff", World().trust_file.format() + b" ")):
        world = World()
        world.sign_trust(raw)
        Machine(tmp_path / str(number), world).refuse(5, "not one the root of", world.publish("acme-demo"))


def test_an_expired_root_has_its_own_words(tmp_path: Path) -> None:
    """The most confusing of all expiries: told apart, exit 4."""
    world = World()
    wheel = world.publish("acme-demo")
    machine = Machine(tmp_path, world)
    world.now += 366 * 24 * HOUR
    world.heartbeat()
    machine.refuse(4, "root", wheel)
