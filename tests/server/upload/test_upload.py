"""The upload door: honest uploads are proved, each refusal says why and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from countermark.entry import Entry
from countermark.statement import KeySigner, open_envelope
from countermark.tlog import proof as tlog_proof
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof
from countermark_server.errors import CODES
from countermark_server.published import Published
from countermark_server.settings import Upload
from tests.archives import metadata, sdist, wheel, wheel_files, zip_of
from tests.doors import BASE_URL, DoorWorld, Person, form

pytestmark = pytest.mark.usefixtures("database")

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """One registry for all refusals: they leave it as it was."""
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    with made.run():
        yield made
    made.close()


@pytest.fixture(scope="module")
def ada(world: DoorWorld) -> Person:
    return world.person("ada@example.com")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    with made.run():
        yield made
    made.close()


def refused(answer: Any, code: str) -> dict[str, Any]:
    """The answer is this refusal, said three ways, and not cacheable."""
    assert answer.content_type == "application/problem+json", answer.get_data()
    body = answer.get_json()
    assert body["code"] == code, body
    spec = CODES[code]
    assert (body["title"], body["status"], answer.status_code) == (spec.title, spec.status, spec.status)
    assert body["type"] == f"{BASE_URL}/h/{code}"
    assert answer.headers["Cache-Control"] == "no-store"
    reason = answer.status.partition(" ")[2]
    assert len(reason) < 200 and reason.isascii() and reason.isprintable()
    assert reason.endswith(f"see {BASE_URL}/h/{code}")
    if code != "file-exists":
        assert "already exist" not in (reason + answer.get_data(as_text=True))
    return body


def entry_of(world: DoorWorld, answer: Any) -> Entry:
    """The entry that the answer's proof proves."""
    body = answer.get_json()
    proof = TlogProof.parse(body["proof"].encode())
    entry = Published(world.public, world.clock).entry(body["index"])
    tlog_proof.check(entry, proof, open_checkpoint(proof.checkpoint, world.trust.policy, now=None))
    parsed = Entry.parse(entry)
    assert parsed.leaf_hash.hex() == body["leaf_hash"] and proof.index == body["index"]
    return parsed


def test_an_unsigned_upload_is_logged_with_the_registry_s_signature(fresh: DoorWorld) -> None:
    """A project that never signed: the registry signs in its place, and the answer proves it."""
    ada = fresh.person("ada")
    data = wheel()
    answer = ada.upload(WHEEL, data)
    assert answer.status_code == 200, answer.get_data()
    body = answer.get_json()
    assert body["sha256"] == hashlib.sha256(data).hexdigest() and body["state"] == "logged"
    assert body["status_url"] == f"{BASE_URL}/api/v1/files/demo/{WHEEL}"
    assert "not yet listed" in body["message"]
    entry = entry_of(fresh, answer)
    registry = fresh.roles["registry"]
    assert entry.envelope is not None
    statement = open_envelope(entry.envelope, {registry.keyid: registry.public_key}).statement
    assert statement.subject_name == WHEEL and statement.predicate["length"] == len(data)
    assert entry.registry == {"uploader": ada.account, "key_index": None, "identity": None}
    (row,) = fresh.submissions()
    assert row["metadata_sha256"] == statement.predicate["metadata_sha256"]
    blobs = fresh.settings.data / "blobs"
    assert (blobs / row["sha256"][:2] / row["sha256"]).read_bytes() == data
    assert (blobs / row["metadata_sha256"][:2] / row["metadata_sha256"]).read_bytes() == metadata(
        "demo", "1.0"
    )
    assert not list((fresh.settings.data / "incoming").iterdir())
    fresh.check()


def test_a_signed_upload_names_its_enrolment_and_the_project_stays_signed(fresh: DoorWorld) -> None:
    """With an enrolled key the owner's statement is the entry; unsigned files are refused from then on."""
    ada = fresh.person("ada")
    enrolled = ada.enrol("demo")
    assert enrolled.status_code == 200, enrolled.get_data()
    index = enrolled.get_json()["index"]
    data = wheel()
    answer = ada.upload(WHEEL, data, attestations=ada.attest(WHEEL, data))
    assert answer.status_code == 200, answer.get_data()
    entry = entry_of(fresh, answer)
    assert entry.registry["key_index"] == index and entry.envelope is not None
    assert open_envelope(entry.envelope, {ada.key.keyid: ada.key.public_key}).keyids == (ada.key.keyid,)
    before = fresh.state()
    body = refused(ada.upload(SDIST, sdist()), "signature-missing")
    assert "countermark sign" in body["detail"]
    stranger = KeySigner(Ed25519PrivateKey.generate())
    forged = ada.attest(SDIST, sdist(), key=stranger)
    refused(ada.upload(SDIST, sdist(), attestations=forged), "key-unknown")
    claimed = json.loads(ada.attest(SDIST, sdist(), key=stranger))
    claimed[0]["signatures"][0]["keyid"] = ada.key.keyid
    refused(ada.upload(SDIST, sdist(), attestations=json.dumps(claimed)), "signature-invalid")
    assert fresh.state() == before
    fresh.check()


