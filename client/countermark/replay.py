"""Replay: a log's leaves through the rules, in order, against a view that keeps what they did.

    view = DictView()
    view.apply(rules.genesis(origin="example.com/registry", authority_key=spki))
    size = replay(leaves, view, on_finding=findings.append)

The timestamper, the auditor and fsck all do this, with different views. A leaf that is malformed, breaks a
rule, or isn't understood becomes a Finding and changes nothing but the size; replay goes on behind it. Leaves
must be authenticated first (tlog/tile.py): a finding here accuses the log, not the road to it.

Nothing is durable here: a view over a database commits where its owner says so, together with the size in
("log",), so that a replay that dies goes on at the entry after the last one that was committed.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

from countermark.canonical import encode_canonical
from countermark.entry import Entry
from countermark.errors import MalformedError, UsageError
from countermark.rules import LOG, Broken, Changes, Key, State, View, apply, skip
from countermark.tlog import merkle
from countermark.values import dataclass

GARBAGE = (50_000, 20, 50)  # for a process that replays: each leaf makes many values, and no cycles


class MutableView(View, Protocol):
    """A view that can be written: None removes a key."""

    def put(self, key: Key, value: State | None, /) -> None: ...


class DictView:
    """State in memory. Values are shared, not copied: rules never change what they read, nor may others."""

    def __init__(self) -> None:
        self._values: dict[Key, State] = {}

    def get(self, key: Key, /) -> State | None:
        return self._values.get(key)

    def put(self, key: Key, value: State | None, /) -> None:
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def apply(self, changes: Changes) -> None:
        put_all(self, changes)

    def items(self) -> list[tuple[Key, State]]:
        """Everything, in order of key."""
        return sorted(self._values.items())

    def digest(self) -> str:
        """One number for the whole state: equal exactly when two replays agree."""
        hasher = hashlib.sha256()
        for key, value in self.items():
            hasher.update(encode_canonical([list(key), value]) + b"\n")
        return hasher.hexdigest()


@dataclass(frozen=True)
class Finding:
    """A leaf that should not be in the log."""

    index: int
    leaf_hash: bytes
    broken: Broken

    def __str__(self) -> str:
        return f"entry {self.index}: {self.broken.code}: {self.broken.message} (at fault: the {self.broken.party})"


def quicken() -> None:
    """Let this process look for cyclic garbage less often: looking takes much of a replay, and finds nothing."""
    gc.set_threshold(*GARBAGE)


def put_all(view: MutableView, changes: Changes) -> None:
    """Write what an entry does."""
    for key, value in changes.writes.items():
        view.put(key, value)


def replay(
    leaves: Iterable[bytes],
    view: MutableView,
    *,
    on_finding: Callable[[Finding], None],
    on_changes: Callable[[int, Entry, Changes], None] | None = None,
) -> int:
    """Judge and apply the leaves that follow the view's size; the size behind the last one.

    `on_changes` is told of every entry that was allowed, after the view holds it.
    """
    for index, raw in enumerate(leaves, start=_size(view)):
        entry, result = judge(view, raw)
        if isinstance(result, Broken):
            put_all(view, skip(view))
            on_finding(Finding(index, merkle.leaf_hash(raw), result))
            continue
        put_all(view, result)
        if on_changes is not None and entry is not None:
            on_changes(index, entry, result)
    return _size(view)


def judge(view: View, raw: bytes) -> tuple[Entry | None, Changes | Broken]:
    """Read one leaf as the log's state says it is to be read, and judge it. Nothing is changed."""
    log = view.get(LOG)
    try:
        entry = Entry.opaque(raw) if log is not None and log["raw_add"] else Entry.parse(raw)
    except MalformedError as error:
        return None, Broken("malformed", str(error), "log")
    return entry, apply(view, entry)


def _size(view: View) -> int:
    log = view.get(LOG)
    if log is None:
        raise UsageError("the rules' state is empty: it starts from genesis()")
    return int(log["size"])
