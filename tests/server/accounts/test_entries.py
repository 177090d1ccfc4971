"""Signed statements without a file: publishes in a namespace, one by one and in batches, each judged on its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.test import TestResponse

from countermark.entry import Entry
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.tlog import proof as tlog_proof
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof
from countermark_server import proposal
from countermark_server.app import create_app
from countermark_server.log.tree import public_tree
from countermark_server.settings import Entries
from tests.doors import DoorWorld, Person
from tests.log_world import NOW, ORIGIN

NAMESPACE = "corp"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry whose namespace `corp` is Grace's, and its log at work."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        assert enrol(made, grace).status_code == 200
        made.quiet()
        yield made
    made.close()


@pytest.fixture
def grace(world: DoorWorld) -> Person:
    found: Person = world.grace  # type: ignore[attr-defined]
    return found


def enrol(world: DoorWorld, person: Person, namespace: str = NAMESPACE) -> TestResponse:
    predicate = {
        "origin": ORIGIN, "namespace": namespace, "project": "", "prev": None,
        "key": base64.b64encode(person.key.public_key).decode(),
        "scope": "namespace", "valid_for": None, "threshold": 1,
    }  # fmt: skip
    envelope = sign(Statement.about(f"key:{person.key.keyid}", "key-enroll", predicate), person.key)
    return post(world, "keys", {"envelope": envelope.to_dict()}, person.session)


def published(number: int, key: KeySigner, *, data: bytes | None = None, **changes: Any) -> Envelope:
    """A publish statement about widget-<number>.tar.gz, whose bytes nobody hands in."""
    digest = hashlib.sha256(b"%d" % number if data is None else data).hexdigest()
    predicate = {
        "origin": ORIGIN, "namespace": NAMESPACE, "project": "widget", "prev": None, "version": str(number),
        "length": 10, "metadata_sha256": digest, "record_sha256": None,
    }  # fmt: skip
    return sign(Statement(f"widget-{number}.tar.gz", digest, "publish", {**predicate, **changes}), key)


def post(world: DoorWorld, door: str, body: object, token: str) -> TestResponse:
    return world.client.post(f"/api/v1/{door}", json=body, headers={"Authorization": f"Bearer {token}"})


def one(world: DoorWorld, envelope: Envelope, token: str) -> TestResponse:
    return post(world, "entries", {"envelope": envelope.to_dict()}, token)


def batch(world: DoorWorld, envelopes: list[Envelope], token: str) -> TestResponse:
    return post(world, "entries/batch", {"entries": [{"envelope": e.to_dict()} for e in envelopes]}, token)


def entry(world: DoorWorld, index: int) -> bytes:
    station = world.station()
    head = station.sequencer.load()
    tree = public_tree(world.public)
    return tree.entries(0, head.size, tree.reader(head.size, head.root_hash))[index]


def check_proof(world: DoorWorld, item: dict[str, Any], checkpoint: str) -> Entry:
    """The item's proof holds by a client's own check, under the checkpoint that came with it."""
    opened = open_checkpoint(checkpoint.encode(), world.trust.policy, now=NOW)
    raw = entry(world, item["index"])
    hashes = tuple(base64.b64decode(text) for text in item["proof"])
    tlog_proof.check(raw, TlogProof(item["index"], hashes, opened.raw), opened)
    return Entry.parse(raw)


def test_a_publish_in_a_namespace_is_proved_and_never_listed(world: DoorWorld, grace: Person) -> None:
    """An upload token may publish; the entry names account and key; no row, so no scan, verdict or page."""
    rows = world.submissions()
    answer = one(world, published(1, grace.key), grace.token)
    assert answer.status_code == 200, answer.get_json()
    said = answer.get_json()
    proof = TlogProof.parse(said["proof"].encode())
    opened = open_checkpoint(proof.checkpoint, world.trust.policy, now=NOW)
    raw = entry(world, said["index"])
    tlog_proof.check(raw, proof, opened)
    assert Entry.parse(raw).registry == {"identity": None, "key_index": 4, "uploader": grace.account}
    assert world.submissions() == rows
    assert world.client.get("/simple/widget/").status_code == 404
    assert world.client.get("/api/v1/files/widget/widget-1.tar.gz").status_code == 404


def test_a_batch_tells_each_item_apart(world: DoorWorld, grace: Person) -> None:
    """Good items get index and a proof that holds; each bad one its own problem; order is kept."""
    stranger = KeySigner(Ed25519PrivateKey.generate())
    wrong = published(3, grace.key)
    broken = replace(wrong, signatures=(replace(wrong.signatures[0], sig=b"\0" * 64),))
    yank = Statement("widget-1.tar.gz", "0" * 64, "yank", {
        "origin": ORIGIN, "namespace": NAMESPACE, "project": "widget", "prev": None, "reason": "mistake",
    })  # fmt: skip
    envelopes = [
        published(1, grace.key),
        published(2, stranger),
        broken,
        published(4, grace.key, origin="other.test/log"),
        published(5, grace.key, namespace=""),
        published(6, grace.key),
        published(6, grace.key, data=b"other bytes"),
        sign(yank, grace.key),
    ]
    before = world.head().tree_size
    answer = batch(world, envelopes, grace.token)
    assert answer.status_code == 200
    said = answer.get_json()
    items = said["entries"]
    assert [item.get("problem", {}).get("code") for item in items] == [
        None,
        "key-unknown",
        "signature-invalid",
        "statement-mismatch",
        "statement-invalid",
        None,
        "file-exists",
        "session-required",
    ]
    assert [items[n]["index"] for n in (0, 5)] == [before, before + 1]
    for n, number in ((0, 1), (5, 6)):
        found = check_proof(world, items[n], said["checkpoint"])
        assert found.statement is not None and found.statement.subject_name == f"widget-{number}.tar.gz"
    assert items[6]["problem"]["type"].endswith("/h/file-exists")
    world.quiet()
    world.check()
    assert world.head().tree_size == before + 2


def test_the_same_batch_again_makes_no_second_leaf(world: DoorWorld, grace: Person) -> None:
    """The same statements: answered like the first time, with proofs, and nothing is added."""
    envelopes = [published(n, grace.key) for n in range(20)]
    first = batch(world, [*envelopes, envelopes[0]], grace.session).get_json()["entries"]
    world.quiet()
    size, rows = world.head().tree_size, world.rows()["proposal"]
    again = batch(world, envelopes, grace.session)
    said = again.get_json()
    assert again.status_code == 200
    assert [item["index"] for item in said["entries"]] == [item["index"] for item in first[:20]]
    check_proof(world, said["entries"][7], said["checkpoint"])
    assert (world.head().tree_size, world.rows()["proposal"]) == (size, rows)
    world.check()


@pytest.mark.parametrize(
    "body",
    [{}, [], {"entries": []}, {"entries": {}}, {"entries": [1], "more": 1}, {"entries": [{}] * 4097}, None],
)
def test_a_body_that_is_no_batch_is_refused_whole(world: DoorWorld, grace: Person, body: object) -> None:
    """Nothing of it is taken."""
    before = world.state()
    answer = post(world, "entries/batch", body, grace.token)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad-request")
    assert world.state() == before


@pytest.mark.parametrize(
    "item", [None, 1, [], {}, {"envelope": 1}, {"envelope": {}}, {"envelope": {}, "x": 1}]
)
def test_an_item_of_any_shape_is_a_problem_of_its_own(world: DoorWorld, grace: Person, item: object) -> None:
    """And the item beside it is taken."""
    good = {"envelope": published(1, grace.key).to_dict()}
    answer = post(world, "entries/batch", {"entries": [item, good]}, grace.token)
    first, second = answer.get_json()["entries"]
    assert answer.status_code == 200 and first["problem"]["status"] == 400 and second["proof"] is not None


def test_nobody_publishes_in_a_namespace_of_others(world: DoorWorld, grace: Person) -> None:
    """Not with the owner's stolen statement, not with a key of one's own, not where nobody has enrolled."""
    eve = world.person("eve")
    before = world.state()
    for envelope, code in (
        (published(1, grace.key), "not-owner"),
        (published(1, eve.key), "key-unknown"),
        (published(1, eve.key, namespace="free"), "key-unknown"),
    ):
        answer = one(world, envelope, eve.token)
        assert answer.get_json()["code"] == code
    assert post(world, "entries/batch", {"entries": []}, "cmu_unknown").status_code == 401
    assert world.client.get("/api/v1/entries/1").status_code == 401
    assert world.state() == before


def test_a_full_queue_takes_nothing(world: DoorWorld, grace: Person) -> None:
    """503 with Retry-After for a batch that does not fit whole; one that fits is taken."""
    tight = replace(world.settings, entries=Entries(queue_max=3))
    app = create_app(tight, clock=world.clock, engine=world.engine, registry=world.roles["registry"])
    world.client = app.test_client()
    before = world.state()
    answer = batch(world, [published(n, grace.key) for n in range(4)], grace.token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.get_json()["code"] == "busy" and "at most 3" in answer.get_json()["detail"]
    assert world.state() == before
    assert batch(world, [published(n, grace.key) for n in range(3)], grace.token).status_code == 200


def test_past_the_deadline_the_status_url_knows(tmp_path: Path) -> None:
    """202 for the durable; a second request against a full queue 503; once the log works, index and proof."""
    world = DoorWorld(tmp_path, wait=10.0)
    with world.run():
        grace = world.person("grace")
        assert enrol(world, grace).status_code == 200
        world.quiet()
    hurried = replace(
        world.settings, web=replace(world.settings.web, wait=0.05), entries=Entries(queue_max=2)
    )
    app = create_app(hurried, clock=world.clock, engine=world.engine, registry=world.roles["registry"])
    world.client = app.test_client()
    answer = batch(world, [published(n, grace.key) for n in range(2)], grace.token)
    items = answer.get_json()["entries"]
    assert answer.status_code == 202 and all(item["proof"] is None for item in items)
    paths = [item["status_url"].removeprefix("http://registry.test") for item in items]
    bearer = {"Authorization": f"Bearer {grace.token}"}
    assert world.client.get(paths[0], headers=bearer).status_code == 202
    before = world.state()
    assert one(world, published(9, grace.key), grace.token).status_code == 503
    assert world.state() == before
    with world.run():
        world.quiet()
        for path in paths:
            said = world.client.get(path, headers=bearer)
            assert said.status_code == 200 and said.get_json()["proof"].startswith("c2sp.org/tlog-proof@v1")
    for number in ("999999", str(2**70)):
        assert world.client.get(f"/api/v1/entries/{number}", headers=bearer).status_code == 404
    world.check()
    world.close()


def test_the_log_has_the_last_word_on_each(world: DoorWorld, grace: Person, monkeypatch: Any) -> None:
    """Two doors foresee the same name at once: the loser's item is refused by the log, its neighbours are taken."""
    first = published(1, grace.key)
    second = published(1, grace.key, data=b"other")
    real = proposal.propose_all

    def slow(connection: Any, offers: Any, *, now: int) -> list[int]:
        early = [proposal.Offer("publish", first, offers[0].registry)] if "taken" not in seen else []
        seen.append("taken")
        return real(connection, [*early, *offers], now=now)[len(early) :]

    seen: list[str] = []
    monkeypatch.setattr(proposal, "propose_all", slow)
    items = batch(world, [second, published(2, grace.key)], grace.token).get_json()["entries"]
    assert items[0]["problem"]["code"] == "file-exists" and items[1]["proof"] is not None
    world.quiet()
    world.check()
