"""Poetry, `uv sync --locked` and builds from source under `run`: what is asked, what is verified, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.errors import PolicyError, UsageError
from countermark.installers import plan
from countermark.verified import LetPass
from tests.machine import artifact
from tests.project import Project
from tests.simulator import World

POETRY = ["poetry", "install", "--no-root"]
LOCKED = ["uv", "sync", "--locked"]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def project(tmp_path: Path, world: World) -> Project:
    return Project(tmp_path, world)


@pytest.mark.parametrize("command", [POETRY, ["poetry", "sync", "--no-root", "--only", "main"]], ids=" ".join)
def test_a_verified_lock_starts_poetry_without_builds(
    project: Project, world: World, command: list[str]
) -> None:
    """Its own settings are cleared and named; where its environments are, is its own business."""
    project.poetry_lock(world.publish("acme-demo"))
    settings = {
        "POETRY_INSTALLER_NO_BINARY": ":all:",
        "POETRY_PYPI_TOKEN_X": "x",
        "POETRY_VIRTUALENVS_IN_PROJECT": "1",
    }
    assert project.run(command, environment=settings).exit_code == 0
    given = project.started[0][1]
    assert (
        given["POETRY_INSTALLER_ONLY_BINARY"] == ":all:" and given["POETRY_INSTALLER_NO_BINARY"] == ":none:"
    )
    assert "POETRY_VIRTUALENVS_IN_PROJECT" in given and "POETRY_PYPI_TOKEN_X" not in given
    assert "cleared POETRY_INSTALLER_NO_BINARY, POETRY_PYPI_TOKEN_X" in project.said[0]


def test_poetry_makes_an_environment_without_a_pip_of_its_own(project: Project, world: World) -> None:
    """That of virtualenv comes from no index, and nobody proved it; whoever wants it says so."""
    project.poetry_lock(world.publish("acme-demo"))
    name = "POETRY_VIRTUALENVS_OPTIONS_NO_PIP"
    project.run(POETRY)
    project.run(POETRY, environment={name: "false"})
    assert [env[name] for _, env in project.started] == ["true", "false"]


def test_a_poetry_lock_made_after_the_swap_is_refused(project: Project, world: World) -> None:
    """Both hashes and the entry; poetry is not started."""
    file = world.publish("acme-demo")
    swapped = artifact(file, data=b"swapped").sha256
    project.poetry_lock(file, sha256=swapped)
    project.refuse(7, POETRY, file.sha256, swapped, f"entry #{file.index}", "not started")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            '[[tool.poetry.source]]\nname = "b"\nurl = "https://other.test/simple/"\n',
            "https://other.test/simple/",
        ),
        ('[[tool.poetry.source]]\nname = "PyPI"\n', "which poetry asks"),
        ('[tool.poetry.requires-plugins]\nevil = "*"\n', "requires-plugins"),
    ],
)
def test_poetry_is_asked_to_ask_nobody_else(
    project: Project, world: World, settings: str, words: str
) -> None:
    """Another source would be asked whatever we say, and plugins would run before anything is verified."""
    project.poetry_lock(world.publish("acme-demo"), settings=settings)
    project.refuse(5, POETRY, words)


def test_without_a_source_poetry_would_ask_pypi(project: Project, world: World) -> None:
    """Refused, with the command that names the registry."""
    project.poetry_lock(world.publish("acme-demo"))
    (project.folder / "pyproject.toml").write_text('[project]\nname = "app"\n')
    project.refuse(5, POETRY, "PyPI", "countermark configure poetry --write")


def test_poetrys_own_folder_is_left_out_or_allowed(project: Project, world: World) -> None:
    """`--no-root`, `package-mode = false`, or `--allow-build`; else the policy decides, and refuses here."""
    project.poetry_lock(world.publish("acme-demo"))
    project.refuse(5, ["poetry", "install"], "not provable", "--no-root")
    assert project.run(["poetry", "install"], allow_build=True).exit_code == 0
    project.poetry_lock(world.publish("acme-demo", "2.0"), settings="[tool.poetry]\npackage-mode = false\n")
    assert project.run(["poetry", "install"]).exit_code == 0


def test_what_is_no_project_of_poetry_is_a_usage_error(project: Project) -> None:
    """No lock, no project: said, with what to do."""
    (project.folder / "pyproject.toml").write_text('[project]\nname = "app"\n')
    with pytest.raises(UsageError, match=r"no poetry\.lock"):
        plan(POETRY, folder=project.folder)
    (project.folder / "pyproject.toml").write_text("[tool.other]\n")
    with pytest.raises(UsageError, match="no project of poetry"):
        plan(POETRY, folder=project.folder)
    with pytest.raises(PolicyError, match="nobody here knows"):
        plan([*POETRY, "--new-option"], folder=project.folder)


def only_source(project: Project, world: World) -> None:
    """A lock with a package that exists only as source."""
    lock = project.uv_lock(world.publish("acme-demo"), extra="")
    with lock.open("a") as file:
        file.write(
            '[[package]]\nname = "sourced"\nversion = "1"\nsource = { registry = "https://registry.test/simple" }\n'
            f'sdist = {{ url = "https://registry.test/sourced-1.tar.gz", hash = "sha256:{"ab" * 32}" }}\n'
        )


@pytest.mark.parametrize("mode", ["enforce", "warn", "observe"])
def test_source_distributions_are_refused_in_every_mode(tmp_path: Path, mode: str) -> None:
    """On the lock route nothing is built unless that is asked for; verify leaves it to the policy."""
    world = World(mode=mode)
    project = Project(tmp_path, world)
    only_source(project, world)
    project.refuse(5, ["uv", "sync", "--frozen"], "not provable: sourced", "--allow-build", "not started")


def test_allowed_builds_take_their_tools_from_the_proxy(tmp_path: Path) -> None:
    """The source itself must be proved all the same; the child may build, and has no other index."""
    world = World(mode="warn")
    project = Project(tmp_path, world)
    only_source(project, world)
    finished = project.run(["uv", "sync", "--frozen"], allow_build=True)
    assert finished.exit_code == 0
    [built] = [o for o in finished.report.outcomes if isinstance(o, LetPass) and o.because == "--allow-build"]
    given = project.started[0][1]
    assert built.artifact.project == "sourced" and "UV_NO_BUILD" not in given and given["UV_NO_CONFIG"] == "1"
    assert given["UV_DEFAULT_INDEX"].startswith("http://127.0.0.1:")
    (tmp_path / "strict").mkdir()
    strict = Project(tmp_path / "strict", World())
    only_source(strict, strict.world)
    assert strict.run(["uv", "sync", "--frozen"], allow_build=True).exit_code == 5, (
        "nobody logged that source"
    )


def test_locked_asks_the_registry_and_nobody_else(project: Project, world: World) -> None:
    """uv compares the lock with the index it names: that must be the registry's."""
    project.uv_lock(world.publish("acme-demo"))
    assert project.run(LOCKED).exit_code == 0
    assert project.started.pop()[1]["UV_DEFAULT_INDEX"] == f"{world.base}/simple/"
    settings = project.folder / "pyproject.toml"
    settings.write_text('[project]\n[[tool.uv.index]]\nurl = "https://other.test/simple/"\n')
    project.refuse(5, LOCKED, "https://other.test/simple/")
    settings.write_text("[project]\n")
    lock = project.folder / "uv.lock"
    lock.write_text(lock.read_text().replace("https://registry.test/simple/", "https://other.test/simple/"))
    project.refuse(5, LOCKED, "https://other.test/simple/", "configure uv --write")


