"""A number is won once; whoever's turn is over signs no more; a standby takes over and no version is signed twice."""

import contextlib
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from countermark.errors import MalformedError, UsageError
from countermark.limits import TIMESTAMPS_MAX
from countermark.timestamp import Timestamp
from countermark_server.settings import load
from countermark_server.stores import places
from countermark_server.stores.folder import Folder
from countermark_server.stores.immutable import ConflictError
from countermark_server.timestamper import carry, turn
from countermark_server.timestamper.__main__ import _check_turn
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.fence import KEPT, LEAD_MAX, Claim, Fence, Holder
from countermark_server.timestamper.judge import Judge
from countermark_server.timestamper.store import Store
from tests import s3
from tests.simulator import COMPACT
from tests.timestamped import TimestampedWorld

NUMBERS = itertools.count()
SIGNS = "5a" * 32


def holder(digit):
    return Holder(digit * 16, f"host-{digit}")


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        return Folder(tmp_path / "fence")
    return s3.server().bucket(f"fence-{next(NUMBERS)}")


# --- the fence alone ------------------------------------------------------------------------------


def test_a_number_is_won_by_one_of_many(place):
    """Ten at once, each with its own contents: one wins, and the file says who and for what."""
    fences = [Fence(place, holder(f"{number}"), shared=True) for number in range(10)]

    def race(number):
        try:
            return fences[number].claim(58, f"{number}a" * 32, ())
        except RefusalError as refusal:
            assert refusal.code == "fence-lost"
            return None

    with ThreadPoolExecutor(10) as pool:
        won = [claim for claim in pool.map(race, range(10)) if claim is not None]
    assert len(won) == 1
    assert fences[0].newest() == won[0] == Claim.parse(place.read("58.json"))


def test_who_sleeps_until_its_number_is_history_has_lost_it(place):
    """Its file is gone by the time it writes one; the look afterwards finds what came later."""
    sleeper, other = Fence(place, holder("1"), shared=True), Fence(place, holder("2"), shared=True)
    for version in range(1, KEPT + 2):
        other.claim(version, SIGNS, ())
    assert place.read("1.json") is None and place.read("2.json") is not None
    with pytest.raises(RefusalError, match=f"the fence is at {KEPT + 1}, by host-2") as caught:
        sleeper.claim(1, "77" * 32, ())
    assert caught.value.code == "fence-lost"
    assert sleeper.newest().version == KEPT + 1


def test_who_is_overtaken_between_winning_and_looking_has_lost(place, monkeypatch):
    """A standby that took over in that moment counts: the number is skipped."""
    fence, standby = Fence(place, holder("1"), shared=True), Fence(place, holder("2"), shared=True)
    real = type(place).write

    def slow(self, files):
        real(self, files)
        if "58.json" in files:
            standby.claim(59, None, ())

    monkeypatch.setattr(type(place), "write", slow)
    with pytest.raises(RefusalError, match="at 59, by host-2"):
        fence.claim(58, SIGNS, ())


def test_a_claim_that_owes_more_than_can_be_logged_names_the_newest(place):
    """A frozen log takes none of them, and timestamps go on: what is won must stay readable."""
    fence = Fence(place, holder("1"), shared=True)
    owed = tuple((version, f"{version:064x}") for version in range(1, TIMESTAMPS_MAX + 4))
    fence.claim(len(owed) + 1, SIGNS, owed)
    assert fence.newest().owes == owed[3:]


