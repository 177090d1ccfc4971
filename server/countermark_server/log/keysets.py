"""Key sets of the log: one follows another while both sign.

A set is an Ed25519 key and an ML-DSA-44 key, in this order. `log.keys` names the sets that sign, one or two of them:
every checkpoint carries all lines of all sets, so that whoever follows the trust file before, and whoever follows its
successor, finds the lines that his demands. Which sets a trust file demands is checked where the log starts.

A head or a public checkpoint may be of before a set was named, or of after: it is ours when one whole set signed it.
"""

from __future__ import annotations

from collections.abc import Sequence

from countermark.errors import SignatureError
from countermark.tlog.checkpoint import LogCheckpoint, open_log_checkpoint
from countermark.tlog.note import NoteSigner, VerifierKey, sign_note

SET = 2  # keys


def open_by_any(raw: bytes, keys: Sequence[VerifierKey]) -> LogCheckpoint:
    """A checkpoint that one whole set of ours signed; the error of the first set where none did."""
    problem: SignatureError | None = None
    for start in range(0, len(keys), SET):
        try:
            return open_log_checkpoint(raw, keys[start : start + SET])
        except SignatureError as error:
            problem = problem or error
    raise problem or SignatureError("the log has no keys")


def signed_by_all(raw: bytes, signers: Sequence[NoteSigner], *, time: int) -> LogCheckpoint:
    """A checkpoint of ours with the lines of every set: as it is, or the same text signed once more.

    The same size and root under other lines is no second history, and nothing is stored here.
    """
    keys = [signer.vkey for signer in signers]
    found = open_by_any(raw, keys)
    if len(keys) == SET:
        return found
    try:
        return open_log_checkpoint(raw, keys)
    except SignatureError:
        return open_log_checkpoint(sign_note(found.text(), signers, time=time).format(), keys)
