"""fsck: whatever is changed behind the log's back is named, and nothing is changed by looking."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Executable, text

from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner
from countermark.tlog.note import Note, sign_note
from countermark_server import db
from countermark_server.log.fsck import check_log
from countermark_server.stores.public import CHECKPOINT
from tests.log_world import NOW, ORIGIN, LogWorld, drain, key

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def world(tmp_path: Path):
    world = LogWorld(tmp_path)
    world.begin()
    station = world.station()
    station.check_start()
    for number in range(3):
        world.upload(number)
    drain(station)
    yield world
    world.close()


def findings(world: LogWorld) -> list[str]:
    before = world.rows(), world.files()
    found = check_log(world.public, world.engine, world.trust)
    assert (world.rows(), world.files()) == before
    return found


def test_a_sound_log_has_no_findings(world: LogWorld) -> None:
    """Nothing to say about what nobody touched."""
    assert findings(world) == []


@pytest.mark.parametrize("name", ["log/tile/0/000.p/7", "log/tile/entries/000.p/7", CHECKPOINT])
def test_every_byte_of_a_file_matters(world: LogWorld, name: str) -> None:
    """A flipped bit anywhere in a tile, a bundle or the checkpoint is found (every 97th byte, and the ends)."""
    path = world.settings.public / name
    good = path.read_bytes()
    path.chmod(0o644)
    for at in sorted({*range(0, len(good), 97), len(good) - 1}):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert findings(world), f"byte {at} of {name}"
    path.unlink()
    assert bool(findings(world)) == (name != CHECKPOINT)  # a log may have no public checkpoint yet
    path.write_bytes(good)
    assert findings(world) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET tree_size = 6",
        db.head.update().values(edge=bytes(96)),
        "DELETE FROM head",
        db.rules_state.update().where(db.rules_state.c.key.contains("file")).values(value="{}"),
        db.rules_state.delete().where(db.rules_state.c.key.contains("file")),
        """INSERT INTO rules_state VALUES ('["file","","x","y"]', '{}')""",
        "UPDATE proposal SET leaf_hash = 'aa' WHERE leaf_index = 5",
        "UPDATE proposal SET leaf_index = 5 WHERE leaf_index = 6",
        "UPDATE proposal SET leaf_index = 70 WHERE leaf_index = 6",
    ],
)
def test_a_changed_row_is_found(world: LogWorld, statement: str | Executable) -> None:
    """The database must say what the tree says."""
    with world.engine.begin() as connection:
        connection.execute(text(statement) if isinstance(statement, str) else statement)
    assert findings(world)


def test_a_running_log_is_sound_at_any_moment(world: LogWorld) -> None:
    """Sequenced but not published, with staging: nothing disagrees."""
    station = world.station()
    station.check_start()
    world.upload(9)
    station.sequencer.round()
    assert findings(world) == []


def test_a_public_checkpoint_of_another_tree_is_found(world: LogWorld) -> None:
    """Rightly signed and cosigned, and no prefix of the head."""
    note = sign_note(Checkpoint(ORIGIN, 3, b"\7" * 32).text(), world.signers, time=NOW)
    line = Ed25519CosignatureSigner("witness.test/w1", key("witness")).sign(note.text, time=NOW)
    world.public.replace(CHECKPOINT, Note(note.text, (*note.signatures, line)).format())
    (found,) = findings(world)
    assert "public checkpoint" in found
