"""Rules about machines that publish; each refusal leaves the state as it was (World.refuse asserts it)."""

from __future__ import annotations

from typing import Any

import pytest

from countermark import limits, rules
from countermark.errors import MalformedError
from countermark.machine import is_identity, is_ref_pattern, why_not
from tests.cimaker import ISSUER, TRUSTS, by_run, enroll_run, identity, publisher, trust
from tests.entrymaker import (
    ALICE,
    BOB,
    MODERATION_KEY,
    MODERATOR,
    OTHER_MODERATOR,
    REGISTRY_KEY,
    WEEK,
    World,
    ed25519_signer,
    p256_signer,
    replay_pinned,
)

alice, bob, carol = ed25519_signer("alice"), p256_signer("bob"), ed25519_signer("carol")
run, other_run = ed25519_signer("run 1"), p256_signer("run 2")


@pytest.fixture
def world() -> World:
    """A signed project of Alice's that trusts the tags of one workflow, and a living one-run key."""
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(trust(world, "acme", alice))
    world.accept(enroll_run(world, "acme", run))
    return world


# --- trusted-publisher ------------------------------------------------------------------------------------
def test_a_publisher_is_trusted_by_an_enrolled_key() -> None:
    """No stranger's key, not the registry, nobody for a project without keys, no account that owns nothing."""
    world = World()
    world.refuse("project-unknown", trust(world, "acme", alice))
    world.accept(world.enroll("acme", alice, ALICE))
    world.refuse("key-unknown", trust(world, "acme", bob))
    world.refuse("key-unknown", trust(world, "acme", REGISTRY_KEY))
    world.refuse("not-an-owner", trust(world, "acme", alice, actor=BOB), "log")
    world.refuse("not-an-owner", trust(world, "acme", alice, actor=None), "log")
    world.refuse("authorised-by", trust(world, "acme", alice, authorised_by=1), "log")
    world.refuse("authorised-by", trust(world, "acme", alice, authorised_by="registry"), "log")
    world.refuse("prev-stale", trust(world, "acme", alice, prev=None))
    world.accept(trust(world, "acme", alice))
    assert publisher(world, "acme")["index"] == world.size - 1
    world.refuse("publisher-exists", trust(world, "acme", alice))


def test_k_of_n_keys_trust_a_publisher_and_one_withdraws() -> None:
    """Adding power takes the threshold, taking it away one key."""
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(world.enroll("acme", bob, ALICE, alice, threshold=2))
    world.refuse("not-authorised", trust(world, "acme", alice))
    world.accept(trust(world, "acme", alice, bob))
    world.accept(trust(world, "acme", bob, action="remove"))
    world.refuse("publisher-unknown", trust(world, "acme", bob, action="remove"))


def test_a_maintainer_trusts_nobody(world: World) -> None:
    """A maintainer may publish; whom the project trusts is for its owners."""
    world.accept(world.owner("acme", "add", alice, account=BOB, role="maintainer"))
    world.refuse("not-an-owner", trust(world, "acme", alice, actor=BOB, workflow="other.yml"), "log")


def test_the_registry_may_end_trust_and_never_begin_it(world: World) -> None:
    """As with keys: revoking is fail-safe."""
    world.refuse("key-unknown", trust(world, "acme", REGISTRY_KEY, workflow="theirs.yml"))
    world.accept(trust(world, "acme", REGISTRY_KEY, action="remove", actor=None))
    world.refuse("key-revoked", world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))


def test_the_projects_of_a_repository_can_be_found(world: World) -> None:
    """By its number and by its name, as long as one publisher is left, and never more than some."""
    keys = [("publisher", ISSUER, "id", "4711"), ("publisher", ISSUER, "name", "acme/widgets")]
    world.accept(trust(world, "acme", alice, workflow="nightly.yml"))
    world.accept(trust(world, "acme", alice, action="remove"))
    assert [world.view.get(key) for key in keys] == [{"projects": [["", "acme"]]}] * 2
    world.accept(trust(world, "acme", alice, workflow="nightly.yml", action="remove"))
    assert [world.view.get(key) for key in keys] == [{"projects": []}] * 2


