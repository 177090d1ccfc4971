"""A whole registry in memory that is the client's fetcher: log, TUF, index, packages and API, and its attacks.

    world = World()                               # ceremony, genesis, first checkpoint, first timestamp
    wheel = world.publish("acme-demo", "1.0")     # enrol, sign, log, verdict, list, publish
    world.check()                                 # the whole world is as it should be
    with opened(registry, world, now=world.now) as view: ...

Everything is real but the disk, the network and the clock: entries go through the real rules, both log keys and
a witness sign every checkpoint, TUF is written with tuf.api. `check` is run after every honest step by the
tests: log integrity, a clean replay, both TUF bindings, the bins root, and listing equals the simple pages.

An attack is a method or an override: `world.override["/tuf/timestamp.json"] = bytes` answers that instead.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from countermark import bins, manifest, rules
from countermark.entry import Entry, make_entry, make_imported
from countermark.errors import NetworkError
from countermark.fetch import Answer, StatusError
from countermark.imported import Imported
from countermark.limits import FETCH_MAX_BYTES
from countermark.manifest import Line
from countermark.names import parse_filename
from countermark.replay import DictView, replay
from countermark.rules_import import why_passed_over
from countermark.serving import Request, Response
from countermark.simplepage import TEXT_HTML, encode_page
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint, open_checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, Note, NoteSigner
from countermark.tlog.policy import Policy
from countermark.tlog.proof import TlogProof
from countermark.tlog.tile import Tile, encode_bundle
from countermark.trustfile import CentralPolicy, TrustFile

NOW = 1_763_800_000
HOUR = 3600
BIT_LENGTH = 2
HTML = "#html"  # behind the path of a simple page: the same page for who asks for HTML
LOGIN_CODE = "GOOD-CODE"
ACCOUNT = "0123456789abcdef0123456789abcdef"
COMPACT = JSONSerializer(compact=True)
ROLES = ("root-a", "root-b", "targets", "trust", "index", "bins", "snapshot", "timestamp")


def signing_key(word: str) -> Ed25519PrivateKey:
    """A key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest())


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class Published:
    """A file as the registry took it."""

    project: str
    version: str
    filename: str
    data: bytes
    index: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def target(self) -> str:
        return f"files/{self.project}/{self.filename}"


class Keys:
    """Every private key of one registry; another `name` makes another registry's."""

    def __init__(self, name: str, origin: str) -> None:
        self.tuf = {role: CryptoSigner(signing_key(f"{name} {role}")) for role in ROLES}
        self.log: tuple[NoteSigner, ...] = (
            Ed25519NoteSigner(origin, signing_key(f"{name} log")),
            MlDsaSigner(
                origin,
                MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(f"{name} ml".encode()).digest()),
            ),
        )
        self.witness = Ed25519CosignatureSigner("witness.test/w1", signing_key(f"{name} witness"))
        self.authority = KeySigner(signing_key(f"{name} authority"))
        self.registry = KeySigner(signing_key(f"{name} registry"))
        self.scanner = KeySigner(signing_key(f"{name} scanner"))
        self.moderation = KeySigner(signing_key(f"{name} moderation"))