def test_a_plain_sync_beside_a_lock_verifies_it_and_leaves_it(project: Project, world: World) -> None:
    """uv is given --locked, so it cannot write the lock anew; swapped bytes are refused before it starts."""
    lock = project.uv_lock(world.publish("acme-demo"))
    before = lock.read_bytes()
    assert project.run(["uv", "sync"], environment={"UV_FROZEN": "1"}).exit_code == 0
    words, given = project.started.pop()
    assert words == ["uv", "sync", "--locked"] and given["UV_DEFAULT_INDEX"] == f"{world.base}/simple/"
    assert "UV_FROZEN" not in given and lock.read_bytes() == before
    project.child_code = 1
    finished = project.run(["uv", "sync"])
    assert (finished.exit_code, finished.whose) == (
        1,
        "uv",
    ) and "`uv lock` makes it anew" in finished.sentences[-1]
    project.started.clear()
    project.during = lambda: lock.write_bytes(before + b"# anew\n")
    assert project.run(["uv", "sync"]).exit_code == 7, "a uv that writes it all the same"
    project.started.clear()
    project.uv_lock(world.publish("acme-demo", "2.0"), sha256="00" * 32)
    project.refuse(7, ["uv", "sync"], "00" * 32)
    lock.write_bytes(before.replace(b"https://registry.test/simple/", b"https://other.test/simple/"))
    project.refuse(5, ["uv", "sync"], "https://other.test/simple/", "or --frozen")
