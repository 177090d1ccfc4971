"""Rules about files, one by one; each refusal leaves the state as it was (World.refuse asserts it)."""

from __future__ import annotations

import pytest

from countermark import rules
from countermark.errors import MalformedError
from tests.entrymaker import (
    ALICE,
    BOB,
    CAROL,
    MODERATION_KEY,
    MODERATOR,
    REGISTRY_KEY,
    SCANNER_KEY,
    World,
    digest,
    ed25519_signer,
    p256_signer,
)

WHEEL = "acme-1.0-py3-none-any.whl"
SDIST = "acme-1.0.tar.gz"
alice, bob, stranger = ed25519_signer("alice"), p256_signer("bob"), ed25519_signer("stranger")


@pytest.fixture
def world() -> World:
    """A registry with one unsigned project (plain) and one signed one (acme), a file in each."""
    world = World()
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(world.publish(WHEEL, by=alice))
    return world


# --- publish --------------------------------------------------------------------------------------------
def test_first_publish_makes_the_uploader_the_first_owner(world: World) -> None:
    """Whoever publishes first to a project without owners owns it."""
    assert world.project("plain")["owners"] == {ALICE: "owner"}
    assert not world.project("plain")["signed"]


def test_file_state_holds_what_a_target_needs(world: World) -> None:
    """A published file is known by hash, length, version, index and leaf hash."""
    file, entry = world.file(WHEEL), world.entries[-1]
    assert file["sha256"] == entry.statement.subject_sha256
    assert (file["length"], file["version"], file["index"]) == (1000 + len(WHEEL), "1.0", 5)
    assert file["lh"] == entry.leaf_hash.hex() == file["owner_head"] == file["registry_head"]
    assert rules.target_path(file) == f"files/acme/{WHEEL}"


def test_a_file_name_is_new_for_ever(world: World) -> None:
    """The same name, the same bytes or not, and any spelling an installer takes for it, is refused."""
    world.refuse("file-exists", world.publish(WHEEL, by=alice))
    world.refuse("file-exists", world.publish(WHEEL, by=alice, content="other bytes"))
    world.refuse("file-exists", world.publish("Acme-1.0.0-py3-none-any.whl", by=alice))
    world.accept(world.owner_act("remove", WHEEL, by=alice))
    world.refuse("file-exists", world.publish(WHEEL, by=alice))


def test_the_same_bytes_in_another_project_are_another_leaf(world: World) -> None:
    """Uniqueness is by project and file name, not by content."""
    world.accept(world.publish("copy-1.0.tar.gz", content="plain-1.0.tar.gz"))


def test_only_an_owner_may_upload(world: World) -> None:
    """An account that owns nothing in the project can't be the uploader; the log is to blame for saying so."""
    world.refuse("not-an-owner", world.publish(SDIST, by=alice, uploader=BOB), "log")
    world.refuse("not-an-owner", world.publish("plain-2.0.tar.gz", uploader=BOB), "log")


def test_a_maintainer_may_upload(world: World) -> None:
    """The role maintainer is enough to publish."""
    world.accept(world.owner("plain", "add", REGISTRY_KEY, account=BOB, role="maintainer"))
    world.accept(world.publish("plain-2.0.tar.gz", uploader=BOB))


def test_a_project_that_signs_stays_signed(world: World) -> None:
    """Once a key is enrolled the registry can't sign in the publisher's place."""
    world.refuse("signature-required", world.publish(SDIST), "log")


def test_a_publish_by_an_unknown_key_is_refused(world: World) -> None:
    """Nobody but enrolled keys and the registry signs a publish; another project's key doesn't either."""
    world.refuse("key-unknown", world.publish(SDIST, by=stranger))
    world.refuse("key-unknown", world.publish("plain-2.0.tar.gz", by=alice))
    world.refuse("key-unknown", world.publish("plain-2.0.tar.gz", by=SCANNER_KEY))


def test_a_publish_by_an_expired_key_is_refused(world: World) -> None:
    """A key's validity is judged at the leaf's time."""
    world.accept(world.enroll("acme", bob, ALICE, alice, valid_for=100))
    world.later(99)
    world.accept(world.publish(SDIST, by=bob))
    world.later(1)
    world.refuse("key-expired", world.publish("acme-2.0.tar.gz", by=bob))


def test_a_publish_by_a_revoked_key_is_refused(world: World) -> None:
    """After its revocation a key publishes nothing."""
    world.accept(world.revoke("acme", alice, alice))
    world.refuse("key-revoked", world.publish(SDIST, by=alice, registry={"key_index": 4}))