class World:
    """The registry. Public methods are honest; what ends in an attack says so."""

    def __init__(
        self,
        *,
        keys: str = "honest",
        trial: bool = False,
        mode: str = "enforce",
        base: str = "https://registry.test",
        now: int = NOW,
        floor: int = 0,
        origin: str = "registry.test/log",
        quorum: str = "w1",
        witnesses: str = "",
        bit_length: int = BIT_LENGTH,
        first: Callable[[World], object] = lambda world: None,
    ) -> None:
        self.base = base
        self.origin = origin
        self.now = now
        self.keys = Keys(keys, self.origin)
        self.publisher = KeySigner(signing_key("publisher"))
        self.view = DictView()
        self.entries: list[bytes] = []
        self.leaves: list[bytes] = []
        self.packages: dict[str, bytes] = {}  # and each wheel's metadata file under its name with `.metadata`
        self.blobs: dict[str, bytes] = {}  # what entries name by digest, once it is open
        self.pages: dict[str, dict[str, str]] = {}  # project -> filename -> sha256
        self.tuf: dict[str, bytes] = {}
        self.targets: dict[str, dict[str, Any]] = {}  # path -> target
        self.versions = {"snapshot": 0, "timestamp": 0, "trust": 1}
        self.logged_trust = 0  # the trust role's version that the log names
        self.also: list[NoteSigner] = []  # further log keys and witnesses, in an overlap
        self.bit_length = bit_length
        self.misplaced: dict[str, int] = {}  # an attack: paths that are listed in a bin that is not theirs
        self.bin_versions = [0] * (1 << bit_length)
        self.bin_leaves: list[bins.BinLeaf] = []
        self.bins_root: bytes | None = None
        self.logged_timestamps: list[str] = []
        self.checkpoint = b""
        self.log_size = 0
        self.timestamp_expires_in = 24 * HOUR
        self.override: dict[str, bytes | Callable[[], bytes | None] | None] = {}
        self.down: Callable[[str], bool] = lambda path: False
        self.asked: list[str] = []
        self.attested: dict[str, list[Any]] = {}  # filename -> entries that the API names
        self.ahead: list[Statement] = []  # statements that were submitted ahead of their files
        self.next_tier = "none"  # what the scanner will say of the next upload
        self._genesis(trial, CentralPolicy(min_tree_size=floor, mode=mode), (witnesses, quorum), first)

    def copy(self) -> World:
        """The same registry at this moment; both go on separately. Keys are shared: a fork."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list):
                setattr(other, name, copy.copy(value))
        other.pages = copy.deepcopy(self.pages)
        other.targets = copy.deepcopy(self.targets)
        other.view = DictView()
        for key, state in self.view.items():
            other.view.put(key, state)
        return other

    # --- the client's fetcher ---------------------------------------------------------------------------
    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        assert url.startswith(self.base), url
        path = urlsplit(url).path
        self.asked.append(path)
        if self.down(path):
            raise StatusError(url, Answer(503, "down"))
        if path.startswith("/simple/") and "html" in (headers or {}).get("Accept", ""):
            path += HTML
            self.asked[-1] = path
        raw = self._answer(path)
        if raw is None:
            if missing_ok:
                return None
            raise StatusError(url, Answer(404, "Not Found"))
        if len(raw) > max_bytes:
            raise NetworkError(f"{url} is longer than the {max_bytes} bytes allowed for it")
        return raw

    def _answer(self, path: str) -> bytes | None:
        found = self.override[path] if path in self.override else self._resource(path)
        return found() if callable(found) else found

    def chunks(self, url: str, *, max_bytes: int) -> Iterator[bytes]:
        """The same for files of any size; too much is noticed on the way, as over a network."""
        raw = self.get(url, max_bytes=1 << 40) or b""
        for start in range(0, len(raw), 1 << 16):
            if start >= max_bytes:
                raise NetworkError(f"{url} is longer than the {max_bytes} bytes allowed for it")
            yield raw[start : start + (1 << 16)]

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = FETCH_MAX_BYTES,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Answer:
        path, sent = urlsplit(url).path, {name.lower(): value for name, value in (headers or {}).items()}
        if self.down(path):
            return Answer(503, "down", {}, b"{}")
        if path == "/api/v1/login":
            return self._login(json.loads(body))
        if path == "/api/v1/keys":
            if sent.get("authorization") != "Bearer the-session":
                return _problem(403, "session-required", "only an interactive session enrols a key")
            return self._enrol(Envelope.parse(json.loads(body)["envelope"]))
        if path == "/api/v1/statements":
            if sent.get("authorization") != "Bearer the-token":
                return _problem(401, "not-authenticated", "no such token")
            return self._statement(Envelope.parse(json.loads(body)["envelope"]))
        if path == "/legacy/":
            if base64.b64decode(sent.get("authorization", "Basic ").split()[1]) != b"__token__:the-token":
                return _problem(401, "token-unknown", "no such token")
            return self._legacy(body, content_type)
        return Answer(404, "Not Found")

    def _login(self, body: Mapping[str, Any]) -> Answer:
        if body["code"] != LOGIN_CODE:
            return _problem(403, "login-refused", "the code is wrong, spent or expired")
        answer = {
            "account": ACCOUNT,
            "login": "alice",
            "session": "the-session",
            "session_expires": self.now + HOUR,
            "upload_token": "the-token",
        }
        return Answer(200, "OK", {}, json.dumps(answer).encode())

    def _enrol(self, envelope: Envelope) -> Answer:
        registry = {"account": ACCOUNT, "authorised_by": "registry", "identity": None}
        index = self.submit("key-enroll", envelope, registry)
        if isinstance(index, rules.Broken):
            return _problem(400, index.code, index.message)
        self.heartbeat()
        answer = {"index": index, "leaf_hash": self.leaves[index].hex(), "proof": self.proof(index)}
        return Answer(200, "OK", {}, json.dumps(answer).encode())

    def _statement(self, envelope: Envelope) -> Answer:
        said = Statement.parse(envelope.payload)
        project, filename = said.predicate["project"], said.subject_name
        if self._enrolled(project, envelope.keyids[0]) is None:
            return _problem(400, "key-unknown", "the key is not enrolled")
        state = self.view.get(rules.file_key("", project, filename))
        if state is None:
            self.ahead.append(said)
        waits = (
            {"state": "logged", "expires": None}
            if state
            else {"state": "waiting", "expires": self.now + 24 * HOUR}
        )
        answer = {"project": project, "filename": filename, "sha256": said.subject_sha256, **waits}
        return Answer(200, "OK", {}, json.dumps(answer).encode())

    def _legacy(self, body: bytes, content_type: str) -> Answer:
        from werkzeug.test import EnvironBuilder
        from werkzeug.wrappers import Request as WsgiRequest

        environ = EnvironBuilder(method="POST", data=body, content_type=content_type).get_environ()
        request = WsgiRequest(environ)
        file = request.files["content"]
        data, filename = file.read(), file.filename or ""
        assert hashlib.sha256(data).hexdigest() == request.form["sha256_digest"]
        (attestation,) = json.loads(request.form["attestations"])
        envelope = Envelope.parse(attestation)
        project, version = request.form["name"], request.form["version"]
        state = self.view.get(rules.file_key("", project, filename))
        index: int | rules.Broken
        if state is not None and state["sha256"] == hashlib.sha256(data).hexdigest():
            index = state["index"]
        else:
            key_index = self._enrolled(project, envelope.keyids[0])
            registry = {"identity": None, "key_index": key_index, "uploader": ACCOUNT}
            index = self.submit("publish", envelope, registry)
            if isinstance(index, rules.Broken):
                return _problem(400, index.code, index.message)
            published = Published(project, version, filename, data, index)
            self.packages[f"{project}/{filename}"] = data
            self.verdict(published, self.next_tier)
            self.release()
        answer = {
            "index": index,
            "leaf_hash": self.leaves[index].hex(),
            "message": "logged, not yet listed",
            "proof": self.proof(index),
            "state": "logged",
        }
        return Answer(200, "OK", {}, json.dumps(answer).encode())

    def _enrolled(self, project: str, keyid: str) -> int | None:
        state = self.view.get(rules.project_key("", project))
        item = None if state is None else state["keys"].get(keyid)
        return None if item is None else item["index"]

    def _project(self, project: str) -> bytes:
        state = self.view.get(rules.project_key("", project)) or {"keys": {}, "head": None}
        keys = [{"keyid": keyid, "index": item["index"]} for keyid, item in sorted(state["keys"].items())]
        return json.dumps({"project": project, "prev": state["head"], "keys": keys}).encode()

    def proof(self, index: int) -> str:
        """The proof an upload is answered with, against the published checkpoint."""
        read = merkle.reader(self.leaves[: self.log_size])
        path = merkle.prove_inclusion(index, self.log_size, read)
        return TlogProof(index, path, self.checkpoint).format().decode()

    def _resource(self, path: str) -> bytes | None:
        if path == "/log/checkpoint":
            return self.checkpoint
        if path.startswith("/log/tile/"):
            return self._tile(Tile.parse(path.removeprefix("/log/")))
        if path.startswith("/tuf/"):
            return self.tuf.get(path.removeprefix("/tuf/"))
        if path.startswith("/blobs/"):
            return self.blobs.get(path.removeprefix("/blobs/"))
        if path.startswith("/packages/"):
            return self.packages.get(path.removeprefix("/packages/"))
        if path.endswith(HTML):  # made of the JSON page as it is answered, so that both tell the same lies
            return self._html(path.removesuffix(HTML))
        if path.startswith("/simple/"):
            return self._page(path.removeprefix("/simple/").rstrip("/"))
        if path.startswith("/api/v1/projects/"):
            return self._project(path.removeprefix("/api/v1/projects/"))
        if path.startswith("/api/v1/logged/"):
            return self._logged(*path.removeprefix("/api/v1/logged/").split("/"))
        if path.startswith("/api/v1/files/"):
            project, _, filename = path.removeprefix("/api/v1/files/").partition("/")
            return self._file(project, filename) if filename else self._files(project)
        return None

    def _tile(self, tile: Tile) -> bytes | None:
        level = max(tile.level, 0)
        span = 256**level
        first, last = tile.index * 256, tile.index * 256 + tile.width
        if last * span > self.log_size:
            return None
        if tile.level < 0:
            return encode_bundle(self.entries[first:last])
        return b"".join(merkle.root_hash(self.leaves[i * span : (i + 1) * span]) for i in range(first, last))

    def _page(self, project: str) -> bytes | None:
        meta = {"api-version": "1.4"}
        if not project:
            return json.dumps({"meta": meta, "projects": [{"name": name} for name in self.pages]}).encode()
        if project not in self.pages:
            return None
        files = [self._on_page(project, name, sha) for name, sha in sorted(self.pages[project].items())]
        return json.dumps({"meta": meta, "name": project, "files": files}).encode()

    def _html(self, path: str) -> bytes | None:
        page = self._answer(path)
        try:
            return None if page is None else encode_page(json.loads(page), TEXT_HTML)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return page

    def _on_page(self, project: str, filename: str, sha256: str) -> dict[str, Any]:
        """One file as the simple page shows it; the index's own words come from what TUF lists."""
        shown: dict[str, Any] = {"filename": filename, "hashes": {"sha256": sha256}}
        shown |= {"url": f"/packages/{project}/{filename}", "yanked": False}
        target = self.targets.get(f"files/{project}/{filename}")
        if target is not None:
            custom = target["custom"]
            shown["size"] = target["length"]
            shown["yanked"] = f"yanked by entry {custom['yank']}" if custom["yank"] else False
            shown["_countermark"] = {"index": custom["i"], "leaf_hash": custom["lh"]}
        metadata = self.packages.get(f"{project}/{filename}.metadata")
        if metadata is not None:
            shown["core-metadata"] = {"sha256": hashlib.sha256(metadata).hexdigest()}
        return shown

    def _files(self, project: str) -> bytes | None:
        """What became of every file of a project."""
        states = [state for key, state in self.view.items() if key[0] == "file" and key[2] == project]
        names = [rules.target_path(state).rpartition("/")[2] for state in states]
        raws = [self._file(project, name) for name in names]
        files = [json.loads(raw) for raw in raws if raw is not None]
        return json.dumps({"project": project, "files": files}).encode() if files else None

    def _file(self, project: str, filename: str) -> bytes | None:
        state = self.view.get(rules.file_key("", project, filename))
        if state is None:
            return None
        standing = rules.standing_of(self.view, rules.file_key("", project, filename))
        listed = rules.is_listed(self.view, rules.file_key("", project, filename))
        answer = {
            "attestations": [{"entry": index} for index in self.attested.get(filename, [])],
            "filename": filename,
            "index": state["index"],
            "leaf_hash": state["lh"],
            "message": "",
            "project": project,
            "proof": self.proof(state["index"]) if state["index"] < self.log_size else None,
            "reason": "malware" if state["takedown"] else "",
            "sha256": state["sha256"],
            "standing": standing,
            "state": "listed" if listed else "held" if _is_held(state, standing) else "logged",
            "version": state["version"],
        }
        return json.dumps(answer).encode()

    def _logged(self, namespace: str, project: str, filename: str) -> bytes | None:
        """Where a file of a namespace is logged."""
        state = self.view.get(rules.file_key(namespace, project, filename))
        if state is None or state["index"] >= self.log_size:
            return None
        return json.dumps({"index": state["index"], "leaf_hash": state["lh"]}).encode()

    def answer(self, request: Request) -> Response:
        """The same world behind a real socket (`serving.listening(world.answer, ...)`)."""
        if request.method == "POST":
            found = self.post(
                self.base + request.path,
                request.body,
                content_type=request.headers.get("content-type", ""),
                headers=request.headers,
            )
            return Response(found.status, found.body, "application/json")
        try:
            raw = self.get(self.base + request.path, missing_ok=True)
        except StatusError as error:
            return Response(error.answer.status)
        return Response(404) if raw is None else Response(200, raw, "application/octet-stream")

    # --- honest steps -------------------------------------------------------------------------------------
    def publish(
        self,
        project: str,
        version: str = "1.0",
        *,
        data: bytes | None = None,
        signed: bool = True,
        list_it: bool = True,
        filename: str | None = None,
    ) -> Published:
        """Take one wheel the whole way to the index; `signed` False lets the registry sign in the owner's place."""
        filename = filename or f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        data = data or f"wheel of {project} {version}".encode()
        metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode()
        if signed and self.view.get(rules.project_key("", project)) is None:
            self.enroll(project)
        predicate = {
            "length": len(data),
            "metadata_sha256": hashlib.sha256(metadata).hexdigest(),
            "namespace": "",
            "origin": self.origin,
            "prev": None,
            "project": project,
            "record_sha256": "11" * 32,
            "version": version,
        }
        statement = Statement(filename, hashlib.sha256(data).hexdigest(), "publish", predicate)
        signer = self.publisher if signed else self.keys.registry
        registry = {
            "identity": None,
            "key_index": self.key_index(project) if signed else None,
            "uploader": ACCOUNT,
        }
        index = self.append("publish", sign(statement, signer), registry)
        published = Published(project, version, filename, data, index)
        self.packages[f"{project}/{filename}"] = data
        self.packages[f"{project}/{filename}.metadata"] = metadata
        if list_it:
            self.verdict(published)
            self.release()
        return published

    def enroll(self, project: str) -> int:
        key = self.publisher
        predicate = {
            "key": _b64(key.public_key),
            "namespace": "",
            "origin": self.origin,
            "prev": None,
            "project": project,
            "scope": "project",
            "threshold": 1,
            "valid_for": None,
        }
        statement = Statement.about(f"key:{key.keyid}", "key-enroll", predicate)
        registry = {"account": ACCOUNT, "authorised_by": "registry", "identity": None}
        return self.append("key-enroll", sign(statement, key), registry)

    def key_index(self, project: str) -> int:
        enrolment = self.view.get(("enrolment", "", project, self.publisher.keyid))
        assert enrolment is not None
        return int(enrolment["index"])

    def verdict(self, file: Published, tier: str = "none", *, findings: bytes | None = None) -> int:
        predicate = self._registry_side(file) | {
            "analyzers": [],
            "classification": "no-findings",
            "confidence": "high",
            "findings_sha256": None if findings is None else hashlib.sha256(findings).hexdigest(),
            "ruleset_sha256": "22" * 32,
            "tier": tier,
        }
        statement = Statement(file.filename, file.sha256, "verdict", predicate)
        return self.append("verdict", sign(statement, self.keys.scanner), {})

    def decide(self, type: str, file: Published, reason: str) -> int:
        """A hold, clear or takedown by a moderator."""
        predicate = self._registry_side(file) | {"about": None, "evidence_sha256": None, "reason": reason}
        statement = Statement(file.filename, file.sha256, type, predicate)
        registry = {"case": None, "moderator": ACCOUNT[::-1]}
        return self.append(type, sign(statement, self.keys.moderation), registry)

    def attest(self, file: Published, verified: str, *, object_sha256: str = "a7" * 32) -> int:
        """What the registry's scan found of a PEP 740 object."""
        state = self.view.get(rules.file_key("", file.project, file.filename))
        assert state is not None
        predicate = {
            "about": state["lh"], "kind": "pep740", "namespace": "", "origin": self.origin,
            "prev": state["owner_head"], "project": file.project, "statement_sha256": object_sha256,
        }  # fmt: skip
        statement = Statement(file.filename, file.sha256, "attest", predicate)
        index = self.append("attest", sign(statement, self.keys.registry), {"verified": verified})
        self.attested.setdefault(file.filename, []).append(index)
        return index

    def yank(self, file: Published) -> int:
        state = self.view.get(rules.file_key("", file.project, file.filename))
        assert state is not None
        predicate = {
            "namespace": "",
            "origin": self.origin,
            "prev": state["owner_head"],
            "project": file.project,
            "reason": "broken",
        }
        statement = Statement(file.filename, file.sha256, "yank", predicate)
        return self.append("yank", sign(statement, self.publisher), {"actor": ACCOUNT})

    def append(self, type: str, envelope: Envelope, registry: Mapping[str, Any]) -> int:
        """Sequence one entry under the rules; an entry they refuse is a bug of the test."""
        index = self.submit(type, envelope, registry)
        assert not isinstance(index, rules.Broken), index
        return index

    def submit(self, type: str, envelope: Envelope, registry: Mapping[str, Any]) -> int | rules.Broken:
        """Sequence one entry, or say which rule it breaks."""
        entry = make_entry(type=type, envelope=envelope, registry=registry, time=self.now)
        changes = rules.apply(self.view, entry)
        if isinstance(changes, rules.Broken):
            return changes
        self.view.apply(changes)
        return self.append_raw(entry.raw)

    def import_files(
        self,
        *files: tuple[str, bytes],
        released: bool = True,
        keeps: Callable[[list[Line]], bytes] = lambda lines: (
            manifest.ZERO_NONCE + manifest.format_manifest(lines)
        ),
    ) -> list[Published]:
        """Existing history under an import entry: what nobody signed, here with its bytes.

        `keeps`: the blob that the registry names as its manifest, where it is a liar.
        """
        lines = []
        for filename, data in files:
            name = parse_filename(filename)
            digest = hashlib.sha256(data).hexdigest()
            lines.append(Line(name.project, name.version, filename, digest, len(data)))
        before = self.view.get(rules.LOG).get("import")
        prev = before["head"] if before else None
        said = manifest.predicate(lines, origin=self.origin, prev=prev, source="old.example")
        blob = keeps(lines)
        said["manifest_sha256"] = hashlib.sha256(blob).hexdigest()
        self.blobs[said["manifest_sha256"]] = blob
        statement = Statement.about(f"import:{said['manifest_sha256']}", "import", said)
        index = self.append("import", sign(statement, self.keys.registry), {})
        chain, found = manifest.links([line.row for line in lines]), []
        for number, (line, (_, data)) in enumerate(zip(lines, files, strict=True), start=1):
            passed = why_passed_over(self.view, line, self.now)
            entry = make_imported(Imported(line, index, number, chain[number], passed), time=self.now)
            result = rules.apply(self.view, entry)
            assert isinstance(result, rules.Changes), result
            self.view.apply(result)
            at = self.append_raw(entry.raw)
            found.append(Published(line.project, line.version, line.filename, data, at))
            self.packages[f"{line.project}/{line.filename}"] = data
        if released:
            self.heartbeat()
        return found

    def freeze(self) -> int:
        """The last entry, and the checkpoint over it."""
        predicate = {"namespace": "", "origin": self.origin, "prev": self.view.get(rules.LOG)["tuf"]["head"]}
        predicate |= {"project": "", "reason": "successor"}
        statement = Statement.about(f"log:{self.origin}", "log-freeze", predicate)
        index = self.append("log-freeze", sign(statement, self.keys.moderation), {"case": None})
        self.heartbeat()
        return index

    def append_raw(self, raw: bytes) -> int:
        """Put bytes into the tree without asking the rules: a log that misbehaves."""
        self.entries.append(raw)
        self.leaves.append(merkle.leaf_hash(raw))
        return len(self.entries) - 1

    def release(self) -> None:
        """One TUF publish: bins that changed, snapshot, `tuf` entry, cosigned checkpoint, timestamp, pages."""
        applied = len(self.entries)
        self.targets = self.listing()
        changed = self.write_bins()
        self.log_tuf(applied, changed)
        self.sign_checkpoint()
        self.sign_timestamp(applied=applied)
        self.pages = {}
        for path, target in self.targets.items():
            _, project, filename = path.split("/")
            self.pages.setdefault(project, {})[filename] = target["hashes"]["sha256"]

    def heartbeat(self) -> None:
        """A new checkpoint and timestamp over whatever was appended; nothing is applied."""
        self.sign_checkpoint()
        self.sign_timestamp(applied=self._applied())

    def listing(self) -> dict[str, dict[str, Any]]:
        """Which targets there must be, by the rules' state."""
        found = {}
        for key, state in self.view.items():
            if key[0] == "file" and rules.is_listed(self.view, key):
                found[rules.target_path(state)] = {
                    "custom": rules.target_custom(state),
                    "hashes": {"sha256": state["sha256"]},
                    "length": state["length"],
                }
        return found

    # --- TUF ----------------------------------------------------------------------------------------------
    def write_bins(self) -> list[bins.BinLeaf]:
        """Write the bins whose targets differ from what they hold, and the tiles of the new bins root."""
        succinct = SuccinctRoles([self._keyid("bins")], 1, self.bit_length, "bins")
        changed = []
        for number, role in enumerate(succinct.get_roles()):
            held = {p: t for p, t in self.targets.items() if self._bin_of(succinct, p) == number}
            if self.bin_versions[number] and self._held(number) == held:
                continue
            self.bin_versions[number] += 1
            version = self.bin_versions[number]
            targets = {path: TargetFile.from_dict(copy.deepcopy(t), path) for path, t in held.items()}
            raw = self._signed(
                Targets(version, expires=when(self.now + 30 * 24 * HOUR), targets=targets), "bins"
            )
            self.tuf[f"{version}.{role}.json"] = raw
            leaf = bins.BinLeaf(role, version, hashlib.sha256(raw).hexdigest(), bins.targets_root(held))
            self.bin_leaves[number : number + 1] = [leaf]
            changed.append(leaf)
        changes = bins.format_changes(changed)
        self.tuf[f"changes/{hashlib.sha256(changes).hexdigest()}"] = changes
        tree = bins.BinsTree.build([leaf.leaf_hash for leaf in self.bin_leaves])
        self.bins_root = tree.root
        self.tuf |= {f"bins/{name}": raw for name, raw in tree.tiles().items()}
        self._write_snapshot()
        return changed

    def _bin_of(self, succinct: SuccinctRoles, path: str) -> int:
        role = succinct.get_role_for_target(path)
        return self.misplaced.get(path, int(role.rpartition("-")[2], 16))

    def log_tuf(self, applied: int, changed: list[bins.BinLeaf]) -> None:
        state = self.view.get(rules.LOG)
        assert state is not None and self.bins_root is not None
        previous = state["tuf"]
        first = previous is None
        version = self.versions["snapshot"]
        names = {role: f"1.{role}.json" for role in ("root", "targets", "index")}
        files = {role: _metadata_file(1, self.tuf[name]) if first else None for role, name in names.items()}
        trust, files["trust"] = self.versions["trust"], None
        if trust > self.logged_trust:
            files["trust"] = _metadata_file(trust, self.tuf[f"{trust}.trust.json"])
            self.logged_trust = trust
        predicate = files | {
            "applied": applied,
            "bins_new": self.bins_root.hex(),
            "bins_old": None if first else previous["bins"],
            "changed_sha256": hashlib.sha256(bins.format_changes(changed)).hexdigest() if changed else None,
            "namespace": "",
            "origin": self.origin,
            "prev": None if first else previous["head"],
            "project": "",
            "snapshot": _metadata_file(version, self.tuf[f"{version}.snapshot.json"]),
            "timestamps": self.logged_timestamps,
        }
        self.logged_timestamps = []
        self.append("tuf", sign(Statement.about(f"tuf:{version}", "tuf", predicate), self.keys.registry), {})

    def log_tuf_of_snapshot(self) -> None:
        """A publish in which no bin changes: a new snapshot, and the `tuf` entry that names it."""
        applied = len(self.entries)
        self._write_snapshot()
        self.log_tuf(applied, [])

    def sign_checkpoint(
        self, *, witnessed: bool = True, log_keys: tuple[NoteSigner, ...] | None = None
    ) -> bytes:
        """Sign the tree as it is now and publish it."""
        self.log_size = len(self.entries)
        text = Checkpoint(self.origin, self.log_size, merkle.root_hash(self.leaves)).text()
        signers: list[NoteSigner] = list(self.keys.log if log_keys is None else log_keys)
        if witnessed:
            signers.append(self.keys.witness)
        signers += self.also
        lines = tuple(signer.sign(text, time=self.now) for signer in signers)
        self.checkpoint = Note(text, lines).format()
        return self.checkpoint

    def sign_timestamp(
        self, *, applied: int, checkpoint: bytes | None = None, version: int | None = None, **members: Any
    ) -> bytes:
        """The timestamp over the current snapshot and checkpoint; `members` replaces its own members."""
        assert self.bins_root is not None
        note = self.checkpoint if checkpoint is None else checkpoint
        head = Checkpoint.parse(Note.parse(note).text)
        if version is None:
            self.versions["timestamp"] += 1
            version = self.versions["timestamp"]
        snapshot = self.versions["snapshot"]
        raw = self.tuf[f"{snapshot}.snapshot.json"]
        own = {
            "x-countermark-applied": applied,
            "x-countermark-bins": {"bit_length": self.bit_length, "root": self.bins_root.hex()},
            "x-countermark-log": {
                "checkpoint": note.decode(),
                "origin": head.origin,
                "root_hash": head.root_hash.hex(),
                "size": head.size,
            },
        } | members
        timestamp = Timestamp(
            version,
            expires=when(self.now + self.timestamp_expires_in),
            snapshot_meta=MetaFile(snapshot, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}),
            unrecognized_fields=own,
        )
        self.tuf["timestamp.json"] = signed = self._signed(timestamp, "timestamp")
        self.logged_timestamps.append(hashlib.sha256(signed).hexdigest())
        return signed

    def _write_snapshot(self) -> None:
        self.versions["snapshot"] += 1
        meta = {f"{role}.json": MetaFile(1) for role in ("targets", "index")}
        meta["trust.json"] = MetaFile(self.versions["trust"])
        meta |= {f"{leaf.role}.json": MetaFile(leaf.version) for leaf in self.bin_leaves}
        snapshot = Snapshot(self.versions["snapshot"], expires=when(self.now + 7 * 24 * HOUR), meta=meta)
        self.tuf[f"{self.versions['snapshot']}.snapshot.json"] = self._signed(snapshot, "snapshot")

    def _held(self, number: int) -> dict[str, Any]:
        role = bins.role_name(number, self.bit_length)
        held: dict[str, Any] = json.loads(self.tuf[f"{self.bin_versions[number]}.{role}.json"])["signed"][
            "targets"
        ]
        return held

    def _applied(self) -> int:
        state = self.view.get(rules.LOG)
        assert state is not None
        return int(state["applied"])

    def _signed(self, signed: Any, *roles: str) -> bytes:
        metadata = Metadata(signed)
        for role in roles:
            metadata.sign(self.keys.tuf[role], append=True)
        return metadata.to_bytes(COMPACT)

    def _keyid(self, role: str) -> str:
        return self.keys.tuf[role].public_key.keyid

    def _registry_side(self, file: Published) -> dict[str, Any]:
        state = self.view.get(rules.file_key("", file.project, file.filename))
        assert state is not None
        return {
            "namespace": "",
            "origin": self.origin,
            "prev": state["registry_head"],
            "project": file.project,
        }

    # --- genesis ------------------------------------------------------------------------------------------
    def _genesis(
        self,
        trial: bool,
        client_policy: CentralPolicy,
        quorum: tuple[str, str],
        first: Callable[[World], object],
    ) -> None:
        witnesses, named = quorum
        logs = "".join(f"log {signer.vkey.format()}\n" for signer in self.keys.log)
        self.trust_file = TrustFile(
            version=1,
            origin=self.origin,
            authority_key=self.keys.authority.public_key,
            witness_policy=f"{logs}witness w1 {self.keys.witness.vkey.format()}\n{witnesses}quorum {named}\n",
            client_policy=client_policy,
            valid_from=self.now - 30 * 24 * HOUR,
        )
        self.policy = Policy.parse(self.trust_file.witness_policy)
        self._write_offline(trial)
        self.view.apply(rules.genesis(origin=self.origin, authority_key=self.keys.authority.public_key))
        first(self)  # what stands before the role keys: a successor's `predecessor`, or an attack
        for scope in ("registry", "scanner", "moderation"):
            self._enroll_role(scope)
        self.release()

    def _enroll_role(self, scope: str) -> None:
        key: KeySigner = getattr(self.keys, scope)
        predicate = {
            "key": _b64(key.public_key),
            "namespace": "",
            "origin": self.origin,
            "prev": None,
            "project": "",
            "scope": scope,
            "threshold": 1,
            "valid_for": None,
        }
        statement = Statement.about(f"key:{key.keyid}", "key-enroll", predicate)
        registry = {"account": None, "authorised_by": "authority", "identity": None}
        self.append("key-enroll", sign(statement, key, self.keys.authority), registry)

    def _write_offline(self, trial: bool) -> None:
        trust_raw = self.trust_file.format()
        digest = hashlib.sha256(trust_raw).hexdigest()
        fields: dict[str, Any] = {"x-countermark-trust": [digest]} | (
            {"x-countermark-trial": True} if trial else {}
        )
        year = when(self.now + 365 * 24 * HOUR)
        root = Root(1, expires=year, consistent_snapshot=True, unrecognized_fields=fields)
        for role in ("root-a", "root-b"):
            root.add_key(self.keys.tuf[role].public_key, "root")
        root.roles["root"].threshold = 2
        for role in ("targets", "snapshot", "timestamp"):
            root.add_key(self.keys.tuf[role].public_key, role)
        self.tuf["1.root.json"] = self._signed(root, "root-a", "root-b")
        delegations = Delegations(
            {self._keyid(role): self.keys.tuf[role].public_key for role in ("trust", "index")},
            {
                "trust": DelegatedRole("trust", [self._keyid("trust")], 1, True, ["trust/*"]),
                "index": DelegatedRole("index", [self._keyid("index")], 1, True, ["files/*/*"]),
            },
        )
        self.tuf["1.targets.json"] = self._signed(
            Targets(1, expires=year, delegations=delegations), "targets"
        )
        self.sign_trust(trust_raw)
        index = Delegations(
            {self._keyid("bins"): self.keys.tuf["bins"].public_key},
            succinct_roles=SuccinctRoles([self._keyid("bins")], 1, self.bit_length, "bins"),
        )
        self.tuf["1.index.json"] = self._signed(Targets(1, expires=year, delegations=index), "index")

    def sign_trust(self, raw: bytes, *signers: str) -> None:
        """What the `trust` role says; with another file than the root lists, an attack by stolen trust keys."""
        version = self.versions["trust"]
        file = TargetFile.from_data("trust/trust.json", raw, ["sha256"])
        year = when(self.now + 365 * 24 * HOUR)
        trust = Targets(version, expires=year, targets={"trust/trust.json": file})
        self.tuf[f"{version}.trust.json"] = self._signed(trust, *(signers or ("trust",)))
        self.tuf[f"targets/trust/{hashlib.sha256(raw).hexdigest()}.trust.json"] = raw

    @property
    def root(self) -> bytes:
        return self.tuf["1.root.json"]

    # --- the whole-world check ----------------------------------------------------------------------------
    def check(self) -> None:
        """Everything that must be true of an honest registry, at once."""
        # The log: the public checkpoint is signed, cosigned, and the tree of exactly these entries.
        checkpoint = open_checkpoint(self.checkpoint, self.policy, now=self.now)
        assert self.leaves == [merkle.leaf_hash(raw) for raw in self.entries]
        assert checkpoint.root_hash == merkle.root_hash(self.leaves[: checkpoint.size])
        # The rules: replay is clean and ends in the state the registry holds.
        again, findings = DictView(), []
        again.apply(rules.genesis(origin=self.origin, authority_key=self.keys.authority.public_key))
        replay(self.entries, again, on_finding=findings.append)
        assert not findings, findings
        assert again.digest() == self.view.digest()
        # TUF to log: the timestamp carries a checkpoint that is the log's, over a snapshot that is logged.
        signed = json.loads(self.tuf["timestamp.json"])["signed"]
        carried = open_checkpoint(
            signed["x-countermark-log"]["checkpoint"].encode(), self.policy, now=self.now
        )
        assert carried.root_hash == merkle.root_hash(self.leaves[: carried.size])
        state = self.view.get(rules.LOG)
        assert state is not None
        assert signed["x-countermark-applied"] == state["applied"] <= carried.size
        assert signed["x-countermark-bins"]["root"] == state["tuf"]["bins"]
        snapshot = self.tuf[f"{self.versions['snapshot']}.snapshot.json"]
        assert state["tuf"]["snapshot"]["sha256"] == hashlib.sha256(snapshot).hexdigest()
        # The bins: their root, and their targets are the listing after `applied` entries, as the pages say.
        tree = bins.BinsTree.build([leaf.leaf_hash for leaf in self.bin_leaves])
        assert tree.root.hex() == state["tuf"]["bins"]
        held = {
            path: target
            for number in range(1 << self.bit_length)
            for path, target in self._held(number).items()
        }
        then = self.copy()
        then.view = DictView()
        then.view.apply(rules.genesis(origin=self.origin, authority_key=self.keys.authority.public_key))
        replay(self.entries[: state["applied"]], then.view, on_finding=findings.append)
        assert held == then.listing()
        pages = {f"files/{p}/{name}": sha for p, files in self.pages.items() for name, sha in files.items()}
        assert pages == {path: target["hashes"]["sha256"] for path, target in held.items()}
        for path, sha256 in pages.items():
            assert hashlib.sha256(self.packages[path.removeprefix("files/")]).hexdigest() == sha256


def _is_held(state: Mapping[str, Any], standing: str | None) -> bool:
    verdict = state["verdict"]
    return standing == "held" or (verdict is not None and verdict["tier"] in ("queue", "block"))


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _problem(status: int, code: str, detail: str) -> Answer:
    document = {"code": code, "detail": detail, "status": status, "type": f"https://registry.test/h/{code}"}
    return Answer(status, detail, {}, json.dumps(document).encode())


def _metadata_file(version: int, raw: bytes) -> dict[str, Any]:
    return {"length": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "version": version}


__all__ = ["ACCOUNT", "NOW", "Entry", "Published", "World", "signing_key"]
