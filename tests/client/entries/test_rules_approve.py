"""Rules about staged releases: who must approve, what, and when; and how one may stop asking for it."""

from __future__ import annotations

import pytest

from countermark import rules
from countermark.errors import MalformedError
from countermark.filelist import files_digest
from tests.entrymaker import (
    ALICE,
    BOB,
    CAROL,
    MODERATION_KEY,
    REGISTRY_KEY,
    WEEK,
    World,
    digest,
    ed25519_signer,
    replay_pinned,
)

WHEEL, SDIST = "acme-1.0-py3-none-any.whl", "acme-1.0.tar.gz"
alice, alice_two, bob, carol = (ed25519_signer(name) for name in ("alice", "alice two", "bob", "carol"))


def team(*, needed: int = 2) -> World:
    """acme: three owners with a key each, and so many approvals."""
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(world.owner("acme", "add", alice, account=BOB, role="owner"))
    world.accept(world.owner("acme", "add", alice, account=CAROL, role="maintainer"))
    world.accept(world.enroll("acme", bob, BOB, alice))
    world.accept(world.enroll("acme", carol, CAROL, alice))
    world.accept(world.require("acme", needed, alice))
    return world


@pytest.fixture
def world() -> World:
    """Two files of acme 1.0 that passed the scan and wait for two approvals."""
    world = team()
    for name in (WHEEL, SDIST):
        world.accept(world.publish(name, by=alice))
        world.accept(world.verdict(name))
    return world


def listed(world: World) -> list[bool]:
    return [world.listed(name) for name in (WHEEL, SDIST)]


def release(world: World) -> rules.State:
    return world.view.get(("release", "", "acme", "1.0"))


# --- k of n -----------------------------------------------------------------------------------------------
def test_a_release_is_listed_once_enough_people_approved_it(world: World) -> None:
    """One of two is not enough; the second approval lists every file of the release, and touches these alone."""
    assert listed(world) == [False, False]
    changes = world.accept(world.approve("acme", "1.0", alice))
    assert listed(world) == [False, False]
    assert list(rules.touched_files(world.view, changes)) == []
    changes = world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [True, True]
    assert set(rules.touched_files(world.view, changes)) == {world.key(WHEEL), world.key(SDIST)}


def test_approvals_do_not_replace_the_scan(world: World) -> None:
    """What the scanner queued stays unlisted, whoever approved it; what was held stays held."""
    world.accept(world.verdict(WHEEL, "queue"))
    world.accept(world.decision("hold", SDIST))
    world.accept(world.approve("acme", "1.0", alice))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [False, False]
    world.accept(world.decision("clear", SDIST))
    assert listed(world) == [False, True]


def test_one_approver_does_not_count_twice(world: World) -> None:
    """Not by approving again, and not by a second key of the same account."""
    world.accept(world.enroll("acme", alice_two, ALICE, alice, bob))
    world.accept(world.approve("acme", "1.0", alice))
    world.refuse("already-decided", world.approve("acme", "1.0", alice))
    world.refuse("already-decided", world.approve("acme", "1.0", alice_two))
    assert listed(world) == [False, False]


def test_an_approval_is_by_the_key_of_who_signed_in(world: World) -> None:
    """Another's key under one's own name is no second person: the log would be to blame."""
    world.refuse("approver", world.approve("acme", "1.0", bob, ALICE), "log")
    world.refuse("approver", world.approve("acme", "1.0", alice, BOB), "log")


def test_only_owners_with_an_enrolled_key_approve(world: World) -> None:
    """Neither strangers nor the registry in anybody's place."""
    world.refuse("key-unknown", world.approve("acme", "1.0", ed25519_signer("stranger")))
    world.refuse("key-unknown", world.approve("acme", "1.0", REGISTRY_KEY))
    world.refuse("key-unknown", world.approve("acme", "1.0", MODERATION_KEY))


def test_a_rejection_stops_the_release_until_it_is_taken_back(world: World) -> None:
    """Two approvals do not outvote it; its own account may."""
    world.accept(world.approve("acme", "1.0", carol, CAROL, decision="reject"))
    world.accept(world.approve("acme", "1.0", alice))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [False, False]
    world.refuse("already-decided", world.approve("acme", "1.0", carol, CAROL, decision="reject"))
    world.accept(world.approve("acme", "1.0", carol, CAROL))
    assert listed(world) == [True, True]