def test_a_publish_names_its_enrolment(world: World) -> None:
    """key_index is the enrolment of the key that signed, null for the registry's."""
    world.refuse("key-index", world.publish(SDIST, by=alice, registry={"key_index": 3}), "log")
    world.refuse("key-index", world.publish(SDIST, by=alice, registry={"key_index": None}), "log")
    world.refuse("key-index", world.publish("plain-2.0.tar.gz", registry={"key_index": 0}), "log")


def test_a_signature_over_other_bytes_is_refused(world: World) -> None:
    """The signature is checked here, whoever checked it before."""
    from dataclasses import replace

    entry, other = world.publish(SDIST, by=alice), world.publish("acme-2.0.tar.gz", by=alice)
    forged = replace(entry, envelope=replace(entry.envelope, signatures=other.envelope.signatures))
    world.refuse("signature-false", forged.at(world.time))


def test_one_statement_one_signature(world: World) -> None:
    """A second signature on a publish is an attest entry, not a decoration."""
    said = {"project": "acme", "version": "1.0", "length": 1, "metadata_sha256": digest("m")}
    added = {"uploader": ALICE, "key_index": 4, "identity": None}
    entry = world.entry("publish", SDIST, said | {"record_sha256": None}, added, alice, stranger)
    world.refuse("signature-count", entry)


def test_an_unheard_of_namespace_takes_no_files(world: World) -> None:
    """A namespace exists once a key was enrolled for it."""
    world.refuse("namespace-unknown", world.publish("corp-1.0.tar.gz", namespace="corp"))


def test_a_namespace_covers_its_projects(world: World) -> None:
    """A namespace's key publishes any project in it, its accounts may upload, and its projects must sign."""
    world.accept(world.enroll("", bob, BOB, namespace="corp"))
    world.refuse("not-an-owner", world.publish("tool-1.0.tar.gz", by=bob, namespace="corp"), "log")
    world.refuse(
        "signature-required", world.publish("tool-1.0.tar.gz", namespace="corp", uploader=BOB), "log"
    )
    world.accept(world.publish("tool-1.0.tar.gz", by=bob, namespace="corp", uploader=BOB))
    assert world.project("tool", "corp")["owners"] == {BOB: "owner"}
    assert world.file("tool-1.0.tar.gz", "corp")["level"] == "namespace"
    world.refuse("key-unknown", world.publish("tool-1.0.tar.gz", by=bob, uploader=BOB))


def test_two_namespaces_never_share_a_target(world: World) -> None:
    """Whoever opens a namespace can't list other bytes under a name that a signed project owns."""
    world.accept(world.enroll("", bob, BOB, namespace="corp"))
    world.accept(world.publish(WHEEL, by=bob, namespace="corp", uploader=BOB, content="other bytes"))
    paths = [rules.target_path(world.file(WHEEL, namespace)) for namespace in ("", "corp")]
    assert paths == [f"files/acme/{WHEEL}", f"files/corp.acme/{WHEEL}"]
    # No project's own name has a dot, so neither path can be read as the other kind.
    with pytest.raises(MalformedError):
        world.publish("plain-2.0.tar.gz", predicate={"project": "corp.acme"})


def test_a_publish_to_a_frozen_project_is_refused(world: World) -> None:
    """A vetoed recovery freezes the project for both sides."""
    world.accept(world.enroll("acme", bob, ALICE))
    world.accept(world.owner("acme", "veto", alice))
    world.refuse("project-frozen", world.publish(SDIST, by=alice))
    world.refuse("project-frozen", world.owner_act("yank", WHEEL, by=alice))


# --- the owner's side -----------------------------------------------------------------------------------
def test_attest_names_the_publish_entry(world: World) -> None:
    """A further signature belongs to one logged file."""
    world.refuse("about-mismatch", world.attest(WHEEL, by=alice, predicate={"about": "11" * 32}))
    world.accept(world.attest(WHEEL, by=alice))
    world.accept(world.attest(WHEEL))
    assert world.file(WHEEL)["owner_head"] == world.entries[-1].leaf_hash.hex()


@pytest.mark.parametrize("kind", ["attest", "yank", "unyank", "remove"])
def test_owner_entries_need_a_published_file_and_the_right_one(world: World, kind: str) -> None:
    """The file exists, under this spelling and with this hash."""
    make = world.attest if kind == "attest" else lambda name, **more: world.owner_act(kind, name, **more)
    if kind == "unyank":
        world.accept(world.owner_act("yank", WHEEL, by=alice))
    world.refuse("file-unknown", make("acme-9.0.tar.gz", by=alice))
    world.refuse("file-mismatch", make(WHEEL, by=alice, content="other bytes"))
    world.refuse("file-mismatch", make(WHEEL, by=alice, subject="ACME-1.0-py3-none-any.whl"))
    world.refuse("prev-stale", make(WHEEL, by=alice, predicate={"prev": "22" * 32}))
    world.refuse("prev-stale", make(WHEEL, by=alice, predicate={"prev": None}))
    world.refuse("key-unknown", make(WHEEL, by=MODERATION_KEY))
    world.accept(make(WHEEL, by=alice))


