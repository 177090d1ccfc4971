"""The static trees: `/log/` (C2SP tlog-tiles) and `/tuf/` (TUF with consistent snapshots).

    /log/checkpoint                        text/plain; charset=utf-8      no-cache
    /log/tile/0/x001/000.p/12              application/octet-stream       immutable
    /tuf/timestamp.json                    application/json               no-cache
    /tuf/targets/trust/<sha256>.trust.json application/json               immutable
    /tuf/ceremony/1/transcript.jsonl       text/plain                     immutable
    /tuf/targets/files/demo/<sha256>.demo-1.0.tar.gz                      the blob, while it is listed

The table of names is `stores/served.py`. Entry bundles and metadata are compressed for who asks, as C2SP tlog-tiles
recommends. A CDN or nginx may serve the same files with the same headers instead of this module.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

from flask import Blueprint, Response, request

from countermark.errors import MalformedError
from countermark_server.errors import ServerError
from countermark_server.stores.public import Public
from countermark_server.stores.served import served

GZIP_MIN_BYTES = 512  # below that the answer's headers weigh more than what is saved
GZIP_LEVEL = 5  # nine tenths of what level 9 saves, at a third of its time
_FILE = re.compile(
    r"targets/files/(?P<project>[^/]{1,255})/(?P<sha256>[0-9a-f]{64})\.(?P<filename>[^/]{1,255})"
)

ServeTarget = Callable[[str, str, str], Response]  # project, file name, SHA-256 -> the listed file


def blueprint(public: Public, serve_target: ServeTarget) -> Blueprint:
    """The two trees."""
    doors = Blueprint("static_trees", __name__)

    @doors.get("/log/<path:path>")
    def log(path: str) -> Response:
        _one_spelling()
        return _serve(public, f"log/{path}")

    @doors.get("/tuf/<path:path>")
    def tuf(path: str) -> Response:
        _one_spelling()
        if (match := _FILE.fullmatch(path)) is not None:
            return serve_target(match["project"], match["filename"], match["sha256"])
        return _serve(public, f"tuf/{path}")

    return doors


def _serve(public: Public, name: str) -> Response:
    try:
        how = served(name)
    except MalformedError as error:
        raise ServerError("not-found", str(error)) from None
    data = public.read(name)
    if data is None:
        raise ServerError("not-found", f"there is no {name}")
    headers = {
        "Content-Type": how.content_type,
        "Cache-Control": how.cache_control,
        "Access-Control-Allow-Origin": "*",
    }
    if how.compressible and len(data) >= GZIP_MIN_BYTES:
        headers["Vary"] = "Accept-Encoding"
        if request.accept_encodings["gzip"] > 0:
            data = gzip.compress(data, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
    return Response(data, headers=headers)


def _one_spelling() -> None:
    """One address for each file."""
    if request.query_string:
        raise ServerError("bad-request", "static files are named by their path alone, without a query string")
    if "//" in request.environ["PATH_INFO"]:  # routing forgives it; a cache would keep two copies of one file
        raise ServerError("not-found", "a static file's path has no empty part")
