"""Assembling: every response checked on arrival, the result written once and verified again from disk.

The output folder of a finished ceremony:

    1.root.json 1.targets.json 1.trust.json 1.index.json     offline TUF metadata, ready to serve
    targets/trust/<sha256>.trust.json                        the trust file
    role-keys.json         the log's first entries: key-enroll of registry, scanner and moderation, signed
                           by each new key and by the authority key
    predecessor.json       of a successor log alone: its entry 0, signed by the authority key
    root-words.txt         what people compare
    plan.toml              the plan as it was reviewed; the transcript names its digest
    transcript.jsonl transcript-signatures.jsonl             what happened (transcript.py)

`verify` needs nothing but that folder: it is what an operator, or a stranger, runs on what was published.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib.signer import Signature
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from countermark.canonical import encode_canonical
from countermark.errors import EvidenceError, MalformedError, SignatureError, UsageError
from countermark.predecessor import TYPE as PREDECESSOR
from countermark.predecessor import Predecessor, open_predecessor
from countermark.statement import (
    Envelope,
    EnvelopeSignature,
    Statement,
    open_envelope,
)
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark.words import root_words
from countermark_ceremony.exchange import Request, Response, Signed, check_signature
from countermark_ceremony.handover import ROLE_KEYS, enrolled_key, fingerprint, tuf_key
from countermark_ceremony.nextpayloads import build_next, build_next_inner, previous_payloads
from countermark_ceremony.nextplan import NextPlan
from countermark_ceremony.payloads import Document, Payloads, build, build_inner, read_signed
from countermark_ceremony.plan import Plan
from countermark_ceremony.previous import PLAN, SIGNATURES, TRANSCRIPT, check_plan
from countermark_ceremony.transcript import Transcript

ROLE_KEYS_FILE, WORDS_FILE, PREDECESSOR_FILE = "role-keys.json", "root-words.txt", "predecessor.json"
_SERIALIZER = JSONSerializer(compact=True)


@dataclass(frozen=True)
class Prepared:
    """A ceremony between `prepare` and `assemble`: frozen payloads and the transcript that lists them."""

    plan: Plan | NextPlan
    payloads: Payloads
    transcript: Transcript

    @classmethod
    def create(cls, plan: Plan | NextPlan, *, now: datetime) -> Prepared:
        """Freeze a plan: what is listed in the transcript can't change any more."""
        transcript = _start(plan).add(
            "plan accepted",
            now=now,
            **_follows(plan),
            operator=plan.operator,
            origin=plan.origin,
            plan_sha256=plan.sha256,
            title=plan.title,
            trial=plan.trial,
        )
        inner = build_next_inner(plan) if isinstance(plan, NextPlan) else build_inner(plan)
        frozen = {document.name: document.sha256 for document in inner.documents}
        transcript = transcript.add(
            "payloads frozen", now=now, payloads=frozen, trust_file_sha256=inner.trust_file.digest
        )
        return cls(plan, _build(plan, transcript.digest), transcript)

    @classmethod
    def load(cls, plan: Plan | NextPlan, transcript_raw: bytes) -> Prepared:
        """The same again from a folder: payloads are made anew, so they can't differ from plan and transcript."""
        before = plan.previous.signatures if isinstance(plan, NextPlan) else None
        transcript = Transcript.parse(transcript_raw, after=before)
        found = cls(plan, _build(plan, transcript.digest), transcript)
        lines = [json.loads(line) for line in transcript.lines]
        frozen = {document.name: document.sha256 for document in found.payloads.documents[1:]}
        if (
            len(lines) != 2
            or lines[0].get("plan_sha256") != plan.sha256
            or lines[1].get("payloads") != frozen
        ):
            raise EvidenceError("the transcript is of another plan or of other payloads")
        return found

    def request(self, holder: str) -> Request:
        """What one holder is asked."""
        before = previous_payloads(self.plan) if isinstance(self.plan, NextPlan) else {}
        return Request.for_holder(self.plan, self.payloads, self.transcript.digest, holder, before)


def _build(plan: Plan | NextPlan, transcript_sha256: str) -> Payloads:
    if isinstance(plan, NextPlan):
        return build_next(plan, transcript_sha256)
    return build(plan, transcript_sha256)


