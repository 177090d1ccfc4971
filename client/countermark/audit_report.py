"""What an audit says: findings of four kinds, what it covered, and what it did not.

    tamper       two things that must agree do not: bytes, roots, digests, an entry that breaks a rule    exit 7
    identity     signed by somebody else than the one who must have signed, or not by enough              exit 7
    operational  nothing is false, but a promise is not kept: a file withheld, a takedown not applied     exit 5
    degraded     it could not be judged now: too old (exit 4) or not reachable (exit 3)

    {"code":"bin-listing","exit_code":7,"kind":"tamper","party":"tufrepo",
     "message":"bins-2 version 4: files/acme/acme-1.0.tar.gz may not be listed",
     "values":{"bin":"{...}","log":"absent"}}

Every check has a code in `CHECKS` and a test that plants its fault. A finding names the party at fault and
carries the values that disagree. A report without a list of what was not looked at would claim too much, so
`Notes` collects that as well, and a step that could not run says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from countermark.errors import CountermarkError, NetworkError, PolicyError, SignatureError, StaleError, worst
from countermark.evidence import Evidence, EvidenceClass
from countermark.pins import Registry, newer_roots
from countermark.trustfile import TrustFile
from countermark.values import dataclass, field


class Kind(Enum):
    """What sort of trouble."""

    TAMPER = "tamper"
    IDENTITY = "identity"
    OPERATIONAL = "operational"
    DEGRADED = "degraded"


EXIT_CODES: Final = {Kind.TAMPER: 7, Kind.IDENTITY: 7, Kind.OPERATIONAL: 5, Kind.DEGRADED: 4}


@dataclass(frozen=True)
class Check:
    """One thing that must be true, what its failure is called, and whom the finding would convince."""

    kind: Kind
    party: str
    text: str
    evidence: EvidenceClass = EvidenceClass.OBSERVATION


_T, _I, _O, _D = Kind.TAMPER, Kind.IDENTITY, Kind.OPERATIONAL, Kind.DEGRADED
_SELF, _AGAIN = EvidenceClass.SELF_PROVING, EvidenceClass.REPLAYABLE

CHECKS: Final[dict[str, Check]] = {
    # --- who vouches for this view ------------------------------------------------------------------------
    "view": Check(_T, "registry", "TUF metadata leads from the pinned root to one timestamp, never back"),
    "view-identity": Check(_I, "registry", "TUF metadata is signed by the roles that the pinned root names"),
    "view-policy": Check(_O, "registry", "the root accepts the trust file, and the trust file is sound"),
    "view-late": Check(_D, "registry", "the timestamp is fetched now and is signed hourly"),
    "unreachable": Check(_D, "network", "everything that must be readable can be read"),
    # --- the log ------------------------------------------------------------------------------------------
    "checkpoint": Check(_I, "log", "the checkpoint is signed by every key of the log and by the quorum"),
    "checkpoint-back": Check(_O, "log", "the public checkpoint is not older than what was seen before"),
    "fork": Check(_T, "log", "the checkpoint extends the last one audited", _SELF),
    "fork-timestamp": Check(_T, "timestamper", "the checkpoint in the timestamp is of this log", _SELF),
    "tile": Check(_T, "log", "every tile leads to the checkpoint's root hash"),
    "bundle": Check(_T, "log", "every entry hashes to its place in the tree"),
    "rule": Check(_T, "log", "every entry obeys the rules", _AGAIN),
    "rule-identity": Check(_I, "log", "every entry is signed by keys that may sign it", _AGAIN),
    "leaf-time": Check(_T, "log", "no entry is stamped ahead of the quorum that saw it", _AGAIN),
    "applied-late": Check(_O, "tufrepo", "a withdrawal is applied within 15 minutes", _AGAIN),
    # --- the log before ------------------------------------------------------------------------------------
    "predecessor": Check(_O, "log", "entry 0 names the predecessor that was given"),
    "predecessor-checkpoint": Check(
        _I, "predecessor", "the predecessor's checkpoint is signed by every key of that log and by its quorum"
    ),
    "predecessor-origin": Check(_T, "log", "entry 0 names the predecessor's origin"),
    "predecessor-size": Check(_T, "log", "entry 0 names the predecessor's size"),
    "predecessor-root": Check(_T, "log", "entry 0 names the predecessor's root hash"),
    "predecessor-frozen": Check(_T, "predecessor", "the last entry that entry 0 counts is a `log-freeze`"),
    "predecessor-grew": Check(_T, "predecessor", "nothing stands behind a `log-freeze`"),
    # --- from the log to TUF ------------------------------------------------------------------------------
    "tuf-file": Check(_T, "tufrepo", "served metadata is what its `tuf` entry says"),
    "tuf-file-missing": Check(_O, "tufrepo", "metadata that a `tuf` entry names is served"),
    "changes": Check(_T, "tufrepo", "the list of changed bins is what its `tuf` entry says"),
    "changes-missing": Check(_O, "tufrepo", "the list of changed bins is served"),
    "trust-file": Check(_T, "tufrepo", "every trust file that the root lists is served as listed"),
    # --- from TUF to the log ------------------------------------------------------------------------------
    "timestamp-snapshot": Check(
        _T, "timestamper", "the timestamp names the snapshot that was logged", _AGAIN
    ),
    "timestamp-applied": Check(_T, "timestamper", "the timestamp states the logged `applied`", _AGAIN),
    "timestamp-bins": Check(_T, "timestamper", "the timestamp signs the bins root that was logged", _AGAIN),
    "timestamp-unlogged": Check(_T, "timestamper", "every earlier timestamp is logged"),
    # --- bins ---------------------------------------------------------------------------------------------
    "tuf-signature": Check(_I, "tufrepo", "metadata is signed by the role it is delegated to"),
    "tuf-form": Check(_T, "tufrepo", "metadata is well-formed, and of the role and version it is served as"),
    "snapshot-roles": Check(_T, "tufrepo", "the snapshot lists exactly the roles there are"),
    "version-back": Check(_T, "tufrepo", "no version of a role is lower than the last audited"),
    "two-versions": Check(_T, "tufrepo", "one version of a bin is one file"),
    "bin-listing": Check(_T, "tufrepo", "every bin is exactly the listing after `applied` entries", _AGAIN),
    "bins-tile": Check(_T, "tufrepo", "every tile of the bins root is served under its own name"),
    "bins-root": Check(_T, "timestamper", "the bins root is that of the bins as they are served"),
    # --- the simple index ---------------------------------------------------------------------------------
    "page-extra": Check(_T, "index", "no page shows a file without an entry, or one that was withdrawn"),
    "page-hash": Check(_T, "index", "a page shows the logged SHA-256"),
    "page-size": Check(_T, "index", "a page shows the logged size"),
    "page-entry": Check(_T, "index", "a page names the file's own entry"),
    "page-yanked": Check(_T, "index", "a page shows yanked what the log says is yanked"),
    "page-missing": Check(_O, "index", "every listed file is on its project's page"),
    "page-malformed": Check(_T, "index", "a page is a simple page of its project"),
    "project-missing": Check(_O, "index", "every project with a listed file is on the simple index"),
    # --- bytes --------------------------------------------------------------------------------------------
    "metadata": Check(_T, "index", "page and served metadata file have the logged digest"),
    "metadata-missing": Check(_O, "index", "the metadata file that a page offers is served"),
    "artifact": Check(_T, "index", "the artifact has the logged SHA-256"),
    "artifact-missing": Check(_O, "index", "the artifact of a listed file is served"),
    "manifest": Check(_T, "registry", "the manifest that an import names is the list that its chain binds"),
    "blob": Check(_T, "registry", "an opened blob is the one its entry names"),
    "blob-closed": Check(_O, "registry", "evidence named by an entry is open after eight days"),
}


@dataclass(frozen=True)
class Finding:
    """One check that failed."""

    code: str
    message: str
    party: str
    kind: Kind
    exit_code: int
    values: Mapping[str, str] = field(default_factory=dict)
    evidence: str | None = None  # the file it was saved to

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "evidence": self.evidence,
            "exit_code": self.exit_code,
            "kind": self.kind.value,
            "message": self.message,
            "party": self.party,
            "values": dict(self.values),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
        return cls(**{**document, "kind": Kind(document["kind"])})


def finding(code: str, message: str, party: str | None = None, /, **values: object) -> Finding:
    """A finding of this check; `values` are what disagrees."""
    check = CHECKS[code]
    said = {name: str(value) for name, value in values.items()}
    return Finding(code, message, party or check.party, check.kind, EXIT_CODES[check.kind], said)


def evidence_of(
    found: Finding, objects: Mapping[str, bytes], registry: Registry, trust_file: TrustFile
) -> Evidence | None:
    """What to keep of a finding (what is false or can be replayed), with the keys by which it is judged."""
    kind = CHECKS[found.code].evidence
    if found.code == "bin-listing" and "bin-proof" not in objects:
        kind = EvidenceClass.OBSERVATION  # the bin is not the one that the timestamp signs: see "bins-root"
    if found.code == "applied-late" and "timestamp" not in objects:
        return None  # the timestamp here may be older than the one that applied it
    if found.exit_code != EXIT_CODES[Kind.TAMPER] and kind is EvidenceClass.OBSERVATION:
        return None
    sentences = [found.message, f"at fault: the {found.party}", f"must be true: {CHECKS[found.code].text}"]
    evidence = Evidence(kind, sentences, objects)
    newer = newer_roots(registry.folder / "tuf", registry.info.version)
    return evidence.about(registry.url, registry.root, newer, trust_file.format())


def view_finding(error: CountermarkError, what: str) -> Finding:
    """An error that kept us from looking, as a finding."""
    if isinstance(error, NetworkError):
        code = "unreachable"
    elif isinstance(error, StaleError):
        code = "view-late"
    elif isinstance(error, PolicyError):
        code = "view-policy"
    else:
        code = "view-identity" if isinstance(error, SignatureError) else "view"
    check = CHECKS[code]
    message = f"{what}: {error}" if what else str(error)
    return Finding(code, message, check.party, check.kind, error.exit_code)


@dataclass
class Notes:
    """What one pass found, covered, and left out."""

    findings: list[Finding] = field(default_factory=list)
    covered: dict[str, int] = field(default_factory=dict)
    not_covered: list[str] = field(default_factory=list)
    objects: dict[int, Mapping[str, bytes]] = field(default_factory=dict)  # by number of the finding

    def add(self, found: Finding, objects: Mapping[str, bytes] | None = None) -> None:
        """Take up a finding, with the objects that show it; the same one twice is one."""
        if found in self.findings:
            return
        self.objects[len(self.findings)] = objects or {}
        self.findings.append(found)

    def cover(self, what: str, count: int = 1) -> None:
        """So many things of this sort were checked."""
        self.covered[what] = self.covered.get(what, 0) + count

    def leave(self, what: str) -> None:
        """This was not looked at, and why."""
        if what not in self.not_covered:
            self.not_covered.append(what)


@dataclass(frozen=True)
class AuditReport:
    """The result: never a bare bool."""

    registry: str
    origin: str | None
    position: int  # entries replayed so far, by this run and those before it
    tree_size: int | None
    applied: int | None
    quorum_time: int | None
    witnesses: tuple[str, ...]
    age: int | None  # seconds since these witnesses saw the log so
    findings: tuple[Finding, ...]
    earlier: tuple[Finding, ...]  # told by earlier runs; entries stay in the log for ever
    covered: Mapping[str, int]
    not_covered: Sequence[str]
    remarks: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        return worst(found.exit_code for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "age": self.age,
            "applied": self.applied,
            "covered": dict(self.covered),
            "earlier": [found.to_json() for found in self.earlier],
            "exit_code": self.exit_code,
            "findings": [found.to_json() for found in self.findings],
            "not_covered": list(self.not_covered),
            "origin": self.origin,
            "position": self.position,
            "quorum_time": self.quorum_time,
            "registry": self.registry,
            "remarks": list(self.remarks),
            "tree_size": self.tree_size,
            "verified": not self.findings,
            "witnesses": list(self.witnesses),
        }
