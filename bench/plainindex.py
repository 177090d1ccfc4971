"""A plain index: nginx, which serves pages and files from a folder. What a proxy is measured against.

The pages are PEP 691 JSON, as the proxy's, with the same hashes and the same metadata files, so that an installer
asks the same questions of either. Nothing is computed on the way: no index is cheaper.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import registry
from tests.deploy.components import program
from tests.world.world import free_port

PAGE_TYPE = "application/vnd.pypi.simple.v1+json"
CONFIGURATION = """
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
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000;
    open_file_cache max=2000;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {prefix}/public;
        default_type application/octet-stream;
        location /simple/ {{
            index index.json;
            types {{ {page_type} json; }}
        }}
    }}
}}
"""


@contextmanager
def serving(wheels: Sequence[Path]) -> Iterator[str]:
    """The address of an index of these wheels, each of a project of its own."""
    prefix, port = Path(tempfile.mkdtemp(prefix="countermark-plain-")), free_port()
    try:
        for wheel in wheels:
            _lay_out(prefix / "public", wheel)
        user = "user root;" if os.geteuid() == 0 else ""
        text = CONFIGURATION.format(prefix=prefix, port=port, user=user, page_type=PAGE_TYPE)
        (prefix / "nginx.conf").write_text(text, encoding="utf-8")
        server = subprocess.Popen(
            (program("nginx"), "-p", prefix, "-c", prefix / "nginx.conf"), stderr=subprocess.DEVNULL
        )
        try:
            registry.wait_for(port)
            yield f"http://127.0.0.1:{port}/simple/"
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(prefix, ignore_errors=True)


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
