"""Starting: whoever knows more than the head row stops the log before it signs a second history."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from countermark.errors import CountermarkError, SignatureError, UsageError
from countermark.tlog.checkpoint import Checkpoint, open_checkpoint
from countermark.tlog.note import Ed25519NoteSigner, Note, NoteSigner, Signature, sign_note
from countermark_server import telemetry
from countermark_server.contradiction import StartRefusedError
from countermark_server.log import publish
from countermark_server.log.sequence import LogError
from countermark_server.log.station import only_sequencer
from countermark_server.log.witnesses import WitnessAheadError, WitnessDisagreesError
from countermark_server.stores.heads import HeadExistsError, HeadLostError
from countermark_server.stores.public import CHECKPOINT
from tests.log_world import NOW, ORIGIN, LogWorld, drain, key

pytestmark = pytest.mark.usefixtures("database")
DATABASE = "database"


@pytest.fixture
def world(tmp_path: Path):
    (tmp_path / "data").mkdir()
    world = LogWorld(tmp_path / "data")
    world.begin()
    grow(world, 2)
    yield world
    world.close()


def grow(world: LogWorld, count: int, first: int = 0) -> None:
    station = world.station()
    station.check_start()
    drain(station)
    for number in range(first, first + count):
        world.upload(number)
    drain(station)
    station.engine.dispose()


def copy(world: LogWorld, names: list[str], to: Path) -> None:
    to.mkdir(exist_ok=True)
    for name in names:
        if name == DATABASE:
            world.save_database(to)
        else:
            shutil.copytree(world.settings.data / name, to / name)


def restore(world: LogWorld, names: list[str], backup: Path) -> None:
    for name in names:
        if name == DATABASE:
            world.restore_database(backup)
        else:
            shutil.rmtree(world.settings.data / name)
            shutil.copytree(backup / name, world.settings.data / name)


def refuses(world: LogWorld, kind: type[BaseException], match: str | None = None) -> None:
    """The start is refused, and nothing was changed or signed by trying."""
    before = world.rows(), world.files()
    station = world.station()
    with pytest.raises(kind, match=match):
        station.check_start()
    station.engine.dispose()
    assert (world.rows(), world.files()) == before


def test_an_old_database_is_refused(world: LogWorld, tmp_path: Path) -> None:
    """The public checkpoint is ahead of a restored head row."""
    copy(world, [DATABASE], tmp_path / "backup")
    grow(world, 2, first=10)
    restore(world, [DATABASE], tmp_path / "backup")
    refuses(world, StartRefusedError, "the public checkpoint is at size 8, the head row at 6")


def test_what_an_old_database_does_not_know_of_is_kept(world: LogWorld, tmp_path: Path, monkeypatch) -> None:
    """A round that was committed and not applied lies in staging: a refused start leaves it to whoever restores."""
    copy(world, [DATABASE], tmp_path / "backup")
    grow(world, 2, first=10)
    station = world.station()
    station.check_start()
    world.upload(30)

    def dies(*_: object) -> None:
        raise OSError("the tiles cannot be written")

    monkeypatch.setattr(station.sequencer, "_apply", dies)
    with pytest.raises(OSError, match="tiles"):
        station.sequencer.round()
    station.engine.dispose()
    restore(world, [DATABASE], tmp_path / "backup")
    refuses(world, StartRefusedError, "the public checkpoint is at size 8, the head row at 6")
    assert [size for size, _ in station.staging.sizes()] == [9]


def test_an_old_copy_of_everything_is_refused_by_the_witness(world: LogWorld, tmp_path: Path) -> None:
    """Database and public tree agree with each other, but the witness remembers more."""
    names = [DATABASE, "public"]
    copy(world, names, tmp_path / "backup")
    grow(world, 2, first=10)
    restore(world, names, tmp_path / "backup")
    refuses(world, WitnessAheadError, "cosigned size 8, our log is at 6")


def test_another_history_of_the_same_size_is_refused(world: LogWorld, tmp_path: Path) -> None:
    """After a rollback beyond what it published, the witness disagrees about the root."""
    names = [DATABASE, "public"]
    copy(world, names, tmp_path / "backup")
    grow(world, 2, first=10)
    restore(world, names, tmp_path / "backup")
    forked = world.station()
    forked.sequencer.load()
    for number in (20, 21):
        world.upload(number)
    while forked.sequencer.round():
        pass
    forked.engine.dispose()
    (world.settings.public / CHECKPOINT).unlink()
    station = world.station()
    with pytest.raises(WitnessDisagreesError):
        station.check_start()


def test_a_public_checkpoint_with_another_root_is_refused(world: LogWorld) -> None:
    """Same size, other root, signed by the log's own keys: somebody else ran this log."""
    note: Note = sign_note(Checkpoint(ORIGIN, 6, b"\7" * 32).text(), world.signers, time=NOW)
    world.public.replace(CHECKPOINT, note.format())
    refuses(world, StartRefusedError, "not a prefix")