def test_another_file_does_not_lift_a_rejection(world: World) -> None:
    """Or an uploader could make it go away."""
    world.accept(world.approve("acme", "1.0", carol, CAROL, decision="reject"))
    world.accept(world.publish("acme-1.0-py2-none-any.whl", by=alice))
    for by, who in ((alice, ALICE), (bob, BOB)):
        world.accept(world.approve("acme", "1.0", by, who))
    assert listed(world) == [False, False]


# --- what is approved -------------------------------------------------------------------------------------
def test_a_file_more_needs_every_approval_again(world: World) -> None:
    """An approval of two files says nothing about three, nor does it come back in from the public log."""
    first = world.accept(world.approve("acme", "1.0", alice)) and world.entries[-1]
    world.accept(world.publish("acme-1.0-py2-none-any.whl", by=alice))
    world.accept(world.verdict("acme-1.0-py2-none-any.whl"))
    assert release(world)["votes"] == {}
    world.refuse("prev-stale", first)
    old = {name: world.file(name)["sha256"] for name in (WHEEL, SDIST)}
    world.refuse("files-changed", world.approve("acme", "1.0", bob, BOB, files=old))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [False, False]
    world.accept(world.approve("acme", "1.0", alice))
    assert listed(world) == [True, True]


def test_files_that_are_not_logged_cannot_be_approved(world: World) -> None:
    """The list is what the log holds: no file less, none that may come."""
    for files in ({}, {WHEEL: "00" * 32}, {"acme-1.0-1-py3-none-any.whl": digest("later")}):
        world.refuse("files-changed", world.approve("acme", "1.0", alice, files=files))
    world.refuse("nothing-staged", world.approve("acme", "3.0", alice, files={"acme-3.0.tar.gz": "0" * 64}))


def test_after_the_listing_no_approval_is_taken(world: World) -> None:
    """Neither a third one, nor a rejection in hindsight: that is what yank and remove are for."""
    third = world.approve("acme", "1.0", carol, CAROL)
    world.accept(world.approve("acme", "1.0", alice))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    for decision in ("approve", "reject"):
        late = world.approve("acme", "1.0", carol, CAROL, decision=decision)
        world.refuse("nothing-staged", late)
    world.refuse("nothing-staged", third)


def test_files_that_come_later_are_staged_for_themselves(world: World) -> None:
    """They wait, those that are listed stay, and the old approvals do not count for them."""
    for by, who in ((alice, ALICE), (bob, BOB)):
        world.accept(world.approve("acme", "1.0", by, who))
    late = "acme-1.0-py2-none-any.whl"
    world.accept(world.publish(late, by=alice))
    world.accept(world.verdict(late))
    assert (listed(world), world.listed(late)) == ([True, True], False)
    world.accept(world.approve("acme", "1.0", alice))
    assert not world.listed(late)
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert world.listed(late)


def test_approvals_follow_each_other(world: World) -> None:
    """`prev` is the newest approve of the release: who has not seen it signs again."""
    early = world.approve("acme", "1.0", bob, BOB)
    world.accept(world.approve("acme", "1.0", alice))
    world.refuse("prev-stale", early)


def test_a_digest_of_files_is_one_whatever_the_order() -> None:
    """Sorted by name; a name or hash more is another."""
    files = [(WHEEL, "11" * 32), (SDIST, "22" * 32)]
    assert files_digest(files) == files_digest(reversed(files))
    assert (
        len(
            {
                files_digest(files),
                files_digest(files[:1]),
                files_digest([]),
                files_digest([*files, ("x", "")]),
            }
        )
        == 4
    )


