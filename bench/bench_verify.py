"""Verify: a whole `countermark verify` process, and one artifact more in a warm process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import registry
from countermark.fetch import HttpFetcher
from countermark.pins import Home
from countermark.verified import Artifact
from countermark.verify import verify
from figures import Figure

COLD, WARM, FILES = 15, 15, 20


def measure() -> list[Figure]:
    """Cold process online, beside a bare Python process; and per artifact in one warm process."""
    with registry.running() as world:
        paths = [wheel.path for wheel in registry.signed_wheels(world, FILES)]
        world.run("countermark", "publish", "--yes", *paths)
        cold = [1000 * world.run("countermark", "verify", paths[0]).seconds for _ in range(COLD)]
        bare = [1000 * world.run(sys.executable, "-I", "-c", "").seconds for _ in range(COLD)]
        one, many = _warm(world.root / "home" / "countermark", paths)
    return [
        Figure("verify online, cold process", "ms", cold),
        Figure("a bare Python process beside verify", "ms", bare, beside="verify online, cold process"),
        Figure("verify online, warm process, one artifact", "ms", one),
        Figure("verify online, warm process, each further artifact", "ms", many),
    ]


def _warm(home: Path, paths: list[Path]) -> tuple[list[float], list[float]]:
    trusted = Home(home).registry(None)
    fetcher = HttpFetcher()
    artifacts = [Artifact.from_path(path) for path in paths]

    def timed(wanted: list[Artifact]) -> float:
        started = time.perf_counter()
        report = verify(wanted, trusted, fetcher, now=int(time.time()))
        assert report.exit_code == 0, report
        return 1000 * (time.perf_counter() - started)

    timed(artifacts)
    one = [timed(artifacts[:1]) for _ in range(WARM)]
    further = [(timed(artifacts) - min(one)) / (len(artifacts) - 1) for _ in range(WARM)]
    return one, further
