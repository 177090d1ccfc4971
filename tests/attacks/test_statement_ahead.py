"""The door for statements ahead: what could a thief of an upload token, or a stranger, say in a publisher's name?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.statement import Envelope, KeySigner
from tests.archives import sdist, wheel
from tests.doors import DoorWorld, Person, enrolment, publish
from tests.log_world import ORIGIN

WHEEL, NEXT = "demo-1.0-py3-none-any.whl", "demo-2.0.tar.gz"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with a signed wheel of Grace's, and its log at work."""
    made = DoorWorld(tmp_path)
    with made.run():
        yield made
    made.close()


@pytest.fixture
def grace(world: DoorWorld) -> Person:
    grace = world.person("grace")
    assert grace.enrol("demo").status_code == 200
    assert grace.upload(WHEEL, wheel(), attestations=grace.attest(WHEEL, wheel())).status_code == 200
    return grace


def refused(world: DoorWorld, envelope: Any, token: str, code: str) -> None:
    """The door says no for this reason, and nothing anywhere has changed."""
    before = world.state()
    given = envelope.to_dict() if isinstance(envelope, Envelope) else envelope
    answer = world.client.post(
        "/api/v1/statements", json={"envelope": given}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.get_json()["code"] == code, answer.get_json()
    assert world.state() == before


def test_a_stolen_upload_token_says_nothing_in_its_owners_name(world: DoorWorld, grace: Person) -> None:
    """The thief's own key is not enrolled, cannot claim to be Grace's, and the upload stays refused."""
    thief, data = KeySigner(Ed25519PrivateKey.generate()), sdist(version="2.0")
    forged = publish(NEXT, data, thief)
    refused(world, forged, grace.token, "key-unknown")
    claimed = forged.to_dict()
    claimed["signatures"] = [{**claimed["signatures"][0], "keyid": grace.key.keyid}]
    refused(world, claimed, grace.token, "signature-invalid")
    before = world.state()
    assert grace.upload(NEXT, data).get_json()["code"] == "signature-missing"
    assert world.state() == before


def test_the_registrys_own_key_does_not_speak_for_a_project_that_signs(
    world: DoorWorld, grace: Person
) -> None:
    """Nor may whoever holds it hand in a signature ahead: the project signs, and only its keys count."""
    refused(
        world, publish(NEXT, sdist(version="2.0"), world.roles["registry"]), grace.token, "signature-missing"
    )


def test_strangers_and_nobody_hand_in_nothing(world: DoorWorld, grace: Person) -> None:
    """A true statement of Grace's by a token of no owner, an unknown token, no token."""
    eve, honest = world.person("eve"), publish(NEXT, sdist(version="2.0"), grace.key)
    refused(world, honest, eve.token, "not-owner")
    refused(world, honest, eve.session, "not-owner")
    refused(world, honest, "cmu_unknown", "not-authenticated")
    refused(world, honest, "", "not-authenticated")


def test_a_statement_cannot_be_replayed_onto_another_registry_project_or_name(
    world: DoorWorld, grace: Person
) -> None:
    """Each is in what was signed: taken elsewhere, the rules or the door refuse it."""
    data = sdist(version="2.0")
    refused(
        world, publish(NEXT, data, grace.key, origin="other.example/log"), grace.token, "statement-mismatch"
    )
    refused(world, publish(NEXT, data, grace.key, project="other"), grace.token, "statement-invalid")
    refused(
        world, publish("demo-2.1.tar.gz", data, grace.key, version="2.0"), grace.token, "statement-invalid"
    )
    refused(world, publish(NEXT, data, grace.key, prev="0" * 64), grace.token, "statement-invalid")
    other = publish("other-2.0.tar.gz", sdist("other", "2.0"), grace.key)
    refused(world, other, grace.token, "key-unknown")  # Grace's key is enrolled for demo alone
    # A publish entry out of the public log, sent again under its name for other bytes, is no statement about them.
    refused(world, publish(WHEEL, data, grace.key), grace.token, "file-exists")


def test_a_statement_lets_in_its_own_bytes_alone(world: DoorWorld, grace: Person) -> None:
    """A thief of the token races Grace: other bytes under the signed name, her bytes in another spelling."""
    data, evil = sdist(version="2.0"), sdist(version="2.0", extra="Summary: evil\n")
    bearer = {"Authorization": f"Bearer {grace.token}"}
    body = {"envelope": publish(NEXT, data, grace.key).to_dict()}
    assert world.client.post("/api/v1/statements", json=body, headers=bearer).status_code == 200
    before = world.state()
    assert grace.upload(NEXT, evil).get_json()["code"] == "statement-mismatch"
    assert grace.upload("demo-2.0.0.tar.gz", data).get_json()["code"] == "statement-mismatch"
    assert world.state() == before
    assert grace.upload(NEXT, data).status_code == 200
    world.check()


@pytest.mark.parametrize("kind", ["enrol", "junk", "none", "extra"])
def test_nothing_but_a_publish_statement_passes(world: DoorWorld, grace: Person, kind: str) -> None:
    """No enrolment by an upload token through this door, no other shape, no further member."""
    envelope = publish(NEXT, sdist(version="2.0"), grace.key)
    match kind:
        case "enrol":
            refused(world, enrolment(world, "demo", grace.key), grace.token, "statement-invalid")
        case "junk":
            refused(world, {**envelope.to_dict(), "payload": "AAAA"}, grace.token, "statement-invalid")
        case "none":
            refused(world, None, grace.token, "bad-request")
        case "extra":
            refused(world, publish(NEXT, b"", grace.key, surprise=ORIGIN), grace.token, "statement-invalid")
