"""fetch.py against a real loopback server that misbehaves in every way we know."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from countermark.errors import NetworkError, UsageError
from countermark.fetch import HttpFetcher, StatusError
from countermark.serving import Request, Response, listening, parse_listen
from countermark.tufclient import tuf_fetcher


@contextmanager
def serving(engine) -> Iterator[str]:
    with listening(engine, "127.0.0.1", 0, max_body=1000) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def raw_server(pieces: list[bytes], *, pause: float = 0.0) -> Iterator[str]:
    """A server that answers one connection with exactly these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)
                except OSError:
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        thread.join(timeout=5)


def hello(request: Request) -> Response:
    answers = {
        "/hello": Response(200, b"hello"),
        "/zip": Response(200, gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"}),
        "/bomb": Response(200, gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"}),
        "/here": Response(302, headers={"Location": "/hello"}),
        "/away": Response(302, headers={"Location": "http://localhost:1/hello"}),
        "/loop": Response(302, headers={"Location": "/loop"}),
        "/broken": Response(503, b"sorry"),
        "/echo": Response(200, request.body + request.headers.get("x-word", "").encode()),
    }
    return answers.get(request.path, Response(404))


def test_an_answer_is_read_whole() -> None:
    """A 200 answer is its body; the connection is reused."""
    with serving(hello) as url:
        fetcher = HttpFetcher()
        assert fetcher.get(f"{url}/hello") == b"hello"
        assert fetcher.get(f"{url}/hello", max_bytes=5) == b"hello"
        assert fetcher.get(f"{url}/zip") == b"hello"
        assert fetcher.post(f"{url}/echo", b"a", content_type="x/y", headers={"X-Word": "b"}).body == b"ab"


def test_missing_is_none_only_when_asked() -> None:
    """A 404 is None with missing_ok, and an error that carries the answer without it."""
    with serving(hello) as url:
        assert HttpFetcher().get(f"{url}/none", missing_ok=True) is None
        with pytest.raises(StatusError, match="404") as error:
            HttpFetcher().get(f"{url}/none")
        assert error.value.answer.status == 404
        with pytest.raises(StatusError, match="503"):
            HttpFetcher().get(f"{url}/broken", missing_ok=True)


@pytest.mark.parametrize("path", ["/hello", "/zip", "/bomb"])
def test_an_endless_answer_is_cut(path: str) -> None:
    """Nothing longer than max_bytes comes in, before or after decompression."""
    with serving(hello) as url, pytest.raises(NetworkError, match="longer than the 4 bytes"):
        HttpFetcher().get(f"{url}{path}", max_bytes=4)


def test_redirects_stay_within_the_origin() -> None:
    """A redirect within host and port is followed, one to elsewhere is not, nor a circle."""
    with serving(hello) as url:
        assert HttpFetcher().get(f"{url}/here") == b"hello"
        with pytest.raises(NetworkError, match="another host"):
            HttpFetcher().get(f"{url}/away")
        with pytest.raises(NetworkError, match="redirects"):
            HttpFetcher().get(f"{url}/loop")


def test_a_truncated_answer_is_an_error() -> None:
    """Fewer bytes than Content-Length promised are no answer."""
    with (
        raw_server([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel"]) as url,
        pytest.raises(NetworkError, match="cannot reach"),
    ):
        HttpFetcher().get(url)


def test_slow_retrieval_ends_at_the_deadline() -> None:
    """A byte now and then does not hold us beyond the deadline."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with raw_server([head, *[b"x"] * 40], pause=0.05) as url:
        before = time.monotonic()
        with pytest.raises(NetworkError, match=r"slow|reach"):
            HttpFetcher(deadline=timedelta(seconds=0.4)).get(url)
        assert time.monotonic() - before < 1.5


def test_slow_headers_end_at_the_deadline() -> None:
    """Headers that drip are no way around it: a read timeout starts anew with every byte."""
    with raw_server([b"HTTP/1.1 200 OK\r\nX-A: ", *[b"x"] * 40], pause=0.05) as url:
        before = time.monotonic()
        with pytest.raises(NetworkError, match=r"slow|reach"):
            HttpFetcher(deadline=timedelta(seconds=0.4)).get(url)
        assert time.monotonic() - before < 1.5


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_a_network_error(answer: bytes) -> None:
    """A server that does not speak HTTP is unreachable, never a traceback."""
    with raw_server([answer]) as url, pytest.raises(NetworkError):
        HttpFetcher().get(url)


def test_closed_connections_are_seen_by_the_server() -> None:
    """A server that stops waits for nobody who has closed; the next request connects again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(65536):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                ended.set()

        threading.Thread(target=answer, daemon=True).start()
        fetcher, url = HttpFetcher(), f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        assert fetcher.get(url) == fetcher.get(url) == b"hi"
        assert not ended.is_set(), "the connection is kept alive between requests"
        fetcher.close()
        assert ended.wait(10)
        assert fetcher.get(url) == b"hi"
        fetcher.close()


def test_nobody_there_names_the_url() -> None:
    """A refused connection names the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NetworkError, match=f"cannot reach http://127.0.0.1:{port}/x"):
        HttpFetcher().get(f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "registry.example", "http://"])
def test_only_http_urls(url: str) -> None:
    """Other schemes are refused before anything is opened."""
    with pytest.raises(UsageError, match="not an http"):
        HttpFetcher().get(url)


def test_ngclient_sees_its_own_errors() -> None:
    """The adapter reports a status to ngclient the way ngclient expects it."""
    from tuf.api.exceptions import DownloadHTTPError

    with serving(hello) as url:
        adapter = tuf_fetcher(HttpFetcher())
        assert adapter.download_bytes(f"{url}/hello", 10) == b"hello"
        for path, status in [("/none", 404), ("/broken", 503)]:
            with pytest.raises(DownloadHTTPError) as error:
                adapter.download_bytes(f"{url}{path}", 10)
            assert error.value.status_code == status


def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    """The server side has a limit too."""
    with serving(hello) as url:
        assert HttpFetcher().post(f"{url}/echo", bytes(1001), content_type="x/y").status == 413


@pytest.mark.parametrize("text", ["8000", "host:", ":80", "host:99999", "host:-1", "host:\u0663"])
def test_listen_addresses_are_host_and_port(text: str) -> None:
    """Anything but HOST:PORT is a usage error."""
    with pytest.raises(UsageError, match="not HOST:PORT"):
        parse_listen(text)
    assert parse_listen("[::1]:80") == ("::1", 80)


@contextmanager
def forgetful(*, answers: int, then: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps a connection alive for some answers, and closes it unseen when the next request comes.

    `then` is what it says of that request before it closes. Yields its URL and the requests that it read.
    """
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            for _ in range(answers):
                asked.append(request := _request(connection))
                if not request:
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            if request := _request(connection):
                asked.append(request)
                connection.sendall(then)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _request(connection: socket.socket) -> bytes:
    """One whole request, however many pieces it comes in; empty when the other side is done."""
    raw = b""
    while part := connection.recv(65536):
        raw += part
        head, end, body = raw.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            break
    return raw


def test_a_kept_alive_connection_that_is_closed_is_not_the_end() -> None:
    """A GET, and an upload of the same bytes, are asked for once more on a new connection; other posts are not."""
    with forgetful(answers=1) as (url, asked):
        fetcher = HttpFetcher()
        assert fetcher.get(url) == b"hi"
        assert fetcher.get(url) == b"hi", "the second request met a closed connection"
        assert b"".join(fetcher.chunks(url, max_bytes=10)) == b"hi"
        assert fetcher.post(url, b"file", content_type="x/y", idempotent=True).body == b"hi"
        before = len(asked)
        with pytest.raises(NetworkError, match="cannot reach"):
            fetcher.post(url, b"once", content_type="x/y")
        assert len(asked) == before + 1, "it may have been carried out: nobody asks again"


def test_many_stale_connections_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool full of connections that the server has closed: each is tried, then a new one is made."""
    with forgetful(answers=1) as (url, _):
        fetcher = HttpFetcher()
        threads = [threading.Thread(target=fetcher.get, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fetcher.get(url) == b"hi"


@pytest.mark.parametrize("then", [b"", b"HTTP/1.1 2"])
def test_on_a_new_connection_nothing_is_tried_twice(then: bytes) -> None:
    """A server that never answers is asked once; the beginning of an answer is no answer, and not asked for again."""
    with forgetful(answers=0, then=then) as (url, asked):
        with pytest.raises(NetworkError, match="cannot reach"):
            HttpFetcher().get(url)
        assert len(asked) == 1
