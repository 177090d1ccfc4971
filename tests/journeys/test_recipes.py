"""Recipes for CI systems, the CI script of the library, and three tutorials, on one registry that is no trial.

Every command of every recipe is run in a shell as the CI system would, with its environment; only the step that
installs the client is left out: it is installed here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.client.cli.test_library import script
from tests.sariflog import checked
from tests.world.insider import PROJECT, WHEEL, swap, unswap
from tests.world.stage import QUICK
from tests.world.typist import Page, Typist
from tests.world.world import Done, World, fresh

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "deploy" / "recipes"
INSTALLS_CLIENT = "/client"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry after a real ceremony, on which alice has published."""
    with fresh(tmp_path_factory.mktemp("world"), settings=QUICK) as world:
        world.init()
        world.up("--ceremony", world.ceremony(trial=False))
        world.login("alice", said(world))
        world.run("countermark", "publish", "--yes", *sorted(world.project(PROJECT).iterdir()))
        yield world


def said(world: World) -> str:
    """The twelve words."""
    return world.words(world.root / "ceremony" / "out")


def project(world: World, name: str) -> Path:
    """A locked application."""
    folder = world.root / name
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "0"\nrequires-python = ">=3.11"\n'
        f'dependencies = ["{PROJECT}==1.0.0"]\n[tool.uv]\npackage = false\n',
        encoding="utf-8",
    )
    world.run("uv", "lock", "--default-index", f"{world.url}/simple/", cwd=folder, home=f"maker-{name}")
    return folder


def commands(recipe: str) -> list[str]:
    """The shell commands of a recipe, in order, without the one that installs the client."""
    text = (RECIPES / recipe).read_text("utf-8")
    if recipe.startswith("github"):
        steps = yaml.safe_load(text)["jobs"]["install"]["steps"]
        found = [step["run"] for step in steps if "run" in step]
    elif recipe.startswith("gitlab"):
        job = yaml.safe_load(text)["verified-install"]
        found = [*job["before_script"], *job["script"]]
    elif recipe.startswith("jenkins"):
        found = re.findall(r"sh '([^']+)'", text)
    else:
        found = re.findall(r"^RUN (.+)$", text, re.MULTILINE)
    kept = [command for command in found if INSTALLS_CLIENT not in command]
    assert len(kept) == len(found) - 1 and len(kept) >= 3
    return kept


GITHUB = "github/verified-install.yml"
ALL = (
    GITHUB,
    "docker/Dockerfile",
    pytest.param("gitlab/.gitlab-ci.yml", marks=pytest.mark.exhaustive),  # the same commands as GitHub's
    pytest.param("jenkins/Jenkinsfile", marks=pytest.mark.exhaustive),
)


def play(world: World, recipe: str, folder: Path) -> Done:
    """Run a recipe's commands until one fails, on a machine of its own; the last one's end."""
    home = f"ci-{recipe.split('/', maxsplit=1)[0]}-{folder.name}"
    for command in commands(recipe):
        done = world.run(
            "sh", "-euc", command, cwd=folder, home=home, expect=None,
            CI="true", COUNTERMARK_REGISTRY=world.url, COUNTERMARK_ROOT_WORDS=said(world),
        )  # fmt: skip
        if done.code:
            break
    return done


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_installs_what_is_proved(world: World, recipe: str) -> None:
    """From a machine that trusts nothing to an environment that is held against the log."""
    folder = project(world, recipe.split("/", maxsplit=1)[0])
    before = (folder / "uv.lock").read_bytes()
    done = play(world, recipe, folder)
    assert done.code == 0, done.said
    assert world.run(folder / ".venv" / "bin" / "python", "-c", "import hello_countermark").out == "hello\n"
    assert (folder / "uv.lock").read_bytes() == before
    if recipe.startswith("docker"):
        linted = subprocess.run(
            [
                Path(sys.executable).parent / "hadolint",
                "--failure-threshold",
                "warning",
                RECIPES / recipe,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert linted.returncode == 0, linted.stdout


def test_a_swap_is_refused_by_recipe_and_script(world: World, tmp_path: Path) -> None:
    """A lock made after an insider's swap: exit 7 before anything is installed; the script says why, by reason."""
    folder = project(world, "scripted")
    given = {"CI": "true"}
    world.run("countermark", "trust", "add", world.url, "--root-words", said(world), home="scripted-ci")
    (folder / "check.py").write_text(script(), encoding="utf-8")
    good = world.run(sys.executable, "check.py", cwd=folder, home="scripted-ci", **given)
    assert re.match(r"2 files, seen by \S+ .* ago, fresh \{\}\n", good.out)
    wheel = world.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
    old, new = swap(world, wheel, tmp_path / "scratch")
    try:
        poisoned = project(world, "poisoned")
        assert new in (poisoned / "uv.lock").read_text("utf-8")
        done = play(world, GITHUB, poisoned)
        assert done.code == 7 and old in done.said and new in done.said
        assert not (poisoned / ".venv").exists()
        (result,) = checked((poisoned / "countermark.sarif").read_bytes())["runs"][0]["results"]
        place = result["locations"][0]["physicalLocation"]
        assert (result["level"], place["artifactLocation"]["uri"]) == ("error", "uv.lock")
        lines = (poisoned / "uv.lock").read_text("utf-8").splitlines()
        assert new in lines[place["region"]["startLine"] - 1]
        (poisoned / "check.py").write_text(script(), encoding="utf-8")
        bad = world.run(sys.executable, "check.py", cwd=poisoned, home="scripted-ci", expect=7, **given)
        assert "{'false': 1}" in bad.out and old in bad.err
    finally:
        unswap(world, wheel, new)
    lost = world.run(sys.executable, "check.py", cwd=folder, home="nobody", expect=1, **given)
    assert "cannot judge: no registry is pinned" in lost.err and "countermark trust add" in lost.err


def test_ci_from_no_trust_to_pins_and_a_cool_down(world: World) -> None:
    """The tutorial, typed where a project with a lock lies."""
    folder = project(world, "tutored")
    Typist(world, Page.read("ci"), said(world), "tutored-ci", folder).type()


def test_a_fleet_gets_its_trust_from_one_file(world: World) -> None:
    """Two machines with a memory each; the second pin of the same root changes nothing."""
    folder = world.root / "fleet"
    folder.mkdir()
    shutil.copy(world.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL, folder)
    Typist(world, Page.read("fleet"), said(world), "fleet-home", folder).type()
    for machine in ("machine-a", "machine-b"):
        assert len(list((folder / machine / "registries").iterdir())) == 1


def test_a_machine_without_network_installs_what_is_proved(world: World) -> None:
    """Carried, verified by a root of its own while nothing can be reached, installed; a changed wheel is refused."""
    folder = world.root / "air"
    folder.mkdir()
    meanwhile = {"the registry is out of reach": world.down}
    try:
        Typist(world, Page.read("air-gapped"), said(world), "air-home", folder, meanwhile).type()
    finally:
        world.up()
