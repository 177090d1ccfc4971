"""nginx with the shipped configuration: what it serves itself, what it never says, and what it hands on."""

from __future__ import annotations

import base64
import gzip
import os
import socket
import ssl
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from tests.deploy.conftest import House
from tests.deploy.front import Answer, Front, ask
from tests.deploy.privateca import make_certificate
from tests.world.world import as_json, free_port

ASKED = ("content-type", "cache-control", "access-control-allow-origin")
IMMUTABLE = "public, max-age=604800, immutable"
MISSING = [
    "/log/tile/0/999",
    "/log/tile/entries/x001/234.p/7",
    "/log/tile/0/000.p/255",
    "/log/nothing",
    "/log/",
    "/tuf/999999.root.json",
    "/tuf/bins/" + "0" * 64,
    "/tuf/ceremony/9/transcript.jsonl",
    "/tuf/targets/trust/" + "0" * 64 + ".trust.json",
    "/tuf/",
    "/metrics",
]
OTHER_SPELLINGS = [
    "/log//checkpoint",
    "/log/tile/00/000",
    "/log/tile/0/000.p/0",
    "/log/tile/0/0000",
    "/log/tile/entries/x000/000",
    "/log/.new-abc",
    "/tuf/01.root.json",
    "/tuf/TIMESTAMP.json",
    "/tuf/ceremony/01/transcript.jsonl",
    "/tuf/ceremony/2.root.json",
    "/tuf/ceremony/1/plan.toml",
    "/log/..%2f..%2fsettings.toml",
    "/log/%2e%2e/%2e%2e/settings.toml",
]


def not_cacheable(answer: Answer) -> None:
    """What no error may carry."""
    assert "cache-control" not in answer.headers or answer.headers["cache-control"] == "no-store"
    for name in ("content-encoding", "expires", "etag", "last-modified"):
        assert name not in answer.headers, (name, answer)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Front]:
    """nginx over an empty public folder, with no application behind it."""
    (tmp_path / "public/log").mkdir(parents=True)
    (tmp_path / "public/tuf").mkdir()
    front = Front(tmp_path / "nginx", free_port(), tmp_path / "public", f"127.0.0.1:{free_port()}")
    with front.running():
        yield front


def test_nginx_accepts_the_shipped_files(tmp_path: Path) -> None:
    """`nginx -t`, with TLS as shipped; the lines an operator changes are the ones that are marked."""
    chain, key = make_certificate(tmp_path)[1:]
    front = Front(tmp_path / "nginx", free_port(), tmp_path, "127.0.0.1:8080", (chain, key))
    said = front.check()
    assert "syntax is ok" in said and "test is successful" in said and "[warn]" not in said, said
    assert sorted(front.changed) == [
        "include", "listen", "proxy_cache_path", "proxy_cache_path", "root", "server", "server_name",
        "ssl_certificate", "ssl_certificate_key",
    ]  # fmt: skip


def test_every_public_file_is_served_as_the_application_serves_it(house: House) -> None:
    """Bytes, type, caching and CORS are the same by both doors, and so is what neither shows."""
    served = hidden = 0
    (house.public / "tuf/ceremony/2.root.json").write_bytes(b"a root that waits for its entry")
    for file in sorted(house.public.rglob("*")):
        path = "/" + str(file.relative_to(house.public))
        if not file.is_file() or (path.startswith("/tuf/bins/") and served > 120):
            continue
        theirs, ours = ask(house.web, "GET", path), house.front.get(path)
        assert ours.status == theirs.status, path
        if theirs.status == 200:
            served += 1
            assert {k: ours.headers.get(k) for k in ASKED} == {k: theirs.headers.get(k) for k in ASKED}, path
            if path not in ("/log/checkpoint", "/tuf/timestamp.json", "/tuf/candidate.json"):
                assert ours.body == theirs.body, path
                packed = [
                    ask(port, "GET", path, headers={"Accept-Encoding": "gzip"})
                    for port in (house.web, house.front.port)
                ]
                said = [(a.headers.get("content-encoding"), a.headers.get("vary")) for a in packed]
                assert said[0] == said[1], path
        else:
            hidden += 1
            not_cacheable(ours)
    assert served > 20 and hidden == 1


