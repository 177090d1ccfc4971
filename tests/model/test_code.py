"""The code takes the model's steps in the model's order, whoever else runs, dies or is restored between any two.

Two real machines on one SQLite database and one folder, stopped before every step (machines.py). Explored is every
schedule with one switch: A runs to its k-th step; there it is paused for B, or the step fails, or A is killed, or
all is stopped and an older copy restored; then the others run to their ends. `make test-full` switches twice.

After each schedule: every step was the model's (steps.py), no size was signed twice in what was ever sent, nothing
acknowledged moved, and where nothing was restored the whole log is sound and everything proposed is public.
"""

from __future__ import annotations

import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from countermark.errors import CountermarkError
from countermark_server.contradiction import ContradictionError
from countermark_server.log import publish, sequence, station
from countermark_server.stores import heads
from tests.log_world import LogWorld, drain
from tests.model.machines import Gates, Machine, Thread
from tests.model.steps import MODEL, Order, OutOfOrderError, arrows

STEPS_MAX = 200  # of one schedule: more is a machine that does not come to an end
WAITING = (5, 6)  # the proposals behind genesis


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with its genesis published and two uploads waiting."""
    folder = tmp_path_factory.mktemp("begun")
    world = LogWorld(folder)
    world.begin()
    start = world.station()
    start.check_start()
    drain(start)
    start.engine.dispose()
    assert tuple(world.upload(number, submitted=False) for number in range(2)) == WAITING
    world.close()
    return folder


class Run:
    """One schedule in a copy of that log."""

    def __init__(self, begun: Path, folder: Path) -> None:
        shutil.copytree(begun, folder)
        self.world, self.folder, self._begun = LogWorld(folder), folder, begun
        self.patch = pytest.MonkeyPatch()
        self.gates = Gates(self.patch)
        self.gates.install(self.world)
        self.machines: list[Machine] = []
        self.waiting = list(WAITING)
        self.promised: dict[int, int | None] = {}
        self.restored = False

    def start(self) -> Machine:
        self.machines.append(Machine(self.gates, self.world))
        return self.machines[-1]

    def run(self, threads: Iterable[Thread], *, until: int = STEPS_MAX) -> bool:
        """The first of these that can go on goes on, until so many steps were taken; False: none can any more."""
        threads = tuple(threads)
        while self.gates.taken < until:
            thread = next((thread for thread in threads if thread.runnable), None)
            if thread is None:
                return False
            thread.step()
            self._remember()
        return True

    def finish(self, *first: Machine) -> None:
        """All threads to their ends, those of `first` as far as they can go before the others."""
        machines = [*first, *(machine for machine in self.machines if machine not in first)]
        threads = [thread for machine in machines for thread in machine.threads]
        if self.restored:
            # A store that is newer than the database refuses the tiles of another tree, at every reload.
            self.run(threads, until=self.gates.taken + 60)
        else:
            assert not self.run(threads), "no end"

    def propose(self) -> None:
        """One more upload, unless somebody has the database's write lock."""
        if self.gates.holder is None:
            self.waiting.append(self.world.upload(len(self.waiting), submitted=False))

    def restore(self, parts: str) -> None:
        """All machines stopped, the older copy of these parts put back; from now on it is a second later."""
        self.stop()
        for path in self.folder.glob("registry.sqlite*") if "database" in parts else ():
            path.unlink()
        for name in ("public", "staging") if "store" in parts else ():
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if "database" in parts:
            shutil.copy(self._begun / "registry.sqlite", self.folder)
        if "store" in parts:
            for name in ("public", "staging"):
                shutil.copytree(self._begun / name, self.folder / name)
        self.world.clock.now += 1  # entries sequenced again are others
        self.restored = True

    def _remember(self) -> None:
        """What was acknowledged stays where it was, and is public."""
        if self.gates.holder is not None or self.restored:
            return
        for number in self.waiting:
            outcome = self.world.outcome(number)
            if outcome.state == "published":
                assert self.promised.setdefault(number, outcome.index) == outcome.index
                assert outcome.index is not None and outcome.index < self.world.published_size()

    def stop(self) -> None:
        for machine in self.machines:
            machine.kill()
        self.machines = []
        self.world.engine.dispose()

    def abandon(self) -> None:
        """Leave nothing behind, whatever happened."""
        for machine in self.machines:
            machine.kill()
        self.patch.undo()
        self.world.close()

    def end(self) -> None:
        """Look at the whole world; where nothing was restored, another start makes all of it public."""
        self.stop()
        self.patch.undo()
        self.world.check_signatures()
        if not self.restored:
            last = self.world.station()
            last.check_start()
            drain(last)
            last.engine.dispose()
            self.world.check()
            outcomes = {number: self.world.outcome(number) for number in self.waiting}
            assert {outcome.state for outcome in outcomes.values()} == {"published"}
            assert {n: outcomes[n].index for n in self.promised} == self.promised
        self.world.close()


