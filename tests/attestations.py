"""The scan's checks of PEP 740 attestations over a `DoorWorld`, with a checker or without the extra."""

from __future__ import annotations

from pathlib import Path

from countermark_server.scan.pep740 import Attestations, Checker, Outcome
from countermark_server.settings import Settings
from countermark_server.stores.blobs import Blobs
from tests.doors import DoorWorld


class AbsentChecker(Checker):
    """What a server without the extra `[sigstore]` has."""

    def _named(self) -> str:
        return "absent"


class BrokenChecker(Checker):
    """One whose children never answer."""

    def check(self, item: bytes, filename: str, sha256: str) -> Outcome | None:
        return None


ABSENT = AbsentChecker(Settings(data=Path("/nowhere")))


def attestations(world: DoorWorld, checker: Checker) -> Attestations:
    """The checks of one scan worker."""
    return Attestations(
        world.settings,
        world.engine,
        Blobs(world.settings.data / "blobs"),
        checker,
        registry=world.roles["registry"],
        clock=world.clock,
    )
