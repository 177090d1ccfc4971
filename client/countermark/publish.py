"""Publish: sign in, enrol a key, sign, upload, wait until listed, and check the proof that came back.

    countermark login https://registry.example --root-words '...'
    countermark publish dist/*

The registry is checked before it is told anything: `login` and every later step open a verified view from
the pinned root first, so a stranger at the same address gets neither a code nor a signature. What the
registry's API says (keys, prev, state) is a hint that ends in a statement the log's rules judge; what we
report as proved comes from the proof and from `verify`, not from the API.

Enrolling asks once: the public key and the account id stay in the log for ever. An upload token can never
enrol. Uploading is idempotent: the same bytes again get the same entry.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

from countermark.distribution import Distribution
from countermark.entry import Entry
from countermark.errors import (
    EvidenceError,
    MalformedError,
    NetworkError,
    PolicyError,
    WithdrawnError,
)
from countermark.fetch import Answer, Fetcher, decode_json
from countermark.limits import TLOG_PROOF_MAX_BYTES
from countermark.logreader import LogReader
from countermark.pins import Registry
from countermark.place import Place
from countermark.projectstate import ProjectState
from countermark.session import Session
from countermark.statement import Signer, Statement, sign
from countermark.tlog import merkle
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.tlog.proof import TlogProof
from countermark.trust import View, opened
from countermark.values import dataclass

POLL_SECONDS = 0.1  # between two looks at a file's state
LISTED_TIMEOUT = 180.0  # seconds; a scan takes longer than this only when somebody must look
ENROL_TIMEOUT = 60.0
JSON = "application/json"


@dataclass(frozen=True)
class Uploaded:
    """The registry's answer to an upload, and how long it took. `proof` was checked."""

    index: int | None
    state: str
    message: str
    proof: bytes | None
    checkpoint: VerifiedCheckpoint | None
    milliseconds: float


@dataclass(frozen=True)
class FileState:
    """What the API says of one file; the proof, if any, was checked."""

    state: str
    standing: str
    message: str
    reason: str
    index: int | None
    proof: bytes | None
    decided: str = ""  # the entry behind the standing and its reason code, in words
    approvals: dict[str, Any] | None = None  # what its release waits for, by accounts

    @property
    def listed(self) -> bool:
        return self.state == "listed"

    @property
    def staged(self) -> bool:
        """Whether nothing but people is waited for."""
        return self.state == "cleared" and self.approvals is not None


def sign_in(registry: Registry, fetcher: Fetcher, code: str, *, now: int) -> Session:
    """Redeem a one-time code, after the server proved to be the registry that is pinned. Kept by `Session.save`."""
    with opened(registry, fetcher, now=now):
        pass
    body = json.dumps({"code": code.strip()}).encode()
    answer = fetcher.post(f"{registry.url}/api/v1/login", body, content_type=JSON)
    check_answer(answer, "signing in")
    return Session.parse(answer.body)


def needs_enrolment(
    registry: Registry, fetcher: Fetcher, projects: set[str], signer_keyid: str
) -> list[ProjectState]:
    """The projects this key is not enrolled for; PolicyError where another key would have to vouch for it."""
    states = [ProjectState.fetch(fetcher, registry, project) for project in sorted(projects)]
    missing = [state for state in states if signer_keyid not in state.keys]
    for state in missing:
        if not state.keys and (namespace := Place.parse(state.project).namespace):
            raise PolicyError(
                f"nobody has opened namespace {namespace}, so nothing is published in it",
                hint=f"countermark key enrol '{namespace}/*'",
            )
        if state.keys:
            known = ", ".join(keyid[:16] for keyid in sorted(state.keys))
            raise PolicyError(
                f"project {state.project} is signed by {known}, and this key ({signer_keyid[:16]}) is not enrolled",
                hint="publish with an enrolled key (--key NAME), or have this one let in: countermark key enrol "
                f"{state.project}",
            )
    return missing


