"""A later ceremony between its adoption and its being in force: every process dies after every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from countermark_server import db
from countermark_server.tufrepo import store
from countermark_server.tufrepo.renewing import TufrepoError
from tests.tuf_registry import TufRegistry

SIGNERS = {
    "root": ("root-a", "root-b"),
    "targets": ("targets",),
    "trust": ("trust",),
    "index": ("index",),
}


def adopted(world: TufRegistry) -> dict[str, bytes]:
    """Version 2 of all four roles, as `renew` leaves them: the root out of sight, one row for tufrepo."""
    files = {}
    for role, signers in SIGNERS.items():
        raw = world.public.read(f"tuf/1.{role}.json")
        assert raw is not None
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
        metadata.signed.version = 2
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(world.tuf_keys[signer], append=True)
        name = store.waiting_root(2) if role == "root" else f"tuf/2.{role}.json"
        files[name] = metadata.to_bytes(JSONSerializer(compact=True))
    world.public.put_all(files)
    with db.write(world.engine) as connection:
        store.renew(connection, dict.fromkeys(SIGNERS, 2))
    return files


def test_a_death_after_any_step_ends_in_the_new_root_and_no_earlier_than_the_log_allows(
    tmp_path: Path,
) -> None:
    """The root is shown only once the log names it; whatever dies, the next start finishes."""
    world = TufRegistry(tmp_path)
    world.settle()
    before = world.timestamp()
    files = adopted(world)
    assert world.public.read("tuf/2.root.json") is None
    for _ in range(40):
        world.restart()
        world.repository.step()
        if world.public.read("tuf/2.root.json") is not None:
            logged = [raw for raw in world.entries() if b'"type":"tuf"' in raw]
            assert len(logged) == 2  # genesis, and the one that names root 2
        world.restart()
        world.work_log()
        world.restart()
        world.service.step()
        world.clock.now += 3
    assert world.public.read("tuf/2.root.json") == files[store.waiting_root(2)]
    assert world.timestamp().version == before.version + 1
    assert world.repository.current.offline == {"targets": 2, "trust": 2, "index": 2}
    with db.read(world.engine) as connection:
        assert store.renewal(connection) is None
    world.list_file(1)
    world.settle()
    world.check()


def test_a_root_that_was_changed_while_it_waited_is_not_shown(tmp_path: Path) -> None:
    """Its bytes are those the log names, or nothing is shown and the old timestamp stays."""
    world = TufRegistry(tmp_path)
    world.settle()
    before = world.timestamp()
    adopted(world)
    world.repository.step()
    world.work_log()
    (world.settings.data / "public" / store.waiting_root(2)).write_bytes(b"{}")
    with pytest.raises(TufrepoError, match="not the one that our tuf entry names"):
        world.repository.step()
    assert world.public.read("tuf/2.root.json") is None
    assert world.timestamp().version == before.version


def test_a_ceremony_that_was_written_and_not_told_changes_nothing_and_is_adopted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead between the files and the row: clients see what they saw, tufrepo knows of nothing; then it goes on."""
    world = TufRegistry(tmp_path)
    world.settle()
    before = world.timestamp()

    def dies(*_: object) -> None:
        raise OSError("the machine died here")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="died here"):
        patched.setattr(store, "renew", dies)
        adopted(world)
    world.restart()
    world.settle()
    assert world.public.read("tuf/2.root.json") is None and world.timestamp().version == before.version
    with db.read(world.engine) as connection:
        assert store.renewal(connection) is None
    files = adopted(world)
    world.settle()
    assert world.public.read("tuf/2.root.json") == files[store.waiting_root(2)]
    world.check()
