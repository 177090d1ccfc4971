"""TUF's JSON without TUF's client: what an offline bundle needs, and a moment found again (moment.py).

    root = Root.parse(raw)                         # signed by its own threshold
    root = root.next(newer)                        # signed by both, version + 1
    signed = root.open("timestamp", raw)           # the signed part, once the role's threshold signed it
    signed = Delegator(keys, role).current(raw, "targets", version=3, now=now)      # None: not the current one
    target = ListedTarget.parse(path, "bins-3", {"custom": {...}, "hashes": {...}, "length": 9000})

Signatures cover TUF's canonical JSON of the `signed` member: keys sorted, no spaces, and in strings only `"`
and `\\` escaped. Two spellings of one file verify alike, as in every TUF client.

Keys are Ed25519 and ECDSA P-256, which is what our ceremonies make; a key of another kind signs nothing here.
Nothing here knows what time it is: whoever asks says it, or judges the expiry, which is a number. What ngclient
accepts and refuses of these files, this accepts and refuses too: tests/client/verify/test_tufjson.py.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from countermark.errors import EvidenceError, MalformedError, PolicyError, SignatureError
from countermark.limits import ROOT_MAX_BYTES
from countermark.statement import ecdsa, load_public_key
from countermark.values import dataclass, pattern

_PEM = pattern(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)-----END PUBLIC KEY-----\n?")
LEAK = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)  # of malformed JSON


def canonical(value: Any) -> bytes:
    """TUF's canonical JSON of a value; MalformedError when it has none (a float)."""
    try:
        return _spell(value).encode("utf-8")
    except (TypeError, UnicodeEncodeError, RecursionError) as error:
        raise MalformedError(f"this has no canonical JSON: {error}") from None


def _spell(value: Any) -> str:
    if isinstance(value, str):
        if '"' not in value and "\\" not in value:
            return f'"{value}"'
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join([_spell(each) for each in value]) + "]"
    if isinstance(value, dict):
        return "{" + ",".join([f"{_spell(key)}:{_spell(value[key])}" for key in sorted(value)]) + "}"
    raise TypeError(f"a {type(value).__name__}")


def parse_time(text: str) -> int:
    """The one spelling of times in TUF, in POSIX seconds; ValueError for another."""
    spelled = text.removesuffix("Z") + "+00:00"
    moment = datetime.fromisoformat(spelled)
    if moment.isoformat() != spelled or not text.endswith("Z"):
        raise ValueError(f"{text[:40]!r} is not a time")
    return int(moment.timestamp())


def load(raw: bytes, type: str) -> dict[str, Any]:
    """The signed part of metadata that says it is of this type. It proves nothing yet."""
    return parts(raw, type)[0]


def parts(raw: bytes, type: str) -> tuple[dict[str, Any], Any]:
    """The same, and what stands beside it as the list of its signatures; None where there is nothing."""
    try:
        document = json.loads(raw)
        signed = document["signed"]
        said = (signed["_type"], signed["spec_version"].split(".")[0])
        version = signed["version"]
    except LEAK as error:
        raise MalformedError(f"this is not TUF metadata: {error!r}") from None
    if said != (type, "1"):
        raise MalformedError(f"this is TUF metadata of type {said[0]!r}, version {said[1]!r}, not a {type}")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise MalformedError(f"{version!r} is no version of metadata")
    return dict(signed), document.get("signatures")


@dataclass(frozen=True)
class Root:
    """One version of a root, signed by its own threshold. Whoever pins it vouches for it."""

    raw: bytes
    version: int
    expires: int
    signed: bytes  # canonical: what its words and its signatures are of
    trial: bool
    trust_files: tuple[str, ...]  # hex SHA-256 of the trust files it accepts without delay
    keys: Mapping[str, Any]
    roles: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes) -> Root:
        """Read a root; SignatureError unless its own threshold signed it, PolicyError if it was only rehearsed."""
        if len(raw) > ROOT_MAX_BYTES:
            raise MalformedError(f"a root of {len(raw)} bytes; at most {ROOT_MAX_BYTES} are read")
        signed = load(raw, "root")
        if signed.get("x-countermark-rehearsal", False) is not False:
            raise PolicyError("this root was made in a rehearsal: it is no registry's")
        try:
            found = cls(
                raw=raw,
                version=signed["version"],
                expires=parse_time(signed["expires"]),
                signed=canonical(signed),
                trial=signed.get("x-countermark-trial") is True,
                trust_files=tuple(map(str, signed.get("x-countermark-trust", []))),
                keys=dict(signed["keys"]),
                roles=dict(signed["roles"]),
            )
        except LEAK as error:
            raise MalformedError(f"this is not a root: {error!r}") from None
        found.open("root", raw)
        return found

    def next(self, raw: bytes) -> Root:
        """The version after this one; SignatureError unless this one's threshold signed it too."""
        newer = Root.parse(raw)
        if newer.version != self.version + 1:
            raise EvidenceError(f"root version {newer.version} does not follow version {self.version}")
        self.open("root", raw)
        return newer

    def open(self, role: str, raw: bytes) -> dict[str, Any]:
        """The signed part of a top-level role's metadata, once that role's threshold signed it."""
        signed, listed = parts(raw, role)
        good, threshold = signed_by(self.keys, self.roles.get(role), listed, canonical(signed))
        if good < threshold:
            raise SignatureError(
                f"{role} version {signed['version']} is signed by {good} of the {threshold} keys that root "
                f"version {self.version} asks for: it is not from the registry whose root is pinned here"
            )
        return signed


