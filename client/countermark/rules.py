"""The rules: what the log's history allows. One function, three enforcers.

    changes = apply(view, entry)        # Changes: new values by key; or Broken: why not, and whose fault

The sequencer applies entries in index order inside its transaction and refuses what is Broken (no index is
spent). The timestamper and every auditor replay the same function over the published log (replay.py); there
a Broken entry changes nothing, is a finding, and replay goes on behind it. So what the sequencer accepts
audits clean, and what it should not have accepted is seen by everybody.

`view` is anything with `get`: a dict, the sequencer's table, the timestamper's database. It starts as
`genesis(...)`: the log's origin and the offline authority key, as the first trust file names them. The
authority enrols the role keys in the first entries, role keys and publishers' keys sign all the rest.
`keys(entry)` names all state an entry may touch, from the entry alone; `apply` reads and writes nothing else.

Rules know no clock but the leaf's `time`, which never falls. They are versioned: `rule` in ("log",) says
which version judges the next entry, and old versions stay here for ever, pinned by replay vectors. A program
that is older than the log's version stops with RuleVersionError.

Where to find what: state and standing in rules_state.py, who signed in rules_step.py, files in
rules_files.py, keys and owners in rules_keys.py, approvals in rules_approve.py, machines in rules_ci.py, imports in
rules_import.py, `tuf`, `log-freeze` and `predecessor` below.

What the rules do not check, because a leaf alone can't show it: that bytes match their hashes, that the
wheel's metadata says what the leaf says, that a scanner really looked, that `time` is honest (verifiers
compare it with the quorum time of the checkpoint that covers it), and who sits behind an account.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

from countermark.entry import Entry
from countermark.errors import MalformedError, StaleError, UsageError
from countermark.rules_approve import approve, require_approvals
from countermark.rules_ci import publisher_keys, trusted_publisher
from countermark.rules_files import (
    attest,
    clear,
    hold,
    publish,
    remove,
    takedown,
    unyank,
    verdict,
    yank,
)
from countermark.rules_import import import_, line_keys, publish_line
from countermark.rules_keys import key_enroll, key_revoke, owner
from countermark.rules_state import (
    AUTHORITY,
    LOG,
    Broken,
    Changes,
    Key,
    Standing,
    State,
    View,
    file_key,
    files_of_key,
    holder_key,
    holders,
    is_listable,
    is_listed,
    listed,
    project_key,
    settled,
    standing,
    standing_of,
    target_custom,
    target_path,
    touched_files,
)
from countermark.rules_step import MODERATION, REGISTRY, Party, RefusalError, Step, refuse
from countermark.schema import FILE_TYPES, ROLE_SCOPES, SCHEMAS, TUF_ROLES, is_origin
from countermark.statement import keyid_of, load_public_key

__all__ = [
    "LOG",
    "RULE_VERSION",
    "Broken",
    "Changes",
    "Key",
    "RuleVersionError",
    "Standing",
    "State",
    "View",
    "apply",
    "file_key",
    "files_of_key",
    "genesis",
    "holder_key",
    "holders",
    "is_listable",
    "is_listed",
    "keys",
    "listed",
    "project_key",
    "settled",
    "skip",
    "standing",
    "standing_of",
    "target_custom",
    "target_path",
    "touched_files",
]

RULE_VERSION: Final = 1  # the newest this program knows


class RuleVersionError(StaleError):
    """The log's rules are newer than this program: update it. Judging by older rules would be guessing."""


def genesis(
    *, origin: str, authority_key: bytes, rule_version: int = RULE_VERSION, raw_add: bool = False
) -> Changes:
    """The state of an empty log. `raw_add` makes a log for load tests, which holds opaque entries only."""
    if not is_origin(origin):
        raise MalformedError(f"origin {origin[:80]!r} is not a name without spaces")
    load_public_key(authority_key)
    keyid = keyid_of(authority_key)
    authority = {"head": None, "keyid": keyid, "spki": base64.b64encode(authority_key).decode("ascii")}
    return Changes(
        {
            LOG: {
                "applied": 0,
                "origin": origin,
                "raw_add": raw_add,
                "rule": rule_version,
                "size": 0,
                "time": 0,
                "tuf": None,
            },
            AUTHORITY: authority,
            ("key", keyid): {"account": None, "compromised": None, "scope": "authority"},
        }
    )


