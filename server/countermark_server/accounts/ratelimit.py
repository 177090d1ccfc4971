"""Rate limits: how often somebody may try before being told to wait.

Counts live in this process's memory and are lost at a restart; several web workers count apart, so the limit of
all is at most the number of workers times the one here. That is enough for what it guards: a one-time code has
80 bits, the limit keeps noise out of the table. Behind a proxy all clients are one source unless the proxy's own
limit tells them apart.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque

from countermark_server.errors import ServerError

SOURCES_MAX = 10_000  # addresses remembered; the one longest silent is forgotten first


class RateLimit:
    """At most `attempts` within `seconds` for each source."""

    def __init__(self, attempts: int, seconds: float) -> None:
        self._attempts, self._seconds = attempts, seconds
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, source: str, *, now: float) -> None:
        """Count one attempt, or raise `too-many-attempts` without counting it."""
        with self._lock:
            times = self._seen.setdefault(source, deque())
            self._seen.move_to_end(source)
            while times and times[0] <= now - self._seconds:
                times.popleft()
            if len(times) >= self._attempts:
                raise ServerError(
                    "too-many-attempts",
                    f"more than {self._attempts} attempts within {self._seconds:.0f} seconds",
                    retry_after=math.ceil(times[0] + self._seconds - now),
                )
            times.append(now)
            while len(self._seen) > SOURCES_MAX:
                self._seen.popitem(last=False)
