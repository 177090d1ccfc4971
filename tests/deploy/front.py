"""A real nginx on loopback that runs the shipped configuration.

The shipped files are used as they are but for the lines marked with `<-`, which an operator changes too. The test's
own part is what a distribution's nginx.conf brings: a pid file, temporary folders, an `http` block.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.components import DEPLOY, program

MAIN = """
{user}
daemon off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
worker_processes 1;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    include {prefix}/countermark.conf;
}}
"""


@dataclass(frozen=True)
class Answer:
    """What came back, undecoded; header names are lower-case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Front:
    """Where nginx listens, what it shows, and whom it asks for the rest."""

    prefix: Path
    port: int
    public: Path
    web: str  # HOST:PORT of gunicorn
    certificate: tuple[Path, Path] | None = None  # chain and key: TLS, as shipped
    changed: list[str] = field(default_factory=list)
    private: tuple[Path, Path] | None = (
        None  # CA of clients' certificates, file with our secret: access.conf too
    )

    def write(self) -> Path:
        """The configuration, ready to be started; every marked line was changed, and no other."""
        self.prefix.mkdir(parents=True, exist_ok=True)
        lines = [
            self._own(line) for line in (DEPLOY / "nginx/countermark.conf").read_text("utf-8").splitlines()
        ]
        (self.prefix / "countermark.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return write_main(self.prefix)

    def _own(self, line: str) -> str:
        if not line.rstrip().partition("#")[2].strip().startswith("<-"):
            return line
        word = line.split(maxsplit=1)[0]
        self.changed.append(word)
        chain, key = self.certificate or (None, None)
        tls = " ssl" if chain else ""
        return {
            "server": f"server {self.web};",
            "listen": f"listen 127.0.0.1:{self.port}{tls};",
            "server_name": "server_name localhost;",
            "ssl_certificate": f"ssl_certificate {chain};" if chain else "",
            "ssl_certificate_key": f"ssl_certificate_key {key};" if key else "",
            "root": f"root {self.public};",
            "proxy_cache_path": line.replace("/var/cache/nginx/countermark", str(self.prefix / "pages")),
            "include": self._included(),
        }[word]

    def _included(self) -> str:
        locations = f"include {DEPLOY / 'nginx/locations.conf'};"
        if self.private is None:
            return locations
        authority, secret = self.private
        access = (DEPLOY / "nginx/access.conf").read_text("utf-8")
        for theirs, ours in (
            ("/etc/countermark/tls/clients.pem", str(authority)),
            ("/etc/countermark/proxy-secret.conf", str(secret)),
        ):
            assert theirs in access
            access = access.replace(theirs, ours)
        revoked = authority.with_suffix(".crl")
        if revoked.exists():
            assert "#ssl_crl /etc/countermark/tls/clients.crl;" in access
            access = access.replace("#ssl_crl /etc/countermark/tls/clients.crl;", f"ssl_crl {revoked};")
        (self.prefix / "access.conf").write_text(access, encoding="utf-8")
        return f"include {self.prefix / 'access.conf'}; {locations}"

    def reload(self) -> None:
        """What `systemctl reload nginx` does: new workers with what the files say now; the old ones end."""
        master = (self.prefix / "nginx.pid").read_text().strip()
        old = _children(master)
        subprocess.run(self.command("-s", "reload"), capture_output=True, timeout=60, check=True)
        deadline = time.monotonic() + 20
        while not (now := _children(master)) or now & old:
            assert time.monotonic() < deadline, f"nginx's old workers {sorted(now & old)} go on"
            time.sleep(0.02)

    def check(self) -> str:
        """What `nginx -t` says."""
        return _nginx(self, "-t").stderr

    @contextmanager
    def running(self) -> Iterator[Front]:
        """nginx, until the block ends."""
        self.write()
        with nginx(self.prefix, self.port):
            yield self

    def command(self, *more: str) -> list[str]:
        return command(self.prefix, *more)

    def get(self, path: str, **headers: str) -> Answer:
        """The answer to a GET of exactly this path."""
        return ask(self.port, "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def _children(parent: str) -> set[str]:
    """The processes that this one started. (/proc/PID/task/PID/children leaves some out while others end.)"""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            if status.read_text().rpartition(")")[2].split()[1] == parent:
                found.add(status.parent.name)
    return found


def write_main(prefix: Path) -> Path:
    """What a distribution's nginx.conf brings, around `countermark.conf` in the same folder."""
    main = prefix / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(MAIN.format(prefix=prefix, user=user), encoding="utf-8")
    return main


def command(prefix: Path, *more: str) -> list[str]:
    """nginx with the configuration of this folder."""
    return [
        str(program("nginx")), "-p", str(prefix), "-e", str(prefix / "error.log"), "-c", str(prefix / "nginx.conf"),
        *more,
    ]  # fmt: skip


@contextmanager
def nginx(prefix: Path, port: int) -> Iterator[int]:
    """nginx with the configuration of this folder, once it listens there; its process, until the block ends."""
    with (prefix / "said.log").open("w") as said:
        process = subprocess.Popen(command(prefix), stdout=said, stderr=said, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None, (prefix / "said.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(
    port: int,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request on a connection of its own: nothing is normalised, decoded or followed."""
    if tls:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "localhost", port, timeout=60, context=tls
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.reason, found, response.read())
    finally:
        connection.close()


def _nginx(front: Front, *arguments: str) -> subprocess.CompletedProcess[str]:
    front.write()
    return subprocess.run(front.command(*arguments), capture_output=True, text=True, timeout=60, check=True)
