"""Checkpoints: a log's signed statement of its size and root hash.

    example.com/registry
    3
    NmQuc8JUCrEh46a/lUWwokmCzYMOsT080Z3jzmwCHsE=

(the log holding the three entries a, b, c). This text is signed as a note (note.py): by every key of the
log's key set, Ed25519 and ML-DSA-44, and by witnesses (cosignature.py).

`Checkpoint.parse` proves nothing about who wrote it. `open_log_checkpoint` proves that the log did, which is
what a witness and the log itself ask. `open_checkpoint` proves besides that enough witnesses of a policy
have seen it; its VerifiedCheckpoint is the only thing that proof.check takes. No checkpoint says that it is
the newest: cosignatures say when it was.

Format: https://c2sp.org/tlog-checkpoint@v1.0.0, without extension lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from countermark.errors import MalformedError, PolicyError, SignatureError, StaleError
from countermark.limits import COSIGNATURE_MAX_SKEW
from countermark.tlog.cosignature import check_signature, covered
from countermark.tlog.merkle import EMPTY_ROOT
from countermark.tlog.note import Note, OpenedNote, Signature, VerifierKey, format_base64, open_note
from countermark.tlog.policy import Policy
from countermark.values import dataclass, field


@dataclass(frozen=True)
class Checkpoint:
    """Origin, tree size and root hash, as somebody claims them."""

    origin: str
    size: int
    root_hash: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{format_base64(self.root_hash)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        return Checkpoint(*covered(text))


@dataclass(frozen=True)
class LogCheckpoint(Checkpoint):
    """A checkpoint that every key of its log has signed. Made by `open_log_checkpoint` alone."""

    raw: bytes
    log_signatures: tuple[Signature, ...]

    def log_note(self) -> bytes:
        """The note with nothing but the log's verified lines: what a witness is sent, and what it stores."""
        return Note(self.text(), self.log_signatures).format()


@dataclass(frozen=True)
class VerifiedCheckpoint(LogCheckpoint):
    """A checkpoint that the log signed and a policy's quorum cosigned. Made by `open_checkpoint` alone."""

    cosignatures: Mapping[str, int] = field(hash=False)  # the witness's name in the policy, its time
    quorum_time: int  # the newest time by which the quorum had seen it


def open_log_checkpoint(raw: bytes, log_keys: Sequence[VerifierKey]) -> LogCheckpoint:
    """Verify that all of `log_keys` signed this checkpoint."""
    note = Note.parse(raw)
    head = covered(note.text)
    opened = open_note(note, log_keys, check=check_signature)
    return LogCheckpoint(*head, raw, _log_lines(head[0], opened, log_keys))


def open_checkpoint(raw: bytes, policy: Policy, *, now: int | None) -> VerifiedCheckpoint:
    """Verify that the log and a quorum of `policy` signed this checkpoint.

    `now`, in POSIX seconds, bounds the times that are stated; None is for who has no clock to trust.
    """
    note = Note.parse(raw)
    origin, size, root_hash = covered(note.text)
    log_keys = policy.log_keys(origin)
    if not log_keys:
        raise PolicyError(f"no log {origin} is known to this policy")
    if size == 0 and root_hash != EMPTY_ROOT:
        raise MalformedError(f"an empty tree cannot have the root hash {root_hash.hex()}")
    # A log may not witness itself, not even with its key under another name.
    own = {key.public_key for key in log_keys}
    witnesses = {w.key: w.name for w in policy.witnesses if w.key.public_key not in own}
    # (1) Every line that names a key of the log or of a witness is true.
    opened = open_note(note, [*log_keys, *witnesses], check=check_signature)
    # (2) The log signed, with all its keys.
    log_lines = _log_lines(origin, opened, log_keys)
    # (3) No time lies in the future.
    for signature in opened.signatures:
        ahead = 0 if now is None else (signature.time or 0) - now
        if ahead > COSIGNATURE_MAX_SKEW.total_seconds():
            what = f"{signature.key.name} signed at {signature.time}, which is ahead of our clock, {now}"
            raise StaleError(what, hint="compare this machine's clock with another one")
    # (4) Enough witnesses signed. Time 0 (not stated) is not yet a claim to have seen nothing newer.
    times = {witnesses[s.key]: s.time for s in opened.signatures if s.key in witnesses and s.time}
    quorum_time = policy.quorum_time(times)
    if quorum_time is None:
        raise SignatureError(
            f"checkpoint {size} of {origin} lacks the quorum {policy.quorum}: "
            f"cosigned by {', '.join(sorted(times)) or 'nobody'}"
        )
    cosigned = MappingProxyType(times)
    return VerifiedCheckpoint(origin, size, root_hash, raw, log_lines, cosigned, quorum_time)


def _log_lines(origin: str, opened: OpenedNote, keys: Sequence[VerifierKey]) -> tuple[Signature, ...]:
    """The log's lines in the order of its key set; refused when one is missing."""
    lines = {signature.key: signature.line for signature in opened.signatures}
    for key in keys:
        if key.name != origin:
            raise PolicyError(f"{key.name} cannot sign for the log {origin}")
        if key not in lines:
            which = f"{key.key_id.hex()} of type 0x{key.type:02x}"
            raise SignatureError(f"a checkpoint of {origin} is not signed by its key {which}")
    return tuple(lines[key] for key in keys)
