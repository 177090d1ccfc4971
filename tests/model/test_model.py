"""The model of the log (log.pml), checked in every state it can be in; and each planted fault is found.

    make test        bounds that take seconds: two machines that crash, one machine that is restored, and both at once
    make test-full   the next larger ones

Spin (Debian's `spin`) turns the model into a C program that visits every state. It is built once; bounds and the
planted fault come from its environment. To follow a fault, run it again in the same environment with `-r`.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.components import program

MODEL = Path(__file__).with_name("log.pml")
FAULTS = dict(re.findall(r"^#define ([A-Z_]+) (\d+) +/\*", MODEL.read_text("utf-8"), re.MULTILINE))
Bounds = tuple[int, int, int, int]  # machines, proposals, crashes, restores
RIVALS, RESTORED, BOTH = (2, 2, 1, 0), (1, 2, 2, 1), (2, 1, 1, 1)
LARGER = ((2, 2, 3, 0), (1, 3, 2, 1), (1, 2, 3, 2))

# Each fault with the property that finds it, in words of its assertion, and the bounds in which it does.
FOUND = {
    "PUBLISHES_BEFORE_SWAP": (RESTORED, "sent.root"),
    "SWAPS_WITHOUT_FENCE": (RIVALS, "store.size<=db.size"),
    "ASKS_BEFORE_TILES": (RIVALS, "store.tile[taken_size]==taken_root"),
    "STARTS_UNCHECKED": (RESTORED, "seen.root"),
    "APPLIES_BEFORE_SWAP": (RESTORED, "restored||(db.size!=size)"),
    "DROPS_BEFORE_TILES": (RIVALS, "store.bundle"),
    "TELLS_BEFORE_PUBLISHING": (RIVALS, "published.size"),
    "RULES_APART": (RIVALS, "db.rules==db.root"),
    "GOES_ON_AFTER_FAILURE": (RIVALS, "store.tile[taken_size]==taken_root"),
    "STAGES_NOTHING": (RIVALS, "store.bundle"),
    "WITNESS_FORGETS": (RESTORED, "seen.root"),
    "PUBLISHES_BACKWARDS": (RIVALS, "store.size>=published.size"),
}


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that visits every state of the model."""
    folder = tmp_path_factory.mktemp("spin")
    compiler = program("gcc")
    path = f"{compiler.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    for command in (
        [program("spin"), "-a", MODEL],
        [compiler, "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "checker", "pan.c"],
    ):
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "checker"


def explore(checker: Path, bounds: Bounds, fault: str = "", *, table: int = 22) -> str:
    """What the checker says. -E: a thread that waits for ever is no error here, `Quiet` judges that."""
    names = ("MACHINES", "PROPOSALS", "CRASHES", "RESTORES")
    environment = {name: str(bound) for name, bound in zip(names, bounds, strict=True)}
    environment["FAULT"] = FAULTS[fault] if fault else "0"
    done = subprocess.run(
        [checker, "-E", "-m1000000", f"-w{table}"],
        cwd=checker.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sound(said: str, *, at_least: int) -> None:
    """No property was broken in any state, and all states were visited."""
    assert "pan:1:" not in said and "errors: 0" in said, said
    assert "error: max search depth too small" not in said and "Search not completed" not in said, said
    visited = re.search(r"^ *([0-9.e+]+) states, stored", said, re.MULTILINE)
    assert visited is not None and float(visited[1]) > at_least, said


def test_model_is_sound_in_every_state(checker: Path) -> None:
    """Rivals that crash, a machine that is restored, rivals that are restored: nothing is broken, nothing is idle."""
    idle: list[set[str]] = []
    for bounds in (RIVALS, RESTORED, BOTH):
        said = explore(checker, bounds)
        sound(said, at_least=250_000)
        idle.append({line.rpartition("log.pml:")[2] for line in said.splitlines() if "log.pml:" in line})
    # Every statement of the processes was taken somewhere; but for those of faults.
    lines = MODEL.read_text("utf-8").splitlines()
    first = lines.index("proctype Machine(byte me) {")
    for statement in set.intersection(*idle):
        number = int(statement.partition(",")[0]) - 1
        ours = number > first and "-end-" not in statement
        assert not ours or re.search("fault|WITNESS_FORGETS", lines[number - 1] + lines[number]), statement


def test_every_fault_has_its_property() -> None:
    """No fault of the model goes without a row of the table above, and none is invented."""
    assert set(FAULTS) == set(FOUND) and len(FAULTS) >= 12


@pytest.mark.parametrize("fault", FOUND)
def test_planted_fault_is_found(checker: Path, fault: str) -> None:
    """One step in the wrong order, or left out, and a property is broken; the same bounds are sound without it."""
    bounds, words = FOUND[fault]
    said = explore(checker, bounds, fault)
    broken = re.search(r"^pan:1: assertion violated (.*) \(at depth", said, re.MULTILINE)
    assert broken is not None, said
    assert words in broken[1], broken[1]


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)  # minutes of one core
@pytest.mark.parametrize("bounds", LARGER, ids=str)
def test_model_is_sound_on_larger_bounds(checker: Path, bounds: Bounds) -> None:
    """More crashes, more restores, more entries."""
    sound(explore(checker, bounds, table=26), at_least=1_000_000)
