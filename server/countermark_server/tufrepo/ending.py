"""What a freeze asks of this room: one last publish that will stay, and then nothing but the relay.

    ending(engine, origin, ...)     None: as ever · DUE: the last publish · DONE: not even a heartbeat

The last publish signs every bin and the snapshot once more, for as long as the offline roles live, since no later
entry can name others. It has applied every entry of the log; one that comes in behind it asks for another one.
The timestamp stays short-lived: the timestamper carries it on over this metadata and the final checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sqlalchemy import Connection, Engine
from tuf.api.metadata import Metadata, Root, Targets

from countermark.errors import EvidenceError
from countermark_server import closing, db
from countermark_server.stores.public import Public
from countermark_server.tufrepo.candidate import Current
from countermark_server.tufrepo.pending import Pending


class Ending(Enum):
    """How far this room is with a freeze."""

    DUE = "due"
    DONE = "done"


@dataclass(frozen=True)
class Closed:
    """What the database says of a freeze, read before the log is: then the log holds all that came to its end."""

    row: closing.Closing
    quiet: bool


def find_closed(connection: Connection, origin: str) -> Closed | None:
    """None where nobody freezes this registry."""
    row = closing.find(connection, origin)
    return None if row is None else Closed(row, closing.is_quiet(connection))


def ending(
    engine: Engine, origin: str, closed: Closed | None, current: Current, pending: Pending
) -> Ending | None:
    """Whether this registry is being frozen, and what that leaves to do here. `pending` was read after `closed`."""
    if pending.frozen:
        return Ending.DONE
    if closed is None:
        return None
    behind = pending.applied - current.applied  # its own `tuf` entry is one of them
    if closed.row.last_candidate is not None:
        if behind <= 1:
            return Ending.DONE
        with db.write(engine) as connection:
            closing.publish_last(connection, origin, None)
        # Forgotten: somebody was let in, or a moderator decided. If we stop here the next look says the same.
    waits = pending.contents or pending.status_since is not None
    return Ending.DUE if closed.quiet and not waits else None


def offline_expires(public: Public, root: Root, current: Current) -> datetime:
    """When the first of the ceremony's roles expires: past it nobody trusts this registry without a ceremony."""
    found = [root.expires]
    for role, version in current.offline.items():
        raw = public.read(f"tuf/{version}.{role}.json")
        if raw is None:
            raise EvidenceError(f"{version}.{role}.json is missing from the public tree")
        found.append(Metadata[Targets].from_bytes(raw).signed.expires)
    return min(found)
