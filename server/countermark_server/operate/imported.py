"""Imported files after `rebuild`: those whose bytes the store kept go on where their entries say.

    regain(engine, blobs, settings.upload, settle, progress, public_size=9)     # Regained(brought=12, without=3)

No entry says that bytes of an imported file ever came: they are a blob or they are not. So every imported file of
the log is looked for in the store under the SHA-256 of its leaf, read to its end and held against the leaf like bytes
that an owner brings (upload/bring.py). What is not there, or not what the leaf says, stays without bytes until
somebody brings them: an owner, or `import --files`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import Connection, Engine, select

from countermark.rules import Key, State, file_key
from countermark_server import db, submission
from countermark_server.errors import ServerError
from countermark_server.settings import Upload
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError
from countermark_server.upload.artifact import Artifact
from countermark_server.upload.bring import bring, form_of, is_removed, matching

ROWS = 512  # files of one page
CHUNK = 1 << 20  # bytes
_TABLE = db.rules_state

Progress = Callable[[str, int, int], None]  # what, done, of
# A file's key begins with _FIRST, if it is of the default namespace; "-" is the character behind ",".
_FIRST, _END = '["file","",', '["file",""-'
# Gives a file's submission (its id, and whether it is new) the state that the entries say.
Settle = Callable[[Connection, int, Key, bool], None]


@dataclass
class Regained:
    """Imported files: with bytes again by this run, and still without. Nobody misses those of what was removed."""

    brought: int = 0
    without: int = 0


def regain(
    engine: Engine, blobs: Blobs, limits: Upload, settle: Settle, progress: Progress, *, public_size: int
) -> Regained:
    """A submission for every imported file whose blob is there. One transaction each: a file may be large."""
    found = Regained()
    for file in _files(engine):
        key = file_key("", file["project"], file["filename"])
        with db.read(engine) as connection:
            known = submission.find(connection, "", file["project"], key[3])
        # Bytes were taken of no file whose entry was not public.
        looked_for = known is None and file["index"] < public_size
        artifact = _kept(blobs, file, limits) if looked_for else None
        if known is None and artifact is None:
            found.without += not is_removed(file)
            continue
        with db.write(engine) as connection:
            made = artifact is not None and bring(connection, file, artifact, now=file["time"])
            row = submission.find(connection, "", file["project"], key[3])
            assert row is not None, "it was there, or was brought in just now"
            settle(connection, row["id"], key, made)
        found.brought += made
        # Committed. If we stop here this file goes on, and the next run takes up the others.
        progress("imported files read again", found.brought, found.brought)
    return found


def _files(engine: Engine) -> Iterator[State]:
    """Every imported file that the rules know, page by page."""
    after = _FIRST
    while True:
        query = select(_TABLE.c.key, _TABLE.c.value).where(_TABLE.c.key > after, _TABLE.c.key < _END)
        with db.read(engine) as connection:
            rows = connection.execute(query.order_by(_TABLE.c.key).limit(ROWS)).all()
        if not rows:
            return
        after = rows[-1].key
        yield from (file for file in (json.loads(row.value) for row in rows) if "import" in file)


def _kept(blobs: Blobs, file: State, limits: Upload) -> Artifact | None:
    """The file as its blob says, or None: no blob, or not the leaf's bytes."""
    try:
        with blobs.open(file["sha256"]) as stream:
            sha256, length = _measured(stream)
            stream.seek(0)
            return matching(file, form_of(file, stream, sha256=sha256, length=length), limits)
    except (StoreError, ServerError):
        return None


def _measured(stream: BinaryIO) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length
