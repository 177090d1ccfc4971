"""Rules about keys and owners, one by one; each refusal leaves the state as it was (World.refuse asserts it)."""

from __future__ import annotations

import pytest

from countermark import limits, rules
from tests.entrymaker import (
    ALICE,
    AUTHORITY_KEY,
    BOB,
    CAROL,
    MODERATION_KEY,
    MODERATOR,
    OTHER_MODERATOR,
    REGISTRY_KEY,
    SCANNER_KEY,
    WEEK,
    World,
    ed25519_signer,
    p256_signer,
)

alice, bob, carol = ed25519_signer("alice"), p256_signer("bob"), ed25519_signer("carol")
stranger = ed25519_signer("stranger")


@pytest.fixture
def world() -> World:
    """A registry with one signed project of Alice's."""
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    return world


# --- role keys ------------------------------------------------------------------------------------------
def test_role_keys_come_first_and_prev_of_each_roles_first_is_null() -> None:
    """The ceremony's three enrolments are the log's first entries; no leaf exists that they could name."""
    world = World()
    assert [entry.statement.predicate["prev"] for entry in world.entries] == [None, None, None]
    assert world.size == 3


def test_a_role_key_takes_the_authority_and_the_new_key() -> None:
    """Neither of them alone, nor anybody else beside them."""
    world = World(roles=False)
    for signers in (
        [REGISTRY_KEY],
        [AUTHORITY_KEY],
        [REGISTRY_KEY, stranger],
        [REGISTRY_KEY, AUTHORITY_KEY, bob],
    ):
        world.refuse("not-authorised", world.enroll_role("registry", REGISTRY_KEY, *signers))
    added = {"authorised_by": "registry"}
    world.refuse("authorised-by", world.enroll_role("registry", REGISTRY_KEY, registry=added), "log")
    world.refuse(
        "authorised-by", world.enroll_role("registry", REGISTRY_KEY, registry={"account": ALICE}), "log"
    )
    world.accept(world.enroll_role("registry", REGISTRY_KEY))


def test_later_role_entries_form_one_chain() -> None:
    """A second key of a role, and every revocation, follow the newest entry about role keys."""
    world = World()
    world.refuse("prev-stale", world.enroll_role("scanner", stranger, predicate={"prev": None}))
    world.accept(world.enroll_role("scanner", stranger))
    world.refuse("prev-stale", world.revoke("", SCANNER_KEY, AUTHORITY_KEY, prev=None))
    world.accept(world.revoke("", SCANNER_KEY, AUTHORITY_KEY))


def test_a_key_has_one_place() -> None:
    """A role key is neither enrolled twice nor used as a publisher's, nor the authority key as anything."""
    world = World()
    world.refuse("key-taken", world.enroll_role("scanner", REGISTRY_KEY))
    world.refuse("key-taken", world.enroll("acme", SCANNER_KEY, ALICE))
    world.refuse("key-taken", world.enroll("acme", AUTHORITY_KEY, ALICE))
    world.accept(world.enroll("acme", alice, ALICE))
    world.refuse("key-taken", world.enroll_role("scanner", alice))


def test_a_revoked_or_expired_role_key_signs_nothing() -> None:
    """Only the authority revokes role keys, once; then, or when its time is over, the key is refused."""
    world = World()
    world.accept(world.publish("plain-1.0.tar.gz"))
    for signer in (REGISTRY_KEY, SCANNER_KEY, MODERATION_KEY):
        world.refuse("not-authorised", world.revoke("", SCANNER_KEY, signer))
    world.refuse("key-unknown", world.revoke("", alice, AUTHORITY_KEY))
    world.accept(world.revoke("", SCANNER_KEY, AUTHORITY_KEY))
    world.refuse("key-revoked", world.revoke("", SCANNER_KEY, AUTHORITY_KEY))
    world.refuse("key-revoked", world.verdict("plain-1.0.tar.gz"))
    world.accept(world.enroll_role("scanner", stranger, predicate={"valid_for": 60}))
    world.later(59)
    world.accept(world.verdict("plain-1.0.tar.gz", by=stranger))
    world.later(1)
    world.refuse("key-expired", world.verdict("plain-1.0.tar.gz", by=stranger))


