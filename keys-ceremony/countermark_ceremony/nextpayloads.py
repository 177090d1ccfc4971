"""What a later ceremony signs: successors of the metadata in force, changed only where the plan says so.

    3.trust.json    lists the trust file in force from now on
    2.index.json    the delegation to the bins; to another key, or to more of them, where the plan says so
    2.targets.json  delegates to trust and index, with the plan's keys where those roles are renewed
    2.root.json     signed by the threshold of root 1 *and* by its own; names the digest of the transcript

Each successor starts as a copy of what it follows, so whatever the plan is silent about can't change by
accident. A ceremony that renews the role trust alone has no root: then trust names the transcript's digest.
"""

from __future__ import annotations

import copy
from typing import Any

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Role, Root, Targets
from tuf.api.serialization.json import CanonicalJSONSerializer

from countermark.trustfile import TARGET_PATH
from countermark_ceremony import onlineroles
from countermark_ceremony.handover import tuf_key
from countermark_ceremony.nextplan import NextPlan
from countermark_ceremony.payloads import Document, Payloads, Quorum, trust_target
from countermark_ceremony.tables import OFFLINE_ROLES

CEREMONY = "x-countermark-ceremony"


def build_next(plan: NextPlan, transcript_sha256: str) -> Payloads:
    """Everything that is signed in a later ceremony, the one that names the transcript first."""
    inner = build_next_inner(plan)
    top = _top(plan, transcript_sha256)
    return Payloads((top, *inner.documents), inner.trust_file)


def build_next_inner(plan: NextPlan) -> Payloads:
    """Everything but the document that names the transcript."""
    top = top_role(plan)
    documents = [
        _document(plan, role, _successor(plan, role)) for role in OFFLINE_ROLES if role in plan.roles
    ]
    named = tuple(each for each in documents if not each.name.endswith(f".{top}.json"))
    return Payloads(named, plan.trust_file)


def top_role(plan: NextPlan) -> str:
    """Whose metadata names the transcript: root, or trust where it is renewed alone."""
    return "root" if "root" in plan.roles else "trust"


def previous_payloads(plan: NextPlan) -> dict[str, bytes]:
    """By document name: the signed part of what it follows."""
    return {
        f"{plan.previous.metadata[role].signed.version + 1}.{role}.json": plan.previous.metadata[
            role
        ].signed_bytes
        for role in plan.roles
    }


def _top(plan: NextPlan, transcript_sha256: str) -> Document:
    role = top_role(plan)
    signed = _successor(plan, role)
    signed.unrecognized_fields[CEREMONY] = {"transcript_sha256": transcript_sha256}
    return _document(plan, role, signed)


def _successor(plan: NextPlan, role: str) -> Any:
    """A copy of what is in force, one version on."""
    signed = copy.deepcopy(plan.previous.metadata[role].signed)
    signed.version += 1
    signed.expires = plan.expires(role)
    signed.unrecognized_fields.pop(CEREMONY, None)
    if isinstance(signed, Root):
        _renew_root(plan, signed)
    elif role == "targets":
        _renew_targets(plan, signed)
    elif role == "index":
        onlineroles.renew_index(plan.online, signed)
    elif role == "trust":
        signed.targets = {TARGET_PATH: trust_target(plan.trust_file.format())}
    return signed


def _renew_root(plan: NextPlan, root: Root) -> None:
    for role in ("root", "targets"):
        if role in plan.roles:
            _set_keys(plan, role, root.roles[role], root.keys)
    onlineroles.renew_root(plan.online, root)
    used = {keyid for role in root.roles.values() for keyid in role.keyids}
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}
    root.unrecognized_fields["x-countermark-trust"] = list(plan.accepted)


def _renew_targets(plan: NextPlan, targets: Targets) -> None:
    delegations = targets.delegations
    assert delegations is not None and delegations.roles is not None  # it was verified
    for role in ("trust", "index"):
        if role in plan.roles:
            _set_keys(plan, role, delegations.roles[role], delegations.keys)
    used = {keyid for role in delegations.roles.values() for keyid in role.keyids}
    delegations.keys = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}


def _set_keys(plan: NextPlan, name: str, role: Role, keys: dict[str, Any]) -> None:
    named: list[SSlibKey] = [tuf_key(key.public_key) for key in plan.roles[name].keys]
    role.keyids, role.threshold = [key.keyid for key in named], plan.roles[name].threshold
    keys |= {key.keyid: key for key in named}


def _document(plan: NextPlan, role: str, signed: Root | Targets) -> Document:
    quorums = []
    if role == "root":
        old, _ = plan.previous.role("root")
        quorums.append(Quorum(f"root {plan.previous.root.version}", plan.old_root_keys(), old.threshold))
    chosen = plan.roles[role]
    quorums.append(Quorum(f"{role} {signed.version}", chosen.keys, chosen.threshold))
    payload = CanonicalJSONSerializer().serialize(signed)
    return Document(f"{signed.version}.{role}.json", payload, tuple(quorums))