@pytest.mark.parametrize(
    "members",
    [
        {"version": 0},
        {"version": True},
        {"holder": "1" * 15},
        {"signs": "xx"},
        {"owes": [[58, SIGNS]]},
        {"owes": [[1, "x"]]},
        {"more": 1},
    ],
)
def test_a_claim_has_one_spelling_and_no_other_members(members):
    """Whatever else lies there is refused, never guessed at."""
    claim = Claim(58, "1" * 16, "host", SIGNS, ((57, "aa" * 32),))
    assert Claim.parse(claim.format()) == claim
    said = json.loads(claim.format()) | members
    raw = json.dumps(said, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(MalformedError):
        Claim.parse(raw)
    with pytest.raises(MalformedError):
        Claim.parse(claim.format() + b" ")


def test_where_the_fence_lies(tmp_path):
    """Our own folder, one that is there, or the bucket; nothing is made where something was named."""
    own = load(tmp_path, {})
    assert places.fence(own).root == tmp_path / "timestamper" / "fence"
    for chosen in ("fence", str(tmp_path / "none")):
        with pytest.raises(UsageError, match="not the absolute path of a folder"):
            places.fence(load(tmp_path, {"COUNTERMARK_TIMESTAMPER_FENCE": chosen}))
    with pytest.raises(UsageError, match=r"storage\.bucket names none"):
        places.fence(load(tmp_path, {"COUNTERMARK_TIMESTAMPER_FENCE": "bucket"}))
    bucket = {**s3.server().world(), "COUNTERMARK_TIMESTAMPER_FENCE": "bucket"}
    places.fence(load(tmp_path, bucket)).write({"1.json": b"x"})


# --- two timestampers -------------------------------------------------------------------------------


class Two(TimestampedWorld):
    """A registry with a timestamper whose fence others see, and a standby that never ran."""

    names = itertools.count(0xA1)

    def new_judge(self, store, **_):
        """A start of the process: who it is stands in its database."""
        if store.fact("holder") is None:
            with store.transaction():
                store.set_fact("holder", f"{next(self.names):016x}")
        fence = Fence(
            Folder(self.folder / "fence"), Holder(store.fact("holder"), self.host(store)), shared=True
        )
        judge = Judge(store, [self.keys.tuf["timestamp"]], self, self.base, fence)
        judge.adopt_root(self.root)
        return judge

    def host(self, store):
        path = store._connection.execute("PRAGMA database_list").fetchone()[2]
        return f"host-{Path(path).stem}"

    def standby(self, name="standby"):
        """Another timestamper, without any state but the root."""
        store = Store(self.folder / f"{name}.sqlite")
        return self.new_judge(store), store

    def take_over(self, judge, store, *, lost=False):
        """The command: returns whose turn it was, and the timestamper as it starts afterwards."""
        before = judge.take_over(f"{next(self.names):016x}", now=self.now, lost=lost)
        return before, self.new_judge(store)

    def switch(self, judge, store):
        """tufrepo asks this one from now on."""
        self.old = self.judge, self.store
        self.judge, self.store = judge, store
        self.logged_timestamps = store.unlogged()

    def fence_files(self):
        return {path.name: path.read_bytes() for path in (self.folder / "fence").iterdir()}


@pytest.fixture
def world(tmp_path):
    world = Two(tmp_path)
    world.file = world.publish("acme", "1.0")
    world.check()
    return world


def refuses(world, judge, store, code):
    """It signs nothing, wins nothing, accepts nothing; it may have learned of a public timestamp."""

    def all_rows():
        return [
            list(store._connection.execute(f"SELECT * FROM {table}")) for table in ("state", "target", "bin")
        ]

    before, fence, public = all_rows(), world.fence_files(), world.tuf.get("timestamp.json")
    with pytest.raises(RefusalError) as caught:
        judge.attempt(now=world.now, recarry=True)
    assert caught.value.code == code, caught.value
    assert (all_rows(), world.fence_files(), world.tuf.get("timestamp.json")) == (before, fence, public)
    return str(caught.value)


def contents_by_version(world, *raws):
    """What was signed for each version, over all databases and the public tree."""
    found = {}
    for raw in raws:
        metadata = Metadata.from_bytes(raw)
        found.setdefault(metadata.signed.version, set()).add(carry.signed_digest(metadata))
    return found


def test_every_version_was_won_for_what_it_says(world):
    """58.json names the holder, and the SHA-256 of the signed part of timestamp 58."""
    newest = world.store.newest()
    claim = Claim.parse(world.fence_files()[f"{newest.version}.json"])
    assert (
        claim.holder == world.store.fact("holder") and claim.host == "host-timestamper" and claim.owes == ()
    )
    assert claim.signs == carry.signed_digest(Metadata.from_bytes(newest.raw))


def test_a_second_timestamper_signs_nothing_before_it_took_over(world):
    """The same key, the same registry: whose turn it is stands in the fence."""
    said = refuses(world, *world.standby(), "taken-over")
    assert "timestamper host-timestamper (00" in said and "won number 2; this one" in said


def test_a_standby_takes_over_and_the_old_one_signs_no_more(world):
    """The number between them is nobody's timestamp; clients see a version that grew."""
    judge, store = world.standby()
    before, judge = world.take_over(judge, store)
    assert (before.host, before.version) == ("host-timestamper", 2)
    world.switch(judge, store)
    world.yank(world.file)
    world.release()
    world.check()
    assert Timestamp.parse(world.tuf["timestamp.json"]).version == 4
    old, old_store = world.old
    assert "host-standby (00" in refuses(world, old, old_store, "taken-over")
    before, old = world.take_over(old, old_store)  # and back again
    assert before.host == "host-standby"
    world.switch(old, old_store)
    world.publish("beta", "1.0")
    world.check()
    refuses(world, judge, store, "taken-over")


def test_a_standby_that_takes_over_during_an_attempt_is_not_overtaken_by_it(world, monkeypatch):
    """The old one had looked, and replays for minutes: the number that it goes for is the standby's."""
    judge, store = world.standby()
    real = carry.slim
    taken = []

    def slow(*arguments, **options):
        if not taken:
            taken.append(world.take_over(judge, store))
        return real(*arguments, **options)

    monkeypatch.setattr(carry, "slim", slow)
    with pytest.raises(RefusalError, match="number 3") as caught:
        world.judge.attempt(now=world.now, recarry=True)
    monkeypatch.undo()
    assert caught.value.code == "fence-lost"
    assert (
        Claim.parse(world.fence_files()["3.json"]).host == "host-standby"
        and "4.json" not in world.fence_files()
    )
    refuses(world, world.judge, world.store, "taken-over")
    taken[0][1].check_turn()


def test_what_the_other_signed_and_nobody_saw_is_waited_for_or_given_up_by_name(world):
    """Number 3 was won and its timestamp is not public: it may still appear. `lost` says that it never will."""
    hidden = world.judge.attempt(now=world.now, recarry=True)
    judge, store = world.standby()
    with pytest.raises(
        UsageError, match=r"host-timestamper \(00.*\) won number 3, and its timestamp is not public"
    ):
        world.take_over(judge, store)
    assert "4.json" not in world.fence_files()
    world.judge.check_turn()
    _, judge = world.take_over(judge, store, lost=True)
    world.switch(judge, store)
    world.release()
    world.check()
    signed = Timestamp.parse(world.tuf["timestamp.json"])
    assert (hidden.version, signed.version) == (3, 5)


def test_once_it_is_public_the_same_standby_may_take_over(world):
    """tufrepo had not copied it yet."""
    hidden = world.judge.attempt(now=world.now, recarry=True)
    judge, store = world.standby()
    world.tuf["timestamp.json"] = hidden.raw
    world.take_over(judge, store)
    assert hidden.sha256 in store.unlogged()


def test_what_the_other_owed_to_the_log_the_standby_asks_for(world):
    """Re-carried twice and never logged: the digests stand in the fence, also of the one that nobody saw."""
    unseen = world.judge.attempt(now=world.now, recarry=True)
    world.now += 60
    world.sign_checkpoint()
    seen = world.judge.attempt(now=world.now, recarry=True)
    world.tuf["timestamp.json"] = seen.raw
    judge, store = world.standby()
    _, judge = world.take_over(judge, store)
    world.switch(judge, store)
    assert {unseen.sha256, seen.sha256} <= set(world.logged_timestamps)
    world.release()
    world.check()
    assert not {unseen.sha256, seen.sha256} & set(store.unlogged())


def test_a_late_timestamp_of_the_old_one_is_logged_too(world):
    """Signed before it lost its turn, public only afterwards: it is adopted for the log, not gone back to."""
    late = world.judge.attempt(now=world.now, recarry=True)
    judge, store = world.standby()
    _, judge = world.take_over(judge, store, lost=True)
    world.switch(judge, store)
    world.release()
    ours = store.newest()
    world.tuf["timestamp.json"] = late.raw
    with pytest.raises(RefusalError, match=late.sha256) as caught:
        world.release()
    assert caught.value.code == "timestamp-unlogged" and store.newest() == ours
    world.logged_timestamps = store.unlogged()
    world.release()
    world.check()
    assert Timestamp.parse(world.tuf["timestamp.json"]).version > ours.version > late.version
    assert late.sha256 not in store.unlogged()


def test_a_copy_of_the_old_ones_database_takes_over_under_a_name_of_its_own(world):
    """A standby with a copy of everything knows everything; the original is another holder from then on."""
    world.store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(world.folder / "timestamper.sqlite", world.folder / "copy.sqlite")
    judge, store = world.standby("copy")
    assert store.fact("holder") == world.store.fact("holder")
    _, judge = world.take_over(judge, store)
    assert store.fact("holder") != world.store.fact("holder")
    world.switch(judge, store)
    world.yank(world.file)
    world.release()
    world.check()
    refuses(world, *world.old, "taken-over")


# --- what a fence must not be ------------------------------------------------------------------------


def test_a_fence_that_is_empty_is_not_begun_where_timestamps_are_known(world):
    """A folder that is not mounted looks like this; `--take-over` is a person who says that it is right."""
    for path in (world.folder / "fence").iterdir():
        path.unlink()
    refuses(world, world.judge, world.store, "fence-back")
    judge, _ = world.standby()
    with pytest.raises(RefusalError) as caught:
        judge.attempt(now=world.now)
    assert caught.value.code == "fence-empty"
    assert world.fence_files() == {}
    with pytest.raises(UsageError, match="another fence, or an old copy"):
        world.take_over(world.judge, world.store)
    assert world.take_over(world.judge, world.store, lost=True)[0] is None
    assert set(world.fence_files()) == {"3.json"}


def test_a_fence_restored_from_before_is_refused(world):
    """What was won since could be won again."""
    old = world.fence_files()
    world.yank(world.file)
    world.release()
    for path in (world.folder / "fence").iterdir():
        path.unlink()
    for name, raw in old.items():
        (world.folder / "fence" / name).write_bytes(raw)
    assert "number 3 was won in the fence, and its newest is 2" in refuses(
        world, world.judge, world.store, "fence-back"
    )


def test_a_timestamp_signed_past_the_fence_is_an_alarm(world):
    """Somebody uses the key without asking: a timestamper that was not told of the fence, or a thief."""
    metadata = Metadata.from_bytes(world.tuf["timestamp.json"])
    metadata.signed.version += 5
    metadata.sign(world.keys.tuf["timestamp"])
    world.tuf["timestamp.json"] = metadata.to_bytes(COMPACT)
    with pytest.raises(RefusalError, match="timestamp 7 was signed without winning its number") as caught:
        world.judge.attempt(now=world.now)
    assert caught.value.code == "unfenced"
    world.take_over(world.judge, world.store)  # a person has looked
    assert "8.json" in world.fence_files()


def test_a_public_timestamp_with_other_contents_than_its_number_was_won_for_is_an_alarm(world):
    """Also where our own database never saw that version: the fence knows what was to be signed."""
    judge, store = world.standby()
    assert store.newest() is None
    metadata = Metadata.from_bytes(world.tuf["timestamp.json"])
    metadata.signed.unrecognized_fields["x"] = 1
    metadata.sign(world.keys.tuf["timestamp"])
    world.tuf["timestamp.json"] = metadata.to_bytes(COMPACT)
    with pytest.raises(RefusalError, match=r"number 2 was won by host-timestamper \(00") as caught:
        world.take_over(judge, store, lost=True)
    assert caught.value.code == "two-timestamps"
    assert "3.json" not in world.fence_files()


def test_a_fence_far_ahead_does_not_use_up_the_versions(world):
    """Who writes the largest number into it would make every later timestamp impossible."""
    far = Claim(2**53 - 1, world.store.fact("holder"), "host", None)
    (world.folder / "fence" / f"{far.version}.json").write_bytes(far.format())
    assert str(far.version) in refuses(world, world.judge, world.store, "fence-ahead")
    judge, store = world.standby()
    with pytest.raises(RefusalError) as caught:
        world.take_over(judge, store, lost=True)
    assert caught.value.code == "fence-ahead" and store.newest().version == 2
    (world.folder / "fence" / f"{far.version}.json").unlink()
    near = Claim(2 + LEAD_MAX, world.store.fact("holder"), "host", None)
    (world.folder / "fence" / f"{near.version}.json").write_bytes(near.format())
    world.sign_checkpoint()
    assert world.judge.attempt(now=world.now, recarry=True).version == near.version + 1


@pytest.mark.parametrize("raw", [b"", b"{}\n", Claim(9, "1" * 16, "h", None).format()])
def test_a_damaged_claim_stops_signing(world, raw):
    """Never taken for an empty fence."""
    (world.folder / "fence" / "3.json").write_bytes(raw)
    refuses(world, world.judge, world.store, "fence-malformed")


def test_a_fence_out_of_reach_stops_signing_until_it_is_back(world, monkeypatch):
    """A disk that is full, a share that is gone: nothing is signed, nothing is guessed."""

    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Folder, "write", broken)
    refuses(world, world.judge, world.store, "fence-unreachable")
    monkeypatch.undo()
    assert world.judge.attempt(now=world.now, recarry=True).version == 3


