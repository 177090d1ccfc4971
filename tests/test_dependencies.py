"""What the three distributions import is what their pyproject files ask for, and what requirements/*.txt lock.

The environment of these tests holds far more than a registry has: an import that nothing declares works here, and
fails at whoever installs the programs alone.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "client": "client/countermark",
    "server": "server/countermark_server",
    "keys-ceremony": "keys-ceremony/countermark_ceremony",
}
OURS = {"countermark", "countermark_server", "countermark_ceremony"}
LATE = {
    "server/countermark_server/stores/bucket.py"
}  # imported where a bucket is configured, and nowhere else
# Which locked list must hold all that a distribution needs.
LISTS = {
    "client": ["client", "server", "sigstore", "run", "dev"],
    "server": ["server", "sigstore", "run", "dev"],
    "keys-ceremony": ["run", "dev"],
}


def brought(requirements: Iterable[str]) -> frozenset[str]:
    """Normalised names of requirements, and of all that these require in turn."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name in found or (asked.marker is not None and not asked.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        with suppress(PackageNotFoundError):  # an extra that nothing here uses
            waiting += [Requirement(each) for each in requires(name) or []]
    return frozenset(found)


@cache
def declared(distribution: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a distribution always brings, and what it brings with all its extras."""
    project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for extra in project.get("optional-dependencies", {}).values() for each in extra]
    return brought(project["dependencies"]), brought([*project["dependencies"], *extras])


def locked(name: str) -> set[str]:
    """Names in one of requirements/*.txt."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    return {canonicalize_name(found) for found in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


@cache
def providers() -> dict[str, set[str]]:
    """Which distributions hold a top-level name."""
    found = packages_distributions()
    return {name: {canonicalize_name(each) for each in by} for name, by in found.items()}


def imported(tree: ast.AST, *, starting: bool = True) -> Iterator[tuple[str, bool]]:
    """Top-level names that are imported, and whether importing the module imports them, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], starting) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ((node.module or "").split(".")[0], starting)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from imported(node, starting=starting and not later and not only_types)


def undeclared(source: str, always: Set[str], with_extras: Set[str]) -> list[str]:
    """Imports of a module's source that an installation may lack."""
    return [
        name
        for name, starting in imported(ast.parse(source))
        if name not in sys.stdlib_module_names
        and name != "_sha2"  # of Python 3.12 and later; digest.py does without
        and name not in OURS
        and not providers().get(name, {name}) & (always if starting else with_extras)
    ]


@pytest.mark.parametrize("distribution", PACKAGES)
def test_what_is_imported_is_asked_for(distribution: str) -> None:
    """A dependency for what a module imports at its top; an extra is enough for what a function imports."""
    always, with_extras = declared(distribution)
    found = {
        f"{path} imports {name}"
        for path in (each.relative_to(ROOT) for each in (ROOT / PACKAGES[distribution]).rglob("*.py"))
        for name in undeclared(
            (ROOT / path).read_text("utf-8"), with_extras if str(path) in LATE else always, with_extras
        )
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("distribution", PACKAGES)
def test_what_is_asked_for_is_locked(distribution: str) -> None:
    """Every list that a distribution is installed from holds all that it brings."""
    for name in LISTS[distribution]:
        missing = declared(distribution)[0] - locked(name) - {each.replace("_", "-") for each in OURS}
        assert not missing, (name, missing)


def test_an_undeclared_import_is_seen() -> None:
    """The test of the test: at the top a dependency is needed, in a function an extra is enough."""
    assert undeclared("import orjson", set(), {"orjson"}) == ["orjson"]
    assert undeclared("def f():\n    import orjson", set(), {"orjson"}) == []
    assert undeclared("def f():\n    import orjson", set(), set()) == ["orjson"]
    assert undeclared("import json, countermark.entry", set(), set()) == []
