"""Requests and responses: what travels between the ceremony's machine and its holders, on paper or a stick.

A request holds the exact bytes to be signed, and for the reader their digest words, hex groups and sentences:

    {"format": "countermark-ceremony-request/v1", "holder": "ada", "documents": [
        {"name": "1.root.json", "payload": "<base64>", "sha256": "...", "words": "indicate mandate ...",
         "groups": "6f1c 09a2 ...", "says": ["+ root version 1, expires ...", ...],
         "needs": ["2 of the 3 keys of root"], "previous": null, "previous_words": null,
         "keys": [{"name": "ada-root", "fingerprint": "...", "token": "hsm:2?label=ada"}]}, ...],
     "trust_file": "<base64>", ...}

Nothing of what a request says *about* its payload is believed: `Request.parse` works it out again from the
bytes and refuses a request whose words differ from its payload. In a later ceremony `previous` is the signed part
that a payload follows, `says` is the difference, and `previous_words` are on the paper kept since. `token` stands
with the keys whose plan says where they lie; a false one leads to a key with another fingerprint. A response holds
detached signatures, each bound to the digest of what was signed, and the SHA-256 of the request they answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from countermark.errors import EvidenceError, MalformedError, SignatureError, UsageError
from countermark.predecessor import TYPE as PREDECESSOR
from countermark.statement import Signer, decode_base64, load_public_key
from countermark.tokens import Place
from countermark.trustfile import TrustFile
from countermark.words import hex_groups, root_words
from countermark_ceremony.files import FILE_MAX_BYTES
from countermark_ceremony.handover import ROLE_KEYS, fingerprint
from countermark_ceremony.nextplan import NextPlan
from countermark_ceremony.payloads import Document, Payloads, describe, describe_trust_file
from countermark_ceremony.plan import Plan
from countermark_ceremony.tables import OFFLINE_ROLES

REQUEST_FORMAT = "countermark-ceremony-request/v1"
RESPONSE_FORMAT = "countermark-ceremony-response/v1"
DOCUMENT_NAME = re.compile(
    rf"[1-9][0-9]{{0,8}}\.({'|'.join(OFFLINE_ROLES)})\.json|role-keys/({'|'.join(ROLE_KEYS)})|{PREDECESSOR}"
)


@dataclass(frozen=True)
class Asked:
    """One document of a request: what to sign, with which of the holder's keys (name, fingerprint)."""

    name: str
    payload: bytes
    needs: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    says: tuple[str, ...]
    previous: bytes | None = None  # the signed part that this payload follows
    places: tuple[tuple[str, str], ...] = ()  # fingerprint and token URI of keys that the plan places

    @classmethod
    def about(cls, document: Document, holder: str, previous: bytes | None = None) -> Asked:
        """What a holder is asked about a document."""
        keys = tuple((key.name, key.fingerprint) for key in document.keys if key.holder == holder)
        says = tuple(describe(document.name, document.payload, previous))
        needs = tuple(quorum.needs() for quorum in document.quorums)
        places = tuple(
            (key.fingerprint, key.token.uri)
            for key in document.keys
            if key.holder == holder and key.token is not None and key.token.uri is not None
        )
        return cls(document.name, document.payload, needs, keys, says, previous, places)

    def to_dict(self) -> dict[str, Any]:
        """Its members, with everything that is worked out from the payload."""
        at = {print_: {"token": uri} for print_, uri in self.places}
        return {
            "groups": hex_groups(self.payload),
            "keys": [
                {"fingerprint": print_, "name": name, **at.get(print_, {})} for name, print_ in self.keys
            ],
            "name": self.name,
            "needs": list(self.needs),
            "payload": base64.b64encode(self.payload).decode(),
            "previous": None if self.previous is None else base64.b64encode(self.previous).decode(),
            "previous_words": None if self.previous is None else root_words(self.previous),
            "says": list(self.says),
            "sha256": hashlib.sha256(self.payload).hexdigest(),
            "words": root_words(self.payload),
        }