# --- first enrolment ------------------------------------------------------------------------------------
def test_the_first_key_works_at_once_and_is_unchained(world: World) -> None:
    """The first key of a project signs alone, makes its account the owner, and shows as unchained."""
    project = world.project("acme")
    item = project["keys"][alice.keyid]
    assert (project["owners"], project["signed"], item["chained"]) == ({ALICE: "owner"}, True, False)
    world.accept(world.publish("acme-1.0.tar.gz", by=alice))


def test_only_an_owner_enrols_the_first_key_of_a_project_that_has_owners(world: World) -> None:
    """A project published unsigned belongs to its uploader."""
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.refuse("not-an-owner", world.enroll("plain", bob, BOB), "log")
    world.refuse("not-an-owner", world.enroll("plain", bob, ALICE, registry={"account": None}), "log")
    world.accept(world.enroll("plain", bob, ALICE))


def test_the_new_key_signs_its_own_enrolment(world: World) -> None:
    """Nobody can enrol a key they do not hold."""
    from countermark.statement import sign

    entry = world.enroll("fresh", bob, BOB)
    envelope = sign(entry.statement, stranger)
    from countermark.entry import make_entry

    world.refuse(
        "not-authorised",
        make_entry(type="key-enroll", envelope=envelope, registry=entry.registry, time=world.time),
    )


def test_a_key_belongs_to_one_account(world: World) -> None:
    """One key may sign for several projects of one account, never for another account's."""
    world.accept(world.enroll("second", alice, ALICE))
    world.refuse("key-taken", world.enroll("theirs", alice, BOB))


def test_the_registry_vouches_alone_or_not_at_all(world: World) -> None:
    """authorised_by says `registry` only where no enrolled key signed, and never `authority` for publishers."""
    world.refuse(
        "authorised-by",
        world.enroll("acme", bob, ALICE, alice, registry={"authorised_by": "registry"}),
        "log",
    )
    world.refuse(
        "authorised-by", world.enroll("fresh", bob, BOB, registry={"authorised_by": "authority"}), "log"
    )
    world.refuse("authorised-by", world.enroll("fresh", bob, BOB, registry={"authorised_by": 3}), "log")


# --- rotation -------------------------------------------------------------------------------------------
def test_rotation_takes_an_enrolled_key(world: World) -> None:
    """A second key is signed by the first; the entry names whose enrolment authorised it."""
    world.refuse("key-unknown", world.enroll("acme", bob, ALICE, stranger, registry={"authorised_by": 3}))
    world.refuse(
        "authorised-by", world.enroll("acme", bob, ALICE, alice, registry={"authorised_by": 2}), "log"
    )
    world.refuse("prev-stale", world.enroll("acme", bob, ALICE, alice, predicate={"prev": None}))
    world.refuse("not-an-owner", world.enroll("acme", bob, BOB, alice), "log")
    world.accept(world.enroll("acme", bob, ALICE, alice))
    assert world.project("acme")["keys"][bob.keyid]["chained"]
    world.refuse("key-exists", world.enroll("acme", bob, ALICE, alice))


def test_k_of_n_keys_sign_a_change(world: World) -> None:
    """With threshold 2, one key changes nothing, and the threshold never exceeds the keys there are."""
    world.refuse("threshold", world.enroll("acme", bob, ALICE, alice, threshold=3))
    world.accept(world.enroll("acme", bob, ALICE, alice, threshold=2))
    world.refuse("not-authorised", world.enroll("acme", carol, ALICE, alice))
    world.refuse("not-authorised", world.owner("acme", "add", bob, account=BOB, role="owner"))
    world.accept(world.enroll("acme", carol, ALICE, alice, bob))
    world.accept(world.owner("acme", "add", bob, carol, account=BOB, role="owner"))


def test_revoking_does_not_lower_the_threshold(world: World) -> None:
    """One of two keys can't revoke the other and then act alone."""
    world.accept(world.enroll("acme", bob, ALICE, alice, threshold=2))
    world.accept(world.revoke("acme", bob, alice))
    world.refuse("not-authorised", world.enroll("acme", carol, ALICE, alice))


def test_an_expired_key_authorises_nothing_but_may_be_enrolled_again(world: World) -> None:
    """valid_for bounds a key for every use; a valid key brings it back."""
    world.accept(world.enroll("acme", bob, ALICE, alice, valid_for=10))
    world.later(10)
    world.refuse("key-expired", world.enroll("acme", carol, ALICE, bob))
    world.accept(world.enroll("acme", bob, ALICE, alice, valid_for=10))
    world.accept(world.publish("acme-1.0.tar.gz", by=bob))