def test_an_answer_that_was_lost_after_the_number_was_won_skips_it(world, monkeypatch):
    """A bucket may store and not say so: nothing is signed with that number, by this attempt or the next."""
    real = Folder.write

    def deaf(self, files):
        real(self, files)
        raise OSError("no answer")

    monkeypatch.setattr(Folder, "write", deaf)
    with pytest.raises(RefusalError) as caught:
        world.judge.attempt(now=world.now, recarry=True)
    assert caught.value.code == "fence-unreachable" and "3.json" in world.fence_files()
    monkeypatch.undo()
    world.now += 1
    assert world.judge.attempt(now=world.now, recarry=True).version == 4


def test_a_start_waits_for_a_fence_out_of_reach_and_for_no_other_trouble(world, monkeypatch):
    """A share that is mounted late comes back; a fence that another one holds does not."""

    def broken(*_):
        raise OSError("stale file handle")

    monkeypatch.setattr(Folder, "names", broken)
    _check_turn(world.judge)
    monkeypatch.undo()
    judge, _ = world.standby()
    with pytest.raises(UsageError, match="may not sign"):
        _check_turn(judge)
    for path in (world.folder / "fence").iterdir():
        path.unlink()
    with pytest.raises(RefusalError, match="its newest is 0"):
        _check_turn(world.judge)


