"""A clock that leaps ahead stops rounds and publications while it is wrong, and never the log.

In these worlds the wall clock (`world.clock`) and the seconds that elapse (`world.elapsed`) are set apart. The
witness is on the log's machine and reads the same wall clock, or somebody else's and reads the right time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from structlog.testing import capture_logs

from countermark.entry import Entry
from countermark.manifest import ZERO_NONCE, Line, format_manifest, predicate
from countermark.statement import Statement, sign
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.cosignature import MlDsaSigner, check_signature
from countermark.tlog.note import Ed25519NoteSigner, Note
from countermark_server import db, proposal, telemetry
from countermark_server.log import publish
from countermark_server.log.clockwatch import LASTING, LEAD, ClockLeaptError, ClockWatch, seconds_elapsed
from countermark_server.log.publish import NoQuorumError
from countermark_server.log.station import Station
from countermark_server.log.tree import public_tree
from countermark_server.stores import places
from countermark_server.stores.public import CHECKPOINT
from tests.log_world import NOW, ORIGIN, Clock, LogWorld, drain, key

YEAR = 365 * 86_400
LEAPT = "the clock has leapt ahead: nothing is sequenced or published"
AGREES, DISAGREES = "the quorum agrees with the clock", "the quorum disagrees with the clock"
BACK = "the clock is right again"


class LeapWorld(LogWorld):
    """A log whose wall clock can be set without that any time passes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.elapsed = Clock(0.0)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.elapsed.now += seconds

    def right_time(self) -> int:
        return int(NOW + self.elapsed.now)

    def take_foreign_witness(self) -> None:
        """From now on the witness reads the right time, whatever our clock says."""
        self.fetcher.witness._clock = self.right_time

    def started(self) -> Station:
        station = self.station()
        station.check_start()
        return station

    def state(self) -> tuple[object, object, int]:
        """All that can be written or sent: rows, files, what the witness was shown."""
        return self.rows(), self.files(), len(self.fetcher.seen)

    def entries(self) -> list[Entry]:
        station = self.station()
        head = station.sequencer.load()
        tree = public_tree(self.public)
        raws = tree.entries(0, head.size, tree.reader(head.size, head.root_hash))
        station.engine.dispose()
        return [Entry.parse(raw) for raw in raws]

    def newest_time(self) -> int:
        """Of anything that was signed: entries, the head, the public checkpoint, what the witness was shown."""
        times = [entry.time for entry in self.entries()]
        keys = {signer.key_id: signer.vkey for signer in self.signers}
        keys |= {witness.key.key_id: witness.key for witness in self.trust.policy.witnesses}
        raw = self.public.read(CHECKPOINT)
        assert raw is not None
        for note in map(Note.parse, [*self.fetcher.seen, self.head().body.encode(), raw]):
            times += [
                check_signature(keys[line.key_id], note.text, line.sig) or 0 for line in note.signatures
            ]
        return max(times)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LeapWorld]:
    world = LeapWorld(tmp_path)
    world.begin()
    station = world.started()
    drain(station)
    station.engine.dispose()
    yield world
    world.close()


def quorum_time(world: LogWorld) -> int:
    raw = world.public.read(CHECKPOINT)
    assert raw is not None
    return open_checkpoint(raw, world.trust.policy, now=None).quorum_time


def refuses(world: LeapWorld, station: Station) -> None:
    """No round, no publication, no question to a witness."""
    before = world.state()
    assert station._round(), "there is something to do, later"
    for step in (
        station.sequencer.round,
        lambda: station.publisher.publish(station.sequencer.checkpoint),
    ):
        with pytest.raises(ClockLeaptError):
            step()
    assert world.state() == before


# --- a leap that does not last --------------------------------------------------------------------------


