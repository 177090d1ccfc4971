"""Demanded: what policy's pins and demands are held against, online and from a bundle. Step 8's end, and step 10.

    check_pins(artifact, signed_by, policies)                       # a pinned key signed, or vouches for who did
    facts = facts_of(proved, artifact, target, now=now)             # ages, witnesses, yank: for demands.py
    refused_or_let_pass(artifact, error, policies, now=now)         # a file of which something is not proved

verify.py and offline.py use the same functions, so that a bundle is held to what the registry is held to.
"""

from __future__ import annotations

from countermark.clientpolicy import Policies
from countermark.demands import Facts
from countermark.entry import Entry
from countermark.errors import CountermarkError, PolicyError
from countermark.identities import form_of
from countermark.limits import TIMESTAMP_LIFETIME
from countermark.matching import Listing
from countermark.signature import Proved, SignedBy
from countermark.tufjson import ListedTarget
from countermark.verified import Artifact, LetPass, Refused


def check_pins(artifact: Artifact, signed_by: SignedBy, policies: Policies) -> None:
    """Each file that pins the project, and the lock, must find one of its keys among those that signed or vouch."""
    for pins in policies.pin_sets(artifact.project):
        if not signed_by.meets(pins):
            raise PolicyError(
                f"{artifact.filename} is signed by {signed_by.keyid or 'nobody'}, "
                f"which is not pinned for {artifact.project}",
                hint=f"countermark pin update {artifact.project}, which says what connects the two, if anything",
                reason="other-signer",
            )


def pin_line(project: str, signed_by: SignedBy) -> str:
    """What pins this signer, on one line of the table `pins`; empty where no publisher signed."""
    if signed_by.party != "publisher":
        return ""
    signer = signed_by.keyid if signed_by.identity is None else form_of(signed_by.identity)
    return f'{project} = ["{signer}"]'


def facts_of(proved: Listing, artifact: Artifact, target: ListedTarget, *, now: int) -> Facts:
    """What a view or a bundle says of a listed file, but for what stands in its entries."""
    expires, seen = proved.timestamp.expires, proved.checkpoint.quorum_time
    signed_at = expires - int(TIMESTAMP_LIFETIME.total_seconds())
    return Facts(
        project=artifact.project,
        age=max(0, now - min(seen, signed_at)),
        expired_for=max(0, now - expires),
        operators=proved.trust_file.policy.operators(proved.checkpoint.cosignatures),
        clock=min(now, seen),
        yank=target.yank,
    )


def tier_of(proved: Proved, verdict: int | None) -> str:
    """What lists a file, by the entry that its target names: the tier of a verdict, or `clear` by a moderator."""
    if verdict is None:
        return "no verdict"
    entry = Entry.parse(proved.log.entry(verdict))
    if entry.type == "verdict" and entry.statement is not None:
        return str(entry.statement.predicate["tier"])
    return entry.type


def refused_or_let_pass(
    artifact: Artifact, error: CountermarkError, policies: Policies, *, now: int
) -> Refused | LetPass:
    """A file of which something is not proved: refused, unless policy minds neither that nor its name."""
    decision = policies.decide(artifact.project, error.exit_code, now=now)
    if not decision.refused:  # a file that is let pass here is let pass unsigned
        decision = policies.decide_pins(artifact.project, now=now) or decision
    if decision.refused:
        return Refused(artifact, error, decision.because)
    for objection, stricter in policies.objections_to_name(artifact.project, now=now):
        if stricter.refused:
            return Refused(artifact, objection, stricter.because)
    return LetPass(artifact, error, decision.because)
