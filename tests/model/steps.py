"""The model's order as an automaton, read from log.pml itself: which step may follow which, in one thread.

    order = Order("at")                  # the sequencer's thread; Order("publisher") is the other
    order.take("LOAD"); order.take("COMPARE"); order.take("ASK")     # OutOfOrderError: the model has no such step
    order.fail()                         # an exception: the model is at its beginning again

An option `:: atomic { at == HELD -> did(STAGE); ... at = BUNDLED ... }` is an arrow from HELD to BUNDLED that is
taken by the step STAGE. Branches of planted faults are no part of it. What is in the guards is the model's business,
except for `running`, which tells a start from a reload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("log.pml").read_text("utf-8")


class OutOfOrderError(AssertionError):
    """The code took a step that the model does not allow here."""


@dataclass(frozen=True)
class Arrow:
    """One option of the model."""

    start: str
    steps: tuple[str, ...]
    ends: frozenset[str]
    running: bool | None  # only for a thread that does, or does not, run; None: for both
    starts_running: bool


def arrows(variable: str) -> list[Arrow]:
    """The options of `proctype Machine` that move this variable."""
    text = MODEL.partition("proctype Machine")[2].partition("proctype Proposers")[0]
    found = []
    for option in re.split(r"^    :: ", text, flags=re.MULTILINE)[1:]:
        lines = [line.partition("/*")[0] for line in option.splitlines()]
        guard = re.match(rf"atomic {{ {variable} == ([A-Z]+)\b([^;]*?)->", lines[0] + " ->")
        if guard is None or "fault ==" in guard[2]:
            continue
        body = "\n".join(line for line in lines if "fault ==" not in line)
        ends = set(re.findall(rf"\b{variable} = ([A-Z]+)\b", body))
        if variable == "at":
            for call in re.findall(r"apply\([^)]*\)", body):
                ends |= set(re.findall(r"[A-Z]{2,}", call))
            ends = {"DOWN" if end == "REFUSED" else end for end in ends}
        running = {True: True, False: None}["&& running" in guard[2]]
        running = False if "!running" in guard[2] else running
        steps = tuple(re.findall(r"did\(([A-Z]+)\)", body))
        found.append(Arrow(guard[1], steps, frozenset(ends), running, "running = true" in body))
    return found


class Order:
    """Where a thread of the model can be, after the steps that the code has taken."""

    def __init__(self, variable: str) -> None:
        self._arrows = arrows(variable)
        self._first = {"at": "DOWN", "publisher": "QUIET"}[variable]
        self._starts_running = variable == "publisher"  # a thread of a process whose start was checked
        self._taken: list[str] = []
        self.restart()

    @property
    def last(self) -> str:
        """What was taken last."""
        return self._taken[-1]

    def __str__(self) -> str:
        return " ".join(self._taken)

    def restart(self) -> None:
        """A new process."""
        self._at = {
            (self._first, 0, self._starts_running)
        }  # name, steps taken of an arrow from there, running
        self._taken.append("|")

    def fail(self) -> None:
        """An exception ended what was under way."""
        self._at = {(self._first, 0, running) for _, _, running in self._at}
        self._taken.append("failed")

    def take(self, step: str) -> None:
        """OutOfOrderError: the model allows other steps only."""
        reached = set()
        for name, taken, running in self._silently(self._at):
            for arrow in self._arrows:
                fits = arrow.start == name and arrow.running in (None, running)
                if not fits or arrow.steps[taken : taken + 1] != (step,):
                    continue
                if taken + 1 < len(arrow.steps):
                    reached.add((name, taken + 1, running))
                else:
                    reached |= {(end, 0, running or arrow.starts_running) for end in arrow.ends}
        if not reached:
            allowed = sorted(self.allowed())
            raise OutOfOrderError(f"{step} after {self}; the model allows {allowed}")
        self._at = reached
        self._taken.append(step)

    def allowed(self) -> set[str]:
        """The steps that the model has from here."""
        return {
            arrow.steps[taken]
            for name, taken, running in self._silently(self._at)
            for arrow in self._arrows
            if arrow.start == name and taken < len(arrow.steps) and arrow.running in (None, running)
        }

    def _silently(self, at: set[tuple[str, int, bool]]) -> set[tuple[str, int, bool]]:
        """These, and where options without a step lead from them."""
        reached, waiting = set(at), list(at)
        while waiting:
            name, taken, running = waiting.pop()
            for arrow in self._arrows:
                if arrow.start == name and not taken and not arrow.steps and arrow.running in (None, running):
                    ends = {(end, 0, running or arrow.starts_running) for end in arrow.ends}
                    waiting += ends - reached
                    reached |= ends
        return reached
