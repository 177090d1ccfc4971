"""Log only, offline: check files that other registries serve by their log-only bundles, without network.

    report = verify_log_bundles([(artifact, raw)], "corp", registry, now=now, max_age=86400, policies=policies)
    report.results[0].sentences
        logged by 2026-11-22T13:00:12Z: entry #31 of 40 in registry.example, seen by w1
        nothing is said of its standing: no TUF, no verdict, no later entry was read
        unknown since 2026-11-22T13:00:12Z, 35 min ago

The steps are those of logonly.py but for (6): whether the file was withdrawn, or its key revoked, nobody says here,
and the result says so. Everything else is as there: the namespace must be named, the machine's own policy
must call the log enough, nothing is `verified`. T and its age are those of offline.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from countermark.claims import keep_bundle_evidence, utc
from countermark.clientpolicy import Policies
from countermark.errors import CountermarkError, EvidenceError, StaleError, worst
from countermark.logbundle import LogBundle, OpenedLogBundle, open_log_bundle
from countermark.logged import NO_TUF, Logged, check_namespace, check_pins, decided, named, publish_of
from countermark.pins import Registry, newer_roots
from countermark.signature import check_publisher
from countermark.timeline import Timeline
from countermark.timestamp import ago
from countermark.tufjson import Root
from countermark.values import dataclass
from countermark.verified import Artifact, Refused, Step


@dataclass(frozen=True)
class LogResult:
    """One file: what came of it, and what its bundle claims, as far as it could be opened."""

    outcome: Logged | Refused
    sentences: tuple[str, ...]
    time: int | None  # T
    age: int | None  # seconds since T

    def to_json(self) -> dict[str, Any]:
        return (
            {"logged": False}
            | named(self.outcome.artifact)
            | self.outcome.to_json()
            | {"age": self.age, "claims": list(self.sentences), "unknown_since": self.time}
        )


@dataclass(frozen=True)
class LogOfflineReport:
    """What came of each file. Nothing in it is `verified`."""

    results: tuple[LogResult, ...]
    namespace: str
    registry: str
    max_age: int
    remarks: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return worst(result.outcome.exit_code for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "artifacts": [result.to_json() for result in self.results],
            "exit_code": self.exit_code,
            "log_only": True,
            "max_age": self.max_age,
            "namespace": self.namespace,
            "registry": self.registry,
            "remarks": list(self.remarks),
            "verified": False,
        }


def verify_log_bundles(
    files: Sequence[tuple[Artifact, bytes]],
    namespace: str,
    registry: Registry,
    *,
    now: int,
    max_age: int,
    policies: Policies,
    remarks: Sequence[str] = (),
) -> LogOfflineReport:
    """Check each file of the namespace by its bundle, from the pinned root."""
    check_namespace(namespace)
    timeline = Timeline.load(registry.folder / "timeline.json")
    now = max(now, timeline.newest_time)  # a clock behind what witnesses signed is wrong
    results = tuple(
        _judge(artifact, raw, registry, timeline, now=now, max_age=max_age, policies=policies)
        for artifact, raw in files
    )
    return LogOfflineReport(
        results, namespace, registry.url, max_age, (*remarks, *policies.exception_words(now))
    )


def _judge(
    artifact: Artifact,
    raw: bytes,
    registry: Registry,
    timeline: Timeline,
    *,
    now: int,
    max_age: int,
    policies: Policies,
) -> LogResult:
    sentences: tuple[str, ...] = ()
    time: int | None = None
    try:
        bundle = LogBundle.parse(raw)
        opened, head = _open(bundle, registry, timeline, now)
        sentences, time = _sentences(bundle, opened, now), opened.time
        age = max(0, now - opened.time)
        if age > max_age:
            raise StaleError(
                f"{artifact.filename}: its log-only bundle is {ago(age)} old, {ago(max_age)} are allowed",
                hint="make a new one, or allow more with --max-age",
            )
        logged = _prove(bundle, opened, artifact, policies, head=head, now=now)
        return LogResult(logged, sentences, time, age)
    except CountermarkError as error:
        if isinstance(error, EvidenceError):
            keep_bundle_evidence(registry, raw, error, trust_file=_trust_file(raw), now=now)
        refused = Refused(artifact, error, "the log is all there is to judge by")
        return LogResult(refused, sentences, time, None if time is None else max(0, now - time))


def _open(bundle: LogBundle, registry: Registry, timeline: Timeline, now: int) -> tuple[OpenedLogBundle, str]:
    """The bundle, proved from the pinned root and held against what this machine has seen."""
    root = Root.parse(registry.root)
    known = newer_roots(registry.folder / "tuf", root.version)
    opened = open_log_bundle(bundle, root, now=now, known_roots=known, followed=timeline.trust_sha256)
    timeline.check_trust_file(
        opened.trust_file.version, bundle.trust_file, seen_at=opened.checkpoint.quorum_time
    )
    floor = opened.trust_file.client_policy.min_tree_size
    timeline.check_floor(opened.checkpoint.size, bundle.checkpoint, floor=floor)
    return opened, timeline.check_head_offline(opened.checkpoint)


def _prove(
    bundle: LogBundle,
    opened: OpenedLogBundle,
    artifact: Artifact,
    policies: Policies,
    *,
    head: str,
    now: int,
) -> Logged:
    """Steps 1 to 5 and 7; what (6) would say is not in a bundle."""
    checkpoint, raw = opened.checkpoint, opened.entry(bundle.index)
    if bundle.namespace != artifact.namespace:
        raise EvidenceError(
            f"{artifact.filename}: this bundle is about namespace {bundle.namespace}, not {artifact.namespace}"
        )
    entry = publish_of(opened, artifact, bundle.index, raw, teller="its log-only bundle")
    signed_by = check_publisher(opened, entry, bundle.index)
    check_pins(artifact, signed_by, policies)
    witnesses = ", ".join(sorted(checkpoint.cosignatures)) or "nobody"
    signed = f"checkpoint {checkpoint.size} by {len(checkpoint.log_signatures)} log keys"
    steps = [
        Step(1, f"root version {opened.root.version} from the one pinned here", "TUF keys"),
        Step(2, f"{signed}, quorum reached at {opened.time} by {witnesses}", "log keys and witnesses"),
        Step(3, head, "this machine's timeline"),
        Step(4, f"entry #{bundle.index} of {checkpoint.size} in {checkpoint.origin}", "the log"),
        Step(5, signed_by.sentence, signed_by.party),
    ]
    return decided(
        opened, artifact, bundle.index, raw, signed_by, policies=policies, now=now, steps=steps, remarks=()
    )


def _trust_file(raw: bytes) -> bytes | None:
    try:
        return LogBundle.parse(raw).trust_file
    except EvidenceError:
        return None


def _sentences(bundle: LogBundle, opened: OpenedLogBundle, now: int) -> tuple[str, str, str]:
    """What is claimed, and what is not."""
    checkpoint, since = opened.checkpoint, utc(opened.time)
    seen = ", ".join(sorted(checkpoint.cosignatures)) or "nobody"
    return (
        f"logged by {since}: entry #{bundle.index} of {checkpoint.size} in {checkpoint.origin}, seen by {seen}",
        f"nothing is said of its standing: {NO_TUF}, no later entry was read",
        f"unknown since {since}, {ago(max(0, now - opened.time))} ago",
    )
