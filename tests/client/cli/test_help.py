"""`countermark --help`: how to begin, every variable of the environment, the exit codes."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import countermark
from countermark.cli import _parser
from countermark.cli_words import VARIABLES

SOURCES = sorted(Path(countermark.__file__).parent.rglob("*.py"))


def said(*arguments: str) -> str:
    """What the program prints on stdout."""
    argv = [sys.executable, "-m", "countermark.cli", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def test_every_variable_that_is_read_is_told() -> None:
    """A variable that no page and no help text names is one that nobody can set on purpose."""
    read = {
        name for path in SOURCES for name in re.findall(r'"(COUNTERMARK_[A-Z_]+)"', path.read_text("utf-8"))
    }
    assert read == {name for name, _ in VARIABLES}


def test_help_ends_with_first_steps_variables_and_exit_codes() -> None:
    """A stranger's first look; each on lines of its own."""
    below = said("--help").partition("first steps")[2].splitlines()
    assert "             countermark run -- uv sync --frozen" in below
    assert "  6 withdrawn or held      7 evidence false" in below
    assert all(any(line.startswith(f"  {name} ") for line in below) for name, _ in VARIABLES)


def test_help_of_a_command_says_what_its_words_stand_for() -> None:
    """And does not repeat what stands below the list of commands."""
    for command in (("verify",), ("publish",), ("trust", "add"), ("bundle", "make")):
        told = said(*command, "--help")
        assert re.search(r"^  (FILE|URL) +\S", told, re.MULTILINE), told
        assert "first steps" not in told


def words(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str | None]]:
    """Every command, option and argument, with what its help says of it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each, below in action.choices.items():
                yield f"{name} {each}", below.description
                yield from words(below, f"{name} {each}")
        else:
            yield f"{name} {action.metavar or action.dest}", action.help


def test_nothing_that_can_be_typed_is_without_a_sentence() -> None:
    """Of each command, option and argument of all commands."""
    told = dict(words(_parser(), "countermark"))
    assert len(told) > 200 and not [name for name, text in told.items() if not (text or "").strip()]


def test_no_help_says_what_is_not_there() -> None:
    """A group without a description has none, and is not described as None."""
    for command in ((), ("key",), ("bundle",)):
        assert not re.search(r"^ *None$", said(*command, "--help"), re.MULTILINE)
