"""An idle registry is quiet: a heartbeat an hour, one leaf for it, and no leaf that has another one follow.

Log, tufrepo and timestamper work side by side, one look each every ten seconds of a simulated clock.
"""

import json

import pytest

from countermark.entry import Entry
from countermark_server.tufrepo.publish import Repository
from tests.tuf_registry import TufRegistry

HOUR, LOOK = 3600, 10
LEAVES_AN_HOUR = 2


@pytest.fixture
def world(tmp_path):
    """A registry with one listed file, and nothing left to do."""
    world = TufRegistry(tmp_path, min_interval=5.0)
    world.settle()
    world.list_file(1)
    idle(world, 60)
    world.check()
    return world


def idle(world, seconds):
    """Every room looks, again and again, and nobody asks for anything; returns what was seen after each look."""
    seen = []
    for _ in range(0, seconds, LOOK):
        world.clock.now += LOOK
        world.repository.step()
        world.work_log()
        world.service.step()
        seen.append((world.logs.sequencer.checkpoint.size, world.timestamp().version))
    return seen


def leaves(world, since):
    return [Entry.parse(raw) for raw in world.entries()[since:]]


def test_one_idle_hour_appends_at_most_two_leaves(world):
    """Whichever hour of three it is; each leaf logs the timestamp before it, and a new timestamp follows."""
    first = world.logs.sequencer.checkpoint.size
    seen = idle(world, 3 * HOUR)
    sizes = [first, *(size for size, _ in seen)]
    hour = HOUR // LOOK
    assert max(after - before for before, after in zip(sizes, sizes[hour:], strict=False)) <= LEAVES_AN_HOUR
    assert sizes[-1] > first  # it is idle, not dead
    written = leaves(world, first)
    assert {entry.type for entry in written} == {"tuf"}
    assert all(len(entry.statement.predicate["timestamps"]) == 1 for entry in written)
    versions = [version for _, version in seen]
    assert versions[-1] - versions[0] == len(written)
    world.check()


def test_the_leaf_of_a_publish_triggers_none(world):
    """After an upload was listed: one `tuf` leaf, one timestamp, and then nothing until the heartbeat."""
    first, version = world.logs.sequencer.checkpoint.size, world.timestamp().version
    world.list_file(2)
    seen = idle(world, HOUR - 2 * 60)
    kinds = [entry.type for entry in leaves(world, first)]
    assert kinds == ["publish", "verdict", "tuf"]
    assert seen[-1][1] == version + 1
    assert len(set(seen[60 // LOOK :])) == 1  # settled within a minute
    world.check()


def test_a_log_that_grows_by_what_tuf_does_not_show_gets_no_timestamp_for_it(world):
    """Uploads that wait for their verdict: the log publishes, tufrepo and timestamper rest."""
    version, hint = world.timestamp().version, world.public.read("tuf/candidate.json")
    for number in range(2, 8):
        world.upload(number)
        idle(world, 5 * 60)
    assert world.timestamp().version == version
    assert world.public.read("tuf/candidate.json") == hint
    assert [entry.type for entry in leaves(world, json.loads(hint)["entry"] + 1)] == ["publish"] * 6


def test_the_count_of_leaves_can_fail(world, monkeypatch):
    """The test of the test: a tufrepo that publishes because the log grew writes a leaf after its own leaf."""
    grown = []

    def due(self, _renewal):
        size = world.logs.sequencer.checkpoint.size
        grown.append(size)
        return size > min(grown)

    monkeypatch.setattr(Repository, "_is_due", due)
    world.upload(2)
    first = world.logs.sequencer.checkpoint.size
    idle(world, 5 * 60)
    assert world.logs.sequencer.checkpoint.size - first > LEAVES_AN_HOUR
