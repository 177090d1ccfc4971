"""Every sentence with which a process refuses to start is explained in docs/operations/refusals.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "server/countermark_server"
PAGE = ROOT / "docs/operations/refusals.md"
KEYS_PAGE = ROOT / "docs/operations/online-keys.md"  # of one module, which that page is about

# What a start runs through. People's accounts and requests refuse with the codes of docs/reference/errors.md.
STARTS = (
    "adopted.py", "settings.py", "signing.py", "onlinekeys.py", "logkeys.py", "telemetry.py", "worker.py", "wsgi.py",
    "log/station.py", "log/sequence.py", "log/staging.py", "log/witnesses.py", "operate/*.py",
    "timestamper/*.py", "tufrepo/*.py", "log/rebuild.py", "postgresql.py", "sqlite.py", "db.py",
    "stores/immutable.py",
)  # fmt: skip
REFUSALS = {
    "StartRefusedError", "LogError", "UsageError", "SettingsError", "StoreError", "WitnessAheadError",
    "WitnessDisagreesError", "ChildDiedError", "UnfitServerError", "ConflictError", "TufrepoError",
}  # fmt: skip
ADOPTION = {"EvidenceError", "SignatureError", "MalformedError"}  # in operate/ these refuse a ceremony


def template(node: ast.expr) -> str:
    """A message with an ellipsis for every value, as the page shows it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def raised(source: str) -> Iterator[tuple[str, list[str]]]:
    """Every `raise Name(...)` of a module: the class's name, its arguments as templates."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            yield name, [template(argument) for argument in node.exc.args]


def refusals() -> dict[str, str]:
    """Template -> module, of every refusal to start that the server can say."""
    found: dict[str, str] = {}
    for pattern in STARTS:
        modules = sorted(SERVER.glob(pattern))
        assert modules, f"{pattern} names no module any more"
        for module in modules:
            wanted = REFUSALS | (
                ADOPTION if module.parent.name == "operate" or module.name == "rebuild.py" else set()
            )
            for name, arguments in raised(module.read_text("utf-8")):
                if name in wanted and arguments and set(arguments[0]) - set("…: "):
                    found[arguments[0]] = str(module.relative_to(SERVER))
    return found


def codes() -> set[str]:
    """Every code with which the timestamper refuses to sign."""
    return {
        arguments[0]
        for module in (SERVER / "timestamper").glob("*.py")
        for name, arguments in raised(module.read_text("utf-8"))
        if name == "RefusalError"
    }


def test_there_are_refusals_to_explain() -> None:
    """The list is derived from the code: it holds the gravest ones, of every process that starts."""
    found = refusals()
    assert len(found) > 60
    said = set(found.values())
    assert {"log/station.py", "log/sequence.py", "operate/up.py", "timestamper/__main__.py"} <= said
    assert {"tufrepo/publish.py", "tufrepo/renewing.py"} <= said
    assert "too few witnesses answer to know that nothing was lost: …" in found
    assert len(codes()) > 15


@pytest.mark.parametrize(("said", "module"), sorted(refusals().items()))
def test_every_refusal_is_explained(said: str, module: str) -> None:
    """The page shows the sentence as the code says it, with an ellipsis for each value."""
    shown = f"`` {said} ``" if "`" in said else f"`{said}`"  # a span that holds one needs two
    page = KEYS_PAGE if module == "onlinekeys.py" and "role: its" not in said else PAGE
    assert shown in page.read_text("utf-8"), f"{module} refuses with a sentence that {page.name} lacks"


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_of_the_timestamper_is_explained(code: str) -> None:
    """The page names each code that the alarm can carry."""
    assert f"`{code}`" in PAGE.read_text("utf-8")


def test_every_kind_of_refusal_is_read() -> None:
    """A class made for a refusal to start (derived from UsageError) is one of those that are read."""
    for module in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and "UsageError" in map(ast.unparse, node.bases):
                assert node.name in REFUSALS, f"{module.name} has {node.name}"


def test_a_new_refusal_is_seen() -> None:
    """The test of the test: a sentence that no page has is found, whether plain or with values."""
    source = 'raise LogError(f"the moon is {phase}")\nraise errors.UsageError("no cheese", hint="eat")\n'
    assert list(raised(source)) == [("LogError", ["the moon is …"]), ("UsageError", ["no cheese"])]
    assert "`the moon is …`" not in PAGE.read_text("utf-8")
