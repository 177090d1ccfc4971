"""The log's history as the timestamper reads it: entries behind those applied, once through the rules.

Up to the new A (the `applied` of the newest `tuf` entry) state and touched targets are kept; from there to the
checkpoint's size they are only looked at, for three things: the `tuf` entries themselves, the timestamps they log,
and status entries that wait to be applied. So the database always stands at A, whatever the log's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark import replay, rules
from countermark.entry import Entry
from countermark.errors import CountermarkError
from countermark.limits import LEAF_TIME_MAX_LEAD
from countermark.rules import Key, State
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.trustfile import TrustFile
from countermark_server.listing import STATUS_TYPES, Overlay, Touched
from countermark_server.timestamper.chain import OFFLINE
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.store import Store


@dataclass
class Told:
    """What the log says of TUF, up to some entry."""

    index: int | None = None  # of the newest `tuf` entry
    predicate: Mapping[str, Any] | None = None
    files: dict[str, Any] = field(default_factory=dict)  # newest of each role, as entries name them
    timestamps: set[str] = field(default_factory=set)
    frozen: bool = False  # the log has had its last entry: no timestamp can be logged any more

    @classmethod
    def load(cls, store: Store) -> Told:
        """What was accepted last."""
        return cls(store.fact("tuf_index"), store.fact("predicate"), dict(store.fact("files") or {}))

    def note(self, index: int, predicate: Mapping[str, Any]) -> None:
        """Take up one `tuf` entry."""
        self.index, self.predicate = index, predicate
        named = {role: predicate[role] for role in ("root", "snapshot", *OFFLINE) if predicate[role]}
        self.files = {**self.files, **named}
        self.timestamps |= set(predicate["timestamps"])


@dataclass
class History:
    """The log read up to a checkpoint."""

    applied: int  # A
    kept: Overlay  # the rules' state after A entries
    told: Told
    touched: Touched = field(default_factory=Touched)
    status: list[tuple[int, str, int]] = field(default_factory=list)  # index, type, time: at or above A
    findings: list[replay.Finding] = field(default_factory=list)


class _Known:
    """The state in the database as far as it was asked for, within one transaction, which changes none of it here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._values: dict[Key, State | None] = {}

    def get(self, key: Key) -> State | None:
        if key not in self._values:
            self._values[key] = self._store.get(key)
        return self._values[key]

    def fetch(self, keys: Iterable[Key]) -> None:
        self._values |= self._store.get_all({key for key in keys if key not in self._values})


def start(store: Store, trust_file: TrustFile) -> Overlay:
    """The rules' state where the last accepted A left it, or genesis; writes stay in memory."""
    return _start(_Known(store), trust_file)


def _start(known: _Known, trust_file: TrustFile) -> Overlay:
    base = Overlay(known.get)
    if base.get(rules.LOG) is None:
        replay.put_all(base, rules.genesis(origin=trust_file.origin, authority_key=trust_file.authority_key))
    return base


def size(view: Overlay) -> int:
    """How many entries the state holds."""
    log = view.get(rules.LOG)
    assert log is not None  # start() made it
    return int(log["size"])


def read(
    store: Store, trust_file: TrustFile, leaves: Sequence[bytes], checkpoint: VerifiedCheckpoint
) -> History:
    """Replay the leaves that follow the state in `store`."""
    applied = _guess(leaves)
    for _ in range(2):
        done = _read(store, trust_file, leaves, checkpoint, applied)
        if done.told.predicate is None or done.told.predicate["applied"] == done.applied:
            return done
        # The newest `tuf` leaf broke a rule, so an older one is in force: once more, up to that one's A.
        applied = int(done.told.predicate["applied"])
    raise RefusalError("applied", f"no `tuf` entry states the {done.applied} entries it was read with")


def _guess(leaves: Sequence[bytes]) -> int:
    """The A of the newest `tuf` leaf; whether the rules allow it shows in the replay."""
    for raw in reversed(leaves):
        if b'"type":"tuf"' not in raw:
            continue
        try:
            entry = Entry.parse(raw)
        except CountermarkError:
            continue
        if entry.type == "tuf" and entry.statement is not None:
            return int(entry.statement.predicate["applied"])
    return 0


def _read(
    store: Store,
    trust_file: TrustFile,
    leaves: Sequence[bytes],
    checkpoint: VerifiedCheckpoint,
    applied: int,
) -> History:
    known = _Known(store)
    base = _start(known, trust_file)
    first = size(base)
    keep = max(0, min(applied - first, len(leaves)))
    done = History(first + keep, base, Told.load(store))
    limit = (checkpoint.quorum_time or 0) + int(LEAF_TIME_MAX_LEAD.total_seconds())

    def look(index: int, entry: Entry) -> None:
        if checkpoint.quorum_time and entry.time > limit:
            seen = checkpoint.quorum_time
            raise RefusalError(
                "leaf-time", f"entry {index} is stamped {entry.time}, the quorum saw it at {seen}"
            )
        if entry.type == "tuf" and entry.statement is not None:
            done.told.note(index, entry.statement.predicate)
        if entry.type == "log-freeze":
            done.told.frozen = True

    def keep_it(index: int, entry: Entry, changes: rules.Changes) -> None:
        look(index, entry)
        done.touched.note(base, changes)

    def look_at_it(index: int, entry: Entry, changes: rules.Changes) -> None:
        look(index, entry)
        if entry.type in STATUS_TYPES:
            done.status.append((index, entry.type, entry.time))

    on_finding = done.findings.append
    replay.replay(leaves[:keep], base, on_finding=on_finding, on_changes=keep_it, fetch=known.fetch)
    above = Overlay(base.get)
    replay.replay(leaves[keep:], above, on_finding=on_finding, on_changes=look_at_it, fetch=known.fetch)
    return done
