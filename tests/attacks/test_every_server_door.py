"""Every door of the registry and of the witness, asked with altered requests: refused in words, and nothing changed.

An honest request of each door is altered in every way of tests/mutations.py: bytes and cuts of its body, each form
field, each JSON member, also inside the payload that is signed. Each must be answered with a problem document of a
known code below 500, and rows, blobs and public tree must be what they were, to the byte. Or it is taken, for a
reason in `MEANS_THE_SAME`, and then what stands in the log is what the honest request says, word for word.

`make test` takes a sample of every sort, `make test-full` all of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from countermark.entry import Entry
from countermark.serving import Request as Asked
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark_server.errors import CODES
from countermark_server.published import Published
from tests.archives import wheel
from tests.client.witness.test_witness import World as WitnessWorld
from tests.client.witness.test_witness import body as witness_body
from tests.client.witness.test_witness import note
from tests.doors import Person, enrolment, form
from tests.jobissuer import JobIssuer, running
from tests.jobworld import JobWorld, one_run
from tests.log_world import ORIGIN
from tests.mutations import Changed, changed_members, mutants, sampled

SAMPLE = 150
WHEEL = "demo-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class Request:
    """What is sent: a JSON document or a form, and who sends it."""

    path: str
    headers: dict[str, str]
    json: Any = None
    form: MultiDict[str, Any] | None = None
    envelope: Envelope | None = None  # whose payload must be in the log when the request is taken
    answered: Callable[[bytes, Any], str | None] | None = None  # what is wrong with the answer to such a body


class Registry:
    """A registry with somebody who has a project, a key and a published file, and a project that does not sign."""

    def __init__(self, folder: Path, issuer: JobIssuer) -> None:
        self.world = JobWorld(folder, issuer)
        self.count = 0
        self.state: dict[str, Any] | None = None  # after the last refusal, until something else is done

    def prepare(self) -> None:
        self.ada: Person = self.world.person("ada@example.com")
        assert self.ada.enrol("demo").status_code == 200
        assert self.ada.upload("plain-1.0-py3-none-any.whl", wheel("plain")).status_code == 200
        assert self.world.trusted("built").account
        file = wheel()
        assert self.ada.upload(WHEEL, file, attestations=self.ada.attest(WHEEL, file)).status_code == 200
        self.world.quiet()

    def post(self, request: Request, **sent: Any) -> TestResponse:
        """From another address each time: how often one may try is another test's business."""
        self.count += 1
        address = {"REMOTE_ADDR": f"10.0.{self.count >> 8}.{self.count & 255}"}
        return self.world.client.post(request.path, headers=request.headers, environ_base=address, **sent)

    # --- honest requests, each of which can be taken once -----------------------------------------------------
    def upload(self) -> Request:
        """The form that twine and uv send, with a signed statement."""
        self.count += 1
        version = f"2.{self.count}"
        name, data = f"demo-{version}-py3-none-any.whl", wheel(version=version)
        signed = self.ada.attest(name, data)
        basic = base64.b64encode(f"__token__:{self.ada.token}".encode()).decode()
        return Request(
            "/legacy/",
            {"Authorization": f"Basic {basic}"},
            form=form(name, data, attestations=signed),
            envelope=Envelope.parse(json.loads(signed)[0]),
        )

    def enrol(self) -> Request:
        """Another key, vouched for by the first, whose signature stands first: they are sorted by keyid."""
        other = KeySigner(Ed25519PrivateKey.generate())
        while other.keyid < self.ada.key.keyid:
            other = KeySigner(Ed25519PrivateKey.generate())
        return self._signed("/api/v1/keys", enrolment(self.world, "demo", other, self.ada.key))

    def act(self) -> Request:
        """The owner yanks the file, or takes that back."""
        file = self.world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
        kind = "unyank" if file["standing"] == "yanked" else "yank"
        binding = {"origin": ORIGIN, "namespace": "", "project": "demo", "prev": file["prev"]}
        statement = Statement(WHEEL, file["sha256"], kind, {**binding, "reason": "mistake"})
        return self._signed("/api/v1/entries", sign(statement, self.ada.key))

    def attest(self) -> Request:
        """The owner adds a bill of materials, which comes along."""
        self.count += 1
        file = self.world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
        blob = b"bill of materials %d" % self.count
        said = {
            "origin": ORIGIN, "namespace": "", "project": "demo", "prev": file["prev"], "kind": "sbom",
            "about": file["leaf_hash"], "statement_sha256": hashlib.sha256(bytes(32) + blob).hexdigest(),
        }  # fmt: skip
        request = self._signed(
            "/api/v1/entries", sign(Statement(WHEEL, file["sha256"], "attest", said), self.ada.key)
        )
        return replace(request, json={**request.json, "blob": base64.b64encode(blob).decode()})

    def login(self) -> Request:
        """A one-time code for a session and a token."""
        return Request("/api/v1/login", {}, json={"code": self.world.login_code("ada@example.com")})

    def token(self) -> Request:
        """An upload token for some projects and one action, for an hour; the last one ends."""
        if self.count:
            for each in self.world.client.get("/api/v1/tokens", headers=self._session()).get_json()["tokens"]:
                if each["name"] == "for CI":
                    path = f"/api/v1/tokens/{each['id']}/revoke"
                    assert self.world.client.post(path, json={}, headers=self._session()).status_code == 200
        asked = {"name": "for CI", "projects": ["demo"], "actions": ["upload"], "expires_in": 3600}
        return Request("/api/v1/tokens", self._session(), json=asked, answered=self._is_as_asked)

    def _is_as_asked(self, body: bytes, answer: dict[str, Any]) -> str | None:
        """Nobody signs what a token is for: another request is another token, and never one for more than it says."""
        asked = json.loads(body)
        lasts = asked.get("expires_in")
        expires = None if lasts is None else int(self.world.clock()) + lasts
        said = (asked["name"], _names(asked.get("projects")), _names(asked.get("actions")), expires)
        made = (answer["name"], _names(answer["projects"]), _names(answer["actions"]), answer["expires"])
        return None if made == said else f"asked for {said}, made {made}"

    def owner(self) -> Request:
        """One more owner of the project that does not sign."""
        self.count += 1
        other = self.world.person(f"owner {self.count}@example.com")
        said = {"action": "add", "account": other.account, "role": "owner"}
        return Request("/api/v1/projects/plain/owners", self._session(), json=said)

    def job(self) -> Request:
        """An upload token for a token of the job that `built` trusts."""
        return Request("/_/oidc/mint-token", {}, json={"token": self.world.job()})

    def run_key(self) -> Request:
        """A key of one run, enrolled by the job."""
        said = [self.world.enrolment("built", one_run()).to_dict()]
        return Request("/_/oidc/enrol-keys", {}, json={"token": self.world.job(), "envelopes": said})

    def _session(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.ada.session}"}

    def _signed(self, path: str, envelope: Envelope) -> Request:
        return Request(path, self._session(), json={"envelope": envelope.to_dict()}, envelope=envelope)


