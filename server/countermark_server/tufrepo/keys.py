"""Which of our online keys sign: bins by the one that the index names, snapshots by all we hold.

While one key follows another, both sign every snapshot, so that clients of either root accept it; what a client
doesn't know it skips. Bins need no second signature: they change their key in the very snapshot that lists the
index which names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, SuccinctRoles, Targets

from countermark.errors import EvidenceError
from countermark_server.onlinekeys import holder_of
from countermark_server.stores.public import Public
from countermark_server.tufrepo.candidate import Online


@dataclass(frozen=True)
class Keys:
    """Every online key of this room, in the order of the settings."""

    bins: Sequence[Signer]
    snapshot: Sequence[Signer]

    def under(self, root: Root, index: Targets) -> Online:
        """What signs under these two. EvidenceError, with both key ids: they name none of ours."""
        bins = bins_of(index)
        holder_of("snapshot", self.snapshot, root.roles["snapshot"].keyids, f"root {root.version}")
        return Online(holder_of("bins", self.bins, bins.keyids, f"index {index.version}"), self.snapshot)


def bins_of(index: Targets) -> SuccinctRoles:
    """The delegation to all bins."""
    bins = index.delegations and index.delegations.succinct_roles
    if not bins:
        raise EvidenceError(f"index {index.version} delegates to no bins")
    return bins


def read_index(public: Public, version: int) -> Targets:
    """The index role of this version, from our own disk."""
    raw = public.read(f"tuf/{version}.index.json")
    if raw is None:
        raise EvidenceError(f"{version}.index.json is missing from the public tree")
    return Metadata[Targets].from_bytes(raw).signed
