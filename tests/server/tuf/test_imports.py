"""An import, as TUF sees it: nothing is listed, everything is applied, and the timestamper signs on."""

from __future__ import annotations

from pathlib import Path

from countermark.manifest import ZERO_NONCE, Line, format_manifest, predicate
from countermark.statement import Statement, sign
from countermark_server.stores import places
from tests.log_world import ORIGIN
from tests.tuf_registry import TufRegistry

LINES = 300


def begin(world: TufRegistry) -> None:
    lines = [Line("old", str(n), f"old-{n}.tar.gz", f"{n:064x}", 10) for n in range(1, LINES + 1)]
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest(lines))
    said = predicate(lines, origin=ORIGIN, prev=None, source="old.example")
    statement = Statement.about(f"import:{said['manifest_sha256']}", "import", said)
    world.propose("import", sign(statement, world.roles["registry"]).to_dict())


def test_the_end_of_an_import_is_applied_without_waiting_for_a_heartbeat(tmp_path: Path) -> None:
    """Every verification reads what is not applied; and no bin is read or signed for files that none can hold."""
    world = TufRegistry(tmp_path)
    world.settle()
    world.list_file(1)
    world.settle()
    bins = world.repository.current.bins
    read: list[int] = []
    begin(world)
    pending = type(world.repository._pending)
    held = pending.bin
    pending.bin = lambda self, number: read.append(number) or held(self, number)  # type: ignore[method-assign]
    try:
        world.settle()
    finally:
        pending.bin = held  # type: ignore[method-assign]
    size = world.logs.sequencer.checkpoint.size
    assert world.repository.current.applied >= size - 2  # all but the `tuf` entries that say so
    assert world.repository.current.applied > LINES
    assert world.repository.current.bins == bins
    assert read == []
    world.check()


def test_a_listed_file_beside_an_import_is_listed_still(tmp_path: Path) -> None:
    """An upload and its verdict among the lines reach their bin; the timestamper computes the same bins."""
    world = TufRegistry(tmp_path)
    world.settle()
    begin(world)
    world.list_file(1)
    world.settle()
    world.check()
    held = [name for number in range(4) for name in world.repository._pending.bin(number)]
    assert len(held) == 1