def test_a_public_timestamp_that_vanished_stops_signing(world):
    """Whoever can't see the newest public timestamp can't know that it is behind nobody."""
    raw = world.tuf.pop("timestamp.json")
    refuses(world, world.judge, world.store, "timestamp-missing")
    world.tuf["timestamp.json"] = raw
    assert world.judge.attempt(now=world.now, recarry=True) is not None


def test_an_own_fence_needs_no_turn(tmp_path):
    """One timestamper alone: its database may be gone, and it goes on behind the numbers that were won."""
    world = TimestampedWorld(tmp_path)
    world.file = world.publish("acme", "1.0")
    hidden = world.judge.attempt(now=world.now, recarry=True)
    world.store.close()
    world.store = Store(tmp_path / "restored.sqlite")
    world.judge = world.new_judge(world.store, holder="0c")
    world.judge.adopt_root(world.root)
    with pytest.raises(RefusalError):
        world.attempt()
    world.logged_timestamps = world.store.unlogged()
    world.release()
    world.check()
    assert Timestamp.parse(world.tuf["timestamp.json"]).version == hidden.version + 1
    with pytest.raises(UsageError, match="names no fence"):
        world.judge.take_over("0d" * 8, now=world.now, lost=False)


def test_a_timestamper_moves_from_its_own_fence_to_one_that_others_see(tmp_path):
    """What it won alone says nothing about the other folder; a person says that it begins there."""
    world = TimestampedWorld(tmp_path)
    world.file = world.publish("acme", "1.0")
    fence = Fence(Folder(tmp_path / "shared"), Holder("0a" * 8, "host"), shared=True)
    judge = Judge(world.store, [world.keys.tuf["timestamp"]], world, world.base, fence)
    with pytest.raises(RefusalError) as caught:
        judge.attempt(now=world.now, recarry=True)
    assert caught.value.code == "fence-empty"
    assert judge.take_over("0b" * 8, now=world.now, lost=False) is None
    assert fence.newest() == Claim(3, "0b" * 8, "host", None, tuple(world.store.owed()))