def test_the_same_bytes_again_make_no_second_entry(fresh: DoorWorld) -> None:
    """Idempotent: 200 with the same leaf; also in another spelling of the name; other bytes are refused for ever."""
    ada = fresh.person("ada")
    data = wheel()
    first = ada.upload(WHEEL, data).get_json()
    before = fresh.state()
    again = ada.upload(WHEEL, data)
    assert again.status_code == 200
    assert {k: again.get_json()[k] for k in ("index", "leaf_hash", "sha256")} == {
        k: first[k] for k in ("index", "leaf_hash", "sha256")
    }
    body = refused(ada.upload(WHEEL, wheel(extra="Summary: other\n")), "file-exists")
    assert body["detail"].startswith("File already exists")
    refused(
        ada.upload("Demo-1.0.0-py3-none-any.whl", wheel(extra="Summary: x\n"), name="demo"), "file-exists"
    )
    assert fresh.state() == before
    fresh.set_state(WHEEL, state="rejected")
    refused(ada.upload(WHEEL, wheel(extra="Summary: other\n")), "filename-spent")
    assert ada.upload(WHEEL, data).get_json()["state"] == "rejected"


def test_a_removed_file_spends_its_name(fresh: DoorWorld) -> None:
    """After a logged removal other bytes are refused, and told why; the same bytes show their standing."""
    ada = fresh.person("ada")
    assert ada.upload(WHEEL, wheel()).status_code == 200
    index = fresh.decide("remove", WHEEL, reason="mistake")
    before = fresh.state()
    refused(ada.upload(WHEEL, wheel(extra="Summary: other\n")), "filename-spent")
    assert (
        ada.upload(WHEEL, wheel()).get_json()["message"] == f"removed by entry {index} of the log (mistake)"
    )
    assert fresh.state() == before


def test_two_uploads_of_one_name_at_once_have_one_winner(fresh: DoorWorld) -> None:
    """Different bytes race for a name: one is logged, the other is told that the file exists."""
    ada = fresh.person("ada")
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ada.upload(WHEEL, wheel(extra=f"Summary: {n}\n"))))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert {a.get_json()["code"] for a in answers if a.status_code == 400} == {"file-exists"}
    assert len(fresh.submissions()) == 1
    fresh.check()


def test_a_slow_log_answers_202_and_keeps_the_promise(tmp_path: Path) -> None:
    """Without a checkpoint in time: 202, durable, without a proof; the same upload later gets it."""
    world = DoorWorld(tmp_path, wait=0.05)
    ada, data = world.person("ada"), wheel()
    with world.run():
        assert ada.upload(SDIST, sdist()).status_code in (200, 202)  # the genesis is published meanwhile
    answer = ada.upload(WHEEL, data)
    assert answer.status_code == 202
    assert answer.get_json()["proof"] is None and answer.get_json()["index"] is None
    with world.run():
        for _ in range(100):
            later = ada.upload(WHEEL, data)
            if later.status_code == 200:
                break
    assert entry_of(world, later).statement is not None
    world.check()
    world.close()


def test_what_another_tool_sends_is_taken(fresh: DoorWorld) -> None:
    """Digests before the file, md5, no version, unknown fields, foreign attestations, any user name."""
    ada, data = fresh.person("ada"), sdist()
    foreign = [{"version": 1, "word": "that nobody here knows"}]
    answer = ada.upload(
        SDIST,
        data,
        md5_digest=hashlib.md5(data).hexdigest(),
        version=None,
        classifiers="A :: B",
        attestations=json.dumps(foreign),
    )
    assert answer.status_code == 200, answer.get_data()
    (row,) = fresh.submissions()
    assert json.loads(row["attestations"]) == foreign
    assert entry_of(fresh, answer).registry["key_index"] is None


def test_requires_python_and_spelling_come_from_the_file(fresh: DoorWorld) -> None:
    """What is kept is what the metadata inside says; the name is served as its publisher spells it."""
    ada = fresh.person("ada")
    name = "Demo.Pkg-1.0.tar.gz"
    data = sdist("Demo.Pkg", "1.0", extra="Requires-Python: >=3.9\n")
    assert ada.upload(name, data, name="demo_pkg").status_code == 200
    (row,) = fresh.submissions()
    assert (row["project"], row["display_name"], row["served_name"]) == ("demo-pkg", "Demo.Pkg", name)
    assert row["requires_python"] == ">=3.9"


