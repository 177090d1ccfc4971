"""Rules about keys and owners: key-enroll, key-revoke, owner.

Entries about a project (or namespace) itself form one chain per holder; `prev` of the first is null. Entries
about role keys form one chain in ("role", "authority"), in which the first enrolment of each role has prev
null: the ceremony signs these three before the log exists.

How a publisher's key comes in:

    first      the project never had one: the new key signs alone, interactive sign-in is what the registry
               vouches for (`authorised_by: registry`). Works at once, shown as "unchained, first seen".
    rotation   k enrolled keys sign with the new one; `authorised_by` is the enrolment index of one of them.
    recovery   keys exist but none signs (`authorised_by: registry`): takes effect after seven days.
               In these a key that was valid when it was logged can veto. A veto freezes the project
               for both sides until two moderators decide, once: `confirm` (the recovered key replaces the
               old ones) or `reject`.

The threshold k is set by each enrolment and never falls by a revocation. Revoking is fail-safe and takes one
key; everything that adds power takes k. A key the registry revoked can still veto: otherwise revoke and
recover would be the registry's way around the owner. A revoked key does not come back.
`compromised_since` = N holds what the key published at index N or later.
"""

from __future__ import annotations

import base64
from typing import Final

from countermark.limits import KEYS_MAX, OWNERS_MAX, RECOVERY_WAIT
from countermark.rules_ci import check_revocable, enroll_one_run
from countermark.rules_state import AUTHORITY, Key, State, holder_key, new_holder, recovered
from countermark.rules_step import (
    MODERATION,
    REGISTRY,
    Party,
    Step,
    approvals_of,
    check_actor,
    check_approvers,
    check_count,
    is_keyed,
    is_signed,
    owners_of,
    refuse,
)
from countermark.schema import ROLE_SCOPES
from countermark.statement import keyid_of

_WAIT: Final = int(RECOVERY_WAIT.total_seconds())


def key_enroll(step: Step) -> None:
    scope, keyid = step.predicate["scope"], keyid_of(base64.b64decode(step.predicate["key"]))
    if scope == "ci":
        enroll_one_run(step)
        return
    if step.registry["identity"] is not None:
        refuse("identity-mismatch", f"a person enrols a key of scope {scope}, no machine", "log")
    if scope in ROLE_SCOPES:
        _enroll_role(step, keyid)
    else:
        _enroll_publisher(step, keyid)


def key_revoke(step: Step) -> None:
    if step.project or step.namespace:
        _revoke_publisher(step, step.predicate["keyid"])
    else:
        _revoke_role(step, step.predicate["keyid"])


# --- role keys: the authority key signs -----------------------------------------------------------------
def _authority(step: Step, *others: Party) -> State:
    """The authority's state, once it and `others`, nobody else, have signed."""
    authority = step.read(AUTHORITY)
    assert authority is not None  # genesis made it
    wanted = {authority["keyid"], *(party.keyid for party in others)}
    if set(step.keyids) != wanted:
        refuse(
            "not-authorised",
            f"a role key takes the signatures of {sorted(wanted)}, not {sorted(step.keyids)}",
        )
    step.verify([Party(authority["keyid"], authority["spki"], "authority"), *others])
    return authority


def _enroll_role(step: Step, keyid: str) -> None:
    authority = _authority(step, _new_key(step, keyid))
    if (step.registry["authorised_by"], step.registry["account"]) != ("authority", None):
        refuse("authorised-by", "a role key is authorised by the authority and has no account", "log")
    if step.read(("key", keyid)) is not None:
        refuse("key-taken", f"key {keyid} is enrolled already")
    scope = step.predicate["scope"]
    role = step.read(("role", scope))
    # A role's first key is enrolled in the ceremony, before the log has a leaf that prev could name.
    step.check_prev(None if role is None else authority["head"])
    role = role or {"keys": {}}
    item = {
        "index": step.index,
        "revoked": None,
        "spki": step.predicate["key"],
        "until": _until(step, step.time),
    }
    step.write(("role", scope), {"keys": {**role["keys"], keyid: item}})
    step.write(("key", keyid), {"account": None, "compromised": None, "scope": scope})
    step.write(AUTHORITY, {**authority, "head": step.leaf_hash})


def _revoke_role(step: Step, keyid: str) -> None:
    authority = _authority(step)
    step.check_prev(authority["head"])
    for scope in sorted(ROLE_SCOPES):
        role = step.read(("role", scope))
        item = None if role is None else role["keys"].get(keyid)
        if role is None or item is None:
            continue
        if item["revoked"] is not None:
            refuse("key-revoked", f"key {keyid} was revoked by entry {item['revoked']}")
        step.write(("role", scope), {"keys": {**role["keys"], keyid: {**item, "revoked": step.index}}})
        step.write(AUTHORITY, {**authority, "head": step.leaf_hash})
        return
    refuse("key-unknown", f"key {keyid} has no role")


