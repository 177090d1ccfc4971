"""The library: its names, types and words are what its page says, and the page's script does what it says there.

Here against a registry in memory; tests/journeys/test_recipes.py runs the same script against a real one.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

import pytest

from countermark import library
from tests.client.cli.test_bundle_commands import NAME, Desk, desk  # noqa: F401  (a fixture)
from tests.client.cli.test_policy_commands import OTHER
from tests.project import Project

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "library.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)(\(.*?\))?` \| (.+) \|$", re.MULTILINE)
MEMBER = re.compile(r"`(\w+)(?:\(\))?`")
FUNCTIONS = ("open_registry", "verify_files", "verify_lock")


def script() -> str:
    """The script of the page: at most fifteen lines, and of us only the public names."""
    found = re.findall(r"<!-- script -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1 and len(found[0].strip().splitlines()) <= 15
    assert set(re.findall(r"(?:from|import) (countermark[.\w]*)", found[0])) == {"countermark.library"}
    taken = re.findall(r"from countermark.library import (.+)", found[0])
    assert len(taken) == 1 and set(taken[0].split(", ")) <= set(library.__all__)
    return str(found[0])


def test_the_page_names_what_is_public_and_nothing_else() -> None:
    """Seven names, in this order and with these signatures; every member that is told of is there."""
    rows = ROW.findall(PAGE)
    order = [*FUNCTIONS, "Report", "Verified", "Refused", "CountermarkError"]
    assert [name for name, _, _ in rows] == order and set(library.__all__) == set(order)
    assert "Seven names" in PAGE and "in seven names" in (library.__doc__ or "")
    for name, told, words in rows:
        public = getattr(library, name)
        assert inspect.getdoc(public), f"{name} has no docstring"
        if name in FUNCTIONS:
            parameters = inspect.signature(public).parameters.values()
            given = (p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
            assert told == f"({', '.join(given)})"
            continue
        members = set(MEMBER.findall(words)) - {"str"}
        known = {*dir(public), *typing.get_type_hints(public)}
        known |= set(vars(public("words"))) if name == "CountermarkError" else set()
        assert members and members <= known, name


def test_every_name_is_typed() -> None:
    """For who checks their script with mypy: each parameter and each answer."""
    for name in FUNCTIONS:
        public = getattr(library, name)
        hints = typing.get_type_hints(public)
        assert set(hints) == {*inspect.signature(public).parameters, "return"}, name
        assert Any not in hints.values()
    assert typing.get_type_hints(library.verify_lock)["return"] is library.Report
    assert typing.get_type_hints(library.verify_files)["return"] is library.Report
    assert (Path(library.__file__).parent / "py.typed").is_file()


def run(capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """The page's script in this folder: its exit status as Python would give it, and both streams."""
    with pytest.raises(SystemExit) as ended:
        exec(compile(script(), "check.py", "exec"), {"__name__": "__main__"})
    return (ended.value.code, *capsys.readouterr())


def test_the_script_of_the_page(
    desk: Desk,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """0 and a line; 7 with the reason in words and for programs; 5 by policy; a sentence where nothing is pinned."""
    monkeypatch.setenv("CI", "true")
    project = Project(desk.folder, desk.world)
    monkeypatch.chdir(project.folder)
    project.uv_lock(desk.published)
    code, out, err = run(capsys)
    assert code == 0 and re.fullmatch(r"1 files, seen by w1 \d+ s ago, fresh \{\}\n", out) and not err
    project.uv_lock(desk.published, sha256=OTHER)
    code, out, err = run(capsys)
    assert code == 7 and "{'false': 1}" in out and err.startswith(f"{NAME}: ") and OTHER in err
    project.uv_lock(desk.published)
    (project.folder / "countermark.toml").write_text('deny = ["acme-*"]\n')
    code, out, err = run(capsys)
    assert code == 5 and "{'denied': 1}" in out and "acme-demo is denied" in err
    monkeypatch.setenv("COUNTERMARK_HOME", str(desk.folder / "nobody"))
    code, out, err = run(capsys)
    assert (
        out == ""
        and str(code).startswith("cannot judge: no registry is pinned")
        and "countermark trust add" in str(code)
    )


def test_the_example_beside_the_code_runs(
    desk: Desk,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it stands there, but for the registry's address."""
    shown = re.search(r"\n\n(    registry = .*?)\n\n`open", library.__doc__ or "", re.DOTALL)
    assert shown is not None
    text = textwrap.dedent(shown[1]).replace("https://registry.example", desk.world.base)
    project = Project(desk.folder, desk.world)
    monkeypatch.chdir(project.folder)
    project.uv_lock(desk.published, sha256=OTHER)
    with pytest.raises(SystemExit) as ended:
        exec(text, {"sys": sys, **{name: getattr(library, name) for name in library.__all__}})
    assert ended.value.code == 7 and OTHER in capsys.readouterr().out


def test_results_are_values_that_say_what_was_proved(desk: Desk) -> None:  # noqa: F811
    """As the page's table has it: steps by whom, a reason of one word, a hint; both forms of a path."""
    registry = library.open_registry(desk.world.base)
    report = library.verify_files([desk.wheel, str(desk.wheel)], registry)
    assert report.exit_code == 0 and report.to_json()["verified"] is True and "seen by w1" in report.believed
    for outcome in report.outcomes:
        assert isinstance(outcome, library.Verified) and outcome.artifact.filename == NAME
        assert outcome.index == desk.published.index and outcome.findings == ()
        assert [step.number for step in outcome.steps] == list(range(1, 11)) and all(
            s.by for s in outcome.steps
        )
        assert outcome.signed_by is not None and outcome.signed_by.keyid == desk.world.publisher.keyid
    desk.wheel.write_bytes(b"swapped")
    (refused,) = library.verify_files([desk.wheel]).outcomes
    assert isinstance(refused, library.Refused) and refused.because == "refused in every mode"
    assert (refused.error.exit_code, refused.error.reason) == (7, "false") and refused.error.hint
    with pytest.raises(library.CountermarkError) as lost:
        library.open_registry("https://elsewhere.test")
    assert (lost.value.exit_code, lost.value.reason) == (5, "policy")
    assert lost.value.hint and lost.value.hint.startswith("countermark trust add https://elsewhere.test ")