@dataclass(frozen=True)
class Request:
    """What one holder is asked to sign."""

    holder: str
    title: str
    origin: str
    trial: bool
    transcript_sha256: str
    documents: tuple[Asked, ...]
    trust_file: TrustFile

    @classmethod
    def for_holder(
        cls,
        plan: Plan | NextPlan,
        payloads: Payloads,
        transcript_sha256: str,
        holder: str,
        previous: Mapping[str, bytes],
    ) -> Request:
        """The request of one holder; `previous` has the signed part that each document follows."""
        documents = tuple(
            Asked.about(document, holder, previous.get(document.name)) for document in payloads.of(holder)
        )
        return cls(
            holder, plan.title, plan.origin, plan.trial, transcript_sha256, documents, payloads.trust_file
        )

    @property
    def places(self) -> dict[str, str]:
        """By fingerprint: the token URI of each key that is asked for and whose place is known."""
        return {print_: uri for document in self.documents for print_, uri in document.places}

    def format(self) -> bytes:
        """The file's bytes."""
        return _format(
            {
                "documents": [document.to_dict() for document in self.documents],
                "format": REQUEST_FORMAT,
                "holder": self.holder,
                "origin": self.origin,
                "title": self.title,
                "transcript_sha256": self.transcript_sha256,
                "trial": self.trial,
                "trust_file": base64.b64encode(self.trust_file.format()).decode(),
                "trust_file_says": describe_trust_file(self.trust_file),
            }
        )

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the file."""
        return hashlib.sha256(self.format()).hexdigest()

    @classmethod
    def parse(cls, raw: bytes) -> Request:
        """The request in these bytes, its sentences and words worked out again from its payloads."""
        document = _document(raw, REQUEST_FORMAT)
        try:
            found = cls(
                holder=_text(document["holder"]),
                title=_text(document["title"]),
                origin=_text(document["origin"]),
                trial=document["trial"] is True,
                transcript_sha256=_text(document["transcript_sha256"]),
                documents=tuple(_asked(each) for each in document["documents"]),
                trust_file=TrustFile.parse(_base64(document["trust_file"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedError(f"request is malformed: {type(error).__name__} {error}") from error
        if found.format() != raw:
            raise EvidenceError(
                "this request describes its payload otherwise than the payload reads: do not sign",
                hint="ask for the request again, and compare the digest words with another holder's",
            )
        _check_trust_target(found)
        return found


@dataclass(frozen=True)
class Signed:
    """One detached signature."""

    document: str
    fingerprint: str
    payload_sha256: str
    sig: bytes


@dataclass(frozen=True)
class Response:
    """What one holder signed."""

    holder: str
    request_sha256: str
    signatures: tuple[Signed, ...]

    def format(self) -> bytes:
        """The file's bytes."""
        return _format(
            {
                "format": RESPONSE_FORMAT,
                "holder": self.holder,
                "request_sha256": self.request_sha256,
                "signatures": [
                    {
                        "document": signed.document,
                        "key": signed.fingerprint,
                        "payload_sha256": signed.payload_sha256,
                        "sig": base64.b64encode(signed.sig).decode(),
                    }
                    for signed in self.signatures
                ],
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Response:
        """The response in these bytes; nothing in it is verified yet."""
        document = _document(raw, RESPONSE_FORMAT)
        try:
            signatures = tuple(
                Signed(
                    _text(each["document"]),
                    _text(each["key"]),
                    _text(each["payload_sha256"]),
                    _base64(each["sig"]),
                )
                for each in document["signatures"]
            )
            found = cls(_text(document["holder"]), _text(document["request_sha256"]), signatures)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedError(f"response is malformed: {type(error).__name__} {error}") from error
        if found.format() != raw:
            raise MalformedError("response is not in the form this program writes")
        return found


def check_keys(request: Request, fingerprints: Iterable[str]) -> None:
    """UsageError unless these are exactly the keys a request asks its holder for."""
    held = set(fingerprints)
    wanted = {print_: name for document in request.documents for name, print_ in document.keys}
    if missing := sorted(name for print_, name in wanted.items() if print_ not in held):
        raise UsageError(f"the request for {request.holder!r} needs the keys of {', '.join(missing)}")
    if strange := sorted(held - set(wanted)):
        raise UsageError(f"key {strange[0]} is not asked for in the request for {request.holder!r}")


def sign(request: Request, signers: Sequence[Signer]) -> Response:
    """Sign everything a request asks of its holder, with all the keys it names; each signature is checked."""
    held = {signer.keyid: signer for signer in signers}
    check_keys(request, held)
    signatures = []
    for document in request.documents:
        for _, print_ in document.keys:
            sig = held[print_].sign(document.payload)
            digest = hashlib.sha256(document.payload).hexdigest()
            signed = Signed(document.name, print_, digest, sig)
            check_signature(signed, held[print_].public_key, document.payload)
            signatures.append(signed)
    return Response(request.holder, request.sha256, tuple(signatures))


def check_signature(signed: Signed, spki: bytes, payload: bytes) -> None:
    """Refuse a signature that is not by this key over this payload."""
    if signed.payload_sha256 != hashlib.sha256(payload).hexdigest():
        raise SignatureError(
            f"{signed.document}: the holder signed {signed.payload_sha256}, "
            f"the payload is {hashlib.sha256(payload).hexdigest()}"
        )
    key = load_public_key(spki)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signed.sig, payload, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signed.sig, payload)
    except InvalidSignature:
        raise SignatureError(
            f"{signed.document}: the signature by key {fingerprint(spki)} does not verify"
        ) from None


def _check_trust_target(request: Request) -> None:
    """The trust file shown is the one that the trust role and the root commit to."""
    digest = request.trust_file.digest
    for document in request.documents:
        if document.name.endswith((".trust.json", ".root.json")) and digest.encode() not in document.payload:
            raise EvidenceError(f"{document.name} does not name the trust file {digest} of this request")
    if request.trust_file.origin != request.origin:
        raise EvidenceError(f"the trust file is for {request.trust_file.origin!r}, not {request.origin!r}")


def _asked(each: Mapping[str, Any]) -> Asked:
    name, payload = _text(each["name"]), _base64(each["payload"])
    if not DOCUMENT_NAME.fullmatch(name):
        raise ValueError(f"document {name!r} is none that a ceremony signs")
    needs = tuple(_text(need) for need in each["needs"])
    keys = tuple((_text(key["name"]), _text(key["fingerprint"])) for key in each["keys"])
    previous = None if each["previous"] is None else _base64(each["previous"])
    places = tuple(
        (_text(key["fingerprint"]), Place.parse(_text(key["token"])).uri)
        for key in each["keys"]
        if "token" in key
    )
    return Asked(name, payload, needs, keys, tuple(describe(name, payload, previous)), previous, places)


def _format(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _document(raw: bytes, expected: str) -> dict[str, Any]:
    try:
        document = json.loads(raw) if len(raw) <= FILE_MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != expected:
        raise MalformedError(f"this is not a {expected} file")
    return document


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError("a line of text is expected")
    return value


def _base64(value: object) -> bytes:
    return decode_base64(value, max_bytes=FILE_MAX_BYTES, what="a member")
