"""Rules about staged releases: approve, require-approvals.

    require-approvals   {"needed": 2}                       from here on what is published to the project is *staged*
    publish             acme-1.0.tar.gz                     staged: in the log, and listed by nobody
    approve             version 1.0, these files            by one account's key: 1 of 2
    approve             version 1.0, these files            by another's: 2 of 2, and the files may be listed

What is approved is the list of all staged files of one version that wait (filelist.py), all of which are in the log.
Another file of that version makes another list: approvals given before count for nothing, and everybody looks again.
Once the last approval is in, nothing waits, and no further one is taken; files that come later are staged anew.

An account counts once, whatever number of keys it has, and only as long as it may act for the project and the key it
approved with is valid; so who was removed or whose key was revoked meanwhile does not count. A rejection stops the
release until the same account approves it, or is removed; a further file does not make it go away.

Entries about one version form a chain of `prev`, whose first is null.

How many must approve is the holder's `approvals`. A change takes as many people as are in force, and as many
keys as the threshold says, and so do changes of keys and owners (rules_step.check_count): whoever could make the
people could make the approvals. A recovery ends the requirement (rules_state.recovered).
"""

from __future__ import annotations

from countermark.filelist import files_digest
from countermark.limits import STAGED_FILES_MAX
from countermark.rules_state import Key, State, View, holder_key, settled
from countermark.rules_step import (
    Step,
    approvals_of,
    approvers_of,
    check_actor,
    check_approvers,
    check_count,
    refuse,
)
from countermark.values import dataclass


def approve(step: Step) -> None:
    party = step.one_signer(owner=True)
    project, namespace = step.holder(step.project), step.holder("")
    step.check_not_frozen(project, namespace)
    account = step.registry["approver"]
    if party.account != account:
        refuse("approver", f"entry names approver {account}, the key that signed is {party.account}'s", "log")
    check_actor(step, account, project, namespace)
    key = _release_key(step)
    release = step.read(key)
    if release is None or not release["files"]:
        refuse("nothing-staged", f"no file of {step.project} {step.predicate['version']} waits for approval")
    step.check_prev(release["head"])
    files = release["files"]
    if (digest := files_digest(map(tuple, files.values()))) != (said := step.predicate["files_sha256"]):
        refuse("files-changed", f"statement is about the files {said}, those that wait are {digest}")
    decision, old = step.predicate["decision"], release["votes"].get(account)
    if (
        old is not None
        and old["decision"] == decision
        and _counts(old, account, project, namespace, step.time)
    ):
        refuse("already-decided", f"account {account} said {decision} by entry {old['index']}")
    vote = {"decision": decision, "index": step.index, "keyid": party.keyid}
    votes = {**release["votes"], account: vote}
    counted = {who: each for who, each in votes.items() if _counts(each, who, project, namespace, step.time)}
    decisions = [vote["decision"] for vote in counted.values()]
    changed = {**release, "head": step.leaf_hash, "votes": counted}
    if "reject" not in decisions and len(decisions) >= approvals_of(project, namespace):
        changed |= {"approved": [*release["approved"], step.index], "files": {}, "votes": {}}
        step.approved = tuple(("file", step.namespace, step.project, name) for name in files)
    step.write(key, changed)


def stage(step: Step, file: State) -> State:
    """A file that is published now, and its release, where approvals are required."""
    if not approvals_of(step.holder(step.project), step.holder("")):
        return file
    key = _release_key(step)
    release = step.read(key) or {"approved": [], "files": {}, "head": None, "votes": {}}
    if len(release["files"]) + len(release["approved"]) >= STAGED_FILES_MAX:
        refuse(
            "release-full", f"{step.project} {file['version']} has {STAGED_FILES_MAX} staged files already"
        )
    name, value = step.entry.file_name.normalised, [file["filename"], file["sha256"]]
    rejected = {who: vote for who, vote in release["votes"].items() if vote["decision"] == "reject"}
    step.write(key, {**release, "files": {**release["files"], name: value}, "votes": rejected})
    return {**file, "staged": True}


def require_approvals(step: Step) -> None:
    project, namespace = step.holder(step.project) if step.project else None, step.holder("")
    holder, needed = (project if step.project else namespace), step.predicate["needed"]
    if holder is None:
        refuse("project-unknown", f"{step.project or step.namespace!r} has no entry yet")
    step.check_not_frozen(project, namespace)
    signers = [step.find_signer(keyid, owner=True) for keyid in step.keyids]
    step.verify(signers)
    check_count(signers, project, namespace)
    check_actor(step, step.registry["actor"], project, namespace, role="owner")
    step.check_prev(holder["head"])
    if needed == holder.get("approvals", 0):
        refuse("approvals", f"{step.project or step.namespace!r} requires {needed} approvals already")
    changed = {**holder, "approvals": needed, "head": step.leaf_hash}
    check_approvers(step, changed if step.project else project, namespace if step.project else changed)
    step.write(holder_key(step.namespace, step.project), changed)


def _release_key(step: Step) -> Key:
    return ("release", step.namespace, step.project, step.predicate["version"])


def _counts(vote: State, account: str, project: State | None, namespace: State | None, time: int) -> bool:
    """Whether who said this may still say it: an owner, and by a key that is enrolled and valid now."""
    for holder in (project, namespace):
        item = None if holder is None else holder["keys"].get(vote["keyid"])
        if item is not None and (item["until"] is None or time < item["until"]):
            return account in approvers_of(project, namespace, time)
    return False


@dataclass(frozen=True)
class Waiting:
    """What a staged release still waits for, by accounts. For people: the rules count anew at each `approve`."""

    needed: int
    approved: tuple[str, ...]
    rejected: tuple[str, ...]
    missing: tuple[str, ...]  # who could approve, and has said nothing that counts

    def document(self) -> dict[str, int | list[str]]:
        """As the API and `--json` show it."""
        people = {name: list(getattr(self, name)) for name in ("approved", "rejected", "missing")}
        return {"needed": self.needed, **people}

    def __str__(self) -> str:
        if self.rejected:
            return f"not listed: rejected by {', '.join(self.rejected)}"
        return f"waiting for approval {min(len(self.approved) + 1, self.needed)} of {self.needed}"


def waiting(view: View, namespace: str, project: str, version: str, time: int) -> Waiting | None:
    """What the staged files of a release wait for at `time`; None: there are none."""
    release = view.get(("release", namespace, project, version))
    if release is None or not release["files"]:
        return None
    holders = [
        view.get(holder_key(namespace, project)),
        view.get(holder_key(namespace, "")) if namespace else None,
    ]
    ours, covers = (None if holder is None else settled(holder, time) for holder in holders)
    votes = {who: each for who, each in release["votes"].items() if _counts(each, who, ours, covers, time)}
    said = {
        decision: tuple(sorted(who for who, vote in votes.items() if vote["decision"] == decision))
        for decision in ("approve", "reject")
    }
    missing = sorted(approvers_of(ours, covers, time).keys() - votes.keys())
    return Waiting(max(1, approvals_of(ours, covers)), said["approve"], said["reject"], tuple(missing))
