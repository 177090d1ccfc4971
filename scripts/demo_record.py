"""Writes what a run of the demo printed into the documentation: `make demo RECORD=1`.

The whole of it goes to `docs/demo.md`, the act and the table that a stranger reads first to `README.md`, each between

    <!-- demo: all -->      or      <!-- demo: in short -->
    ...
    <!-- /demo -->

Nothing is typed by hand there, and a test holds the two pages to each other and to the acts that are played.
"""

from __future__ import annotations

import re
from pathlib import Path

SHOWN_FIRST = "3"  # the act in README: an insider swaps a stored file
TABLE = "   what was proved"
MARKER = re.compile(r"(<!-- demo: ([a-z ]+) -->\n)(.*?)(<!-- /demo -->)", re.DOTALL)


def in_short(said: str) -> str:
    """One act of a recorded run, and the table that ends it."""
    parts = said.strip("\n").split("\n\n")
    act = next(part for part in parts if part.startswith(f"{SHOWN_FIRST}  "))
    table = next(part for part in parts if part.startswith(TABLE))
    return f"{act}\n\n{table}"


def rendered(page: str, said: str) -> str:
    """The page with what the run said in the place of what an earlier one did."""
    parts = {"all": said.strip("\n"), "in short": in_short(said)}
    return MARKER.sub(lambda m: f"{m[1]}```text\n{parts[m[2]]}\n```\n{m[4]}", page)


def recorded(page: str) -> str:
    """What the page shows of a run; raises ValueError where it shows none, or several."""
    found = [text for _, _, text, _ in MARKER.findall(page)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} recorded runs on one page")
    return str(found[0]).removeprefix("```text\n").removesuffix("```\n")


def record(root: Path, said: str) -> None:
    """Write the run into both pages of the repository at `root`."""
    for name in ("README.md", "docs/demo.md"):
        page = root / name
        page.write_text(rendered(page.read_text("utf-8"), said), "utf-8")
