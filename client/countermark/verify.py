"""Verify: is this file what its publisher published, and still good? The main path of the client.

    report = verify([Artifact.from_path(Path("dist/acme-1.0-py3-none-any.whl"))], registry, fetcher, ...)
    report.exit_code                    # 0 allowed by policy ... 7 evidence false
    report.outcomes[0].steps            # what was proved, step by step, and by whom

    (1) TUF chain and freshness         root, timestamp, snapshot, bin, from the pinned root      trust.py
    (2) bins root                       the bin's bytes are those the timestamp commits to        trust.py
    (3) target length and hash          the file is the target the index lists                    matching.py
    (4) leaf and inclusion              the target's entry is in the log, and says the same       matching.py
    (5) both log signatures             on the checkpoint the timestamp carries                   trust.py
    (6) witness quorum                  enough witnesses saw that checkpoint                      trust.py
    (7) consistency                     it extends every head this machine saw                    timeline.py
    (8) signature, enrolment, pins      who signed the publish, and why that key counts           signature.py
    (9) standing                        listed, and nothing in the entries not yet applied        unapplied.py
    (10) policy                         what the registry and this machine demand                 clientpolicy.py

Each step raises when it fails; nothing later runs for that file, and there is no result to misread. What is
true but not good enough (signed by the registry only, say) is collected as a finding, and step 10 decides.
A result is a value that says what was proved and by whom, never a bool.

Not proved here: that the publisher meant well. And a file's standing is known as of `applied`, by the word
of the timestamp key, which auditors check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from countermark.clientpolicy import Decision, Objection, Policies
from countermark.demanded import check_pins, facts_of, pin_line, refused_or_let_pass, tier_of
from countermark.disk import read_own, replace_file
from countermark.errors import (
    CountermarkError,
    EvidenceError,
    NetworkError,
    PolicyError,
    StaleError,
    UsageError,
    WithdrawnError,
)
from countermark.evidence import Evidence, EvidenceClass, kept_at, save
from countermark.fetch import Fetcher
from countermark.freshness import Level
from countermark.limits import MEMORY_MAX_BYTES, PREFETCH_FROM
from countermark.matching import check_target, entry_of
from countermark.pins import Registry
from countermark.prefetch import Tick, quiet
from countermark.signature import SignedBy, check_publisher
from countermark.tlog.policy import NONE
from countermark.trust import View, opened
from countermark.tufjson import ListedTarget
from countermark.unapplied import unapplied
from countermark.unlisted import why_unlisted
from countermark.values import dataclass, field, replace
from countermark.verified import Artifact, Outcome, Refused, Report, Step, Verified
from countermark.withdrawals import described


@dataclass
class _Progress:
    """Steps that held so far, remarks and findings of one artifact."""

    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    findings: list[CountermarkError] = field(default_factory=list)
    objections: list[Objection] = field(default_factory=list)

    def held(self, number: int, proved: str, by: str) -> None:
        self.steps.append(Step(number, proved, by))


class _AbandonError(Exception):
    """Carries a report with evidence in it out of the view, so that nothing the view learned is kept."""

    def __init__(self, report: Report) -> None:
        self.report = report


Wanted = Sequence[Artifact] | Callable[[View], Sequence[Artifact]]


def verify(
    artifacts: Wanted,
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies | None = None,
    remarks: Sequence[str] = (),
    tick: Tick = quiet,
    attestations: bool = False,
) -> Report:
    """Verify every artifact against one view of the registry. Errors of the view itself are raised.

    `artifacts` may be a function of the view, for pins that name no file. `tick` hears how far it is.
    `attestations`: tell, of what is verified, what the log says of its PEP 740 objects (attested.py).
    """
    try:
        with opened(registry, fetcher, now=now) as view:
            wanted = artifacts(view) if callable(artifacts) else artifacts
            report = verify_with(view, wanted, policies or Policies(), remarks, tick)
            if attestations:
                from countermark.attested import told  # noqa: PLC0415  (lazy: few ask)

                report = replace(report, outcomes=tuple(told(view, each) for each in report.outcomes))
            if any(isinstance(o, Refused) and o.exit_code == 7 for o in report.outcomes):
                raise _AbandonError(report)
            return report
    except _AbandonError as abandoned:
        return abandoned.report


def verify_with(
    view: View,
    artifacts: Sequence[Artifact],
    policies: Policies,
    remarks: Sequence[str] = (),
    tick: Tick = quiet,
) -> Report:
    """The same for who has opened a view."""
    if len(artifacts) >= PREFETCH_FROM:
        from countermark import lookahead  # noqa: PLC0415  (lazy: a file alone needs none of it)

        lookahead.of_files(view, artifacts, tick)
    policies = policies.with_central(view.trust_file.client_policy)
    memory = _Memory.load(view.registry.folder / "verified.txt")
    outcomes = []
    for number, artifact in enumerate(artifacts, 1):
        outcomes.append(_judge(view, artifact, policies, memory))
        tick("files", number, len(artifacts))
    freshness = view.freshness
    report = Report(
        outcomes=tuple(outcomes),
        registry=view.registry.url,
        tree_size=view.checkpoint.size,
        applied=view.timestamp.applied,
        quorum_time=view.checkpoint.quorum_time,
        freshness=freshness.level.value,
        late=freshness.late,
        remarks=(
            *remarks,
            *view.passed_over,
            *filter(None, [view.waiting]),
            *policies.exception_words(view.now),
        ),
        policy=policies.central,
        age=max(0, view.now - view.checkpoint.quorum_time),
        seen_by=tuple(sorted(view.checkpoint.cosignatures)),
    )
    if report.exit_code != EvidenceError.exit_code:  # a registry that contradicts itself teaches us nothing
        memory.save([o for o in outcomes if isinstance(o, Verified) and o.verified])
    return report


def _judge(view: View, artifact: Artifact, policies: Policies, memory: _Memory) -> Outcome:
    """Steps 1 to 9 for one artifact, then step 10."""
    progress = _Progress()
    try:
        index, leaf_hash, signed_by = _prove(view, artifact, policies, memory, progress)
    except CountermarkError as error:
        if isinstance(error, EvidenceError):
            _keep_evidence(view, artifact, error)
        return refused_or_let_pass(artifact, error, policies, now=view.now)
    # (10) What policy demands of what is true.
    decisions = [(f, policies.decide(artifact.project, f.exit_code, now=view.now)) for f in progress.findings]
    decisions += progress.objections
    for finding, decision in decisions:
        if decision.refused:
            return Refused(artifact, finding, decision.because)
    progress.held(10, _policy_words(policies, artifact, decisions), "policies")
    return Verified(
        artifact=artifact,
        index=index,
        leaf_hash=leaf_hash,
        signed_by=signed_by,
        steps=tuple(progress.steps),
        remarks=tuple(progress.remarks),
        findings=tuple(finding for finding, _ in decisions),
    )


def _prove(
    view: View, artifact: Artifact, policies: Policies, memory: _Memory, progress: _Progress
) -> tuple[int, str, SignedBy | None]:
    """Steps 1 to 9 of one artifact; raises at the first that fails."""
    freshness, checkpoint = view.freshness, view.checkpoint
    if not artifact.filename:
        raise PolicyError(
            f"no entry for {artifact.name} with sha256:{artifact.sha256} in {checkpoint.origin}",
            reason="no-entry",
        )
    # (1) The TUF chain from the pinned root, and how fresh it is: trust.py did it for the top roles, the
    #     artifact's own bin is fetched and checked now. Against freeze, rollback, mix and match.
    # (2) The bin is one the timestamp's bins root commits to. Against a bin for this client only.
    try:
        target = view.target(artifact.target)
    except NetworkError:
        _check_grace(view, known=False, progress=progress)  # in the grace period it is new, not unreachable
        raise
    pinned = f"root version {view.registry.info.version} pinned here"
    progress.held(1, f"{pinned}, timestamp {view.timestamp.version} {freshness.level.value}", "TUF keys")
    if target is None:
        raise why_unlisted(view, artifact)
    if view.online:
        root = view.timestamp.bins_root.hex()[:16]
        progress.held(2, f"bin {target.role} under the bins root {root}", "timestamp key")
    # (3) The file is the target: length and hash. Against swapped bytes and a swapped index.
    check_target(view, artifact, target)
    length = "" if artifact.length is None else f", {target.length} bytes"
    progress.held(3, f"sha256:{target.sha256}{length}", "bins key")
    known = memory.knows(target)
    if known and not view.online:
        progress.remarks.append("offline: the log was not read again, this machine verified the file before")
        if policies.pins_for(artifact.project):
            raise NetworkError(f"{artifact.filename}: offline, nobody can check whose key signed it")
        if policies.wants_entry:
            raise NetworkError(
                f"{artifact.filename}: offline, nobody can check how old it is, and its verdict"
            )
        _check_grace(view, known=True, progress=progress)
        progress.objections += policies.objections(
            facts_of(view, artifact, target, now=view.now), now=view.now
        )
        return target.index, target.leaf_hash, None
    _check_grace(view, known=known, progress=progress)
    signed_by = _prove_logged(view, artifact, target, policies, progress)
    return target.index, target.leaf_hash, signed_by


def _prove_logged(
    view: View, artifact: Artifact, target: ListedTarget, policies: Policies, progress: _Progress
) -> SignedBy:
    """Steps 4 to 9: what the log says of a file that the index lists."""
    checkpoint = view.checkpoint
    # (4) The entry the target names is in the log and says the same. Against a target nobody logged.
    entry = entry_of(view, artifact, target)
    progress.held(4, f"entry #{target.index} of {checkpoint.size} in {checkpoint.origin}", "the log")
    # (5) Both log signatures, (6) the witness quorum: open_checkpoint refused anything else (trust.py).
    progress.held(
        5, f"checkpoint {checkpoint.size} signed by {len(checkpoint.log_signatures)} log keys", "log keys"
    )
    witnesses = ", ".join(sorted(checkpoint.cosignatures))
    if view.trust_file.policy.quorum == NONE:
        progress.held(6, "no quorum is asked for: a name for tests", witnesses or "nobody")
    else:
        progress.held(6, f"quorum reached at {checkpoint.quorum_time}", witnesses)
    # (7) The head extends every head seen here before (timeline.py). Against a split view.
    progress.held(7, view.head, "this machine's timeline")
    # (8) Who signed the publish, why that key counts, and whether it is one we pinned.
    signed_by = check_publisher(view, entry, target.index)
    if signed_by.finding is not None:
        progress.findings.append(signed_by.finding)
    check_pins(artifact, signed_by, policies)
    progress.held(8, signed_by.sentence, signed_by.party)
    # (9) It stands: listed as of `applied`, and no entry since withdraws it.
    _check_standing(view, artifact, target, progress)
    facts = replace(
        facts_of(view, artifact, target, now=view.now),
        logged_at=entry.time,
        tier=tier_of(view, target.verdict) if policies.wants_tier else None,
        pin_line=pin_line(artifact.project, signed_by),
    )
    progress.objections += policies.objections(facts, now=view.now)
    return signed_by


def _check_grace(view: View, *, known: bool, progress: _Progress) -> None:
    """In the grace period only what this machine verified before may pass, with a warning."""
    if view.freshness.level is not Level.GRACE:
        return
    if not known:
        raise StaleError(
            f"the registry's metadata has expired ({view.freshness.late}), and this file is new here",
            hint="within the grace period only files verified before are installed",
        )
    progress.remarks.append(f"grace period: the registry's metadata has expired ({view.freshness.late})")


def _check_standing(view: View, artifact: Artifact, target: ListedTarget, progress: _Progress) -> None:
    """Standing as of `applied` by the timestamp key; later entries are read here and may only withdraw."""
    applied, size = view.timestamp.applied, view.checkpoint.size
    withdrawal = unapplied(view, artifact, target.index)
    if withdrawal is not None:
        raise WithdrawnError(f"{artifact.filename}: {withdrawal}, not applied by the registry yet")
    if target.yank is not None:
        yanked = described(view, artifact, target.yank) or f"yanked by entry #{target.yank}"
        progress.remarks.append(f"{yanked}: installers choose it only where it is pinned exactly")
    progress.held(9, f"listed as of entry {applied}, {size - applied} later entries read", "timestamp key")


def _keep_evidence(view: View, artifact: Artifact, error: EvidenceError) -> None:
    objects = dict(getattr(error, "objects", {})) | {"checkpoint": view.checkpoint.raw}
    evidence = Evidence(EvidenceClass.OBSERVATION, [str(error)], objects, view.registry.url)
    path = save(evidence, view.registry.folder / "evidence", time=view.now)
    error.hint = error.hint or kept_at(path)


def _policy_words(
    policies: Policies, artifact: Artifact, decisions: Sequence[tuple[CountermarkError, Decision]]
) -> str:
    if not decisions:
        return f"mode {policies.mode_for(artifact.project).word}, nothing to object"
    return "; ".join(f"{finding}, let pass: {decision.because}" for finding, decision in decisions)


@dataclass
class _Memory:
    """What this machine has verified before, one line each: leaf hash, SHA-256, target path."""

    path: Path
    lines: set[str]

    @classmethod
    def load(cls, path: Path) -> _Memory:
        try:
            raw = read_own(path, max_bytes=MEMORY_MAX_BYTES) or b""
        except UsageError:
            raw = b""  # outgrown; who forgets must verify anew, also in a grace period
        return cls(path, set(raw.decode("utf-8", "replace").splitlines()))

    def knows(self, target: ListedTarget) -> bool:
        return f"{target.leaf_hash} {target.sha256} {target.path}" in self.lines

    def save(self, verified: Sequence[Verified]) -> None:
        new = {f"{v.leaf_hash} {v.artifact.sha256} {v.artifact.target}" for v in verified} - self.lines
        if new:
            self.lines |= new
            replace_file(self.path, "".join(f"{line}\n" for line in sorted(self.lines)).encode())
