"""granian in front of the API: the same application, the same proofs, beside gunicorn and on the same data."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof
from countermark_server import adopted, db
from countermark_server.accounts import people, tokens
from countermark_server.settings import load
from countermark_server.stores import places
from tests.world.world import World, free_port, fresh

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "countermark-api.service"
ORIGIN = "registry.test/trial"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[World, int]]:
    """A trial registry, and the port on which granian serves it, started with the words of the shipped unit."""
    with fresh(tmp_path / "world") as world:
        world.up("--trial")
        (line,) = [line for line in UNIT.read_text("utf-8").splitlines() if line.startswith("ExecStart=")]
        port, words = free_port(), line.split()[1:]
        words[words.index("--port") + 1] = str(port)
        program = Path(sys.executable).with_name("granian")
        env = world.env("operator", COUNTERMARK_DATA=str(world.data))
        with subprocess.Popen([program, *words], env=env, cwd=world.root) as granian:
            try:
                for _ in range(600):
                    try:
                        ask(port, "GET", "/healthz")
                        break
                    except OSError:
                        assert granian.poll() is None, "granian ended"
                        time.sleep(0.05)
                yield world, port
            finally:
                granian.terminate()


def ask(
    port: int, method: str, path: str, body: object = None, token: str = ""
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer, answer.read()


def statement(name: str, digest: str, kind: str, signer: KeySigner, **predicate: Any) -> Envelope:
    binding = {"origin": ORIGIN, "namespace": "corp", "project": "", "prev": None}
    return sign(Statement(name, digest, kind, {**binding, **predicate}), signer)


def test_granian_serves_the_api(served: tuple[World, int]) -> None:
    """A statement is taken, proved and public; a refusal keeps status and body, and loses its reason phrase."""
    world, port = served
    settings, key = load(world.data, {}), KeySigner(Ed25519PrivateKey.generate())
    engine, now = db.open_engine(settings.database_url), int(time.time())
    with db.write(engine) as connection:
        account = people.add_account(connection, "ada", now=now).id
        token = tokens.issue_token(connection, account, tokens.SESSION, now=now, expires=now + 600)
    engine.dispose()
    name = f"key:{key.keyid}"
    enrolment = statement(
        name, hashlib.sha256(name.encode()).hexdigest(), "key-enroll", key,
        key=base64.b64encode(key.public_key).decode(), scope="namespace", valid_for=None, threshold=1,
    )  # fmt: skip
    answer, body = ask(port, "POST", "/api/v1/keys", {"envelope": enrolment.to_dict()}, token)
    assert answer.status == 200, body
    digest = hashlib.sha256(b"1").hexdigest()
    publish = statement(
        "widget-1.tar.gz", digest, "publish", key,
        project="widget", version="1", length=1, metadata_sha256=digest, record_sha256=None,
    )  # fmt: skip
    answer, body = ask(port, "POST", "/api/v1/entries", {"envelope": publish.to_dict()}, token)
    assert answer.status == 200, body
    said = json.loads(body)
    proof = TlogProof.parse(said["proof"].encode())
    policy = adopted.trust_file(places.public(settings)).policy
    assert open_checkpoint(proof.checkpoint, policy, now=int(time.time())).size > said["index"]
    for served_by, phrase in ((port, "Unauthorized"), (world.port, "this needs a token: user name")):
        answer, body = ask(served_by, "POST", "/api/v1/entries", {"envelope": publish.to_dict()})
        assert (answer.status, json.loads(body)["code"]) == (401, "not-authenticated")
        assert answer.reason.startswith(phrase)  # upload tools show it: so gunicorn alone serves uploads
