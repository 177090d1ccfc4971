"""Succession: what `init` reads of the log that the new one goes on from, and whether `adopt` got it back.

The final checkpoint of a frozen log is opened with that log's own trust file: all its keys signed, its quorum
cosigned. Only then is anything made. That its last entry is a `log-freeze` a checkpoint can't show, having no
entries; `countermark audit --predecessor` does, and the ceremony's screen asks to compare the root hash with what
`freeze` printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from countermark.errors import EvidenceError, UsageError
from countermark.limits import NOTE_MAX_BYTES, TRUST_FILE_MAX_BYTES
from countermark.predecessor import Predecessor, open_predecessor
from countermark.statement import Envelope
from countermark.tlog.checkpoint import open_checkpoint
from countermark.trustfile import TrustFile
from countermark_server.operate.reading import read_bounded

PREDECESSOR_FILE = "predecessor.json"  # in a ceremony's output


def read_predecessor(checkpoint: Path, trust_file: Path, origin: str, *, now: int) -> Predecessor:
    """The log in this final checkpoint, verified; nothing is written. UsageError: it can't be one of `origin`."""
    trust = TrustFile.parse(read_bounded(trust_file, TRUST_FILE_MAX_BYTES))
    final = open_checkpoint(read_bounded(checkpoint, NOTE_MAX_BYTES), trust.policy, now=now)
    if final.origin != trust.origin:
        raise EvidenceError(f"the checkpoint is of {final.origin}, the trust file is about {trust.origin}")
    if final.origin == origin:
        raise UsageError(
            f"{origin} can't go on from itself", hint="a successor log has an origin of its own: --origin"
        )
    if final.size == 0:
        raise UsageError(f"{final.origin} is empty: there is nothing to go on from")
    return Predecessor(final.origin, final.size, final.root_hash.hex())


def check_predecessor(asked: Mapping[str, Any], envelope: Mapping[str, Any] | None, trust: TrustFile) -> None:
    """The ceremony signed exactly the predecessor that `init` asked for, or none where it asked for none."""
    wanted = Predecessor.parse(asked["predecessor"]) if "predecessor" in asked else None
    signed = None
    if envelope is not None:
        given = Envelope.parse(envelope)
        signed = open_predecessor(given, authority_key=trust.authority_key, origin=trust.origin)
    if signed != wanted:
        raise EvidenceError(
            f"the ceremony's predecessor is {signed or 'nobody'}, `init` asked for {wanted or 'nobody'}"
        )


def signed_predecessor(output: Path) -> dict[str, Any] | None:
    """The envelope in a ceremony's output; None where it has none."""
    path = output / PREDECESSOR_FILE
    if not path.exists():
        return None
    document = json.loads(read_bounded(path, NOTE_MAX_BYTES))
    if not isinstance(document, dict):
        raise EvidenceError(f"{PREDECESSOR_FILE} is not an envelope")
    return document
