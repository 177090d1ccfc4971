"""Withdrawals: the entry that yanked, held or removed a file, in words that the log vouches for.

    described(view, artifact, 12)       "hold by entry #12 (malware)"; None: that entry says nothing about this file

Where to look is somebody's word (a target's `yank`, the registry's API); what stands there is the log's. Reason
codes are closed lists, so nothing a registry invents reaches the screen.
"""

from __future__ import annotations

from countermark.entry import Entry
from countermark.errors import MalformedError
from countermark.trust import View
from countermark.verified import Artifact

_WORDS = {
    "yank": "yanked",
    "hold": "hold",
    "takedown": "takedown",
    "remove": "remove",
    "key-revoke": "its key revoked",
}


def described(view: View, artifact: Artifact, index: object) -> str | None:
    """What the entry at `index` did to the file, and why; None when it is no such entry of the log."""
    if type(index) is not int or not 0 <= index < view.checkpoint.size:
        return None
    try:
        entry = Entry.parse(view.log.entry(index))
    except MalformedError:
        return None
    statement = entry.statement
    if statement is None or entry.type not in _WORDS:
        return None
    predicate = statement.predicate
    if (predicate["namespace"], predicate["project"]) not in artifact.holders:
        return None
    if entry.type != "key-revoke" and statement.subject_sha256 != artifact.sha256:
        return None
    return f"{_WORDS[entry.type]} by entry #{index} ({predicate['reason']})"
