"""Where a file is logged that another registry serves: a look-up by name, and one by hash.

    GET /api/v1/logged/corp/widget/widget-1.0.tar.gz
    GET /api/v1/logged/9f86d081...                        every file with this SHA-256

    {"bundle":"log/tile/entries/000","checkpoint":"log/checkpoint","filename":"widget-1.0.tar.gz","index":31,
     "key_index":4,"leaf_hash":"9f2c...","namespace":"corp","project":"widget","sha256":"9f86...",
     "tile":"log/tile/0/000","version":"1.0"}

It only tells where: the publish entry's index, that of the enrolment of its key, and under which names the log's
static tree holds entry and proof (the full ones; until they are full, `.p/WIDTH` behind the name for the WIDTH that
the checkpoint's size gives). Whoever asks reads these and believes nothing said here; nothing said here is about
standing, which nobody can look up without reading what came after (`countermark verify --log-only`).

Files of the default namespace are at `/api/v1/files/`. An entry is told of once a public checkpoint covers it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection, Engine, select

from countermark.entry import normalise_filename, normalise_project
from countermark.errors import MalformedError
from countermark.rules import Key, file_key
from countermark.tlog.tile import ENTRIES, WIDTH, Tile
from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.index.caching import BRIEF
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.stores.public import CHECKPOINT

SAME_HASH_MAX = 100  # entries told of for one hash; the oldest come first
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Logged:
    """Finds the entries of files that are served elsewhere."""

    def __init__(self, engine: Engine, published: Published) -> None:
        self._engine = engine
        self._published = published

    def by_name(self, namespace: str, project: str, filename: str) -> dict[str, Any]:
        """Where the file of this name is logged, in any spelling. ServerError `not-found`."""
        try:
            key = file_key(namespace, normalise_project(project), normalise_filename(filename))
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        with db.read(self._engine) as connection:
            found = self._told(connection, [key])
        if not found:
            raise ServerError(
                "not-found", f"the public log has no entry for {filename!r} of {project!r} in {namespace!r}"
            )
        return found[0]

    def by_hash(self, sha256: str) -> dict[str, Any]:
        """Where files with these bytes are logged; anybody may have logged them under any name of theirs."""
        if not _SHA256.fullmatch(sha256):
            raise ServerError("not-found", f"{sha256[:80]!r} is no SHA-256: 64 lower-case hexadecimal digits")
        table = db.logged_elsewhere
        query = (
            select(table).where(table.c.sha256 == sha256).order_by(table.c.leaf_index).limit(SAME_HASH_MAX)
        )
        with db.read(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
            keys = [file_key(row["namespace"], row["project"], row["filename"]) for row in rows]
            found = self._told(connection, keys)
        return {"sha256": sha256, "entries": found}

    def _told(self, connection: Connection, keys: list[Key]) -> list[dict[str, Any]]:
        view = SqlView(connection, db.rules_state)
        files = [file for key in keys if key[1] and (file := view.get(key)) is not None]
        size = self._published.checkpoint().size if files else 0
        return [_where(file) for file in files if file["index"] < size]


def _where(file: dict[str, Any]) -> dict[str, Any]:
    """What may be told of a file: all of it can be read in the log, and none of it changes."""
    members = ("namespace", "project", "version", "filename", "sha256", "index", "key_index")
    number = file["index"] // WIDTH
    return {
        **{member: file[member] for member in members},
        "leaf_hash": file["lh"],
        "bundle": f"log/{Tile(ENTRIES, number, WIDTH).path()}",
        "tile": f"log/{Tile(0, number, WIDTH).path()}",
        "checkpoint": CHECKPOINT,
    }


def blueprint(logged: Logged) -> Blueprint:
    """The two doors of this module."""
    doors = Blueprint("logged", __name__)

    @doors.get("/api/v1/logged/<sha256>")
    def by_hash(sha256: str) -> Response:
        return _answer(logged.by_hash(sha256))

    @doors.get("/api/v1/logged/<namespace>/<project>/<filename>")
    def by_name(namespace: str, project: str, filename: str) -> Response:
        return _answer(logged.by_name(namespace, project, filename))

    return doors


def _answer(document: dict[str, Any]) -> Response:
    """A minute in caches: what is told of an entry never changes, but one more entry may have the same hash."""
    response = jsonify(document)
    response.headers["Cache-Control"] = BRIEF
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest())
    response.make_conditional(request)
    return response
