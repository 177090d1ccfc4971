"""signature.py: enrolment chains as the log tells them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from countermark import rules
from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.entry import Entry, make_entry
from countermark.statement import KeySigner, Statement, sign
from countermark.verify import verify
from tests.attacks.test_verify_refuses import forge_publish
from tests.machine import Machine, artifact
from tests.simulator import ACCOUNT, HOUR, World, signing_key


def rotate(world: World, project: str, *signers: KeySigner, new: KeySigner, by: int) -> int:
    """Enrol a new key that enrolled ones vouch for."""
    state = world.view.get(rules.project_key("", project))
    assert state is not None
    predicate = {
        "key": base64.b64encode(new.public_key).decode(),
        "namespace": "",
        "origin": world.origin,
        "prev": state["head"],
        "project": project,
        "scope": "project",
        "threshold": 1,
        "valid_for": None,
    }
    statement = Statement.about(f"key:{new.keyid}", "key-enroll", predicate)
    registry = {"account": ACCOUNT, "authorised_by": by, "identity": None}
    return world.append("key-enroll", sign(statement, *signers, new), registry)


@pytest.fixture
def world() -> World:
    return World()


def test_a_first_key_is_unchained(tmp_path: Path, world: World) -> None:
    """Nobody vouched for it but the registry, and the result says so."""
    file = world.publish("acme-demo")
    signed = Machine(tmp_path, world).accept(file).to_json()["artifacts"][0]["signed_by"]
    first = world.key_index("acme-demo")
    assert signed["sentence"].endswith(f"enrolled at #{first}; unchained, first seen at #{first}")
    assert signed["party"] == "publisher"


def test_a_rotated_key_is_chained_to_the_first(tmp_path: Path, world: World) -> None:
    """Two rotations: the chain is walked back to the first enrolment, every link's signatures checked."""
    world.publish("acme-demo")
    first, key, index = world.key_index("acme-demo"), world.publisher, world.key_index("acme-demo")
    for number in (2, 3):
        new = KeySigner(signing_key(f"publisher {number}"))
        index = rotate(world, "acme-demo", key, new=new, by=index)
        key = new
    world.publisher = key
    file = world.publish("acme-demo", "2.0")
    world.check()
    signed = Machine(tmp_path, world).accept(file).to_json()["artifacts"][0]["signed_by"]
    assert (signed["enrolled"], signed["first"]) == (index, first)
    assert f"chained to #{first} through 2 older keys" in signed["sentence"]


def test_a_pin_on_an_older_key_of_the_chain_is_enough(tmp_path: Path, world: World) -> None:
    """Who pinned the first key accepts what it vouched for, and nobody else's."""
    world.publish("acme-demo")
    old, first = world.publisher, world.key_index("acme-demo")
    new = KeySigner(signing_key("publisher 2"))
    rotate(world, "acme-demo", old, new=new, by=first)
    world.publisher = new
    file = world.publish("acme-demo", "2.0")
    registry = Machine(tmp_path, world).registry
    for pin, code in ((old.keyid, 0), (new.keyid, 0), ("00" * 32, 5)):
        local = ClientPolicy(mode=Mode.OBSERVE, rules=(Rule("acme-*", Mode.ENFORCE, frozenset({pin})),))
        report = verify([artifact(file)], registry, world, now=world.now, policies=Policies(local=local))
        assert report.exit_code == code, report.to_json()


def test_a_vouching_signature_that_is_missing_is_refused(tmp_path: Path, world: World) -> None:
    """An enrolment that names an authorising key which did not sign: the log should never have taken it."""
    world.publish("acme-demo")
    first = world.key_index("acme-demo")
    mallory = KeySigner(signing_key("mallory"))
    entry = Entry.parse(world.entries[first])
    assert entry.statement is not None
    predicate = {**entry.statement.predicate, "key": base64.b64encode(mallory.public_key).decode()}
    envelope = sign(Statement.about(f"key:{mallory.keyid}", "key-enroll", predicate), mallory)
    registry = {"account": ACCOUNT, "authorised_by": first, "identity": None}
    raw = make_entry(type="key-enroll", envelope=envelope, registry=registry, time=world.now).raw
    index = world.append_raw(raw)
    ghost = forge_publish(world, mallory, key_index=index)
    Machine(tmp_path, world).refuse(7, "lacks the signature", ghost)


@pytest.mark.parametrize("forged", ["vouching", "own"])
def test_a_forged_signature_of_an_enrolment_is_refused(tmp_path: Path, world: World, forged: str) -> None:
    """Both who vouches for a key and the key itself must have signed; a second file is refused like the first."""
    world.publish("acme-demo")
    first, older, mallory = world.key_index("acme-demo"), world.publisher, KeySigner(signing_key("mallory"))
    for signer in (older, mallory):
        if (signer is older) is (forged == "vouching"):
            signer.sign = KeySigner(signing_key("somebody else")).sign  # type: ignore[method-assign]
    entry = Entry.parse(world.entries[first])
    assert entry.statement is not None
    predicate = {**entry.statement.predicate, "key": base64.b64encode(mallory.public_key).decode()}
    envelope = sign(Statement.about(f"key:{mallory.keyid}", "key-enroll", predicate), older, mallory)
    registry = {"account": ACCOUNT, "authorised_by": first, "identity": None}
    raw = make_entry(type="key-enroll", envelope=envelope, registry=registry, time=world.now).raw
    index = world.append_raw(raw)
    machine = Machine(tmp_path, world)
    for version in ("6.6", "6.7"):
        ghost = forge_publish(world, KeySigner(signing_key("mallory")), key_index=index, version=version)
        machine.refuse(7, "does not verify", ghost)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"namespace": "acme", "project": "", "scope": "namespace"}, "is not the one entry"),
        ({"valid_for": 900}, "was for 900 s"),
    ],
)
def test_an_enrolment_that_does_not_reach_this_publish_does_not_count(
    tmp_path: Path, world: World, change: dict[str, object], words: str
) -> None:
    """A key of some namespace signs for a project outside it; a key signs long after its time."""
    world.publish("acme-demo")
    machine, key = Machine(tmp_path, world), KeySigner(signing_key("other"))
    predicate = {
        "key": base64.b64encode(key.public_key).decode(),
        "namespace": "",
        "origin": world.origin,
        "prev": None,
        "project": "acme-demo",
        "scope": "project",
        "threshold": 1,
        "valid_for": None,
    } | change
    statement = Statement.about(f"key:{key.keyid}", "key-enroll", predicate)
    registry = {"account": ACCOUNT, "authorised_by": "registry", "identity": None}
    entry = make_entry(type="key-enroll", envelope=sign(statement, key), registry=registry, time=world.now)
    index = world.append_raw(entry.raw)  # the rules would not take it, a log that misbehaves does
    world.now += 8 * 24 * HOUR
    ghost = forge_publish(world, key, key_index=index)
    machine.refuse(7, words, ghost)
