"""A team's proxy: many installs by uv at once through it, beside the same from a plain index (plainindex.py).

The proxy stands behind the nginx that we ship for it (deploy/nginx/team-proxy.conf), the plain index is nginx with
the same TLS. Every client starts with an empty cache and an environment of its own, and installs by name, as people
do who point uv at an index: from a lock, uv would fetch from the addresses that the lock names. Both ways are taken
in turn, each warm: the proxy has judged and stored the files once, as it has after a team's first install. The plain
index computes nothing, and clients, indexes and registry share this machine: no ratio can be worse than this one.
With credentials, here the same for all, nothing is kept by nginx, and each question is the proxy's.

Seconds are what people wait for. CPU seconds, of the clients, both indexes and the registry's web process together,
say less of what else the machine did.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench_lock
import plainindex
import registry
from figures import Figure
from tests.deploy.front import nginx
from tests.deploy.privateca import make_certificate
from tests.deploy.teamfront import write_team_front
from tests.world.world import World, free_port

SIZES = ((8, 50, 3), (50, 200, 2))  # clients, wheels, rounds; of the last, each takes minutes
BUDGET = {(50, 200): 1.1}
PLAIN, PROXY, NAMED = "plain index", "team proxy", "team proxy with credentials"
PATIENCE = {
    "UV_HTTP_TIMEOUT": "600",
    "UV_HTTP_CONNECT_TIMEOUT": "600",
}  # on a busy machine slow is not broken


@dataclass(frozen=True)
class Took:
    """What so many installs took until the last was done."""

    seconds: float
    cpu: float


def measure() -> list[Figure]:
    """Seconds and CPU seconds of both ways, and how many times as much the proxy takes."""
    figures: list[Figure] = []
    with registry.running() as world:
        wheels = bench_lock.publish(world, max(count for _, count, _ in SIZES))
        time.sleep(2)
        ceremony = world.root / "ceremony" / "out"
        world.run("countermark", "trust", "add", world.url, "--root-words", world.words(ceremony))
        with _indexes(world, wheels) as (indexes, spent):
            for clients, count, rounds in SIZES:
                names = [wheel.name.split("-")[0] for wheel in wheels[:count]]
                for index in indexes.values():
                    _together(world, names, index, 1, spent)
                took: dict[str, list[Took]] = {way: [] for way in indexes}
                for _ in range(rounds):
                    for way, index in indexes.items():
                        took[way].append(_together(world, names, index, clients, spent))
                figures += _figures(clients, count, took)
    return figures


@contextlib.contextmanager
def _indexes(world: World, wheels: Sequence[Path]) -> Iterator[tuple[dict[str, str], Callable[[], float]]]:
    """The address of each way, and the CPU seconds of all that stands behind them until now."""
    _, chain, key = make_certificate(world.root)
    command = ("countermark", "proxy", "--listen", "127.0.0.1:0")
    proxy = subprocess.Popen(
        command, env=world.env(), cwd=world.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert proxy.stdout is not None
        behind, port = proxy.stdout.readline().split("/")[2], free_port()
        write_team_front(world.root / "front", port=port, behind=behind, chain=chain, key=key)
        with (
            plainindex.serving(wheels, world.root / "plain", chain=chain, key=key) as (plain_index, plain),
            nginx(world.root / "front", port) as front,
        ):
            processes = (world.pid("web"), proxy.pid, plain, front)
            addresses = {PLAIN: plain_index, PROXY: f"https://localhost:{port}/simple/"}
            addresses[NAMED] = addresses[PROXY].replace("localhost", "ann:word@localhost")
            yield addresses, lambda: sum(map(registry.spent, processes))
    finally:
        proxy.terminate()
        proxy.wait(20)


def _together(
    world: World, names: Sequence[str], index: str, clients: int, spent: Callable[[], float]
) -> Took:
    """So many installs that start at once, until the last one has ended well."""
    folders = [world.root / f"client-{number}" for number in range(clients)]
    for folder in folders:
        folder.mkdir()
        world.run("uv", "venv", "--quiet", folder / "venv")
    used, started = _clients() + spent(), time.perf_counter()
    running = [_install(world, names, index, folder) for folder in folders]
    for child in running:
        _, said = child.communicate(timeout=1200)
        assert child.returncode == 0, said
    took = Took(time.perf_counter() - started, _clients() + spent() - used)
    for folder in folders:
        shutil.rmtree(folder)
    return took


def _install(world: World, names: Sequence[str], index: str, folder: Path) -> subprocess.Popen[str]:
    command = ["uv", "pip", "install", "--quiet", "--default-index", index, "--python", str(folder / "venv")]
    own = {"UV_CACHE_DIR": str(folder / "cache"), "SSL_CERT_FILE": str(world.root / "ca.pem")}
    env = world.env(**own, **PATIENCE)
    return subprocess.Popen([*command, *names], env=env, stderr=subprocess.PIPE, text=True)


def _clients() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _figures(clients: int, count: int, took: Mapping[str, Sequence[Took]]) -> list[Figure]:
    what, size = f"{clients} parallel installs of {count} wheels", f"{clients} installs of {count} wheels"
    plain = f"{what}, {PLAIN}"
    figures = [Figure(plain, "s", [each.seconds for each in took[PLAIN]])]
    for way in (PROXY, NAMED):
        pairs = list(zip(took[way], took[PLAIN], strict=True))
        over = f"{way} over plain index, {size}"
        budget = BUDGET.get((clients, count)) if way == PROXY else None
        figures += [
            Figure(f"{what}, {way}", "s", [each.seconds for each in took[way]], beside=plain),
            Figure(over, "times", [p.seconds / q.seconds for p, q in pairs], budget=budget),
            Figure(f"{over}, CPU", "times", [p.cpu / q.cpu for p, q in pairs]),
        ]
    return figures
