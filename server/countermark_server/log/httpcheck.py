"""fsck over HTTP: a log that somebody serves, whole, against its own checkpoint, with nothing of it on this machine.

    checked = check_url("https://registry.example/log", [vkey], HttpFetcher(), say=print)
    checked.findings, checked.counts.entries

For any log in C2SP tlog-tiles whose checkpoints are signed notes: it needs the keys, each of which must have signed
the checkpoint, and knows nothing of what entries mean (`countermark audit` does). A file that is missing or false is
a finding, a server that can't be reached is an error: nothing is claimed about what was not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.fetch import Fetcher
from countermark.limits import BUNDLE_MAX_BYTES, NOTE_MAX_BYTES
from countermark.tlog.checkpoint import LogCheckpoint, open_log_checkpoint
from countermark.tlog.merkle import HASH_SIZE
from countermark.tlog.note import VerifierKey
from countermark.tlog.tile import WIDTH, Tile
from countermark_server.log.treewalk import Counts, walk

TELL_EVERY = 256  # bundles between two lines of progress


@dataclass(frozen=True)
class Checked:
    """One log, as it was served."""

    url: str
    checkpoint: LogCheckpoint
    counts: Counts
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "entries": self.counts.entries,
            "bundles": self.counts.bundles,
            "findings": list(self.findings),
            "origin": self.checkpoint.origin,
            "root_hash": self.checkpoint.root_hash.hex(),
            "tiles": self.counts.tiles,
            "tree_size": self.checkpoint.size,
            "url": self.url,
        }


def check_url(
    url: str, keys: Sequence[VerifierKey], fetcher: Fetcher, *, say: Callable[[str], None]
) -> Checked:
    """Read a whole log; EvidenceError when not even its checkpoint holds."""
    base = url.rstrip("/")
    raw = fetcher.get(f"{base}/checkpoint", max_bytes=NOTE_MAX_BYTES) or b""
    checkpoint = open_log_checkpoint(raw, keys)

    def fetch(tile: Tile) -> bytes | None:
        limit = BUNDLE_MAX_BYTES if tile.level < 0 else WIDTH * HASH_SIZE
        # Twice that, so that a file with bytes too many is a finding and does not end the walk.
        return fetcher.get(f"{base}/{tile.path()}", max_bytes=2 * limit, missing_ok=True)

    counts, findings = Counts(), list[str]()
    for _ in walk(fetch, checkpoint, counts, findings.append):
        if counts.bundles % TELL_EVERY == 0:
            say(f"{counts.entries} of {checkpoint.size} entries")
    return Checked(base, checkpoint, counts, tuple(findings))
