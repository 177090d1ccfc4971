"""Documentation is true: generated parts are fresh, links lead somewhere, nothing that exists is left out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if ".venv" not in path.parts]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\n")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made by the usual renderers."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_parts_are_fresh() -> None:
    """`make docs` would write exactly what is there: settings, commands, codes, metrics, journey and formats."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: a page with an untrue generated part is reported."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs

    text = "<!-- generated: exit-codes -->\nold\n<!-- end -->\n"
    assert docs.rendered(text) != text
    assert docs.rendered(docs.rendered(text)) == docs.rendered(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file or folder that is there, and an anchor that it has."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(other), f"{target}: no such heading"


def test_every_page_is_linked() -> None:
    """A page that no other page links to is a page that nobody finds."""
    linked: set[Path] = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target:
                linked.add((page.parent / target).resolve())
    folders = {path for path in linked if path.is_dir()}
    lost = [
        page.relative_to(ROOT)
        for page in PAGES
        if page.name != "README.md" and page not in linked and not folders & set(page.parents)
    ]
    lost = [page for page in lost if page.parts[0] != "CHANGELOG.md"]
    assert not lost


def test_the_index_has_every_page() -> None:
    """docs/README.md names each page but the decisions, which are a folder."""
    docs = ROOT / "docs"
    told = set(re.findall(r"\]\(([^)\s#]+)\)", (docs / "README.md").read_text("utf-8")))
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert {page for page in there if not page.startswith("adr/")} - told == {"README.md"}


def test_every_part_has_a_page() -> None:
    """A generated part that no page shows is documentation that nobody reads."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import docs_formats  # noqa: F401
        import docs_formats_entries  # noqa: F401
        import docs_formats_kept  # noqa: F401
        import docs_parts
        from docs_samples import EXAMPLES
    finally:
        sys.path.pop(0)
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"<!-- generated: ([a-z0-9-]+) -->", page.read_text("utf-8"))
    }
    assert shown == docs_parts.PARTS.keys() | EXAMPLES.keys()


def test_no_single_name_install_is_shown() -> None:
    """Nor does a program's hint say `pip install countermark`: until the name is ours, a stranger could own it."""
    programs = [
        path for room in ("client", "server", "keys-ceremony") for path in (ROOT / room).rglob("*.py")
    ]
    for page in [*PAGES, *programs]:
        for line in page.read_text("utf-8").splitlines():
            if re.search(r"\binstall\b[^\n]*[\s'\"]countermark(-server|-ceremony)?(\s|$|[`'\"\[]|==)", line):
                raise AssertionError(f"{page.relative_to(ROOT)}: {line}")


def test_nothing_names_a_registry_host_or_a_path_of_a_machine() -> None:
    """Tracked files say PyPI, never a registry's host, and carry no path of somebody's machine."""
    # Written apart, so that this file does not name them either.
    banned = [
        "pypi" + ".org",
        "files.pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "/home" + "/",
        "/root" + "/",
    ]
    for name in TRACKED:
        path = ROOT / name
        if not name or not path.is_file() or name.startswith("tests/vectors/"):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for word in banned:
            assert word not in text, f"{name} names {word}"


def test_decisions_are_numbered_without_gaps() -> None:
    """ADRs are 0001, 0002, ... and each says its number, status, context, decision and consequences."""
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for number, page in enumerate(pages, start=1):
        text = page.read_text("utf-8")
        assert text.startswith(f"# {number}. "), page.name
        for part in ("Status:", "## Context", "## Decision", "## Consequences"):
            assert part in text, f"{page.name} lacks {part}"


def test_every_variable_of_the_client_is_documented() -> None:
    """What a program takes from its environment is a setting, too."""
    page = (ROOT / "docs/reference/environment.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "client/countermark").rglob("*.py"))
    asked = set(re.findall(r"\bCOUNTERMARK_[A-Z_]+\b", sources))
    asked |= set(re.findall(r'_VARIABLE = "([A-Z0-9_]+)"', sources))
    assert {"COUNTERMARK_HOME", "SSH_AUTH_SOCK"} <= asked
    assert asked <= set(re.findall(r"^\| `([A-Z0-9_]+)` \|", page, re.MULTILINE))
