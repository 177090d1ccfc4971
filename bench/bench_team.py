"""A team's proxy: many installs by uv at once through it, beside the same from a plain index (plainindex.py).

Every client starts with an empty cache and an environment of its own, and installs by name, as people do who point uv
at an index: from a lock, uv would fetch from the addresses that the lock names. Both ways are taken in turn, each
warm: the proxy has judged and stored the files once, as it has after a team's first install. The plain index computes
nothing, and clients, indexes and registry share this machine: no ratio can be worse than this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence

import bench_lock
import plainindex
import registry
from figures import Figure
from tests.world.world import World

CLIENTS = int(os.environ.get("COUNTERMARK_BENCH_CLIENTS", "50"))
WHEELS = int(os.environ.get("COUNTERMARK_BENCH_WHEELS", "200"))
ROUNDS = 3


def measure() -> list[Figure]:
    """Seconds until all clients are done, by either way, and how many times as long the proxy takes."""
    with registry.running() as world:
        wheels = bench_lock.publish(world, WHEELS)
        time.sleep(2)
        names = [wheel.name.split("-")[0] for wheel in wheels]
        world.run(
            "countermark",
            "trust",
            "add",
            world.url,
            "--root-words",
            world.words(world.root / "ceremony" / "out"),
        )
        proxy = subprocess.Popen(
            ("countermark", "proxy", "--listen", "127.0.0.1:0"), env=world.env(), text=True, cwd=world.root,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert proxy.stdout is not None
            with plainindex.serving(wheels) as plain_index:
                ways = {"plain": plain_index, "proxy": proxy.stdout.readline().strip()}
                for index in ways.values():
                    _together(world, names, index, 1)
                took: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(ROUNDS):
                    for way, index in ways.items():
                        took[way].append(_together(world, names, index, CLIENTS))
        finally:
            proxy.terminate()
            proxy.wait(20)
    ratios = [p / q for p, q in zip(took["proxy"], took["plain"], strict=True)]
    plain = f"{CLIENTS} parallel installs of {WHEELS} wheels, plain index"
    return [
        Figure(plain, "s", took["plain"]),
        Figure(
            f"{CLIENTS} parallel installs of {WHEELS} wheels, team proxy", "s", took["proxy"], beside=plain
        ),
        Figure(
            f"team proxy over plain index, {CLIENTS} installs of {WHEELS} wheels",
            "times",
            ratios,
            budget=1.1 if (CLIENTS, WHEELS) == (50, 200) else None,
        ),
    ]


def _together(world: World, names: Sequence[str], index: str, clients: int) -> float:
    """So many installs that start at once; seconds until the last one ended well."""
    folders = [world.root / f"client-{number}" for number in range(clients)]
    running = []
    for folder in folders:
        folder.mkdir()
        world.run("uv", "venv", "--quiet", folder / "venv")
    started = time.perf_counter()
    for folder in folders:
        command = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--default-index",
            index,
            "--python",
            str(folder / "venv"),
            *names,
        ]
        env = {**world.env(), "UV_CACHE_DIR": str(folder / "cache")}
        running.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for child in running:
        _, said = child.communicate(timeout=600)
        assert child.returncode == 0, said
    took = time.perf_counter() - started
    for folder in folders:
        shutil.rmtree(folder)
    return took
