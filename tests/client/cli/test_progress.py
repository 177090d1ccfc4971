"""How far a long check is: one line of a terminal, and nothing anywhere else."""

from __future__ import annotations

import io
import sys

import pytest

from countermark.console import PROGRESS_AFTER, Progress, put, say
from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """For the rest of the test; not as a fixture, for pytest puts its own stream there after those."""
    monkeypatch.setattr(sys, "stderr", found := Terminal())
    monkeypatch.setattr(Progress, "shown", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return found


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_a_second_one_line_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    clock = Clock()
    tick = Progress(clock=clock)
    for done in range(1, 11):
        tick("files", done, 200)
    assert terminal.getvalue() == ""
    clock.now = PROGRESS_AFTER
    for done in range(100, 120):
        tick("answers", done, 200)
    assert terminal.getvalue() == "\rcountermark: 100 of 200 answers"  # the rest came within the same tenth
    clock.now += 0.1
    tick("files", 9, 9)
    assert terminal.getvalue().endswith("\rcountermark: 9 of 9 files      ")  # over all of the longer line
    say("done")
    assert terminal.getvalue().endswith("\r" + " " * 25 + "\rcountermark: done\n")
    said = terminal.getvalue()
    say("more")
    assert terminal.getvalue() == f"{said}countermark: more\n"


def test_a_result_on_stdout_takes_it_away_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = on_terminal(monkeypatch)
    clock = Clock()
    tick = Progress(clock=clock)
    clock.now = 5
    tick("files", 1, 2)
    put("acme: verified")
    assert terminal.getvalue().endswith("\r") and capsys.readouterr().out == "acme: verified\n"


@pytest.mark.parametrize("case", ["json", "dumb", "pipe"])
def test_nothing_is_written_for_programs(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    stream: io.StringIO = on_terminal(monkeypatch)
    if case == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if case == "pipe":
        monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    clock = Clock()
    tick = Progress(quiet=case == "json", clock=clock)
    clock.now = 60
    tick("files", 1, 2)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("json", [False, True])
def test_verify_says_how_far_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch, json: bool) -> None:  # noqa: F811
    """On a terminal, of a lock and of files; with --json nothing."""
    desk.world.publish("other")
    stream = on_terminal(monkeypatch)
    monkeypatch.setattr("countermark.console.PROGRESS_AFTER", 0)
    lock = desk.folder / "requirements.txt"
    lock.write_text(f"acme-demo==1.0 --hash=sha256:{desk.published.sha256}\n")
    for given in (desk.wheel, lock):
        stream.seek(stream.truncate(0))
        desk.run("verify", given, *(["--json"] if json else []))
        assert ("\rcountermark: 1 of 1 files" in stream.getvalue()) is not json
        assert "\r" not in stream.getvalue().rpartition("\r")[2]
