"""The door for owners' acts: who could withdraw somebody else's file, or revoke somebody else's key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.test import TestResponse

from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.tlog.proof import TlogProof
from tests.archives import wheel
from tests.doors import DoorWorld, Person
from tests.log_world import ORIGIN

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with a signed wheel of Grace's, and its log at work."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        assert grace.enrol("demo").status_code == 200
        assert grace.upload(WHEEL, wheel(), attestations=grace.attest(WHEEL, wheel())).status_code == 200
        yield made
    made.close()


@pytest.fixture
def grace(world: DoorWorld) -> Person:
    found: Person = world.grace  # type: ignore[attr-defined]
    return found


def shown(world: DoorWorld) -> dict[str, Any]:
    found: dict[str, Any] = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
    return found


def signed(world: DoorWorld, kind: str, key: KeySigner, **changes: Any) -> Envelope:
    """An owner's statement about the wheel, as its owner would make it but for `changes`."""
    file = shown(world)
    binding = {
        "origin": ORIGIN,
        "namespace": "",
        "project": "demo",
        "prev": file["prev"],
        "reason": "mistake",
    }
    return sign(Statement(WHEEL, file["sha256"], kind, {**binding, **changes}), key)


def revocation(world: DoorWorld, keyid: str, key: KeySigner, **changes: Any) -> Envelope:
    prev = world.client.get("/api/v1/projects/demo").get_json()["prev"]
    predicate = {
        "origin": ORIGIN, "namespace": "", "project": "demo", "prev": prev,
        "keyid": keyid, "reason": "retired", "compromised_since": None,
    }  # fmt: skip
    return sign(Statement.about(f"key:{keyid}", "key-revoke", {**predicate, **changes}), key)


def send(world: DoorWorld, envelope: Envelope, token: str) -> TestResponse:
    return world.client.post(
        "/api/v1/entries", json={"envelope": envelope.to_dict()}, headers={"Authorization": f"Bearer {token}"}
    )


def refused(world: DoorWorld, envelope: Envelope, token: str, code: str) -> None:
    """The door says no for this reason, and nothing anywhere has changed."""
    before = world.state()
    answer = send(world, envelope, token)
    assert answer.get_json()["code"] == code, answer.get_json()
    assert world.state() == before


def test_an_owner_withdraws_and_gives_back(world: DoorWorld, grace: Person) -> None:
    """yank, unyank, remove: each proved at once, each in the log under Grace's key and account."""
    for kind, standing in (("yank", "yanked"), ("unyank", "ok"), ("remove", "removed")):
        body = send(world, signed(world, kind, grace.key), grace.session).get_json()
        assert TlogProof.parse(body["proof"].encode()).index == body["index"]
        assert shown(world)["standing"] == standing
        raw = world.public.read(f"log/tile/entries/000.p/{world.published_size()}")
        assert raw is not None and grace.account.encode() in raw
    assert shown(world)["standing_reason"] == "mistake"
    world.check()


def test_a_stolen_upload_token_withdraws_nothing(world: DoorWorld, grace: Person) -> None:
    """Also not with a true statement of the owner's; nor does no token, or an unknown one."""
    for envelope in (signed(world, "remove", grace.key), revocation(world, grace.key.keyid, grace.key)):
        refused(world, envelope, grace.token, "session-required")
        refused(world, envelope, "cms_unknown", "not-authenticated")
        refused(world, envelope, "", "not-authenticated")
    bearer = {"Authorization": f"Bearer {grace.token}"}
    assert world.client.get(f"/api/v1/keys/{grace.key.keyid}", headers=bearer).status_code == 403


def test_somebody_elses_session_or_key_withdraws_nothing(world: DoorWorld, grace: Person) -> None:
    """Eve signed in: her own key is not enrolled, and with Grace's signature she is still no owner."""
    eve = world.person("eve")
    refused(world, signed(world, "yank", eve.key), eve.session, "key-unknown")
    refused(world, signed(world, "yank", grace.key), eve.session, "not-owner")
    refused(world, signed(world, "yank", eve.key), grace.session, "key-unknown")
    refused(world, revocation(world, grace.key.keyid, eve.key), eve.session, "key-unknown")
    refused(world, revocation(world, grace.key.keyid, grace.key), eve.session, "not-owner")