def test_a_project_has_a_bounded_number_of_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """State stays small: beyond the limit, old keys must be revoked first."""
    monkeypatch.setattr("countermark.rules_keys.KEYS_MAX", 2)
    assert limits.KEYS_MAX == 256
    world.accept(world.enroll("acme", bob, ALICE, alice))
    world.refuse("too-many-keys", world.enroll("acme", carol, ALICE, alice))
    world.accept(world.revoke("acme", bob, alice))
    world.accept(world.enroll("acme", carol, ALICE, alice))


# --- namespaces -----------------------------------------------------------------------------------------
def test_a_namespace_guards_its_projects_keys(world: World) -> None:
    """A project's first key in a namespace with keys takes one of them, or a week."""
    world.refuse("namespace-unknown", world.enroll("tool", bob, BOB, namespace="corp"))
    world.accept(world.enroll("", bob, BOB, namespace="corp"))
    world.refuse("not-an-owner", world.enroll("tool", carol, CAROL, bob, namespace="corp"), "log")
    world.accept(world.enroll("tool", carol, BOB, bob, namespace="corp"))
    world.accept(world.publish("tool-1.0.tar.gz", by=carol, namespace="corp", uploader=BOB))
    world.accept(world.enroll("other", stranger, BOB, namespace="corp"))
    assert world.project("other", "corp")["keys"] == {}
    assert world.project("other", "corp")["recovery"]["keyid"] == stranger.keyid
    world.accept(world.owner("other", "veto", bob, namespace="corp", actor=BOB))


# --- recovery and veto ----------------------------------------------------------------------------------
def test_recovery_waits_seven_days(world: World) -> None:
    """Without an old key the new one works after a week, and may then act alone."""
    world.accept(world.enroll("acme", bob, ALICE, alice, threshold=2))
    world.refuse("not-an-owner", world.enroll("acme", carol, CAROL), "log")
    world.refuse("threshold", world.enroll("acme", carol, ALICE, threshold=2))
    world.accept(world.enroll("acme", carol, ALICE))
    recovery = world.size - 1
    world.refuse("recovery-pending", world.enroll("acme", stranger, ALICE))
    world.later(WEEK - 1)
    world.refuse("key-pending", world.publish("acme-1.0.tar.gz", by=carol, registry={"key_index": recovery}))
    world.accept(world.publish("acme-0.9.tar.gz", by=alice))
    world.later(1)
    world.accept(world.publish("acme-1.0.tar.gz", by=carol))
    assert world.file("acme-1.0.tar.gz")["key_index"] == recovery
    world.accept(world.owner("acme", "signing-off", carol))
    assert world.project("acme")["recovery"] is None
    assert not world.project("acme")["keys"][carol.keyid]["chained"]


def test_an_old_key_vetoes_within_the_week(world: World) -> None:
    """One valid key is enough; afterwards nobody acts until moderators decide."""
    world.refuse("no-recovery", world.owner("acme", "veto", alice))
    world.accept(world.enroll("acme", carol, ALICE))
    world.refuse("key-unknown", world.owner("acme", "veto", carol))
    world.refuse("key-unknown", world.owner("acme", "veto", stranger))
    world.refuse("key-unknown", world.owner("acme", "veto", REGISTRY_KEY))
    world.later(WEEK - 1)
    world.accept(world.owner("acme", "veto", alice))
    world.later(2)
    world.refuse("no-recovery", world.owner("acme", "veto", alice))
    for entry in (
        world.publish("acme-1.0.tar.gz", by=alice),
        world.enroll("acme", bob, ALICE, alice),
        world.enroll("acme", bob, ALICE),
        world.revoke("acme", alice, REGISTRY_KEY),
        world.owner("acme", "add", alice, account=BOB, role="owner"),
        world.owner("acme", "signing-off", alice),
    ):
        world.refuse("project-frozen", entry)


def test_a_veto_after_the_week_is_too_late(world: World) -> None:
    """From the moment it takes effect the recovered key is a key like others."""
    world.accept(world.enroll("acme", carol, ALICE))
    world.later(WEEK)
    world.refuse("no-recovery", world.owner("acme", "veto", alice))


