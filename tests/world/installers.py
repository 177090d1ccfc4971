"""Installers, plain and under `countermark run`, as the people of a world start them; and who meets a swapped wheel.

Used by the act of the insider, by the stories under tests/attacks and by the journeys.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.world.insider import PROJECT, TAMPERED, imported
from tests.world.world import Done, World, must

HEX = r"[0-9a-f]{64}"


def pip(world: World, python: Path, *words: str, expect: int = 0) -> Done:
    """pip by name, as a person would start it."""
    command = (str(python), "-m", "pip", "install", "--force-reinstall", "--no-input", *words)
    return world.run("countermark", "run", "--json", "run.json", "--", *command, home="bob", expect=expect)


def uv(world: World, python: Path, *words: str, expect: int = 0) -> Done:
    """uv by name."""
    command = ("uv", "pip", "install", "--reinstall", "--python", str(python), *words)
    return world.run("countermark", "run", "--json", "run.json", "--", *command, home="bob", expect=expect)


def essential(text: str) -> str:
    """What people read, without what differs from run to run."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "URL", text)
    text = re.sub(rf"\b{HEX}\b", "HASH", text)
    text = re.sub(r"\b[0-9a-f]{12}\.\.\.", "HASH...", text)
    text = re.sub(r"#\d+|entry \d+", "#N", text)
    return re.sub(r"/[^ \"]*/evidence/[^ \"]*", "FILE", text)


def application(world: World) -> Path:
    """An application that depends on the project; uv has not locked it yet."""
    app = world.root / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        f'[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["{PROJECT}==1.0.0"]\n'
        f'[[tool.uv.index]]\nname = "demo"\nurl = "{world.url}/simple/"\ndefault = true\n'
        "[tool.uv]\npackage = false\n",
        encoding="utf-8",
    )
    return app


def fooled_pip(world: World, python: Path) -> str:
    """Plain pip takes what the index says; returns what the package prints."""
    world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
    said = imported(world, python)
    must(TAMPERED in said, "plain pip did not install the tampered wheel", said)
    return said


def fooled_uv(world: World, app: Path, swapped: str) -> str:
    """A lock made after the swap pins the swapped wheel, and plain uv installs it; returns what that prints."""
    world.run("uv", "lock", "--default-index", f"{world.url}/simple/", cwd=app, home="bob")
    must(
        swapped in (app / "uv.lock").read_text("utf-8"),
        "the lock made after the swap does not pin the swapped wheel",
    )
    world.run("uv", "sync", "--frozen", cwd=app, home="bob")
    said = imported(world, app / ".venv" / "bin" / "python")
    must(TAMPERED in said, "plain uv sync did not install the swapped wheel", said)
    return said


def pinned(app: Path, swapped: str) -> Path:
    """Requirements that were compiled after the swap."""
    requirements = app / "requirements.txt"
    requirements.write_text(f"{PROJECT}==1.0.0 --hash=sha256:{swapped}\n", encoding="utf-8")
    return requirements


def locked_routes(python: Path, requirements: Path) -> dict[str, tuple[str, ...]]:
    """The routes on which the bytes are pinned, by what a person types."""
    options = ("--force-reinstall", "--require-hashes", "-r", str(requirements))
    return {
        "uv sync --frozen": ("uv", "sync", "--frozen"),
        "pip install --require-hashes -r requirements.txt": (str(python), "-m", "pip", "install", *options),
    }


def refused(
    world: World, hashes: tuple[str, str], *command: str | Path, cwd: Path | None = None, **extra: str
) -> Done:
    """Bob meets the swapped wheel: exit 7, with both hashes and the entry."""
    done = world.run("countermark", *command, cwd=cwd, home="bob", expect=7, **extra)
    must(all(digest in done.said for digest in hashes), "the refusal does not name both hashes", done.said)
    must(re.search(r"entry (#)?\d+", done.said), "the refusal does not name the entry", done.said)
    return done


def installed(world: World, python: Path, project: str = PROJECT) -> bool:
    """Whether this environment has the project."""
    listed = world.run(python, "-m", "pip", "list", "--format=freeze").out
    return project in listed.replace("_", "-")
