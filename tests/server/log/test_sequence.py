"""Rounds: genesis, order, refusals, time, publication."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from sqlalchemy import update

from countermark.entry import Entry
from countermark.errors import ProofError
from countermark.statement import KeySigner, Statement, sign
from countermark_server import db, proposal
from countermark_server.log import sequence
from countermark_server.log.sequence import Judged, LogError
from countermark_server.log.tree import public_tree
from tests.log_world import ACCOUNT, NOW, ORIGIN, LogWorld, drain, key

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def world(tmp_path: Path):
    world = LogWorld(tmp_path)
    yield world
    world.close()


def entries(world: LogWorld) -> list[Entry]:
    station = world.station()
    head = station.sequencer.load()
    tree = public_tree(world.public)
    raws = tree.entries(0, head.size, tree.reader(head.size, head.root_hash))
    return [Entry.parse(raw) for raw in raws]


def test_genesis_waits_for_all_four(world: LogWorld) -> None:
    """Three enrolments alone are not sequenced; with the tuf entry the first checkpoint holds all four."""
    world.create()
    station = world.station()
    station.check_start()
    assert station.sequencer.round() == 0
    assert world.head().tree_size == 0 and world.published_size() == 0
    world.propose("tuf", world.tuf())
    drain(station)
    assert world.published_size() == 4
    assert [entry.type for entry in entries(world)] == ["key-enroll", "key-enroll", "key-enroll", "tuf"]
    world.check()


def test_an_early_upload_waits_behind_genesis(world: LogWorld) -> None:
    """A publish proposed before the tuf entry gets its index after it."""
    world.begin()
    early = world.upload(1)
    station = world.station()
    station.check_start()
    drain(station)
    assert world.outcome(early).index == 4
    world.check()


def test_a_refused_genesis_entry_stops_the_log(world: LogWorld) -> None:
    """Nothing is signed when one of the four is refused."""
    world.create()
    tuf = world.tuf()
    tuf["signatures"][0]["sig"] = "A" * 86 + "=="
    world.propose("tuf", tuf)
    station = world.station()
    station.check_start()
    before = world.rows(), world.files()
    with pytest.raises(LogError, match="genesis"):
        station.sequencer.round()
    assert (world.rows(), world.files()) == before


def test_proposals_get_indexes_in_order_and_are_told(world: LogWorld) -> None:
    """pending -> sequenced -> published, submissions received -> logged, with index and leaf hash."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    ids = [world.upload(number) for number in range(5)]
    assert station.sequencer.round() == 5
    assert [world.outcome(i).state for i in ids] == ["sequenced"] * 5
    station.publisher.publish(station.sequencer.checkpoint)
    assert [world.outcome(i).index for i in ids] == [4, 5, 6, 7, 8]
    leaves = [entry.leaf_hash.hex() for entry in entries(world)]
    assert [world.outcome(i).leaf_hash for i in ids] == leaves[4:]
    assert not list(station.staging.sizes())
    assert world.head().staging is None
    world.check()


def test_a_loser_gets_no_index_and_a_sentence(world: LogWorld) -> None:
    """Of two publishes of one name the first is logged; the other is refused, its submission gone."""
    world.begin()
    station = world.station()
    station.check_start()
    first, second = world.upload(1), world.upload(1, submitted=False)
    other = world.upload(2)
    drain(station)
    refused = world.outcome(second)
    assert refused.state == "refused" and refused.index is None
    assert refused.refusal_code and refused.refusal
    assert (world.outcome(first).index, world.outcome(other).index) == (4, 5)
    world.check()


def test_a_refused_upload_gives_its_name_back(world: LogWorld) -> None:
    """A publish that the rules refuse leaves neither a leaf nor a submission."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    size = world.head().tree_size
    body = world.head().body
    broken = world.upload(7)
    with world.engine.begin() as connection:
        connection.execute(update(db.proposal).where(db.proposal.c.id == broken).values(registry="{}"))
    assert station.sequencer.round() == 1
    assert world.outcome(broken).refusal_code == "malformed"
    assert world.rows()["submission"] == []
    assert (world.head().tree_size, world.head().body) == (size, body)
    world.check()


@pytest.mark.parametrize("envelope", ["null", "{}", "[]", '{"payload":1}', "not json"])
def test_junk_in_a_proposal_costs_that_proposal_only(world: LogWorld, envelope: str) -> None:
    """Whatever stands in the row, the round goes on with the next."""
    world.begin()
    station = world.station()
    station.check_start()
    junk, good = world.upload(1, submitted=False), world.upload(2)
    with world.engine.begin() as connection:
        connection.execute(update(db.proposal).where(db.proposal.c.id == junk).values(envelope=envelope))
    drain(station)
    assert world.outcome(junk).state == "refused"
    assert world.outcome(good).state == "published"
    world.check()


def test_a_clock_that_went_back_stands_still(world: LogWorld) -> None:
    """No leaf's time is below the previous one's, in one process or across a restart."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    world.clock.now = NOW - 5000
    world.upload(1)
    drain_without_publishing(station)
    restarted = world.station()
    restarted.sequencer.load()
    world.upload(2)
    drain_without_publishing(restarted)
    world.clock.now = NOW + 10
    world.upload(3)
    drain(restarted)
    assert [entry.time for entry in entries(world)[4:]] == [NOW, NOW, NOW + 10]
    world.check()


