"""A simulated registry behind a socket that misbehaves: every way to send too much, too little, or too slowly.

    with wire() as server:
        world = World(base=server.url)
        server.world = world
        server.attack("/tuf/timestamp.json", ENDLESS["chunks"])      # this file so, everything else honestly
        server.sent                                                  # bytes the attack brought out

An attack is a function of the honest body that yields what goes over the wire, status line included. It is asked
for more until the client hangs up, so an endless one ends with the client's patience or not at all.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from countermark.fetch import StatusError
from tests.simulator import World

Attack = Callable[[bytes], Iterator[bytes]]
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = OK + b"Content-Encoding: gzip\r\n"
PAUSE = 0.02  # seconds between two bytes of a server that drips


def _length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _for_ever(piece: bytes) -> Iterator[bytes]:
    yield from itertools.repeat(piece)


def _dripping(piece: bytes) -> Iterator[bytes]:
    for _ in range(3000):  # a minute
        yield piece
        time.sleep(PAUSE)


def _zeros() -> Iterator[bytes]:
    """One gzip member of zeros without end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    while True:
        if piece := packer.compress(bytes(1 << 20)):
            yield piece


def _then(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from rest


def _said(head: bytes, body: bytes) -> Iterator[bytes]:
    yield head + _length(body) + body


MANY = bytes(65536)
NAMED = GZIP + b"\r\n\x1f\x8b\x08\x08" + bytes(6)  # gzip that begins with a file name
BARE = GZIP + b"\r\n\x1f\x8b\x08\x00" + bytes(6)
BILLIONS = OK + b"Content-Length: 1000000000000000\r\n\r\n"
_zip = gzip.compress

# Longer than anything the client may take. None of them says so truly.
ENDLESS: dict[str, Attack] = {
    "chunks without a length": lambda body: _then(CHUNKED + _chunk(body), _for_ever(_chunk(MANY))),
    "no length, until the connection closes": lambda body: _then(OK + b"\r\n" + body, _for_ever(MANY)),
    "a length beyond belief": lambda body: _then(BILLIONS + body, _for_ever(MANY)),
    "gzip of zeros": lambda body: _then(GZIP + b"\r\n", _zeros()),
    "gzip that is all file name": lambda body: _then(NAMED, _for_ever(b"a" * 65536)),
}

# Not the file, and nobody may take it for one.
BROKEN: dict[str, Attack] = {
    "more announced than comes": lambda body: iter([OK + _length(body + b"x") + body]),
    "a last chunk that never comes": lambda body: iter([CHUNKED + _chunk(body)]),
    "gzip cut in the middle": lambda body: _said(GZIP, _zip(body)[:-9]),
    "gzip cut, without a length": lambda body: iter([GZIP + b"\r\n" + _zip(body)[:-9]]),
    "gzip of something and more behind it": lambda body: _said(GZIP, _zip(body) * 2),
    "no gzip at all": lambda body: _said(GZIP, body),
    "gzip in gzip": lambda body: _said(OK + b"Content-Encoding: gzip, gzip\r\n", _zip(_zip(body))),
    "another encoding": lambda body: _said(OK + b"Content-Encoding: br\r\n", body),
}

# A byte now and then, for a minute: in every place where a reader waits for more.
SLOW: dict[str, Attack] = {
    "status line": lambda body: _dripping(b"H"),
    "headers": lambda body: _then(OK + b"X-A: ", _dripping(b"x")),
    "interim answers": lambda body: _dripping(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": lambda body: _then(BILLIONS, _dripping(b"x")),
    "body without a length": lambda body: _then(OK + b"\r\n" + body, _dripping(b" ")),
    "size of a chunk": lambda body: _then(CHUNKED, _dripping(b"0")),
    "extension of a chunk": lambda body: _then(CHUNKED + b"5;", _dripping(b"x")),
    "trailer": lambda body: _then(CHUNKED + _chunk(body) + b"0\r\n", _dripping(b"A: b\r\n")),
    "name inside of gzip": lambda body: _then(NAMED, _dripping(b"a")),
    "empty blocks of gzip": lambda body: _then(BARE, _dripping(b"\x00\x00\x00\xff\xff")),
}


class Wire(socketserver.ThreadingTCPServer):
    """One registry, one attacked path."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.world: World
        self.attack("nowhere", lambda body: iter([]))

    def attack(self, part: str, attack: Attack) -> None:
        """From now on every path with this in it is answered so."""
        self._part, self._attack, self.sent = part, attack, 0

    def answers(self, path: str, accept: str) -> Iterator[bytes]:
        try:
            body = self.world.get(
                self.world.base + path, max_bytes=1 << 40, missing_ok=True, headers={"Accept": accept}
            )
        except StatusError:
            body = None
        if self._part in path:
            yield from self._attack(body or b"{}")
        elif body is None:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        else:
            yield OK + _length(body) + body

    def attacked(self, path: str) -> bool:
        return self._part in path


class _Handler(socketserver.BaseRequestHandler):
    server: Wire

    def handle(self) -> None:
        """Requests on one connection, until it is closed or an attack was sent on it."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        came = b""
        with contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in came:
                    more = self.request.recv(65536)
                    if not more:
                        return
                    came += more
                head, _, came = came.partition(b"\r\n\r\n")
                path = head.split()[1].decode().partition("?")[0]
                accept = next(
                    (
                        line[8:].decode()
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"accept: ")
                    ),
                    "",
                )
                attacked = self.server.attacked(path)
                for piece in self.server.answers(path, accept):
                    self.request.sendall(piece)
                    if attacked:
                        self.server.sent += len(piece)
                if attacked:
                    return


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """A server on a free port of this machine."""
    with Wire() as server:
        arguments: dict[str, Any] = {"poll_interval": 0.02}
        thread = threading.Thread(target=server.serve_forever, kwargs=arguments, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