def test_a_corrupt_public_checkpoint_is_refused(world: LogWorld) -> None:
    """What can't be opened can't be known to be ours."""
    world.public.replace(CHECKPOINT, b"no checkpoint\n")
    refuses(world, CountermarkError)


def test_a_silent_quorum_is_refused_unless_accepted(world: LogWorld) -> None:
    """Nobody can say that nothing was lost: refuse; `--accept-unwitnessed-start` is the operator's word."""
    world.fetcher.down = True
    refuses(world, StartRefusedError, "too few witnesses")
    world.station().check_start(accept_unwitnessed=True)


def test_a_new_database_under_an_old_name_is_refused_by_the_witness(world: LogWorld) -> None:
    """The log is lost and created again: the witness knows the origin, before anything is signed anew."""
    shutil.rmtree(world.settings.public)
    world.lose_database()
    world.begin()
    refuses(world, WitnessAheadError, "cosigned size 6, our log is at 0")


def test_a_log_is_not_created_twice(world: LogWorld) -> None:
    """`create` on a living log changes nothing."""
    before = world.rows(), world.files()
    with pytest.raises(HeadExistsError):
        world.create()
    assert (world.rows(), world.files()) == before


@pytest.mark.parametrize("name", ["log/tile/0/000.p/6", "log/tile/entries/000.p/6"])
def test_a_flipped_byte_in_the_tree_is_refused(world: LogWorld, name: str) -> None:
    """A damaged tile or entry bundle of the right edge stops the start, and a running log's next round."""
    running = world.station()
    running.check_start()
    path = world.settings.public / name
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(
        bytes([good[0] ^ 1]) + good[1:] if "entries" not in name else good[:9] + b"!" + good[10:]
    )
    refuses(world, CountermarkError)
    world.upload(50)
    before = world.rows(), world.files()
    with pytest.raises(CountermarkError):
        running.sequencer.round()
    assert (world.rows(), world.files()) == before
    path.write_bytes(good)
    grow(world, 0)
    world.check()


def test_a_flipped_byte_in_staging_is_not_signed(world: LogWorld, monkeypatch) -> None:
    """What came back from the disk is not what was written: no signature, no swap."""
    station = world.station()
    station.check_start()
    world.upload(50)
    real = station.staging.put

    def damaged(bundle):
        name = real(bundle)
        path = world.settings.data / "staging" / name
        raw = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        return name

    monkeypatch.setattr(station.staging, "put", damaged)
    before = world.rows()
    with pytest.raises(Exception, match="holds other bytes"):
        station.sequencer.round()
    assert world.rows() == before
    monkeypatch.undo()
    grow(world, 0)
    world.check()


def test_a_missing_staging_bundle_is_refused(world: LogWorld, monkeypatch) -> None:
    """The head names a bundle that is gone before its tiles were written: nothing may go on."""
    station = world.station()
    station.check_start()
    world.upload(50)
    monkeypatch.setattr(station.public, "put_all", lambda files: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        station.sequencer.round()
    for _, name in station.staging.sizes():
        station.staging.drop(name)
    refuses(world, Exception, "missing")


def test_two_sequencers(world: LogWorld) -> None:
    """The second finds the lock; without it, the head row fences whoever is behind."""
    with (
        only_sequencer(world.settings.data / "staging"),
        pytest.raises(UsageError, match="another sequencer"),
        only_sequencer(world.settings.data / "staging"),
    ):
        pass
    one, other = world.station(), world.station()
    one.check_start()
    other.check_start()
    world.upload(50)
    assert one.sequencer.round() == 1
    world.upload(51)
    before = world.rows()
    with pytest.raises((HeadLostError, CountermarkError)):
        other.sequencer.round()
    assert world.rows() == before
    drain(one)
    world.check()


def test_keys_of_another_log_are_refused(world: LogWorld) -> None:
    """The head row's checkpoint must open under the keys of this process."""
    before = world.rows(), world.files()
    world.signers = (Ed25519NoteSigner(ORIGIN, key("stranger")), world.signers[1])
    with pytest.raises(CountermarkError):
        world.station().sequencer.load()
    assert (world.rows(), world.files()) == before


def test_the_station_works_with_its_threads(world: LogWorld) -> None:
    """Uploads proposed while it runs are published; a stop ends it after the round in hand."""
    station = world.station()
    station.check_start()
    stop = threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.001})
    thread.start()
    try:
        ids = [world.upload(number) for number in range(100, 120)]
        for _ in range(2000):
            if all(world.outcome(i).state == "published" for i in ids):
                break
            stop.wait(0.005)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert {world.outcome(i).state for i in ids} == {"published"}
    world.check()