def test_publishers_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """State stays small."""
    monkeypatch.setattr("countermark.rules_ci.PUBLISHERS_MAX", 1)
    monkeypatch.setattr("countermark.rules_ci.REPOSITORY_PROJECTS_MAX", 1)
    assert (limits.PUBLISHERS_MAX, limits.REPOSITORY_PROJECTS_MAX) == (64, 256)
    world.refuse("too-many-publishers", trust(world, "acme", alice, workflow="other.yml"))
    world.accept(world.enroll("second", carol, ALICE))
    world.refuse("too-many-publishers", trust(world, "second", carol))


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://*.example.com"},
        {"issuer": "http://ci.example.com"},
        {"issuer": "https://user@ci.example.com"},
        {"repository": "Acme/Widgets"},
        {"repository": "acme/*"},
        {"repository": "ada@example.com"},
        {"repository_id": ""},
        {"repository_id": "*"},
        {"workflow": "release.yml@main"},
        {"ref": "refs/pull/1/merge"},
        {"ref": "refs/merge-requests/1/head"},
        {"ref": "*"},
        {"ref": "refs/tags/v*.0"},
        {"action": "replace"},
    ],
)
def test_what_no_publisher_can_be(world: World, said: dict[str, Any]) -> None:
    """No wildcard issuer or repository, no pull request, one spelling, nothing that could be an address."""
    with pytest.raises(MalformedError):
        trust(world, "acme", alice, **said)


# --- one-run keys -------------------------------------------------------------------------------------------
def test_a_one_run_key_publishes(world: World) -> None:
    """Authorised by the trusted publisher alone; the project's chain does not move, so jobs run side by side."""
    head = world.project("acme")["head"]
    world.accept(enroll_run(world, "acme", other_run))
    world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
    world.accept(world.publish("acme-2.0.tar.gz", by=other_run, registry=by_run(world, other_run)))
    assert world.project("acme")["head"] == head
    assert world.file("acme-1.0.tar.gz")["keyid"] == run.keyid


def test_a_one_run_key_lives_fifteen_minutes(world: World) -> None:
    """And no enrolment can say longer, or for ever."""
    world.later(899)
    world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
    world.later(1)
    world.refuse("key-expired", world.publish("acme-2.0.tar.gz", by=run, registry=by_run(world, run)))
    for valid_for in (901, None, 0):
        with pytest.raises(MalformedError):
            enroll_run(world, "acme", other_run, valid_for=valid_for)  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        enroll_run(world, "acme", other_run, predicate={"threshold": 2})


@pytest.mark.parametrize(
    "about",
    [
        {"repository": "mallory/widgets", "repository_id": "666"},
        {"repository": "acme/renamed"},
        {"repository_id": "4712"},
        {"workflow": "other.yml"},
        {"issuer": "https://gitlab.com"},
        {"ref": "refs/heads/main"},
        {"ref": None},
    ],
)
def test_another_jobs_identity_enrols_nothing(world: World, about: dict[str, Any]) -> None:
    """A fork, a renamed repository, a name taken over, another workflow, issuer or ref: the log's fault."""
    world.refuse("identity-mismatch", enroll_run(world, "acme", other_run, **about), "log")
    world.refuse(
        "identity-mismatch",
        world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run, **about)),
        "log",
    )


def test_what_a_one_run_enrolment_must_say(world: World) -> None:
    """The publisher's entry, its account, an identity; signed by the new key alone."""
    for registry in ({"identity": None}, {"account": BOB}, {"account": None}):
        world.refuse("identity-mismatch", enroll_run(world, "acme", other_run, registry=registry), "log")
    for by in ("registry", "authority", 3, 99):
        entry = enroll_run(world, "acme", other_run, registry={"authorised_by": by})
        world.refuse("publisher-unknown", entry, "log")
    world.refuse("prev-stale", enroll_run(world, "acme", other_run, predicate={"prev": None}))
    world.refuse("not-authorised", enroll_run(world, "acme", other_run, alice))
    world.refuse("key-taken", enroll_run(world, "acme", alice))
    world.refuse("key-taken", enroll_run(world, "acme", run))
    world.refuse(
        "identity-mismatch", world.enroll("acme", bob, ALICE, alice, registry={"identity": identity()}), "log"
    )


