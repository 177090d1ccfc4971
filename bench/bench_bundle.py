"""Bundles: a whole offline `bundle verify` process beside what other projects' verifiers take, and one warm check.

All start as new processes, in turn, so that whatever else this machine does meets them alike. The others verify
a real release offline (peers.py says what); ours checks three parties' claims where they check one signature
and one log, so the ratio says what an installer waits, not that the work is the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
from countermark.bundling import make
from countermark.clientpolicy import Policies
from countermark.offline import verify_bundles
from countermark.pins import Home
from countermark.verified import Artifact
from figures import Figure
from tests.simulator import World

COLD, WARM, FILES = 25, 200, 50
DAY = 86_400
OURS = "bundle verify offline, cold process"


def measure() -> list[Figure]:
    """Cold processes offline, in turn; warm; and the bytes of one bundle."""
    others = peers.install()
    with tempfile.TemporaryDirectory(prefix="countermark-bench-") as folder:
        path, raw, home = _bundle(Path(folder))
        programs = Path(sys.executable).parent
        environment = {**os.environ, "COUNTERMARK_HOME": str(home.path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
        command = [str(programs / "countermark"), "bundle", "verify", str(path)]
        commands = {
            "ours": command, "bare": [sys.executable, "-I", "-c", ""],
            "sigstore": others.sigstore, "attestations": others.pypi_attestations,
        }  # fmt: skip
        cold: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(COLD + 1):
            for name, words in commands.items():
                took = _process(words, path.parent, environment)
                if number:  # the first may have compiled
                    cold[name].append(took)
        trusted, artifact, now = home.registry(None), Artifact.from_path(path), int(time.time())
        warm = []
        for _ in range(WARM):
            started = time.perf_counter()
            report = verify_bundles([(artifact, raw)], trusted, now=now, max_age=DAY, policies=Policies())
            warm.append(1000 * (time.perf_counter() - started))
            assert report.exit_code == 0, report
    times = [other / ours for other, ours in zip(cold["sigstore"], cold["ours"], strict=True)]
    return [
        Figure(OURS, "ms", cold["ours"], budget=50),
        Figure("a bare Python process", "ms", cold["bare"], beside=OURS),
        Figure("sigstore verify --offline, cold process", "ms", cold["sigstore"], beside=OURS),
        Figure("pypi-attestations verify --offline, cold process", "ms", cold["attestations"], beside=OURS),
        Figure("sigstore verify over bundle verify, cold", "times", times, budget=8, more_is_better=True),
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
