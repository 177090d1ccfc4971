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
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

from countermark.canonical import encode_canonical
from countermark.entry import Entry
from countermark.errors import MalformedError, UsageError
from countermark.rules import LOG, Broken, Changes, Key, State, View, apply, keys, skip
from countermark.tlog import merkle
from countermark.values import dataclass

AHEAD = 1024  # leaves whose keys are asked for at once
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
    fetch: Callable[[Iterable[Key]], None] | None = None,
) -> int:
    """Judge and apply the leaves that follow the view's size; the size behind the last one.

    `on_changes` is told of every entry that was allowed, after the view holds it. A view over a database may
    `fetch` what the next leaves will ask for, which spares it a question for each; it is only a hint.
    """
    for index, (raw, entry) in enumerate(_opened(leaves, view, fetch), start=_size(view)):
        result = entry if isinstance(entry, Broken) else apply(view, entry)
        if isinstance(result, Broken):
            put_all(view, skip(view))
            on_finding(Finding(index, merkle.leaf_hash(raw), result))
            continue
        put_all(view, result)
        if on_changes is not None and isinstance(entry, Entry):
            on_changes(index, entry, result)
    return _size(view)


def judge(view: View, raw: bytes) -> tuple[Entry | None, Changes | Broken]:
    """Read one leaf as the log's state says it is to be read, and judge it. Nothing is changed."""
    entry = _open(view, raw)
    return (None, entry) if isinstance(entry, Broken) else (entry, apply(view, entry))


def _opened(
    leaves: Iterable[bytes], view: View, fetch: Callable[[Iterable[Key]], None] | None
) -> Iterator[tuple[bytes, Entry | Broken]]:
    """Each leaf, read; a batch at a time where somebody wants to know what comes."""
    opened = ((raw, _open(view, raw)) for raw in leaves)
    if fetch is None:
        yield from opened
        return
    while batch := list(islice(opened, AHEAD)):
        fetch(key for _, entry in batch if isinstance(entry, Entry) for key in keys(entry))
        yield from batch


def _open(view: View, raw: bytes) -> Entry | Broken:
    """Read one leaf as the log's state, which never changes its mind about that, says it is to be read."""
    log = view.get(LOG)
    try:
        return Entry.opaque(raw) if log is not None and log["raw_add"] else Entry.parse(raw)
    except MalformedError as error:
        return Broken("malformed", str(error), "log")


def _size(view: View) -> int:
    log = view.get(LOG)
    if log is None:
        raise UsageError("the rules' state is empty: it starts from genesis()")
    return int(log["size"])
