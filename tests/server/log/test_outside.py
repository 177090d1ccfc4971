"""What goes wrong around the log: its clock, its disk, its witnesses, and backups that somebody puts back.

Each ends with one consistent log, or with a refusal that says what to do; never with a second history.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from countermark.errors import NetworkError
from countermark.fetch import Answer
from countermark.tlog.cosignature import Ed25519CosignatureSigner
from countermark_server import db, proposal
from countermark_server.contradiction import StartRefusedError
from countermark_server.log.publish import NoQuorumError
from countermark_server.log.sequence import LogError
from countermark_server.log.station import Station
from countermark_server.log.witnesses import WitnessAheadError, WitnessDisagreesError
from tests.log_world import NOW, LogWorld, drain, key

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def world(either_backend: str, tmp_path: Path):
    world = LogWorld(tmp_path)
    world.begin()
    grow(world, range(2))
    yield world
    world.close()


def started(world: LogWorld) -> Station:
    station = world.station()
    station.check_start()
    return station


def grow(world: LogWorld, numbers: range) -> None:
    station = started(world)
    drain(station)
    for number in numbers:
        world.upload(number)
    drain(station)
    station.engine.dispose()


def state(world: LogWorld) -> tuple[object, object]:
    return world.rows(), world.files()


# --- backups that were put back ---------------------------------------------------------------------------

DATABASE, PUBLIC, STAGING = "database", "public", "staging"
OLDER_DATABASE = (StartRefusedError, "the public checkpoint is at size 9, the head row at 6")
OLDER_STORE = (LogError, r"tile/.* is missing from the public tree: the store is older than the database")
WITNESS_REMEMBERS = (WitnessAheadError, "has cosigned size 9, our log is at 6")


@pytest.mark.parametrize(
    ("restored", "refusal"),
    [
        ([DATABASE], OLDER_DATABASE),
        ([DATABASE, STAGING], OLDER_DATABASE),
        ([PUBLIC], OLDER_STORE),
        ([PUBLIC, STAGING], OLDER_STORE),
        ([DATABASE, PUBLIC, STAGING], WITNESS_REMEMBERS),
    ],
    ids=["database", "database and staging", "public", "public and staging", "the whole machine"],
)
def test_a_backup_that_was_put_back_is_refused(
    world: LogWorld, tmp_path: Path, restored: list[str], refusal: tuple[type[Exception], str]
) -> None:
    """Yesterday's database, yesterday's store, or both: the start says which, and nothing was changed or signed."""
    world.save_database(tmp_path / "backup")
    stores = {name: world.save_store(name) for name in (PUBLIC, STAGING)}
    grow(world, range(10, 13))
    today = world.save_store(PUBLIC)
    if DATABASE in restored:
        world.restore_database(tmp_path / "backup")
    for name in set(restored) - {DATABASE}:
        world.restore_store(name, stores[name])
    before, seen = state(world), len(world.fetcher.seen)
    station = world.station()
    with pytest.raises(refusal[0], match=refusal[1]):
        station.check_start()
    station.engine.dispose()
    assert state(world) == before
    if refusal is not WITNESS_REMEMBERS:
        assert len(world.fetcher.seen) == seen, "a witness was asked to cosign"
    if refusal is OLDER_STORE:  # what the page says helps, helps
        world.restore_store(PUBLIC, today)
        grow(world, range(20, 22))
        world.check()


def test_a_hole_behind_an_old_public_checkpoint_is_refused(either_backend: str, tmp_path: Path) -> None:
    """Yesterday's store, and a last round whose bundle brings the right edge back: what lies between is missed."""
    world = LogWorld(tmp_path, raw_add=True)
    world.create()
    station = started(world)
    raw(world, range(256))
    drain(station)
    yesterday = world.save_store(PUBLIC)
    raw(world, range(256, 600))
    drain(station)
    today = world.save_store(PUBLIC)
    raw(world, range(600, 800))
    assert station.sequencer.round() == 200
    station.engine.dispose()
    world.restore_store(PUBLIC, yesterday)
    again = world.station()
    with pytest.raises(LogError, match=OLDER_STORE[1]):
        again.check_start()
    again.engine.dispose()
    world.restore_store(PUBLIC, today)
    last = started(world)
    drain(last)
    last.engine.dispose()
    world.check()
    world.close()


def raw(world: LogWorld, numbers: range) -> None:
    with db.write(world.engine) as connection:
        proposal.propose_raw(connection, [b"%d" % number for number in numbers], now=NOW)


@pytest.mark.parametrize("grown", [False, True], ids=["and left", "and gone on from elsewhere"])
def test_a_backup_put_back_beneath_a_running_log_ends_it(
    world: LogWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grown: bool
) -> None:
    """Its connection breaks and it loads anew: what it finds must extend what it knew, or nothing more is signed."""
    stores = {name: world.save_store(name) for name in (PUBLIC, STAGING)}
    world.save_database(tmp_path / "backup")
    running = started(world)
    for number in range(10, 13):
        world.upload(number)
    assert running._round()
    drain(running)
    running.engine.dispose()
    world.restore_database(tmp_path / "backup")
    if grown:
        cosigner = Ed25519CosignatureSigner("witness.test/w1", key("witness"))
        known, world.fetcher = world.fetcher, world._own_witness(tmp_path / "forgetful.sqlite", cosigner)
        for name, files in stores.items():
            world.restore_store(name, files)
        grow(world, range(20, 25))
        world.fetcher = known
    before, seen = state(world), len(world.fetcher.seen)

    def broken() -> int:
        raise OSError("the connection was lost")

    monkeypatch.setattr(running.sequencer, "round", broken)
    told = "not a prefix of our head" if grown else "head row went back from size 9 to 6 while the log ran"
    with pytest.raises(StartRefusedError, match=told):
        running._round()
    running.engine.dispose()
    assert state(world) == before
    assert len(world.fetcher.seen) == seen, "a witness was asked to cosign"