def test_a_statement_cannot_be_replayed(world: World) -> None:
    """A yank that was undone can't be sent again: prev has moved on."""
    yank = world.owner_act("yank", WHEEL, by=alice)
    world.accept(yank)
    world.accept(world.owner_act("unyank", WHEEL, by=alice))
    world.refuse("prev-stale", yank)


def test_yank_and_unyank_alternate(world: World) -> None:
    """yank needs a file that isn't, unyank one that is."""
    world.refuse("not-yanked", world.owner_act("unyank", WHEEL, by=alice))
    world.accept(world.owner_act("yank", WHEEL, by=alice))
    assert world.standing(WHEEL) == "yanked"
    world.refuse("already-yanked", world.owner_act("yank", WHEEL, by=alice))
    world.accept(world.owner_act("unyank", WHEEL, by=alice))
    assert world.standing(WHEEL) == "ok"


def test_a_removed_file_stays_removed(world: World) -> None:
    """Nothing on the owner's side follows a remove but an attestation."""
    world.accept(world.owner_act("remove", WHEEL, by=alice))
    assert world.standing(WHEEL) == "removed"
    for kind in ("yank", "unyank", "remove"):
        world.refuse("already-removed", world.owner_act(kind, WHEEL, by=alice))
    world.accept(world.attest(WHEEL, by=alice))


def test_the_registry_may_act_in_an_owners_place(world: World) -> None:
    """The registry signs for an account that owns the project, never for another or nobody."""
    world.refuse("not-an-owner", world.owner_act("yank", WHEEL, actor=BOB), "log")
    world.refuse("not-an-owner", world.owner_act("yank", WHEEL, actor=None), "log")
    world.refuse("not-an-owner", world.owner_act("yank", WHEEL, by=alice, actor=CAROL), "log")
    world.accept(world.owner_act("yank", WHEEL, actor=ALICE))


# --- the registry's side --------------------------------------------------------------------------------
def test_a_file_is_listed_once_a_verdict_lets_it_through(world: World) -> None:
    """No verdict: not listed. none and note: listed. queue and block: not. The newest wins."""
    assert not world.listed(WHEEL)
    for tier, listed in (("none", True), ("queue", False), ("note", True), ("block", False), ("none", True)):
        world.accept(world.verdict(WHEEL, tier))
        assert world.listed(WHEEL) is listed
        assert world.standing(WHEEL) == "ok"


def test_only_the_scanner_gives_verdicts(world: World) -> None:
    """A verdict is signed by the scanner role."""
    for signer in (alice, REGISTRY_KEY, MODERATION_KEY, stranger):
        world.refuse("key-unknown", world.verdict(WHEEL, by=signer))


def test_only_moderators_decide(world: World) -> None:
    """hold by moderation or (automatically) the registry; clear and takedown by moderation only."""
    for kind in ("hold", "clear", "takedown"):
        world.refuse("key-unknown", world.decision(kind, WHEEL, by=SCANNER_KEY))
        world.refuse("key-unknown", world.decision(kind, WHEEL, by=alice))
    for kind in ("clear", "takedown"):
        world.refuse("key-unknown", world.decision(kind, WHEEL, by=REGISTRY_KEY, moderator=None))
    world.accept(world.decision("hold", WHEEL, by=REGISTRY_KEY, moderator=None))


def test_a_decision_says_which_moderator(world: World) -> None:
    """A pseudonym where moderation signs, none where the registry holds automatically."""
    world.refuse("moderator", world.decision("hold", WHEEL, moderator=None), "log")
    world.refuse("moderator", world.decision("hold", WHEEL, by=REGISTRY_KEY, moderator=MODERATOR), "log")


def test_nobody_decides_on_their_own_project(world: World) -> None:
    """A moderator who owns the project is refused."""
    for kind in ("hold", "clear", "takedown"):
        world.refuse("own-project", world.decision(kind, WHEEL, moderator=ALICE))


