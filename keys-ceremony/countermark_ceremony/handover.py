"""ceremony-input.json: what a registry's `init` hands over, public halves only.

    {"origin": "registry.example", "log_vkeys": ["registry.example+...", "registry.example+..."],
     "witness_policy": "log ...\n...quorum w1\n", "bit_length": 12,
     "tuf_keys": {"bins": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "..."}},
                  "snapshot": {...}, "timestamp": {...}},
     "role_keys": {"registry": {<DSSE envelope>}, "scanner": {...}, "moderation": {...}},
     "predecessor": {"log": "old.example/registry", "root_hash": "5fec...", "tree_size": 31}}

Each of `role_keys` is a `key-enroll` statement already signed by the new role key, on the machine that holds
it. The ceremony adds the authority key's signature and nothing else, so no online key travels. `predecessor` is
there only for a log that goes on from a frozen one; the authority key alone signs that, as entry 0.

Nothing here is believed because it is here: the plan names the file's SHA-256, and the screens show every
key by the SHA-256 of its SPKI, to be compared with what `init` printed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import SSlibKey

from countermark.errors import MalformedError
from countermark.limits import BIN_BITS_MAX
from countermark.predecessor import Predecessor
from countermark.statement import Envelope, Statement, decode_base64, open_envelope
from countermark.tlog.note import VerifierKey
from countermark.tlog.policy import Policy

ONLINE_ROLES = ("bins", "snapshot", "timestamp")
ROLE_KEYS = ("registry", "scanner", "moderation")  # the order of the log's first entries
INPUT_MAX_BYTES = 256 * 1024  # two ML-DSA vkeys and a witness policy fit many times
_MEMBERS = {"origin", "log_vkeys", "witness_policy", "tuf_keys", "role_keys", "bit_length"}
_OPTIONAL = {"predecessor"}


@dataclass(frozen=True)
class RoleKey:
    """A log role's key and its half-signed enrolment."""

    role: str
    public_key: bytes  # SPKI DER
    envelope: Envelope
    statement: Statement


@dataclass(frozen=True)
class Handover:
    """The input file, parsed and checked against itself."""

    origin: str
    log_vkeys: tuple[str, ...]
    witness_policy: str
    bit_length: int
    tuf_keys: Mapping[str, SSlibKey]
    role_keys: Mapping[str, RoleKey]
    predecessor: Predecessor | None
    sha256: str

    def online_fingerprints(self) -> dict[str, str]:
        """SHA-256 of the SPKI of every key that lives on a networked machine, to its name."""
        named = {fingerprint(key_spki(key)): f"TUF {role}" for role, key in self.tuf_keys.items()}
        roles = {fingerprint(key.public_key): f"log role {role}" for role, key in self.role_keys.items()}
        return named | roles

    @classmethod
    def parse(cls, raw: bytes) -> Handover:
        """The handover in these bytes; every signature in it is verified."""
        if len(raw) > INPUT_MAX_BYTES:
            raise MalformedError(f"ceremony input of {len(raw)} bytes, at most {INPUT_MAX_BYTES} are read")
        try:
            found = _from_document(json.loads(raw), hashlib.sha256(raw).hexdigest())
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
            UnsupportedAlgorithm,
        ) as error:
            raise MalformedError(f"ceremony input is malformed: {type(error).__name__} {error}") from error
        found.check()
        return found

    def check(self) -> None:
        """Refuse an input whose parts disagree."""
        expected = {key.format() for key in Policy.parse(self.witness_policy).log_keys(self.origin)}
        if expected != set(self.log_vkeys) or len(self.log_vkeys) != len(expected):
            raise MalformedError("ceremony input: log_vkeys are not the log lines of its witness policy")
        kinds = sorted(VerifierKey.parse(vkey).type for vkey in self.log_vkeys)
        if kinds != [1, 6]:
            raise MalformedError(
                f"ceremony input: the log's keys have types {kinds}, an Ed25519 (1) and an ML-DSA-44 (6) "
                "key are needed"
            )
        fingerprints = self.online_fingerprints()
        if len(fingerprints) != len(ONLINE_ROLES) + len(ROLE_KEYS):
            raise MalformedError("ceremony input: two online roles share a key")


