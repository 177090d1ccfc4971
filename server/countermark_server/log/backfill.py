"""Backfill: the lines of an open import, for the sequencer to append.

    lines = backfill.lines(opened, most=4096)      # the next ones, or none while the manifest can't be had

An `import` entry names a manifest; from the moment it is sequenced the log knows which line comes next
(`import` in ("log",), countermark/rules_import.py), and every round takes some of them behind the proposals that
wait. So an import needs nobody to carry it on: it stops where the log's process stops and goes on where that goes on,
from the state that the last round committed. The command that began it only watches.

The manifest is a blob, named by its SHA-256 and read once. One that is missing or changed stops the import, not
the log: that is said, and asked for again after a while. A backup of the blob, or an import that follows and so ends
this one, is the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.errors import MalformedError
from countermark.imported import Imported
from countermark.manifest import ZERO_NONCE, Line, links, parse_manifest
from countermark_server import telemetry
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

LINES_PER_ROUND = 2048  # some 100 ms: what a live upload may have to wait for
RETRY_SECONDS = 5.0  # until a manifest that could not be had is asked for again


@dataclass(frozen=True)
class _Manifest:
    """A manifest, read; by the leaf hash of its import entry."""

    head: str
    lines: Sequence[Line]
    links: Sequence[str]


class Backfill:
    """What there is to append of the import that is open."""

    def __init__(self, blobs: Blobs, *, monotonic: Callable[[], float]) -> None:
        self._blobs = blobs
        self._monotonic = monotonic
        self._manifest: _Manifest | None = None
        self._not_before = float("-inf")

    def due(self, opened: Mapping[str, Any] | None) -> bool:
        """Whether lines are waiting, and may be had as far as we know."""
        return opened is not None and opened["left"] > 0 and self._monotonic() >= self._not_before

    def lines(self, opened: Mapping[str, Any] | None, *, most: int) -> list[Imported]:
        """The next lines of the open import, as they stand in its manifest; `passed` is for the rules to say."""
        if opened is None or not self.due(opened):
            return []
        try:
            manifest = self._read(opened)
        except (OSError, StoreError, MalformedError) as error:
            self._not_before = self._monotonic() + RETRY_SECONDS
            telemetry.logger().error(
                "an import waits for its manifest", entry=opened["index"], error=str(error)
            )
            return []
        first = opened["line"]
        last = min(first + most, first + opened["left"])
        return [
            Imported(manifest.lines[number - 1], opened["index"], number, manifest.links[number], None)
            for number in range(first, last)
        ]

    def _read(self, opened: Mapping[str, Any]) -> _Manifest:
        """The manifest, once for each import. What it must be, the rules' state says."""
        if self._manifest is None or self._manifest.head != opened["head"]:
            raw = self._blobs.read(opened["manifest"])
            if not raw.startswith(ZERO_NONCE):
                raise MalformedError(f"blob {opened['manifest']} is not a public manifest")
            lines = parse_manifest(raw[len(ZERO_NONCE) :])
            chain = links([line.row for line in lines])
            done = opened["line"] - 1
            if len(lines) != done + opened["left"] or chain[done] != opened["chain"]:
                raise MalformedError(
                    f"manifest {opened['manifest']} is not the one entry {opened['index']} binds"
                )
            self._manifest = _Manifest(opened["head"], lines, chain)
        return self._manifest
