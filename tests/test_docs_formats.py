"""Every format that the code writes or reads has its place on a page of docs/formats."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark import schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = "\n".join(page.read_text("utf-8") for page in sorted((ROOT / "docs/formats").glob("*.md")))
CODE = ("client/countermark", "server/countermark_server", "keys-ceremony/countermark_ceremony")

READS = re.compile(r"_?(parse|decode|load|open)(_|$)")
WRITES = re.compile(r"_?(format|encode|text|to_json|to_dict|payload|save)(_|$)")
# Modules that read and write, and whose format is shown under a heading of its own instead of by file name.
SHOWN = {
    "bins.py": "## Bins",
    "bundle.py": "# The offline bundle",
    "evidence.py": "# Evidence files",
    "predecessor.py": "`predecessor`, about `log:",
    "statement.py": "## Statement",
    "checkpoint.py": "## Checkpoint",
    "note.py": "## Keys",
    "policy.py": "## Witness policy",
    "proof.py": "## Proof",
    "tile.py": "## Tiles and entry bundles",
    "trustfile.py": "## Trust file",
    "words.py": "## Root words",
}
# These read and write formats of other modules, or rows of a database of their own.
NO_FORMAT = {
    "canonical.py",
    "logoffline.py",
    "offline.py",
    "store.py",
    "sequence.py",
    "findings.py",
    "jsontext.py",
}


def modules() -> Iterator[Path]:
    """Every module of the three distributions."""
    for base in CODE:
        yield from sorted((ROOT / base).rglob("*.py"))


def has_a_format(source: str) -> bool:
    """Whether a module both reads and writes something: `parse` and `format`, `decode` and `encode`, ..."""
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    return any(map(READS.match, names)) and any(map(WRITES.match, names))


FORMATS = [path for path in modules() if path.name not in NO_FORMAT and has_a_format(path.read_text("utf-8"))]
VERSIONS = sorted(
    {
        name
        for path in modules()
        for name in re.findall(r"countermark-[a-z-]+/v[0-9]+", path.read_text("utf-8"))
    }
)


def test_the_list_is_read_from_the_code() -> None:
    """Modules that read and write are found, also a planted one; the exceptions are modules that exist."""
    assert {"keyfile.py", "timeline.py", "staging.py", "exchange.py", "tile.py"} <= {p.name for p in FORMATS}
    assert has_a_format("def parse_moon(raw): ...\nclass Moon:\n    def format(self): ...\n")
    assert not has_a_format("def parse_moon(raw): ...\n")
    assert NO_FORMAT | SHOWN.keys() <= {path.name for path in modules()}


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_format_has_a_page(path: Path) -> None:
    """By a heading of its own, or by the module's name beside its example."""
    shown = SHOWN.get(path.name, f"`{path.name}`")
    assert shown in PAGES, f"{path.name} reads and writes a format that docs/formats does not show"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_line_is_on_a_page(version: str) -> None:
    """`countermark-.../v1`: whoever finds such a file must find its page."""
    assert version in PAGES


def test_every_entry_type_has_an_example() -> None:
    """Each type of the table, by a statement that has its form."""
    for kind in schema.SCHEMAS:
        assert re.search(rf"^`{kind}`, about ", PAGES, re.MULTILINE), kind
