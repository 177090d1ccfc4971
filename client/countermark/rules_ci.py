"""Rules about machines that publish: trusted-publisher, and the enrolment of a one-run key.

    trusted-publisher   k enrolled keys say: jobs of this workflow, in this repository, may publish for us
    key-enroll, `ci`    such a job's key, for this run: the trusted publisher's entry authorises it, no other key

A trusted publisher is power, so it is added like a key: by k enrolled keys, on behalf of an owner. One key, or the
registry, takes it away; living one-run keys end with it. A project that has no key yet enrols one first.

Whether a job is who it says it is, no rule can see: the registry has checked its token and writes the identity down
in clear, and the rules hold it against what the owners trusted. So it reads "identity as checked by the registry".

A one-run key lives 15 minutes at most and signs publishes and attestations, nothing else: no key, no owner, no
withdrawal. It is new to the registry and never comes back, so its enrolment needs no place in the project's chain:
its `prev` is the trusted publisher's entry, and jobs that run side by side make no statement of one another's stale.

State: `publishers` in the holder, by their ID, and for whoever looks for the projects of a repository
("publisher", issuer, "id" or "name", value): {"projects": [[namespace, project], ...]}.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from countermark.limits import KEYS_MAX, PUBLISHERS_MAX, REPOSITORY_PROJECTS_MAX
from countermark.machine import TRUSTED, publisher_id, why_not
from countermark.rules_state import Key, State, holder_key
from countermark.rules_step import REGISTRY, Party, Step, check_actor, check_count, refuse
from countermark.statement import keyid_of


def publisher_keys(said: Mapping[str, Any]) -> tuple[Key, Key]:
    """Where the projects that trust this repository are listed, by its number and by its name."""
    return (
        ("publisher", said["issuer"], "id", said["repository_id"]),
        ("publisher", said["issuer"], "name", said["repository"]),
    )


# --- trusted-publisher ------------------------------------------------------------------------------------
def trusted_publisher(step: Step) -> None:
    project, namespace = (step.holder(step.project) if step.project else None), step.holder("")
    holder = project if step.project else namespace
    if holder is None:
        refuse("project-unknown", f"{step.project or step.namespace!r} has no entry yet: enrol a key first")
    step.check_not_frozen(project, namespace)
    adds = step.predicate["action"] == "add"
    signers = [step.find_signer(keyid, roles=() if adds else [REGISTRY], owner=True) for keyid in step.keyids]
    step.verify(signers)
    _check_signers(step, signers)
    if adds:
        check_count(signers, project, namespace)
    if signers[0].role is None or step.registry["actor"] is not None:
        check_actor(step, step.registry["actor"], project, namespace, role="owner")
    step.check_prev(holder["head"])
    changed = (_add if adds else _remove)(step, holder.get("publishers", {}))
    holder = {**holder, "head": step.leaf_hash, "publishers": changed}
    step.write(holder_key(step.namespace, step.project), holder)
    for key, name in zip(publisher_keys(step.predicate), ("repository_id", "repository"), strict=True):
        _list_project(step, key, any(_same(step, item, name) for item in changed.values()))


def _check_signers(step: Step, signers: list[Party]) -> None:
    by_registry = any(signer.role is not None for signer in signers)
    if by_registry and len(signers) > 1:
        refuse("not-authorised", f"the registry signs alone, not one of {len(signers)}")
    known = ["registry"] if by_registry else [signer.index for signer in signers]
    if (by := step.registry["authorised_by"]) not in known:
        refuse("authorised-by", f"entry names {by}, not one of the keys that signed", "log")


def _add(step: Step, publishers: State) -> State:
    publisher = publisher_id(step.predicate)
    if (known := publishers.get(publisher)) is not None:
        refuse("publisher-exists", f"this publisher is trusted since entry {known['index']}")
    if len(publishers) >= PUBLISHERS_MAX:
        refuse(
            "too-many-publishers", f"{step.project or step.namespace!r} trusts {PUBLISHERS_MAX} publishers"
        )
    item = {
        **{name: step.predicate[name] for name in TRUSTED},
        "account": step.registry["actor"],
        "index": step.index,
        "lh": step.leaf_hash,
    }
    return {**publishers, publisher: item}


def _remove(step: Step, publishers: State) -> State:
    publisher = publisher_id(step.predicate)
    if publisher not in publishers:
        refuse("publisher-unknown", f"{step.project or step.namespace!r} does not trust this publisher")
    return {known: item for known, item in publishers.items() if known != publisher}


def _same(step: Step, item: State, name: str) -> bool:
    return bool((item["issuer"], item[name]) == (step.predicate["issuer"], step.predicate[name]))


def _list_project(step: Step, key: Key, listed: bool) -> None:
    """Whether the project stands in the list of those that trust a repository."""
    state = step.read(key)
    projects = [] if state is None else state["projects"]
    mine = [step.namespace, step.project]
    if listed == (mine in projects):
        return
    if listed and len(projects) >= REPOSITORY_PROJECTS_MAX:
        refuse("too-many-publishers", f"{REPOSITORY_PROJECTS_MAX} projects trust {key[-1]} already")
    projects = sorted([*projects, mine]) if listed else [each for each in projects if each != mine]
    step.write(key, {"projects": projects})


# --- one-run keys -------------------------------------------------------------------------------------------
def enroll_one_run(step: Step) -> None:
    """key-enroll with scope `ci`."""
    keyid = keyid_of(base64.b64decode(step.predicate["key"]))
    holders = (step.holder(step.project), step.holder(""))
    step.check_not_frozen(*holders)
    if step.keyids != (keyid,):
        refuse("not-authorised", f"a one-run key signs its enrolment alone, not {sorted(step.keyids)}")
    step.verify([Party(keyid, step.predicate["key"], None)])
    identity, by = step.registry["identity"], step.registry["authorised_by"]
    publisher = _by_index(by, *holders)
    if publisher is None:
        refuse("publisher-unknown", f"entry names {by}, no trusted publisher of {step.project!r}", "log")
    if identity is None or (reason := why_not(publisher, identity)) is not None:
        refuse("identity-mismatch", f"not the publisher of entry {by}: {identity and reason}", "log")
    if step.registry["account"] != publisher["account"]:
        refuse("identity-mismatch", f"account {step.registry['account']} did not add entry {by}", "log")
    step.check_prev(publisher["lh"])
    if step.read(("key", keyid)) is not None:
        refuse("key-taken", f"key {keyid} is known already, a one-run key is new")
    enrolment = {
        "account": publisher["account"],
        "chained": True,
        "identity": identity,
        "index": step.index,
        "newest": None,
        "publisher": by,
        "revoked": None,
        "revoked_by": None,
        "scope": "ci",
        "spki": step.predicate["key"],
        "until": step.time + step.predicate["valid_for"],
    }
    step.write(("enrolment", step.namespace, step.project, keyid), enrolment)
    step.write(("key", keyid), {"account": publisher["account"], "compromised": None, "scope": "ci"})


def check_revocable(step: Step, keyid: str, enrolment: State | None, holder: State) -> bool:
    """Whether a key-revoke is about a one-run key, which no holder lists; it may be revoked at any time."""
    if enrolment is None or enrolment["scope"] != "ci":
        return False
    if (
        step.predicate["compromised_since"] is not None
        and len(holder["keys"]) + len(holder["compromised"]) >= KEYS_MAX
    ):
        refuse("too-many-keys", f"{step.project!r} has {KEYS_MAX} keys: revoke old ones first")
    return True


def check_identity(step: Step, *holders: State | None) -> None:
    """The publish was brought by a job that the project trusts, in the name of the account that said so."""
    identity, uploader = step.registry["identity"], step.registry["uploader"]
    items = [item for holder in holders if holder for item in holder.get("publishers", {}).values()]
    if not any(item["account"] == uploader and why_not(item, identity) is None for item in items):
        refuse(
            "identity-mismatch", f"{step.project!r} trusts no such publisher: {identity['repository']}", "log"
        )


def _by_index(index: object, *holders: State | None) -> State | None:
    items = [item for holder in holders if holder for item in holder.get("publishers", {}).values()]
    return next((item for item in items if item["index"] == index), None)
