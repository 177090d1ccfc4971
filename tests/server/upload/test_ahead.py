"""Statements that come ahead of their file: what is kept, for how long, and which upload takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from werkzeug.test import TestResponse

from countermark.entry import Entry
from countermark.statement import Envelope, KeySigner, Statement, open_envelope, sign
from countermark_server import db
from countermark_server.published import Published
from countermark_server.upload import ahead
from tests.archives import sdist, wheel
from tests.doors import DoorWorld, Person, publish
from tests.log_world import NOW, ORIGIN

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    with made.run():
        yield made
    made.close()


@pytest.fixture
def ada(world: DoorWorld) -> Person:
    """Somebody with an enrolled key and no file yet."""
    ada = world.person("ada")
    assert ada.enrol("demo").status_code == 200
    return ada


def submit(person: Person, envelope: Envelope, *, token: str | None = None) -> TestResponse:
    return person.world.client.post(
        "/api/v1/statements",
        json={"envelope": envelope.to_dict()},
        headers={"Authorization": f"Bearer {token or person.token}"},
    )


def taken(person: Person, envelope: Envelope, **options: Any) -> dict[str, Any]:
    answer = submit(person, envelope, **options)
    assert answer.status_code == 200, answer.get_data()
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = answer.get_json()
    return body


def refused(world: DoorWorld, before: dict[str, Any], answer: TestResponse, code: str) -> str:
    """This refusal, and nothing anywhere has changed."""
    assert answer.get_json()["code"] == code, answer.get_json()
    assert world.state() == before
    detail: str = answer.get_json()["detail"]
    return detail


def rows(world: DoorWorld) -> list[dict[str, Any]]:
    with db.read(world.engine) as connection:
        return [dict(row) for row in connection.execute(select(db.statement_ahead)).mappings()]


def signed_by(world: DoorWorld, answer: TestResponse, key: KeySigner) -> Entry:
    """The upload was logged, and its entry is the statement of this key."""
    assert answer.status_code == 200, answer.get_data()
    entry = Entry.parse(Published(world.public, world.clock).entry(answer.get_json()["index"]))
    assert entry.envelope is not None
    assert open_envelope(entry.envelope, {key.keyid: key.public_key}).keyids == (key.keyid,)
    return entry


def revoke(world: DoorWorld, person: Person) -> None:
    prev = world.client.get("/api/v1/projects/demo").get_json()["prev"]
    predicate = {
        "origin": ORIGIN, "namespace": "", "project": "demo", "prev": prev,
        "keyid": person.key.keyid, "reason": "lost", "compromised_since": None,
    }  # fmt: skip
    envelope = sign(Statement.about(f"key:{person.key.keyid}", "key-revoke", predicate), person.key)
    bearer = {"Authorization": f"Bearer {person.session}"}
    done = world.client.post("/api/v1/entries", json={"envelope": envelope.to_dict()}, headers=bearer)
    assert done.status_code == 200, done.get_data()


def test_an_upload_without_attestations_takes_the_statement_that_went_ahead(
    world: DoorWorld, ada: Person
) -> None:
    """Also for a project's very first file; nothing waits afterwards, and later files need a signature too."""
    data, index = wheel(), world.client.get("/api/v1/projects/demo").get_json()["keys"][0]["index"]
    body = taken(ada, publish(WHEEL, data, ada.key))
    assert (body["project"], body["filename"], body["state"]) == ("demo", WHEEL, "waiting")
    assert body["expires"] == NOW + ahead.AHEAD_SECONDS
    entry = signed_by(world, ada.upload(WHEEL, data), ada.key)
    assert entry.registry == {"uploader": ada.account, "key_index": index, "identity": None}
    assert rows(world) == []
    before = world.state()
    detail = refused(world, before, ada.upload(SDIST, sdist()), "signature-missing")
    assert "countermark sign --submit" in detail and "unsigned" in detail
    taken(ada, publish(SDIST, sdist(), ada.key), token=ada.session)
    signed_by(world, ada.upload(SDIST, sdist()), ada.key)
    world.check()


def test_an_upload_may_spell_project_and_file_name_otherwise(world: DoorWorld) -> None:
    """Matched by the normalised names; the signed spelling must still be the one that is served."""
    ada = world.person("ada")
    assert ada.enrol("demo-pkg").status_code == 200
    name, data = "Demo.Pkg-1.0.tar.gz", sdist("Demo.Pkg", "1.0")
    envelope = publish(name, data, ada.key, project="demo-pkg")
    statement = Statement.parse(envelope.payload)
    taken(ada, envelope)
    before = world.state()
    other = ada.upload("demo_pkg-1.0.tar.gz", data)
    refused(world, before, other, "statement-mismatch")
    assert statement.subject_name == name


