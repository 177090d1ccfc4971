"""The TUF timestamp's own members: what ties TUF's view of a registry to its log.

    "x-countermark-log": {"checkpoint": "registry.example\\n812\\n...", "origin": "registry.example",
                          "root_hash": "6f1c...", "size": 812}
    "x-countermark-bins": {"bit_length": 12, "root": "9b1d..."}
    "x-countermark-applied": 810            how many entries the listing takes into account

ngclient verifies the signature and keeps what it does not know; here it is parsed. Whether it is true is for
trust.py: the checkpoint is opened, and compared with what is said beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from countermark.errors import MalformedError
from countermark.fetch import decode_json
from countermark.timeline import SeenTimestamp
from countermark.tlog.merkle import HASH_SIZE


@dataclass(frozen=True)
class Timestamp:
    """The members of a TUF timestamp that are ours, parsed; ngclient verified the signature."""

    raw: bytes
    version: int
    expires: int
    checkpoint: bytes
    origin: str
    size: int
    root_hash: str
    bins_root: bytes
    bit_length: int
    applied: int

    @classmethod
    def parse(cls, raw: bytes) -> Timestamp:
        """Read the signed part; EvidenceError when a member we require is missing or has another type."""
        try:
            signed: Any = decode_json(raw)["signed"]
            log, bins = signed["x-countermark-log"], signed["x-countermark-bins"]
            expires = datetime.strptime(signed["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            found = cls(
                raw=raw,
                version=signed["version"],
                expires=int(expires.timestamp()),
                checkpoint=log["checkpoint"].encode(),
                origin=log["origin"],
                size=log["size"],
                root_hash=log["root_hash"],
                bins_root=bytes.fromhex(bins["root"]),
                bit_length=bins["bit_length"],
                applied=signed["x-countermark-applied"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MalformedError(f"the timestamp lacks what ties it to the log: {error!r}") from None
        numbers = (found.version, found.size, found.bit_length, found.applied)
        if (
            any(type(number) is not int or number < 0 for number in numbers)
            or len(found.bins_root) != HASH_SIZE
        ):
            raise MalformedError("the timestamp's log, bins or applied member is malformed")
        return found

    @property
    def seen(self) -> SeenTimestamp:
        return SeenTimestamp(self.version, hashlib.sha256(self.raw).hexdigest(), self.size)
