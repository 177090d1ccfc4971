"""Where most attacks begin: a registry in memory, a release in it, and a machine that accepted the release once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine import Machine
from tests.simulator import Published, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def wheel(world: World) -> Published:
    return world.publish("acme-demo")


@pytest.fixture
def machine(tmp_path: Path, world: World, wheel: Published) -> Machine:
    machine = Machine(tmp_path / "machine", world)
    machine.accept(wheel)
    return machine