def test_a_clock_that_leaps_for_a_moment_costs_that_moment(world: LeapWorld) -> None:
    """A year ahead and back: the next round goes on at once, and nothing says a time that never was."""
    station = world.started()
    first = world.upload(1)
    world.clock.now += YEAR
    refuses(world, station)
    world.pass_time(10)
    world.clock.now -= YEAR
    drain(station)
    second = world.upload(2)
    drain(station)
    assert {world.outcome(number).state for number in (first, second)} == {"published"}
    assert world.newest_time() == NOW + 10 == quorum_time(world)
    world.check()
    station.engine.dispose()


@pytest.mark.parametrize("span", [1, 2, 3])
def test_whichever_look_at_the_clock_it_is_that_leaps(world: LeapWorld, span: int) -> None:
    """One reading after the other, ours or the witness's: none makes anything say a time that never was."""
    station, glitch = world.started(), -1
    while True:
        glitch += 1
        asked = world.upload(glitch)
        readings = [0]

        def reading(leaping: range = range(glitch, glitch + span), readings: list[int] = readings) -> float:
            readings[0] += 1
            return world.clock.now + (YEAR if readings[0] - 1 in leaping else 0)

        station.clockwatch._wall = reading
        world.fetcher.witness._clock = lambda reading=reading: int(reading())
        for _ in range(span + 3):
            try:
                drain(station)
            except (ClockLeaptError, NoQuorumError):
                continue
            break
        assert world.outcome(asked).state == "published", glitch
        world.pass_time(1)
        if readings[0] <= glitch:
            break
    assert glitch >= 5, "a round, before and after the witness, the witness, and the rows"
    assert world.newest_time() <= world.right_time()
    with db.read(world.engine) as connection:
        rows = connection.execute(db.submission.select()).mappings().all()
    assert max(row["state_since"] for row in rows) <= world.right_time() + LEAD
    world.check()
    station.engine.dispose()


def test_less_than_five_minutes_is_no_leap(world: LeapWorld) -> None:
    """A step or a drift that every verifier bears is taken as it is."""
    station, ahead = world.started(), int(LEAD) - 1
    world.clock.now += ahead
    asked = world.upload(1)
    drain(station)
    assert world.outcome(asked).state == "published"
    assert quorum_time(world) == world.newest_time() == NOW + ahead
    world.check()
    station.engine.dispose()


def test_time_that_passes_is_no_leap(world: LeapWorld) -> None:
    """Three days of a suspended machine, which its other clock has counted."""
    station = world.started()
    world.pass_time(3 * 86_400)
    asked = world.upload(1)
    drain(station)
    assert world.outcome(asked).state == "published"
    assert world.newest_time() == NOW + 3 * 86_400
    station.engine.dispose()


def test_a_clock_that_goes_back_is_no_leap(world: LeapWorld) -> None:
    """Entries keep the later time, and what is right again is not ahead."""
    station = world.started()
    world.pass_time(20)
    first = world.upload(1)
    drain(station)
    world.clock.now -= 10
    second = world.upload(2)
    drain(station)
    world.clock.now += 15
    third = world.upload(3)
    drain(station)
    assert {world.outcome(number).state for number in (first, second, third)} == {"published"}
    assert [entry.time - NOW for entry in world.entries()[4:]] == [20, 20, 25]
    station.engine.dispose()


# --- a leap that lasts ------------------------------------------------------------------------------------


def test_with_the_own_witness_a_leap_is_believed_after_a_minute(world: LeapWorld) -> None:
    """Not before, and the witness is not asked before; then it goes on with the clock's time."""
    station = world.started()
    asked = world.upload(1)
    world.clock.now += YEAR
    with capture_logs() as lines:
        for _ in range(int(LASTING)):
            assert station._has_clock_leapt()
            refuses(world, station)
            world.pass_time(1)
        assert telemetry.CLOCK_LEAPT._value.get() == LASTING - 1
        shown = len(world.fetcher.seen)
        assert not station._has_clock_leapt()
    assert len(world.fetcher.seen) == shown + 1
    assert [line["event"] for line in lines] == [LEAPT, AGREES]
    assert telemetry.CLOCK_LEAPT._value.get() == 0
    drain(station)
    assert world.outcome(asked).state == "published"
    assert world.newest_time() == quorum_time(world) == NOW + YEAR + int(LASTING)
    world.check()
    station.engine.dispose()