def test_a_witness_that_was_asked_for_more_is_not_asked_for_less(world: LogWorld, tmp_path: Path) -> None:
    station = started(world)
    older = station.sequencer.checkpoint
    world.upload(10)
    drain(station)
    seen = len(world.fetcher.seen)
    with pytest.raises(WitnessAheadError, match="has cosigned size 7, our log went back to 6"):
        station.publisher.cosigned(older)
    station.engine.dispose()
    assert len(world.fetcher.seen) == seen


# --- witnesses --------------------------------------------------------------------------------------------


def signed(world: LogWorld, *, name: str = "witness.test/w1", seed: str = "witness", at: int = NOW) -> bytes:
    line = Ed25519CosignatureSigner(name, key(seed)).sign(
        world.head().body.partition("\n\n")[0] + "\n", time=at
    )
    return line.format().encode()


def other_root(world: LogWorld) -> bytes:
    text = "log.example.com/registry\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    return Ed25519CosignatureSigner("witness.test/w1", key("witness")).sign(text, time=NOW).format().encode()


LIES: dict[str, tuple[Callable[[LogWorld], Answer], type[Exception]]] = {
    "overloaded": (lambda _: Answer(503, "", {}, b""), NoQuorumError),
    "knows no such log": (lambda _: Answer(404, "", {}, b""), NoQuorumError),
    "says yes and nothing": (lambda _: Answer(200, "", {}, b""), NoQuorumError),
    "signs another root": (lambda world: Answer(200, "", {}, other_root(world)), NoQuorumError),
    "signs falsely": (lambda world: Answer(200, "", {}, signed(world, seed="other")), NoQuorumError),
    "signs with other keys": (
        lambda world: Answer(200, "", {}, signed(world, name="witness.test/w2", seed="w2")),
        NoQuorumError,
    ),
    "signs tomorrow": (lambda world: Answer(200, "", {}, signed(world, at=NOW + 86_400)), NoQuorumError),
    "conflicts without a size": (lambda _: Answer(409, "", {}, b"no"), NoQuorumError),
    "knows a larger size": (lambda _: Answer(409, "", {}, b"1000\n"), WitnessAheadError),
    "knows another history": (lambda _: Answer(422, "", {}, b"no"), WitnessDisagreesError),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_witness_makes_nothing_public(world: LogWorld, lie: str) -> None:
    """Refused for now, or fatal; what was sequenced waits, nobody is told, and the truth later goes on from there."""
    make, error = LIES[lie]
    station = started(world)
    number = world.upload(50)
    assert station.sequencer.round() == 1
    world.fetcher.answers = [make(world)] * 4
    before = state(world)
    with pytest.raises(error):
        station.publisher.publish(station.sequencer.checkpoint)
    assert state(world) == before
    assert world.outcome(number).state == "sequenced"
    world.fetcher.answers = [make(world)] * 4
    other = world.station()
    with pytest.raises(StartRefusedError if error is NoQuorumError else error):
        other.check_start()
    other.engine.dispose()
    assert state(world) == before
    world.fetcher.answers = []
    drain(station)
    assert world.outcome(number).state == "published"
    world.check()
    station.engine.dispose()


def test_a_dead_witness_makes_nothing_public(world: LogWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there, or slower than the log waits: the same as no quorum, until it is back."""
    station = started(world)
    number = world.upload(50)
    station.sequencer.round()
    before = state(world)
    for sentence in ("connection refused", "no answer within 5 s"):

        def post(*_: object, sentence: str = sentence, **__: object) -> Answer:
            raise NetworkError(sentence)

        with monkeypatch.context() as patch:
            patch.setattr(world.fetcher, "post", post)
            with pytest.raises(NoQuorumError, match=sentence):
                station.publisher.publish(station.sequencer.checkpoint)
        assert state(world) == before
    drain(station)
    assert world.outcome(number).state == "published"
    world.check()
    station.engine.dispose()


# --- clock and disk ---------------------------------------------------------------------------------------


def test_a_clock_that_went_back_publishes_nothing_it_cannot_open(world: LogWorld) -> None:
    """The witness's time is then in the future: no quorum, and entries keep the later time; set right, it goes on."""
    station = started(world)
    witness, world.clock.now = world.clock.now, NOW - 86_400
    real = world.fetcher.witness._clock
    world.fetcher.witness._clock = lambda: int(witness)
    number = world.upload(50)
    assert station.sequencer.round() == 1
    before = state(world)
    with pytest.raises(NoQuorumError):
        station.publisher.publish(station.sequencer.checkpoint)
    assert state(world) == before
    world.clock.now, world.fetcher.witness._clock = NOW + 1, real
    drain(station)
    assert world.outcome(number).state == "published"
    world.check()
    station.engine.dispose()


def test_a_full_disk_stops_the_log_and_harms_nothing(tmp_path: Path) -> None:
    """On a small file system, filled to the last byte: no round, nothing told; with room again it goes on."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.full_disk"]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.split()
    assert said[0] == "full" and int(said[1]) > 0 and said[2:] == ["sound", "again", "sound"], done.stdout