def test_a_one_run_key_signs_files_and_nothing_else(world: World) -> None:
    """Whoever controls a job adds no key, no owner, no publisher, and withdraws nothing."""
    world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
    index = world.view.get(("enrolment", "", "acme", run.keyid))["index"]
    for entry in (
        world.enroll("acme", bob, ALICE, run, registry={"authorised_by": index}),
        trust(world, "acme", run, workflow="theirs.yml", authorised_by=index),
        world.owner("acme", "add", run, account=BOB, role="owner"),
        world.owner("acme", "signing-off", run),
        world.require("acme", 1, run),
        world.revoke("acme", alice, run),
        world.owner_act("yank", "acme-1.0.tar.gz", by=run),
        world.owner_act("remove", "acme-1.0.tar.gz", by=run),
    ):
        world.refuse("ci-key", entry)
    world.accept(world.attest("acme-1.0.tar.gz", by=run))
    world.accept(world.require("acme", 1, alice))
    world.accept(world.publish("acme-2.0.tar.gz", by=run, registry=by_run(world, run)))
    world.refuse("ci-key", world.approve("acme", "2.0", run))


def test_a_one_run_key_never_comes_back(world: World) -> None:
    """Not as a person's key either, and it vetoes nothing, not even once the registry revoked it."""
    world.refuse("key-taken", world.enroll("acme", run, ALICE, alice))
    world.refuse("key-taken", world.enroll("fresh", run, ALICE))
    world.accept(world.revoke("acme", run, REGISTRY_KEY, actor=None))
    world.accept(world.enroll("acme", carol, ALICE))  # a recovery
    world.refuse("ci-key", world.owner("acme", "veto", run))


def test_trust_that_ends_ends_living_keys(world: World) -> None:
    """Added again it is another entry, which the old key did not come by."""
    world.accept(trust(world, "acme", alice, action="remove"))
    entry = world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run) | {"identity": None})
    world.refuse("key-revoked", entry)
    world.accept(trust(world, "acme", alice))
    world.refuse("key-revoked", world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))


def test_a_revoked_one_run_key_holds_what_it_published(world: World) -> None:
    """A leaked job key is revoked like any, after its fifteen minutes, too."""
    world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
    world.later(WEEK)
    world.accept(world.revoke("acme", run, alice, since=world.file("acme-1.0.tar.gz")["index"]))
    assert world.standing("acme-1.0.tar.gz") == "held"
    world.refuse("key-revoked", world.revoke("acme", run, alice))


def test_a_full_project_revokes_no_one_run_key_with_a_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaves a line in the project's state for ever, and there is room for some."""
    monkeypatch.setattr("countermark.rules_ci.KEYS_MAX", 1)
    world.refuse("too-many-keys", world.revoke("acme", run, alice, since=0))
    world.accept(world.revoke("acme", run, alice))


def test_publishers_outlive_who_added_them(world: World) -> None:
    """They are the project's: an owner who left is still named, and the job still publishes."""
    world.accept(world.owner("acme", "transfer", alice, account=BOB))
    world.accept(enroll_run(world, "acme", other_run))
    world.accept(world.publish("acme-1.0.tar.gz", by=other_run, registry=by_run(world, other_run)))
    entry = world.publish("acme-2.0.tar.gz", by=run, uploader=BOB, registry=by_run(world, run))
    world.refuse("identity-mismatch", entry, "log")


def test_a_confirmed_recovery_trusts_nobody(world: World) -> None:
    """Whoever held the old keys chose the publishers."""
    world.accept(world.enroll("acme", carol, ALICE))
    world.accept(world.owner("acme", "veto", alice))
    world.refuse("project-frozen", enroll_run(world, "acme", other_run))
    world.refuse("project-frozen", trust(world, "acme", alice, workflow="other.yml"))
    entry = world.owner(
        "acme",
        "decide",
        MODERATION_KEY,
        account=ALICE,
        role="confirm",
        actor=MODERATOR,
        second=OTHER_MODERATOR,
    )
    world.accept(entry)
    assert "publishers" not in world.project("acme")
    world.refuse("key-revoked", world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))


