"""Statements: what somebody signed, and who.

A statement is an in-toto Statement v1 with one subject and a predicate of ours, in canonical JSON:

    {"_type":"https://in-toto.io/Statement/v1",
     "predicate":{"namespace":"","origin":"example.com/registry","prev":null,"project":"acme",...},
     "predicateType":"https://countermark.dev/v1/publish",
     "subject":[{"digest":{"sha256":"5891b5b5..."},"name":"acme-1.0-py3-none-any.whl"}]}

A file's subject is its name and SHA-256. Anything else is named `project:acme`, `namespace:acme`,
`key:<keyid>` or `tuf:7`, and its digest is the SHA-256 of that name. The predicate always says origin,
namespace, project and `prev`, so a signature can't be carried to another registry, project or moment.

It travels in a DSSE envelope. What is signed is not the JSON of the envelope but

    DSSEv1 28 application/vnd.in-toto+json 431 {"_type":...

so a tool may re-serialise the envelope on its way (uv sorts keys, twine keeps them): only the base64 payload
has to arrive unharmed. Keys are Ed25519 or ECDSA P-256, named by the SHA-256 of their SPKI DER.

Parsing proves nothing about who signed: `open_envelope` is the only maker of a VerifiedStatement. Whether
that key was allowed to say it is for rules.py.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from countermark.canonical import encode_canonical, parse_canonical, parse_json
from countermark.digest import is_hex, sha256
from countermark.errors import MalformedError, SignatureError
from countermark.limits import ENTRY_MAX_BYTES, SIGNATURE_MAX_BYTES, SIGNATURES_MAX, STATEMENT_MAX_BYTES
from countermark.values import cached, dataclass

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_PREFIX = "https://countermark.dev/v1/"

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PublicKey: TypeAlias = "ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey"
PrivateKey: TypeAlias = "ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey"

# All that comes before the key itself (RFC 8410; RFC 5480 with an uncompressed point). These two kinds have
# one length and one spelling each, so comparing a prefix says more than a lenient DER reader would.
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
_P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@lru_cache(maxsize=256)  # a leaf's type and its statement's: of few there are many
def is_words(text: str) -> bool:
    """Whether `text` is words of small letters with one dash between them."""
    return all(word and not word.strip(_LETTERS) for word in text.split("-"))


def is_sha256(value: object) -> bool:
    """Whether `value` is a SHA-256 in the one spelling we use: 64 small hex digits."""
    return type(value) is str and is_hex(value, 64)


@lru_cache(maxsize=4096)
def keyid_of(public_key: bytes) -> str:
    """A key's name: the hex SHA-256 of its SPKI DER."""
    return sha256(public_key).hexdigest()


@lru_cache(maxsize=4096)
def load_public_key(spki: bytes) -> PublicKey:
    """Read an Ed25519 or ECDSA P-256 key; other kinds, and other spellings of these, are refused."""
    try:
        if len(spki) == 44 and spki.startswith(_ED25519_SPKI):
            return ed25519.Ed25519PublicKey.from_public_bytes(spki[len(_ED25519_SPKI) :])
        if len(spki) == 91 and spki.startswith(_P256_SPKI):
            from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  (most keys are Ed25519)

            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[len(_P256_SPKI) :])
    except ValueError:
        raise MalformedError("public key is not a point of its curve") from None
    raise MalformedError("public key is not the SPKI of an Ed25519 or ECDSA P-256 key")


