"""Pauses between looks: short while there is work, longer when there is none, and never longer than said."""

from __future__ import annotations

import threading

import pytest

from countermark_server.pace import PATIENCE, SLOWEST, Pace


class Event(threading.Event):
    """Notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        return False


def test_an_idle_station_looks_less_and_less_often() -> None:
    """The full pace for the time of patience, then half of it, and so on down to the slowest; an hour is cheap."""
    stop, pace = Event(), Pace(0.02)
    while sum(stop.waited) < 3600:
        pace.wait(stop, busy=False)
    assert stop.waited == sorted(stop.waited) and set(stop.waited) == {0.02, 0.04, 0.08, SLOWEST}
    assert sum(each for each in stop.waited if each == 0.02) == pytest.approx(PATIENCE, abs=0.02)
    assert len(stop.waited) / 3600 < 7


def test_work_brings_the_full_pace_back() -> None:
    """After work nothing is waited for, and the next pause is the shortest again."""
    stop, pace = Event(), Pace(0.02)
    for _ in range(500):
        pace.wait(stop, busy=False)
    assert stop.waited[-1] == SLOWEST
    seen = len(stop.waited)
    pace.wait(stop, busy=True)
    assert len(stop.waited) == seen
    pace.wait(stop, busy=False)
    assert stop.waited[-1] == 0.02


def test_a_pace_that_is_slower_than_the_slowest_is_kept() -> None:
    """Whoever sets a minute means a minute."""
    stop, pace = Event(), Pace(60)
    for _ in range(3):
        pace.wait(stop, busy=False)
    assert stop.waited == [60, 60, 60]
