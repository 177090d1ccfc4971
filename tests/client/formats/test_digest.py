"""digest.py, and the plain checks that took the place of patterns: what they accept is what the pattern accepts."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from countermark import bins, entry, names, schema, statement
from countermark.digest import is_hex
from countermark.errors import MalformedError
from countermark.tlog import note
from countermark.tufjson import parse_time


def test_digests_are_those_of_hashlib_on_both_sides_of_the_change() -> None:
    """A small process never loads hashlib; one that hashes more does, in one call or in many; update goes on."""
    program = """
import sys
from countermark.digest import sha256, OWN_BYTES
for size in (0, 1, 63, 64, 65, 10_000):
    print(sha256(b"x" * size).hexdigest())
first = sha256(b"x")
assert "hashlib" not in sys.modules
print(sha256(b"x" * OWN_BYTES).hexdigest())
assert "hashlib" in sys.modules
first.update(b"y")
print(first.hexdigest(), sha256(b"x").hexdigest())
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    hashed = [b"x" * size for size in (0, 1, 63, 64, 65, 10_000, 256 * 1024)] + [b"xy", b"x"]
    assert done.stdout.split() == [hashlib.sha256(each).hexdigest() for each in hashed]


def accepts(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def accepted(text: str) -> bool:
        try:
            parse(text)
        except (MalformedError, ValueError):
            return False
        return True

    return accepted


CHECKS: list[tuple[str, Callable[[str], bool], list[str]]] = [
    (r"[0-9a-f]{8}", lambda text: is_hex(text, 8), ["0123abcd", "0123abcd0", "0123ABCD"]),
    (r"[a-z]+(?:-[a-z]+)*", statement.is_words, ["publish", "first-seen", "a--b", "-a", "a-"]),
    (
        r"[a-z]{1,24}(?:-[a-z]{1,24}){0,3}",
        entry._is_type,
        ["a-b-c-d", "a-b-c-d-e", "a" * 24, "b-" + "a" * 25],
    ),
    (r"[!-*,-~]{1,255}", schema.is_origin, ["example.com/log", "a" * 255, "a" * 256]),
    (r"0|[1-9][0-9]{0,17}", accepts(note.parse_decimal), ["0", "10", "01", "1" * 16]),
    (
        r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
        lambda text: names._is_name(text, "._-"),
        ["a.b-c_d", "A"],
    ),
    (r"[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?", lambda text: names._is_name(text, "._"), ["a.b_d", "a-b"]),
    (r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", names._is_tag, ["py2.py3", "_", "a..b", ".a"]),
    (
        r"([a-z0-9]+-[0-9a-f]+) ([1-9][0-9]{0,15}) ([0-9a-f]{64}) ([A-Za-z0-9+/]{43}=)\n",
        accepts(lambda text: bins.BinLeaf.parse(text.encode())),
        ["bins-0a7 12 " + "5" * 64 + " " + "A" * 43 + "=\n"],
    ),
    (
        r"2026-11-2[0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z",
        accepts(parse_time),
        ["2026-11-27T00:06:57Z", "2026-11-27T00:06:57", "2026-11-27 00:06:57Z", "2026-11-27T00:06:57ZZ"],
    ),
]


@pytest.mark.parametrize(("pattern", "check", "texts"), CHECKS, ids=[each[0][:20] for each in CHECKS])
def test_a_plain_check_accepts_what_the_pattern_accepts(
    pattern: str, check: Callable[[str], bool], texts: list[str]
) -> None:
    """Of all texts one edit or two away from a good one, newlines, other digits and letters among the edits."""
    compiled = re.compile(pattern)
    tried = list(edited(texts))
    assert [text for text in tried if check(text) != (compiled.fullmatch(text) is not None)] == []
    assert any(map(check, tried)) and not all(map(check, tried))


def edited(texts: list[str]) -> Iterator[str]:
    chance, marks = random.Random(7), [*"aZ0-_.+ /=\n\0\x7f1f~", "\u0663", "\u00e9", "\u0131", "\ud800"]
    yield from ("", *marks[:-1], *texts)
    for text in texts:
        for _ in range(150):
            letters = list(text)
            for _ in range(chance.choice((1, 1, 2))):
                at = chance.randrange(len(letters) + 1)
                letters[at : at + chance.choice((0, 1))] = chance.choice(([], [chance.choice(marks)]))
            changed = "".join(letters)
            if "\ud800" not in changed:
                yield changed


@pytest.mark.parametrize("name", ["a", "A.b", "a-_.b", "a__b", "a.-.B_c"])
def test_a_run_of_separators_is_one_dash(name: str) -> None:
    """As PEP 503 writes it."""
    assert names.normalise_project(name) == re.sub(r"[-_.]+", "-", name).lower()