@pytest.mark.parametrize("kind", ["verdict", "hold", "clear", "takedown"])
def test_registry_entries_need_a_published_file_and_the_right_one(world: World, kind: str) -> None:
    """The file exists, under this spelling and with this hash, and prev is the newest of the registry's side."""
    make = world.verdict if kind == "verdict" else lambda name, **more: world.decision(kind, name, **more)
    if kind == "clear":
        world.accept(world.decision("hold", WHEEL))
    world.refuse("file-unknown", make("acme-9.0.tar.gz"))
    world.refuse("file-mismatch", make(WHEEL, content="other bytes"))
    world.refuse("file-mismatch", make(WHEEL, subject="ACME-1.0-py3-none-any.whl"))
    world.refuse("prev-stale", make(WHEEL, predicate={"prev": "22" * 32}))
    world.accept(make(WHEEL))


def test_hold_clear_takedown_and_a_won_appeal(world: World) -> None:
    """A clear undoes holds and takedowns; listing returns by the same bytes."""
    world.accept(world.verdict(WHEEL, "queue"))
    world.accept(world.decision("hold", WHEEL))
    assert (world.standing(WHEEL), world.listed(WHEEL)) == ("held", False)
    world.refuse("already-held", world.decision("hold", WHEEL))
    world.accept(world.decision("clear", WHEEL))
    assert (world.standing(WHEEL), world.listed(WHEEL)) == ("ok", True)
    world.refuse("nothing-to-clear", world.decision("clear", WHEEL))
    world.accept(world.decision("takedown", WHEEL))
    assert (world.standing(WHEEL), world.listed(WHEEL)) == ("removed", False)
    world.refuse("already-removed", world.decision("takedown", WHEEL))
    world.refuse("already-removed", world.decision("hold", WHEEL))
    world.accept(world.decision("clear", WHEEL))
    assert (world.standing(WHEEL), world.listed(WHEEL)) == ("ok", True)


def test_a_clear_covers_earlier_verdicts_only(world: World) -> None:
    """A verdict after the clear counts again."""
    world.accept(world.decision("hold", WHEEL))
    world.accept(world.decision("clear", WHEEL))
    assert not world.listed(WHEEL)
    world.accept(world.verdict(WHEEL, "block"))
    assert not world.listed(WHEEL)


def test_neither_side_invalidates_the_other(world: World) -> None:
    """A yank signed before a hold was logged is still good, and the strictest effect wins."""
    yank = world.owner_act("yank", WHEEL, by=alice)
    world.accept(world.decision("hold", WHEEL))
    world.accept(yank)
    assert world.standing(WHEEL) == "held"
    world.accept(world.decision("clear", WHEEL))
    assert world.standing(WHEEL) == "yanked"
    world.accept(world.decision("takedown", WHEEL))
    world.accept(world.owner_act("remove", WHEEL, by=alice))
    world.accept(world.decision("clear", WHEEL))
    assert world.standing(WHEEL) == "removed"


def test_a_yanked_file_stays_listed(world: World) -> None:
    """yanked is a warning to resolvers, not a withdrawal."""
    world.accept(world.verdict(WHEEL))
    world.accept(world.owner_act("yank", WHEEL, by=alice))
    assert world.listed(WHEEL)
    assert rules.target_custom(world.file(WHEEL))["yank"] == world.size - 1


def test_custom_names_the_newest_change_of_status(world: World) -> None:
    """A rescan that finds the same rewrites no target; whatever changes the status does."""

    def status() -> int:
        return rules.target_custom(world.file(WHEEL))["verdict"]

    assert status() is None
    world.accept(world.verdict(WHEEL))
    first = world.size - 1
    assert status() == first
    world.accept(world.verdict(WHEEL, "note"))
    assert status() == first
    world.accept(world.verdict(WHEEL, "queue"))
    assert status() == world.size - 1
    for kind in ("hold", "clear"):
        world.accept(world.decision(kind, WHEEL))
        assert status() == world.size - 1
    cleared = world.size - 1
    world.accept(world.verdict(WHEEL, "none"))
    assert status() == cleared
    assert rules.target_custom(world.file(WHEEL)) == {
        "i": 5,
        "lh": world.file(WHEEL)["lh"],
        "verdict": cleared,
        "yank": None,
    }


def test_changes_name_the_files_they_touch(world: World) -> None:
    """A consumer updates what changed and nothing else."""
    changes = world.accept(world.verdict(WHEEL))
    assert changes.files() == (world.key(WHEEL),)
    assert list(rules.touched_files(world.view, changes)) == [world.key(WHEEL)]
    assert world.accept(world.enroll("acme", bob, ALICE, alice)).files() == ()


def test_file_key_refuses_what_is_no_file_name() -> None:
    """Only wheels and source distributions have a place in the state."""
    with pytest.raises(MalformedError):
        rules.file_key("", "acme", "acme-1.0.exe")
