"""Evidence: what a program keeps when two things that must agree do not.

    {"class":"self-proving",
     "format":"countermark-evidence/v1",
     "objects":{"checkpoint-offered":"<b64>","checkpoint-seen":"<b64>","consistency-proof":"<b64>",
                "prefix-root":"<b64>","root":"<b64>","trust-file":"<b64>"},
     "registry":"https://registry.example",
     "sentences":["fork: at size 3 the log's root was NmQuc8..., it is now said to be 1skf9a..."],
     "time":1763800000}

Three honest classes, by whom the file can convince:

    self-proving   anyone with the public keys: two notes of one size, two timestamps of one version
    replayable     anyone who can also read the named range of the log
    observation    nobody but us: bytes that a server gave to us and may deny

`objects` are the exact bytes received, so that nothing is lost in a re-encoding; `root` (and `root-2`, ...) and
`trust-file` name the keys by which the others are judged, so that the file can be checked elsewhere by whoever
trusts that root (evidence_check.py). A file is named by the SHA-256 of its content and never overwritten; seeing
the same thing twice keeps one file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from countermark.digest import sha256
from countermark.disk import replace_file
from countermark.errors import MalformedError
from countermark.values import dataclass, replace

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

    def about(
        self, registry: str, root: bytes, newer: Mapping[int, bytes], trust_file: bytes | None
    ) -> Evidence:
        """The same, with the registry's name and the keys by which it is judged."""
        keys = {"root": root} | {f"root-{version}": raw for version, raw in newer.items()}
        if trust_file is not None:
            keys["trust-file"] = trust_file
        return replace(self, objects={**keys, **self.objects}, registry=self.registry or registry)

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


def parse(raw: bytes) -> tuple[Evidence, int]:
    """The evidence in a file as somebody wrote it, and when; parsing proves nothing."""
    try:
        document: Any = json.loads(raw)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        objects = {
            str(name): base64.b64decode(text, validate=True) for name, text in document["objects"].items()
        }
        sentences = [str(sentence) for sentence in document["sentences"]]
        kind, time = EvidenceClass(document["class"]), int(document["time"])
        return Evidence(kind, sentences, objects, str(document["registry"])), time
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(f"this is not an evidence file: {error!r}") from None


def save(evidence: Evidence, folder: Path, *, time: int) -> Path:
    """Write an evidence file below `folder` and return where it is."""
    identity = sha256(evidence.encode(time=0)).hexdigest()[:16]
    path = folder / f"{evidence.kind.value}-{identity}.json"
    if not path.exists():
        replace_file(path, evidence.encode(time=time))
    return path


def kept_at(path: Path | str, kind: EvidenceClass | None = None) -> str:
    """The hint that goes with an error of exit code 7: where it is kept, and what to do with it."""
    of = "" if kind is None else f" ({kind.value})"
    return f'evidence{of} is in "{path}"; `countermark evidence check FILE` says whom it convinces'