def test_a_missing_quorum_is_counted_in_seconds(world: LogWorld) -> None:
    """The alarm's gauge grows while witnesses are silent, and is 0 again with the next publication."""
    station = world.station()
    station.check_start()
    stop = threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.001})
    thread.start()

    def missing() -> float:
        return telemetry.QUORUM_MISSING._value.get()

    def wait_until(condition: Callable[[], bool]) -> bool:
        return any(condition() or stop.wait(0.01) for _ in range(2000))

    try:
        world.fetcher.down = True
        asked = world.upload(200)
        assert wait_until(lambda: missing() > 0)
        seen = missing()
        assert wait_until(lambda: missing() > seen)
        world.fetcher.down = False
        assert wait_until(lambda: world.outcome(asked).state == "published" and missing() == 0)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_witness_that_is_ahead_stops_the_running_log(world: LogWorld, monkeypatch) -> None:
    """The publisher's finding ends the process, with the witness's sentence."""
    station = world.station()
    station.check_start()
    world.upload(60)

    def ahead(*_: object, **__: object) -> None:
        raise WitnessAheadError("w1 has cosigned size 900")

    monkeypatch.setattr(station.quorum, "cosign", ahead)
    with pytest.raises(WitnessAheadError):
        station.work(threading.Event(), poll_interval=0.001)
    assert world.published_size() == 6
    assert not isinstance(LogError("x"), CountermarkError)  # never retried as a failed round


def test_a_publication_that_could_not_be_told_is_told_at_the_next_try(world: LogWorld, monkeypatch) -> None:
    """The database is locked once, behind the public checkpoint: proposers wait for a retry, not for an hour."""
    station = world.station()
    station.check_start()
    real, failures = station.publisher.settle, [OperationalError("UPDATE proposal", {}, Exception("locked"))]

    def settle(size: int) -> int:
        if failures and size == 7:
            raise failures.pop()
        return real(size)

    monkeypatch.setattr(station.publisher, "settle", settle)
    asked, stop = world.upload(100), threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.001})
    thread.start()
    try:
        for _ in range(600):
            if world.outcome(asked).state == "published":
                break
            stop.wait(0.005)
    finally:
        stop.set()
        thread.join(20)
    assert not failures and world.outcome(asked).state == "published"
    world.check()


def test_a_bundle_that_was_listed_late_is_forgotten_before_it_goes(world: LogWorld, monkeypatch) -> None:
    """An object store may list what is new a little later: the head names no bundle that is dropped."""
    station = world.station()
    station.check_start()
    world.upload(20)
    assert station.sequencer.round() == 1
    late, listed = [iter(())], station.staging.sizes
    monkeypatch.setattr(station.staging, "sizes", lambda: late.pop() if late else listed())
    station.publisher.publish(station.sequencer.checkpoint)
    assert world.head().staging is None
    station.engine.dispose()
    grow(world, 1, first=30)
    world.check()


def test_an_idle_log_is_cosigned_again(world: LogWorld, monkeypatch) -> None:
    """The head does not change, its cosignature's time does."""
    monkeypatch.setattr(publish, "RECOSIGN_SECONDS", 0.05)
    station = world.station()
    station.check_start()
    stop = threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.01})
    thread.start()
    head = world.head()
    try:
        world.clock.now = NOW + 4000
        for _ in range(500):
            if quorum_time(world) == NOW + 4000:
                break
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join(20)
    assert quorum_time(world) == NOW + 4000
    assert (world.head(), world.published_size()) == (head, 6)
    world.check()


def quorum_time(world: LogWorld) -> int:
    raw = world.public.read(CHECKPOINT)
    assert raw is not None
    return open_checkpoint(raw, world.trust.policy, now=None).quorum_time


def test_a_submission_that_moved_by_itself_does_not_stop_the_log(world: LogWorld) -> None:
    """Its row is left where it is; every other entry is told."""
    odd, good = world.upload(70), world.upload(71)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE submission SET state = 'held' WHERE version = '70'")
    station = world.station()
    station.check_start()
    drain(station)
    assert {world.outcome(i).state for i in (odd, good)} == {"published"}
    with world.engine.begin() as connection:
        states = connection.exec_driver_sql("SELECT state FROM submission ORDER BY id").scalars().all()
    assert states[-2:] == ["held", "logged"]


def test_a_false_signature_never_reaches_the_head(world: LogWorld) -> None:
    """A signer that errs (a bit flipped in memory, a broken token) stops the round before the swap."""

    class Erring:
        def __init__(self, real: NoteSigner) -> None:
            self.real, self.name, self.key_id, self.vkey = real, real.name, real.key_id, real.vkey

        def sign(self, text: str, *, time: int) -> Signature:
            line = self.real.sign(text, time=time)
            return Signature(line.name, line.key_id, line.sig[:-1] + bytes([line.sig[-1] ^ 1]))

    for number in (0, 1):
        signers = list(world.signers)
        signers[number] = Erring(signers[number])
        good, world.signers = world.signers, tuple(signers)
        station = world.station()
        world.signers = good
        station.check_start()
        world.upload(80 + number)
        before = world.rows()
        with pytest.raises(SignatureError):
            station.sequencer.round()
        assert world.rows() == before
    grow(world, 0)
    world.check()