def signed_by(keys: Mapping[str, Any], role: Any, listed: Any, message: bytes) -> tuple[int, int]:
    """How many of a role's keys signed the message, each counted once, and how many must have.

    `role` is what says so, as it stands in a root or a delegation; `listed` are the signatures of the file.
    """
    try:
        keyids, threshold = list(map(str, role["keyids"])), role["threshold"]
        signatures = {str(item["keyid"]): str(item["sig"]) for item in listed}
        twice = len(signatures) != len(listed) or len(set(keyids)) != len(keyids)
    except LEAK as error:
        raise MalformedError(f"the signatures of this file are malformed: {error!r}") from None
    if twice:
        raise MalformedError("a key is named twice for this file")
    if type(threshold) is not int or threshold < 1:
        raise MalformedError(f"{threshold!r} is no threshold")
    good = [k for k in keyids if k in signatures and verifies(keys.get(k), signatures[k], message)]
    return len(good), threshold


@dataclass(frozen=True)
class Delegator:
    """Who may sign a role: what a root or another role says of it, and the keys that stand beside that."""

    keys: Mapping[str, Any]
    role: Any

    def current(self, raw: bytes, type: str, *, version: int | None, now: int) -> dict[str, Any] | None:
        """The signed part of the role's file, where it is all that TUF asks of the current one; else None.

        It is of this type and version, has not expired, and enough of the role's keys signed it. Malformed files
        leak an error of `LEAK`, or a MalformedError.
        """
        signed, listed = parts(raw, type)
        return signed if self.takes(signed, listed, canonical(signed), version=version, now=now) else None

    def takes(
        self, signed: Mapping[str, Any], listed: Any, message: bytes, *, version: int | None, now: int
    ) -> bool:
        """The same of a signed part that was read already; `message` is its canonical form."""
        if signed["version"] != version or now >= parse_time(signed["expires"]):
            return False
        good, threshold = signed_by(self.keys, self.role, listed, message)
        return good >= threshold


def verifies(key: Any, signature: str, message: bytes) -> bool:
    """Whether this key of a root signed the message."""
    try:
        scheme, public = (key["keytype"], key["scheme"]), key["keyval"]["public"]
        sig = bytes.fromhex(signature)
        if scheme == ("ed25519", "ed25519"):
            _ed25519(public).verify(sig, message)
            return True
        if scheme in (("ecdsa", "ecdsa-sha2-nistp256"), ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256")):
            match = _PEM.fullmatch(public)
            spki = load_public_key(base64.b64decode(match[1])) if match else None
            if spki is not None and not isinstance(spki, ed25519.Ed25519PublicKey):
                spki.verify(sig, message, ecdsa())
                return True
    except (InvalidSignature, MalformedError, binascii.Error, *LEAK):
        return False
    return False


@lru_cache(maxsize=64)  # the same one signs every bin
def _ed25519(public: str) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))


@dataclass(frozen=True)
class ListedTarget:
    """A target in a current bin, bound to the bins root the timestamp signs."""

    path: str
    length: int
    sha256: str
    index: int
    leaf_hash: str
    verdict: int | None
    yank: int | None
    role: str

    @classmethod
    def parse(cls, path: str, role: str, target: Any) -> ListedTarget:
        """A target as metadata holds it; EvidenceError when it names no entry of the log."""
        try:
            custom = target["custom"]
            said = (target["length"], target["hashes"]["sha256"], custom["i"], custom["lh"])
            found = cls(path, *said, verdict=custom["verdict"], yank=custom["yank"], role=role)
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"target {path} names no entry of the log: {error!r} is missing") from None
        if type(found.index) is not int or type(found.length) is not int:
            raise EvidenceError(f"target {path} has a malformed length or index")
        return found