def once(run: Run, k: int, what: str) -> bool:
    """One switch at the k-th step; False when A ends before it."""
    a = run.start()
    if not run.run(a.threads, until=k):
        return False
    if what == "publisher first":
        run.run([a.publisher, a.sequencer])
    elif what == "paused":
        run.run(run.start().threads)
        run.propose()
    elif what == "failed":
        next(thread for thread in a.threads if thread.runnable).fails = True
    elif what == "killed":
        a.kill()
        run.finish(run.start())
    else:
        run.restore(what)
        run.finish(run.start())
    run.finish()
    return True


def twice(run: Run, k: int, j: int, *, killed: bool) -> bool:
    """A to its k-th step, B for j steps, A to its end or dead, B to its end."""
    a = run.start()
    if not run.run(a.threads, until=k):
        return False
    b = run.start()
    if not run.run(b.threads, until=k + j):
        return False
    if killed:
        a.kill()
    run.finish(*([] if killed else [a]))
    return True


WHAT = ("publisher first", "paused", "failed", "killed", "database", "store", "database and store")


@pytest.mark.parametrize("what", WHAT)
def test_every_schedule_with_one_switch(begun: Path, tmp_path: Path, what: str) -> None:
    """A is stopped before each of its steps, for this; the log stays one, and the model knows every step."""
    for k in itertools.count():
        run = Run(begun, tmp_path / str(k))
        going = once(run, k, what)
        run.end()
        shutil.rmtree(tmp_path / str(k))
        if not going:
            break
    assert k > 22, f"A took {k} steps only"


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)  # hundreds of schedules
@pytest.mark.parametrize("killed", [False, True], ids=["paused", "killed"])
def test_every_schedule_with_two_switches(begun: Path, tmp_path: Path, *, killed: bool) -> None:
    """A stopped before each of its steps, then B before each of its own; then A goes on, or never does."""
    schedules = 0
    for k in itertools.count():
        for j in itertools.count(1):
            run = Run(begun, tmp_path / "run")
            going = twice(run, k, j, killed=killed)
            run.end()
            shutil.rmtree(tmp_path / "run")
            schedules += 1
            if not going:
                break
        if j == 1:
            break
    assert schedules > 120, schedules  # while A has the write lock, B goes no further


def changed(module: Any, function: str, old: str, new: str) -> Any:
    """A function of the log with one line of its source exchanged."""
    found = module
    for part in function.split("."):
        found = getattr(found, part)
    source = textwrap.dedent(inspect.getsource(found))
    assert source.count(old) == 1, f"{function} has no single {old!r} any more"
    made: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(code, function, "exec"), vars(inspect.getmodule(found)), made)
    return made[found.__name__]