def spki_of(key: PublicKey) -> bytes:
    """The one SPKI in DER that `load_public_key` reads for this key."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _ED25519_SPKI + key.public_bytes_raw()
    if key.curve.name != "secp256r1":
        raise MalformedError(f"public key is on curve {key.curve.name}, not on P-256")
    numbers = key.public_numbers()
    return _P256_SPKI + b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


@dataclass(frozen=True)
class Statement:
    """One subject and what is said about it. Parsed, not verified."""

    subject_name: str
    subject_sha256: str
    type: str
    predicate: Mapping[str, Any]

    @classmethod
    def about(cls, name: str, type: str, predicate: Mapping[str, Any]) -> Statement:
        """A statement about something that is not a file: `project:acme`, `key:...`, `tuf:7`."""
        return cls(name, sha256(name.encode()).hexdigest(), type, predicate)

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        value = parse_canonical(payload, max_bytes=STATEMENT_MAX_BYTES)
        try:
            (subject,) = value["subject"]
            kind, predicate_type, predicate = value["_type"], value["predicateType"], value["predicate"]
            name, sha256 = subject["name"], subject["digest"]["sha256"]
            alone = (len(value), len(subject), len(subject["digest"])) == (4, 2, 1)
        except (KeyError, TypeError, ValueError):
            alone = False
        if not (
            alone
            and isinstance(predicate, dict)
            and isinstance(kind, str)
            and isinstance(predicate_type, str)
            and isinstance(name, str)
            and isinstance(sha256, str)
        ):
            raise MalformedError("statement is not an in-toto statement with one subject and its SHA-256")
        type = predicate_type.removeprefix(PREDICATE_PREFIX)
        if kind != STATEMENT_TYPE or type == predicate_type or not is_words(type):
            raise MalformedError(
                f"statement of type {kind[:80]!r} about {predicate_type[:80]!r} is none of ours"
            )
        if not is_sha256(sha256):
            raise MalformedError(f"statement's subject digest {sha256[:80]!r} is not a SHA-256")
        return cls(name, sha256, type, predicate)

    def payload(self) -> bytes:
        """The bytes that are signed (inside DSSE's frame)."""
        payload = encode_canonical(
            {
                "_type": STATEMENT_TYPE,
                "predicate": dict(self.predicate),
                "predicateType": PREDICATE_PREFIX + self.type,
                "subject": [{"digest": {"sha256": self.subject_sha256}, "name": self.subject_name}],
            }
        )
        if len(payload) > STATEMENT_MAX_BYTES:
            raise MalformedError(
                f"statement has {len(payload)} bytes, more than the limit of {STATEMENT_MAX_BYTES}"
            )
        return payload


@dataclass(frozen=True)
class EnvelopeSignature:
    """One signature of an envelope: the key it claims, and the bytes. Unverified."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope: a payload and its signatures, in ascending order of keyid, no key twice."""

    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def parse(cls, source: bytes | Mapping[str, Any]) -> Envelope:
        """From JSON bytes in any spelling (an attestation file), or from the object parsed out of a leaf."""
        value = parse_json(source, max_bytes=ENTRY_MAX_BYTES) if isinstance(source, bytes) else source
        is_object = type(value) is dict or isinstance(value, Mapping)  # the first is the quick question
        if not is_object or value.keys() != {"payload", "payloadType", "signatures"}:
            raise MalformedError("envelope must have exactly payload, payloadType and signatures")
        if value["payloadType"] != PAYLOAD_TYPE:
            raise MalformedError(
                f"envelope's payload type is {str(value['payloadType'])[:80]!r}, not {PAYLOAD_TYPE!r}"
            )
        payload = decode_base64(value["payload"], max_bytes=STATEMENT_MAX_BYTES, what="envelope's payload")
        listed = value["signatures"]
        if type(listed) is not list or not 1 <= len(listed) <= SIGNATURES_MAX:
            raise MalformedError(f"envelope must have 1 to {SIGNATURES_MAX} signatures")
        signatures = tuple(_parse_signature(item) for item in listed)
        keyids = [signature.keyid for signature in signatures]
        if len(keyids) > 1 and keyids != sorted(set(keyids)):
            raise MalformedError("envelope's signatures are not in ascending order of keyid, each key once")
        return cls(payload, signatures)

    def to_dict(self) -> dict[str, Any]:
        """The members as they stand in a leaf and in an attestation file."""
        return {
            "payload": _base64(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": item.keyid, "sig": _base64(item.sig)} for item in self.signatures],
        }

    def to_json(self) -> bytes:
        """The attestation file beside a distribution."""
        return self.text.encode()

    @cached
    def text(self) -> str:
        """The envelope in canonical JSON, as it stands in a leaf.

        Put together, not encoded: base64 and hex digits need no escapes, and a door spells every envelope twice.
        """
        if not all(is_sha256(item.keyid) for item in self.signatures):  # it was not parsed
            return encode_canonical(self.to_dict()).decode()
        signatures = ",".join(
            f'{{"keyid":"{item.keyid}","sig":"{_base64(item.sig)}"}}' for item in self.signatures
        )
        return f'{{"payload":"{_base64(self.payload)}","payloadType":"{PAYLOAD_TYPE}","signatures":[{signatures}]}}'

    @cached
    def keyids(self) -> tuple[str, ...]:
        """The keys that are said to have signed."""
        return tuple(item.keyid for item in self.signatures)


@dataclass(frozen=True)
class VerifiedStatement:
    """A statement every listed key has signed. Made by `open_envelope` only."""

    statement: Statement
    keyids: tuple[str, ...]


class Signer(Protocol):
    """Somebody who holds a private key, here or behind an agent."""

    @property
    def public_key(self) -> bytes: ...
    @property
    def keyid(self) -> str: ...
    def sign(self, message: bytes) -> bytes: ...


class KeySigner:
    """A Signer whose private key is in this process."""

    def __init__(self, private_key: PrivateKey) -> None:
        self._key = private_key
        self.public_key = spki_of(private_key.public_key())
        self.keyid = keyid_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ecdsa())


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def sign(statement: Statement, *signers: Signer) -> Envelope:
    """Sign a statement with every signer."""
    payload = statement.payload()
    message = pae(payload)
    signatures = [EnvelopeSignature(signer.keyid, signer.sign(message)) for signer in signers]
    return Envelope(payload, tuple(sorted(signatures, key=lambda item: item.keyid)))


def open_envelope(envelope: Envelope, keys: Mapping[str, bytes]) -> VerifiedStatement:
    """The statement, once every signature verifies by a key of `keys` (keyid -> SPKI DER).

    A signature by a key that is not in `keys` is refused as well: nobody may decorate a statement.
    """
    statement = Statement.parse(envelope.payload)
    check_signatures(envelope, keys)
    return VerifiedStatement(statement, envelope.keyids)


def check_signatures(envelope: Envelope, keys: Mapping[str, bytes], *, verified: bool = False) -> None:
    """Every signature verifies by a key of `keys`, or SignatureError (for who has parsed the payload already).

    `verified`: each signature is known to verify by the key it names, and only whether that key is asked for is
    checked. A key is named by its hash, so this is a fact about the envelope's bytes that no state can change.
    """
    if not envelope.signatures:
        raise SignatureError("envelope has no signature")
    message = pae(envelope.payload)
    for signature in envelope.signatures:
        spki = keys.get(signature.keyid)
        if spki is None:
            raise SignatureError(f"no known key {signature.keyid} for a signature of this statement")
        if keyid_of(spki) != signature.keyid:
            raise SignatureError(f"key {keyid_of(spki)} was offered under the name {signature.keyid}")
        if not verified:
            _verify(load_public_key(spki), signature, message)


def _verify(key: PublicKey, signature: EnvelopeSignature, message: bytes) -> None:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature.sig, message)
        else:
            key.verify(signature.sig, message, ecdsa())
    except InvalidSignature:
        raise SignatureError(f"signature by key {signature.keyid} does not verify") from None


