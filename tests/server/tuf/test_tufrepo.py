"""tufrepo lists what the log demands, whatever interrupts it, and stock TUF clients can use the result."""

import contextlib
import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select
from tuf.ngclient import Updater

from countermark.entry import Entry
from countermark_server import db
from countermark_server.journey import State
from countermark_server.stores.public import CANDIDATE, TIMESTAMP, Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.renewing import TufrepoError
from tests.tuf_registry import BIT_LENGTH, TufRegistry

pytestmark = pytest.mark.usefixtures("database")

DURABLE_STEPS = 8  # of `played`, below


@pytest.fixture
def world(tmp_path):
    """A registry after genesis."""
    world = TufRegistry(tmp_path)
    world.settle()
    world.check()
    return world


def tuf_entries(world):
    return [entry for entry in map(Entry.parse, world.entries()) if entry.type == "tuf"]


def test_genesis_puts_four_entries_and_empty_bins_into_the_first_checkpoint(world):
    """Role keys, then the `tuf` entry of version 1, applied 3; timestamp 1 over them."""
    kinds = [Entry.parse(raw).type for raw in world.entries()]
    assert kinds == ["key-enroll"] * 3 + ["tuf"]
    predicate = tuf_entries(world)[0].statement.predicate
    assert predicate["applied"] == 3 and predicate["bins_old"] is None
    assert {predicate[role]["version"] for role in ("root", "targets", "trust", "index", "snapshot")} == {1}
    carried = world.timestamp()
    assert (carried.version, carried.size, carried.applied, carried.bit_length) == (1, 4, 3, BIT_LENGTH)
    assert world.targets() == {}


def test_a_cleared_file_is_listed_and_its_submission_ends_its_journey(world):
    """From verdict to target to `listed`."""
    number = world.list_file(1)
    assert world.state_of(number) == State.CLEARED
    world.settle()
    world.check()
    assert list(world.targets()) == ["files/acme/acme-1.tar.gz"]
    assert world.state_of(number) == State.LISTED


def test_a_takedown_unlists_at_the_next_publish(world):
    """And a submission that was overtaken by a hold goes to the moderators instead."""
    world.list_file(1)
    world.settle()
    second = world.list_file(2)
    world.decide("takedown", 1)
    world.decide("hold", 2)
    world.work_log()
    world.settle()
    world.check()
    assert world.targets() == {} and world.state_of(second) == State.HELD


def test_a_blocked_file_moves_applied_and_changes_no_bin(world):
    """A status entry without effect on the listing still has to be applied: no snapshot, one small entry."""
    before = world.timestamp()
    world.list_file(1, tier="block")
    world.settle()
    world.check()
    predicate = tuf_entries(world)[-1].statement.predicate
    assert predicate["snapshot"] is None and predicate["changed_sha256"] is None
    assert world.timestamp().applied > before.applied and world.timestamp().bins_root == before.bins_root


def test_tuf_and_publish_entries_alone_trigger_nothing(world):
    """An upload waiting for its verdict, and our own entries, leave the listing as it is."""
    world.upload(1)
    world.settle()
    assert world.timestamp().version == 1 and len(tuf_entries(world)) == 1
    world.check()


def test_every_timestamp_is_logged_by_the_next_publish(world):
    """The digests stand in the `tuf` entries, each once, in order."""
    for number in (1, 2, 3):
        world.list_file(number)
        world.settle()
    logged = [digest for entry in tuf_entries(world) for digest in entry.statement.predicate["timestamps"]]
    assert len(logged) == 3 and world.store.unlogged() == [world.store.newest().sha256]


def test_the_heartbeat_comes_hourly_and_appends_one_entry(world):
    """An idle hour: one `tuf` entry without snapshot, one timestamp."""
    world.clock.now += 3599
    world.settle()
    assert world.timestamp().version == 1
    world.clock.now += 1
    world.settle()
    assert world.timestamp().version == 2 and len(tuf_entries(world)) == 2
    assert tuf_entries(world)[-1].statement.predicate["snapshot"] is None
    world.check()


def test_expiring_metadata_is_renewed_with_a_heartbeat(world):
    """Snapshot within a week, bins within a month, without any upload."""
    versions = set()
    for _ in range(24):
        world.clock.now += 24 * 3600 + 1
        world.logs.publisher.publish(world.logs.sequencer.checkpoint)  # the hourly cosignature
        world.settle()
        world.check()
        for number in range(1 << BIT_LENGTH):
            versions |= {path.name for path in (world.settings.public / "tuf").glob(f"2.bins-{number}.json")}
    assert len(versions) == 1 << BIT_LENGTH
    expires = json.loads(world.public.read(TIMESTAMP))["signed"]["meta"]["snapshot.json"]["version"]
    assert expires > 3


