"""Log only: is this file what its publisher put into the log? For registries that serve their files themselves.

    report = verify_log_only([artifact], "corp", registry, fetcher, now=now, policies=policies)
    report.outcomes[0].sentence
        in the log only, not verified: no TUF, no verdict; entry #31 of 40 in ..., signed by key 40c3...

What such a registry hands in is a signed statement, no bytes: no scanner looked, no TUF metadata lists the file,
and nothing withdraws it but entries of the same log. So this is less than `verify`, by other steps, and never a way
around it: it is asked for by name, with the namespace that the file must be in (anybody may open another one, and
log any bytes there), and never for files of the default namespace. Nothing here is `verified`.

    (1) trust           root, timestamp and trust file from the pinned root: the log's keys, the witnesses   trust.py
    (2) head            the log's newest checkpoint, by every log key and the quorum, at most a day old      trust.py
    (3) consistency     it extends what the timestamp carries, and every head this machine saw            timeline.py
    (4) entry           the look-up tells where; the entry there is in the log and says the same of the file
    (5) signature       who signed, under which enrolments, and pins                                      signature.py
    (6) history         every entry about the namespace, by the rules: the name is this entry's, the key was good,
                        nothing withdraws the file                                                      namespaces.py
    (7) policy          that the log is enough for this namespace, this machine's own policy says     clientpolicy.py

A step that fails ends in the error whose party is at fault: the look-up where it names another entry, the log where
it holds what it should not, the file where its bytes are others, the owner or a moderator who withdrew it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from countermark import rules
from countermark.clientpolicy import Policies
from countermark.disk import safe_name
from countermark.errors import (
    CountermarkError,
    EvidenceError,
    MalformedError,
    PolicyError,
    StaleError,
    WithdrawnError,
    worst,
)
from countermark.evidence import Evidence, EvidenceClass, kept_at, save
from countermark.fetch import Fetcher, decode_json
from countermark.freshness import Level
from countermark.limits import FETCH_MAX_BYTES, HEAD_MAX_AGE
from countermark.logged import Logged, check_namespace, check_pins, decided, named, publish_of
from countermark.logreader import LogReader
from countermark.namespaces import Namespace, read_namespace
from countermark.pins import Registry
from countermark.rules_approve import waiting
from countermark.rules_state import approved, compromised_by
from countermark.signature import check_publisher
from countermark.tlog.policy import NONE
from countermark.trust import View, opened
from countermark.values import dataclass
from countermark.verified import Artifact, Refused, Step, TamperedError
from countermark.withdrawals import described


@dataclass(frozen=True)
class LogOnlyReport:
    """What came of each file, and at which head of the log. Nothing in it is `verified`."""

    outcomes: tuple[Logged | Refused, ...]
    namespace: str
    registry: str
    tree_size: int
    quorum_time: int
    remarks: tuple[str, ...]
    age: int  # seconds since the quorum saw this head
    seen_by: tuple[str, ...]  # the witnesses that say so

    @property
    def exit_code(self) -> int:
        return worst(outcome.exit_code for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        refused = {"logged": False}
        return {
            "age": self.age,
            "artifacts": [refused | named(o.artifact) | o.to_json() for o in self.outcomes],
            "exit_code": self.exit_code,
            "log_only": True,
            "namespace": self.namespace,
            "quorum_time": self.quorum_time,
            "registry": self.registry,
            "remarks": list(self.remarks),
            "seen_by": list(self.seen_by),
            "tree_size": self.tree_size,
            "verified": False,
        }


class _AbandonError(Exception):
    """Carries a report with evidence in it out of the view, so that nothing the view learned is kept."""

    def __init__(self, report: LogOnlyReport) -> None:
        self.report = report


def verify_log_only(
    artifacts: Sequence[Artifact],
    namespace: str,
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str] = (),
) -> LogOnlyReport:
    """Check files of one namespace against the log alone. Errors of the log or of trust itself are raised."""
    check_namespace(namespace)
    memory = memory_of(registry, namespace)
    try:
        with opened(registry, fetcher, now=now) as view:
            head, history = newest(view, namespace)
            outcomes = tuple(_judge(head, history, artifact, policies) for artifact in artifacts)
            report = LogOnlyReport(
                outcomes,
                namespace,
                registry.url,
                head.checkpoint.size,
                head.checkpoint.quorum_time,
                (*remarks, *view.passed_over, *policies.exception_words(view.now)),
                max(0, view.now - head.checkpoint.quorum_time),
                tuple(sorted(head.checkpoint.cosignatures)),
            )
            if any(outcome.exit_code == EvidenceError.exit_code for outcome in outcomes):
                raise _AbandonError(report)
            history.save(memory, head.checkpoint.root_hash)
            return report
    except _AbandonError as abandoned:
        return abandoned.report


def memory_of(registry: Registry, namespace: str) -> Path:
    """Where this machine keeps how far it has read a namespace."""
    return registry.folder / "namespaces" / safe_name(f"{namespace}.json")


def newest(view: View, namespace: str) -> tuple[View, Namespace]:
    """Steps 1 to 3: the view at the log's newest head, young enough to judge by, and the namespace there."""
    if view.freshness.level is Level.GRACE:
        raise StaleError(
            f"the registry's metadata has expired ({view.freshness.late}): who its log is, is unknown"
        )
    head = view.at_newest_head()
    age = head.now - head.checkpoint.quorum_time
    if head.trust_file.policy.quorum != NONE and age > HEAD_MAX_AGE.total_seconds():
        raise StaleError(
            f"the newest head of {head.checkpoint.origin} was seen by its quorum {age // 3600} h ago, "
            "so what came since is unknown",
            hint="its witnesses cosign an idle log every hour: ask the operator",
        )

    def reader() -> LogReader:
        return LogReader(head.registry.log_url, head.checkpoint, head.fetcher)

    memory = memory_of(head.registry, namespace)
    history = read_namespace(namespace, reader, head.trust_file, head=head.checkpoint, memory=memory)
    return head, history


