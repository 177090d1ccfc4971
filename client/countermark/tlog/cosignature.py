"""Cosignatures: a signature under a checkpoint that states when its signer saw it as the newest.

The signature line holds 8 bytes of time (POSIX seconds, big-endian) and the signature proper. A witness
*cosigns*; a log signs its own checkpoints with type 0x06 as well, so that breaking Ed25519 one day does not
let anybody forge what the log said before.

Type 0x04 (Ed25519) covers two lines and the checkpoint's text:

    cosignature/v1
    time 1790000000
    log.example.org/countermark
    256
    2mWW2VNp9f7zIquOTg2jsLUCNqqcijsdJG90Ecni4y4=

It does not cover the cosigner's name, so a key must not serve two names. Type 0x06 (ML-DSA-44, FIPS 204,
empty context) covers

    "subtree/v1" 0A 00, u8 length and cosigner's name, u64 time,
    u8 length and origin, u64 start, u64 end, 32 bytes of hash

A checkpoint is the subtree from 0 to its size. Time 0 then means "consistent with all I saw, though perhaps
not the newest"; a subtree that starts elsewhere has no time.

A cosignature is worth what its signer's memory is worth: nothing here remembers anything.

Format: https://c2sp.org/tlog-cosignature@v1.1.0-rc.1 (the Ed25519 half is v1.0.1)
"""

from __future__ import annotations

from countermark.errors import MalformedError, SignatureError
from countermark.limits import TIME_MAX
from countermark.tlog import note
from countermark.tlog.note import ED25519_COSIGNATURE, ML_DSA_44, KeySigner, Signature, VerifierKey

_LABEL = b"subtree/v1\n\x00"


def covered(text: str) -> tuple[str, int, bytes]:
    """Origin, tree size and root hash: the three lines of a checkpoint's text, and no line more.

    Extension lines are legal elsewhere and refused here: type 0x06 does not cover them.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedError(f"a checkpoint must have exactly 3 lines, this one has {len(lines) - 1}")
    origin, size, root_hash = lines[0], note.parse_decimal(lines[1]), note.parse_hash(lines[2])
    note.check_key_name(origin)
    if f"{origin}\n{size}\n{note.format_base64(root_hash)}\n" != text:
        raise MalformedError("the checkpoint is not in canonical form")
    return origin, size, root_hash


def ed25519_message(text: str, time: int) -> bytes:
    """What a signature of type 0x04 covers."""
    _check_time(time)
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def ml_dsa_message(cosigner: str, time: int, *, origin: str, start: int, end: int, hash: bytes) -> bytes:
    """What a signature of type 0x06 covers."""
    _check_time(time)
    if not 0 <= start <= end <= TIME_MAX or (start and time):
        raise MalformedError(f"[{start}, {end}) cannot be cosigned at time {time}: only a prefix has a time")
    names = [cosigner.encode(), origin.encode()]
    if not all(1 <= len(name) <= 255 for name in names) or len(hash) != 32:
        raise MalformedError("a cosigned message has names of 1 to 255 bytes and a hash of 32")
    cosigner_name, log_origin = (bytes([len(name)]) + name for name in names)
    return b"".join([_LABEL, cosigner_name, _u64(time), log_origin, _u64(start), _u64(end), hash])


def check_signature(key: VerifierKey, text: str, sig: bytes) -> int | None:
    """Verify one line under a checkpoint by its key's type; returns the time it states (0x01 states none)."""
    if key.type not in (ED25519_COSIGNATURE, ML_DSA_44):
        return note.check_text_signature(key, text, sig)
    time = int.from_bytes(sig[:8], "big")
    if len(sig) <= 8 or time > TIME_MAX:
        raise SignatureError(f"the signature by {key.name} is false: it states no time from 0 to 2**63 - 1")
    key.verify(_message(key, text, time), sig[8:])
    return time


class _CheckpointSigner(KeySigner):
    def sign(self, text: str, *, time: int) -> Signature:
        signature = self.private_key.sign(_message(self.vkey, text, time))
        return Signature(self.name, self.key_id, _u64(time) + signature)


class Ed25519CosignatureSigner(_CheckpointSigner):
    """Cosigns checkpoints with Ed25519 (type 0x04)."""

    type = ED25519_COSIGNATURE


class MlDsaSigner(_CheckpointSigner):
    """Signs checkpoints with ML-DSA-44 (type 0x06): a log's second line, or a witness's cosignature."""

    type = ML_DSA_44


def _message(key: VerifierKey, text: str, time: int) -> bytes:
    """What `key` signs under a checkpoint with this text. Who signs has parsed it: no junk is ever signed."""
    origin, size, root_hash = covered(text)
    if key.type == ML_DSA_44:
        return ml_dsa_message(key.name, time, origin=origin, start=0, end=size, hash=root_hash)
    return ed25519_message(text, time)


def _check_time(time: int) -> None:
    if not 0 <= time <= TIME_MAX:
        raise MalformedError(f"{time} is not a time: POSIX seconds from 0 to 2**63 - 1")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