# What is done to the code, (module, function, old, new) each time, and in which schedules the mutant shows itself.
MUTANTS: dict[str, tuple[Any, ...]] = {
    "tiles before the swap": (
        (sequence, "Sequencer._round", "heads.swap(connection, old, new)",
         "self._apply(bundle, signed); heads.swap(connection, old, new)"),
        "publisher first",
    ),
    "no second look at staging": (
        (sequence, "Sequencer._round", "self._staging.read(name)", "bundle"), "publisher first",
    ),
    "signed before it is staged": (
        (sequence, "Sequencer._round", "name = self._staging.put(bundle)",
         "sign_note('early\\n', self._signers, time=1); name = self._staging.put(bundle)"),
        "publisher first",
    ),
    "no tiles": (
        (sequence, "Sequencer.round", "self._apply(bundle, checkpoint)", "pass"), "publisher first",
    ),
    "told before it is public": (
        (publish, "Publisher.publish", "verified = self.cosigned(checkpoint)",
         "verified = self.cosigned(checkpoint); self.settle(verified.size)"),
        "publisher first",
    ),
    "public before it is cosigned": (
        (publish, "Publisher.publish", "verified = self.cosigned(checkpoint)",
         "self._public.replace(CHECKPOINT, self._public.read(CHECKPOINT)); verified = self.cosigned(checkpoint)"),
        "publisher first",
    ),
    "staging dropped before it is told": (
        (publish, "Publisher.publish", "self.settle(verified.size)",
         "self.tidy(verified.size); self.settle(verified.size)"),
        "publisher first",
    ),
    "staging dropped with the swap": (
        (sequence, "Sequencer._round", "heads.swap(connection, old, new)",
         "heads.swap(connection, old, new); self._staging.drop(name)"),
        "publisher first",
    ),
    "no look at the public checkpoint": (
        (station, "Station.check_start", "raw = self.public.read(CHECKPOINT)", "raw = None"), "publisher first",
    ),
    "no question to the witnesses": (
        (station, "Station.check_start",
         "self._ask_witnesses(head, accept_unwitnessed, time.monotonic() + patience)", "pass"),
        "publisher first",
    ),
    "no reload after a failure": (
        (station, "Station._round", "self._check_newer(self.sequencer.load())", "return True"),
        (sequence, "Sequencer.round", "self._head = None", "pass"),
        "failed",
    ),
    "no fence": (
        (heads, "check_held", "if held is None or (held.body, held.tree_size) != (old.body, old.tree_size):",
         "if held is None:"),
        (heads, "swap", "if changed.rowcount != 1:", "if False:"),
        # In a folder the rival's tiles would be found before anything is signed; in a bucket they are not.
        (sequence, "Sequencer._round", "self._public.prepare(_files(bundle))", "pass"),
        "paused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_code_in_another_order_is_noticed(begun: Path, tmp_path: Path, mutant: str) -> None:
    """One line of the real code moved, added or lost: a schedule does not end as it must."""
    *edits, what = MUTANTS[mutant]
    with pytest.MonkeyPatch.context() as patch:
        for module, function, old, new in edits:
            owner, _, name = function.rpartition(".")
            place = getattr(module, owner) if owner else module
            patch.setattr(place, name, changed(module, function, old, new))
        with pytest.raises((AssertionError, CountermarkError, ContradictionError, OSError)):
            for k in itertools.count():
                run = Run(begun, tmp_path / str(k))
                try:
                    going = once(run, k, what)
                    run.end()
                finally:
                    run.abandon()
                if not going:
                    raise UnnoticedError(mutant)


class UnnoticedError(Exception):
    """A mutant lived through every schedule."""


def test_order_is_read_from_the_model() -> None:
    """The automaton has every step of the model, in both threads, and refuses one that comes too early."""
    steps = {step for variable in ("at", "publisher") for arrow in arrows(variable) for step in arrow.steps}
    assert steps == set(re.findall(r"-> did\(([A-Z]+)\)", MODEL)) | {"SIGN", "SWAP"} and len(steps) >= 12
    order = Order("at")
    for step in ("LOAD", "COMPARE", "ASK", "TELL", "DROP", "HOLD", "STAGE", "READ", "SIGN", "SWAP"):
        order.take(step)
    assert order.allowed() == {"COMMIT", "LOAD"}  # LOAD: it failed
    with pytest.raises(OutOfOrderError, match=r"APPLY after .* SWAP; the model allows"):
        order.take("APPLY")
