"""Bodies that are not held in memory: in pieces from a server, and in pieces to a client, whole or visibly not."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from countermark.errors import NetworkError, UsageError
from countermark.fetch import HttpFetcher, StatusError
from countermark.serving import Request, Response, Stream, in_background, listening

LARGE = bytes(range(256)) * 2000


def pieces(data: bytes, *, broken: bool = False) -> Iterator[bytes]:
    """Some pieces, and perhaps an error of the engine in the middle."""
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
    if broken:
        raise NetworkError("the other side went away")


def engine(request: Request) -> Response:
    """What a proxy does: large files, cut files, refusals with words of their own."""
    answers = {
        "/large": Response(200, Stream(len(LARGE), pieces(LARGE))),
        "/cut": Response(200, Stream(len(LARGE), pieces(LARGE[:-1], broken=True))),
        "/short": Response(200, Stream(len(LARGE), pieces(LARGE[:-1]))),
        "/same": Response(304, headers={"ETag": '"x"'}),
        "/refused": Response(403, b"no", reason="held for review exit-6"),
        "/here": Response(302, headers={"Location": "/large"}),
        "/away": Response(302, headers={"Location": "http://localhost:1/large"}),
        "/loop": Response(302, headers={"Location": "/loop"}),
    }
    return answers.get(request.path, Response(404))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The engine on a free port."""
    with in_background(engine) as url:
        yield url


def chunks(url: str, max_bytes: int = 10_000_000) -> bytes:
    return b"".join(HttpFetcher().chunks(url, max_bytes=max_bytes))


def test_a_large_body_arrives_in_pieces(url: str) -> None:
    """Also behind a redirect on the same host; none of them is the whole."""
    found = list(HttpFetcher().chunks(f"{url}/large", max_bytes=len(LARGE)))
    assert b"".join(found) == LARGE and max(map(len, found)) <= 64 * 1024
    assert chunks(f"{url}/here") == LARGE


@pytest.mark.parametrize("path", ["/cut", "/short"])
def test_a_body_that_ends_early_is_an_error_for_who_reads_it(url: str, path: str) -> None:
    """Fewer bytes than were announced, and the connection is closed: nobody takes them for the whole."""
    with pytest.raises(NetworkError):
        chunks(url + path)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request("GET", path)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()


def test_what_is_no_file_is_refused(url: str) -> None:
    """Too long, refused, missing, redirected away or round and round; other schemes."""
    with pytest.raises(NetworkError, match=f"longer than the {len(LARGE) - 1} bytes"):
        chunks(f"{url}/large", len(LARGE) - 1)
    with pytest.raises(StatusError) as error:
        chunks(f"{url}/refused")
    assert (error.value.answer.status, error.value.answer.reason) == (403, "held for review exit-6")
    assert error.value.answer.body == b"no"
    for path, words in [("/none", "404"), ("/away", "another host"), ("/loop", "redirects")]:
        with pytest.raises(NetworkError, match=words):
            chunks(url + path)
    with pytest.raises(UsageError):
        chunks("file:///etc/passwd")


def test_a_file_cannot_take_for_ever(url: str) -> None:
    """The deadline of an answer, and a second for each 20 kB it may have."""
    fetcher = HttpFetcher(deadline=timedelta(seconds=-1000))
    with pytest.raises(NetworkError):
        list(fetcher.chunks(f"{url}/large", max_bytes=len(LARGE)))


def test_head_and_not_modified_have_no_body(url: str) -> None:
    """HEAD announces what GET would send; the connection goes on after both."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    for method, path, status, length in [
        ("HEAD", "/large", 200, str(len(LARGE))),
        ("GET", "/same", 304, None),
        ("HEAD", "/refused", 403, "2"),
    ]:
        connection.request(method, path)
        answer = connection.getresponse()
        assert (answer.status, answer.headers.get("Content-Length")) == (status, length)
        assert answer.read() == b""
    connection.request("GET", "/large")
    assert connection.getresponse().read() == LARGE
    connection.close()


def test_an_engine_is_no_way_to_other_hosts(url: str) -> None:
    """CONNECT is answered like any path that is not there."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request("CONNECT", "evil.test:443")
    assert connection.getresponse().status == 404
    connection.close()


def test_a_request_that_was_cut_off_reaches_no_engine() -> None:
    """The beginning of a body is not the body: 400, the connection ends, and nobody acted on it."""
    asked: list[Request] = []
    with listening(
        lambda request: asked.append(request) or Response(200), "127.0.0.1", 0, max_body=100
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with socket.create_connection(server.server_address[:2], timeout=10) as connection:
                connection.sendall(b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        finally:
            server.shutdown()
            thread.join()
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"4 of 10 bytes came\n")
    assert asked == []


def test_many_may_call_at_once() -> None:
    """Two hundred connections before the first is taken: none is dropped, to be tried again a second later."""
    with listening(lambda request: Response(200), "127.0.0.1", 0, max_body=0) as server:
        host, port = server.url.removeprefix("http://").split(":")
        callers = [socket.create_connection((host, int(port)), timeout=0.5) for _ in range(200)]
        for caller in callers:
            caller.close()