# --- publishers' keys -----------------------------------------------------------------------------------
def _enroll_publisher(step: Step, keyid: str) -> None:
    project, namespace = _holders(step)
    step.check_not_frozen(project, namespace)
    holder = project if step.project else namespace
    if step.project and step.namespace and namespace is None:
        refuse("namespace-unknown", f"nobody has enrolled a key for namespace {step.namespace!r}")
    signers = _check_authorised(step, keyid, project, namespace)
    step.verify([_new_key(step, keyid), *signers])
    step.check_prev(None if holder is None else holder["head"])
    account = step.registry["account"]
    role = None if signers else "owner"  # a maintainer's key comes in by an enrolled key only
    if account is None or ((holder or namespace) and account not in owners_of(project, namespace, role=role)):
        refuse(
            "not-an-owner",
            f"account {account} may not enrol a key for {step.project or step.namespace!r}",
            "log",
        )
    holder = holder or new_holder({account: "owner"})
    _check_new_key(step, keyid, holder)
    recovery = not signers and is_keyed(project, namespace)
    _check_threshold(step, holder, recovery=recovery)
    _write_enrolment(step, keyid, holder, recovery=recovery)


def _check_authorised(step: Step, keyid: str, project: State | None, namespace: State | None) -> list[Party]:
    """The enrolled keys that sign beside the new one: k of them, or none where the registry vouches."""
    by, others = step.registry["authorised_by"], [other for other in step.keyids if other != keyid]
    if len(others) == len(step.keyids):
        refuse("not-authorised", f"the new key {keyid} has not signed its own enrolment")
    if by == "registry":
        if others:
            refuse(
                "authorised-by", f"entry says the registry vouches, but keys {others} signed as well", "log"
            )
        return []
    signers = [step.find_signer(other, owner=True) for other in others]
    if by not in [signer.index for signer in signers]:
        refuse("authorised-by", f"entry names enrolment {by}, not one of the keys that signed", "log")
    check_count(signers, project, namespace)
    return signers


def _check_new_key(step: Step, keyid: str, holder: State) -> None:
    """A key belongs to one account; a revoked one does not come back; an expired one may."""
    account, known = step.registry["account"], step.read(("key", keyid))
    if known is not None and known["scope"] == "ci":
        refuse("key-taken", f"key {keyid} was made for one run of a job, and never comes back")
    if known is not None and (known["account"] != account or known["compromised"] is not None):
        if known["compromised"] is not None:
            refuse("key-revoked", f"key {keyid} was compromised, by entry {known['compromised']}")
        refuse("key-taken", f"key {keyid} is enrolled in the name of another account or role")
    enrolment = step.read(_enrolment_key(step, keyid))
    if enrolment is not None and enrolment["revoked"] is not None:
        refuse("key-revoked", f"key {keyid} was revoked by entry {enrolment['revoked']}")
    item = holder["keys"].get(keyid)
    if item is not None and (item["until"] is None or step.time < item["until"]):
        refuse("key-exists", f"key {keyid} is enrolled by entry {item['index']}")
    if item is None and len(holder["keys"]) + len(holder["compromised"]) >= KEYS_MAX:
        refuse(
            "too-many-keys", f"{step.project or step.namespace!r} has {KEYS_MAX} keys: revoke old ones first"
        )


def _check_threshold(step: Step, holder: State, *, recovery: bool) -> None:
    if recovery:
        if holder["recovery"] is not None:
            refuse("recovery-pending", f"recovery by entry {holder['recovery']['index']} is not settled yet")
        usable = 1
    else:
        untils = [item["until"] for item in holder["keys"].values()]
        usable = 1 + sum(until is None or step.time < until for until in untils)
    if step.predicate["threshold"] > usable:
        refuse(
            "threshold",
            f"threshold {step.predicate['threshold']} is more than the {usable} keys there would be",
        )


