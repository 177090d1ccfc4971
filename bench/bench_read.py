"""Reading: tiles and simple pages through nginx, and simple pages that did not change from the application itself.

Closed loop over connections that are kept alive: each asks again when it was answered. nginx runs the shipped
configuration (`deploy/nginx`), the application has one worker. The load generator runs on the same machine, and
counts what a reader waits for: from the request's last byte to the answer's.
"""

from __future__ import annotations

import selectors
import socket
import tempfile
import time
from pathlib import Path

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
                    waits, seconds = _closed_loop(port, request, status)
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


def _closed_loop(port: int, request: bytes, status: int) -> tuple[list[float], float]:
    waits: list[float] = []
    with selectors.DefaultSelector() as selector:

        def begin() -> None:
            reader = _Reader(port, request, status)
            selector.register(reader.socket, selectors.EVENT_READ, reader)
            reader.ask()

        for _ in range(CONNECTIONS):
            begin()
        started = time.perf_counter()
        while (now := time.perf_counter()) - started < SECONDS:
            for key, _ in selector.select(SECONDS):
                reader: _Reader = key.data
                if (waited := reader.read()) is None:
                    continue
                waits.append(waited)
                if reader.ended:  # a server closes a connection after some thousand answers
                    selector.unregister(reader.socket)
                    reader.socket.close()
                    begin()
                else:
                    reader.ask()
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return waits, now - started


class _Reader:
    """One connection; an answer of another status than the expected one ends the measurement."""

    def __init__(self, port: int, request: bytes, status: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False
        self._request, self._status = request, f"HTTP/1.1 {status} ".encode()
        self._asked, self._got = 0.0, b""

    def ask(self) -> None:
        self._got = b""
        self.socket.sendall(self._request)
        self._asked = time.perf_counter()

    def read(self) -> float | None:
        """Seconds from question to answer once it is complete."""
        self._got += self.socket.recv(65536)
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            assert self._got, "the connection was closed"
            return None
        assert head.startswith(self._status), head[:80]
        lines = [line.lower() for line in head.split(b"\r\n")[1:]]
        self.ended = b"connection: close" in lines
        length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        return time.perf_counter() - self._asked if len(body) >= length else None