@pytest.mark.parametrize("token", ["", "wrong", "cmu_" + "A" * 43, "x" * 5000, "näh"])
def test_without_a_known_token_nothing_is_taken(world: DoorWorld, ada: Person, token: str) -> None:
    """401, with the challenge that makes clients ask for a password."""
    before = world.state()
    answer = ada.upload(WHEEL, wheel(), token=token)
    refused(answer, "not-authenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert world.state() == before


@pytest.mark.parametrize(
    ("filename", "data", "fields", "code"),
    [
        (WHEEL, wheel(), {"action": "submit"}, "form-invalid"),
        (WHEEL, wheel(), {"action": None}, "form-invalid"),
        (WHEEL, wheel(), {"protocol_version": "2"}, "form-invalid"),
        (WHEEL, wheel(), {"name": None}, "form-invalid"),
        (WHEEL, wheel(), {"filetype": None}, "form-invalid"),
        (WHEEL, wheel(), {"filetype": "bdist_egg"}, "form-invalid"),
        (WHEEL, wheel(), {"filetype": "sdist"}, "metadata-mismatch"),
        (WHEEL, wheel(), {"content": None}, "form-invalid"),
        (WHEEL, wheel(), {"content": "text, not a file"}, "form-invalid"),
        (WHEEL, wheel(), {"version": "not a version"}, "form-invalid"),
        (WHEEL, wheel(), {"version": "2.0"}, "metadata-mismatch"),
        (WHEEL, wheel(), {"name": "other"}, "metadata-mismatch"),
        (WHEEL, wheel(), {"name": "-demo-"}, "name-invalid"),
        (WHEEL, wheel(), {"name": "d" * 300}, "name-invalid"),
        (WHEEL, wheel(), {"name": "d\u00e9mo"}, "name-invalid"),
        (WHEEL, wheel(), {"sha256_digest": "0" * 64}, "digest-mismatch"),
        (WHEEL, wheel(), {"blake2_256_digest": "nonsense"}, "digest-mismatch"),
        (WHEEL, wheel(), {"md5_digest": "0" * 32}, "digest-mismatch"),
        ("demo-1.0.exe", wheel(), {}, "filename-invalid"),
        ("demo.whl", wheel(), {}, "filename-invalid"),
        ("demo-1.0-py3-none-any.whl\n", wheel(), {"name": "demo"}, "form-invalid"),
        ("../demo-1.0-py3-none-any.whl", wheel(), {"name": "demo"}, "filename-invalid"),
        ("d\u00e9mo-1.0.tar.gz", sdist(), {"name": "demo"}, "filename-invalid"),
        ("x" * 300 + "-1.0.tar.gz", sdist(), {}, "name-invalid"),
        (WHEEL, wheel("other"), {}, "metadata-mismatch"),
        (WHEEL, wheel(version="1.1"), {}, "metadata-mismatch"),
        (WHEEL, wheel(extra="Name: other\n"), {}, "metadata-invalid"),
        (WHEEL, wheel(extra="Requires-Python: not a specifier\n"), {}, "metadata-invalid"),
        (SDIST, sdist(extra="Version: 2.0\n"), {}, "metadata-invalid"),
        (WHEEL, b"", {}, "archive-malformed"),
        (WHEEL, b"PK", {}, "archive-malformed"),
        (WHEEL, sdist(), {}, "archive-malformed"),
        (SDIST, wheel(), {}, "archive-malformed"),
        (WHEEL, zip_of({**wheel_files(), "demo/extra.py": b""}), {}, "record-mismatch"),
        (WHEEL, zip_of({"demo/__init__.py": b""}), {}, "archive-layout"),
        (WHEEL, wheel(), {"attestations": "not json"}, "statement-invalid"),
        (WHEEL, wheel(), {"attestations": "{}"}, "statement-invalid"),
        (WHEEL, wheel(), {"attestations": "[1]"}, "statement-invalid"),
        (WHEEL, wheel(), {"attestations": "[" * 100_000}, "statement-invalid"),
        (WHEEL, wheel(), {"attestations": json.dumps([{}] * 17)}, "statement-invalid"),
    ],
)  # fmt: skip
def test_each_refusal_leaves_nothing(  # noqa: PLR0917
    world: DoorWorld, ada: Person, filename: str, data: bytes, fields: dict[str, Any], code: str
) -> None:
    """No row, no blob, no leaf, no temporary file."""
    before = world.state()
    refused(ada.upload(filename, data, **fields), code)
    assert world.state() == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"origin": "other.example/registry"}, "statement-mismatch"),
        ({"length": 1}, "statement-mismatch"),
        ({"metadata_sha256": "0" * 64}, "statement-mismatch"),
        ({"record_sha256": "0" * 64}, "statement-mismatch"),
        ({"sha256": "0" * 64}, "statement-mismatch"),
        ({"subject": "demo-1.0-py2-none-any.whl"}, "statement-mismatch"),
        ({"version": "1.1"}, "statement-invalid"),
        ({"project": "other"}, "statement-invalid"),
        ({"record_sha256": None}, "statement-invalid"),
        ({"prev": "0" * 64}, "statement-invalid"),
        ({"surprise": 1}, "statement-invalid"),
        ({}, "key-unknown"),
    ],
)
def test_a_statement_about_anything_else_is_refused(
    world: DoorWorld, ada: Person, changes: dict[str, Any], code: str
) -> None:
    """Every member of the signed statement must be what the file says; an unknown key never speaks."""
    before, data = world.state(), wheel()
    refused(ada.upload(WHEEL, data, attestations=ada.attest(WHEEL, data, **changes)), code)
    assert world.state() == before


