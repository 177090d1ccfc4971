"""Killed while a root is pinned, or while a new trust file is followed: nothing half is believed, nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from countermark.errors import PolicyError
from countermark.pins import Home
from countermark.timeline import Timeline
from tests.attacks.test_hostile_cache import FORK, die_at
from tests.machine import Machine
from tests.simulator import Published, World
from tests.trust_chain import TrustChain

CALLS_MAX = 100


def killed_everywhere(act: Callable[[], object], at_least: int) -> Iterator[bool]:
    """One process after another, each killed a call later; at the end one that came through (True)."""
    for call in range(1, CALLS_MAX):
        worker = FORK.Process(target=die_at, args=(call, act))
        worker.start()
        worker.join(30)
        assert worker.exitcode in (0, 9)
        yield worker.exitcode == 0
        if worker.exitcode == 0:
            assert call > at_least, "too little was written"
            return
    raise AssertionError("the walk did not reach the end")


@pytest.mark.parametrize("seen", [False, True], ids=["new", "of a first use"])
def test_a_pin_is_there_whole_or_not_at_all(tmp_path: Path, world: World, *, seen: bool) -> None:
    """A kill leaves what there was or what was asked for, and the same command makes it."""
    home = Home(tmp_path / "home")

    def begin() -> None:
        shutil.rmtree(home.path, ignore_errors=True)
        if seen:
            home.add(world.base, world.root, first_use=True)

    begin()
    for done in killed_everywhere(lambda: home.add(world.base, world.root), 3):
        found = home.find(world.base)
        assert found is None or found.root == world.root
        if found is None:
            assert not seen and not done
            with pytest.raises(PolicyError, match="no trusted root"):
                home.registry(world.base)
        else:
            assert not found.first_use or (seen and not done)
        again = home.add(world.base, world.root)
        assert again.root == world.root and not again.first_use
        begin()


def test_a_new_trust_file_is_followed_after_any_kill(
    tmp_path: Path, machine: Machine, wheel: Published
) -> None:
    """Before, the old one counts; afterwards the new; the overlap's end finds every machine with the new one."""
    chain = TrustChain(machine.world)
    chain.announce(chain.with_witness("w2"), "w2")
    machine.accept(wheel)
    chain.pass_hours(25)
    good, folder = tmp_path / "good", machine.registry.folder
    shutil.copytree(folder, good, symlinks=True)
    versions = set()
    for done in killed_everywhere(lambda: machine.accept(wheel), 8):
        version = Timeline.load(folder / "timeline.json").trust_version
        versions.add(version)
        assert version == 2 or (version == 1 and not done)
        assert not machine.accept(wheel).remarks
        assert Timeline.load(folder / "timeline.json").trust_version == 2
        shutil.rmtree(folder)
        shutil.copytree(good, folder, symlinks=True)
    assert versions == {1, 2}