def test_a_statement_out_of_the_log_is_not_taken_again(world: DoorWorld, grace: Person) -> None:
    """The yank of last year after the unyank, the old unyank after a new yank: `prev` is of last year too."""
    old = [signed(world, "yank", grace.key)]
    assert send(world, old[0], grace.session).status_code == 200
    old.append(signed(world, "unyank", grace.key))
    assert send(world, old[1], grace.session).status_code == 200
    refused(world, old[0], grace.session, "prev-stale")
    assert shown(world)["standing"] == "ok"
    assert send(world, signed(world, "yank", grace.key), grace.session).status_code == 200
    refused(world, old[1], grace.session, "prev-stale")
    assert shown(world)["standing"] == "yanked"


@pytest.mark.parametrize("prev", [None, "0" * 64])
def test_a_statement_follows_the_newest_entry_or_nothing(
    world: DoorWorld, grace: Person, prev: str | None
) -> None:
    """Another predecessor than the newest of its side is refused, for files and for keys."""
    refused(world, signed(world, "yank", grace.key, prev=prev), grace.session, "prev-stale")
    refused(world, revocation(world, grace.key.keyid, grace.key, prev=prev), grace.session, "prev-stale")


def test_a_changed_statement_is_refused(world: DoorWorld, grace: Person) -> None:
    """A signature of another statement, another registry, another file under the name, a second signature."""
    true = signed(world, "yank", grace.key)
    false = Envelope(signed(world, "remove", grace.key).payload, true.signatures)
    refused(world, false, grace.session, "signature-invalid")
    elsewhere = signed(world, "yank", grace.key, origin="elsewhere.example")
    refused(world, elsewhere, grace.session, "statement-mismatch")
    predicate = Statement.parse(true.payload).predicate
    other = sign(Statement(WHEEL, "1" * 64, "yank", predicate), grace.key)
    refused(world, other, grace.session, "entry-refused")
    both = sign(Statement.parse(true.payload), grace.key, world.person("eve").key)
    refused(world, both, grace.session, "signature-count")
    refused(world, signed(world, "unyank", grace.key), grace.session, "entry-refused")  # not yanked


def test_nothing_but_owners_acts_passes_this_door(world: DoorWorld, grace: Person) -> None:
    """No hold, clear or takedown, whoever signed it; no enrolment; no revocation of the registry's own keys."""
    about = {"about": None, "evidence_sha256": None}
    for kind, reason in (("hold", "report"), ("clear", "reviewed"), ("takedown", "malware")):
        for key in (grace.key, world.roles["moderation"]):
            refused(
                world, signed(world, kind, key, reason=reason, **about), grace.session, "statement-invalid"
            )
    role = world.roles["moderation"].keyid
    refused(world, revocation(world, role, grace.key, project=""), grace.session, "statement-invalid")
    refused(world, revocation(world, role, world.authority, project=""), grace.session, "statement-invalid")


def test_a_revoked_key_acts_no_more(world: DoorWorld, grace: Person) -> None:
    """Once revoked it neither withdraws nor revokes; what it published after the compromise is held."""
    index = shown(world)["index"]
    bearer = {"Authorization": f"Bearer {grace.session}"}
    listed = world.client.get(f"/api/v1/keys/{grace.key.keyid}", headers=bearer).get_json()["enrolments"]
    assert [item["project"] for item in listed] == ["demo"]
    envelope = revocation(world, grace.key.keyid, grace.key, reason="compromised", compromised_since=index)
    revoked = send(world, envelope, grace.session).get_json()["index"]
    file = shown(world)
    assert (file["standing"], file["standing_entry"]) == ("held", revoked)
    assert file["standing_reason"] == "compromised"
    assert world.client.get(f"/packages/demo/{WHEEL}").status_code == 403
    refused(world, signed(world, "unyank", grace.key), grace.session, "key-revoked")
    answer = world.client.get(f"/api/v1/keys/{grace.key.keyid}", headers=bearer)
    assert answer.get_json()["enrolments"] == []
    assert world.client.get("/api/v1/keys/%25", headers=bearer).get_json()["code"] == "not-found"
    world.check()


# --- owners, recovery, veto -------------------------------------------------------------------------------
def owning(
    world: DoorWorld, key: KeySigner, action: str, account: str | None = None, role: str | None = None
) -> Envelope:
    """An `owner` statement about the project."""
    prev = world.client.get("/api/v1/projects/demo").get_json()["prev"]
    binding = {"origin": ORIGIN, "namespace": "", "project": "demo", "prev": prev}
    said = {"action": action, "account": account, "role": role}
    return sign(Statement.about("project:demo", "owner", {**binding, **said}), key)


