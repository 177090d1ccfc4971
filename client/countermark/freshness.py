"""Freshness: how old a view of a registry is, and who is late.

    fresh    fetched within 5 min, signed within 75 min
    ok       not expired: signed within 24 h
    grace    expired for less than 48 h: what this machine verified before may be installed, with a warning
    (older)  StaleError: too old to judge anything by

Each bound is exclusive at its last second: a timestamp counts until the second it names, and not in it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from countermark.errors import StaleError
from countermark.limits import (
    COSIGNATURE_MAX_SKEW,
    FRESH_FETCHED_WITHIN,
    FRESH_SIGNED_WITHIN,
    GRACE,
    TIMESTAMP_LIFETIME,
)
from countermark.timestamp import Timestamp, ago
from countermark.values import dataclass

OPERATOR = "operator"  # who signs timestamps


class Level(Enum):
    """How fresh the view is. Anything staler than grace is a StaleError."""

    FRESH = "fresh"
    OK = "ok"
    GRACE = "grace"


@dataclass(frozen=True)
class Freshness:
    """When the timestamp was signed and fetched, and in words who is late, if anybody is."""

    level: Level
    signed_at: int
    fetched_at: int
    late: str | None = None


def grace_time(cached: bytes, now: int, why: Exception) -> int:
    """The time to judge the cache by when nothing newer can be had; StaleError beyond the grace period."""
    expires = Timestamp.parse(cached).expires
    if now < expires:
        return now
    if now < expires + int(GRACE.total_seconds()):
        return expires - 1
    raise StaleError(
        f"the newest metadata here expired {ago(now - expires)} ago, beyond the grace period: {why}"
    ) from why


def judge(
    timestamp: Timestamp, now: int, *, fetched_at: int, network: str | None = None, source: str = OPERATOR
) -> Freshness:
    """Which level, and who is late: the network or a mirror, the operator, or this machine's own clock.

    `source` is whom to blame for an old timestamp: the operator, or the mirror that served it.
    """
    # The timestamp states when it expires, always the same time after it was signed.
    signed_at = timestamp.expires - int(TIMESTAMP_LIFETIME.total_seconds())
    age = timedelta(seconds=now - signed_at)
    if now >= timestamp.expires:
        return Freshness(Level.GRACE, signed_at, fetched_at, network or source)
    if age < -COSIGNATURE_MAX_SKEW:
        raise StaleError(
            f"the timestamp is good for another {ago(timestamp.expires - now)}, and none is signed for more "
            f"than {ago(int(TIMESTAMP_LIFETIME.total_seconds()))}",
            hint="its key signed it too long, or this machine's clock is behind: compare it with another one",
        )
    late: str | None
    if network:
        late = f"network or mirror: {network}"
    elif age > FRESH_SIGNED_WITHIN:
        late = f"{source}: its last timestamp was signed {ago(int(age.total_seconds()))} ago"
    else:
        late = None
    fetched = timedelta(
        seconds=abs(now - fetched_at)
    )  # ahead of us when the clock went back: not fresh either
    recent = age <= FRESH_SIGNED_WITHIN and fetched <= FRESH_FETCHED_WITHIN
    return Freshness(Level.FRESH if recent else Level.OK, signed_at, fetched_at, late)
