"""Outages that end: a witness, a clock, a cache or a backup was wrong for a while, and all comes to rest again."""

import json
import shutil

import pytest

from countermark.entry import Entry
from countermark.errors import EvidenceError
from countermark.statement import KeySigner
from countermark_server import db
from countermark_server.contradiction import StartRefusedError
from countermark_server.log import witnesses
from countermark_server.log.publish import NoQuorumError
from countermark_server.stores.public import CHECKPOINT, TIMESTAMP
from countermark_server.timestamper.service import RECARRY_AFTER
from countermark_server.tufrepo.due import BINS_RENEW
from countermark_server.tufrepo.publish import Repository
from countermark_server.tufrepo.renewing import TufrepoError
from tests.log_world import key
from tests.tuf_registry import TufRegistry, rotate_registry_key

MINUTE = 60


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A registry with one listed file."""
    monkeypatch.setattr(witnesses, "BACK_OFF", (0.0, 0.0, 0.0))
    world = TufRegistry(tmp_path)
    world.settle()
    world.list_file(1)
    world.settle()
    world.check()
    return world


def work(world, minutes, every=1):
    """All rooms, a step a minute, whatever the witness says."""
    for _ in range(0, minutes, every):
        world.clock.now += every * MINUTE
        for _ in range(3):
            world.repository.step()
            try:
                if not world.work_log():
                    world.logs.publisher.publish(world.logs.sequencer.checkpoint)
            except NoQuorumError:
                pass
            world.service.step()


def test_a_takedown_sequenced_behind_a_waiting_tuf_entry_while_the_witness_slept_is_applied(world):
    """Back after twenty minutes, the candidate on its way no longer can be signed for: another follows it."""
    world.list_file(2)
    world.repository.step()  # the candidate is proposed
    world.fetcher.down = True
    world.logs.sequencer.round()
    world.decide("takedown", 1)
    work(world, 20)
    world.fetcher.down = False
    work(world, 10)
    assert list(world.targets()) == ["files/acme/acme-2.tar.gz"]
    world.check()


def test_timestamps_are_carried_on_while_an_entry_waits_for_the_witness(world):
    """Without quorum the same metadata is signed again hourly, and clients get it."""
    before = world.timestamp()
    world.list_file(2)
    world.repository.step()
    world.fetcher.down = True
    work(world, 3 * 65, every=5)
    carried = world.timestamp()
    assert carried.expires - before.expires >= 2 * RECARRY_AFTER.total_seconds()
    assert carried.applied == before.applied and len(world.targets()) == 1
    world.fetcher.down = False
    work(world, 5)
    assert len(world.targets()) == 2
    world.check()


def test_a_restored_timestamper_goes_on_behind_the_public_timestamp(world):
    """Its backup is two publishes old; the newest timestamp it forgot is logged like any other."""
    path = world.settings.data / "timestamper" / "timestamper.sqlite"
    world.store.close()
    backup = path.with_suffix(".backup")
    shutil.copy(path, backup)
    world.restart()
    for number in (2, 3):
        world.list_file(number)
        world.settle()
    version = world.timestamp().version
    world.store.close()
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    shutil.copy(backup, path)
    world.restart()
    world.list_file(4)
    work(world, 10)
    assert len(world.targets()) == 4
    assert world.timestamp().version > version
    world.check()
    said = [
        set(e.statement.predicate["timestamps"]) for e in map(Entry.parse, world.entries()) if e.type == "tuf"
    ]
    logged = {row[0] for row in world.store._connection.execute("SELECT sha256 FROM signed WHERE logged = 1")}
    assert logged <= set().union(*said)


def test_a_checkpoint_older_than_the_hint_is_looked_for_again(world, monkeypatch):
    """A cache answers with yesterday's checkpoint: the next look, not the next hour, signs."""
    old = world.public.read(CHECKPOINT)
    world.list_file(2)
    world.repository.step()
    world.work_log()
    world.repository.step()  # the hint is out
    fetch = world.service._fetcher.get
    stale = [True]

    def cached(url, **options):
        return old if stale[0] and url.endswith("/log/checkpoint") else fetch(url, **options)

    monkeypatch.setattr(world.service._fetcher, "get", cached)
    assert world.service.step() is False
    stale[0] = False
    work(world, 1)
    assert len(world.targets()) == 2
    world.check()