def _judge(head: View, history: Namespace, artifact: Artifact, policies: Policies) -> Logged | Refused:
    try:
        logged = prove(head, history, artifact, policies)
    except CountermarkError as error:
        if isinstance(error, EvidenceError):
            _keep_evidence(head, error)
        return Refused(artifact, error, "the log is all there is to judge by")
    return logged


def prove(head: View, history: Namespace, artifact: Artifact, policies: Policies) -> Logged:
    """Steps 4 to 7 of one file; raises at the first that fails."""
    checkpoint, steps = head.checkpoint, _steps(head)
    # (4) The look-up says where; what stands there must be the publish of this very file.
    index = _where(head, history, artifact)
    raw = head.log.entry(index)
    entry = publish_of(head, artifact, index, raw, teller=f"the look-up of {head.registry.url}")
    steps.append(Step(4, f"entry #{index} of {checkpoint.size} in {checkpoint.origin}", "the log"))
    # (6) first, what the log should not hold: its signature says nothing. Against a publish behind the rules' back.
    if index in history.broken:
        raise TamperedError(
            f"{artifact.filename}: entry #{index} should not be in {checkpoint.origin}: {history.broken[index]}",
            entry=raw,
        )
    # (5) Who signed, why that key counts, and whether it is one pinned here.
    signed_by = check_publisher(head, entry, index)
    check_pins(artifact, signed_by, policies)
    steps.append(Step(5, signed_by.sentence, signed_by.party))
    # (6) The name is this entry's, and no entry since withdraws it. Against a held file, a key found compromised.
    yank, remarks = _check_standing(head, history, artifact, index)
    steps.append(Step(6, f"all {checkpoint.size} entries read for namespace {artifact.namespace}", "the log"))
    # (7) Whether that is enough, only this machine can say.
    return decided(
        head, artifact, index, raw, signed_by, policies=policies, now=head.now, steps=steps, remarks=remarks,
        yank=yank, standing_known=True,
    )  # fmt: skip


