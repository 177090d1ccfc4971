"""The runner of benchmarks: what was measured is kept, whoever fails or stops after it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/run.py, with three scripts of its own and a results file that has a row nobody makes."""
    monkeypatch.syspath_prepend(str(BENCH))
    figures, run = (importlib.import_module(name) for name in ("figures", "run"))

    def script(name: str, measure: Callable[[], list[object]]) -> None:
        module = ModuleType(name)
        module.__doc__ = f"{name}."
        module.measure = measure  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)

    for name in ("first", "second", "third"):
        script(name, partial(_measured, figures, name))
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"name": "stale"}]), encoding="utf-8")
    monkeypatch.setattr(run, "SCRIPTS", ("first", "second", "third"))
    monkeypatch.setattr(run, "RESULTS", results)
    return run


def _measured(figures: ModuleType, name: str) -> list[object]:
    return [figures.Figure(name, "s", [1.0])]


def kept(runner: ModuleType) -> list[str]:
    """The names of the rows that are in the results file."""
    return [row["name"] for row in json.loads(runner.RESULTS.read_text("utf-8"))]


def test_rows_that_no_script_makes_go_when_all_have_run(runner: ModuleType) -> None:
    """And stay when only some were asked for."""
    assert runner.main(["second"]) == 0
    assert kept(runner) == ["second", "stale"]
    assert runner.main([]) == 0
    assert kept(runner) == ["first", "second", "third"]


def test_one_that_fails_takes_nothing_from_the_others(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, the exit status says it, and no row is taken for stale."""
    monkeypatch.setattr(sys.modules["second"], "measure", lambda: 1 / 0)
    assert runner.main([]) == 1
    assert kept(runner) == ["first", "stale", "third"]
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "failed: second" in said


def test_who_stops_in_the_middle_keeps_what_was_measured(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run takes long."""

    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["third"], "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        runner.main([])
    assert kept(runner) == ["first", "second", "stale"]


def test_each_row_says_how_fast_the_machine_was(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked anew before each script, since another hour is another machine."""
    paces = iter([65.04, 130.0])
    monkeypatch.setattr(sys.modules["figures"], "pace", lambda: next(paces))
    assert runner.main(["first"]) == runner.main(["third"]) == 0
    rows = {row["name"]: row for row in json.loads(runner.RESULTS.read_text("utf-8"))}
    assert [rows[name]["ed25519_check_us"] for name in ("first", "third")] == [65.0, 130.0]


def test_the_pace_is_measured(runner: ModuleType) -> None:
    assert 1 < sys.modules["figures"].pace() < 100_000
