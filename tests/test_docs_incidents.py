"""docs/incidents.md is complete: every row names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    line for line in (ROOT / "docs/incidents.md").read_text("utf-8").splitlines() if line.startswith("| **")
]
NAMED = re.compile(r"`((?:[a-z_]+/)*test_[a-z_]+\.py)::([a-z0-9_]+)`")


def test_every_incident_names_a_test() -> None:
    """No row goes without one, and all fourteen are told."""
    assert len(ROWS) == 14
    for row in ROWS:
        assert NAMED.search(row.split(" | ")[-1]), row


@pytest.mark.parametrize(("file", "test"), sorted({name for row in ROWS for name in NAMED.findall(row)}))
def test_every_named_test_exists(file: str, test: str) -> None:
    """The last column names tests that are there."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