def _write_enrolment(step: Step, keyid: str, holder: State, *, recovery: bool) -> None:
    key, account, scope = _enrolment_key(step, keyid), step.registry["account"], step.predicate["scope"]
    effect = step.time + _WAIT if recovery else step.time
    chained = step.registry["authorised_by"] != "registry"
    item = {
        "account": account,
        "chained": chained,
        "index": step.index,
        "scope": scope,
        "until": _until(step, effect),
    }
    old = step.read(key)
    enrolment = {
        **item,
        "newest": None if old is None else old["newest"],
        "revoked": None,
        "revoked_by": None,
        "spki": step.predicate["key"],
    }
    changed = {**holder, "head": step.leaf_hash}
    if recovery:
        changed["recovery"] = {
            "account": account,
            "index": step.index,
            "key": item,
            "keyid": keyid,
            "time": step.time,
            "until": effect,
        }
    else:
        changed |= {
            "keyed": True,
            "keys": {**holder["keys"], keyid: item},
            "signed": True,
            "threshold": step.predicate["threshold"],
        }
    step.write(key, enrolment)
    step.write(("key", keyid), {"account": account, "compromised": None, "scope": scope})
    step.write(holder_key(step.namespace, step.project), changed)


def _revoke_publisher(step: Step, keyid: str) -> None:
    party = step.one_signer(roles=[REGISTRY], owner=True)
    project, namespace = _holders(step)
    holder = _known_holder(step, project, namespace)
    step.check_prev(holder["head"])
    step.check_not_frozen(project, namespace)
    if party.role is None or step.registry["actor"] is not None:
        check_actor(step, step.registry["actor"], project, namespace)
    key = _enrolment_key(step, keyid)
    enrolment = step.read(key)
    if enrolment is not None and enrolment["revoked"] is not None:
        refuse("key-revoked", f"key {keyid} was revoked by entry {enrolment['revoked']}")
    one_run = check_revocable(step, keyid, enrolment, holder)
    if enrolment is None or (keyid not in holder["keys"] and not one_run):
        refuse("key-unknown", f"key {keyid} is not enrolled for {step.project or step.namespace!r}")
    changed = {
        **holder,
        "head": step.leaf_hash,
        "keys": {other: item for other, item in holder["keys"].items() if other != keyid},
    }
    if (since := step.predicate["compromised_since"]) is not None:
        if since > step.index:
            refuse("since-ahead", f"compromised since {since}, but this entry is {step.index}")
        changed["compromised"] = {**holder["compromised"], keyid: {"index": step.index, "since": since}}
        step.compromised = ((key, since),)
    if step.predicate["reason"] == "compromised":
        known = step.read(("key", keyid))
        assert known is not None  # its enrolment made it
        step.write(("key", keyid), {**known, "compromised": step.index})
    step.write(key, {**enrolment, "revoked": step.index, "revoked_by": party.role or "owner"})
    step.write(holder_key(step.namespace, step.project), changed)


# --- owners ---------------------------------------------------------------------------------------------
def owner(step: Step) -> None:
    project, namespace = _holders(step)
    holder = _known_holder(step, project, namespace)
    action = step.predicate["action"]
    if action == "decide":
        changed = _decide(step, holder, owners_of(project, namespace))
    elif action == "veto":
        changed = _veto(step, holder, namespace)
    else:
        _check_owner_signed(step, project, namespace)
        changed = _signing_off(holder) if action == "signing-off" else _change_owners(step, holder)
        check_approvers(step, changed if step.project else project, namespace if step.project else changed)
    if step.registry["second"] is not None and action != "decide":
        refuse("two-moderators", "only a decision has a second moderator", "log")
    step.check_prev(holder["head"])
    step.write(holder_key(step.namespace, step.project), {**changed, "head": step.leaf_hash})


def _check_owner_signed(step: Step, project: State | None, namespace: State | None) -> None:
    """k enrolled keys, or the registry for a project that doesn't sign; never the registry to end signing."""
    step.check_not_frozen(project, namespace)
    signers = [step.find_signer(keyid, roles=[REGISTRY], owner=True) for keyid in step.keyids]
    step.verify(signers)
    by_registry = any(signer.role is not None for signer in signers)
    if by_registry and (is_signed(project, namespace) or step.predicate["action"] == "signing-off"):
        refuse("signature-required", f"{step.project or step.namespace!r} signs: its own keys must sign this")
    if by_registry and len(signers) > 1:
        refuse("not-authorised", f"{len(signers)} keys signed, the registry's signs alone")
    if by_registry and approvals_of(project, namespace):
        refuse("signature-required", f"{step.project!r} requires approvals: its own keys must sign this")
    if not by_registry:
        check_count(signers, project, namespace)
    if by_registry and not owners_of(project, namespace) and _gives_first_owner(step):
        return
    check_actor(step, step.registry["actor"], project, namespace, role="owner")


def _gives_first_owner(step: Step) -> bool:
    """An import made this project and nobody owns it: the registry says whose it is, on nobody's behalf."""
    said = (step.predicate["action"], step.predicate["role"], step.registry["actor"])
    return said == ("add", "owner", None)