def _start(plan: Plan | NextPlan) -> Transcript:
    return plan.previous.signatures.continued() if isinstance(plan, NextPlan) else Transcript()


def _follows(plan: Plan | NextPlan) -> dict[str, object]:
    """What a ceremony is made from: a registry's input, or the ceremony before it."""
    if isinstance(plan, Plan):
        return {"input_sha256": plan.handover.sha256}
    return {
        "ceremony": plan.number,
        "changes": list(plan.changes),
        "previous_root_sha256": fingerprint(plan.previous.files[plan.previous.names["root"]]),
        "previous_transcript_sha256": plan.previous.transcript.digest,
    }


def assemble(prepared: Prepared, responses: Sequence[Response], *, now: datetime) -> dict[str, bytes]:
    """The files of the finished ceremony, verified as a reader would; refuses below any threshold."""
    signatures: dict[str, list[Signed]] = {document.name: [] for document in prepared.payloads.documents}
    transcript = prepared.transcript.continued()
    answered = set()
    for response in responses:
        if response.holder in answered:
            raise UsageError(f"two responses by {response.holder!r}")
        answered.add(response.holder)
        _check_response(prepared, response)
        for signed in response.signatures:
            signatures[signed.document].append(signed)
        transcript = transcript.add(
            "response accepted",
            now=now,
            holder=response.holder,
            request_sha256=response.request_sha256,
            signatures={signed.document: signed.fingerprint for signed in response.signatures},
        )
    _check_thresholds(prepared.payloads, signatures)
    files = {
        document.name: _metadata(document, signatures)
        for document in prepared.payloads.documents
        if document.name.endswith(".json")
    }
    transcript = transcript.add("thresholds reached", now=now, files=dict(_digests(files)))
    trust_file, plan = prepared.payloads.trust_file, prepared.plan
    files |= {
        f"targets/trust/{trust_file.digest}.trust.json": trust_file.format(),
        PLAN: plan.raw,
        TRANSCRIPT: prepared.transcript.format(),
        SIGNATURES: transcript.format(),
    }
    if isinstance(plan, Plan):
        files[ROLE_KEYS_FILE] = _role_keys(plan, signatures)
        files[WORDS_FILE] = _words_line(prepared.payloads.named("1.root.json").payload)
        if plan.handover.predecessor is not None:
            files[PREDECESSOR_FILE] = _predecessor(plan, signatures)
        verify_first(files, now=now)
        return files
    kept = {role: name for role, name in plan.previous.names.items() if role not in plan.roles}
    files |= {name: plan.previous.files[name] for name in kept.values()}
    root = next(content for name, content in files.items() if name.endswith(".root.json"))
    files[WORDS_FILE] = _words_line(Metadata[Root].from_bytes(root).signed_bytes)
    return files


def _check_response(prepared: Prepared, response: Response) -> None:
    """Refuse a response that answers another request, or whose signatures do not all verify."""
    if response.holder not in prepared.plan.holders:
        raise UsageError(f"a response by {response.holder!r}, who holds no key in this plan")
    request = prepared.request(response.holder)
    if response.request_sha256 != request.sha256:
        raise EvidenceError(
            f"the response by {response.holder!r} answers request {response.request_sha256}, "
            f"this ceremony's is {request.sha256}"
        )
    expected = [(document.name, print_) for document in request.documents for _, print_ in document.keys]
    if [(signed.document, signed.fingerprint) for signed in response.signatures] != expected:
        raise SignatureError(
            f"the response by {response.holder!r} does not sign what was asked, in that order"
        )
    for signed in response.signatures:
        document = prepared.payloads.named(signed.document)
        spki = next(key.public_key for key in document.keys if key.fingerprint == signed.fingerprint)
        check_signature(signed, spki, document.payload)


def threshold_table(payloads: Payloads, signatures: Mapping[str, Sequence[Signed]]) -> list[str]:
    """`1.root.json 1/2: missing ben-root, cleo-root`, a line a document and quorum."""
    return [line for line, _ in _quorums(payloads, signatures)]


def who_signed(prepared: Prepared, responses: Sequence[Response]) -> list[str]:
    """The table as it stands with these responses, each checked as `assemble` would."""
    signatures: dict[str, list[Signed]] = {document.name: [] for document in prepared.payloads.documents}
    for response in responses:
        _check_response(prepared, response)
        for signed in response.signatures:
            signatures[signed.document].append(signed)
    return threshold_table(prepared.payloads, signatures)


