"""Rules about files: publish, attest, yank, unyank, remove; verdict, hold, clear, takedown.

A file's entries form two chains, both starting at its publish entry. The owner's side (attest, yank, unyank,
remove) and the registry's (verdict, hold, clear, takedown) each name the newest entry of their own side in
`prev`, so neither can invalidate a statement the other has just signed. Effects combine, and the strictest
wins (rules_state.standing): therefore a rule looks at its own side only. A held file can be yanked, and a
file that was taken down can be removed by its owner, so that a won appeal doesn't bring it back.

The first publish to a project without owners makes the uploader its first owner.
"""

from __future__ import annotations

from countermark.rules_approve import stage
from countermark.rules_ci import check_identity
from countermark.rules_state import (
    Key,
    State,
    compromised_by,
    holder_key,
    new_file,
    new_holder,
    passed,
)
from countermark.rules_step import (
    MODERATION,
    REGISTRY,
    SCANNER,
    Party,
    Step,
    check_actor,
    is_signed,
    owners_of,
    refuse,
)


def publish(step: Step) -> None:
    party = step.one_signer(roles=[REGISTRY], owner=True, ci=True)
    key = _key(step)
    if (known := step.read(key)) is not None:
        refuse("file-exists", f"{step.statement.subject_name!r} was published by entry {known['index']}")
    project, namespace = _holders(step)
    step.check_not_frozen(project, namespace)
    _check_uploader(step, project, namespace)
    _check_signing(step, party, is_signed(project, namespace))
    before = _link_to_key(step, party)
    step.write(key, stage(step, _new_file(step, party, before)))
    if project is None:
        project = new_holder({step.registry["uploader"]: "owner"})
    elif party.role is not None or project["signed"]:
        return
    signed = project["signed"] or party.role is None
    step.write(holder_key(step.namespace, step.project), {**project, "signed": signed})


def attest(step: Step) -> None:
    key, file = _owner_side(step, actor=False)
    if step.predicate["about"] != file["lh"]:
        refuse(
            "about-mismatch",
            f"statement is about {step.predicate['about']}, the file's entry is {file['lh']}",
        )
    step.write(key, {**file, "owner_head": step.leaf_hash})


def yank(step: Step) -> None:
    key, file = _owner_side(step)
    if file["yank"] is not None:
        refuse("already-yanked", f"the file was yanked by entry {file['yank']}")
    step.write(key, {**file, "owner_head": step.leaf_hash, "yank": step.index})


def unyank(step: Step) -> None:
    key, file = _owner_side(step)
    if file["yank"] is None:
        refuse("not-yanked", "the file is not yanked")
    step.write(key, {**file, "owner_head": step.leaf_hash, "yank": None})


def remove(step: Step) -> None:
    key, file = _owner_side(step)
    step.write(key, {**file, "owner_head": step.leaf_hash, "removed": step.index})


def verdict(step: Step) -> None:
    step.one_signer(roles=[SCANNER])
    key, file = _registry_side(step)
    new = {
        **file,
        "registry_head": step.leaf_hash,
        "verdict": {"index": step.index, "tier": step.predicate["tier"]},
    }
    if file["verdict"] is None or passed(file) != passed(new):
        new["status"] = step.index
    step.write(key, new)


def hold(step: Step) -> None:
    party = step.one_signer(roles=[MODERATION, REGISTRY])
    key, file = _registry_side(step)
    _check_moderator(step, party)
    if file["takedown"] is not None:
        refuse("already-removed", f"the file was taken down by entry {file['takedown']}")
    if file["hold"] is not None:
        refuse("already-held", f"the file is held by entry {file['hold']}")
    step.write(key, _decided(step, file, hold=step.index))


def clear(step: Step) -> None:
    party = step.one_signer(roles=[MODERATION])
    key, file = _registry_side(step)
    _check_moderator(step, party)
    project, namespace = _holders(step)
    assert project is not None  # a publish makes its project
    if file["hold"] is None and file["takedown"] is None and compromised_by(file, project, namespace) is None:
        refuse("nothing-to-clear", "the file is neither held nor taken down")
    step.write(key, _decided(step, file, hold=None, takedown=None, cleared=step.index))