def _names(names: list[str] | None) -> set[str] | None:
    return None if names is None else {name.lower() for name in names}


HONEST: dict[str, Callable[[Registry], Request]] = {
    "upload": Registry.upload,
    "keys": Registry.enrol,
    "entries": Registry.act,
    "attest": Registry.attest,
    "login": Registry.login,
    "token": Registry.token,
    "owner": Registry.owner,
    "job": Registry.job,
    "run key": Registry.run_key,
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running() as issuer:
        made = Registry(tmp_path_factory.mktemp("registry"), issuer)
        with made.world.run():
            made.prepare()
            yield made
        made.world.close()


@dataclass(frozen=True)
class Lie:
    """One altered request: what is handed to the test client."""

    what: str
    sent: dict[str, Any]
    changed: Any = None


def lies(request: Request) -> Iterator[Lie]:
    """Every altered form of a request."""
    if request.form is not None:
        yield from _forms(request.form)
        return
    for mutant in mutants(json.dumps(request.json).encode()):
        yield Lie(str(mutant), {"data": mutant.raw, "content_type": "application/json"}, mutant.raw)
    if request.envelope is not None:
        for changed in _payloads(request.json["envelope"]):
            yield Lie(f"payload, {changed.what}", {"json": {"envelope": changed.document}}, changed.document)


def _forms(honest: MultiDict[str, Any]) -> Iterator[Lie]:
    """Every field left out, emptied, altered, sent twice; the file's bytes and name; the signed statement."""
    for name in honest:
        left = MultiDict((other, value) for other, value in honest.items(multi=True) if other != name)
        yield _form(f"{name} left out", left)
        if name == "content":
            stream, filename = honest[name]
            data = stream.getvalue()
            for mutant in sampled(data, count=20, seed="content"):
                yield _form(f"content, {mutant}", left, content=(mutant.raw, filename))
            for other in ("", "../x.whl", "demo-9.9-py3-none-any.whl", filename.upper(), "x" * 300, "\x00"):
                yield _form(f"file name {other!r}", left, content=(data, other))
            continue
        value = honest[name]
        for mutant in sampled(str(value).encode(), count=12, seed=name):
            yield _form(f"{name}, {mutant}", left, **{name: mutant.raw.decode("utf-8", "replace")})
        twice = MultiDict(honest.items(multi=True))
        twice.add(name, f"{value}0")
        yield _form(f"{name} twice", twice)
    attestation = json.loads(honest["attestations"])[0]
    left = MultiDict((name, value) for name, value in honest.items(multi=True) if name != "attestations")
    for changed in (*_payloads(attestation), *changed_members([attestation])):
        document = changed.document if isinstance(changed.document, list) else [changed.document]
        yield _form(f"attestation, {changed.what}", left, attestations=json.dumps(document))


def _form(what: str, fields: MultiDict[str, Any], **more: Any) -> Lie:
    sent: MultiDict[str, Any] = MultiDict()
    for name, value in (*fields.items(multi=True), *more.items()):
        if isinstance(value, tuple):
            data, filename = value
            sent.add(name, (BytesIO(data if isinstance(data, bytes) else data.getvalue()), filename))
        else:
            sent.add(name, value)
    return Lie(what, {"data": sent})


def _payloads(envelope: dict[str, Any]) -> Iterator[Changed]:
    """The envelope with something else in its payload, under the old signature."""
    for changed in changed_members(json.loads(base64.b64decode(envelope["payload"]))):
        try:
            raw = json.dumps(changed.document, sort_keys=True, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            continue
        yield Changed(changed.sort, changed.what, {**envelope, "payload": base64.b64encode(raw).decode()})


def _chosen(request: Request, name: str) -> list[Lie]:
    found = list(lies(request))
    return random.Random(name).sample(found, min(SAMPLE, len(found)))


def _judged(registry: Registry, request: Request, lie: Lie) -> tuple[str | None, bool]:
    """What is wrong with the answer to this lie, if anything; and whether it was taken."""
    world = registry.world
    before = world.state() if registry.state is None else registry.state
    registry.state = None
    answer = registry.post(request, **lie.sent)
    if answer.status_code >= 300:
        world.quiet()
        registry.state = world.state()
        document = answer.get_json(silent=True) or {}
        known = document.get("code") in CODES and 400 <= answer.status_code < 500
        if not known or answer.content_type != "application/problem+json":
            return f"answered {answer.status}: {answer.get_data()[:200]!r}", False
        return (
            None if registry.state == before else f"refused ({document['code']}) and changed something"
        ), False
    world.quiet()
    if request.answered is not None and (fault := request.answered(lie.changed, answer.get_json())):
        return fault, True
    if request.envelope is None:
        return None, True
    index = answer.get_json()["index"]
    entry = Entry.parse(Published(world.public, world.clock).entry(index))
    if entry.envelope is None or entry.envelope.payload != request.envelope.payload:
        return "was taken, and the log holds something else than was signed", True
    return None, True


@pytest.mark.parametrize("name", HONEST)
def test_altered_requests_are_refused_and_change_nothing(registry: Registry, name: str) -> None:
    """A sample of lies at each door of the registry; the honest request is taken at the end."""
    assert _tried(registry, name, lambda request: _chosen(request, name)) >= SAMPLE // 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", HONEST)
def test_every_altered_request_is_refused(registry: Registry, name: str) -> None:
    """All of them."""
    assert _tried(registry, name, lambda request: list(lies(request))) > 100


def _tried(registry: Registry, name: str, choose: Callable[[Request], list[Lie]]) -> int:
    request = HONEST[name](registry)
    registry.state = None
    found = choose(request)
    faults, taken = [], []
    for number in range(len(found)):
        if number >= len(found):
            break
        lie = found[number]
        fault, was_taken = _judged(registry, request, lie)
        if fault is not None:
            faults.append(f"{lie.what}: {fault}")
        if was_taken:
            taken.append(lie.what)
            request = HONEST[name](registry)
            found = choose(request)
    assert not faults, f"{len(faults)} of {len(found)}:\n" + "\n".join(faults[:30])
    strange = [what for what in taken if not _means_the_same(name, what)]
    assert not strange, "taken:\n" + "\n".join(strange)
    honest = {"data": request.form} if request.form is not None else {"json": request.json}
    assert registry.post(request, **honest).status_code == 200
    registry.world.check()
    return len(found)


# Why an altered request may be taken, by door: the end of what was done to it, or all of it.
MEANS_THE_SAME: dict[str, dict[str, str]] = {
    "upload": {
        r"(protocol_version|version|sha256_digest|blake2_256_digest) left out": "PyPI's tools may leave them out",
        r"(version|sha256_digest|blake2_256_digest), (empty: nothing|line-dropped: 0)": "empty is left out",
        r"(version|attestations), longer: b'(\\n| )'": "blanks around a value",
        r"attestations, member-twice: .*": "JSON's last member counts",
    },
    "keys": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
        r"member-dropped: envelope/signatures/0": "without the old key it is a recovery, which waits seven days",
    },
    "entries": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
    "attest": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
    "login": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
        r"member-added: the whole": "members that nobody reads",
        r"byte: [0-9]+ \^ 0x20": "a code is typed by people, in either case",
        r"byte: (14|19|24) \^ 0x1": "and with whatever between its four groups",
        r"member-changed: code = '\w{4}-\w{4},\w{4}-\w{4}'": "and with whatever between its four groups",
    },
    "token": {  # what else is asked for is another token, held to `_is_as_asked`
        r"byte: .*": "another name, project or time",
        r"member-(changed|retyped|dropped): (name|projects|actions|expires_in).*": "another name, project or time",
        r"item-.*: (projects|actions).*": "more projects, or one of them twice",
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
    "owner": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
    "job": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
    "run key": {
        r"longer: b'(\\n| )'": "blanks around JSON",
        r"member-twice: .*": "JSON's last member counts",
    },
}


def _means_the_same(name: str, what: str) -> bool:
    return any(re.fullmatch(pattern, what) for pattern in MEANS_THE_SAME[name])


# --- the witness -------------------------------------------------------------------------------------------------


def test_altered_requests_to_the_witness_change_nothing(tmp_path: Path) -> None:
    """Growing from 3 to 5: each altered byte, line and cut is refused, and the witness remembers size 3."""
    world = WitnessWorld(tmp_path / "w")
    assert world.post(witness_body(0, note(3))).status == 200
    honest, before = witness_body(3, note(5)), world.store.logs()
    others = [("a stranger's growth", witness_body(3, note(5, origin="other.test/log")))]
    for mutant in sampled(honest, others, count=1500, seed="witness"):
        answer = world.post(mutant.raw)
        if answer.status == 200:  # a signature line that is there twice counts once
            assert mutant.sort == "line-twice" and set(mutant.raw.split(b"\n")) == set(honest.split(b"\n"))
            world = WitnessWorld(tmp_path / mutant.what)
            assert world.post(witness_body(0, note(3))).status == 200
            before = world.store.logs()
            continue
        assert 400 <= answer.status < 500, (str(mutant), answer)
        assert world.store.logs() == before, str(mutant)
    for path in (
        "/",
        "/add-checkpoints",
        "/../witness.key",
        "/%00/checkpoint",
        "/" + "0" * 64 + "/checkpoint",
    ):
        for method in ("GET", "POST", "PUT"):
            assert 400 <= world.witness(Asked(method, path, body=honest)).status < 500, (method, path)
    assert world.store.logs() == before
    assert world.post(honest).status == 200


def test_altered_addresses_change_nothing(registry: Registry) -> None:
    """Every reading door, asked for what is not there or no name at all: below 500, and nothing changed."""
    before = registry.world.state()
    sha256 = wheel().hex()[:64]
    paths = ["/simple/demo/", f"/api/v1/files/demo/{WHEEL}", f"/packages/demo/{WHEEL}", f"/blobs/{sha256}"]
    paths += ["/api/v1/projects/demo", "/log/checkpoint", "/log/tile/0/000", "/tuf/1.root.json", "/h/exit-7"]
    for path in paths:
        for mutant in sampled(path.encode(), count=60, seed=path):
            asked = "/" + mutant.raw.decode("utf-8", "replace").lstrip("/")
            answer = registry.world.client.get(quote(asked))
            assert answer.status_code < 500, (path, str(mutant), answer.status)
    assert registry.world.state() == before