def _change_owners(step: Step, holder: State) -> State:
    action, account, owners = step.predicate["action"], step.predicate["account"], dict(holder["owners"])
    if action == "add":
        if owners.get(account) == step.predicate["role"]:
            refuse("owner-exists", f"account {account} is {owners[account]} already")
        owners[account] = step.predicate["role"]
    elif action == "remove":
        if account not in owners:
            refuse("owner-unknown", f"account {account} is no owner of {step.project or step.namespace!r}")
        del owners[account]
    else:
        if owners == {account: "owner"}:
            refuse("owner-exists", f"account {account} is the only owner already")
        owners = {account: "owner"}
    if "owner" not in owners.values():
        refuse("last-owner", f"{step.project or step.namespace!r} would be without an owner")
    if len(owners) > OWNERS_MAX:
        refuse("too-many-owners", f"{step.project or step.namespace!r} has {OWNERS_MAX} owners")
    return {**holder, "owners": owners}


def _signing_off(holder: State) -> State:
    if not holder["signed"]:
        refuse("not-signing", "the project does not sign")
    return {**holder, "signed": False}


def _veto(step: Step, holder: State, namespace: State | None) -> State:
    """A key that was valid when the recovery was logged stops it, whoever has revoked it but an owner."""
    recovery = holder["recovery"]
    if recovery is None or holder["frozen"] is not None:
        refuse("no-recovery", f"no recovery of {step.project or step.namespace!r} is waiting")
    if len(step.keyids) != 1:
        refuse("signature-count", f"a veto has one signature, not {len(step.keyids)}")
    keyid = step.keyids[0]
    places = [(holder, step.project)] + ([(namespace, "")] if namespace is not None and step.project else [])
    reasons = []
    for where, project in places:
        enrolment = step.read(("enrolment", step.namespace, project, keyid))
        reason = _why_no_veto(enrolment, recovery, keyid, listed=keyid in where["keys"])
        if enrolment is not None and reason is None:
            step.verify([Party(keyid, enrolment["spki"], None)])
            return {**holder, "frozen": step.index}
        reasons += [reason] if reason is not None else []
    refuse(*max(reasons, key=lambda reason: reason[0] != "key-unknown"))


def _why_no_veto(
    enrolment: State | None, recovery: State, keyid: str, *, listed: bool
) -> tuple[str, str] | None:
    """Why a key enrolled in one place may not veto a recovery; None when it may."""
    if enrolment is None or enrolment["index"] >= recovery["index"]:
        return "key-unknown", f"key {keyid} was not enrolled when entry {recovery['index']} was logged"
    if enrolment["scope"] == "ci":
        return "ci-key", f"key {keyid} was made for one run of a job: it vetoes nothing"
    if enrolment["until"] is not None and enrolment["until"] <= recovery["time"]:
        return "key-expired", f"key {keyid} was valid until {enrolment['until']}, before the recovery"
    if not listed and enrolment["revoked_by"] != REGISTRY:
        return "key-revoked", f"key {keyid} was withdrawn by the owners"
    return None


def _decide(step: Step, holder: State, owners: set[str]) -> State:
    step.one_signer(roles=[MODERATION])
    recovery = holder["recovery"]
    if recovery is None or holder["frozen"] is None or recovery["account"] != step.predicate["account"]:
        refuse(
            "no-dispute", f"no veto against a recovery by {step.predicate['account']} waits for a decision"
        )
    first, second = step.registry["actor"], step.registry["second"]
    if first is None or second is None or first == second or owners & {first, second}:
        refuse("two-moderators", f"moderators {first} and {second} are not two who own nothing here", "log")
    if step.predicate["role"] == "reject":
        return {**holder, "frozen": None, "recovery": None}
    # Whoever held the old keys chose the trusted publishers: they go with them.
    return {name: value for name, value in recovered(holder, {}).items() if name != "publishers"}


# --- shared ---------------------------------------------------------------------------------------------
def _holders(step: Step) -> tuple[State | None, State | None]:
    return (step.holder(step.project) if step.project else None), step.holder("")


def _known_holder(step: Step, project: State | None, namespace: State | None) -> State:
    holder = project if step.project else namespace
    if holder is None:
        refuse("project-unknown", f"{step.project or step.namespace!r} has no entry yet")
    return holder


def _enrolment_key(step: Step, keyid: str) -> Key:
    return ("enrolment", step.namespace, step.project, keyid)


def _new_key(step: Step, keyid: str) -> Party:
    return Party(keyid, step.predicate["key"], None)


def _until(step: Step, start: int) -> int | None:
    valid_for = step.predicate["valid_for"]
    return None if valid_for is None else start + int(valid_for)
