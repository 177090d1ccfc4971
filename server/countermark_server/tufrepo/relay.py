"""The relay: from the timestamper's own door to the public tree, checked on the way.

The timestamper decides alone; this room only takes its newest timestamp to where clients look, and never
replaces a newer one by an older one. Whoever owns this machine could hold a timestamp back: clients then see
an old one, and after 75 minutes say who is late.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuf.api.metadata import Metadata, Root, Timestamp

from countermark.errors import EvidenceError
from countermark.fetch import Fetcher
from countermark.limits import TIMESTAMP_LIFETIME, TIMESTAMP_MAX_BYTES
from countermark.statement import is_sha256
from countermark.timestamp import Timestamp as Carried
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.policy import Policy
from countermark_server import telemetry
from countermark_server.stores.public import TIMESTAMP, Public


@dataclass(frozen=True)
class Relay:
    """Between one timestamper and one public tree."""

    public: Public
    root: Root
    policy: Policy
    timestamper: Fetcher
    url: str

    def unlogged(self) -> list[str]:
        """Digests of timestamps that the timestamper signed and the log does not hold. NetworkError: no answer."""
        raw = self._ask("unlogged.json")
        try:
            said = {"unlogged": []} if raw is None else json.loads(raw)
            digests: list[str] = said["unlogged"]
            sound = all(map(is_sha256, digests)) and len(set(digests)) == len(digests)
        except (ValueError, LookupError, TypeError, RecursionError):
            sound = False
        if not sound:  # the log would refuse an entry with it, and an entry of ours must not be refused
            raise EvidenceError("the timestamper's unlogged.json is not a list of digests")
        return digests

    def take(self, snapshot: Mapping[str, Any], *, bins_root: str, applied: int, entry: int) -> bool:
        """Publish the timestamper's timestamp, if it is the one for the `tuf` entry at index `entry`."""
        raw = self._ask("timestamp.json")
        if raw is None:
            return False
        carried = Carried.parse(raw)
        if carried.size <= entry or (carried.bins_root.hex(), carried.applied) != (bins_root, applied):
            return False
        return self._publish(raw, carried, snapshot)

    def take_recarried(self) -> bool:
        """Publish a newer timestamp over the metadata that is public, if there is one."""
        raw, public = self._ask("timestamp.json"), self.public.read(TIMESTAMP)
        if raw is None or public is None or raw == public:
            return False
        snapshot = _snapshot(Metadata[Timestamp].from_bytes(public))
        if _snapshot(Metadata[Timestamp].from_bytes(raw))["version"] > snapshot["version"]:
            return False  # it is for a candidate that is on its way: `take` compares it with that one
        return self._publish(raw, Carried.parse(raw), snapshot)

    def signed_at(self) -> float | None:
        """When the public timestamp was signed."""
        raw = self.public.read(TIMESTAMP)
        return None if raw is None else Carried.parse(raw).expires - TIMESTAMP_LIFETIME.total_seconds()

    def _publish(self, raw: bytes, carried: Carried, snapshot: Mapping[str, Any]) -> bool:
        metadata = Metadata[Timestamp].from_bytes(raw)
        self.root.verify_delegate("timestamp", metadata.signed_bytes, metadata.signatures)
        named = _snapshot(metadata)
        if named != dict(snapshot):
            raise EvidenceError(f"the timestamper signed snapshot {named}, ours is {dict(snapshot)}")
        checkpoint = open_checkpoint(carried.checkpoint, self.policy, now=None)
        if checkpoint.size != carried.size:
            raise EvidenceError(f"the timestamp says size {carried.size}, its checkpoint {checkpoint.size}")

        def newer(public: bytes | None) -> None:
            if public is not None and public != raw and Carried.parse(public).version >= carried.version:
                raise EvidenceError(f"timestamp {carried.version} is not newer than the public one")

        # Compared with what it takes the place of, not with what lay there a moment ago: a paused relay that
        # wakes beside another one puts no old timestamp over a newer one.
        self.public.replace(TIMESTAMP, raw, newer)
        # Public: this is the moment at which a publish has happened.
        telemetry.logger().info(
            "timestamp published", version=carried.version, applied=carried.applied, size=carried.size
        )
        return True

    def _ask(self, name: str) -> bytes | None:
        return self.timestamper.get(f"{self.url}/{name}", max_bytes=TIMESTAMP_MAX_BYTES, missing_ok=True)


def _snapshot(metadata: Metadata[Timestamp]) -> dict[str, Any]:
    """The snapshot a timestamp names, as a `tuf` entry names it."""
    meta = metadata.signed.snapshot_meta
    return {"length": meta.length, "sha256": (meta.hashes or {}).get("sha256"), "version": meta.version}
