"""A log's last entry, after which there is none, and a successor's first."""

from __future__ import annotations

import pytest

from countermark import rules
from countermark.errors import MalformedError
from tests.entrymaker import (
    AUTHORITY_KEY,
    MODERATION_KEY,
    ORIGIN,
    REGISTRY_KEY,
    SCANNER_KEY,
    World,
    digest,
    ed25519_signer,
    replay_pinned,
)

alice = ed25519_signer("alice")


@pytest.fixture
def world() -> World:
    world = World()
    world.accept(world.tuf())
    world.accept(world.publish("plain-1.0.tar.gz"))
    return world


def test_after_a_freeze_nothing_is_allowed(world: World) -> None:
    """Not a file, not metadata, not a second freeze: whatever follows is the log's fault and changes nothing."""
    world.accept(world.freeze())
    log = world.view.get(rules.LOG)
    assert log["frozen"] == 5 and log["size"] == 6
    for entry in (
        world.publish("plain-2.0.tar.gz"),
        world.tuf(),
        world.freeze(),
        world.decision("hold", "plain-1.0.tar.gz"),
        world.enroll("acme", alice, "a1" * 16),
    ):
        world.refuse("log-frozen", entry, "log")


def test_who_may_freeze(world: World) -> None:
    """The moderation role; nobody else's signature ends a log."""
    for signer in (REGISTRY_KEY, SCANNER_KEY, AUTHORITY_KEY, alice):
        world.refuse("key-unknown", world.freeze(by=signer))


def test_a_freeze_follows_the_newest_tuf_entry(world: World) -> None:
    """So it speaks of what was published last: one that was signed before is stale."""
    early = world.freeze()
    world.accept(world.tuf())
    world.refuse("prev-stale", early)
    world.refuse("prev-stale", world.freeze(prev=None))
    world.accept(world.freeze())


@pytest.mark.parametrize("predicate", [{"reason": "because"}, {"project": "acme"}])
def test_a_freeze_is_of_the_whole_log_for_a_known_reason(world: World, predicate: dict[str, str]) -> None:
    """It names no project, and reasons are codes."""
    with pytest.raises(MalformedError):
        world.freeze(**predicate)


def test_a_predecessor_is_named_first_or_never() -> None:
    """Entry 0, by the authority; role keys, and all that follows, come behind it."""
    first = World(roles=False)
    for signer in (MODERATION_KEY, alice):
        first.refuse("not-authorised", first.predecessor(by=signer))
    first.refuse("own-predecessor", first.predecessor(log=ORIGIN))
    first.refuse("prev-stale", first.predecessor(prev="00" * 32))
    with pytest.raises(MalformedError):
        first.predecessor(tree_size=0)
    first.accept(first.predecessor())
    said = {"log": "old.example/log", "root_hash": digest("old"), "tree_size": 7}
    assert first.view.get(rules.LOG)["predecessor"] == said
    first.refuse("not-first", first.predecessor(), "log")
    first.accept(first.enroll_role("registry", REGISTRY_KEY))
    first.refuse("not-first", first.predecessor(), "log")
    assert "predecessor" not in World().view.get(rules.LOG)


def story() -> World:
    """A successor that lived, and was frozen in its turn."""
    world = World(roles=False)
    world.accept(world.predecessor())
    for scope, signer in (
        ("registry", REGISTRY_KEY),
        ("scanner", SCANNER_KEY),
        ("moderation", MODERATION_KEY),
    ):
        world.accept(world.enroll_role(scope, signer))
    world.accept(world.tuf())
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.accept(world.tuf(publish=False))
    world.accept(world.freeze())
    return world


def test_the_pinned_log_replays_to_the_pinned_state() -> None:
    """Rule version 1 for ever: an entry behind the freeze is found, and the state is the one before it."""
    log, found = replay_pinned("v1-freeze")
    assert found == [[8, "log-frozen", "log"], [9, "log-frozen", "log"]]
    assert log[:-2] == [entry.raw for entry in story().entries]
