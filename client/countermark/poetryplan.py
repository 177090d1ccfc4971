"""What `poetry install` and `poetry sync` would install from, read as poetry reads it, or refused.

    countermark run -- poetry install --no-root
    countermark run -- poetry sync --only main

Poetry installs what poetry.lock pins, enforces its hashes, and fetches from the sources that pyproject.toml names: no
environment changes those, and without one poetry asks PyPI. So the project's one source must be the registry
(`countermark configure poetry --write`); then nobody else is asked. `requires-plugins` would be fetched and run
before anything is verified, and is refused.

The project itself is installed from its folder, which no hash covers: `--no-root`, or `package-mode = false`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from countermark.errors import PolicyError, UsageError
from countermark.lockfile import LockFile, Unprovable, read_lock
from countermark.plans import KNOWN, Options, Plan, digest_of, option_set, toml
from countermark.values import replace

PYPI = "PyPI, which poetry asks where a project names no source"
FLAGS = option_set(
    "--sync --no-root --no-directory --dry-run --all-extras --all-groups --compile --quiet -q --ansi --no-ansi "
    "--no-interaction -n --no-cache --verbose"
)
VALUES = option_set("--without --with --only --extras -E -P --project -C --directory")
SETTINGS = ("pyproject.toml", "poetry.toml")


def poetry_plan(command: Sequence[str], words: Sequence[str], folder: Path) -> Plan:
    """Read the command line of poetry; PolicyError when it is not an install we know."""
    options = Options.parse(words, FLAGS, VALUES)
    if options.positional not in (("install",), ("sync",)):
        raise PolicyError(f"`{' '.join(command)}` is not an install we know", hint=KNOWN)
    for name in ("-C", "--directory", "-P", "--project"):
        folder /= options.last(name)
    project = _project(folder.resolve())
    poetry = _poetry(project / "pyproject.toml")
    if poetry.get("requires-plugins"):
        raise PolicyError("poetry would fetch and run `requires-plugins` before anything is verified")
    if not (project / "poetry.lock").is_file():
        raise UsageError(f'no poetry.lock in "{project}"', hint="poetry lock makes one, and checks nothing")
    lock = read_lock(project / "poetry.lock")
    sources = [str(source.get("url") or PYPI) for source in poetry.get("source", [])] or [PYPI]
    return Plan(
        tuple(command),
        "poetry",
        options,
        (_with_root(lock, poetry),),
        project,
        {project / name: digest_of(project / name) for name in SETTINGS},
        sources=tuple(sources),
    )


def _project(start: Path) -> Path:
    """Poetry takes the nearest pyproject.toml that it can use; we take the nearest, and both must be one."""
    for each in (start, *start.parents):
        if (each / "pyproject.toml").is_file():
            return each
    raise UsageError(f'no pyproject.toml in "{start}" or above it')


def _poetry(path: Path) -> dict[str, Any]:
    document = toml(path)
    poetry = document["tool"].get("poetry", {}) if "tool" in document else {}
    if not isinstance(poetry, dict) or not ("project" in document or poetry):
        raise UsageError(f'"{path}" is no project of poetry')
    sources = poetry.get("source", [])
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise UsageError(f'cannot read "{path}": tool.poetry.source is a list of tables')
    return poetry


def _with_root(lock: LockFile, poetry: dict[str, Any]) -> LockFile:
    """The lock, and the project itself, which poetry installs from its folder unless it is told not to."""
    if poetry.get("package-mode", True) is False:
        return lock
    root = Unprovable(lock.path.parent.name, None, 'built from the folder "."', ".", True)
    return replace(lock, unprovable=(*lock.unprovable, root))
