"""Edits of other programs' files that can be taken out again: marked lines in, unwanted lines turned off.

    [global]
    # >>> countermark: `countermark configure pip --undo` takes this out again
    index-url = https://registry.example/simple/
    # <<< countermark
    #countermark-off# extra-index-url = https://other.example/simple/
    timeout = 30                          # ours to keep, like every comment

Everything here is text in, text out. `undone(edited)` is the text before, byte for byte; so an edit is made by
undoing the last one first, and making it twice changes nothing. A line that is in the way is not deleted but turned
off, with a mark in front. Comments begin with `#` in every file that is edited here (INI and TOML).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

BEGIN = "# >>> countermark: "
END = "# <<< countermark"
JOINED = " (the line before had no end)"
OFF = "#countermark-off# "
Table = tuple[str, ...]  # the name of a table of TOML, in its parts
_HEADER = re.compile(r"\s*\[{1,2}([^\[\]]+)\]{1,2}\s*(?:#.*)?$")
_PASSWORD = re.compile(r"(?i)^([ +-][^=:]*(?:password|token|secret)[^=:]*[=:]).*")
_IN_URL = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")


def lines_of(text: str) -> list[str]:
    """The lines with their ends, as editors see them: a form feed ends none."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def line_end(text: str) -> str:
    """How this file ends its lines."""
    return "\r\n" if "\r\n" in text else "\n"


def turn_off(lines: list[str], numbers: Iterable[int]) -> None:
    """Turn these lines off, in place; blank ones stay."""
    for number in numbers:
        if lines[number].strip():
            lines[number] = OFF + lines[number]


def insert(lines: list[str], at: int, block: Sequence[str], *, tool: str, end: str) -> None:
    """Put a block of marked lines before line `at`, in place."""
    begin = f"{BEGIN}`countermark configure {tool} --undo` takes this out again"
    if at > 0 and not lines[at - 1].endswith("\n"):
        lines[at - 1] += end
        begin += JOINED
    lines[at:at] = [line + end for line in (begin, *block, END)]


def undone(text: str) -> str:
    """The text as it was before we edited it."""
    kept: list[str] = []
    inside = False
    for line in lines_of(text):
        if line.startswith(BEGIN):
            inside = True
            if line.rstrip().endswith(JOINED) and kept:
                kept[-1] = kept[-1].rstrip("\r\n")
        elif inside:
            inside = line.rstrip() != END
        else:
            kept.append(line.removeprefix(OFF))
    return "".join(kept)


def is_edited(text: str) -> bool:
    """Whether there is anything to take out."""
    return any(line.startswith((BEGIN, OFF)) for line in lines_of(text))


def difference(before: str, after: str, name: str) -> str:
    """What changes, as `diff -u` shows it; passwords that stand near are not shown."""
    old, new = ([line.rstrip("\r\n") for line in lines_of(text)] for text in (before, after))
    shown = difflib.unified_diff(old, new, name, name, lineterm="", n=2)
    return "\n".join(_without_secrets(line) for line in shown)


def _without_secrets(line: str) -> str:
    return _IN_URL.sub("...", _PASSWORD.sub(r"\1 ...", line))


# --- TOML -------------------------------------------------------------------------------------------------


def statement(lines: Sequence[str], table: Table, key: str) -> list[int]:
    """The lines that set a key of a table: `key = ...`, or every `[[table.key]]` with what is below."""
    found: list[int] = []
    here: Table = ()
    opened = -1  # the line on which a value began that is not whole yet
    for number, line in enumerate(lines):
        if opened >= 0:
            found.append(number)
            if _is_whole(lines[opened : number + 1]):
                opened = -1
            continue
        header = _HEADER.match(line)
        if header is not None:
            here = header_path(header[1])
        if here[: len(table) + 1] == (*table, key):
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(number)
        elif here == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            found.append(number)
            opened = -1 if _is_whole(lines[number : number + 1]) else number
    return found


def _is_whole(statement: Sequence[str]) -> bool:
    try:
        tomllib.loads("".join(statement))
    except tomllib.TOMLDecodeError:
        return False
    return True


def header_path(text: str) -> Table:
    """The parts of a table's name, as TOML quotes them."""
    try:
        at: Any = tomllib.loads(f"[{text}]")
    except tomllib.TOMLDecodeError:
        return ("",)
    path: Table = ()
    while at:
        ((name, at),) = at.items()
        path = (*path, name)
    return path


def has_secret(url: str) -> bool:
    """Whether a URL carries somebody's name or password."""
    return "@" in urlsplit(url).netloc
