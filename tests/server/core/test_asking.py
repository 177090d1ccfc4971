"""What a door answers, and when: what is public, whether or not the log has written that down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark_server import db, proposal
from countermark_server.asking import Answers
from countermark_server.proposal import PUBLISHED, SEQUENCED
from countermark_server.published import Published
from tests.doors import DoorWorld
from tests.log_world import LogWorld, drain

SOON = 20.0  # seconds for what happens within milliseconds


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[DoorWorld]:
    world = DoorWorld(tmp_path / "data")
    yield world
    world.close()


class KilledError(Exception):
    """Stands for the end of the process."""


def test_what_is_public_is_answered_though_the_log_died_before_it_said_so(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequenced is no answer; covered by a public checkpoint is one, with a proof. The next start writes it down."""
    station, published = world.station(), Published(world.public, world.clock)
    station.check_start()
    drain(station)
    station.publisher.publish(station.sequencer.checkpoint)
    early, others = Answers(world.engine, public_size=published.size), Answers(world.engine)
    asked = LogWorld.upload(world, 0, submitted=False)
    assert station.sequencer.round() == 1
    assert early.outcome(asked, seconds=0.05).state == SEQUENCED
    with db.read(world.engine) as connection:
        size = published.size()
        assert proposal.outcome(connection, asked).index == size
        assert proposal.settled(connection, [asked], public_size=published.size) == {}
        assert proposal.settled(connection, [asked], public_size=lambda: size + 1)[asked].state == PUBLISHED

    def killed(size: int) -> None:
        raise KilledError

    monkeypatch.setattr(station.publisher, "settle", killed)
    with pytest.raises(KilledError):
        station.publisher.publish(station.sequencer.checkpoint)
    told = early.outcome(asked, seconds=SOON)
    assert told.state == PUBLISHED
    assert early.outcomes([asked], seconds=SOON) == {asked: told}
    assert told.index is not None
    assert told.leaf_hash is not None
    assert published.prove(told.index, told.leaf_hash)
    assert others.outcome(asked, seconds=0.05).state == SEQUENCED
    world.station().check_start()
    assert world.outcome(asked) == others.outcome(asked, seconds=SOON) == told
    world.check()