def fingerprint(spki: bytes) -> str:
    """How a key is shown and compared: hex SHA-256 of its SPKI DER."""
    return hashlib.sha256(spki).hexdigest()


def key_spki(key: SSlibKey) -> bytes:
    """SPKI DER of a TUF key (Ed25519 is stored raw there, others in PEM)."""
    public = str(key.keyval["public"])
    if key.keytype == "ed25519":
        return bytes.fromhex("302a300506032b6570032100") + bytes.fromhex(public)
    loaded = serialization.load_pem_public_key(public.encode("ascii"))
    return loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def tuf_key(spki: bytes) -> SSlibKey:
    """The TUF form of a key, with its default keyid."""
    return SSlibKey.from_crypto(load_der_public_key(spki))


def _from_document(document: dict[str, object], sha256: str) -> Handover:
    if set(document) - _OPTIONAL != _MEMBERS:
        raise ValueError(f"members are {sorted(document)}, {sorted(_MEMBERS)} belong there")
    origin, policy, bit_length = document["origin"], document["witness_policy"], document["bit_length"]
    vkeys, tuf_keys, role_keys = document["log_vkeys"], document["tuf_keys"], document["role_keys"]
    if not isinstance(origin, str) or not isinstance(policy, str) or not isinstance(vkeys, list):
        raise TypeError("origin and witness_policy are texts, log_vkeys is a list")
    if type(bit_length) is not int or not 1 <= bit_length <= BIN_BITS_MAX:
        raise ValueError(f"bit_length {bit_length!r} is not within 1 to {BIN_BITS_MAX}")
    if not isinstance(tuf_keys, dict) or set(tuf_keys) != set(ONLINE_ROLES):
        raise ValueError(f"tuf_keys are those of {', '.join(ONLINE_ROLES)}")
    if not isinstance(role_keys, dict) or set(role_keys) != set(ROLE_KEYS):
        raise ValueError(f"role_keys are those of {', '.join(ROLE_KEYS)}")
    return Handover(
        origin=origin,
        log_vkeys=tuple(vkeys),
        witness_policy=policy,
        bit_length=bit_length,
        tuf_keys={role: _tuf_key(role, tuf_keys[role]) for role in ONLINE_ROLES},
        role_keys={role: _role_key(role, role_keys[role], origin) for role in ROLE_KEYS},
        predecessor=_predecessor(document, origin),
        sha256=sha256,
    )


def _predecessor(document: dict[str, object], origin: str) -> Predecessor | None:
    if "predecessor" not in document:
        return None
    predecessor = Predecessor.parse(document["predecessor"])
    if predecessor.log == origin:
        raise ValueError(f"{origin!r} does not follow itself: a successor has an origin of its own")
    return predecessor


def _tuf_key(role: str, given: dict[str, object]) -> SSlibKey:
    stated = {name: given[name] for name in ("keytype", "scheme", "keyval")}
    if extra := sorted(set(given) - {*stated, "keyid"}):
        raise ValueError(f"TUF key {role} has unknown members {extra}")
    key = tuf_key(key_spki(SSlibKey.from_dict("", json.loads(json.dumps(stated)))))
    if key.to_dict() != stated or given.get("keyid", key.keyid) != key.keyid:
        raise ValueError(f"TUF key {role} is not in the form tuf writes it in")
    return key


def _role_key(role: str, given: object, origin: str) -> RoleKey:
    if not isinstance(given, dict):
        raise TypeError(f"role key {role} is not a DSSE envelope")
    envelope = Envelope.parse(given)
    spki = enrolled_key(Statement.parse(envelope.payload))
    statement = open_envelope(envelope, {fingerprint(spki): spki}).statement
    said = (statement.type, statement.predicate["scope"], statement.predicate["origin"])
    if said != ("key-enroll", role, origin):
        raise ValueError(f"role key {role}: the statement is {said[0]} for scope {said[1]!r} of {said[2]!r}")
    return RoleKey(role, spki, envelope, statement)


def enrolled_key(statement: Statement) -> bytes:
    """SPKI of the key that a key-enroll statement enrols."""
    return decode_base64(statement.predicate["key"], max_bytes=1024, what="the key a statement enrols")