def test_who_may_veto(world: World) -> None:
    """A key the registry revoked may, one the owners revoked or that had expired before may not."""
    world.accept(world.enroll("acme", bob, ALICE, alice))
    world.accept(world.enroll("acme", stranger, ALICE, alice, valid_for=5))
    world.later(5)
    world.accept(world.revoke("acme", bob, alice))
    world.accept(world.revoke("acme", alice, REGISTRY_KEY, actor=None))
    world.accept(world.enroll("acme", carol, ALICE))
    world.refuse("key-revoked", world.owner("acme", "veto", bob))
    world.refuse("key-expired", world.owner("acme", "veto", stranger))
    world.refuse("signature-count", world.owner("acme", "veto", alice, bob))
    world.accept(world.owner("acme", "veto", alice))


def test_a_key_withdrawn_from_the_project_vetoes_by_its_namespace(world: World) -> None:
    """It is enrolled in both places, and valid in one."""
    world.accept(world.enroll("", bob, BOB, namespace="corp"))
    world.accept(world.enroll("tool", carol, BOB, bob, namespace="corp"))
    world.accept(world.enroll("tool", bob, BOB, carol, namespace="corp"))
    world.accept(world.revoke("tool", bob, carol, namespace="corp", actor=BOB))
    world.accept(world.enroll("tool", stranger, BOB, namespace="corp"))
    world.accept(world.owner("tool", "veto", bob, namespace="corp", actor=BOB))


def _dispute(world: World) -> None:
    world.accept(world.enroll("acme", carol, ALICE))
    world.accept(world.owner("acme", "veto", alice))


def _decide(world: World, role: str = "confirm", by=MODERATION_KEY, **more):
    said = {"account": ALICE, "role": role, "actor": MODERATOR, "second": OTHER_MODERATOR} | more
    return world.owner("acme", "decide", by, **said)


def test_two_moderators_decide_once(world: World) -> None:
    """Two different ones who own nothing here, signed by the moderation role, only while there is a dispute."""
    world.refuse("no-dispute", _decide(world))
    _dispute(world)
    world.refuse("no-dispute", _decide(world, account=BOB))
    world.refuse("key-unknown", _decide(world, by=alice))
    world.refuse("key-unknown", _decide(world, by=REGISTRY_KEY))
    world.refuse("two-moderators", _decide(world, second=None), "log")
    world.refuse("two-moderators", _decide(world, actor=None), "log")
    world.refuse("two-moderators", _decide(world, second=MODERATOR), "log")
    world.refuse("two-moderators", _decide(world, second=ALICE), "log")
    world.refuse("prev-stale", _decide(world, prev=None))
    world.accept(_decide(world))
    world.refuse("no-dispute", _decide(world))


def test_a_confirmed_recovery_replaces_the_old_keys(world: World) -> None:
    """The disputed key is the only one left, at once."""
    _dispute(world)
    world.accept(_decide(world, "confirm"))
    world.refuse("key-unknown", world.publish("acme-1.0.tar.gz", by=alice))
    world.accept(world.publish("acme-1.0.tar.gz", by=carol))


def test_a_rejected_recovery_leaves_the_old_keys(world: World) -> None:
    """The disputed key never counts, however long one waits."""
    _dispute(world)
    world.accept(_decide(world, "reject"))
    world.later(2 * WEEK)
    world.refuse("key-unknown", world.publish("acme-1.0.tar.gz", by=carol, registry={"key_index": 4}))
    world.accept(world.publish("acme-1.0.tar.gz", by=alice))


def test_only_a_decision_has_a_second_moderator(world: World) -> None:
    """`second` means nothing elsewhere, so it must be null there."""
    entry = world.owner("acme", "add", alice, account=BOB, role="owner", second=MODERATOR)
    world.refuse("two-moderators", entry, "log")


