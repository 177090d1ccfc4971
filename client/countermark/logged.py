"""Logged: a file that the log alone speaks for, and what is the same about it online and in a bundle.

    entry = publish_of(proved, artifact, 31, raw, teller="the look-up of https://registry.example")
    logged = decided(proved, artifact, 31, raw, signed_by, policies=policies, steps=steps, remarks=())
    logged.to_json()["verified"]        False, always

Used by logonly.py and logoffline.py, so that both hold a file to the same and call it by the same words. A result
here is of another type than `Verified`, in Python and in JSON: no reader of the one can take it for the other.
"""

from __future__ import annotations

from typing import Any

from countermark.clientpolicy import Policies
from countermark.demanded import pin_line
from countermark.demands import Facts
from countermark.entry import Entry
from countermark.errors import CountermarkError, MalformedError, PolicyError, UsageError
from countermark.names import normalise_filename
from countermark.schema import is_namespace
from countermark.signature import Proved, SignedBy
from countermark.tlog import merkle
from countermark.values import dataclass
from countermark.verified import Artifact, Step, TamperedError

NO_TUF = "no TUF, no verdict"


@dataclass(frozen=True)
class Logged:
    """Steps 1 to 6 held: the file is its publisher's, by the log alone. `finding`: policy wants more than that."""

    artifact: Artifact
    index: int
    leaf_hash: str
    signed_by: SignedBy
    steps: tuple[Step, ...]
    remarks: tuple[str, ...]
    sentence: str
    finding: CountermarkError | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self.finding is None else self.finding.exit_code

    def to_json(self) -> dict[str, Any]:
        return {
            **named(self.artifact),
            "error": None if self.finding is None else str(self.finding),
            "exit_code": self.exit_code,
            "hint": None if self.finding is None else self.finding.hint,
            "index": self.index,
            "leaf_hash": self.leaf_hash,
            "logged": True,
            "reason": None if self.finding is None else self.finding.reason,
            "remarks": list(self.remarks),
            "signed_by": self.signed_by.to_json(),
            "steps": [{"by": s.by, "proved": s.proved, "step": s.number} for s in self.steps],
            "verified": False,
        }


def asked_namespace(log_only: bool, namespace: str | None) -> str:
    """The namespace that goes with --log-only. UsageError: one of the two is missing, or it is no namespace."""
    if not log_only or namespace is None:
        raise UsageError(
            "--log-only and --namespace NAME go together",
            hint="anybody may open a namespace and log any bytes there: say whose files these must be",
        )
    check_namespace(namespace)
    return namespace


def check_namespace(namespace: str) -> None:
    """UsageError unless it is the name of a namespace, and not the default one's."""
    if not namespace or not is_namespace(namespace):
        raise UsageError(
            f'"{namespace}" is no namespace',
            hint="files of the default one are listed: countermark verify FILE",
        )


def publish_of(view: Proved, artifact: Artifact, index: int, raw: bytes, *, teller: str) -> Entry:
    """The publish of this file; another entry is the lie of who told of it, other bytes are the file's."""
    lie = f"{artifact.filename}: {teller} names entry #{index}, which is"
    try:
        entry = Entry.parse(raw)
    except MalformedError as error:
        raise TamperedError(f"{lie} no entry: {error}", entry=raw) from None
    statement = entry.statement
    if entry.type != "publish" or statement is None:
        raise TamperedError(f"{lie} a {entry.type}", entry=raw)
    predicate = statement.predicate
    said = (predicate["namespace"], predicate["project"], normalise_filename(statement.subject_name))
    asked = (artifact.namespace, artifact.project, normalise_filename(artifact.filename))
    if said != asked or predicate["origin"] != view.checkpoint.origin:
        name = f"{predicate['namespace']}/{predicate['project']}/{statement.subject_name}"
        raise TamperedError(f"{lie} the publish of {name} in {predicate['origin']}", entry=raw)
    if statement.subject_sha256 != artifact.sha256 or artifact.length not in (None, predicate["length"]):
        raise TamperedError(
            f"{artifact.filename} is sha256:{artifact.sha256} with {artifact.length} bytes, entry #{index} of "
            f"{predicate['origin']} says sha256:{statement.subject_sha256} with {predicate['length']}",
            entry=raw,
            claimed=artifact.sha256.encode(),
        )
    return entry


def check_pins(artifact: Artifact, signed_by: SignedBy, policies: Policies) -> None:
    """A publisher signed, and a pinned one where the policy pins any. The registry's own word is not enough here."""
    if signed_by.finding is not None:
        raise signed_by.finding
    accepted = policies.log_only_for(artifact.namespace)
    for pins in (*policies.pin_sets(artifact.project), accepted.keys if accepted else frozenset[str]()):
        if pins and not signed_by.meets(pins):
            raise PolicyError(
                f"{artifact.filename} is signed by {signed_by.keyid}, which is not pinned for "
                f"{artifact.namespace}/{artifact.project}"
            )


def decided(
    view: Proved,
    artifact: Artifact,
    index: int,
    raw: bytes,
    signed_by: SignedBy,
    *,
    policies: Policies,
    now: int,
    steps: list[Step],
    remarks: tuple[str, ...],
    yank: int | None = None,
    standing_known: bool = False,
) -> Logged:
    """Step 7: what this machine's and the project's policy make of a file whose other steps held."""
    namespace, checkpoint = artifact.namespace, view.checkpoint
    facts = Facts(
        project=artifact.project,
        age=max(0, now - checkpoint.quorum_time),
        expired_for=0,
        operators=view.trust_file.policy.operators(checkpoint.cosignatures),
        clock=min(now, checkpoint.quorum_time),
        logged_at=Entry.parse(raw).time,
        tier="no verdict",
        yank=yank,
        standing_known=standing_known,
        pin_line=pin_line(artifact.project, signed_by),
    )
    accepted = policies.log_only_for(namespace)
    finding, passed = _objected(policies, facts, is_pinned=bool(accepted and accepted.keys), now=now)
    remarks += passed
    if accepted is None:
        finding = PolicyError(
            f"nothing on this machine says that the log is enough for namespace {namespace}: {NO_TUF}",
            hint=f'in policy.toml: [[log-only]] with namespace = "{namespace}"',
        )
    elif finding is None:
        steps = [*steps, Step(7, f"the log is enough for {namespace}", "this machine's policy")]
    return Logged(
        artifact=artifact,
        index=index,
        leaf_hash=merkle.leaf_hash(raw).hex(),
        signed_by=signed_by,
        steps=tuple(steps),
        remarks=remarks,
        sentence=f"in the log only, not verified: {NO_TUF}; entry #{index} of {checkpoint.size} in "
        f"{checkpoint.origin}, namespace {namespace}, {signed_by.sentence}",
        finding=finding,
    )


def _objected(
    policies: Policies, facts: Facts, *, is_pinned: bool, now: int
) -> tuple[CountermarkError | None, tuple[str, ...]]:
    """The first demand that refuses the file, and in words those that let it pass."""
    passed = []
    for error, decision in policies.objections(facts, now=now):
        if error.reason == "no-pin" and is_pinned:
            continue
        if decision.refused:
            return error, ()
        passed.append(f"{error}, let pass: {decision.because}")
    return None, tuple(passed)


def named(artifact: Artifact) -> dict[str, Any]:
    return {
        "filename": artifact.filename,
        "namespace": artifact.namespace,
        "project": artifact.project,
        "sha256": artifact.sha256,
        "source": artifact.source,
        "version": artifact.version,
    }
