"""Old metadata goes, after a time that mirrors and clients can rely on.

    a publish replaces   tuf/12.snapshot.json, tuf/4.bins-0a7.json        noted with its candidate's row
    its timestamp is public                                               the time begins to run
    `tuf.retention` later                                                 the files are removed, the note after them

A publish at 16,384 bins writes half a megabyte of snapshot that the next one replaces. Who has read a timestamp may
still ask for everything it leads to as long as `tuf.retention` says, counted from the moment at which another
timestamp took its place: a client in the middle of a refresh, and a mirror in the middle of a sync, lose nothing
within it. Roots, the ceremony's roles, trust files, tiles of bins and lists of changed bins stay for ever: clients
walk the first, auditors read the last.

Which files go is written down when they are replaced, in the transaction that replaces them; nothing is guessed from
what lies in the tree. Files of before this was noted stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import Connection, Engine

from countermark.rules import Key
from countermark_server import db
from countermark_server.ruleview import SqlView
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import Public
from countermark_server.tufrepo.candidate import Current

_QUEUE: Key = (
    "tufrepo",
    "old",
)  # "first" candidate with a note, the first whose time has not "begun", the "last"
_REMOVABLE = re.compile(r"tuf/[1-9][0-9]*\.(snapshot|bins-[0-9a-f]+)\.json")


def replaced(before: Current, changed: Iterable[int], *, snapshot: bool) -> list[str]:
    """The files that nothing names any more once these bins, and the snapshot, have a newer version."""
    names = [
        f"tuf/{before.bins[number].version}.{before.role(number)}.json"
        for number in changed
        if number < len(before.bins)
    ]
    if snapshot and before.snapshot is not None:
        names.append(f"tuf/{before.snapshot['version']}.snapshot.json")
    return names


def note(connection: Connection, candidate_id: int, names: list[str]) -> None:
    """Remember what a candidate replaces; its time does not run before a timestamp is public."""
    with SqlView(connection, db.tufrepo_state) as view:
        queue = view.get(_QUEUE) or {"first": candidate_id, "begun": candidate_id}
        view.put(_QUEUE, {**queue, "last": candidate_id})
        if names:
            view.put(_key(candidate_id), {"files": names, "since": None})


def begin(connection: Connection, *, now: int) -> None:
    """A timestamp is public: what its candidate, and those before it that got none, replaced is old from now on."""
    with SqlView(connection, db.tufrepo_state) as view:
        queue = view.get(_QUEUE)
        if queue is None:  # the candidate is of before any of this was noted
            return
        for candidate_id in range(queue["begun"], queue["last"] + 1):
            if (found := view.get(_key(candidate_id))) is not None:
                view.put(_key(candidate_id), {**found, "since": now})
        view.put(_QUEUE, {**queue, "begun": queue["last"] + 1})


def clean(engine: Engine, public: Public, *, before: int) -> int:
    """Remove the oldest note's files if they have been old since before this time; how many went."""
    with db.read(engine) as connection:
        view = SqlView(connection, db.tufrepo_state)
        queue = view.get(_QUEUE) or {"first": 0, "begun": 0}
        for candidate_id in range(queue["first"], queue["begun"]):
            if (found := view.get(_key(candidate_id))) is not None:
                break
        else:
            return 0
    if found["since"] >= before:
        return 0
    for name in found["files"]:
        if _REMOVABLE.fullmatch(name) is None:
            raise StoreError(f"{name} was noted for removal, and never goes")
        public.remove(name)
        # If we stop here the note still names every file: the next step removes them again, the rest with them.
    with db.write(engine) as connection, SqlView(connection, db.tufrepo_state) as view:
        queue = view.get(_QUEUE) or queue
        view.put(_QUEUE, {**queue, "first": candidate_id + 1})
        view.put(_key(candidate_id), None)
    # Forgotten. A file that a power failure brings back is named by nothing and does no harm.
    return len(found["files"])


def _key(candidate_id: int) -> Key:
    return ("tufrepo", "old", str(candidate_id))
