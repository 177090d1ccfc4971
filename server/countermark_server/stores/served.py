"""How a public file is served, whoever serves it: the application, nginx, or the bucket it lies in.

    served("log/checkpoint")              text/plain; charset=utf-8    no-cache
    served("log/tile/0/x001/000.p/12")    application/octet-stream     immutable
    served("log/tile/entries/000")        application/octet-stream     immutable, worth compressing
    served("tuf/7.snapshot.json")         application/json             immutable
    served("tuf/ceremony/1/transcript.jsonl")    text/plain            immutable

A name is parsed before any file is looked for: what is not in this table is not served. A partial tile never changes
either: the next size of the same tile has another name. `deploy/nginx/locations.conf` is the same table in nginx's
words, and tests hold one against the other; a bucket keeps type and caching beside each object (`stores/bucket.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from countermark.errors import MalformedError
from countermark.tlog.tile import ENTRIES, Tile

IMMUTABLE = "public, max-age=604800, immutable"
FOLLOWED = "no-cache"
TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
_VERSIONED = re.compile(r"[1-9][0-9]{0,15}\.[a-z][a-z0-9-]{0,40}\.json")
_BINS = re.compile(r"bins/[0-9a-f]{64}")
_CHANGES = re.compile(r"changes/[0-9a-f]{64}")
_CEREMONY = re.compile(r"ceremony/[1-9][0-9]{0,15}/(?:transcript(?:-signatures)?\.jsonl|root-words\.txt)")
_TRUST = re.compile(r"targets/trust/[0-9a-f]{64}\.trust\.json")


@dataclass(frozen=True)
class Served:
    """Content type, cache header, and whether compressing pays (hashes and signed notes are not worth trying)."""

    content_type: str
    cache_control: str
    compressible: bool = False


def served(name: str) -> Served:
    """How the public file of this name is served. MalformedError: no file of this name ever is."""
    tree, _, path = name.partition("/")
    if tree == "log":
        return _log(path)
    if tree == "tuf":
        return _tuf(path)
    raise MalformedError(f"{name[:120]!r} is in neither public tree")


def _log(path: str) -> Served:
    if path == "checkpoint":
        return Served(TEXT, FOLLOWED)
    return Served(BYTES, IMMUTABLE, compressible=Tile.parse(path).level == ENTRIES)


def _tuf(path: str) -> Served:
    if path in ("timestamp.json", "candidate.json"):
        return Served(JSON, FOLLOWED)
    if _VERSIONED.fullmatch(path) or _TRUST.fullmatch(path):
        return Served(JSON, IMMUTABLE, compressible=True)
    if _CEREMONY.fullmatch(path):  # for auditors; a root that waits beside them is not served
        return Served(TEXT, IMMUTABLE)
    if _BINS.fullmatch(path) or _CHANGES.fullmatch(path):
        return Served(BYTES, IMMUTABLE)
    raise MalformedError(f"{path[:120]!r} is not the name of TUF metadata or a target")