# --- revocation -----------------------------------------------------------------------------------------
def test_who_may_revoke(world: World) -> None:
    """An enrolled key (itself too) or the registry; never a stranger; and only an enrolled key, once."""
    world.accept(world.enroll("acme", bob, ALICE, alice))
    world.refuse("key-unknown", world.revoke("acme", alice, stranger))
    world.refuse("key-unknown", world.revoke("acme", stranger, alice))
    world.refuse("key-unknown", world.revoke("acme", alice, AUTHORITY_KEY))
    world.refuse("prev-stale", world.revoke("acme", alice, bob, prev=None))
    world.refuse("not-an-owner", world.revoke("acme", alice, bob, actor=BOB), "log")
    world.refuse("not-an-owner", world.revoke("acme", alice, bob, actor=None), "log")
    world.accept(world.revoke("acme", bob, bob))
    world.refuse("key-revoked", world.revoke("acme", bob, alice))
    world.accept(world.revoke("acme", alice, REGISTRY_KEY, actor=None))
    world.refuse("project-unknown", world.revoke("nothing", alice, REGISTRY_KEY))


def test_a_revoked_key_does_not_come_back(world: World) -> None:
    """Not in this project; and a compromised one nowhere."""
    world.accept(world.enroll("acme", bob, ALICE, alice))
    world.accept(world.revoke("acme", bob, alice))
    world.refuse("key-revoked", world.enroll("acme", bob, ALICE, alice))
    world.accept(world.enroll("second", bob, ALICE))
    world.accept(world.revoke("second", bob, bob, reason="compromised"))
    world.refuse("key-revoked", world.enroll("third", bob, ALICE))


def test_a_project_whose_keys_are_all_revoked_stays_signed(world: World) -> None:
    """The way back is recovery, not an unsigned upload."""
    world.accept(world.revoke("acme", alice, alice))
    world.refuse("signature-required", world.publish("acme-1.0.tar.gz"), "log")
    world.refuse("signature-required", world.owner("acme", "transfer", REGISTRY_KEY, account=BOB))


def test_files_of_a_compromised_key_become_held(world: World) -> None:
    """From compromised_since on, and only those of this key; a clear lets single files go."""
    world.accept(world.enroll("acme", bob, ALICE, alice))
    names = [f"acme-{number}.0.tar.gz" for number in range(1, 5)]
    for name, signer in zip(names, (alice, bob, alice, alice), strict=True):
        world.accept(world.publish(name, by=signer))
        world.accept(world.verdict(name))
    since = world.file(names[2])["index"]
    world.refuse("since-ahead", world.revoke("acme", alice, bob, since=world.size + 1))
    changes = world.accept(world.revoke("acme", alice, bob, since=since))
    assert [world.standing(name) for name in names] == ["ok", "ok", "held", "held"]
    assert [world.listed(name) for name in names] == [True, True, False, False]
    assert changes.files() == ()
    touched = list(rules.touched_files(world.view, changes))
    assert touched == [world.key(names[3]), world.key(names[2])]
    world.accept(world.decision("clear", names[2]))
    assert world.standing(names[2]) == "ok"
    assert world.listed(names[2])
    world.refuse("nothing-to-clear", world.decision("clear", names[0]))


def test_files_of_a_compromised_namespace_key_become_held(world: World) -> None:
    """A namespace's key is looked up where it was enrolled."""
    world.accept(world.enroll("", bob, BOB, namespace="corp"))
    world.accept(world.publish("tool-1.0.tar.gz", by=bob, namespace="corp", uploader=BOB))
    changes = world.accept(world.revoke("", bob, bob, namespace="corp", since=0, actor=BOB))
    assert world.standing("tool-1.0.tar.gz", "corp") == "held"
    assert list(rules.touched_files(world.view, changes)) == [world.key("tool-1.0.tar.gz", "corp")]
    world.accept(world.decision("clear", "tool-1.0.tar.gz", namespace="corp"))
    assert world.standing("tool-1.0.tar.gz", "corp") == "ok"
    with pytest.raises(ValueError, match="namespace"):
        rules.standing(world.file("tool-1.0.tar.gz", "corp"), world.project("tool", "corp"))


# --- owners ---------------------------------------------------------------------------------------------
def test_owners_of_a_signed_project_change_by_its_keys(world: World) -> None:
    """Not by the registry, not by a stranger; on behalf of an owner."""
    add = {"account": BOB, "role": "owner"}
    world.refuse("signature-required", world.owner("acme", "add", REGISTRY_KEY, **add))
    world.refuse("key-unknown", world.owner("acme", "add", stranger, **add))
    world.refuse("not-an-owner", world.owner("acme", "add", alice, actor=CAROL, **add), "log")
    world.refuse("prev-stale", world.owner("acme", "add", alice, prev=None, **add))
    world.refuse("project-unknown", world.owner("nothing", "add", alice, **add))
    world.accept(world.owner("acme", "add", alice, **add))
    world.refuse("owner-exists", world.owner("acme", "add", alice, **add))
    assert world.project("acme")["owners"] == {ALICE: "owner", BOB: "owner"}


