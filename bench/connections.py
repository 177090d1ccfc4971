"""A load generator that costs little beside what it measures: one thread, one selector, connections kept alive.

Closed loop: each connection sends its next request when the last was answered. Open loop: requests start at a fixed
rate whatever became of the earlier ones, so a slow server cannot slow the load down. Requests are whole and ready
before the clock runs.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence


class Connection:
    """One connection; an answer of another status than the expected one ends the measurement."""

    def __init__(self, port: int, status: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False
        self.body = b""
        self._status = f"HTTP/1.1 {status} ".encode()
        self._asked, self._got = 0.0, b""

    def ask(self, request: bytes) -> None:
        self._got = b""
        self._asked = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> float | None:
        """Seconds from question to answer once it is complete; its body is in `body`."""
        self._got += self.socket.recv(1 << 20)
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            assert self._got, "the connection was closed"
            return None
        assert head.startswith(self._status), self._got[:800]
        lines = [line.lower() for line in head.split(b"\r\n")[1:]]
        self.ended = b"connection: close" in lines
        length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) < length:
            return None
        self.body = body
        return time.perf_counter() - self._asked


def closed_loop(
    port: int,
    requests: Iterable[bytes],
    *,
    connections: int,
    status: int = 200,
    answered: Callable[[bytes], None] = lambda _body: None,
) -> tuple[list[float], float]:
    """Ask all of these; the seconds that each took, and the seconds that all took."""
    left, waits = iter(requests), list[float]()
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for request in _first(left, connections):
            _begin(selector, port, status, request)
        while selector.get_map():
            for key, _ in selector.select(30):
                connection: Connection = key.data
                if (waited := connection.read()) is None:
                    continue
                waits.append(waited)
                answered(connection.body)
                request = next(left, b"")
                if request and not connection.ended:
                    connection.ask(request)
                    continue
                selector.unregister(connection.socket)
                connection.socket.close()
                if request:  # a server closes a connection after some thousand answers
                    _begin(selector, port, status, request)
        return waits, time.perf_counter() - started


def open_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    answered: Callable[[bytes], None] = lambda _body: None,
) -> list[float]:
    """Ask these at `rate` a second; the seconds from the moment each was due to its answer.

    A connection that is free takes the next one. Where none is, a new one is made, which counts as well.
    """
    waits, due, free = list[float](), dict[Connection, float](), list[Connection]()
    with selectors.DefaultSelector() as selector:
        begun, sent = time.perf_counter(), 0
        while len(waits) < len(requests):
            left = begun + sent / rate - time.perf_counter() if sent < len(requests) else 30.0
            if left <= 0:
                connection = free.pop() if free else Connection(port, 200)
                due[connection] = begun + sent / rate
                connection.ask(requests[sent])
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                sent += 1
                continue
            for key, _ in selector.select(left):
                connection = key.data
                if connection.read() is None:
                    continue
                waits.append(time.perf_counter() - due.pop(connection))
                answered(connection.body)
                selector.unregister(connection.socket)
                if connection.ended:
                    connection.socket.close()
                else:
                    free.append(connection)
    for connection in free:
        connection.socket.close()
    return waits


def _first(requests: Iterator[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        if request := next(requests, b""):
            yield request


def _begin(selector: selectors.BaseSelector, port: int, status: int, request: bytes) -> None:
    connection = Connection(port, status)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    connection.ask(request)


def for_seconds(request: bytes, seconds: float) -> Iterator[bytes]:
    """The same request again and again, until this time has passed."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield request


def post(path: str, body: bytes, token: str, *, kind: str = "application/json") -> bytes:
    """A POST request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
