"""Evidence: what a program keeps when two things that must agree do not.

    {"class":"self-proving",
     "format":"countermark-evidence/v1",
     "objects":{"checkpoint-newer":"<b64>","checkpoint-older":"<b64>","consistency-proof":"<b64>"},
     "registry":"https://registry.example",
     "sentences":["checkpoint 5 does not extend checkpoint 3 of example.com/registry"],
     "time":1763800000}

Three honest classes, by whom the file can convince:

    self-proving   anyone with the public keys: two notes of one size, two timestamps of one version
    replayable     anyone who can also read the named range of the log
    observation    nobody but us: bytes that a server gave to us and may deny

`objects` are the exact bytes received, so that nothing is lost in a re-encoding. A file is named by the
SHA-256 of its content and never overwritten; seeing the same thing twice keeps one file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from countermark.disk import replace_file

FORMAT = "countermark-evidence/v1"


class EvidenceClass(Enum):
    """Who can be convinced by it."""

    SELF_PROVING = "self-proving"
    REPLAYABLE = "replayable"
    OBSERVATION = "observation"


@dataclass(frozen=True)
class Evidence:
    """Objects that disagree, and what they show, in sentences."""

    kind: EvidenceClass
    sentences: Sequence[str]
    objects: Mapping[str, bytes]
    registry: str = ""

    def encode(self, *, time: int) -> bytes:
        """The file's bytes."""
        document = {
            "class": self.kind.value,
            "format": FORMAT,
            "objects": {name: base64.b64encode(data).decode() for name, data in sorted(self.objects.items())},
            "registry": self.registry,
            "sentences": list(self.sentences),
            "time": time,
        }
        return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def save(evidence: Evidence, folder: Path, *, time: int) -> Path:
    """Write an evidence file below `folder` and return where it is."""
    identity = hashlib.sha256(evidence.encode(time=0)).hexdigest()[:16]
    path = folder / f"{evidence.kind.value}-{identity}.json"
    if not path.exists():
        replace_file(path, evidence.encode(time=time))
    return path
