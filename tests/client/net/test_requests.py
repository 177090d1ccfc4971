"""What serving.py makes of the bytes that arrive: one reading or none."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

import pytest

from countermark.serving import Request, Response, in_background, listening

HOST = b"Host: here\r\n"


def engine(request: Request) -> Response:
    """Says what came."""
    said = f"{request.method} {request.path} {sorted(request.headers.items())} {request.body!r}"
    return Response(200, said.encode())


def said(raw: bytes) -> bytes:
    """All that is answered until the other side closes, or says nothing more for a request that was answered."""
    with in_background(engine) as url:
        where = urlsplit(url)
        with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):  # of a request that is not read to its end
                while piece := connection.recv(65536):
                    answer += piece
            return answer


def test_headers_arrive_by_their_small_names() -> None:
    """Spaces around a value are not part of it; of one that comes twice the last counts."""
    answer = said(b"GET /a?q HTTP/1.1\r\n" + HOST + b"X-A: 1\r\nX-a: \t 2 \r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"GET /a [('host', 'here'), ('x-a', '2')] b''")


def test_a_connection_is_kept_unless_somebody_says_otherwise() -> None:
    """Two requests on one of HTTP/1.1; one on what says close, and on HTTP/1.0 that does not say keep-alive."""
    for head, count in (
        (b"GET / HTTP/1.1\r\n", 2),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", 1),
        (b"GET / HTTP/1.0\r\n", 1),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", 2),
    ):
        assert said(2 * (head + HOST + b"\r\n")).count(b"200 OK") == count, head


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /\r\n\r\n", b"400"),
        (b"GET  / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : here\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX-A: 1\r\n  folded\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n: nobody\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: here\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: here\r\nHost: there\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX-A: " + b"1" * 65536 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\na", b"413"),
        (b"BREW / HTTP/1.1\r\n\r\n", b"501"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, status: bytes) -> None:
    """Once, and nothing after it is taken for a request: the connection is closed."""
    answer = said(raw + b"GET /smuggled HTTP/1.1\r\n\r\n")
    assert answer.split(b" ")[1] == status
    assert answer.count(b"HTTP/1.1 ") <= 2 and b"smuggled" not in answer


def test_who_asks_before_sending_a_body_is_told_to_go_on() -> None:
    """Expect: 100-continue, before anything of the body has come."""
    with listening(engine, "127.0.0.1", 0, max_body=10) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"ok")
            assert connection.recv(65536).endswith(b"b'ok'")
