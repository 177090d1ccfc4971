"""Bundles: a whole offline `bundle verify` process beside what other projects' verifiers take, and one warm check.

All start as new processes, in turn, so that whatever else this machine does meets them alike. The others verify
a real release offline (peers.py says what); ours checks three parties' claims where they check one signature
and one log, so the ratio says what an installer waits, not that the work is the same.
"""

from __future__ import annotations

import os
import resource
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
        path, files, home = _bundles(Path(folder))
        programs = Path(sys.executable).parent
        environment = {**os.environ, "COUNTERMARK_HOME": str(home.path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
        command = [str(programs / "countermark"), "bundle", "verify", str(path)]
        commands = {
            "ours": command, "bare": [sys.executable, "-I", "-c", ""],
            "sigstore": others.sigstore, "attestations": others.pypi_attestations,
        }  # fmt: skip
        cold: dict[str, list[float]] = {name: [] for name in commands}
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(COLD + 1):
            for name, words in commands.items():
                took, cpu = _process(words, path.parent, environment)
                if number:  # the first may have compiled
                    cold[name].append(took)
                    spent[name].append(cpu)
        warm = [_warm(files[-1:], home) for _ in range(WARM)]
        each = [_warm(files, home) / FILES for _ in range(WARM // 10)]
    times = [other / ours for other, ours in zip(cold["sigstore"], cold["ours"], strict=True)]
    return [
        Figure(OURS, "ms", cold["ours"], budget=50),
        Figure("a bare Python process", "ms", cold["bare"], beside=OURS),
        Figure(f"{OURS}, CPU", "CPU ms", spent["ours"]),
        Figure("a bare Python process, CPU", "CPU ms", spent["bare"], beside=f"{OURS}, CPU"),
        Figure(
            "sigstore verify --offline, cold process, CPU", "CPU ms", spent["sigstore"], beside=f"{OURS}, CPU"
        ),
        Figure("sigstore verify --offline, cold process", "ms", cold["sigstore"], beside=OURS),
        Figure("pypi-attestations verify --offline, cold process", "ms", cold["attestations"], beside=OURS),
        Figure("sigstore verify over bundle verify, cold", "times", times, budget=8, more_is_better=True),
        Figure("bundle verify offline, warm process, one file", "ms", warm),
        Figure(f"bundle verify offline, warm process, each of {FILES} files", "ms", each, budget=0.5),
        Figure("size of a bundle", "bytes", [float(len(raw)) for _, raw in files], budget=20_000),
    ]


def _bundles(folder: Path) -> tuple[Path, list[tuple[Artifact, bytes]], Home]:
    """Wheels, their bundles made at one moment, and the home of a machine that pinned nothing but the root.

    The path is the last one's; its bundle lies beside it.
    """
    world = World(now=int(time.time()))
    artifacts = []
    for number in range(FILES):
        file = world.publish("bench", f"1.{number}", list_it=False)
        world.verdict(file)
        path = folder / file.filename
        path.write_bytes(file.data)
        artifacts.append(Artifact.from_path(path))
    world.release()
    registry = Home(folder / "maker").add(world.base, world.root)
    made = make(artifacts, registry, world, now=world.now, policies=Policies())
    (folder / "countermark").mkdir()
    (folder / "countermark" / f"{path.name}.countermark").write_bytes(made[path.name])
    home = Home(folder / "home")
    home.add(world.base, world.root)
    return path, [(artifact, made[artifact.filename]) for artifact in artifacts], home


def _warm(files: list[tuple[Artifact, bytes]], home: Home) -> float:
    """Milliseconds for these files in this process, which has done it before."""
    registry, now = home.registry(None), int(time.time())
    started = time.perf_counter()
    report = verify_bundles(files, registry, now=now, max_age=DAY, policies=Policies())
    took = 1000 * (time.perf_counter() - started)
    assert report.exit_code == 0, report
    return took


def _process(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds until it ended, and those of CPU time: a busy machine stretches the first most."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, timeout=60)
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * took, 1000 * cpu