def drain_without_publishing(station) -> None:
    while station.sequencer.round():
        pass


def test_over_a_tile_boundary(world: LogWorld) -> None:
    """Rounds of odd sizes across 256 entries: full and partial tiles and bundles are all there."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    number = 0
    for count in (100, 150, 1, 1, 1, 30):
        for _ in range(count):
            world.upload(number, submitted=False)
            number += 1
        drain(station)
    assert world.published_size() == 287
    assert world.public.read("log/tile/0/000") and world.public.read("log/tile/1/000.p/1")
    world.check()


def test_a_wrong_hash_that_was_handed_on_is_found_before_anything_is_signed(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New entries are hashed when they are judged; what comes back from the disk is hashed and held against that."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    waiting, before = world.upload(1), world.head()
    real = Judged.add

    def wrong(self: Judged, entry: Entry) -> None:
        real(self, entry)
        self.hashes[-1] = bytes(32)

    with monkeypatch.context() as patch:
        patch.setattr(Judged, "add", wrong)
        patch.setattr(sequence, "sign_note", lambda *_, **__: pytest.fail("signed"))
        with pytest.raises(ProofError, match="entry 4 has the leaf hash"):
            station.sequencer.round()
    assert world.head() == before
    assert world.outcome(waiting).state == "pending"
    station.sequencer.load()
    drain(station)
    assert world.outcome(waiting).index == 4
    world.check()


def test_sequencing_goes_on_while_witnesses_are_silent(world: LogWorld) -> None:
    """Without quorum nothing is published and nobody is told; with it one publication covers all rounds."""
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    world.fetcher.down = True
    ids = [world.upload(number) for number in range(3)]
    for _ in ids:
        station.sequencer.round()
    with pytest.raises(Exception, match="quorum"):
        station.publisher.publish(station.sequencer.checkpoint)
    assert world.published_size() == 4
    assert {world.outcome(i).state for i in ids} == {"sequenced"}
    world.check()
    world.fetcher.down = False
    station.publisher.publish(station.sequencer.checkpoint)
    assert {world.outcome(i).state for i in ids} == {"published"}
    world.check()


def test_nothing_is_sequenced_without_a_load(world: LogWorld) -> None:
    """A sequencer that has not looked at storage refuses to work."""
    world.begin()
    with pytest.raises(LogError, match="not loaded"):
        world.station().sequencer.round()


def test_a_log_that_was_not_created_is_not_loaded(tmp_path: Path) -> None:
    """`load` never creates."""
    world = LogWorld(tmp_path)
    from countermark_server import migrations

    migrations.upgrade(world.engine)
    before = world.rows()
    with pytest.raises(LogError, match="adopt"):
        world.station().sequencer.load()
    assert world.rows() == before
    world.close()


def propose_publish(world: LogWorld, signer: KeySigner, *, verified: bool, false: bool = False) -> int:
    """A publish proposal by this key, which says whether a door has verified it."""
    digest = hashlib.sha256(b"1").hexdigest()
    predicate = {
        "origin": ORIGIN, "namespace": "", "project": "acme", "prev": None, "version": "1", "length": 10,
        "metadata_sha256": digest, "record_sha256": None,
    }  # fmt: skip
    envelope = sign(Statement("acme-1.tar.gz", digest, "publish", predicate), signer).to_dict()
    if false:
        envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    registry = {"uploader": ACCOUNT, "key_index": None, "identity": None}
    with db.write(world.engine) as connection:
        return proposal.propose(connection, "publish", envelope, registry, now=NOW, verified=verified)


@pytest.mark.parametrize(
    ("verified", "false", "stranger", "said"),
    [
        (False, False, False, None),
        (True, False, False, None),
        (False, True, False, "signature-false"),  # what no door has verified is verified here
        (False, False, True, "key-unknown"),
        (True, False, True, "key-unknown"),  # whether a key may sign is never known beforehand
    ],
)
def test_what_a_door_has_verified_is_still_judged(
    world: LogWorld, verified: bool, false: bool, stranger: bool, said: str | None
) -> None:
    """The log takes a door's word for a signature that holds, and for nothing that depends on the state."""
    world.begin()
    signer = KeySigner(key("stranger")) if stranger else world.roles["registry"]
    asked = propose_publish(world, signer, verified=verified, false=false)
    station = world.station()
    station.check_start()
    drain(station)
    assert world.outcome(asked).refusal_code == said
    assert [entry.type for entry in entries(world)][4:] == ([] if said else ["publish"])
    world.check()
