"""Reading: tiles and simple pages through nginx, and simple pages that did not change from the application itself.

Closed loop over connections that are kept alive: each asks again when it was answered. nginx runs the shipped
configuration (`deploy/nginx`), the application has one worker. The load generator runs on the same machine, and
counts what a reader waits for: from the request's last byte to the answer's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import connections
import registry
from figures import Figure, percentile
from tests.deploy.front import Front, ask
from tests.world.world import World, free_port

CONNECTIONS, RUNS, SECONDS = 16, 3, 2.0
PAGE = f"/simple/{registry.PROJECT}/"


def measure() -> list[Figure]:
    """Answers a second and the slowest hundredth, three ways."""
    figures: list[Figure] = []
    with registry.running() as world, tempfile.TemporaryDirectory(prefix="countermark-nginx-") as folder:
        _publish(world)
        front = Front(Path(folder), free_port(), world.data / "public", f"127.0.0.1:{world.port}")
        tag = ask(world.port, "GET", PAGE).headers["etag"]
        with front.running():
            asked = (
                ("tiles through nginx", front.port, _tile(world), "", 200, 3_000),
                ("simple page through nginx", front.port, PAGE, "", 200, 3_000),
                (
                    "simple page, tag unchanged, gunicorn",
                    world.port,
                    PAGE,
                    f"If-None-Match: {tag}\r\n",
                    304,
                    800,
                ),
            )
            for name, port, path, header, status, budget in asked:
                request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n".encode()
                rates, tails = [], []
                for _ in range(RUNS):
                    asking = connections.for_seconds(request, SECONDS)
                    waits, seconds = connections.closed_loop(
                        port, asking, connections=CONNECTIONS, status=status
                    )
                    rates.append(len(waits) / seconds)
                    tails.append(percentile(waits, 0.99) * 1000)
                figures.append(Figure(name, "answers/s", rates, budget=budget, more_is_better=True))
                figures.append(Figure(f"{name}, p99", "ms", tails, budget=30))
    return figures


def _publish(world: World) -> None:
    wheels = registry.signed_wheels(world, 20)
    world.run("countermark", "publish", "--yes", *(wheel.path for wheel in wheels))


def _tile(world: World) -> str:
    """The newest partial tile of leaf hashes."""
    newest = max((world.data / "public/log/tile/0/000.p").iterdir(), key=lambda path: int(path.name))
    return f"/log/tile/0/000.p/{newest.name}"