# --- deaths ---------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process ends here."""


def deaths(monkeypatch, at):
    """Die at the n-th durable step, counted before and after it took effect."""
    count = itertools.count()

    def around(owner, name, wanted=lambda *_: True):
        real = getattr(owner, name)

        def durable(*arguments):
            if not wanted(*arguments):
                return real(*arguments)
            if next(count) == at:
                raise Died
            result = real(*arguments)
            if next(count) == at:
                raise Died
            return result

        monkeypatch.setattr(owner, name, durable)

    around(Folder, "write")
    around(Folder, "remove")
    real = Store.transaction

    def transaction(self):
        @contextlib.contextmanager
        def dying():
            with real(self):
                yield
                if next(count) == at:
                    raise Died
            if next(count) == at:
                raise Died

        return dying()

    monkeypatch.setattr(Store, "transaction", transaction)
    return count


STEPS_OF_ATTEMPT, STEPS_OF_TAKE_OVER = 6, 8


@pytest.mark.parametrize("at", range(STEPS_OF_ATTEMPT + 1))
def test_a_death_at_any_step_of_signing_signs_no_version_twice(tmp_path, monkeypatch, at):
    """Before and after each durable step; the next start goes on, and what it signs has a number of its own."""
    world = Two(tmp_path)
    world.publish("acme", "1.0")
    given_out = [world.tuf["timestamp.json"]]
    count = deaths(monkeypatch, at)
    died = False
    try:
        given_out.append(world.judge.attempt(now=world.now, recarry=True).raw)
    except Died:
        died = True
    monkeypatch.undo()
    assert died == (at < STEPS_OF_ATTEMPT), next(count)
    world.open()
    given_out.append(world.store.newest().raw)
    world.now += 7  # other contents
    world.sign_checkpoint()
    given_out.append(world.judge.attempt(now=world.now, recarry=True).raw)
    assert all(len(digests) == 1 for digests in contents_by_version(world, *given_out).values())
    for version, digests in contents_by_version(world, *given_out).items():
        assert Claim.parse(world.fence_files()[f"{version}.json"]).signs == digests.pop()


