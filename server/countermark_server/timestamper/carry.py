"""What a timestamp carries: the cosigned checkpoint made small, `applied`, and the bins root.

    "x-countermark-log": {"origin": "registry.example", "size": 812, "root_hash": "<hex>", "checkpoint": "<note>"},
    "x-countermark-bins": {"root": "<hex>", "bit_length": 12},
    "x-countermark-applied": 811

Stock TUF clients stop reading a timestamp at 16,384 bytes, so the note keeps the log's own lines and just
enough witness lines for the quorum, Ed25519 (about 150 bytes) before ML-DSA-44 (3.3 kB), the newest first; a
file above 12 KiB is refused. A timestamp expires 24 hours after it was signed, always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Timestamp
from tuf.api.serialization.json import JSONSerializer

from countermark.errors import CountermarkError
from countermark.limits import TIMESTAMP_LIFETIME, TIMESTAMP_MAX_BYTES
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.tlog.note import ED25519_COSIGNATURE, Note, Signature
from countermark.tlog.policy import Policy
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.store import SignedTimestamp

SERIALIZER = JSONSerializer(compact=True)
SIGNATURES_BYTES = 1024  # room for the signatures of a rotation: about 220 bytes each


@dataclass(frozen=True)
class Contents:
    """What one timestamp says."""

    snapshot: Mapping[str, Any]  # {"length", "sha256", "version"}
    checkpoint: VerifiedCheckpoint
    bins_root: str
    bit_length: int
    applied: int


def slim(checkpoint: VerifiedCheckpoint, policy: Policy, older: Sequence[Policy] = ()) -> VerifiedCheckpoint:
    """The same checkpoint with as few witness lines as the quorum allows, verified again.

    `older` policies whose log keys and quorum signed it as well find their lines, too: while one trust file follows
    another, either is somebody's.
    """
    kept = _kept(checkpoint, policy)
    for each in older:
        try:
            kept |= _kept(open_checkpoint(checkpoint.raw, each, now=None), each)
        except CountermarkError:
            continue  # its witnesses are lost, or its keys sign no more: whoever still goes by it sees that
    note = Note.parse(checkpoint.raw)
    raw = Note(note.text, tuple(line for line in note.signatures if line in kept)).format()
    return open_checkpoint(raw, policy, now=None)


def _kept(checkpoint: VerifiedCheckpoint, policy: Policy) -> set[Signature]:
    """The lines that this policy needs."""
    note = Note.parse(checkpoint.raw)
    witnesses = {(w.key.name, w.key.key_id): w for w in policy.witnesses}
    lines: dict[str, Signature] = {}
    costs: dict[str, tuple[bool, int]] = {}
    for line in note.signatures:
        witness = witnesses.get((line.name, line.key_id))
        if witness is not None and witness.name in checkpoint.cosignatures:
            lines[witness.name] = line
            older = -checkpoint.cosignatures[witness.name]
            costs[witness.name] = (witness.key.type != ED25519_COSIGNATURE, older)
    kept = dict(checkpoint.cosignatures)
    for name in sorted(costs, key=costs.__getitem__, reverse=True):  # the dearest first
        without = {other: time for other, time in kept.items() if other != name}
        if policy.quorum_time(without) is not None:
            kept = without
    return {*checkpoint.log_signatures, *(line for name, line in lines.items() if name in kept)}


def unsigned(contents: Contents, version: int, signers: Sequence[Signer], *, now: int) -> Metadata[Timestamp]:
    """What the timestamp of this version will say. RefusalError: signed, it would be too large for stock clients."""
    snapshot = contents.snapshot
    checkpoint = contents.checkpoint
    signed = Timestamp(
        version,
        expires=datetime.fromtimestamp(now, UTC) + TIMESTAMP_LIFETIME,
        snapshot_meta=MetaFile(snapshot["version"], snapshot["length"], {"sha256": snapshot["sha256"]}),
        unrecognized_fields={
            "x-countermark-applied": contents.applied,
            "x-countermark-bins": {"bit_length": contents.bit_length, "root": contents.bins_root},
            "x-countermark-log": {
                "checkpoint": checkpoint.raw.decode(),
                "origin": checkpoint.origin,
                "root_hash": checkpoint.root_hash.hex(),
                "size": checkpoint.size,
            },
        },
    )
    if len(signers) > 1:  # while one key follows another: our clients take no signature that is not said here
        keys = {signer.public_key.keyid: signer.public_key.to_dict() for signer in signers}
        signed.unrecognized_fields["x-countermark-signers"] = keys
    metadata = Metadata(signed)
    size = len(metadata.to_bytes(SERIALIZER)) + SIGNATURES_BYTES
    if size > TIMESTAMP_MAX_BYTES:  # asked before its number is won: a number is for one attempt
        raise RefusalError(
            "timestamp-too-large", f"the timestamp has {size} bytes, more than {TIMESTAMP_MAX_BYTES}"
        )
    return metadata


def sign(metadata: Metadata[Timestamp], signers: Sequence[Signer]) -> SignedTimestamp:
    """The timestamp, by each of these keys."""
    for signer in sorted(signers, key=lambda signer: signer.public_key.keyid):
        metadata.sign(signer, append=True)
    raw = metadata.to_bytes(SERIALIZER)
    return SignedTimestamp(metadata.signed.version, hashlib.sha256(raw).hexdigest(), raw)


def signed_digest(metadata: Metadata[Timestamp]) -> str:
    """The SHA-256 of the signed part: what a number of the fence is won for."""
    return hashlib.sha256(metadata.signed_bytes).hexdigest()
