"""Unapplied entries: what the log says of a file after the point up to which TUF shows it.

    unapplied(view, artifact, publish=5)     None, or "hold by entry #12 (malware)"

Between an entry and the TUF metadata that applies it lie seconds, or, where somebody withholds it, minutes.
The entries in between are read here, without the state that the rules would judge them by. So they may only
take away: a hold, takedown, removal, failed verdict or revocation counts as soon as it is there, whoever
signed it, and a mistaken one costs minutes. What gives back must be proved: a `clear` counts when it is
signed by a moderation key that the offline authority enrolled, and is about the very decision before it
(`prev`). The owner's own `remove` and a revoked key are never cleared here.
"""

from __future__ import annotations

from functools import lru_cache

from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError, StaleError
from countermark.limits import UNAPPLIED_MAX
from countermark.schema import PASSING_TIERS
from countermark.signature import check_role
from countermark.tlog import merkle
from countermark.trust import View
from countermark.verified import Artifact


def unapplied(view: View, artifact: Artifact, publish: int) -> str | None:
    """What withdraws this file among the entries not applied yet, in words."""
    applied, size = view.timestamp.applied, view.checkpoint.size
    if size - applied > UNAPPLIED_MAX:
        raise StaleError(f"{size - applied} entries are not applied yet, more than are read here")
    ours, decided = None, None  # the owner's side, and the registry's
    head = ""  # the leaf hash of the registry's newest decision
    for index, raw in view.log.entries(applied, size):
        if (entry := _parsed(raw)) is None:
            continue  # an auditor's finding; it changes nothing
        if entry.type == "key-revoke" and _revokes(entry, artifact, publish):
            ours = f"its key may have been revoked by entry #{index}"
        elif not _is_about(entry, artifact):
            continue
        elif entry.type == "remove":
            ours = f"remove by entry #{index}"
        elif entry.type in ("hold", "takedown") or _failed(entry):
            decided, head = f"{entry.type} by entry #{index} ({_reason(entry)})", merkle.leaf_hash(raw).hex()
        elif entry.type == "clear" and _clears(view, entry, head):
            decided = None
    return ours or decided


@lru_cache(maxsize=256)  # every file of a lock is held against the same few
def _parsed(raw: bytes) -> Entry | None:
    try:
        return Entry.parse(raw)
    except MalformedError:
        return None


def _revokes(entry: Entry, artifact: Artifact, publish: int) -> bool:
    assert entry.statement is not None
    predicate = entry.statement.predicate
    since = predicate["compromised_since"]
    ours = (predicate["namespace"], predicate["project"]) in artifact.holders
    return ours and since is not None and publish >= since


def _is_about(entry: Entry, artifact: Artifact) -> bool:
    statement = entry.statement
    return (
        statement is not None
        and statement.predicate.get("namespace") == artifact.namespace  # another's are about other files
        and statement.predicate.get("project") == artifact.project
        and statement.subject_sha256 == artifact.sha256
    )


def _failed(entry: Entry) -> bool:
    assert entry.statement is not None
    return entry.type == "verdict" and entry.statement.predicate["tier"] not in PASSING_TIERS


def _reason(entry: Entry) -> str:
    assert entry.statement is not None
    predicate = entry.statement.predicate
    return str(predicate["tier"] if entry.type == "verdict" else predicate["reason"])


def _clears(view: View, entry: Entry, head: str) -> bool:
    """Whether this `clear` is a moderator's, about the decision we read last."""
    assert entry.statement is not None
    predicate = entry.statement.predicate
    if (predicate["origin"], predicate["prev"]) != (view.checkpoint.origin, head):
        return False
    try:
        check_role(view, entry, "moderation")
    except EvidenceError:
        return False  # somebody else's: it breaks a rule and changes nothing
    return True