def test_owners_of_an_unsigned_project_change_by_the_registry(world: World) -> None:
    """Where no key exists, the registry signs for an owner; alone."""
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.refuse("signature-required", world.owner("plain", "signing-off", REGISTRY_KEY))
    world.refuse(
        "not-an-owner", world.owner("plain", "transfer", REGISTRY_KEY, account=BOB, actor=BOB), "log"
    )
    world.accept(world.owner("plain", "transfer", REGISTRY_KEY, account=BOB))
    assert world.project("plain")["owners"] == {BOB: "owner"}


def test_a_maintainer_changes_no_owners(world: World) -> None:
    """Uploading is all that role is for: neither a project without keys nor one with keys changes hands by it."""
    world.accept(world.publish("plain-1.0.tar.gz"))
    for project, key in (("plain", REGISTRY_KEY), ("acme", alice)):
        world.accept(world.owner(project, "add", key, account=BOB, role="maintainer"))
        for action, account, role in (
            ("transfer", BOB, None),
            ("add", BOB, "owner"),
            ("remove", ALICE, None),
        ):
            entry = world.owner(project, action, key, account=account, role=role, actor=BOB)
            world.refuse("not-an-owner", entry, "log")
        assert world.project(project)["owners"] == {ALICE: "owner", BOB: "maintainer"}
    world.refuse("not-an-owner", world.owner("acme", "signing-off", alice, actor=BOB), "log")
    world.refuse("not-an-owner", world.enroll("plain", bob, BOB), "log")  # a first key takes an owner
    world.refuse("not-an-owner", world.enroll("acme", bob, BOB), "log")  # and so does a recovery
    world.accept(
        world.enroll("acme", bob, BOB, alice)
    )  # a key of a maintainer's, if an enrolled one signs too


def test_the_last_owner_cannot_leave(world: World) -> None:
    """Maintainers don't count; a transfer leaves exactly one."""
    world.refuse("last-owner", world.owner("acme", "remove", alice, account=ALICE))
    world.refuse("last-owner", world.owner("acme", "add", alice, account=ALICE, role="maintainer"))
    world.refuse("owner-unknown", world.owner("acme", "remove", alice, account=BOB))
    world.refuse("owner-exists", world.owner("acme", "transfer", alice, account=ALICE))
    world.accept(world.owner("acme", "add", alice, account=BOB, role="maintainer"))
    world.refuse("last-owner", world.owner("acme", "remove", alice, account=ALICE))
    world.accept(world.owner("acme", "add", alice, account=BOB, role="owner"))
    world.accept(world.owner("acme", "remove", alice, account=ALICE))
    world.accept(world.owner("acme", "transfer", alice, account=CAROL, actor=BOB))
    assert world.project("acme")["owners"] == {CAROL: "owner"}


def test_a_project_has_a_bounded_number_of_owners(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """State stays small."""
    monkeypatch.setattr("countermark.rules_keys.OWNERS_MAX", 1)
    world.refuse("too-many-owners", world.owner("acme", "add", alice, account=BOB, role="owner"))


def test_signing_ends_by_an_enrolled_key_only(world: World) -> None:
    """After signing-off the registry may sign again; the next signed publish makes the project signed again."""
    world.refuse("signature-required", world.owner("acme", "signing-off", REGISTRY_KEY))
    world.accept(world.owner("acme", "signing-off", alice))
    world.refuse("not-signing", world.owner("acme", "signing-off", alice))
    world.accept(world.publish("acme-1.0.tar.gz"))
    world.accept(world.owner("acme", "add", REGISTRY_KEY, account=BOB, role="owner"))
    world.refuse("not-authorised", world.owner("acme", "remove", REGISTRY_KEY, alice, account=BOB))
    world.accept(world.publish("acme-2.0.tar.gz", by=alice))
    world.refuse("signature-required", world.publish("acme-3.0.tar.gz"), "log")
