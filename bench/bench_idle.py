"""An idle registry: what its processes cost while nothing happens, with the settings that `up` has by itself.

A file is published first, and its listing waited for; then nobody asks anything. Of each process the CPU time of the
same seconds, as a share of one core.
"""

from __future__ import annotations

import time

import registry
from figures import Figure

QUIET, SPAN, SPANS = 15.0, 10.0, 3  # seconds: until every station has its slowest pace, and of one sample
STATIONS = ("web", "log", "scan", "tufrepo", "timestamper")


def measure() -> list[Figure]:
    """Per cent of a core, by process."""
    samples: dict[str, list[float]] = {name: [] for name in STATIONS}
    with registry.running() as world:
        dist = world.project("idle")
        world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
        time.sleep(QUIET)
        for _ in range(SPANS):
            before = {name: registry.spent(world.pid(name)) for name in STATIONS}
            started = time.monotonic()
            time.sleep(SPAN)
            passed = time.monotonic() - started
            for name in STATIONS:
                samples[name].append(100 * (registry.spent(world.pid(name)) - before[name]) / passed)
    return [Figure(f"an idle registry, {name}", "% of a core", found) for name, found in samples.items()]