def test_publishes_keep_their_distance(tmp_path):
    """`tuf.min_interval` seconds between two, and what waited is published together."""
    world = TufRegistry(tmp_path, min_interval=5.0)
    world.settle()
    for number in (1, 2):
        world.list_file(number)
        world.settle()
    assert len(tuf_entries(world)) == 1
    world.clock.now += 5
    world.settle()
    assert len(tuf_entries(world)) == 2 and len(world.targets()) == 2
    world.check()


def test_without_the_timestamper_nothing_is_published_and_nothing_lost(world):
    """Its silence delays, no more."""
    world.timestamper.down = True
    number = world.list_file(1)
    for _ in range(10):
        world.repository.step()
        world.work_log()
    assert world.targets() == {} and world.state_of(number) == State.CLEARED
    world.timestamper.down = False
    world.clock.now += 1
    world.settle()
    world.check()
    assert world.state_of(number) == State.LISTED


def test_a_timestamp_carried_again_meanwhile_is_logged_by_a_second_entry(world):
    """The timestamper signed once more while our entry was on its way: the candidate is superseded."""
    number = world.list_file(1)
    world.repository.step()  # proposes, logging the timestamps signed so far
    signed = world.judge.attempt(now=int(world.clock()), recarry=True)
    world.service._serve_newest()
    assert signed is not None
    for _ in range(12):
        world.repository.step()
        # Before the public timestamp lists it, its submission is not listed either.
        assert (world.state_of(number) == State.LISTED) == bool(world.targets())
        world.work_log()
        world.clock.now += 3
        world.service.step()
        world.restart()  # whatever was only in memory is forgotten, again and again
    world.settle()
    world.check()
    with db.read(world.engine) as connection:
        states = [row.state for row in connection.execute(select(db.tuf_candidate))]
    assert states == [store.TIMESTAMPED, store.SUPERSEDED, store.TIMESTAMPED]
    assert list(world.targets()) == ["files/acme/acme-1.tar.gz"]


def test_an_entry_the_log_refuses_stops_the_room(world):
    """Going on would be guessing; the message says what the log said."""
    world.list_file(1)
    world.repository.step()
    with db.write(world.engine) as connection:
        refusal = {"state": "refused", "refusal_code": "bins", "refusal": "no"}
        connection.execute(db.proposal.update().where(db.proposal.c.type == "tuf").values(**refusal))
    with pytest.raises(TufrepoError, match="refused our tuf entry tuf:2: bins: no"):
        world.repository.step()
    assert world.targets() == {}


def test_a_timestamp_of_other_metadata_is_not_copied(world):
    """The relay checks what it carries: signature, snapshot, checkpoint, version."""
    before = world.public.read(TIMESTAMP)
    old = world.service.served.timestamp
    world.list_file(1)
    world.settle()
    newest = world.public.read(TIMESTAMP)
    world.service.served.timestamp = old
    world.clock.now += 2
    with pytest.raises(Exception, match=r"signed snapshot|not newer"):
        world.repository.step()
    assert world.public.read(TIMESTAMP) == newest != before


class Died(BaseException):
    """The process ends here."""


class Tripwire:
    """Counts the durable steps of tufrepo and dies at the n-th, before or after it took effect."""

    def __init__(self, monkeypatch):
        self.count, self.at, self.late = 0, -1, False
        self.claims, self.payloads = [], {}
        real_write, real_claim = db.write, store.claim

        @contextlib.contextmanager
        def write(engine):
            with real_write(engine) as connection:
                yield connection
                self.trip(late=False)
            self.trip(late=True)

        def claim(connection, roles):
            claimed = real_claim(connection, roles)
            self.claims += claimed.items()
            return claimed

        monkeypatch.setattr(db, "write", write)
        monkeypatch.setattr(store, "claim", claim)
        for name in ("put_all", "replace"):
            monkeypatch.setattr(Public, name, self.around(getattr(Public, name)))

    def around(self, method):
        @functools.wraps(method)
        def durable(*arguments):
            self.trip(late=False)
            method(*arguments)
            self.trip(late=True)

        return durable

    def trip(self, *, late):
        if self.at < 0 or late != self.late:
            return
        if self.count == self.at:
            self.at = -1
            raise Died
        self.count += 1


def played(world, tripwire):
    """One publish that lists a file and takes another down; when tufrepo dies it is started again."""
    submission_id = world.list_file(2)
    world.decide("takedown", 1)
    world.work_log()
    settle(world, tripwire)
    return submission_id


