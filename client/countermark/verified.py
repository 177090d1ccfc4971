"""What came of a verification: for each artifact what was proved and by whom, or why it is refused.

    Verified(artifact, index=5, signed_by=..., steps=(Step(1, "root version 1 pinned, ...", by="TUF keys"), ...))
    Refused(artifact, error)        exit code 3 to 7, with the policy's reason
    LetPass(artifact, error)        true but not good enough, and no policy minds; exit code 0, verified false

There is no bool to forget: `verified` in the JSON is true only where every step held and nothing was let
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.digest import sha256
from countermark.errors import CountermarkError, EvidenceError, MalformedError, UsageError, worst
from countermark.names import parse_filename
from countermark.signature import SignedBy
from countermark.timestamp import ago
from countermark.trustfile import CentralPolicy
from countermark.values import dataclass

READ_CHUNK = 1024 * 1024  # bytes hashed at a time


@dataclass(frozen=True)
class Artifact:
    """What somebody is about to install: a name and a hash. `length` is known when there are bytes.

    `filename` is empty for a hash that was pinned without a file name and belongs to no file anybody knows.
    `namespace` is whose file it is said to be; empty is the default one, which bare names are in.
    """

    project: str
    version: str
    filename: str
    sha256: str
    length: int | None = None
    source: str = ""
    namespace: str = ""

    @classmethod
    def from_path(cls, path: Path, *, namespace: str = "") -> Artifact:
        """A file on disk; its project and version are those its name says."""
        try:
            name = parse_filename(path.name)
        except MalformedError as error:
            raise UsageError(f'"{path}": {error}') from None
        try:
            with path.open("rb") as stream:
                first = stream.read(READ_CHUNK)
                digest, length = sha256(first), len(first)
                while chunk := stream.read(READ_CHUNK):
                    digest.update(chunk)
                    length += len(chunk)
        except OSError as error:
            raise UsageError(f'cannot read "{path}": {error.strerror}') from None
        return cls(name.project, name.version, path.name, digest.hexdigest(), length, str(path), namespace)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.filename or f"{self.project}=={self.version}"

    @property
    def target(self) -> str:
        holder = f"{self.namespace}.{self.project}" if self.namespace else self.project
        return f"files/{holder}/{self.filename}"

    @property
    def holders(self) -> frozenset[tuple[str, str]]:
        """Namespace and project of whose keys may have signed it: its project, and the namespace around that."""
        over = {(self.namespace, "")} if self.namespace else set()
        return frozenset({(self.namespace, self.project)} | over)


class TamperedError(EvidenceError):
    """A file, or what is said of it, contradicts its entry in the log; `objects` are both sides."""

    def __init__(self, message: str, **objects: bytes) -> None:
        super().__init__(message)
        self.objects = objects


@dataclass(frozen=True)
class Step:
    """One numbered step that held, in words, and by whose word."""

    number: int
    proved: str
    by: str


@dataclass(frozen=True)
class Attested:
    """What the log says of one PEP 740 object that came with a file. No step and no policy looks at it."""

    index: int
    verified: str  # yes, no or not-checked
    sha256: str  # of the object's blob

    @property
    def sentence(self) -> str:
        found = {"yes": "the registry verified it", "no": "the registry found it false"}
        words = found.get(self.verified, "nobody checked it")
        return f"PEP 740 attestation: {words} (entry #{self.index}); nothing here depends on it"

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, "sha256": self.sha256, "verified": self.verified}


@dataclass(frozen=True)
class Verified:
    """Every step held. `findings` are what the policy let pass; without any, `verified` is True."""

    artifact: Artifact
    index: int
    leaf_hash: str
    signed_by: SignedBy | None
    steps: tuple[Step, ...]
    remarks: tuple[str, ...]
    findings: tuple[CountermarkError, ...] = ()
    attested: tuple[Attested, ...] | None = None  # None: nobody asked for it
    told: tuple[str, ...] = ()  # remarks that nobody need mind

    exit_code = 0

    @property
    def verified(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        signed = self.signed_by
        told = {} if self.attested is None else {"attestations": [each.to_json() for each in self.attested]}
        return {
            **_artifact_json(self.artifact),
            **told,
            "exit_code": 0,
            "findings": [_finding_json(f) for f in self.findings],
            "index": self.index,
            "leaf_hash": self.leaf_hash,
            "remarks": [*self.remarks, *self.told],
            "signed_by": None if signed is None else signed.to_json(),
            "steps": [{"by": s.by, "proved": s.proved, "step": s.number} for s in self.steps],
            "verified": self.verified,
        }


@dataclass(frozen=True)
class Refused:
    """A step failed, or the policy said no."""

    artifact: Artifact
    error: CountermarkError
    because: str = ""

    @property
    def exit_code(self) -> int:
        return self.error.exit_code

    @property
    def sentence(self) -> str:
        """Why it is refused, with its name."""
        name, told = self.artifact.name, str(self.error)
        return told if name in told else f"{name}: {told}"

    def to_json(self) -> dict[str, Any]:
        return {
            **_artifact_json(self.artifact),
            "because": self.because,
            "error": str(self.error),
            "exit_code": self.exit_code,
            "hint": self.error.hint,
            "reason": self.error.reason,
            "verified": False,
        }


@dataclass(frozen=True)
class LetPass:
    """A step failed and no policy minds: installed by decision, not by proof."""

    artifact: Artifact
    error: CountermarkError
    because: str = ""

    exit_code = 0

    @property
    def sentence(self) -> str:
        """That it was let pass, and why, with its name."""
        return f"{self.artifact.name}: let pass, not verified: {self.error} ({self.because})"

    def to_json(self) -> dict[str, Any]:
        return {
            **_artifact_json(self.artifact),
            "because": self.because,
            "exit_code": 0,
            "findings": [_finding_json(self.error)],
            "verified": False,
        }


Outcome = Verified | Refused | LetPass


@dataclass(frozen=True)
class Report:
    """What came of each artifact, and of which view of the registry it is said."""

    outcomes: tuple[Outcome, ...]
    registry: str
    tree_size: int
    applied: int
    quorum_time: int
    freshness: str
    late: str | None
    remarks: tuple[str, ...]
    policy: CentralPolicy | None = None
    age: int = 0  # seconds since the quorum saw what is believed here
    seen_by: tuple[str, ...] = ()  # the witnesses that say so

    @property
    def believed(self) -> str:
        """How old what is believed here is, and who says so: `seen by w1, w2 3 min ago, fresh`."""
        return f"{seen_words(self.seen_by, self.age)}, {self.freshness}"

    @property
    def exit_code(self) -> int:
        return worst(outcome.exit_code for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        return {
            "age": self.age,
            "applied": self.applied,
            "artifacts": [outcome.to_json() for outcome in self.outcomes],
            "exit_code": self.exit_code,
            "freshness": self.freshness,
            "late": self.late,
            "quorum_time": self.quorum_time,
            "registry": self.registry,
            "remarks": list(self.remarks),
            "seen_by": list(self.seen_by),
            "tree_size": self.tree_size,
            "verified": bool(self.outcomes)
            and all(isinstance(o, Verified) and o.verified for o in self.outcomes),
        }


def seen_words(witnesses: Sequence[str], age: int) -> str:
    """Who says that the log was so, and how long ago they did."""
    return f"seen by {', '.join(witnesses) or 'nobody'} {ago(age)} ago"


def _finding_json(error: CountermarkError) -> dict[str, Any]:
    return {"exit_code": error.exit_code, "message": str(error), "reason": error.reason}


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {
        "filename": artifact.filename,
        "project": artifact.project,
        "sha256": artifact.sha256,
        "source": artifact.source,
        "version": artifact.version,
    }