def enrol(
    view: View,
    fetcher: Fetcher,
    session: Session,
    signer: Signer,
    state: ProjectState,
    *,
    now: int,
) -> int:
    """Enrol a project's first key, or ask for one without any that is enrolled; the index of its entry."""
    registry = view.registry
    session.check(registry, now=now)
    place = Place.parse(state.project)
    predicate = {
        "key": base64.b64encode(signer.public_key).decode(),
        **place.binding,
        "origin": view.trust_file.origin,
        "prev": state.prev,
        "scope": place.scope,
        "threshold": 1,
        "valid_for": None,
    }
    envelope = sign(Statement.about(f"key:{signer.keyid}", "key-enroll", predicate), signer)
    body = json.dumps({"envelope": envelope.to_dict()}).encode()
    url = f"{registry.url}/api/v1/keys"
    answer = fetcher.post(url, body, content_type=JSON, headers=session.bearer, timeout=ENROL_TIMEOUT)
    check_answer(answer, f"enrolling a key for {state.project}")
    document = document_of(answer)
    index, proof = document.get("index"), document.get("proof")
    if type(index) is not int:
        raise NetworkError("the enrolment was taken and is not in the log yet", hint="try again in a moment")
    if proof is not None:
        check_proof(view, str(proof).encode(), index, str(document.get("leaf_hash")), now=now)
    return index


def upload(
    view: View,
    fetcher: Fetcher,
    session: Session,
    distribution: Distribution,
    attestation: bytes,
    *,
    now: int,
    timer: Callable[[], float],
) -> Uploaded:
    """Upload one distribution with its signature; the proof in the answer is checked before it is believed."""
    boundary = secrets.token_hex(16)
    body = _form(distribution, attestation, boundary)
    credentials = base64.b64encode(f"__token__:{session.upload_token}".encode()).decode()
    before = timer()
    answer = fetcher.post(
        f"{view.registry.url}/legacy/",
        body,
        content_type=f"multipart/form-data; boundary={boundary}",
        headers={"Authorization": f"Basic {credentials}", "Accept": JSON},
        idempotent=True,  # the same bytes under the same name are the same entry
    )
    milliseconds = (timer() - before) * 1000
    check_answer(answer, f"uploading {distribution.filename}")
    document = document_of(answer)
    index, proof = document.get("index"), document.get("proof")
    checkpoint = None
    if proof is not None and type(index) is int:
        leaf_hash = str(document.get("leaf_hash"))
        checkpoint = check_proof(view, str(proof).encode(), index, leaf_hash, now=now)
        check_logged(view, fetcher, distribution, str(proof).encode(), index, now=now)
    return Uploaded(
        index=index if type(index) is int else None,
        state=str(document.get("state", "")),
        message=str(document.get("message", "")),
        proof=None if proof is None else str(proof).encode(),
        checkpoint=checkpoint,
        milliseconds=milliseconds,
    )