def settle(world, tripwire):
    for _ in range(80):
        tripwire.at = tripwire.armed
        try:
            busy = world.repository.step()
            tripwire.armed = tripwire.at
        except Died:
            tripwire.armed, tripwire.died = -1, True
            world.restart()
            busy = True
        tripwire.at = -1
        if not any([busy, world.work_log(), world.service.step()]):
            return
    raise AssertionError("the rooms never come to rest")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(DURABLE_STEPS))
def test_dying_at_any_durable_step_leaves_a_valid_repository(tmp_path, monkeypatch, step, late):
    """Killed before or after the n-th write, then started again: same listing, no version given twice."""
    world = TufRegistry(tmp_path)
    world.settle()
    world.list_file(1)
    world.settle()
    tripwire = Tripwire(monkeypatch)
    tripwire.late, tripwire.armed, tripwire.died = late, step, False
    submission_id = played(world, tripwire)
    world.check()
    assert world.state_of(submission_id) == "listed"
    assert list(world.targets()) == ["files/acme/acme-2.tar.gz"]
    committed = [claim for claim in tripwire.claims if tripwire.claims.count(claim) > 1]
    # A claim whose transaction died before its commit may be given again: nothing was signed with it.
    assert not committed or (not late and tripwire.died)
    assert world.public.read(CANDIDATE) is not None


def test_the_crash_test_reaches_every_durable_step(tmp_path, monkeypatch):
    """The range above covers every transaction and every write of a publish."""
    world = TufRegistry(tmp_path)
    world.settle()
    world.list_file(1)
    world.settle()
    tripwire = Tripwire(monkeypatch)
    tripwire.armed, tripwire.died = 10_000, False
    played(world, tripwire)
    assert tripwire.count == DURABLE_STEPS


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(8))
def test_dying_in_genesis_leaves_a_registry_that_begins(tmp_path, monkeypatch, step, late):
    """The first publish is one like any other: whoever dies in it is started again."""
    world = TufRegistry(tmp_path)
    tripwire = Tripwire(monkeypatch)
    tripwire.late, tripwire.armed, tripwire.died = late, step, False
    settle(world, tripwire)
    world.check()
    assert world.timestamp().version == 1 and len(tuf_entries(world)) == 1


@contextlib.contextmanager
def served(folder):
    """The public tree behind a plain web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def test_stock_ngclient_refreshes_and_downloads(tmp_path):
    """tuf's own client, without a line of ours: refresh, find, download; and sees a takedown."""
    from datetime import UTC, datetime

    world = TufRegistry(tmp_path / "registry")
    world.settle()
    number = 1_234_567_890  # its content is its digits, ten bytes
    world.list_file(number)
    world.settle()
    name = f"acme-{number}.tar.gz"
    digest = world.targets()[f"files/acme/{name}"]["hashes"]["sha256"]
    world.public.put(f"tuf/targets/files/acme/{digest}.{name}", b"1234567890")

    def client(folder, base):
        metadata = tmp_path / folder
        metadata.mkdir(exist_ok=True)
        bootstrap = world.public.read("tuf/1.root.json")
        updater = Updater(
            str(metadata), f"{base}/tuf/", str(metadata), f"{base}/tuf/targets/", bootstrap=bootstrap
        )
        updater._trusted_set.reference_time = datetime.fromtimestamp(world.clock(), UTC)
        updater.refresh()
        return updater

    with served(world.settings.public) as base:
        updater = client("client", base)
        info = updater.get_targetinfo("trust/trust.json")
        trust = updater.download_target(info, str(tmp_path / "trust.json"))
        assert Path(trust).read_bytes() == world.trust.format()
        found = updater.get_targetinfo(f"files/acme/{name}")
        assert found.custom["i"] == 4
        artifact = Path(updater.download_target(found, str(tmp_path / name)))
        assert artifact.read_bytes() == b"1234567890"
        assert updater.get_targetinfo("files/acme/acme-9.tar.gz") is None
        world.decide("takedown", number)
        world.work_log()
        world.settle()
        assert client("client", base).get_targetinfo(f"files/acme/{name}") is None


def test_a_version_is_claimed_once_however_many_roles_ask(world):
    """More roles than one question to the database holds: each gets its next number, none twice, no other moves."""
    roles = [f"bins-{number:04x}" for number in range(2001)]
    with db.write(world.engine) as connection:
        first = store.claim(connection, [*roles, "other"])
        second = store.claim(connection, reversed(roles))
        third = store.claim(connection, ["other", roles[-1]])
    assert first == dict.fromkeys([*roles, "other"], 1)
    assert second == dict.fromkeys(roles, 2)
    assert third == {"other": 2, roles[-1]: 3}