def _steps(head: View) -> list[Step]:
    checkpoint = head.checkpoint
    witnesses = ", ".join(sorted(checkpoint.cosignatures)) or "nobody"
    trusted = f"root version {head.registry.info.version} pinned here, trust file {head.trust_file.version}"
    signed = f"checkpoint {checkpoint.size} by {len(checkpoint.log_signatures)} log keys"
    return [
        Step(1, trusted, "TUF keys"),
        Step(
            2,
            f"{signed}, quorum reached at {checkpoint.quorum_time} by {witnesses}",
            "log keys and witnesses",
        ),
        Step(3, head.head, "this machine's timeline"),
    ]


def _where(head: View, history: Namespace, artifact: Artifact) -> int:
    """The index that the registry's look-up names. It is believed in nothing: the log is read next to it."""
    name, origin = f"{artifact.namespace}/{artifact.project}/{artifact.filename}", head.checkpoint.origin
    words = (artifact.namespace, artifact.project, artifact.filename)
    url = f"{head.registry.url}/api/v1/logged/" + "/".join(quote(word, safe="") for word in words)
    known = history.view.get(rules.file_key(*words))
    answer = head.fetcher.get(url, max_bytes=FETCH_MAX_BYTES, missing_ok=True)
    if answer is None:
        if known is not None:
            raise TamperedError(
                f"the look-up {url} knows no such file, entry #{known['index']} of {origin} is it"
            )
        raise PolicyError(f"no entry for {name} among the {history.size} of {origin}")
    try:
        document = decode_json(answer)
        index = document["index"] if isinstance(document, dict) else None
    except (ValueError, KeyError):
        index = None
    if type(index) is not int or index < 0:
        raise MalformedError(f"the look-up {url} names no entry")
    if index >= head.checkpoint.size:
        raise TamperedError(
            f"the look-up {url} names entry #{index}, {origin} has {head.checkpoint.size}", answer=answer
        )
    return index


def _check_standing(
    head: View, history: Namespace, artifact: Artifact, index: int
) -> tuple[int | None, tuple[str, ...]]:
    """The file's standing by the rules, after every entry up to the head: what yanked it, and that in words."""
    key = rules.file_key(artifact.namespace, artifact.project, artifact.filename)
    file, standing = history.view.get(key), rules.standing_of(history.view, key)
    if file is None or file["index"] != index:
        raise TamperedError(f"{artifact.filename}: entry #{index} is not what the rules make of this name")
    if standing in ("ok", "yanked") and not approved(history.view, file):
        waits = waiting(history.view, artifact.namespace, artifact.project, file["version"], head.now)
        raise PolicyError(f"{artifact.filename}, entry #{index}, is not approved: {waits or 'nobody has'}")
    if standing in ("ok", "yanked"):
        yank = file["yank"]
        if yank is None:
            return None, ()
        return yank, (described(head, artifact, yank) or f"yanked by entry #{yank}",)
    project, namespace = rules.holders(history.view, artifact.namespace, artifact.project)
    assert project is not None  # a publish makes its project
    causes = (file["takedown"], file["removed"], file["hold"], compromised_by(file, project, namespace))
    by = next((cause for cause in causes if cause is not None), None)
    words = described(head, artifact, by) or f"by entry #{by}"
    raise WithdrawnError(f"{artifact.filename}, entry #{index}, is {standing}: {words}")


def _keep_evidence(head: View, error: EvidenceError) -> None:
    objects = dict(getattr(error, "objects", {})) | {"checkpoint": head.checkpoint.raw}
    evidence = Evidence(EvidenceClass.OBSERVATION, [str(error)], objects, head.registry.url)
    path = save(evidence, head.registry.folder / "evidence", time=head.now)
    error.hint = error.hint or kept_at(path)