def test_a_foreign_witness_never_believes_a_wrong_clock(world: LeapWorld) -> None:
    """It is asked once a minute, for an hour: nothing is signed or published, and then the clock is put right."""
    station = world.started()
    world.take_foreign_witness()
    world.upload(1)
    before, shown = world.state()[:2], len(world.fetcher.seen)
    world.clock.now += 2 * LEAD
    with capture_logs() as lines:
        for _ in range(360):
            assert station._has_clock_leapt()
            refuses(world, station)
            world.pass_time(10)
        assert telemetry.CLOCK_LEAPT._value.get() >= 3590
        world.clock.now -= 2 * LEAD
        assert not station._has_clock_leapt()
    assert [line["event"] for line in lines] == [LEAPT, DISAGREES, BACK]
    assert len(world.fetcher.seen) == shown + 59
    assert len(set(world.fetcher.seen[shown:])) == 1, "the head that was there already"
    assert world.state()[:2] == before
    drain(station)
    assert world.published_size() == 5 and world.newest_time() == world.right_time()
    world.check()
    station.engine.dispose()


def test_a_clock_that_was_behind_is_believed_by_a_foreign_witness(world: LeapWorld) -> None:
    """Four hours late, and put right: no restart, a minute's pause."""
    station, paused = world.started(), 4 * 3600  # the machine: both its clocks stood still, not the witness's
    world.fetcher.witness._clock = lambda: world.right_time() + paused
    asked = world.upload(1)
    world.clock.now += paused
    assert station._has_clock_leapt()
    refuses(world, station)
    world.pass_time(LASTING)
    assert not station._has_clock_leapt()
    drain(station)
    assert world.outcome(asked).state == "published"
    assert world.newest_time() == world.right_time() + paused
    station.engine.dispose()


def test_a_silent_quorum_believes_nothing(world: LeapWorld) -> None:
    """A lasting leap that nobody can be asked about goes on, and is asked about again a minute later."""
    station = world.started()
    world.fetcher.down = True
    world.clock.now += YEAR
    assert station._has_clock_leapt()
    world.pass_time(LASTING)
    assert station._has_clock_leapt()
    world.fetcher.down = False
    world.pass_time(LASTING - 1)
    assert station._has_clock_leapt()
    world.pass_time(1)
    assert not station._has_clock_leapt()
    station.engine.dispose()


# --- at the start -----------------------------------------------------------------------------------------


def test_at_the_start_the_witnesses_say_what_time_it_is(world: LeapWorld) -> None:
    """A clock that has leapt before: the log starts, does nothing, and goes on when it is right."""
    world.take_foreign_witness()
    asked = world.upload(1)
    world.clock.now += YEAR
    station = world.started()
    refuses(world, station)
    shown = len(world.fetcher.seen)
    world.pass_time(LASTING)
    assert station._has_clock_leapt() and len(world.fetcher.seen) == shown + 1
    refuses(world, station)
    world.clock.now -= YEAR
    drain(station)
    assert world.outcome(asked).state == "published" and world.newest_time() == world.right_time()
    world.check()
    station.engine.dispose()


def test_an_accepted_start_takes_the_clock_as_it_is(world: LeapWorld) -> None:
    """Nobody else is there to say what time it is; from then on it is watched."""
    world.fetcher.down = True
    station = world.station()
    station.check_start(accept_unwitnessed=True)
    world.upload(1)
    assert station.sequencer.round() == 1
    world.upload(2)
    world.clock.now += YEAR
    refuses(world, station)
    station.engine.dispose()


