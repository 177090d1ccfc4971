"""Listing: which TUF targets the log's history demands, bin by bin. Pure; tufrepo and the timestamper share it.

    overlay = Overlay(base.get)                     # state after the entries applied so far, written to memory
    touched = Touched()
    for each entry: judge it, put its changes, touched.note(overlay, changes)
    touched.bins(12)     # {167: {"files/acme/acme-1.0.tar.gz": {"custom": ..., "hashes": ...}}}

tufrepo writes these targets into bins and signs them. The timestamper, which trusts nothing tufrepo says,
computes them again from the same entries and signs only what is equal; what one file's target must be is the
client's to say (countermark/listing.py), so auditors say the same. None stands for a target that must not be
there. Files that no entry touched keep the target they have: no one ever walks the whole registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from countermark.listing import STATUS_TYPES, Target, bin_index, target_of
from countermark.rules import LOG, Changes, Key, State, View, touched_files

__all__ = ["STATUS_TYPES", "Overlay", "Target", "Touched", "bin_index", "target_of", "updated"]


class Overlay:
    """State that is read from below and written to memory, so that a replay can be dropped or kept."""

    def __init__(self, below: Callable[[Key], State | None]) -> None:
        self._below = below
        self.writes: dict[Key, State | None] = {}

    def get(self, key: Key, /) -> State | None:
        """The newest value of a key."""
        return self.writes[key] if key in self.writes else self._below(key)

    def put(self, key: Key, value: State | None, /) -> None:
        """Give a key its value, up here only; None removes it."""
        self.writes[key] = value


@dataclass
class Touched:
    """The targets that entries have touched since the last publish: what each must be now."""

    targets: dict[str, Target | None] = field(default_factory=dict)

    def note(self, view: View, changes: Changes) -> None:
        """Take up what one entry changed; `view` holds its changes already."""
        for key in touched_files(view, changes):
            path, target = target_of(view, key)
            if target is not None or not _is_new(view, key):
                self.targets[path] = target

    def bins(self, bit_length: int) -> dict[int, dict[str, Target | None]]:
        """The same, by the bin each path belongs to."""
        found: dict[int, dict[str, Target | None]] = {}
        for path, target in self.targets.items():
            found.setdefault(bin_index(path, bit_length), {})[path] = target
        return found


def _is_new(view: View, key: Key) -> bool:
    """Whether the newest entry published this file: no bin can hold it yet, so none need be read for its sake."""
    file, log = view.get(key), view.get(LOG)
    return file is not None and log is not None and file["index"] == log["size"] - 1


def updated(targets: dict[str, Target], touched: dict[str, Target | None]) -> dict[str, Target]:
    """A bin's targets after its touched ones took their new values."""
    merged = {**targets, **touched}
    return {path: target for path, target in sorted(merged.items()) if target is not None}
