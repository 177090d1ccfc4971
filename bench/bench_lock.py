"""Locks: 200 packages verified online, cold and warm, with the questions it takes; and what `run` adds to an install.

Cold is a machine that has pinned the root and asked nothing yet; warm is the same command again. The registry lists
nothing new in between. `uv sync --frozen` installs one package anew from uv's own cache, alone and under `run`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import registry
from countermark.clientpolicy import Policies
from countermark.fetch import Answer, HttpFetcher
from countermark.lockcheck import verify_locks
from countermark.lockfile import read_lock
from countermark.pins import Home
from figures import Figure
from tests.world.world import World

PACKAGES, COLD, WARM, INSTALLS = 200, 5, 11, 11


class Counting(HttpFetcher):
    """A fetcher that counts what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, url: str, **options: Any) -> bytes | None:
        self.asked.append(url)
        return super().get(url, **options)

    def chunks(self, url: str, **options: Any) -> Iterator[bytes]:
        self.asked.append(url)
        return super().chunks(url, **options)

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        self.asked.append(url)
        return super().post(url, body, **options)


def publish(world: World, count: int) -> list[Path]:
    """So many projects of one wheel each, listed."""
    folder = world.root / "packages"
    folder.mkdir()
    wheels = [registry.make_wheel(folder, "1.0", f"pkg{number:03}") for number in range(count)]
    for first in range(0, count, 50):
        world.run("countermark", "publish", "--yes", *wheels[first : first + 50], timeout=600)
    return wheels


def lock(world: World, wheels: Sequence[Path], folder: Path) -> Path:
    """A project's uv.lock that pins these wheels."""
    folder.mkdir()
    names = [wheel.name.split("-")[0] for wheel in wheels]
    needed = ", ".join(f'"{name}"' for name in names)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = [{needed}]\n'
        "[tool.uv]\npackage = false\n",
        encoding="utf-8",
    )
    text = 'version = 1\nrequires-python = ">=3.11"\n\n[[package]]\nname = "app"\nversion = "0"\n'
    text += 'source = { virtual = "." }\n'
    text += "dependencies = [" + ", ".join(f'{{ name = "{name}" }}' for name in names) + "]\n"
    for name, wheel in zip(names, wheels, strict=True):
        url, digest = (
            f"{world.url}/packages/{name}/{wheel.name}",
            hashlib.sha256(wheel.read_bytes()).hexdigest(),
        )
        text += f'\n[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ registry = "{world.url}/simple" }}\n'
        text += f'wheels = [{{ url = "{url}", hash = "sha256:{digest}", size = {wheel.stat().st_size} }}]\n'
    (folder / "uv.lock").write_text(text, encoding="utf-8")
    return folder / "uv.lock"


def measure() -> list[Figure]:
    """Whole processes, cold and warm; the questions of each; and an install alone and under `run`."""
    with registry.running() as world:
        wheels = publish(world, PACKAGES)
        time.sleep(2)
        path = lock(world, wheels, world.root / "app")
        cold, warm = [], []
        for number in range(COLD):
            home = _pinned(world, f"cold-{number}")
            cold.append(world.run("countermark", "verify", path, home=home).seconds)
        warm = [world.run("countermark", "verify", path, home=home).seconds for _ in range(WARM)]
        asked_cold, asked_warm = _asked(world, path)
        alone, under = _installs(world, lock(world, wheels[:1], world.root / "one").parent)
    added = [1000 * (b - a) for a, b in zip(alone, under, strict=True)]
    return [
        Figure(f"verify a lock of {PACKAGES} packages, cold", "s", cold, budget=2),
        Figure(f"verify a lock of {PACKAGES} packages, warm", "s", warm, budget=0.3),
        Figure(f"questions for a lock of {PACKAGES} packages, cold", "requests", [asked_cold]),
        Figure(f"questions for a lock of {PACKAGES} packages, warm", "requests", [asked_warm]),
        Figure("uv sync --frozen of one package", "ms", [1000 * each for each in alone]),
        Figure("what `run` adds to it, warm", "ms", added, budget=300),
    ]


def _pinned(world: World, home: str) -> str:
    """A machine that has pinned the root, and asked nothing."""
    world.run("countermark", "trust", "add", world.url, "--root-words", _words(world), home=home)
    return home


def _words(world: World) -> str:
    return world.words(world.root / "ceremony" / "out")


def _asked(world: World, path: Path) -> tuple[int, int]:
    """How many questions a cold and a warm verification ask."""
    home = Home(world.root / _pinned(world, "counted") / "countermark")
    counts = []
    for _ in range(2):
        fetcher = Counting()
        report = verify_locks(
            [read_lock(path)], home.registry(None), fetcher, now=int(time.time()), policies=Policies()
        )
        assert report.exit_code == 0, report.to_json()
        counts.append(len(fetcher.asked))
    return counts[0], counts[1]


def _installs(world: World, folder: Path) -> tuple[list[float], list[float]]:
    """The same install into a new environment, alone and under `run`, in turn; caches are warm."""
    alone: list[float] = []
    under: list[float] = []
    home, sync = _pinned(world, "installer"), ("uv", "sync", "--frozen", "--quiet")
    for number in range(INSTALLS + 1):
        for command, times in ((sync, alone), (("countermark", "run", "--", *sync), under)):
            shutil.rmtree(folder / ".venv", ignore_errors=True)
            took = world.run(*command, cwd=folder, home=home).seconds
            if number:
                times.append(took)
    return alone, under