@pytest.mark.parametrize("at", range(STEPS_OF_TAKE_OVER + 1))
def test_a_death_at_any_step_of_taking_over_leaves_one_who_may_sign(tmp_path, monkeypatch, at):
    """Either the old one or the new one, never both; and a repetition ends it."""
    world = Two(tmp_path)
    world.file = world.publish("acme", "1.0")
    judge, store = world.standby()
    deaths(monkeypatch, at)
    died = False
    try:
        world.take_over(judge, store)
    except Died:
        died = True
    monkeypatch.undo()
    assert died == (at < STEPS_OF_TAKE_OVER)
    judge, store = world.standby()
    turns = []
    for mind in (world.judge, judge):
        try:
            mind.check_turn()
            turns.append(mind)
        except RefusalError as refusal:
            assert refusal.code == "taken-over"
    assert len(turns) <= 1  # nobody's, where it died under a name that it did not write down
    if turns != [judge]:
        _, judge = world.take_over(judge, store)
    world.switch(judge, store)
    world.yank(world.file)
    world.release()
    world.check()
    refuses(world, *world.old, "taken-over")


def test_the_test_of_the_deaths_can_fail(tmp_path, monkeypatch):
    """Without the fence a crash after signing signs the version a second time: the check sees it."""
    world = Two(tmp_path)
    world.publish("acme", "1.0")
    first = world.judge.attempt(now=world.now, recarry=True).raw
    monkeypatch.setattr(Fence, "claim", lambda *_: None)
    monkeypatch.setattr(Fence, "newest", lambda _: None)
    monkeypatch.setattr(turn, "check", lambda *_: 3)
    monkeypatch.setattr(Store, "newest", lambda self: self.signed(2))
    monkeypatch.setattr(Store, "add_signed", lambda *_: None)
    world.now += 7
    world.sign_checkpoint()
    second = world.judge.attempt(now=world.now, recarry=True).raw
    assert any(len(digests) == 2 for digests in contents_by_version(world, first, second).values())


def test_a_conflict_is_the_only_answer_that_means_lost(tmp_path):
    """The store's own word for it."""
    folder = Folder(tmp_path)
    folder.write({"1.json": b"a"})
    with pytest.raises(ConflictError):
        folder.write({"1.json": b"b"})
