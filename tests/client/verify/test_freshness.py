"""Freshness at each of its bounds, to the second, for the library, every level and who is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.errors import CountermarkError, StaleError
from countermark.freshness import Level, grace_time, judge
from countermark.limits import GRACE, TIMESTAMP_LIFETIME
from countermark.timestamp import Timestamp
from tests.machine import Machine
from tests.simulator import HOUR, Published, World

DAY, MINUTE = 24 * HOUR, 60
LATE, EXPIRED = 75 * MINUTE, int(TIMESTAMP_LIFETIME.total_seconds())
END = EXPIRED + int(GRACE.total_seconds())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def machine(tmp_path: Path, world: World) -> Machine:
    return Machine(tmp_path, world)


def _known_and_new(machine: Machine) -> tuple[Published, Published]:
    known, new = machine.world.publish("acme-demo"), machine.world.publish("acme-demo", "2.0")
    machine.accept(known)
    return known, new


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("age", "level", "codes"),
    [
        (0, "fresh", (0, 0)),
        (LATE, "fresh", (0, 0)),
        (LATE + 1, "ok", (0, 0)),
        (EXPIRED - 1, "ok", (0, 0)),
        (EXPIRED, "grace", (0, 4)),
        (EXPIRED + 1, "grace", (0, 4)),
        (END - 1, "grace", (0, 4)),
        (END, "", (4, 4)),
        (END + 1, "", (4, 4)),
    ],
)
def test_each_bound_to_the_second(
    machine: Machine, down: bool, age: int, level: str, codes: tuple[int, int]
) -> None:
    """A registry that stopped signing, and one that does not answer: a second decides the level and what passes."""
    world = machine.world
    known, new = _known_and_new(machine)
    known_code, new_code = codes
    world.now += age
    if down:
        world.down = lambda path: True
        level = "ok" if level == "fresh" and age > 5 * MINUTE else level
        new_code = (
            3 if level in ("fresh", "ok") else 4
        )  # its entry can't be read: not reached, rather than old

    def outcome(file: Published) -> tuple[int, str]:
        try:
            report = machine.verify(file)
        except CountermarkError as error:
            return error.exit_code, ""
        assert (report.late is None) is (report.freshness == "fresh" and not down), report.late
        assert report.age == age
        return report.exit_code, report.freshness

    assert outcome(known) == (known_code, level)
    assert outcome(new)[0] == new_code


def test_the_grace_period_warns_each_file_and_says_who_is_late(machine: Machine) -> None:
    """At its first and its last second; what was let pass is still called verified, of the day it was."""
    known, _ = _known_and_new(machine)
    start = machine.world.now
    for age in (EXPIRED, END - 1):
        machine.world.now = start + age
        (said,) = machine.verify(known).to_json()["artifacts"]
        assert any("grace period" in remark and "expired" in remark for remark in said["remarks"]), said


@pytest.mark.parametrize("seconds", [0, 5 * MINUTE, 5 * MINUTE + 1])
def test_fresh_means_fetched_within_five_minutes(machine: Machine, seconds: int) -> None:
    """Offline, the second after five minutes is not fresh any more, though the timestamp is."""
    known, _ = _known_and_new(machine)
    machine.world.now += seconds
    machine.world.down = lambda path: True
    assert machine.verify(known).freshness == ("ok" if seconds > 5 * MINUTE else "fresh")


@pytest.mark.parametrize("ahead", [5 * MINUTE, 5 * MINUTE + 1])
def test_a_timestamp_from_the_future_to_the_second(world: World, ahead: int) -> None:
    """Five minutes of a clock that is behind are borne, and not one second more."""
    timestamp = Timestamp.parse(world.tuf["timestamp.json"])
    now = timestamp.expires - EXPIRED - ahead
    if ahead > 5 * MINUTE:
        with pytest.raises(StaleError, match="none is signed for more"):
            judge(timestamp, now, fetched_at=now)
    else:
        assert judge(timestamp, now, fetched_at=now).level is Level.FRESH


def test_the_time_that_a_cache_is_judged_by(world: World) -> None:
    """Before the expiry now, in the grace period the last second before it, beyond that nothing."""
    raw = world.tuf["timestamp.json"]
    expires = Timestamp.parse(raw).expires
    why = OSError("down")
    grace = END - EXPIRED
    for now, judged in (
        (expires - 1, expires - 1),
        (expires, expires - 1),
        (expires + grace - 1, expires - 1),
    ):
        assert grace_time(raw, now, why) == judged
    with pytest.raises(StaleError, match="beyond the grace period"):
        grace_time(raw, expires + grace, why)
