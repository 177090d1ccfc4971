"""The log before: does a successor's entry 0 say what the frozen log it goes on from really is?

    check_predecessor(state, Old(url, trust_file, fetcher), now=now, notes=notes)

    (1) the old log's public checkpoint is signed by all its keys and its quorum
    (2) its origin, size and root hash are those that entry 0 names
    (3) the entry at the named size is a `log-freeze`, and nothing stands behind it

The old log's trust file is the caller's, never fetched from where the log is read. Its entries before the last
are not replayed here: an audit of that registry does it. A log that grew behind its `log-freeze` is shown by its
own larger checkpoint together with the entry, both kept as evidence.
"""

from __future__ import annotations

from countermark import rules
from countermark.audit_report import Notes, finding, view_finding
from countermark.entry import Entry
from countermark.errors import CountermarkError, EvidenceError, MalformedError
from countermark.fetch import Fetcher
from countermark.limits import NOTE_MAX_BYTES
from countermark.logreader import LogReader
from countermark.predecessor import Predecessor
from countermark.rules_state import View
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.trustfile import TrustFile
from countermark.values import dataclass


@dataclass(frozen=True)
class Old:
    """Where the old log is read, and by whose keys it is judged."""

    log_url: str
    trust_file: TrustFile
    fetcher: Fetcher


def check_predecessor(view: View, old: Old | None, *, now: int, notes: Notes) -> None:
    """Compare entry 0 with the old log; without one, say what was not looked at."""
    log = view.get(rules.LOG) or {}
    said = Predecessor.of(log["predecessor"]) if "predecessor" in log else None
    if old is None:
        if said is not None:
            notes.leave(f"whether entry 0 tells the truth of its predecessor, {said}: see --predecessor")
        return
    if said is None:
        message = f"no entry 0 names a predecessor, {old.trust_file.origin} was given as one"
        notes.add(finding("predecessor", message, entry="none", given=old.trust_file.origin))
        return
    head = _old_head(old, now, notes)
    if head is not None:
        try:
            _compare(said, head, LogReader(old.log_url, head, old.fetcher), notes)
        except CountermarkError as error:
            notes.add(view_finding(error, "the predecessor's log"))
        notes.leave(f"the entries of {head.origin} before its last: audit that registry")


def _old_head(old: Old, now: int, notes: Notes) -> VerifiedCheckpoint | None:
    """(1) The old log's checkpoint, as its own trust file judges it."""
    raw = b""
    try:
        raw = old.fetcher.get(f"{old.log_url}/checkpoint", max_bytes=NOTE_MAX_BYTES) or b""
        head = open_checkpoint(raw, old.trust_file.policy, now=now)
    except EvidenceError as error:
        found = finding("predecessor-checkpoint", f"the predecessor's checkpoint: {error}")
        notes.add(found, {"predecessor-checkpoint": raw})
        return None
    except CountermarkError as error:
        notes.add(view_finding(error, "the predecessor's checkpoint"))
        return None
    notes.cover("predecessor's checkpoint signatures", len(head.log_signatures) + len(head.cosignatures))
    return head


def _compare(said: Predecessor, head: VerifiedCheckpoint, reader: LogReader, notes: Notes) -> None:
    """(2), (3) Every disagreement is a finding of its own."""
    objects = {"predecessor-checkpoint": head.raw}
    if said.log != head.origin:
        message = f"entry 0 names the log {said.log}, its predecessor is {head.origin}"
        notes.add(finding("predecessor-origin", message, entry=said.log, log=head.origin), objects)
    there = min(said.tree_size, head.size)
    root = reader.root_at(there).hex()
    if said.tree_size != head.size:
        message = f"entry 0 names {said.tree_size} entries, the predecessor has {head.size}"
        notes.add(finding("predecessor-size", message, entry=said.tree_size, log=head.size), objects)
    if root != said.root_hash:
        message = f"entry 0 names the root hash {said.root_hash}, the predecessor's at {there} is {root}"
        notes.add(finding("predecessor-root", message, entry=said.root_hash, log=root), objects)
    last = reader.entry(there - 1)
    kind, objects = _type(last), objects | {"predecessor-entry": last}
    if kind != "log-freeze":
        message = f"the predecessor's entry {there - 1} is of type {kind}, not its log-freeze"
        notes.add(finding("predecessor-frozen", message, index=there - 1, type=kind), objects)
    elif head.size > there:
        message = f"the predecessor was frozen by entry {there - 1}, and has {head.size} entries now"
        notes.add(finding("predecessor-grew", message, frozen=there - 1, size=head.size), objects)
    notes.cover("predecessor named by entry 0")


def _type(raw: bytes) -> str:
    try:
        return Entry.parse(raw).type
    except MalformedError:
        return "none"