def takedown(step: Step) -> None:
    party = step.one_signer(roles=[MODERATION])
    key, file = _registry_side(step)
    _check_moderator(step, party)
    if file["takedown"] is not None:
        refuse("already-removed", f"the file was taken down by entry {file['takedown']}")
    step.write(key, _decided(step, file, takedown=step.index))


def _key(step: Step) -> Key:
    return ("file", step.namespace, step.project, step.entry.file_name.normalised)


def _holders(step: Step) -> tuple[State | None, State | None]:
    return step.holder(step.project), step.holder("")


def _check_uploader(step: Step, project: State | None, namespace: State | None) -> None:
    uploader = step.registry["uploader"]
    if step.namespace and namespace is None:
        refuse("namespace-unknown", f"nobody has enrolled a key for namespace {step.namespace!r}")
    if step.registry["identity"] is not None:  # a job: whom the project trusts, not whom it belongs to
        check_identity(step, project, namespace)
    elif (project is not None or namespace is not None) and uploader not in owners_of(project, namespace):
        refuse("not-an-owner", f"account {uploader} may not publish to {step.project!r}", "log")


def _check_signing(step: Step, party: Party, signed: bool) -> None:
    """A project that signs stays signed; and the entry names the enrolment it was signed under."""
    expected = None if party.role is not None else party.index
    if step.registry["key_index"] != expected:
        refuse(
            "key-index", f"entry names enrolment {step.registry['key_index']}, the key's is {expected}", "log"
        )
    if signed and party.role is not None:
        refuse("signature-required", f"{step.project!r} signs its files: a key of its own must sign", "log")


def _link_to_key(step: Step, party: Party) -> list[str] | None:
    """Put the new file at the head of its key's list; the file that was there before, if any."""
    if party.enrolment is None:
        return None
    enrolment = step.read(party.enrolment)
    assert enrolment is not None  # it has just been found
    step.write(party.enrolment, {**enrolment, "newest": list(_key(step)[1:])})
    before: list[str] | None = enrolment["newest"]
    return before


def _new_file(step: Step, party: Party, before: list[str] | None) -> State:
    return new_file(
        key=_key(step),
        filename=step.statement.subject_name,
        version=step.predicate["version"],
        sha256=step.statement.subject_sha256,
        length=step.predicate["length"],
        index=step.index,
        leaf_hash=step.leaf_hash,
        time=step.time,
        uploader=step.registry["uploader"],
        keyid=party.keyid,
        key_index=step.registry["key_index"],
        level=party.level,
        before=before,
    )


def _known_file(step: Step) -> tuple[Key, State]:
    key = _key(step)
    file = step.read(key)
    if file is None:
        refuse("file-unknown", f"{step.statement.subject_name!r} was never published in {step.project!r}")
    said = (step.statement.subject_name, step.statement.subject_sha256)
    if said != (file["filename"], file["sha256"]):
        refuse(
            "file-mismatch", f"statement is about {said}, the file is {(file['filename'], file['sha256'])}"
        )
    return key, file


def _owner_side(step: Step, *, actor: bool = True) -> tuple[Key, State]:
    step.one_signer(roles=[REGISTRY], owner=True, ci=not actor)  # a job may attest, and withdraws nothing
    key, file = _known_file(step)
    step.check_prev(file["owner_head"])
    project, namespace = _holders(step)
    step.check_not_frozen(project, namespace)
    if actor:
        check_actor(step, step.registry["actor"], project, namespace)
    if file["removed"] is not None and step.entry.type != "attest":
        refuse("already-removed", f"the file was removed by entry {file['removed']}")
    return key, file


def _registry_side(step: Step) -> tuple[Key, State]:
    key, file = _known_file(step)
    step.check_prev(file["registry_head"])
    return key, file


def _check_moderator(step: Step, party: Party) -> None:
    """A moderator decides under a pseudonym, never on a project of their own; the registry only automatically."""
    moderator = step.registry["moderator"]
    if (moderator is None) != (party.role == REGISTRY):
        refuse("moderator", f"entry names moderator {moderator}, signed by role {party.role}", "log")
    if moderator is not None and moderator in owners_of(*_holders(step)):
        refuse("own-project", f"moderator {moderator} may not decide on {step.project!r}, their own project")


def _decided(step: Step, file: State, **changes: int | None) -> State:
    return {**file, "registry_head": step.leaf_hash, "status": step.index, **changes}
