"""Talking to people and to programs: stdout is data, stderr is talk.

    countermark: error: no trusted root for https://registry.example
    countermark: hint: countermark trust add https://registry.example --root FILE

Lower case, no full stop, the party at fault named by the error itself. Colour only on a terminal, and not
where NO_COLOR says so. Control characters that came from elsewhere (a registry's reason, a file name) are
shown, not obeyed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

PROGRAM = "countermark"
PROGRESS_AFTER, PROGRESS_EVERY = 1.0, 0.1  # seconds
GREEN, YELLOW, RED = "32", "33", "31"


class Progress:
    """How far something is: one line of the terminal that is written over, once it has taken a second.

    Nothing where stderr is no terminal, and nothing beside a result for programs. What is said next clears it.
    """

    shown = 0  # characters on the line now, of whichever instance

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_told = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._clock, self._next = clock, clock() + PROGRESS_AFTER

    def __call__(self, what: str, done: int, of: int) -> None:
        if self._is_told and (now := self._clock()) >= self._next:
            self._next = now + PROGRESS_EVERY
            line = f"{PROGRAM}: {done} of {of} {what}"
            print(f"\r{line.ljust(Progress.shown)}", end="", file=sys.stderr, flush=True)
            Progress.shown = len(line)

    @staticmethod
    def clear() -> None:
        """Take the line away, if there is one."""
        if Progress.shown:
            print(f"\r{' ' * Progress.shown}\r", end="", file=sys.stderr, flush=True)
            Progress.shown = 0


def say(text: str, *, colour: str | None = None) -> None:
    """One line of talk."""
    Progress.clear()
    print(f"{PROGRAM}: {paint(plain(text), colour, sys.stderr)}", file=sys.stderr, flush=True)


def put(text: str, *, colour: str | None = None) -> None:
    """One line of data."""
    Progress.clear()
    print(paint(plain(text), colour, sys.stdout), flush=True)


def put_json(document: Any) -> None:
    """One JSON document as data."""
    print(json.dumps(document, sort_keys=True, indent=1), flush=True)


def fail(message: str, hint: str | None, exit_code: int, *, json: bool) -> int:
    """An error as talk, and as data where that was asked for; returns the exit code."""
    say(f"error: {message}", colour=RED)
    if hint:
        say(f"hint: {hint}")
    if json:
        put_json({"error": message, "exit_code": exit_code, "hint": hint, "verified": False})
    return exit_code


def plain(text: str) -> str:
    """The text with its control characters made visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def paint(text: str, colour: str | None, stream: TextIO) -> str:
    if colour is None or not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def confirm(question: str) -> bool:
    """Ask for yes or no on the terminal; no where nobody is there to answer."""
    if not sys.stdin.isatty():
        return False
    print(f"{PROGRAM}: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask(prompt: str) -> str:
    """Ask for a line on the terminal, or take it from a pipe."""
    if sys.stdin.isatty():
        print(f"{PROGRAM}: {prompt}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
