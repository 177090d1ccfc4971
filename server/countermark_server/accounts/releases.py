"""Staged releases at the door: what waits for approvals, and the files themselves for those who may give them.

    GET /api/v1/releases/demo/1.0            files that wait, what an `approve` must follow, who has said what
    GET /api/v1/staged/demo/demo-1.0.tar.gz  Authorization: Bearer <session>    the bytes, for owners alone

Nobody need believe the first: whoever approves looks each file up in the log, and a list that lacks a file has
another digest than the one the rules want. The second exists because nobody can look at what nobody is served. The
approval itself comes in with other owners' statements (acts.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Response, send_file
from sqlalchemy import Connection, Engine, select

from countermark import rules
from countermark.entry import normalise_filename, normalise_project, normalise_version
from countermark.errors import MalformedError
from countermark.rules_approve import waiting
from countermark.schema import is_namespace
from countermark_server import db, submission
from countermark_server.accounts.seats import check_seat
from countermark_server.accounts.tokens import Principal, require_session
from countermark_server.asking import holder_in
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView, encode_key
from countermark_server.standings import standing
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

FILES_MAX = 4096  # of one project of a namespace, in one answer


class Releases:
    """What waits, and its bytes."""

    def __init__(self, engine: Engine, blobs: Blobs, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._blobs = blobs
        self._clock = clock

    def release(self, name: str, version: str, *, namespace: str = "") -> dict[str, Any]:
        """The files of a release that wait, and for what; no files where none do."""
        try:
            project, version = normalise_project(name), normalise_version(version)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        if not is_namespace(namespace):
            raise ServerError("not-found", f"{namespace[:80]!r} is no namespace")
        with db.read(self._engine) as connection:
            view = SqlView(connection, db.rules_state)
            state = view.get(("release", namespace, project, version))
            waits = waiting(view, namespace, project, version, int(self._clock()))
            files = [] if state is None else _files(view, namespace, project, state)
        return {
            "project": project,
            "namespace": namespace,
            "version": version,
            "prev": None if state is None else state["head"],
            "files": files,
            "approvals": None if waits is None else waits.document(),
        }

    def files(self, namespace: str, name: str) -> dict[str, Any]:
        """Files of a project in a namespace: where each is logged, and what an owner's next entry follows."""
        try:
            project = normalise_project(name)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        if not namespace or not is_namespace(namespace):
            raise ServerError("not-found", f"{namespace[:80]!r} is no namespace")
        first, table = encode_key(("file", namespace, project, ""))[:-2], db.rules_state
        query = select(table.c.key, table.c.value).where(table.c.key >= first, table.c.key < first + "~")
        with db.read(self._engine) as connection:
            view = SqlView(connection, db.rules_state)
            rows = connection.execute(query.order_by(table.c.key).limit(FILES_MAX)).all()
            found = [_logged(view, tuple(json.loads(row.key)), json.loads(row.value)) for row in rows]
        return {"namespace": namespace, "project": project, "files": found}

    def staged(self, principal: Principal, name: str, filename: str) -> Response:
        """The bytes of a file that is not listed yet, for an owner of its project who has signed in."""
        require_session(principal)  # a token that is for less must not read what nobody may read
        try:
            project, normalised = normalise_project(name), normalise_filename(filename)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        with db.read(self._engine) as connection:
            self._check_owner(connection, principal, project)
            row = submission.find(connection, "", project, normalised)
            stands = None if row is None else standing(connection, row)
        if row is None or stands is None:
            raise ServerError("not-found", f"{filename!r} of {project!r} was never published here")
        if not stands.served or row["state"] in ("held", "rejected"):
            code = "file-removed" if stands.name == "removed" or row["state"] == "rejected" else "file-held"
            raise ServerError(
                code, f"{filename} is {stands.name if stands.name != 'ok' else row['state']}{stands.by}"
            )
        try:
            with self._blobs.local(row["sha256"]) as path:  # open after the block, too
                return send_file(path, mimetype="application/octet-stream", etag=row["sha256"])
        except (StoreError, FileNotFoundError):
            raise ServerError("not-found", f"the bytes of {filename} are not here") from None

    def _check_owner(self, connection: Connection, principal: Principal, project: str) -> None:
        state = holder_in(SqlView(connection, db.rules_state), "", project, now=int(self._clock()))
        if state is None or principal.account_id not in state["owners"]:
            raise ServerError("not-owner", f"only owners of {project!r} see its files before they are listed")
        check_seat(connection, principal.account_id, "", project)


def _logged(view: SqlView, key: rules.Key, file: rules.State) -> dict[str, Any]:
    return {
        "filename": file["filename"],
        "sha256": file["sha256"],
        "index": file["index"],
        "standing": rules.standing_of(view, key) or "ok",
        "prev": file["owner_head"],
    }


def _files(view: SqlView, namespace: str, project: str, release: rules.State) -> list[dict[str, Any]]:
    found = []
    for normalised in sorted(release["files"]):
        file = view.get(("file", namespace, project, normalised))
        assert file is not None, "a release lists files that were published"
        found.append({name: file[name] for name in ("filename", "sha256", "length", "index")})
    return found
