"""docs/threat-model.md is complete: every component has its sentence, every attack its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from countermark import pins
from countermark_ceremony import tables
from countermark_server import signing

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/threat-model.md").read_text("utf-8")
NAMED = re.findall(r"`((?:[a-z_]+/)+test_[a-z_]+\.py)::([a-z0-9_]+)`", TEXT)


def first_cells(heading: str) -> set[str]:
    """What the tables below a heading name in their first column, without code or bold marks."""
    section = re.split(r"^#+ ", TEXT.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def processes() -> set[str]:
    """The processes that `up` starts, read from the calls that start them."""
    tree = ast.parse((ROOT / "server/countermark_server/operate/up.py").read_text("utf-8"))
    return {
        str(call.args[0].value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self.children.start"
        if isinstance(call.args[0], ast.Constant)
    }


def keys() -> set[str]:
    """Online keys, roles of the ceremony, and the keys that people and witnesses hold."""
    online = {*signing.ROLES, *signing.TUF_ROLES, signing.LOG_ED25519, signing.LOG_MLDSA44}
    return online | {*tables.OFFLINE_ROLES, "authority", "witness", "publisher"}


def registry_stores() -> set[str]:
    """The rows of the table in architecture.md that says what lies in a data directory."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8").partition("## What is where on disk")[2]
    rows = re.findall(r"^\| (`.+?) \|", text.partition("\n## ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)} - {"passphrase"}


def client_stores() -> set[str]:
    """The files that the docstring of pins.py shows in a registry's folder."""
    assert pins.__doc__ is not None
    block = pins.__doc__.split("\n\n")[1]
    return set(re.findall(r"(?:^| )([a-z]+\.(?:json|txt)|[a-z]+/)(?=  )", block, re.MULTILINE))


def test_every_process_key_and_store_has_its_sentence() -> None:
    """What the code starts, signs with and keeps is in the tables of trust sentences, and nothing else is."""
    assert first_cells("Processes") == processes()
    assert first_cells("Keys") == keys()
    assert first_cells("Stores of a registry") >= registry_stores() and len(registry_stores()) > 8
    assert first_cells("Stores of a client") >= client_stores() and len(client_stores()) > 4


def test_data_directory_is_the_one_that_is_described(tmp_path: Path) -> None:
    """What `init` makes is in the table that the stores are taken from."""
    from countermark_server.operate.initialise import initialise

    made = initialise(tmp_path / "registry", "threats.test/log", bit_length=1)
    described = registry_stores() | {"passphrase"}
    tops = {name.partition("/")[0] for name in described}
    assert {path.name for path in made.data.iterdir()} <= tops


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_every_named_test_exists(file: str, test: str) -> None:
    """The table's last column names tests that are there."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_compromise_names_a_test() -> None:
    """No row of the table goes without a test, and every key that can be stolen has a row."""
    section = TEXT.partition("## What an attacker gets\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    for row in rows:
        assert re.search(r"\.py::test_[a-z0-9_]+` \|$", row), row
    first = " ".join(row.split("|")[1] for row in rows)
    spoken = {"log-ed25519": "both log keys", "log-mldsa44": "one log key", "root": "custodian"}
    for key in keys() - {"witness"}:
        assert spoken.get(key, f"`{key}`") in first, f"no row says what a stolen {key} key gives"


# What must be compromised, lost or doubled in some row, in the words of its first column.
SCENARIOS = (
    "key `timestamp` alone", "(the publisher)", "keys `timestamp`, `bins` and `snapshot` together",
    "both log keys, `log`",
    "(log and publisher)", "`trust` keys", "mirror, CDN (stale", "two timestampers at once", "a restored timestamper",
    "of before a rotation", "all witnesses lost, or 2 of 3", "four witnesses are post-quantum",
)  # fmt: skip
PUBLISHER = ("never_logged", "takedown_left_out", "two_bins_of_one_version", "resurrected", "another_entry")


def first_cell_rows() -> dict[str, str]:
    """The rows of the table, by their first column."""
    section = TEXT.partition("## What an attacker gets\n")[2].partition("\n## ")[0]
    return {line.split("|")[1].strip(): line for line in section.splitlines() if line.startswith("| ")}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_of_the_compromise_table_has_its_row(scenario: str) -> None:
    """One row each, and in it a test; take the row or its tests away and this fails."""
    found = [row for first, row in first_cell_rows().items() if scenario in first]
    assert len(found) == 1, f"{len(found)} rows are about {scenario!r}"
    assert re.search(r"`(?:[a-z_]+/)+test_[a-z_]+\.py::test_[a-z0-9_]+`", found[0].split("|")[4])


def test_the_publisher_alone_is_tried_in_every_way() -> None:
    """An unlogged file, an omitted takedown, two bins of one version, a resurrected file, a swapped `custom`."""
    (row,) = [row for first, row in first_cell_rows().items() if "(the publisher)" in first]
    assert [way for way in PUBLISHER if way not in row] == []


STORIES = (
    "by a lock", "by name", "a fake registry", "(freeze)", "rolled back", "two histories", "poisoned in review",
    "smuggled in", "between the check and the install", "while caches are warm", "an older bin", "a second index",
)  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_every_story_of_who_installs_has_its_test(story: str) -> None:
    """One row each, with how it ends and a test that tells it."""
    section = TEXT.partition("## Stories of who installs\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    (row,) = [row for row in rows if story in row.split("|")[1]]
    assert re.search(r"`(?:[a-z_]+/)+test_[a-z_]+\.py::test_[a-z0-9_]+` \|$", row)