@lru_cache(maxsize=1)
def ecdsa() -> ec.ECDSA:
    """The one way in which P-256 keys sign; without what `ECDSA(...)` imports to ask for deterministic signing.

    That is RSA and ciphers, and takes as long as fifty signatures. What is inside is cryptography's own business and
    may move; then the public way is taken.
    """
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    sha256 = hashes.SHA256()
    made = ec.ECDSA.__new__(ec.ECDSA)
    vars(made).update(_algorithm=sha256, _deterministic_signing=False)
    try:
        if made.algorithm is sha256 and made.deterministic_signing is False:
            return made
    except AttributeError:
        pass
    return ec.ECDSA(sha256)


def decode_base64(value: object, *, max_bytes: int, what: str) -> bytes:
    """Standard base64 with padding, in its one spelling."""
    if type(value) is not str or len(value) > 4 * (max_bytes // 3 + 1):
        raise MalformedError(f"{what} is not base64 of at most {max_bytes} bytes")
    try:
        decoded = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:  # binascii.Error is one; a letter beyond ASCII is another
        raise MalformedError(f"{what} is not base64") from None
    if _base64(decoded) != value or len(decoded) > max_bytes:
        raise MalformedError(f"{what} is not base64 in canonical form, of at most {max_bytes} bytes")
    return decoded


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def _parse_signature(item: object) -> EnvelopeSignature:
    if type(item) is not dict or item.keys() != {"keyid", "sig"} or not is_sha256(item["keyid"]):
        raise MalformedError("envelope's signature must have exactly keyid (64 hex digits) and sig")
    sig = decode_base64(item["sig"], max_bytes=SIGNATURE_MAX_BYTES, what="envelope's signature")
    return EnvelopeSignature(item["keyid"], sig)
