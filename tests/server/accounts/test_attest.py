"""Attests at the entries door: what they speak of comes along and is open to everybody; a refusal leaves no blob."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from countermark.entry import Entry
from countermark.statement import Statement, sign
from tests.archives import wheel
from tests.doors import DoorWorld, Person
from tests.log_world import ORIGIN
from tests.server.accounts.test_entries import enrol, entry, one, post, published

WHEEL = "demo-1.0-py3-none-any.whl"
SBOM = b'{"bomFormat":"CycloneDX"}'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """Grace has a file in the namespace `corp`, served elsewhere, and an uploaded one in the default namespace."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        assert enrol(made, grace).status_code == 200
        made.elsewhere = one(made, published(1, grace.key), grace.token).get_json()  # type: ignore[attr-defined]
        grace.enrol("demo")
        grace.upload(WHEEL, wheel(), attestations=grace.attest(WHEEL, wheel()))
        made.quiet()
        yield made
    made.close()


@pytest.fixture
def grace(world: DoorWorld) -> Person:
    found: Person = world.grace  # type: ignore[attr-defined]
    return found


def body(
    world: DoorWorld, person: Person, *, blob: bytes | None = SBOM, uploaded: bool = False, **said: Any
) -> dict[str, Any]:
    """An attest of a bill of materials about one of Grace's files."""
    if uploaded:
        file = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
        leaf, where = file["leaf_hash"], {"namespace": "", "project": "demo"}
    else:
        file = {"filename": "widget-1.tar.gz", "sha256": hashlib.sha256(b"1").hexdigest()}
        leaf, where = world.elsewhere["leaf_hash"], {  # type: ignore[attr-defined]
            "namespace": "corp", "project": "widget",
        }  # fmt: skip
    predicate = {
        "origin": ORIGIN, "prev": leaf, "about": leaf, "kind": "sbom", **where,
        "statement_sha256": hashlib.sha256(bytes(32) + SBOM).hexdigest(), **said,
    }  # fmt: skip
    envelope = sign(Statement(file["filename"], file["sha256"], "attest", predicate), person.key).to_dict()
    return {"envelope": envelope} | ({} if blob is None else {"blob": base64.b64encode(blob).decode()})


def attest(world: DoorWorld, person: Person, **changes: Any) -> TestResponse:
    return post(world, "entries", body(world, person, **changes), person.token)


@pytest.mark.parametrize("uploaded", [False, True])
def test_an_attest_is_logged_and_what_it_names_is_open(
    world: DoorWorld, grace: Person, uploaded: bool
) -> None:
    """In every namespace; the entry says that nobody here checked it."""
    answer = attest(world, grace, uploaded=uploaded)
    assert answer.status_code == 200, answer.get_json()
    found = Entry.parse(entry(world, answer.get_json()["index"]))
    assert (found.type, found.registry) == ("attest", {"verified": "not-checked"})
    assert found.statement is not None
    blob = world.client.get(f"/blobs/{found.statement.predicate['statement_sha256']}")
    assert blob.data == bytes(32) + SBOM
    world.quiet()
    world.check()


def test_a_batch_takes_attests_beside_publishes(world: DoorWorld, grace: Person) -> None:
    """Each item is told of on its own: the second attest follows an older entry than the first has become."""
    good = {"envelope": published(2, grace.key).to_dict()}
    items = [body(world, grace), body(world, grace, kind="slsa-provenance"), good]
    said = post(world, "entries/batch", {"entries": items}, grace.token).get_json()["entries"]
    assert [item.get("problem", {}).get("code") for item in said] == [None, "prev-stale", None]
    world.quiet()
    world.check()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"blob": None}, "bad-request"),
        ({"blob": b"another"}, "statement-mismatch"),
        ({"about": "00" * 32}, "entry-refused"),
        ({"prev": "00" * 32}, "prev-stale"),
        ({"kind": "praise"}, "statement-invalid"),
        ({"project": "other"}, "statement-invalid"),
        ({"namespace": "free"}, "not-owner"),
    ],
)
def test_a_refused_attest_leaves_nothing(
    world: DoorWorld, grace: Person, changes: dict[str, Any], code: str
) -> None:
    """Neither entry nor row nor blob."""
    before = world.state()
    answer = attest(world, grace, **changes)
    assert answer.get_json()["code"] == code, answer.get_json()
    assert world.state() == before


@pytest.mark.parametrize("blob", [3, None, "a", "YQ", "YR==", "Y Q==", "\u00e9", {}])
def test_a_blob_has_one_spelling(world: DoorWorld, grace: Person, blob: object) -> None:
    """Base64 with its padding, and nothing else."""
    before = world.state()
    answer = post(world, "entries", {**body(world, grace), "blob": blob}, grace.token)
    assert answer.get_json()["code"] == "bad-request"
    assert world.state() == before


def test_nobody_attests_for_others(world: DoorWorld, grace: Person) -> None:
    """Not with the owner's stolen statement, and not with a key of one's own; no blob comes with another act."""
    eve, before = world.person("eve"), world.state()
    stolen = post(world, "entries", body(world, grace), eve.token)
    assert stolen.get_json()["code"] == "not-owner"
    eve.account, theirs = grace.account, post(world, "entries", body(world, eve), grace.token)
    assert theirs.get_json()["code"] == "key-unknown"
    other = {"envelope": published(5, grace.key).to_dict(), "blob": base64.b64encode(SBOM).decode()}
    assert post(world, "entries", other, grace.token).get_json()["code"] == "bad-request"
    assert world.state() == before