def test_an_owner_lets_others_in_and_out(world: DoorWorld, grace: Person) -> None:
    """A maintainer uploads what an enrolled key signed and adds nobody; removed, is gone; the last owner stays."""
    lin = world.person("lin")
    assert (
        send(world, owning(world, grace.key, "add", lin.account, "maintainer"), grace.session).status_code
        == 200
    )
    name, data = "demo-2.0-py3-none-any.whl", wheel(version="2.0")
    assert lin.upload(name, data, attestations=grace.attest(name, data)).status_code == 200
    world.quiet()
    refused(world, owning(world, grace.key, "add", "ab" * 16, "owner"), lin.session, "not-owner")
    refused(world, owning(world, grace.key, "remove", grace.account), grace.session, "entry-refused")
    assert send(world, owning(world, grace.key, "remove", lin.account), grace.session).status_code == 200
    world.quiet()
    before = world.state()
    name, data = "demo-3.0-py3-none-any.whl", wheel(version="3.0")
    assert lin.upload(name, data, attestations=grace.attest(name, data)).get_json()["code"] == "not-owner"
    assert world.state() == before
    world.check()


def test_nobody_becomes_an_owner_by_a_stolen_token_or_key(world: DoorWorld, grace: Person) -> None:
    """The thief of the token has no session, the thief of the key is no owner; deciding is for moderators."""
    eve = world.person("eve")
    add = owning(world, grace.key, "add", eve.account, "owner")
    refused(world, add, grace.token, "session-required")
    refused(world, add, eve.session, "not-owner")
    refused(world, owning(world, eve.key, "add", eve.account, "owner"), grace.session, "key-unknown")
    refused(world, owning(world, eve.key, "signing-off"), grace.session, "key-unknown")
    refused(
        world,
        owning(world, grace.key, "decide", grace.account, "confirm"),
        grace.session,
        "statement-invalid",
    )


def test_a_recovery_waits_and_an_old_key_stops_it(world: DoorWorld, grace: Person) -> None:
    """A thief of the session asks for a key of his own: it signs nothing, and the old key freezes the project."""
    thief = KeySigner(Ed25519PrivateKey.generate())
    assert grace.enrol("demo", key=thief).status_code == 200
    pending = world.client.get("/api/v1/projects/demo").get_json()["recovery"]
    assert pending["keyid"] == thief.keyid and pending["until"] == int(world.clock()) + 7 * 86_400
    name, data = "demo-2.0-py3-none-any.whl", wheel(version="2.0")
    world.quiet()
    before = world.state()
    answer = grace.upload(name, data, attestations=grace.attest(name, data, key=thief))
    assert answer.get_json()["code"] == "key-pending"
    assert world.state() == before
    refused(world, owning(world, thief, "veto"), grace.session, "key-unknown")
    assert send(world, owning(world, grace.key, "veto"), grace.session).status_code == 200
    world.quiet()
    before = world.state()
    world.clock.now += 8 * 86_400
    for key, code in ((thief, "key-pending"), (grace.key, "project-frozen")):
        answer = grace.upload(name, data, attestations=grace.attest(name, data, key=key))
        assert answer.get_json()["code"] == code, answer.get_json()
    assert world.state() == before
    world.check()


def test_a_recovery_that_nobody_vetoes_replaces_the_lost_key(world: DoorWorld, grace: Person) -> None:
    """After seven days the new key signs."""
    new = KeySigner(Ed25519PrivateKey.generate())
    assert grace.enrol("demo", key=new).status_code == 200
    world.clock.now += 7 * 86_400 + 1
    name, data = "demo-2.0-py3-none-any.whl", wheel(version="2.0")
    assert grace.upload(name, data, attestations=grace.attest(name, data, key=new)).status_code == 200
    world.check()


def test_where_two_keys_sign_one_is_not_enough(world: DoorWorld, grace: Person) -> None:
    """A threshold of two: owners, keys and its own lowering take both keys; one alone, or one twice, nothing."""
    second, third = KeySigner(Ed25519PrivateKey.generate()), KeySigner(Ed25519PrivateKey.generate())
    assert grace.enrol("demo", grace.key, key=second, threshold=2).status_code == 200
    lin = world.person("lin")
    one = owning(world, grace.key, "add", lin.account, "owner")
    refused(world, one, grace.session, "not-authorised")
    world.quiet()
    before = world.state()
    for cosigners in ([grace.key], [second]):
        answer = grace.enrol("demo", *cosigners, key=third, threshold=1)
        assert answer.get_json()["code"] == "not-authorised", answer.get_json()
    assert world.state() == before
    both = sign(Statement.parse(one.payload), grace.key, second)
    assert send(world, both, grace.session).status_code == 200
    assert world.client.get("/api/v1/projects/demo").get_json()["threshold"] == 2
    assert grace.enrol("demo", grace.key, second, key=third, threshold=1).status_code == 200
    world.check()
