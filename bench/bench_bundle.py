"""Bundles: a whole offline `countermark bundle verify` process, one check in a warm process, and the size."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from countermark.bundling import make
from countermark.clientpolicy import Policies
from countermark.offline import verify_bundles
from countermark.pins import Home
from countermark.verified import Artifact
from figures import Figure
from tests.simulator import World

COLD, WARM, FILES = 25, 200, 50
DAY = 86_400


def measure() -> list[Figure]:
    """Cold process offline, beside a bare Python process; warm; and the bytes of one bundle."""
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        path, raw, home = _bundle(Path(folder))
        programs = Path(sys.executable).parent
        environment = {**os.environ, "COUNTERMARK_HOME": str(home.path)}
        command = [str(programs / "countermark"), "bundle", "verify", str(path)]
        cold = [_process(command, path.parent, environment) for _ in range(COLD)]
        bare = [_process([sys.executable, "-I", "-c", ""], path.parent, environment) for _ in range(COLD)]
        trusted, artifact, now = home.registry(None), Artifact.from_path(path), int(time.time())
        warm = []
        for _ in range(WARM):
            started = time.perf_counter()
            report = verify_bundles([(artifact, raw)], trusted, now=now, max_age=DAY, policies=Policies())
            warm.append(1000 * (time.perf_counter() - started))
            assert report.exit_code == 0, report
    return [
        Figure("bundle verify offline, cold process", "ms", cold, budget=50),
        Figure("a bare Python process beside bundle verify", "ms", bare),
        Figure("bundle verify offline, warm process", "ms", warm),
        Figure("size of a bundle", "bytes", [float(len(raw))], budget=20_000),
    ]


def _bundle(folder: Path) -> tuple[Path, bytes, Home]:
    """A wheel, its bundle, and the home of a machine that pinned nothing but the root."""
    world = World(now=int(time.time()))
    for number in range(FILES):
        file = world.publish("bench", f"1.{number}", list_it=False)
        world.verdict(file)
    world.release()
    path = folder / file.filename
    path.write_bytes(file.data)
    registry = Home(folder / "maker").add(world.base, world.root)
    artifact = Artifact.from_path(path)
    raw = make([artifact], registry, world, now=world.now, policies=Policies())[file.filename]
    (folder / "countermark").mkdir()
    (folder / "countermark" / f"{file.filename}.countermark").write_bytes(raw)
    home = Home(folder / "home")
    home.add(world.base, world.root)
    return path, raw, home


def _process(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, timeout=60)
    return 1000 * (time.perf_counter() - started)
