"""Client certificates before a real nginx: an authority made by the shipped script, real curl, and everybody else.

Every intruder asks every door, after somebody who may read has just asked them all.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from countermark_server.settings import Access
from tests.archives import metadata, wheel
from tests.deploy.components import DEPLOY
from tests.deploy.front import ask
from tests.deploy.privateca import make_certificate
from tests.deploy.test_nginx_access import DEMO, SECRET, House, doors, house

SAID_OF = {
    "expired": "certificate has expired",
    "foreign": "is not accepted: ",
    "the server's own": "is not accepted: ",
    "revoked": "certificate revoked",
    "nobody": "and none came",
}


@dataclass(frozen=True)
class Guarded:
    """A registry with `access.mode = mtls`, its authority of clients, and the one that vouches for the server."""

    house: House
    clients: Path  # folder of client-ca.sh
    authority: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.house.front.port}"

    def ca(self, *arguments: str) -> str:
        """The shipped script, as an operator types it."""
        what, *rest = arguments
        command = [str(DEPLOY / "nginx/client-ca.sh"), what, str(self.clients), *rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def curl(
        self,
        paths: Sequence[str],
        certificate: Path | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> list[tuple[int, bytes]]:
        """Status and body of each path, as real curl gets them, on one connection."""
        command = ["curl", "-s", "--path-as-is", "--cacert", str(self.authority), "-w", "\n=%{http_code}=\n"]
        command += ["--cert", str(certificate)] if certificate else []
        for name, value in (headers or {}).items():
            command += ["-H", f"{name}: {value}"]
        done = subprocess.run(
            [*command, *(self.url + path for path in paths)], capture_output=True, timeout=60, check=False
        )
        parts = done.stdout.split(b"=\n")
        assert len(parts) == len(paths) + 1, (done.stdout, done.stderr)
        found = [part.rpartition(b"\n=") for part in parts[:-1]]
        return [(int(status), body) for body, _, status in found]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """nginx with the script's authority and its list of revoked certificates."""
    folder = tmp_path_factory.mktemp("mtls")
    authority, chain, key = make_certificate(folder)
    (folder / "secret").write_text(SECRET)
    clients = folder / "clients"
    subprocess.run(
        [str(DEPLOY / "nginx/client-ca.sh"), "init", str(clients)], capture_output=True, check=True
    )
    access = Access(mode="mtls", proxy_secret_file=str(folder / "secret"))
    with house(folder, access, (chain, key), clients=clients / "clients.pem") as made:
        yield Guarded(made, clients, authority)


@pytest.fixture(scope="module")
def member(guarded: Guarded) -> Path:
    """Key and certificate of somebody who may read, in one file."""
    return Path(guarded.ca("issue", "ada"))


