"""Withdrawals between the log and TUF: who could make this machine overlook one, or believe in its end."""

from __future__ import annotations

import pytest

from countermark.entry import make_entry
from countermark.statement import KeySigner, Statement, sign
from tests.machine import Machine
from tests.simulator import ACCOUNT, Published, World, signing_key


def forge(world: World, type: str, file: Published, signer: KeySigner, prev: str, **members: object) -> int:
    """An entry about a file that nobody's rules were asked about."""
    common = {"namespace": "", "origin": world.origin, "prev": prev, "project": file.project}
    statement = Statement(file.filename, file.sha256, type, common | members)
    registry = {"actor": ACCOUNT} if type == "remove" else {"case": None, "moderator": ACCOUNT}
    entry = make_entry(type=type, envelope=sign(statement, signer), registry=registry, time=world.now)
    index = world.append_raw(entry.raw)
    world.heartbeat()
    return index


def clear(world: World, file: Published, signer: KeySigner, prev: str) -> int:
    about = {"about": None, "evidence_sha256": None, "reason": "false-positive"}
    return forge(world, "clear", file, signer, prev, **about)


@pytest.mark.parametrize("who", ["registry", "scanner", "stranger", "publisher"])
def test_a_clear_by_somebody_else_ends_no_hold(
    machine: Machine, world: World, wheel: Published, who: str
) -> None:
    """The log takes a `clear` that no moderator signed; the hold before it stands."""
    index = world.decide("hold", wheel, "malware")
    signers = {"stranger": KeySigner(signing_key("mallory")), "publisher": world.publisher}
    clear(world, wheel, signers.get(who) or getattr(world.keys, who), world.leaves[index].hex())
    machine.refuse(6, f"hold by entry #{index}", wheel)


def test_a_clear_of_another_decision_ends_no_hold(machine: Machine, world: World, wheel: Published) -> None:
    """A moderator's old `clear`, replayed: it names another predecessor."""
    index = world.decide("hold", wheel, "malware")
    clear(world, wheel, world.keys.moderation, world.leaves[wheel.index].hex())
    machine.refuse(6, f"hold by entry #{index}", wheel)


def test_a_clear_does_not_undo_what_the_owner_removed(
    machine: Machine, world: World, wheel: Published
) -> None:
    """remove, hold, clear: the hold is over, the removal is not."""
    index = forge(world, "remove", wheel, world.publisher, world.leaves[wheel.index].hex(), reason="mistake")
    hold = world.decide("hold", wheel, "malware")
    clear(world, wheel, world.keys.moderation, world.leaves[hold].hex())
    machine.refuse(6, f"remove by entry #{index}", wheel)


def test_a_later_verdict_against_a_file_counts_at_once(
    machine: Machine, world: World, wheel: Published
) -> None:
    """A rescan blocks it: TUF will drop it, and nobody installs it in the meantime."""
    index = world.verdict(wheel, "block")
    world.heartbeat()
    machine.refuse(6, f"verdict by entry #{index} (block)", wheel)