def test_a_key_set_that_is_added_signs_as_of_the_newest_entry(world: LeapWorld) -> None:
    """What a start signs anew says no time of the clock, which nobody has vouched for yet."""
    added = (
        Ed25519NoteSigner(ORIGIN, key("next log")),
        MlDsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(b"\2" * 32)),
    )
    world.signers = (*world.signers, *added)  # type: ignore[assignment]
    world.clock.now += YEAR
    station = world.station()
    head = station.sequencer.load()
    keys = {signer.key_id: signer.vkey for signer in world.signers}
    times = [check_signature(keys[line.key_id], head.text(), line.sig) for line in head.log_signatures]
    assert times == [None, NOW, None, NOW]
    station.engine.dispose()


# --- imports, raw logs, idle logs ---------------------------------------------------------------------------


def test_an_import_waits_while_the_clock_is_wrong(world: LeapWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two rounds of its lines."""
    monkeypatch.setattr("countermark_server.log.sequence.LINES_PER_ROUND", 2)
    lines = [Line("old", str(n), f"old-{n}.tar.gz", f"{n:064x}", 10) for n in range(1, 8)]
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest(lines))
    statement = predicate(lines, origin=ORIGIN, prev=None, source="old.example")
    about = Statement.about(f"import:{statement['manifest_sha256']}", "import", statement)
    world.propose("import", sign(about, world.roles["registry"]).to_dict())
    station = world.started()
    assert station.sequencer.round() == 3 and station.sequencer.importing
    world.clock.now += YEAR
    refuses(world, station)
    world.clock.now -= YEAR
    drain(station)
    found = world.entries()
    assert [entry.imported.line for entry in found if entry.imported is not None] == lines
    assert world.newest_time() == NOW
    station.engine.dispose()


def test_a_raw_log_waits_while_the_clock_is_wrong(tmp_path: Path) -> None:
    """Its leaves carry no time, its checkpoints do."""
    world = LeapWorld(tmp_path, raw_add=True)
    world.create()
    station = world.started()
    with db.write(world.engine) as connection:
        proposal.propose_raw(connection, [b"leaf"], now=NOW)
    world.clock.now += YEAR
    refuses(world, station)
    world.clock.now -= YEAR
    drain(station)
    assert world.published_size() == 1 and quorum_time(world) == NOW
    world.check()
    station.engine.dispose()
    world.close()


@contextmanager
def working(world: LogWorld, station: Station) -> Iterator[Callable[[Callable[[], object]], bool]]:
    """The station at work in a thread; what is yielded waits until something is so."""
    stop = threading.Event()
    thread = threading.Thread(target=station.work, args=(stop,), kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield lambda condition: any(condition() or stop.wait(0.01) for _ in range(2000))
    finally:
        stop.set()
        thread.join(20)
        station.engine.dispose()
    assert not thread.is_alive()


def test_an_idle_log_is_not_cosigned_while_the_clock_is_wrong(
    world: LeapWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour is over, several times; the public checkpoint stays, until the clock is right."""
    monkeypatch.setattr(publish, "RECOSIGN_SECONDS", 0.01)
    monkeypatch.setattr(publish, "RETRY_SECONDS", 0.01)
    station, refused = world.started(), list[int]()
    real = station.publisher.publish

    def counted(checkpoint: Any) -> Any:
        try:
            return real(checkpoint)
        except ClockLeaptError:
            refused.append(len(world.fetcher.seen))
            raise

    monkeypatch.setattr(station.publisher, "publish", counted)
    world.clock.now += YEAR
    with working(world, station) as wait_until:
        assert wait_until(lambda: len(refused) > 5)
        assert refused[0] == refused[-1] == len(world.fetcher.seen), "a witness was asked"
        assert quorum_time(world) == NOW
        world.clock.now = NOW + 30
        assert wait_until(lambda: quorum_time(world) == NOW + 30)
    world.check()


def test_a_working_log_goes_on_by_itself(world: LeapWorld) -> None:
    """With its threads: uploads wait for a clock that comes back, and for one that is believed; said once each."""
    station = world.started()
    with capture_logs() as lines, working(world, station) as wait_until:
        for when in ("comes back", "is believed"):
            world.clock.now += YEAR
            asked = world.upload(len(when))
            assert wait_until(lambda: telemetry.CLOCK_LEAPT._value.get() or station.clockwatch.has_leapt())
            assert not wait_until_soon(lambda asked=asked: world.outcome(asked).state != "pending")
            if when == "comes back":
                world.clock.now -= YEAR
            else:
                world.elapsed.now += LASTING
            assert wait_until(lambda asked=asked: world.outcome(asked).state == "published")
    said = [line["event"] for line in lines if line["log_level"] in ("warning", "error")]
    assert said == [LEAPT, BACK, LEAPT, AGREES]
    world.check()


def wait_until_soon(condition: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(20))


# --- the watch alone ----------------------------------------------------------------------------------------


class Watched:
    """A watch over two clocks that are set by hand."""

    def __init__(self) -> None:
        self.wall, self.elapsed = Clock(1_000_000.0), Clock(500.0)
        self.watch = ClockWatch(self.wall, self.elapsed)


def test_the_bound_is_five_minutes_from_the_quorum_time() -> None:
    """Not from our own clock: at the bound it is believed, a moment beyond it has leapt."""
    both = Watched()
    both.watch.begin(1_000_000 - 100)
    both.wall.now += LEAD - 100
    assert not both.watch.has_leapt() and both.watch.now() == both.wall.now
    both.wall.now += 0.5
    assert both.watch.has_leapt() and both.watch.nearest() == 1_000_000 - 100
    both.elapsed.now += 0.5
    assert not both.watch.has_leapt()


def test_a_quorum_that_is_late_does_not_stop_a_clock_that_is_right() -> None:
    """Slow witnesses made the quorum this once: what was vouched for before still counts."""
    both = Watched()
    both.watch.begin(1_000_000)
    both.watch.vouch(1_000_000 - 2 * int(LEAD))
    assert not both.watch.has_leapt()
    both.wall.now += LEAD + 1
    assert both.watch.has_leapt()


def test_a_cosignature_during_a_leap_moves_nothing() -> None:
    """It was asked for before; only what is asked for after a minute counts."""
    both = Watched()
    both.watch.begin(1_000_000)
    both.wall.now += YEAR
    both.watch.vouch(1_000_000 + YEAR)
    assert both.watch.has_leapt() and not both.watch.is_to_be_asked()


def test_a_leap_that_leaps_on_begins_its_minute_anew() -> None:
    """What is believed is a clock that has gone on from where it leapt to."""
    both = Watched()
    both.watch.begin(1_000_000)
    both.wall.now += YEAR
    assert both.watch.has_leapt()
    both.wall.now, both.elapsed.now = both.wall.now + YEAR, both.elapsed.now + LASTING
    assert not both.watch.is_to_be_asked()
    both.wall.now, both.elapsed.now = both.wall.now + LASTING, both.elapsed.now + LASTING
    assert both.watch.is_to_be_asked() and not both.watch.is_to_be_asked()


def test_an_answer_after_the_leap_is_over_changes_nothing() -> None:
    """The clock came back while the quorum was asked, and our own witness answered with the leap's time."""
    both = Watched()
    both.watch.begin(1_000_000)
    both.wall.now += YEAR
    assert both.watch.has_leapt()
    both.wall.now -= YEAR
    both.watch.hear(1_000_000 + YEAR)
    both.wall.now += LEAD + 1
    assert both.watch.has_leapt()


def test_a_log_without_a_quorum_watches_its_own_clock() -> None:
    """`quorum none`: no cosignature states a time; what it does is what one own witness does."""
    both = Watched()
    both.watch.begin(0)
    both.watch.vouch(0)
    assert not both.watch.has_leapt()
    both.wall.now += YEAR
    assert both.watch.has_leapt()
    both.wall.now, both.elapsed.now = both.wall.now + LASTING, both.elapsed.now + LASTING
    assert both.watch.is_to_be_asked()
    both.watch.hear(0)
    assert not both.watch.has_leapt()


def test_the_elapsed_clock_goes_on() -> None:
    """The real one: seconds, and never back."""
    before = seconds_elapsed()
    assert 0 <= seconds_elapsed() - before < 60