def expired(guarded: Guarded, member: Path, into: Path) -> Path:
    """The member's key with a certificate of the right authority that ended a minute ago."""
    key = serialization.load_pem_private_key((guarded.clients / "private/clients.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate((guarded.clients / "clients.pem").read_bytes())
    mine = x509.load_pem_x509_certificate(member.read_bytes())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(mine.subject)
        .issuer_name(authority.subject)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(minutes=1))
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    text = member.read_text().partition("-----BEGIN CERTIFICATE-----")[0]
    path = into / "expired.pem"
    path.write_text(text + made.public_bytes(serialization.Encoding.PEM).decode())
    return path


def foreign(into: Path) -> Path:
    """A certificate of another authority, which has our authority's name on nothing."""
    into.mkdir()
    _, chain, key = make_certificate(into)
    (into / "both.pem").write_bytes(chain.read_bytes() + key.read_bytes())
    return into / "both.pem"


def is_told(guarded: Guarded, answers: Sequence[tuple[int, bytes]], why: str) -> None:
    """Refused at every door, in the application's words, and nothing of the file or its metadata is in them."""
    for (status, body), path in zip(answers, doors(guarded.house), strict=True):
        assert status == 403, (path, status, body)
        assert b"/h/certificate-needed" in body and why.encode() in body, (path, body)
        assert wheel() not in body and metadata("demo", "1.0") not in body


def test_every_intruder_at_every_door_on_a_warm_cache(guarded: Guarded, member: Path, tmp_path: Path) -> None:
    """No certificate, an expired, a revoked, a foreign one: refused, and told which; the same with forged headers."""
    paths = doors(guarded.house)
    eve = tmp_path / "revoked.pem"
    eve.write_bytes(Path(guarded.ca("issue", "eve")).read_bytes())
    guarded.ca("revoke", "eve")
    guarded.house.front.reload()
    servers = tmp_path / "server.pem"
    servers.write_bytes(
        b"".join((guarded.authority.parent / name).read_bytes() for name in ("chain.pem", "key.pem"))
    )
    intruders = {
        "nobody": None, "the server's own": servers, "expired": expired(guarded, member, tmp_path),
        "foreign": foreign(tmp_path / "other"), "revoked": eve,
    }  # fmt: skip
    before = guarded.house.world.state()
    forged = {
        "X-Countermark-Client-Verify": "SUCCESS", "X-Countermark-Proxy": SECRET, "X_Countermark_Proxy": SECRET,
        "X_Countermark_Client_Verify": "SUCCESS", "X-SSL-Client-Verify": "SUCCESS", "X-SSL-Client-Cert": "MII",
        "X-Client-Verify": "SUCCESS", "Client-Cert": ":MII=:", "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Client-Cert": "Hash=0", "X-Original-URI": "/h/", "X-Original-Method": "POST",
        "X-HTTP-Method-Override": "POST", "Authorization": "Bearer cmu_" + "A" * 43,
    }  # fmt: skip
    for name, certificate in intruders.items():
        assert [status for status, _ in guarded.curl(paths, member)] == [200] * len(paths)
        is_told(guarded, guarded.curl(paths, certificate), SAID_OF[name])
        is_told(guarded, guarded.curl(paths, certificate, headers=forged), SAID_OF[name])
        told = [
            status
            for status, _ in guarded.curl(["/h/certificate-needed", "/legacy/", "/-/access"], certificate)
        ]
        assert told[:2] == [200, 405] and told[2] in (403, 404), name
    assert guarded.house.world.state() == before


def test_past_nginx_only_its_secret_counts(guarded: Guarded) -> None:
    """On the application's own port a forged word opens nothing: not with another secret, in no spelling."""
    port = int(guarded.house.front.web.rpartition(":")[2])
    for forged in (
        {}, {"X-Countermark-Client-Verify": "SUCCESS"}, {"X_Countermark_Proxy": SECRET},
        {"X-Countermark-Client-Verify": "SUCCESS", "X-Countermark-Proxy": "x" * len(SECRET)},
        {"X-Countermark-Client-Verify": "SUCCESS", "X-Countermark-Proxy": SECRET[:-1]},
        {"X-SSL-Client-Verify": "SUCCESS", "X-Forwarded-For": "127.0.0.1"},
    ):  # fmt: skip
        for path in (*doors(guarded.house), "/api/v1/access"):
            answer = ask(port, "GET", path, headers={**forged, "X-Original-URI": "/simple/demo/"})
            assert answer.status == 403 and "/h/certificate-needed" in answer.reason, (path, forged, answer)


def test_a_second_request_cannot_be_hidden_in_the_first(guarded: Guarded) -> None:
    """Two lengths, or a length that lies: nginx refuses, and nothing that follows is answered as ours."""
    hidden = f"GET /packages/demo/{DEMO} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for framing in (
        f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}",
        f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}",
        f"Content-Length: 0\r\n\r\n{hidden}",
    ):
        with opened(guarded) as stream:
            stream.settimeout(0.5)
            stream.sendall(f"POST /legacy/ HTTP/1.1\r\nHost: localhost\r\n{framing}".encode())
            assert wheel() not in read(stream), framing


def test_a_certificate_that_is_revoked_ends_with_every_session(guarded: Guarded, tmp_path: Path) -> None:
    """TLS may go on where it left off; a revoked certificate may not."""
    mallory = tmp_path / "mallory.pem"
    mallory.write_bytes(Path(guarded.ca("issue", "mallory")).read_bytes())
    with opened(guarded, mallory) as stream:
        stream.sendall(b"GET /simple/demo/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read(stream).startswith(b"HTTP/1.1 200")
        session = stream.session
    guarded.ca("revoke", "mallory")
    guarded.house.front.reload()
    with opened(guarded, mallory, session) as stream:
        stream.sendall(b"GET /simple/demo/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read(stream).startswith(b"HTTP/1.1 403"), (
            "the session of a revoked certificate was taken up again"
        )


def context(guarded: Guarded, certificate: Path | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(guarded.authority))
    if certificate:
        made.load_cert_chain(str(certificate))
    return made


_CONTEXTS: dict[Path | None, ssl.SSLContext] = {}


def opened(
    guarded: Guarded, certificate: Path | None = None, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """A connection on which anything can be written; a session belongs to the context that it was made in."""
    tls = _CONTEXTS.setdefault(certificate, context(guarded, certificate))
    plain = socket.create_connection(("127.0.0.1", guarded.house.front.port), timeout=20)
    return tls.wrap_socket(plain, server_hostname="localhost", session=session)


def read(stream: ssl.SSLSocket) -> bytes:
    """All that comes until the other side closes, or is silent."""
    found = b""
    try:
        while piece := stream.recv(65536):
            found += piece
    except (TimeoutError, ssl.SSLError, ConnectionError):
        pass
    return found


def test_the_script_never_overwrites_and_takes_no_paths_for_names(guarded: Guarded, member: Path) -> None:
    """A second authority in the folder, a second certificate of a name, a name that leads elsewhere: refused."""
    script, before = str(DEPLOY / "nginx/client-ca.sh"), hashlib.sha256(member.read_bytes()).digest()
    for words in (
        ["init"],
        ["issue", "ada"],
        ["issue", "../ada"],
        ["issue", ""],
        ["revoke", "nobody"],
        ["sing"],
    ):
        command = [script, words[0], str(guarded.clients), *words[1:]]
        assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 2, words
    assert hashlib.sha256(member.read_bytes()).digest() == before
    if os.name == "posix":
        assert member.stat().st_mode & 0o077 == 0
