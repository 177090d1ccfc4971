"""Evidence: what entries name by digest, once it is open. `GET /blobs/<sha256>`.

    b"\\0" * 32 + b'[{"rule":"decode-exec",...}]'      a blob file: nonce, then bytes; an entry holds its SHA-256

A blob that is public from the start has a nonce of zeros; another nonce means embargo, and such a file is not
handed out here. Auditors ask for every blob that an entry named more than eight days ago.

Artifacts and their metadata lie in the same store and are never served by this door: a file that was taken down
must not be had by its hash.
"""

from __future__ import annotations

import re

from flask import Blueprint, Response
from sqlalchemy import Engine, or_, select

from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.index.caching import IMMUTABLE
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

ZERO_NONCE = bytes(32)
_NAME = re.compile(r"[0-9a-f]{64}")


def blueprint(engine: Engine, blobs: Blobs) -> Blueprint:
    """The one door of this module."""
    doors = Blueprint("evidence", __name__)

    @doors.get("/blobs/<sha256>")
    def blob(sha256: str) -> Response:
        data = _open_blob(blobs, sha256)
        if data is None or _is_artifact(engine, sha256):
            raise ServerError("not-found", f"there is no open blob {sha256[:64]!r}")
        headers = {"Content-Type": "application/octet-stream", "Cache-Control": IMMUTABLE}
        return Response(data, headers=headers)

    return doors


def _open_blob(blobs: Blobs, sha256: str) -> bytes | None:
    """The blob's bytes, if there is one and its nonce is zero; artifacts of any size are never read whole."""
    if not _NAME.fullmatch(sha256):
        return None
    try:
        with blobs.open(sha256) as stream:
            if stream.read(len(ZERO_NONCE)) != ZERO_NONCE:
                return None
        return blobs.read(sha256)
    except StoreError:
        return None


def _is_artifact(engine: Engine, sha256: str) -> bool:
    table = db.submission
    query = select(table.c.id).where(or_(table.c.sha256 == sha256, table.c.metadata_sha256 == sha256))
    with db.read(engine) as connection:
        return connection.execute(query.limit(1)).first() is not None