def test_bins_of_a_busy_registry_are_renewed_too(world):
    """Publishes that come faster than heartbeats do not let quiet projects' bins expire."""
    world.clock.now += 21 * 24 * 3600
    for number in range(20):
        world.clock.now += 50 * MINUTE
        world.decide(
            "hold" if number % 2 == 0 else "clear", 1, {"reason": ["report", "reviewed"][number % 2]}
        )
        world.work_log()
        world.settle()
    world.check()
    near = [bin_.expires - world.clock.now for bin_ in world.repository.current.bins]
    assert min(near) > BINS_RENEW.total_seconds()


def test_a_tuf_entry_refused_for_its_key_is_signed_again_with_the_next_key(world):
    """The authority replaced the registry's key while a candidate was on its way."""
    world.list_file(2)
    world.repository.step()
    rotate_registry_key(world, KeySigner(key("registry 2")))
    with pytest.raises(TufrepoError, match="key-revoked"):
        for _ in range(3):
            world.work_log()
            world.repository.step()
    world.restart()
    world.settle()
    assert len(world.targets()) == 2
    world.check()


def test_a_candidate_the_log_refuses_again_stops_the_room_again(world):
    """Signing again is tried once by a process, not for ever."""
    world.list_file(2)
    world.repository.step()
    world.roles["registry"] = KeySigner(key("nobody"))
    with world.logs.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE proposal SET registry = '{\"x\":1}' WHERE state = 'pending'")
    world.work_log()
    with pytest.raises(TufrepoError, match="malformed"):
        world.repository.step()
    repository = Repository(world.parts())
    with pytest.raises(TufrepoError, match="key-unknown"):
        for _ in range(3):
            repository.step()
            world.work_log()
    assert list(world.targets()) == ["files/acme/acme-1.tar.gz"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"unlogged":7}',
        b'{"unlogged":["x"]}',
        b'{"unlogged":["%s","%s"]}' % (b"0" * 64, b"0" * 64),
    ],
)
def test_digests_that_are_none_never_reach_a_proposal(world, monkeypatch, said):
    """What another service answers at the timestamper's address is refused before anything is written."""
    before = world.rows(), world.public.read(TIMESTAMP)
    fetch = world.timestamper.get
    monkeypatch.setattr(
        world.timestamper, "get", lambda url, **o: said if "unlogged" in url else fetch(url, **o)
    )
    with pytest.raises(EvidenceError):
        world.repository._relay.unlogged()
    assert (world.rows(), world.public.read(TIMESTAMP)) == before
    assert json.loads(fetch("http://t/unlogged.json"))["unlogged"]


def test_a_database_from_a_backup_is_refused_in_the_logs_words(world, tmp_path):
    """Whoever starts first after a restore says the same, and has claimed, signed and written nothing."""
    Repository(world.parts())
    world.logs.engine.dispose()
    world.save_database(tmp_path / "backup")
    world.list_file(2)
    world.settle()
    Repository(world.parts())
    world.logs.engine.dispose()
    world.restore_database(tmp_path / "backup")
    before = world.rows(), world.files()
    with pytest.raises(StartRefusedError) as refused:
        Repository(world.parts())
    assert (world.rows(), world.files()) == before
    with pytest.raises(StartRefusedError) as logs:
        world.station().check_start()
    assert str(refused.value) == str(logs.value)
    assert refused.value.exit_code == 7 and "refusals.md" in refused.value.hint
    with db.write(world.engine) as connection:
        connection.execute(db.head.delete())
    with pytest.raises(StartRefusedError, match="the head row at 0"):
        Repository(world.parts())