def file_state(view: View, fetcher: Fetcher, project: str, filename: str, *, now: int) -> FileState | None:
    """What the registry says of a file; None when it does not know it. A proof it offers is checked."""
    raw = fetcher.get(
        f"{view.registry.url}/api/v1/files/{project}/{filename}",
        max_bytes=TLOG_PROOF_MAX_BYTES * 2,
        missing_ok=True,
    )
    if raw is None:
        return None
    try:
        document = decode_json(raw)
        index, proof = document["index"], document["proof"]
        found = FileState(
            state=str(document["state"]),
            standing=str(document["standing"]),
            message=str(document.get("message") or ""),
            reason=str(document.get("reason") or ""),
            index=index if type(index) is int else None,
            proof=None if proof is None else str(proof).encode(),
            decided=_decided(document.get("standing_entry"), document.get("standing_reason")),
            approvals=approvals if isinstance(approvals := document.get("approvals"), dict) else None,
        )
        leaf_hash = str(document["leaf_hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(
            f"{view.registry.url} describes {filename} in a way we can't read: {error!r}"
        ) from None
    if found.proof is not None and found.index is not None:
        check_proof(view, found.proof, found.index, leaf_hash, now=now)
    return found


def wait_listed(
    view: View,
    fetcher: Fetcher,
    distribution: Distribution,
    *,
    now: Callable[[], int],
    sleep: Callable[[float], None],
    progress: Callable[[str], None],
    said: str = "",
    timeout: float = LISTED_TIMEOUT,
) -> FileState:
    """Wait until the file is listed, or waits for people; WithdrawnError when it was held or rejected instead.

    `progress` is told of each new state after `said`, the one that the answer to the upload told of already.
    """
    waited = 0.0
    while True:
        state = file_state(view, fetcher, distribution.name.project, distribution.filename, now=now())
        if state is None:
            raise EvidenceError(f"{view.registry.url} took {distribution.filename} and does not know it")
        if state.listed or state.staged:
            return state
        if state.state in ("held", "rejected") or state.standing in ("held", "removed"):
            raise WithdrawnError(f"{distribution.filename} is {state.state}: {state.reason or state.message}")
        if state.state != said:
            said = state.state
            progress(f"{distribution.filename}: {state.message or said}")
        if waited >= timeout:
            raise NetworkError(
                f"{distribution.filename} is {state.state} after {timeout:.0f} s",
                hint="countermark status shows it",
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS


def check_proof(view: View, raw: bytes, index: int, leaf_hash: str, *, now: int) -> VerifiedCheckpoint:
    """A proof of inclusion that the registry answered with: both log keys, quorum, and the path."""
    proof = TlogProof.parse(raw)
    checkpoint = open_checkpoint(proof.checkpoint, view.trust_file.policy, now=now)
    if checkpoint.origin != view.trust_file.origin or proof.index != index:
        raise EvidenceError(
            f"the proof is of entry {proof.index} in {checkpoint.origin}, not of entry {index}"
        )
    try:
        leaf = bytes.fromhex(leaf_hash)
    except ValueError:
        raise MalformedError(f"leaf hash {leaf_hash[:80]!r} is not hex") from None
    merkle.check_inclusion(
        proof.hashes, index=index, size=checkpoint.size, leaf_hash=leaf, root_hash=checkpoint.root_hash
    )
    return checkpoint


def check_logged(
    view: View, fetcher: Fetcher, distribution: Distribution, proof: bytes, index: int, *, now: int
) -> None:
    """The entry a proof is of is this very file's publish. A proof alone says only that some entry is there."""
    checkpoint = open_checkpoint(TlogProof.parse(proof).checkpoint, view.trust_file.policy, now=now)
    entry = Entry.parse(LogReader(view.registry.log_url, checkpoint, fetcher).entry(index))
    statement, ours = entry.statement, distribution.statement(checkpoint.origin)
    if entry.type != "publish" or statement is None or statement.subject_name != ours.subject_name:
        raise EvidenceError(f"the proof offered for {distribution.filename} is of another entry, #{index}")
    if statement.subject_sha256 != ours.subject_sha256:
        raise EvidenceError(
            f"{distribution.filename} is sha256:{ours.subject_sha256}, "
            f"entry #{index} of {checkpoint.origin} says sha256:{statement.subject_sha256}"
        )


def _form(distribution: Distribution, attestation: bytes, boundary: str) -> bytes:
    """The upload form, as upload tools send it."""
    wheel = distribution.name.is_wheel
    fields = {
        ":action": "file_upload",
        "protocol_version": "1",
        "name": distribution.name.project,
        "version": distribution.name.version,
        "filetype": "bdist_wheel" if wheel else "sdist",
        "pyversion": distribution.filename.split("-")[-3] if wheel else "source",
        "metadata_version": "2.1",
        "sha256_digest": distribution.sha256,
        "attestations": f"[{attestation.decode()}]",
    }
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{distribution.filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
    )
    return b"".join([*parts, distribution.data, f"\r\n--{boundary}--\r\n".encode()])


def _decided(entry: object, reason: object) -> str:
    return "" if type(entry) is not int else f" by entry #{entry}" + (f" ({reason})" if reason else "")


def check_answer(answer: Answer, doing: str) -> None:
    """Turn a refusal into our words: the registry's own reason, and whose fault the status says it is."""
    if answer.ok:
        return
    document = document_of(answer)
    detail = str(document.get("detail") or document.get("title") or answer.reason or "no reason given")
    message = f"{doing}: the registry refuses: {detail}"
    hint = str(document["type"]) if str(document.get("type", "")).startswith("http") else None
    if answer.status >= 500 or answer.status == 429:
        raise NetworkError(message, hint=hint)
    raise PolicyError(message, hint=hint)


def document_of(answer: Answer) -> dict[str, Any]:
    try:
        document = decode_json(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