def test_a_release_has_bounded_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are in one value of the state, and there is a most of them."""
    monkeypatch.setattr("countermark.rules_approve.STAGED_FILES_MAX", 2)
    world = team()
    for name in (WHEEL, SDIST):
        world.accept(world.publish(name, by=alice))
    world.refuse("release-full", world.publish("acme-1.0-py2-none-any.whl", by=alice))
    world.accept(world.publish("acme-2.0.tar.gz", by=alice))


# --- who may still say so ---------------------------------------------------------------------------------
def test_an_approval_by_a_key_that_was_revoked_since_does_not_count(world: World) -> None:
    """Alice's key is revoked between her approval and Bob's: his is the first."""
    world.accept(world.approve("acme", "1.0", alice))
    world.accept(world.revoke("acme", alice, bob, actor=BOB))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [False, False]
    world.accept(world.approve("acme", "1.0", carol, CAROL))
    assert listed(world) == [True, True]


def test_an_approval_by_who_owns_nothing_any_more_does_not_count(world: World) -> None:
    """Carol approves and is removed; two others must."""
    world.accept(world.approve("acme", "1.0", carol, CAROL))
    world.accept(world.owner("acme", "remove", alice, bob, account=CAROL))
    world.accept(world.approve("acme", "1.0", alice))
    assert listed(world) == [False, False]
    world.refuse("not-an-owner", world.approve("acme", "1.0", carol, CAROL), "log")
    world.accept(world.approve("acme", "1.0", bob, BOB))
    assert listed(world) == [True, True]


def test_a_rejection_by_who_is_gone_stops_nothing(world: World) -> None:
    """Otherwise nobody could ever take it back."""
    world.accept(world.approve("acme", "1.0", carol, CAROL, decision="reject"))
    world.accept(world.revoke("acme", carol, alice))
    for by, who in ((alice, ALICE), (bob, BOB)):
        world.accept(world.approve("acme", "1.0", by, who))
    assert listed(world) == [True, True]


# --- asking for approvals, and for no more ----------------------------------------------------------------
def test_approvals_are_required_from_the_next_entry_on() -> None:
    """What was published before is listed as ever."""
    world = team(needed=2)
    assert world.project("acme")["approvals"] == 2
    world.accept(world.publish(WHEEL, by=alice))
    for by in ((alice,), (alice, alice_two)):
        world.refuse("key-unknown" if len(by) > 1 else "not-authorised", world.require("acme", 0, *by))
    world.accept(world.require("acme", 0, alice, bob))
    world.accept(world.publish(SDIST, by=alice))
    for name in (WHEEL, SDIST):
        world.accept(world.verdict(name))
    assert listed(world) == [False, True]
    world.accept(world.approve("acme", "1.0", alice))  # what was staged is approved by one, then
    assert listed(world) == [True, True]


def test_one_person_with_many_keys_cannot_lower_it() -> None:
    """Two keys of one account are one person, for every change that would make more people."""
    world = team()
    world.accept(world.enroll("acme", alice_two, ALICE, alice, bob))
    mallory = ed25519_signer("mallory")
    for entry in (
        world.require("acme", 1, alice, alice_two),
        world.owner("acme", "add", alice, alice_two, account="ee" * 16, role="owner"),
        world.owner("acme", "signing-off", alice, alice_two),
        world.enroll("acme", mallory, ALICE, alice, alice_two),
    ):
        world.refuse("not-authorised", entry)
    world.accept(world.owner("acme", "add", alice, bob, account="ee" * 16, role="owner"))


def test_as_many_people_as_it_takes_are_kept() -> None:
    """Nobody requires, or is left with, more approvals than there are people to give them."""
    world = team()
    world.refuse("approvals", world.require("acme", 4, alice, bob))
    world.refuse("approvals", world.require("acme", 2, alice, bob))
    world.accept(world.require("acme", 3, alice, bob))
    world.refuse("approvals", world.owner("acme", "remove", alice, bob, carol, account=CAROL))
    world.refuse("approvals", world.owner("acme", "transfer", alice, bob, carol, account=ALICE))


def test_nobody_but_owners_ask_for_approvals() -> None:
    """The registry does not, nor does a maintainer; and a project needs a key for it."""
    world = team()
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.refuse("key-unknown", world.require("acme", 1, REGISTRY_KEY))
    world.refuse("not-an-owner", world.require("acme", 1, bob, carol, actor=CAROL), "log")
    world.refuse("key-unknown", world.require("plain", 1, alice))
    world.refuse("project-unknown", world.require("nobodys", 1, alice))
    stale = world.require("acme", 1, alice, bob)
    world.accept(world.require("acme", 3, alice, bob))
    world.refuse("not-authorised", stale)
    world.refuse("prev-stale", world.require("acme", 1, alice, bob, carol, prev=None))


def test_the_registry_changes_no_owner_where_approvals_are_required() -> None:
    """Even after the project has stopped signing."""
    world = team()
    world.accept(world.owner("acme", "signing-off", alice, bob))
    world.refuse(
        "signature-required", world.owner("acme", "add", REGISTRY_KEY, account="ee" * 16, role="owner")
    )
    world.accept(world.publish(SDIST))
    assert world.file(SDIST)["staged"]


def test_a_namespace_may_require_them_for_all_its_projects() -> None:
    """The greater number of both counts, and keys of the namespace approve."""
    world = World()
    world.accept(world.enroll("", alice, ALICE, namespace="corp"))
    world.accept(world.owner("", "add", alice, account=BOB, role="owner", namespace="corp"))
    world.accept(world.enroll("", bob, BOB, alice, namespace="corp"))
    world.accept(world.require("", 2, alice, namespace="corp"))
    world.accept(world.publish("tool-1.0.tar.gz", by=alice, namespace="corp"))
    world.accept(world.verdict("tool-1.0.tar.gz", namespace="corp"))
    world.accept(world.approve("tool", "1.0", alice, namespace="corp"))
    assert not world.listed("tool-1.0.tar.gz", "corp")
    world.accept(world.approve("tool", "1.0", bob, BOB, namespace="corp"))
    assert world.listed("tool-1.0.tar.gz", "corp")


def test_a_recovery_that_nobody_vetoed_ends_the_requirement() -> None:
    """The others were lost: seven days later one key signs, and none approves. What was staged waits for it."""
    world = team()
    world.accept(world.publish(SDIST, by=alice))
    world.accept(world.verdict(SDIST))
    new = ed25519_signer("new")
    world.accept(world.enroll("acme", new, ALICE))
    world.later(WEEK)
    assert not world.listed(SDIST)
    world.accept(world.approve("acme", "1.0", new))
    assert world.listed(SDIST)
    world.accept(world.publish("acme-2.0.tar.gz", by=new))
    assert "staged" not in world.file("acme-2.0.tar.gz")


def test_form() -> None:
    """An approve is about a project, a requirement about either, of a number that signatures can reach."""
    world = team()
    with pytest.raises(MalformedError, match="names no project"):
        world.entry(
            "approve", "namespace:corp",
            {"namespace": "corp", "version": "1.0", "files_sha256": "00" * 32, "decision": "approve"},
            {"approver": ALICE}, alice,
        )  # fmt: skip
    for needed in (16, True, None):
        with pytest.raises(MalformedError, match="illegal needed"):
            world.require("acme", needed, alice)
    with pytest.raises(MalformedError, match="neither a project nor a namespace"):
        world.require("", 1, alice)
    with pytest.raises(MalformedError, match="illegal decision"):
        world.approve("acme", "1.0", alice, decision="perhaps")


# --- pinned -----------------------------------------------------------------------------------------------
def story() -> World:
    """A staged release with a rejection, a further file, and a statement that is replayed."""
    world = team()
    world.accept(world.publish(WHEEL, by=alice))
    world.accept(world.verdict(WHEEL))
    world.accept(world.approve("acme", "1.0", alice))
    replayed = world.entries[-1]
    world.accept(world.publish(SDIST, by=bob, uploader=BOB))
    world.accept(world.verdict(SDIST))
    for entry in (replayed, world.approve("acme", "1.0", carol, ALICE)):
        world.put(rules.skip(world.view))
        world.entries.append(entry)
    world.accept(world.approve("acme", "1.0", carol, CAROL, decision="reject"))
    world.accept(world.approve("acme", "1.0", alice))
    world.accept(world.approve("acme", "1.0", bob, BOB))
    world.accept(world.approve("acme", "1.0", carol, CAROL))
    world.accept(world.require("acme", 0, alice, bob))
    return world


def test_the_pinned_log_replays_to_the_pinned_state() -> None:
    """Rule version 1 for ever, and the leaves are those of `story`."""
    log, found = replay_pinned("v1-approve")
    assert [code for _, code, _ in found] == ["prev-stale", "approver"]
    assert log == [entry.raw for entry in story().entries]