def test_the_proof_path_says_what_the_spec_asks(house: House) -> None:
    """The rows of tlog-tiles, written out: type, caching, CORS."""
    checkpoint = house.front.get("/log/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-cache"
    bundle = next((house.public / "log/tile/entries").rglob("[0-9]*"))
    while bundle.is_dir():
        bundle = next(bundle.iterdir())
    for path in (f"/{bundle.relative_to(house.public)}", "/tuf/1.root.json"):
        answer = house.front.get(path)
        assert answer.status == 200 and answer.headers["cache-control"] == IMMUTABLE, path
        assert answer.headers["access-control-allow-origin"] == "*"
    assert house.front.get("/tuf/timestamp.json").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", MISSING)
def test_an_error_is_never_cacheable_and_never_compressed(plain: Front, path: str) -> None:
    """A cached 404 of a tile not yet written, or one a client cannot read, is a classic outage."""
    answer = plain.get(path, Accept_Encoding="gzip")
    assert (answer.status, answer.body) == (404, b"not found\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "cache-control" not in answer.headers
    not_cacheable(answer)


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
def test_a_name_has_one_spelling(house: House, path: str) -> None:
    """What is not in the table does not exist, however it is spelled; the application says the same."""
    ours = house.front.get(path)
    assert ours.status in (400, 404), ours
    assert ask(house.web, "GET", path).status in (308, 400, 404)
    not_cacheable(ours)


@pytest.mark.parametrize(
    "path", ["/log/checkpoint", "/log/tile/0/000", "/tuf/1.root.json", "/tuf/candidate.json"]
)
def test_static_files_take_no_query_and_no_other_method(plain: Front, path: str) -> None:
    """`?x=1` would be another key of every cache for the same bytes."""
    (plain.public / "log/tile/0").mkdir(parents=True)
    (plain.public / path[1:]).write_bytes(b"x")
    assert plain.get(path).status == 200
    for answer in (plain.get(path + "?x=1"), ask(plain.port, "POST", path, body=b"x")):
        assert answer.status in (400, 405), answer
        not_cacheable(answer)


@pytest.mark.parametrize("path", ["log/checkpoint", "tuf/timestamp.json", "tuf/candidate.json"])
def test_two_files_of_one_second_and_one_length_are_told_apart(plain: Front, path: str) -> None:
    """nginx's own validators are seconds and lengths: a checkpoint replaced within a second would be 304."""
    file = plain.public / path
    file.write_bytes(b"size 5\n")
    first = plain.get(f"/{path}")
    when = file.stat().st_mtime_ns
    file.write_bytes(b"size 6\n")
    os.utime(file, ns=(when, when))
    seen = {
        "If-None-Match": first.headers.get("etag", "*"),
        "If-Modified-Since": formatdate(when // 1_000_000_000, usegmt=True),
    }
    again = ask(plain.port, "GET", f"/{path}", headers=seen)
    assert (again.status, again.body) == (200, b"size 6\n")
    assert not {"etag", "last-modified"} & first.headers.keys()


def test_entry_bundles_are_compressed_for_who_asks(plain: Front) -> None:
    """Gzip for bundles, with Vary; hashes as they are; an immutable file is revalidated by its tag."""
    for name in ("0", "entries"):
        (plain.public / "log/tile" / name).mkdir(parents=True)
        (plain.public / "log/tile" / name / "000").write_bytes(b'{"type":"publish"}' * 400)
    packed = plain.get("/log/tile/entries/000", Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip" and packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["cache-control"] == IMMUTABLE and len(packed.body) < 300
    plainly = plain.get("/log/tile/entries/000")
    assert "content-encoding" not in plainly.headers and gzip.decompress(packed.body) == plainly.body
    hashes = plain.get("/log/tile/0/000", Accept_Encoding="gzip")
    assert "content-encoding" not in hashes.headers and hashes.headers["etag"]
    unchanged = plain.get("/log/tile/0/000", If_None_Match=hashes.headers["etag"])
    assert unchanged.status == 304 and unchanged.headers["cache-control"] == IMMUTABLE


def test_without_the_application_the_proof_path_answers(plain: Front) -> None:
    """Tiles and checkpoint are files; whatever needs the application says 503, when to retry, and is not kept."""
    (plain.public / "log/checkpoint").write_bytes(b"signed\n")
    assert plain.get("/log/checkpoint").body == b"signed\n"
    for path in ("/simple/", "/packages/a/a-1.tar.gz", "/tuf/targets/files/a/" + "0" * 64 + ".a-1.tar.gz"):
        answer = plain.get(path, Accept_Encoding="gzip")
        assert answer.status == 503 and answer.headers["retry-after"] == "5"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "cache-control" not in answer.headers
        not_cacheable(answer)


@dataclass
class Upstream:
    """An application that counts who asks, and whose page a test changes."""

    port: int
    status: int = 200
    body: bytes = b"first" * 200
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[tuple[Front, Upstream]]:
    """nginx before a server that knows one simple page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            upstream.asked.append(self.headers.get("Accept", ""))
            body = upstream.body + self.headers.get("Accept", "").encode()
            self.send_response(upstream.status)
            for name, value in (
                ("Content-Type", "application/vnd.pypi.simple.v1+json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "public, max-age=60" if upstream.status == 200 else "no-store"),
                ("Vary", "Accept"),
                ("ETag", '"tag"'),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "public").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        upstream = Upstream(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        front = Front(tmp_path / "nginx", free_port(), tmp_path / "public", f"127.0.0.1:{upstream.port}")
        with front.running():
            yield front, upstream
        server.shutdown()


def test_a_simple_page_is_made_once_a_second(counting: tuple[Front, Upstream]) -> None:
    """Many readers, few questions; each form by itself, tags answered, and what changed is seen soon."""
    front, upstream = counting
    started = time.monotonic()
    answers = [front.get("/simple/demo/") for _ in range(40)]
    assert {answer.body for answer in answers} == {upstream.body}
    assert len(upstream.asked) <= 2 + (time.monotonic() - started)
    assert answers[0].headers["cache-control"] == "public, max-age=60"
    assert front.get("/simple/demo/", Accept="text/html").body == upstream.body + b"text/html"
    packed = front.get("/simple/demo/", Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == upstream.body
    assert front.get("/simple/demo/", If_None_Match='"tag"').status == 304
    upstream.body = b"withdrawn" * 100
    deadline = time.monotonic() + 20
    while front.get("/simple/demo/").body != upstream.body:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_error_and_nothing_private_is_kept(counting: tuple[Front, Upstream]) -> None:
    """A refusal is asked for anew each time, a page behind credentials too; a dead application is no stale page."""
    front, upstream = counting
    upstream.status = 404
    assert [front.get("/simple/demo/", Accept_Encoding="gzip").status for _ in range(5)] == [404] * 5
    assert len(upstream.asked) == 5
    upstream.status = 200
    for _ in range(5):
        assert front.get("/simple/demo/", Authorization="Basic eDp5").status == 200
    assert len(upstream.asked) == 10
    assert front.get("/simple/demo/").status == 200
    upstream.status = 403
    deadline = time.monotonic() + 20
    while front.get("/simple/demo/").status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert front.get("/simple/demo/").status == 403


def test_twine_publishes_and_verify_accepts_through_nginx(house: House, published: Path) -> None:
    """Published by unmodified twine, verified, installed; the proof stays readable with nobody behind nginx."""
    world = house.world
    assert as_json(world.run("countermark", "verify", "--json", published))["verified"] is True
    python = world.machine("pip-nina")
    world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", "through-nginx")

    alone = Front(
        house.front.prefix.with_name("alone"), free_port(), house.public, f"127.0.0.1:{free_port()}"
    )
    with alone.running():
        for file in sorted((house.public / "log").rglob("*")):
            if file.is_file():
                assert alone.get(f"/{file.relative_to(house.public)}").status == 200
        assert alone.get("/simple/through-nginx/").status == 503


def test_a_refusal_keeps_its_reason_phrase(house: House) -> None:
    """twine prints the phrase; a body still on its way when the refusal is known does not eat it."""
    dist = house.world.project("refused-here")
    done = house.world.run(
        "twine", "upload", "--non-interactive", "--repository-url", f"{house.world.url}/legacy/",
        "-u", "__token__", "-p", "cmk_wrong", next(dist.glob("*.whl")), expect=1,
    )  # fmt: skip
    assert "401" in done.said and "/h/not-authenticated" in done.said.replace("\n", ""), done.said
    answer = ask(house.front.port, "POST", "/legacy/", body=b"x" * 900_000)
    assert answer.status == 401 and "/h/not-authenticated" in answer.reason, answer
    not_cacheable(answer)


def test_too_large_is_the_applications_word_and_far_too_large_is_nginxs(house: House) -> None:
    """Above upload.max_bytes a reason; above nginx's bound the body is never read."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w"):
        pass
    body = (
        b'--b\r\nContent-Disposition: form-data; name="content"; filename="big-1.0.tar.gz"\r\n\r\n'
        + content.getvalue()
        + b"x" * 1_200_000
        + b"\r\n--b--\r\n"
    )
    token = base64.b64encode(f"__token__:{house.world.token()}".encode()).decode()
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Basic {token}"}
    answer = ask(house.front.port, "POST", "/legacy/", headers=headers, body=body)
    assert answer.status == 413 and "more than 1000000 bytes" in answer.reason, answer
    far = ask(house.front.port, "POST", "/legacy/", headers={"Content-Length": str(300 * 1024 * 1024)})
    assert far.status == 413
    not_cacheable(far)


def test_an_upload_is_streamed(tmp_path: Path) -> None:
    """The application has the first half before the client sends the second: no copy waits in nginx."""
    (tmp_path / "public").mkdir()
    half = b"x" * 50_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        front = Front(
            tmp_path / "nginx", free_port(), tmp_path / "public", f"127.0.0.1:{server.getsockname()[1]}"
        )
        with front.running(), socket.create_connection(("127.0.0.1", front.port), timeout=30) as client:
            head = f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * len(half)}\r\n\r\n"
            client.sendall(head.encode() + half)
            application, _ = server.accept()
            with application:
                application.settimeout(30)
                assert received(application, len(half)) == half
                client.sendall(half)
                assert received(application, len(half), headers=False) == half
                application.sendall(
                    b"HTTP/1.1 400 demo was not signed: see http://x/h/y\r\nContent-Length: 0\r\n\r\n"
                )
                assert client.recv(65536).startswith(
                    b"HTTP/1.1 400 demo was not signed: see http://x/h/y\r\n"
                )


def received(connection: socket.socket, length: int, *, headers: bool = True) -> bytes:
    """`length` bytes of a request's body, after its headers."""
    got = b""
    while headers and b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    body = got.partition(b"\r\n\r\n")[2]
    while len(body) < length:
        more = connection.recv(65536)
        assert more, "the connection was closed"
        body += more
    return body


def test_tls_with_a_private_ca(house: House, tmp_path: Path) -> None:
    """As shipped, on HTTP/1.1 even for who offers HTTP/2: that one has no reason phrase."""
    authority, chain, key = make_certificate(tmp_path)
    front = Front(tmp_path / "nginx", free_port(), house.public, f"127.0.0.1:{house.web}", (chain, key))
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with front.running():
        assert ask(front.port, "GET", "/log/checkpoint", tls=context).status == 200
        refused = ask(front.port, "POST", "/legacy/", body=b"", tls=context)
        assert refused.status == 401 and "/h/not-authenticated" in refused.reason
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(front.port, "GET", "/log/checkpoint", tls=ssl.create_default_context())
        dist, url = house.world.project("through-tls"), f"https://localhost:{front.port}"
        trusting = {"SSL_CERT_FILE": str(authority)}
        house.world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
        wheel = next(dist.glob("*.whl"))
        house.world.run(
            "uv", "publish", "--publish-url", f"{url}/legacy/", "--token", house.world.token(),
            *sorted(dist.iterdir()), **trusting,
        )  # fmt: skip
        house.world.run(
            "countermark", "trust", "add", url, "--root-words", house.words, home="tls", **trusting
        )
        deadline = time.monotonic() + 60
        while house.world.run("countermark", "verify", wheel, home="tls", expect=None, **trusting).code != 0:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        # For who knows no such authority this is a connection that did not come about, and nothing is pinned.
        stranger = ("countermark", "trust", "add", url, "--root-words", house.words)
        assert "CERTIFICATE_VERIFY_FAILED" in house.world.run(*stranger, home="stranger", expect=3).err


def test_the_load_testers_door_is_the_applications(house: House) -> None:
    """`POST /log/add` lies below the static tree, and is still no file: a real log has no such door."""
    ours, theirs = (ask(port, "POST", "/log/add", body=b"x") for port in (house.front.port, house.web))
    assert (ours.status, ours.body) == (theirs.status, theirs.body) and ours.status in (404, 405), ours