def _quorums(payloads: Payloads, signatures: Mapping[str, Sequence[Signed]]) -> Iterator[tuple[str, bool]]:
    for document in payloads.documents:
        signed = {each.fingerprint for each in signatures[document.name]}
        for quorum in document.quorums:
            missing = [key.name for key in quorum.keys if key.fingerprint not in signed]
            count = len(quorum.keys) - len(missing)
            whose = f" by {quorum.of}" if len(document.quorums) > 1 else ""
            tail = f": missing {', '.join(missing)}" if missing else ""
            yield f"{document.name} {count}/{quorum.threshold}{whose}{tail}", count >= quorum.threshold


def _check_thresholds(payloads: Payloads, signatures: Mapping[str, Sequence[Signed]]) -> None:
    if short := [line for line, reached in _quorums(payloads, signatures) if not reached]:
        raise SignatureError("too few signatures: " + "; ".join(short))


def _metadata(document: Document, signatures: Mapping[str, Sequence[Signed]]) -> bytes:
    metadata: Metadata[Any] = Metadata(read_signed(document.payload))
    spkis = {key.fingerprint: key.public_key for key in document.keys}
    for each in sorted(signatures[document.name], key=lambda each: each.fingerprint):
        keyid = tuf_key(spkis[each.fingerprint]).keyid
        metadata.signatures[keyid] = Signature(keyid, each.sig.hex())
    raw = metadata.to_bytes(_SERIALIZER)
    assert Metadata[Any].from_bytes(raw).signed_bytes == document.payload
    return raw


def _role_keys(plan: Plan, signatures: Mapping[str, Sequence[Signed]]) -> bytes:
    envelopes = {}
    for role in ROLE_KEYS:
        given = plan.handover.role_keys[role].envelope
        (signed,) = signatures[f"role-keys/{role}"]
        both = (*given.signatures, EnvelopeSignature(signed.fingerprint, signed.sig))
        whole = Envelope(given.payload, tuple(sorted(both, key=lambda each: each.keyid)))
        envelopes[role] = whole.to_dict()
    return encode_canonical(envelopes) + b"\n"


def _predecessor(plan: Plan, signatures: Mapping[str, Sequence[Signed]]) -> bytes:
    assert plan.handover.predecessor is not None  # the caller has looked
    (signed,) = signatures[PREDECESSOR]
    payload = plan.handover.predecessor.statement(plan.origin).payload()
    envelope = Envelope(payload, (EnvelopeSignature(signed.fingerprint, signed.sig),))
    return encode_canonical(envelope.to_dict()) + b"\n"


def _words_line(root_payload: bytes) -> bytes:
    return root_words(root_payload).encode() + b"\n"