def test_two_statements_of_ours_are_refused(world: DoorWorld, ada: Person) -> None:
    """Which one would count? Neither."""
    before, data = world.state(), wheel()
    twice = json.dumps(json.loads(ada.attest(WHEEL, data)) * 2)
    refused(ada.upload(WHEEL, data, attestations=twice), "statement-invalid")
    assert world.state() == before


def test_fields_given_twice_are_refused(world: DoorWorld, ada: Person) -> None:
    """Two names, two digests, two files: nobody may choose which one counts."""
    before = world.state()
    headers = {"Authorization": "Bearer " + ada.token}
    for name, value in (("name", "other"), ("sha256_digest", "0" * 64), ("attestations", "[]")):
        data = form(WHEEL, wheel(), attestations="[]")
        data.add(name, value)
        refused(world.client.post("/legacy/", data=data, headers=headers), "form-invalid")
    assert world.state() == before


def test_bodies_that_are_no_forms_are_refused(world: DoorWorld, ada: Person) -> None:
    """Empty, truncated, of another type, without a boundary."""
    before = world.state()
    headers = {"Authorization": "Bearer " + ada.token}
    kinds = ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=x", "a" * 500]
    for kind in kinds:
        for body in (b"", b"{}", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nab'):
            refused(
                world.client.post("/legacy/", data=body, content_type=kind, headers=headers), "form-invalid"
            )
    assert world.state() == before


def test_only_owners_upload_to_a_project(fresh: DoorWorld) -> None:
    """The first uploader owns the project; a stranger's token is of no use there."""
    ada, eve = fresh.person("ada"), fresh.person("eve")
    assert ada.upload(WHEEL, wheel()).status_code == 200
    before = fresh.state()
    refused(eve.upload("demo-2.0.tar.gz", sdist(version="2.0")), "not-owner")
    refused(eve.upload(WHEEL, wheel()), "not-owner")
    assert fresh.state() == before


def test_too_large_is_said_with_the_limit(tmp_path: Path) -> None:
    """413 for a file over the limit and for a form over it, whether announced or not."""
    world = DoorWorld(tmp_path, upload=Upload(max_bytes=2048, max_unpacked_bytes=1 << 20, max_members=4))
    ada = world.person("ada")
    before = world.state()
    noise = hashlib.shake_256(b"noise").digest(4096)
    body = refused(ada.upload(WHEEL, wheel(files={"demo/noise.bin": noise})), "too-large")
    assert "2048" in body["detail"]
    refused(ada.upload(WHEEL, wheel(), description="x" * (9 * 1024 * 1024)), "too-large")
    refused(ada.upload(WHEEL, wheel(), content=(BytesIO(bytes(20 << 20)), WHEEL)), "too-large")
    refused(ada.upload(WHEEL, wheel(files={f"demo/{n}.py": b"" for n in range(5)})), "archive-budget")
    assert world.state() == before
    world.close()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_requests_never_become_an_error_of_ours(
    world: DoorWorld, ada: Person, data: st.DataObject
) -> None:
    """Bytes of an honest request flipped, cut, doubled: taken or refused with a code, never 500."""
    honest = form(
        WHEEL, wheel(), attestations=ada.attest(WHEEL, wheel()), content=FileStorage(BytesIO(wheel()), WHEEL)
    )
    content_type = "multipart/form-data; boundary=fixed"
    body = bytearray(encode_multipart(honest, boundary="fixed")[1])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double", "noise"])):
            case "flip":
                body[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del body[at : at + data.draw(st.integers(1, 300))]
                body += b"-"
            case "double":
                body[at:at] = body[at : at + data.draw(st.integers(1, 300))]
            case "noise":
                body[at:at] = data.draw(st.binary(min_size=1, max_size=30))
    answer = world.client.post(
        "/legacy/",
        data=bytes(body),
        content_type=content_type,
        headers={"Authorization": "Bearer " + ada.token},
    )
    if answer.status_code not in (200, 202):
        code = answer.get_json()["code"]
        assert code in CODES and code not in ("internal", "unavailable"), answer.get_json()
