"""Serving: the one module of the client that listens.

    def answer(request: Request) -> Response: ...        # the engine: bytes in, bytes out, no sockets
    with listening(answer, "127.0.0.1", 0) as server:    # port 0: any free port
        print(server.url)
        server.serve_forever()

An engine (the witness, the proxy) is a function from `Request` to `Response` and is tested without a
socket. This file gives it a threaded HTTP/1.1 server from the standard library with keep-alive, a limit on
the body and a time limit on a silent client.

A body may be a stream of known length. When the stream raises a CountermarkError, or ends early, the
connection is cut: whoever reads it has fewer bytes than were announced, and cannot take them for the whole.

Not promised: TLS, or shelter from the open internet. Bind it to this machine, or put a proxy in front.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from urllib.parse import urlsplit

from countermark.errors import CountermarkError, UsageError
from countermark.values import dataclass, field

IDLE_TIMEOUT = 60  # seconds a kept-alive connection may stay silent
HEADERS_MAX, HEADER_MAX_BYTES = 100, 65536  # as the standard library's
_NAME_CHARS = (
    "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"  # RFC 9110, section 5.6.2, in small letters
)
_FRAMING = ("content-length", "transfer-encoding", "host")


@dataclass(frozen=True)
class Request:
    """What came in. `path` has no query string; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Stream:
    """A body that is not in memory: how long it will be, and its pieces."""

    length: int
    pieces: Iterator[bytes]


@dataclass(frozen=True)
class Response:
    """What goes out. `reason` takes the place of the status line's usual words."""

    status: int
    body: bytes | Stream = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


Engine = Callable[[Request], Response]


class Server(ThreadingHTTPServer):
    """A threaded server around one engine."""

    daemon_threads = True
    # Connections that wait to be taken; the standard library lets 5, and a client whose call is dropped by the kernel
    # calls again after 1, 3, 7, 15 and 31 seconds. One uv opens 50 at once.
    request_queue_size = 4096
    allow_reuse_address = sys.platform != "win32"  # there it would let two processes share the port

    def __init__(self, engine: Engine, host: str, port: int, *, max_body: int) -> None:
        self.engine = engine
        self.max_body = max_body
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no event; anything else is a bug and says so on stderr."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "countermark"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True
    server: Server
    raw_requestline: bytes
    given: dict[str, str]  # headers, by small name

    wbufsize = 64 * 1024  # head and body leave together; `handle_one_request` flushes

    def parse_request(self) -> bool:
        """As the standard library's, which reads headers as an e-mail's: that took longer than an answer.

        What could be read in two ways is refused: folded lines, a length that is said twice, spaces before a colon.
        """
        self.command, self.request_version, self.close_connection = "", "HTTP/1.1", True
        self.requestline = self.raw_requestline.decode("latin-1").rstrip("\r\n")
        words = self.requestline.split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
            self.send_error(HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1.1")
            return False
        self.command, self.path, self.request_version = words
        if self.path.startswith("//"):
            self.path = "/" + self.path.lstrip(
                "/"
            )  # else it would be another host's to whoever is redirected
        try:
            self.given = _read_headers(self.rfile)
        except _UnfitError as error:
            self.send_error(error.status, str(error))
            return False
        connection = self.given.get("connection", "").lower()
        keeps = self.request_version == "HTTP/1.1" or connection == "keep-alive"
        self.close_connection = connection == "close" or not keeps
        if self.given.get("expect", "").lower() == "100-continue" and self.request_version == "HTTP/1.1":
            return self.handle_expect_100()
        return True

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()  # who waits for it sends nothing before
        return True

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        self._answer()  # an engine is no way to other hosts: it answers 404 or 405

    def _answer(self) -> None:
        length = self.given.get("content-length", "0")
        if "transfer-encoding" in self.given or not (length.isascii() and length.isdigit()):
            self._send(Response(411, b"Content-Length needed\n"), close=True)
        elif int(length) > self.server.max_body:
            self._send(Response(413, f"at most {self.server.max_body} bytes\n".encode()), close=True)
        else:
            body = self.rfile.read(int(length))
            if len(body) < int(length):  # cut off: an engine would take the beginning for the whole
                self._send(Response(400, f"{len(body)} of {length} bytes came\n".encode()), close=True)
                return
            request = Request(self.command, urlsplit(self.path).path, self.given, body)
            self._send(self.server.engine(request))

    def _send(self, response: Response, *, close: bool = False) -> None:
        length = response.body.length if isinstance(response.body, Stream) else len(response.body)
        self.send_response(response.status, response.reason)
        if response.status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(length))
        for name, value in response.headers.items():
            self.send_header(name, value)
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(response.body, Stream):
            self._send_stream(response.body)
        else:
            self.wfile.write(response.body)

    def _send_stream(self, stream: Stream) -> None:
        sent = 0
        try:
            for piece in stream.pieces:
                self.wfile.write(piece)
                sent += len(piece)
        except CountermarkError:
            self.close_connection = True  # the engine has said why, to whom it may concern
        if sent != stream.length:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Requests are counted by the engine's metrics, not written to a terminal."""


class _UnfitError(Exception):
    """Headers that are not to be answered, and the status that says so."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


def _read_headers(stream: BufferedIOBase) -> dict[str, str]:
    """The headers up to the empty line. Of one that comes twice the last counts, unless it says where a body ends."""
    found: dict[str, str] = {}
    for _ in range(HEADERS_MAX + 1):
        line = stream.readline(HEADER_MAX_BYTES + 1)
        if len(line) > HEADER_MAX_BYTES:
            raise _UnfitError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long")
        if line in (b"\r\n", b"\n"):
            return found
        name, colon, value = line.decode("latin-1").partition(":")
        small = name.lower()
        if not colon or not name or small.strip(_NAME_CHARS) or (small in found and small in _FRAMING):
            raise _UnfitError(HTTPStatus.BAD_REQUEST, "a header that cannot be read in one way only")
        found[small] = value.strip(" \t\r\n")
    raise _UnfitError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEADERS_MAX} headers")


@contextlib.contextmanager
def listening(engine: Engine, host: str, port: int, *, max_body: int) -> Iterator[Server]:
    """A bound server; its socket is closed at the end of the block."""
    try:
        server = Server(engine, host, port, max_body=max_body)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    try:
        yield server
    finally:
        server.server_close()


@contextlib.contextmanager
def in_background(engine: Engine) -> Iterator[str]:
    """The engine on a free port of this machine for the length of the block; yields its URL."""
    with listening(engine, "127.0.0.1", 0, max_body=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT` as two values; `[::1]:80` keeps its colons."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f'"{text}" is not HOST:PORT', hint="for example 127.0.0.1:8000")
    return host.strip("[]"), int(port)