def keys(entry: Entry) -> frozenset[Key]:
    """All state `apply` may read or write for this entry."""
    if entry.imported is not None:
        return line_keys(entry.imported)
    if entry.statement is None:
        return frozenset({LOG})
    predicate, kind = entry.statement.predicate, entry.type
    namespace, project = predicate["namespace"], predicate["project"]
    found: set[Key] = {LOG} | {("role", role) for role in _ROLES[kind]}
    if kind in ("tuf", "import", "log-freeze", "predecessor"):
        return frozenset(found)
    if namespace or project:
        found |= {holder_key(namespace, project)} | ({("namespace", namespace)} if namespace else set())
    if kind == "trusted-publisher":
        found |= set(publisher_keys(predicate))
    if kind in FILE_TYPES:
        found.add(("file", namespace, project, entry.file_name.normalised))
    if kind in ("publish", "approve"):
        found.add(("release", namespace, project, predicate["version"]))
    if kind in _OWNER_SIGNED and entry.envelope is not None:
        signed = set(entry.envelope.keyids)
        if kind in ("key-enroll", "key-revoke"):
            keyid = entry.statement.subject_name.removeprefix("key:")
            signed.add(keyid)
            found.add(("key", keyid))
        if namespace or project:
            found |= {("enrolment", namespace, project, keyid) for keyid in signed}
        if namespace:
            found |= {("enrolment", namespace, "", keyid) for keyid in signed}
    return frozenset(found)


def apply(view: View, entry: Entry) -> Changes | Broken:
    """Judge the next entry of the log. The entry's index is the size in `view`; no view is changed here."""
    log = view.get(LOG)
    if log is None:
        raise UsageError("the rules' state is empty: it starts from genesis()")
    law = _LAWS.get(log["rule"])
    if law is None:
        raise RuleVersionError(
            f"the log is judged by rule version {log['rule']}, this program knows up to {RULE_VERSION}",
            hint="update countermark",
        )
    return law(view, entry, log)


def skip(view: View) -> Changes:
    """What a broken or malformed leaf does to the state: it takes its place, and nothing else."""
    log = view.get(LOG)
    if log is None:
        raise UsageError("the rules' state is empty: it starts from genesis()")
    return Changes({LOG: {**log, "size": log["size"] + 1}})


def _apply_1(view: View, entry: Entry, log: State) -> Changes | Broken:
    """Rule version 1."""
    if log["raw_add"] or entry.type == "opaque":
        if not (log["raw_add"] and entry.type == "opaque"):
            return Broken("opaque", "opaque entries and a log with testing.raw_add go together only", "log")
        return skip(view)
    if (frozen := log.get("frozen")) is not None:
        return Broken("log-frozen", f"entry {frozen} froze this log: it is the last one", "log")
    rule = _RULES.get(entry.type)
    if rule is None or (entry.statement is None and entry.imported is None):
        return Broken("not-understood", f"rule version 1 gives no meaning to the type {entry.type!r}", "log")
    if entry.time < log["time"]:
        return Broken("time-fell", f"time {entry.time} is below the previous leaf's, {log['time']}", "log")
    if entry.statement is None:
        return publish_line(view, entry, log)
    if entry.statement.predicate["origin"] != log["origin"]:
        origin = entry.statement.predicate["origin"]
        return Broken(
            "wrong-origin", f"statement was made for {origin!r}, this log is {log['origin']!r}", "signer"
        )
    step = Step(view, entry, log["size"])
    try:
        rule(step)
    except RefusalError as refusal:
        return refusal.broken
    log = step.writes.get(LOG) or log
    step.write(LOG, {**log, "size": log["size"] + 1, "time": entry.time})
    return Changes(step.writes, step.compromised, step.approved)


# --- tuf ------------------------------------------------------------------------------------------------
def _tuf(step: Step) -> None:
    """Publishes of TUF metadata form one chain: versions rise, bins follow on bins, `applied` never falls.

    The first publish has every role and no old bins. A heartbeat changes no metadata: it has no snapshot, logs
    the timestamps signed since, and is about the snapshot version in force.
    """
    step.one_signer(roles=[REGISTRY])
    log = step.read(LOG)
    assert log is not None  # apply has read it
    old, new = log["tuf"], step.predicate
    step.check_prev(None if old is None else old["head"])
    versions = _tuf_versions(step, {} if old is None else old["versions"])
    _check_bins(step, None if old is None else old["bins"])
    if not log["applied"] <= new["applied"] <= step.index:
        refuse(
            "applied",
            f"applied {new['applied']} is not between {log['applied']} and this entry's {step.index}",
        )
    snapshot = (
        {"index": step.index, "sha256": new["snapshot"]["sha256"]} if new["snapshot"] else old["snapshot"]
    )
    tuf = {"bins": new["bins_new"], "head": step.leaf_hash, "snapshot": snapshot, "versions": versions}
    step.write(LOG, {**log, "applied": new["applied"], "tuf": tuf})