def test_the_same_statement_twice_waits_once_and_longer(world: DoorWorld, ada: Person) -> None:
    """One row; a later statement about the same bytes replaces an earlier, wrong one."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key, length=1))
    world.clock.now += 60
    body = taken(ada, publish(WHEEL, data, ada.key))
    assert body["expires"] == NOW + 60 + ahead.AHEAD_SECONDS
    again = taken(ada, publish(WHEEL, data, ada.key))
    assert again == body and len(rows(world)) == 1
    signed_by(world, ada.upload(WHEEL, data), ada.key)


def test_a_statement_about_the_file_is_judged_again_with_the_bytes_in_hand(
    world: DoorWorld, ada: Person
) -> None:
    """What only the bytes can tell (length, METADATA, RECORD) is compared at the upload."""
    data = wheel()
    for change in ({"length": 1}, {"metadata_sha256": "0" * 64}, {"record_sha256": "0" * 64}):
        taken(ada, publish(WHEEL, data, ada.key, **change))
        before = world.state()
        refused(world, before, ada.upload(WHEEL, data), "statement-mismatch")


def test_other_bytes_than_the_signed_ones_are_refused(world: DoorWorld, ada: Person) -> None:
    """A project that never signed would be signed for by the registry; but here somebody meant another build."""
    data, rebuilt = wheel(), wheel(extra="Summary: rebuilt\n")
    taken(ada, publish(WHEEL, data, ada.key))
    before = world.state()
    detail = refused(world, before, ada.upload(WHEEL, rebuilt), "statement-mismatch")
    assert "submitted ahead" in detail
    body = taken(ada, publish(WHEEL, rebuilt, ada.key))
    assert body["sha256"] in json.dumps(rows(world)) and len(rows(world)) == 2
    signed_by(world, ada.upload(WHEEL, data), ada.key)  # both wait; the bytes that come first choose
    assert rows(world) == []


def test_an_attached_statement_counts_before_one_that_went_ahead(world: DoorWorld, ada: Person) -> None:
    """It came with the bytes; a wrong one ahead does not stand in its way."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key, length=1))
    signed_by(world, ada.upload(WHEEL, data, attestations=ada.attest(WHEEL, data)), ada.key)
    assert rows(world) == []


def test_an_expired_statement_signs_nothing(world: DoorWorld, ada: Person) -> None:
    """After 24 hours it is as if it had never come; the refusal of a project that signs says why."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key))
    signed_by(world, ada.upload(WHEEL, data), ada.key)
    taken(ada, publish(SDIST, sdist(), ada.key))
    world.clock.now += ahead.AHEAD_SECONDS
    before = world.state()
    detail = refused(world, before, ada.upload(SDIST, sdist()), "signature-missing")
    assert "expired" in detail
    taken(ada, publish("demo-2.0.tar.gz", sdist(version="2.0"), ada.key))
    assert [row["filename"] for row in rows(world)] == ["demo-2.tar.gz"]  # what had expired was swept out


def test_a_key_revoked_in_between_signs_nothing(world: DoorWorld, ada: Person) -> None:
    """The statement was good when it came and is not when the file comes: nothing is logged, not even unsigned."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key))
    revoke(world, ada)
    before = world.state()
    refused(world, before, ada.upload(WHEEL, data), "key-revoked")
    refused(world, before, submit(ada, publish(WHEEL, data, ada.key)), "key-revoked")


def test_a_file_that_is_logged_needs_no_statement(world: DoorWorld, ada: Person) -> None:
    """Its own bytes: said, and nothing is kept. Other bytes under its name: refused for ever."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key))
    signed_by(world, ada.upload(WHEEL, data), ada.key)
    before = world.state()
    assert taken(ada, publish(WHEEL, data, ada.key)) | {"sha256": ""} == {
        "project": "demo", "filename": WHEEL, "sha256": "", "state": "logged", "expires": None,
    }  # fmt: skip
    other = publish(WHEEL, wheel(extra="Summary: other\n"), ada.key)
    refused(world, before, submit(ada, other), "file-exists")


def test_no_more_wait_than_a_large_release_has_files(
    world: DoorWorld, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded for an account and for a project; what waits already may be renewed at the bound."""
    monkeypatch.setattr(ahead, "AHEAD_MAX", 2)
    files = {f"demo-{n}.0.tar.gz": sdist(version=f"{n}.0") for n in (1, 2, 3)}
    first, second, third = (publish(name, data, ada.key) for name, data in files.items())
    taken(ada, first)
    taken(ada, second)
    before = world.state()
    detail = refused(world, before, submit(ada, third), "statements-waiting")
    assert "this account" in detail and "at most 2" in detail
    taken(ada, second)
    assert ada.enrol("other").status_code == 200
    other = publish("other-1.0.tar.gz", sdist("other"), ada.key)
    before = world.state()
    refused(world, before, submit(ada, other), "statements-waiting")
    world.clock.now += ahead.AHEAD_SECONDS
    taken(ada, third)


def test_dying_before_the_commit_keeps_statement_and_name(world: DoorWorld, ada: Person) -> None:
    """The statement goes in the transaction that proposes its entry: both happen, or neither."""
    data = wheel()
    taken(ada, publish(WHEEL, data, ada.key))

    def die(*_: Any) -> None:
        raise RuntimeError("the power went")

    def at_proposal(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO proposal"):
            die()

    before = world.state()["rows"]
    event.listen(world.engine, "before_cursor_execute", at_proposal)
    try:
        assert ada.upload(WHEEL, data).status_code == 500
    finally:
        event.remove(world.engine, "before_cursor_execute", at_proposal)
    assert world.state()["rows"] == before and len(rows(world)) == 1
    signed_by(world, ada.upload(WHEEL, data), ada.key)
    world.check()
