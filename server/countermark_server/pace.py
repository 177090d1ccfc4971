"""Pace: how long a station waits before it looks for work again.

    pace = Pace(0.02)
    while not stop.is_set():
        pace.wait(stop, busy=station.step())

A look costs a few statements, or a request. Fifty a second are well spent while files come and go, since each look is
what a publisher waits for; in a registry where nothing happens they would be all that its machine ever does. So after
`PATIENCE` seconds without work the pause doubles, again and again, up to `SLOWEST`; the first work brings the full
pace back. What comes first after a quiet time waits for `SLOWEST` at the most.
"""

from __future__ import annotations

import threading

PATIENCE = 1.0  # seconds of looks in vain before the pause doubles
SLOWEST = 0.15  # seconds, unless the pace that was asked for is slower still


class Pace:
    """The pauses of one station, `interval` seconds long while it is busy."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._pause = interval
        self._idle = 0.0  # seconds waited at this pause

    def wait(self, stop: threading.Event, *, busy: bool) -> None:
        """Not at all after work; else the pause of now, or until `stop`."""
        if busy:
            self._pause, self._idle = self._interval, 0.0
            return
        stop.wait(self._pause)
        self._idle += self._pause
        if self._idle >= PATIENCE:
            self._pause = max(self._interval, min(2 * self._pause, SLOWEST))
            self._idle = 0.0