def _tuf_versions(step: Step, versions: dict[str, int]) -> dict[str, int]:
    for role in TUF_ROLES:
        changed, known = step.predicate[role], versions.get(role)
        if changed is None and known is None:
            refuse("tuf-incomplete", f"the first tuf entry must have a {role}")
        if changed is not None:
            if known is not None and changed["version"] <= known:
                refuse("tuf-version", f"{role} version {changed['version']} follows version {known}")
            versions = {**versions, role: changed["version"]}
    if step.statement.subject_name != f"tuf:{versions['snapshot']}":
        refuse("tuf-version", f"{step.statement.subject_name!r} isn't about snapshot {versions['snapshot']}")
    return versions


def _check_bins(step: Step, bins: str | None) -> None:
    new: Any = step.predicate
    if new["bins_old"] != bins:
        refuse("bins", f"bins_old is {new['bins_old']}, the bins root in force is {bins}")
    if (
        new["bins_new"] != bins
        and bins is not None
        and (new["snapshot"] is None or new["changed_sha256"] is None)
    ):
        refuse("bins", "bins changed without a snapshot and a list of the changed bins")


# --- the log's last entry, and its first ------------------------------------------------------------------
def _freeze(step: Step) -> None:
    """The log's last entry. It follows the newest `tuf` entry: what it leaves behind is what was published."""
    step.one_signer(roles=[MODERATION])
    log = step.read(LOG)
    assert log is not None  # apply has read it
    step.check_prev(None if log["tuf"] is None else log["tuf"]["head"])
    step.write(LOG, {**log, "frozen": step.index})


def _predecessor(step: Step) -> None:
    """A successor's first entry: the log it goes on from. The authority signs it, before any role key is enrolled."""
    if step.index:
        refuse("not-first", f"a predecessor is named by entry 0, this is entry {step.index}", "log")
    authority, log = step.read(AUTHORITY), step.read(LOG)
    assert authority is not None and log is not None  # genesis made them
    said = {name: step.predicate[name] for name in ("log", "root_hash", "tree_size")}
    if said["log"] == log["origin"]:
        refuse("own-predecessor", f"a log does not follow itself, {log['origin']!r}")
    if step.keyids != (authority["keyid"],):
        refuse("not-authorised", f"a predecessor takes the authority's signature, not {list(step.keyids)}")
    step.verify([Party(authority["keyid"], authority["spki"], "authority")])
    step.check_prev(None)
    step.write(LOG, {**log, "predecessor": said})


_ROLES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("publish", "attest", "yank", "unyank", "remove", "tuf", "import"), (REGISTRY,)),
    **dict.fromkeys(("key-enroll", "key-revoke"), ("authority", *sorted(ROLE_SCOPES))),
    "trusted-publisher": (REGISTRY,),
    "owner": (REGISTRY, "moderation"),
    "approve": (),
    "require-approvals": (),
    "verdict": ("scanner",),
    "hold": (REGISTRY, "moderation"),
    "clear": ("moderation",),
    "takedown": ("moderation",),
    "log-freeze": ("moderation",),
    "predecessor": ("authority",),
}
_OWNER_SIGNED: Final = frozenset(
    {
        *("publish", "attest", "yank", "unyank", "remove", "key-enroll", "key-revoke", "owner"),
        *("approve", "require-approvals", "trusted-publisher"),
    }
)
_RULES: Final[dict[str, Callable[[Step], None]]] = {
    "publish": publish,
    "attest": attest,
    "yank": yank,
    "unyank": unyank,
    "remove": remove,
    "key-enroll": key_enroll,
    "key-revoke": key_revoke,
    "trusted-publisher": trusted_publisher,
    "owner": owner,
    "approve": approve,
    "require-approvals": require_approvals,
    "verdict": verdict,
    "hold": hold,
    "clear": clear,
    "takedown": takedown,
    "tuf": _tuf,
    "log-freeze": _freeze,
    "predecessor": _predecessor,
    "import": import_,
}
_LAWS: Final[dict[int, Callable[[View, Entry, State], Changes | Broken]]] = {1: _apply_1}
assert _RULES.keys() == SCHEMAS.keys() == _ROLES.keys()
