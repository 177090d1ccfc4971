"""The TUF timestamp's own members: what ties TUF's view of a registry to its log.

    "x-countermark-log": {"checkpoint": "registry.example\\n812\\n...", "origin": "registry.example",
                          "root_hash": "6f1c...", "size": 812}
    "x-countermark-bins": {"bit_length": 12, "root": "9b1d..."}
    "x-countermark-applied": 810            how many entries the listing takes into account
    "x-countermark-signers": {"<keyid>": {...}}     while a key follows another: all that sign this file

ngclient, or tufjson.py for bundles, verifies the signature and keeps what it does not know; here it is parsed.
Whether it is true is for `open_carried`: the checkpoint is opened, and compared with what is said beside it.
"""

from __future__ import annotations

import json
from typing import Any

from countermark.errors import EvidenceError, MalformedError, PolicyError
from countermark.tlog.checkpoint import Checkpoint, VerifiedCheckpoint, open_checkpoint
from countermark.tlog.merkle import HASH_SIZE
from countermark.tlog.note import Note
from countermark.tlog.policy import NONE
from countermark.trustfile import TrustFile
from countermark.tufjson import LEAK, Root, canonical, parse_time, verifies
from countermark.values import dataclass

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
UNWITNESSED_SUFFIXES = (".test", ".example", ".invalid")  # names nobody can own: `quorum none` only there


@dataclass(frozen=True)
class Timestamp:
    """The members of a TUF timestamp that are ours, parsed; somebody verified the signature."""

    raw: bytes
    version: int
    expires: int
    checkpoint: bytes
    origin: str
    size: int
    root_hash: str
    bins_root: bytes
    bit_length: int
    applied: int

    @classmethod
    def parse(cls, raw: bytes) -> Timestamp:
        """Read the signed part; EvidenceError when a member we require is missing or has another type."""
        try:
            signed: Any = json.loads(raw)["signed"]
            log, bins = signed["x-countermark-log"], signed["x-countermark-bins"]
            found = cls(
                raw=raw,
                version=signed["version"],
                expires=parse_time(signed["expires"]),
                checkpoint=log["checkpoint"].encode(),
                origin=log["origin"],
                size=log["size"],
                root_hash=log["root_hash"],
                bins_root=bytes.fromhex(bins["root"]),
                bit_length=bins["bit_length"],
                applied=signed["x-countermark-applied"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedError(f"the timestamp lacks what ties it to the log: {error!r}") from None
        numbers = (found.version, found.size, found.bit_length, found.applied)
        if (
            any(type(number) is not int or number < 0 for number in numbers)
            or len(found.bins_root) != HASH_SIZE
        ):
            raise MalformedError("the timestamp's log, bins or applied member is malformed")
        return found


def check_spelling(raw: bytes, root: Root) -> None:
    """Every byte of a timestamp's file is its key's, so that nobody on the way makes two files of one version.

    TUF signs the canonical form of `signed` alone: blanks, the order of members and what stands beside the
    signature are free. But a timestamp is logged, and remembered by those who saw it, as a *file*: a mirror that
    only adds a blank would else make an honest registry look like one that signs two timestamps of one version.

    While one timestamp key follows another both sign, and a root names one of them: then the signed part says
    which keys sign, so that no signature can be taken away or added. An ECDSA signature has a twin that verifies
    as well: the smaller one of the two is meant.
    """
    try:
        document: Any = json.loads(raw)
        message, listed = canonical(document["signed"]), document["signatures"]
        named = document["signed"].get("x-countermark-signers")
        keys = {keyid: root.keys.get(keyid) for keyid in root.roles["timestamp"]["keyids"]}
        if named is not None:
            keys = dict(named)
        whole = raw == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        whole = whole and document.keys() == {"signatures", "signed"}
        for item in listed:
            keyid, sig = item["keyid"], item["sig"]
            whole = (
                whole and item.keys() == {"keyid", "sig"} and keyid in keys and is_smallest(sig, keys[keyid])
            )
            whole = whole and verifies(keys.get(keyid), sig, message)
        if named is not None:
            whole = whole and [item["keyid"] for item in listed] == sorted(named)
    except LEAK as error:
        raise MalformedError(f"this is not a timestamp: {error!r}") from None
    if not whole or len({item["keyid"] for item in listed}) != len(listed):
        raise MalformedError(
            f"timestamp {document['signed'].get('version')} is not spelled as its key signed it: somebody between "
            "the registry and here changed what no signature covers"
        )


def is_smallest(sig: str, key: Any) -> bool:
    """Whether a signature is in the one spelling that its key makes: lower case, and of ECDSA the smaller twin."""
    if sig != sig.lower() or key["keytype"] != "ecdsa":
        return sig == sig.lower()
    return smallest(sig) == sig


def smallest(sig: str) -> str:
    """The smaller twin of an ECDSA P-256 signature."""
    from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415  (lazy: most keys are Ed25519)
        decode_dss_signature,
        encode_dss_signature,
    )

    r, s = decode_dss_signature(bytes.fromhex(sig))
    return encode_dss_signature(r, min(s, P256_ORDER - s)).hex()


def open_head(raw: bytes, trust_file: TrustFile, *, now: int) -> VerifiedCheckpoint:
    """A checkpoint of the trust file's log, whoever offers it: every log key, and the quorum."""
    policy, origin = trust_file.policy, Checkpoint.parse(Note.parse(raw).text).origin
    if policy.quorum == NONE and not _unowned(trust_file.origin):
        raise PolicyError(f"the log {trust_file.origin} asks for no witness, which only test names may do")
    if origin != trust_file.origin:
        raise EvidenceError(f"the checkpoint is of the log {origin}, not of {trust_file.origin}")
    return open_checkpoint(raw, policy, now=now)


def open_carried(timestamp: Timestamp, trust_file: TrustFile, *, now: int) -> VerifiedCheckpoint:
    """The checkpoint the timestamp carries: every log key, the quorum, and equal to what TUF says of it."""
    checkpoint = open_head(timestamp.checkpoint, trust_file, now=now)
    said = (timestamp.origin, timestamp.size, timestamp.root_hash)
    carried = (checkpoint.origin, checkpoint.size, checkpoint.root_hash.hex())
    if said != carried:
        raise EvidenceError(f"the timestamp says {said}, the checkpoint it carries says {carried}")
    if timestamp.applied > checkpoint.size:
        raise EvidenceError(
            f"the timestamp applied {timestamp.applied} entries of a log that has {checkpoint.size}"
        )
    return checkpoint


def _unowned(origin: str) -> bool:
    return origin.split("/", maxsplit=1)[0].endswith(UNWITNESSED_SUFFIXES)


def ago(seconds: int) -> str:
    """An age, in the unit that fits."""
    if seconds >= 7200:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
