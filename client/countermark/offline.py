"""Offline: verify files by their bundles, without network. The steps are those of verify.py, as far as they go.

    report = verify_bundles([(artifact, raw)], registry, now=now, max_age=86400, policies=policies)
    report.results[0].claims.sentences
        logged by 2026-11-22T13:00:12Z: entry #5 of 15 in demo.test/registry, seen by w1
        listed and in good standing as of entry 14, by the timestamp key
        unknown since 2026-11-22T13:00:12Z, 35 min ago

Three separate claims, because three parties make them: the log and its witnesses, the timestamp key, nobody.
T, the time in the first and the third, is the newest time by which the quorum had seen the log's head. How old
it may be is the verifier's decision (`max_age`, 24 hours unless said otherwise), and nothing else makes a
bundle expire. A hold or takedown since T is not seen here: who must know asks online.

Trust starts at the pinned root and uses what this machine has seen: newer roots, the newest trust file, the
largest head. A head of the size seen before must be that head; another is a fork, and is kept as evidence.
Nothing else is written, and of the network nothing is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from countermark.bundle import Bundle, Moments, OpenedBundle, open_bundle
from countermark.claims import keep_bundle_evidence, utc
from countermark.clientpolicy import Policies
from countermark.demanded import check_pins, facts_of, pin_line, refused_or_let_pass
from countermark.errors import CountermarkError, EvidenceError, StaleError, worst
from countermark.matching import check_target, entry_of
from countermark.pins import Registry, newer_roots
from countermark.signature import SignedBy, check_publisher
from countermark.timeline import Timeline
from countermark.timestamp import ago
from countermark.tufjson import Root
from countermark.values import dataclass, replace
from countermark.verified import Artifact, Outcome, Refused, Step, Verified


@dataclass(frozen=True)
class Claims:
    """What a bundle says, by three parties."""

    origin: str
    index: int
    size: int
    witnesses: tuple[str, ...]
    time: int  # T
    applied: int
    timestamp: int
    yank: int | None
    age: int

    @property
    def sentences(self) -> tuple[str, str, str]:
        """The three claims in words."""
        standing = "listed and in good standing" if self.yank is None else f"listed, yanked by #{self.yank},"
        seen = ", ".join(self.witnesses) or "nobody"
        return (
            f"logged by {utc(self.time)}: entry #{self.index} of {self.size} in {self.origin}, seen by {seen}",
            f"{standing} as of entry {self.applied}, by the timestamp key",
            f"unknown since {utc(self.time)}, {ago(self.age)} ago",
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "listed": {"applied": self.applied, "timestamp": self.timestamp, "yank": self.yank},
            "logged": {
                "by": self.time,
                "index": self.index,
                "origin": self.origin,
                "tree_size": self.size,
                "witnesses": list(self.witnesses),
            },
            "age": self.age,
            "unknown_since": self.time,
        }


@dataclass(frozen=True)
class Result:
    """One file: what came of it, and what its bundle claims, as far as it could be opened."""

    outcome: Outcome
    claims: Claims | None

    def to_json(self) -> dict[str, Any]:
        return self.outcome.to_json() | {"claims": None if self.claims is None else self.claims.to_json()}


@dataclass(frozen=True)
class OfflineReport:
    """What came of each file."""

    results: tuple[Result, ...]
    registry: str
    max_age: int
    remarks: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return worst(result.outcome.exit_code for result in self.results)

    def to_json(self) -> dict[str, Any]:
        outcomes = [result.outcome for result in self.results]
        return {
            "artifacts": [result.to_json() for result in self.results],
            "exit_code": self.exit_code,
            "max_age": self.max_age,
            "registry": self.registry,
            "remarks": list(self.remarks),
            "verified": bool(outcomes) and all(isinstance(o, Verified) and o.verified for o in outcomes),
        }


def verify_bundles(
    files: Sequence[tuple[Artifact, bytes]],
    registry: Registry,
    *,
    now: int,
    max_age: int,
    policies: Policies,
    remarks: Sequence[str] = (),
) -> OfflineReport:
    """Verify each file by its bundle, from the pinned root."""
    timeline = Timeline.load(registry.folder / "timeline.json")
    now = max(now, timeline.newest_time)  # a clock behind what witnesses signed is wrong
    seen = _Seen(registry, timeline, now)
    results = tuple(
        _judge(artifact, raw, seen, max_age=max_age, policies=policies) for artifact, raw in files
    )
    return OfflineReport(results, registry.url, max_age, (*remarks, *policies.exception_words(now)))


class _Seen:
    """What every bundle of one run is held against: the pin, what this machine has seen, and the time."""

    def __init__(self, registry: Registry, timeline: Timeline, now: int) -> None:
        self.registry, self.timeline, self.now = registry, timeline, now
        self._root: Root | None = None
        self._known: dict[int, bytes] = {}
        self._moments: Moments = {}

    def open(self, raw: bytes) -> OpenedBundle:
        """A bundle, proved from the pinned root."""
        bundle = Bundle.parse(raw)
        if self._root is None:
            self._root = Root.parse(self.registry.root)
            self._known = newer_roots(self.registry.folder / "tuf", self._root.version)
        followed = self.timeline.trust_sha256
        return open_bundle(
            bundle,
            self._root,
            now=self.now,
            known_roots=self._known,
            followed=followed,
            moments=self._moments,
        )


def _judge(artifact: Artifact, raw: bytes, seen: _Seen, *, max_age: int, policies: Policies) -> Result:
    """Steps 1 to 9 for one file, then step 10."""
    registry, now = seen.registry, seen.now
    claims = None
    steps: list[Step] = []
    try:
        opened, head = _open(raw, artifact, seen)
        claims = _claims(opened, now)
        if claims.age > max_age:
            raise StaleError(
                f"{artifact.filename}: its bundle is {ago(claims.age)} old, {ago(max_age)} are allowed",
                hint="make a new bundle, or allow more with --max-age",
            )
        _note(steps, registry, opened, head)
    except CountermarkError as error:
        # What the registry signed is false, unknown or too old: no policy makes that good.
        _keep_evidence(registry, raw, error, now)
        return Result(Refused(artifact, error, "refused in every mode"), claims)
    policies = policies.with_central(opened.trust_file.client_policy)
    try:
        signed_by, logged_at = _prove(opened, artifact, policies, steps)
    except CountermarkError as error:
        _keep_evidence(registry, raw, error, now)
        return Result(refused_or_let_pass(artifact, error, policies, now=now), claims)
    outcome = _decide(opened, artifact, signed_by, logged_at, policies, steps=steps, now=now)
    return Result(outcome, claims)


def _open(raw: bytes, artifact: Artifact, seen: _Seen) -> tuple[OpenedBundle, str]:
    """The bundle, proved from the pinned root and held against what this machine has seen."""
    opened, timeline = seen.open(raw), seen.timeline
    if opened.target.path != artifact.target:
        raise EvidenceError(f"this bundle is about {opened.target.path}, not about {artifact.target}")
    timeline.check_trust_file(
        opened.trust_file.version, opened.trust_file.format(), seen_at=opened.checkpoint.quorum_time
    )
    timeline.check_floor(
        opened.checkpoint.size, opened.timestamp.raw, floor=opened.trust_file.client_policy.min_tree_size
    )
    return opened, timeline.check_head_offline(opened.checkpoint)


def _note(steps: list[Step], registry: Registry, opened: OpenedBundle, head: str) -> None:
    """Steps 1, 2, 5, 6 and 7 held: all that is about the registry and not about the file."""
    checkpoint, timestamp = opened.checkpoint, opened.timestamp
    pinned = f"root version {opened.root.version} from the one pinned here, timestamp {timestamp.version}"
    steps.append(Step(1, pinned, "TUF keys"))
    bins_root = timestamp.bins_root.hex()[:16]
    steps.append(Step(2, f"bin {opened.target.role} under the bins root {bins_root}", "timestamp key"))
    signed = f"checkpoint {checkpoint.size} signed by {len(checkpoint.log_signatures)} log keys"
    steps.append(Step(5, signed, "log keys"))
    witnesses = ", ".join(sorted(checkpoint.cosignatures)) or "nobody"
    steps.append(Step(6, f"quorum reached at {checkpoint.quorum_time}", witnesses))
    steps.append(Step(7, head, "this machine's timeline"))


def _prove(
    opened: OpenedBundle, artifact: Artifact, policies: Policies, steps: list[Step]
) -> tuple[SignedBy, int]:
    """Steps 3, 4, 8 and 9: what is about the file. Who signed it, and when it was logged."""
    target = opened.target
    # (3) The file is the target. Against swapped bytes.
    check_target(opened, artifact, target)
    steps.append(Step(3, f"sha256:{target.sha256}, {target.length} bytes", "timestamp key"))
    # (4) The entry says the same; that it is in the tree, open_bundle proved.
    entry = entry_of(opened, artifact, target)
    size, origin = opened.checkpoint.size, opened.checkpoint.origin
    steps.append(Step(4, f"entry #{target.index} of {size} in {origin}", "the log"))
    # (8) Who signed the publish, why that key counts, and whether it is one we pinned.
    signed_by = check_publisher(opened, entry, target.index)
    check_pins(artifact, signed_by, policies)
    steps.append(Step(8, signed_by.sentence, signed_by.party))
    # (9) It was listed as of `applied`. What came later is not in a bundle.
    steps.append(Step(9, f"listed as of entry {opened.timestamp.applied}", "timestamp key"))
    return signed_by, entry.time


def _decide(
    opened: OpenedBundle,
    artifact: Artifact,
    signed_by: SignedBy,
    logged_at: int,
    policies: Policies,
    *,
    steps: list[Step],
    now: int,
) -> Outcome:
    """Step 10: what policy demands of what is true."""
    findings = () if signed_by.finding is None else (signed_by.finding,)
    words = f"mode {policies.mode_for(artifact.project).word}, nothing to object"
    decisions = [(f, policies.decide(artifact.project, f.exit_code, now=now)) for f in findings]
    facts = replace(
        facts_of(opened, artifact, opened.target, now=now),
        logged_at=logged_at,
        tier="not known offline",
        pin_line=pin_line(artifact.project, signed_by),
    )
    objections = policies.objections(facts, now=now)
    for finding, decision in (*decisions, *objections):
        if decision.refused:
            return Refused(artifact, finding, decision.because)
        words = f"{finding}, let pass: {decision.because}"
    steps.append(Step(10, words, "policies"))
    yank = opened.target.yank
    return Verified(
        artifact=artifact,
        index=opened.target.index,
        leaf_hash=opened.target.leaf_hash,
        signed_by=signed_by,
        steps=tuple(sorted(steps, key=lambda step: step.number)),
        remarks=() if yank is None else (f"yanked by entry #{yank}",),
        findings=tuple(finding for finding, _ in (*decisions, *objections)),
    )


def _claims(opened: OpenedBundle, now: int) -> Claims:
    return Claims(
        origin=opened.checkpoint.origin,
        index=opened.target.index,
        size=opened.checkpoint.size,
        witnesses=tuple(sorted(opened.checkpoint.cosignatures)),
        time=opened.time,
        applied=opened.timestamp.applied,
        timestamp=opened.timestamp.version,
        yank=opened.target.yank,
        age=max(0, now - opened.time),
    )


def _keep_evidence(registry: Registry, raw: bytes, error: CountermarkError, now: int) -> None:
    if isinstance(error, EvidenceError):
        keep_bundle_evidence(registry, raw, error, trust_file=_trust_file(raw), now=now)


def _trust_file(raw: bytes) -> bytes | None:
    try:
        return Bundle.parse(raw).trust_file
    except EvidenceError:
        return None
