"""The clock of the log's machine, believed as far as a quorum of witnesses vouches for it.

    watch.begin(quorum_time)         # at the start: what the witnesses answered
    now = watch.now()                # the wall clock; ClockLeaptError: it has leapt ahead
    watch.vouch(quorum_time)         # whenever a checkpoint was cosigned

No leaf's time goes back, and timestamper and monitors refuse one that is far ahead of the quorum's. A clock that is a
year ahead for a single round would so stop the log for a year. Here it stops rounds and publications instead, for as
long as it is wrong: nothing is staged or signed, no witness is asked, proposals wait.

How late it is, the watch reckons from what nobody can set on this machine: the quorum time of the newest checkpoint
that was cosigned, and the seconds since then by a clock that only elapses. A wall clock more than LEAF_TIME_MAX_LEAD
ahead of the sum has leapt. One that went back has not: the leaves' time stands still then.

A leap can be right, where the clock was behind before, or a virtual machine was paused. So one that has lasted for a
minute is put to a quorum, and believed when that says the same. A quorum that witnesses on this machine make by
themselves reads this very clock, and agrees with whatever it says: against their leaps there is only the minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from countermark.limits import LEAF_TIME_MAX_LEAD
from countermark_server import telemetry

LEAD = LEAF_TIME_MAX_LEAD.total_seconds()
LASTING = 60.0  # seconds until a quorum is asked about a leap, and between two questions


class ClockLeaptError(Exception):
    """The wall clock is far ahead of what a quorum vouched for; nothing was begun."""


def seconds_elapsed() -> float:
    """Seconds by a clock that nobody sets; where the system knows (Linux), those of a suspension count."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass
class _Leap:
    """A leap that goes on."""

    ahead: float  # seconds, as it was seen first
    since: float  # by the clock that elapses, as is the next one
    ask_at: float
    was_doubted: bool = False  # a quorum said another time, and so did a line of ours


class ClockWatch:
    """The wall clock, and whether it has leapt. Threads may share it."""

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._vouched: tuple[float, float] | None = None  # a quorum's time, and what had elapsed then
        self._leap: _Leap | None = None

    def wall(self) -> float:
        """What the clock says, right or wrong."""
        return self._wall()

    def now(self) -> float:
        """What the clock says; ClockLeaptError: it has leapt. Before `begin` it is taken as it is."""
        with self._lock:
            wall, _ = self._look()
            if self._leap is not None:
                raise ClockLeaptError(f"the clock has leapt to {int(wall)}, {int(self._leap.ahead)} s ahead")
            return wall

    def nearest(self) -> float:
        """What the clock says, or ought to say while it has leapt."""
        with self._lock:
            wall, elapsed = self._look()
            return wall if self._leap is None else self._reckoned(wall, elapsed)

    def has_leapt(self) -> bool:
        with self._lock:
            self._look()
            return self._leap is not None

    def begin(self, quorum_time: int | None) -> None:
        """The witnesses' answer at the start; None: there is none, and the operator's word is for our clock."""
        with self._lock:
            wall, elapsed = self._look()
            self._vouched = (quorum_time or wall, elapsed)

    def vouch(self, quorum_time: int) -> None:
        """A quorum has cosigned. During a leap, or far behind a clock that has not leapt, its time moves nothing."""
        with self._lock:
            wall, elapsed = self._look()
            stated = quorum_time or wall  # a policy without a quorum has no time
            if self._leap is None and wall - stated <= LEAD:
                self._vouched = (stated, elapsed)

    def is_to_be_asked(self) -> bool:
        """True once a minute while a leap lasts: now a quorum is to be asked, and its answer to be heard."""
        with self._lock:
            _, elapsed = self._look()
            if self._leap is None or elapsed < self._leap.ask_at:
                return False
            self._leap.ask_at = elapsed + LASTING
            return True

    def hear(self, quorum_time: int) -> None:
        """What a quorum says that was asked during a leap: the leap is believed, or goes on."""
        with self._lock:
            wall, elapsed = self._look()
            stated = quorum_time or wall
            if self._leap is None:
                return  # over by itself meanwhile
            if wall - stated <= LEAD:
                self._vouched = (stated, elapsed)
                self._end("the quorum agrees with the clock", wall, elapsed)
            elif not self._leap.was_doubted:
                self._leap.was_doubted = True
                telemetry.logger().error(
                    "the quorum disagrees with the clock", clock=int(wall), quorum=stated
                )

    def _look(self) -> tuple[float, float]:
        """Both clocks. The wall clock first: a machine that is suspended in between has not leapt."""
        wall = self._wall()
        elapsed = self._elapsed()
        ahead = wall - self._reckoned(wall, elapsed)
        leap = self._leap
        if ahead <= LEAD:
            if leap is not None:
                self._end("the clock is right again", wall, elapsed)
        elif leap is None or abs(ahead - leap.ahead) > LEAD:  # or it leaps on: then its minute begins anew
            self._leap = _Leap(ahead, elapsed, elapsed + LASTING)
            telemetry.logger().error(
                "the clock has leapt ahead: nothing is sequenced or published",
                clock=int(wall),
                ahead=int(ahead),
            )
        if self._leap is not None:
            telemetry.CLOCK_LEAPT.set(elapsed - self._leap.since)
        return wall, elapsed

    def _reckoned(self, wall: float, elapsed: float) -> float:
        """How late it must be."""
        return wall if self._vouched is None else self._vouched[0] + elapsed - self._vouched[1]

    def _end(self, why: str, wall: float, elapsed: float) -> None:
        assert self._leap is not None
        lasted = int(elapsed - self._leap.since)
        self._leap = None
        telemetry.CLOCK_LEAPT.set(0)
        telemetry.logger().warning(why, clock=int(wall), lasted=lasted)