def test_a_namespaces_publisher_is_good_for_its_projects() -> None:
    """The first file of a new project in it, too."""
    world = World()
    world.accept(world.enroll("", alice, ALICE, namespace="corp"))
    world.accept(trust(world, "", alice, namespace="corp"))
    world.accept(enroll_run(world, "tool", run, namespace="corp"))
    index = world.view.get(("enrolment", "corp", "tool", run.keyid))["index"]
    registry = {"key_index": index, "identity": identity()}
    world.accept(world.publish("tool-1.0.tar.gz", by=run, namespace="corp", registry=registry))
    world.accept(enroll_run(world, "tool", other_run, namespace="corp"))
    assert world.standing("tool-1.0.tar.gz", "corp") == "ok"


def test_an_unsigned_upload_by_a_job_is_named(world: World) -> None:
    """Where owners ended signing, the registry signs in their place, and the entry says which job brought it."""
    in_place = {"key_index": None, "identity": identity()}
    world.refuse("signature-required", world.publish("acme-1.0.tar.gz", registry=in_place), "log")
    world.accept(world.owner("acme", "signing-off", alice))
    world.accept(world.publish("acme-1.0.tar.gz", registry=in_place))
    wrong = {"key_index": None, "identity": identity(repository_id="1")}
    world.refuse("identity-mismatch", world.publish("acme-2.0.tar.gz", registry=wrong), "log")
    world.refuse("identity-mismatch", world.publish("plain-1.0.tar.gz", registry=in_place), "log")


# --- identities ---------------------------------------------------------------------------------------------
def test_an_identity_holds_no_person() -> None:
    """No member takes an address, and a person is a digest or nothing."""
    assert is_identity(identity())
    assert is_identity(identity(ref=None, run=None, sha=None, actor=None, workflow="-"))
    for name in ("actor", "issuer", "ref", "repository", "repository_id", "run", "sha", "workflow"):
        assert not is_identity(identity(**{name: "ada@example.com"}))
    assert not is_identity(identity() | {"login": "ada"})
    assert not is_identity({})


@pytest.mark.parametrize(
    ("pattern", "ref", "fits"),
    [
        (None, "refs/heads/main", True),
        (None, None, True),
        ("refs/tags/*", "refs/tags/v1", True),
        ("refs/tags/*", "refs/heads/tags/v1", False),
        ("refs/tags/v*", "refs/tags/w1", False),
        ("refs/heads/main", "refs/heads/main", True),
        ("refs/heads/main", "refs/heads/main2", False),
        ("refs/heads/main", None, False),
    ],
)
def test_patterns_of_refs(pattern: str | None, ref: str | None, fits: bool) -> None:
    """A star ends a pattern and takes any rest; without one it is equal or it isn't."""
    assert pattern is None or is_ref_pattern(pattern)
    assert (why_not(TRUSTS | {"ref": pattern}, identity(ref=ref)) is None) is fits


def test_the_pinned_log_of_a_job_replays_to_the_pinned_state() -> None:
    """Rule version 1 for ever: trust, two one-run keys, a publish, a revocation, and four broken entries."""
    log, found = replay_pinned("v1-ci")
    assert [code for _, code, _ in found] == ["identity-mismatch", "ci-key", "key-expired", "key-revoked"]
    assert len(log) == rules_story().size


def rules_story() -> World:
    """What the vector holds; its ECDSA signatures are only there."""
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(trust(world, "acme", alice))
    world.accept(enroll_run(world, "acme", run))
    world.accept(enroll_run(world, "acme", other_run))
    world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
    _broken(world, enroll_run(world, "acme", carol, repository_id="4712"))
    _broken(world, world.owner_act("yank", "acme-1.0.tar.gz", by=run))
    world.later(900)
    _broken(world, world.publish("acme-2.0.tar.gz", by=run, registry=by_run(world, run)))
    world.accept(world.revoke("acme", run, alice, since=world.file("acme-1.0.tar.gz")["index"]))
    world.accept(trust(world, "acme", alice, action="remove"))
    _broken(world, world.publish("acme-3.0.tar.gz", by=run, registry=by_run(world, run) | {"identity": None}))
    return world


def _broken(world: World, entry: Any) -> None:
    """A leaf that takes its place and changes nothing."""
    assert isinstance(rules.apply(world.view, entry), rules.Broken)
    world.put(rules.skip(world.view))
    world.entries.append(entry)
