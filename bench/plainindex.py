"""A plain index: nginx, which serves pages and files from a folder. What a proxy is measured against.

The pages are PEP 691 JSON, as the proxy's, with the same hashes and the same metadata files, so that an installer
asks the same questions of either, and the TLS is that of a team's proxy, with the same certificate. Nothing is
computed on the way: no index is cheaper.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.front import nginx, write_main
from tests.world.world import free_port

PAGE_TYPE = "application/vnd.pypi.simple.v1+json"
CONFIGURATION = """
access_log off;
sendfile on;
tcp_nopush on;
keepalive_requests 10000;
open_file_cache max=2000;
server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;
    root {prefix}/public;
    default_type application/octet-stream;
    location /simple/ {{
        index index.json;
        types {{ {page_type} json; }}
    }}
}}
"""


@contextmanager
def serving(wheels: Sequence[Path], prefix: Path, *, chain: Path, key: Path) -> Iterator[tuple[str, int]]:
    """The address and process of an index of these wheels, each of a project of its own; it lies in that folder."""
    port = free_port()
    for wheel in wheels:
        _lay_out(prefix / "public", wheel)
    text = CONFIGURATION.format(prefix=prefix, port=port, chain=chain, key=key, page_type=PAGE_TYPE)
    (prefix / "countermark.conf").write_text(text, encoding="utf-8")
    write_main(prefix)
    with nginx(prefix, port) as process:
        yield f"https://localhost:{port}/simple/", process


def _lay_out(public: Path, wheel: Path) -> None:
    """A wheel, its metadata and the page of its project."""
    name, version, *_ = wheel.name.split("-")
    files, page = public / "packages" / name, public / "simple" / name
    files.mkdir(parents=True)
    page.mkdir(parents=True)
    shutil.copy(wheel, files)
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{name}-{version}.dist-info/METADATA")
    (files / f"{wheel.name}.metadata").write_bytes(metadata)
    file = {
        "filename": wheel.name,
        "url": f"../../packages/{name}/{wheel.name}",
        "hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
        "core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()},
        "requires-python": None,
        "size": wheel.stat().st_size,
        "yanked": False,
    }
    document = {"meta": {"api-version": "1.1"}, "name": name, "versions": [version], "files": [file]}
    (page / "index.json").write_text(json.dumps(document), encoding="utf-8")
