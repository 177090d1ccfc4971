"""The static trees: `/log/` (C2SP tlog-tiles) and `/tuf/` (TUF with consistent snapshots).

    /log/checkpoint                        text/plain; charset=utf-8      no-cache
    /log/tile/0/x001/000.p/12              application/octet-stream       immutable
    /tuf/timestamp.json                    application/json               no-cache
    /tuf/7.snapshot.json                   application/json               immutable
    /tuf/bins/<root hash>                  application/octet-stream       immutable
    /tuf/targets/trust/<sha256>.trust.json application/json               immutable
    /tuf/targets/files/demo/<sha256>.demo-1.0.tar.gz                      the blob, while it is listed

A name is parsed before any file is looked for: what is not in this table does not exist, however it is spelled. A CDN
or nginx may serve the same folders with the same headers instead of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Blueprint, Response, request

from countermark.errors import MalformedError
from countermark.tlog.tile import Tile
from countermark_server.errors import ServerError
from countermark_server.index.caching import FOLLOWED, IMMUTABLE
from countermark_server.stores.public import Public

TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
_VERSIONED = re.compile(r"[1-9][0-9]{0,15}\.[a-z][a-z0-9-]{0,40}\.json")
_BINS = re.compile(r"bins/[0-9a-f]{64}")
_CHANGES = re.compile(r"changes/[0-9a-f]{64}")
_TRUST = re.compile(r"targets/trust/[0-9a-f]{64}\.trust\.json")
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
        return _serve(public, f"log/{path}", *_log_kind(path))

    @doors.get("/tuf/<path:path>")
    def tuf(path: str) -> Response:
        _one_spelling()
        if (match := _FILE.fullmatch(path)) is not None:
            return serve_target(match["project"], match["filename"], match["sha256"])
        return _serve(public, f"tuf/{path}", *_tuf_kind(path))

    return doors


def _log_kind(path: str) -> tuple[str, str]:
    """Content type and cache header of a name in the log's tree. ServerError: there is no such name."""
    if path == "checkpoint":
        return TEXT, FOLLOWED
    try:
        Tile.parse(path)
    except MalformedError as error:
        raise ServerError("not-found", str(error)) from None
    return BYTES, IMMUTABLE


def _tuf_kind(path: str) -> tuple[str, str]:
    if path in ("timestamp.json", "candidate.json"):
        return JSON, FOLLOWED
    if _VERSIONED.fullmatch(path) or _TRUST.fullmatch(path):
        return JSON, IMMUTABLE
    if _BINS.fullmatch(path) or _CHANGES.fullmatch(path):
        return BYTES, IMMUTABLE
    raise ServerError("not-found", f"{path[:120]!r} is not the name of TUF metadata or a target")


def _serve(public: Public, name: str, content_type: str, cache: str) -> Response:
    data = public.read(name)
    if data is None:
        raise ServerError("not-found", f"there is no {name}")
    headers = {"Content-Type": content_type, "Cache-Control": cache, "Access-Control-Allow-Origin": "*"}
    return Response(data, headers=headers)


def _one_spelling() -> None:
    """One address for each file."""
    if request.query_string:
        raise ServerError("bad-request", "static files are named by their path alone, without a query string")
    if "//" in request.environ["PATH_INFO"]:  # routing forgives it; a cache would keep two copies of one file
        raise ServerError("not-found", "a static file's path has no empty part")