def _digests(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return [(name, fingerprint(content)) for name, content in sorted(files.items())]


@dataclass(frozen=True)
class Ceremony:
    """A finished ceremony as a reader verified it."""

    origin: str
    trial: bool
    root_words: str
    expires: Mapping[str, datetime]
    trust_file: TrustFile
    predecessor: Predecessor | None
    transcript_sha256: str


def verify_first(files: Mapping[str, bytes], *, now: datetime) -> Ceremony:
    """Verify the files of a finished first ceremony with tuf's own logic, from nothing but themselves."""
    try:
        return _verify(files, now=now)
    except KeyError as error:
        raise MalformedError(f"the ceremony's output has no {error}") from error
    except (RepositoryError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise MalformedError(f"the ceremony's output is malformed: {error}") from error


def _verify(files: Mapping[str, bytes], *, now: datetime) -> Ceremony:
    # (1) The root signs itself; targets by the root; trust and index by targets.
    root = Metadata[Root].from_bytes(files["1.root.json"])
    targets = Metadata[Targets].from_bytes(files["1.targets.json"])
    trust = Metadata[Targets].from_bytes(files["1.trust.json"])
    index = Metadata[Targets].from_bytes(files["1.index.json"])
    metadata: dict[str, Metadata[Any]] = {"root": root, "targets": targets, "trust": trust, "index": index}
    for name, each in metadata.items():
        delegator: Root | Targets = root.signed if name in ("root", "targets") else targets.signed
        result = delegator.get_verification_result(name, each.signed_bytes, each.signatures)
        if not result or set(result.signed) != set(each.signatures):
            raise SignatureError(
                f"1.{name}.json: {len(result.signed)} of {len(each.signatures)} signatures verify, "
                f"{result.threshold} are needed and none may be false"
            )
        if each.signed.version != 1 or each.signed.is_expired(now):
            raise EvidenceError(
                f"1.{name}.json is version {each.signed.version}, expires {each.signed.expires}"
            )
        if each.to_bytes(_SERIALIZER) != files[f"1.{name}.json"]:
            raise MalformedError(f"1.{name}.json is not in the form this program writes")
    # (2) The trust file is the one target of trust, and the root accepts it without delay.
    target = trust.signed.targets[TARGET_PATH]
    trust_raw = files[f"targets/trust/{target.hashes['sha256']}.trust.json"]
    target.verify_length_and_hashes(trust_raw)
    trust_file = TrustFile.parse(trust_raw)
    extra = root.signed.unrecognized_fields
    if extra["x-countermark-trust"] != [trust_file.digest]:
        raise EvidenceError(f"the root accepts {extra['x-countermark-trust']}, not {trust_file.digest}")
    # (3) The transcript is whole, and the root names its first part.
    transcript = Transcript.parse(files[TRANSCRIPT])
    Transcript.parse(files[SIGNATURES], after=transcript)
    stated = extra["x-countermark-ceremony"]["transcript_sha256"]
    if stated != transcript.digest:
        raise EvidenceError(f"the root names transcript {stated}, this one is {transcript.digest}")
    check_plan(files, transcript)
    # (4) Each role key signed its own enrolment, and so did the authority key.
    _verify_role_keys(files[ROLE_KEYS_FILE], trust_file)
    predecessor = _verify_predecessor(files.get(PREDECESSOR_FILE), trust_file)
    if (PREDECESSOR in _frozen(transcript)) != (predecessor is not None):
        raise EvidenceError(
            f"{PREDECESSOR_FILE} and the transcript disagree on whether this log has a predecessor"
        )
    # (5) The words are those of this root.
    if files[WORDS_FILE] != _words_line(root.signed_bytes):
        raise EvidenceError(
            f"{WORDS_FILE} is not of this root, whose words are {root_words(root.signed_bytes)}"
        )
    return Ceremony(
        origin=trust_file.origin,
        trial=extra.get("x-countermark-trial") is True,
        root_words=root_words(root.signed_bytes),
        expires={name: each.signed.expires for name, each in metadata.items()},
        trust_file=trust_file,
        predecessor=predecessor,
        transcript_sha256=transcript.digest,
    )


def _frozen(transcript: Transcript) -> Mapping[str, str]:
    """The payloads that the transcript lists, by name."""
    return {
        name: sha256
        for line in transcript.lines
        for name, sha256 in json.loads(line).get("payloads", {}).items()
    }


def _verify_predecessor(raw: bytes | None, trust_file: TrustFile) -> Predecessor | None:
    if raw is None:
        return None
    envelope = Envelope.parse(json.loads(raw))
    return open_predecessor(envelope, authority_key=trust_file.authority_key, origin=trust_file.origin)


def _verify_role_keys(raw: bytes, trust_file: TrustFile) -> None:
    envelopes = json.loads(raw)
    if set(envelopes) != set(ROLE_KEYS):
        raise MalformedError(f"{ROLE_KEYS_FILE} holds {sorted(envelopes)}")
    authority = trust_file.authority_key
    for role in ROLE_KEYS:
        envelope = Envelope.parse(envelopes[role])
        spki = enrolled_key(Statement.parse(envelope.payload))
        keys = {fingerprint(spki): spki, fingerprint(authority): authority}
        opened = open_envelope(envelope, keys)
        if set(opened.keyids) != set(keys):
            raise SignatureError(f"role key {role} is signed by {len(opened.keyids)} of its 2 keys")
        predicate = opened.statement.predicate
        if (predicate["scope"], predicate["origin"]) != (role, trust_file.origin):
            raise EvidenceError(f"role key {role} is for {predicate['scope']!r} of {predicate['origin']!r}")
