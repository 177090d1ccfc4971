"""Files: the bytes themselves, and what became of them.

    GET /packages/demo/demo-1.0-py3-none-any.whl            the file, while it is listed
    GET /packages/demo/demo-1.0-py3-none-any.whl.metadata   its METADATA (PEP 658), likewise
    GET /api/v1/files/demo/demo-1.0-py3-none-any.whl        its state, standing, entry and proof, always
    GET /api/v1/files/demo                                  the same of all its files, without proofs

Of a file that an import recorded the same is told, with `import` and `first_seen` and never an upload time; before
somebody brought its bytes its state is `imported`.

A refusal here is what an installer shows its user, so it is 403 or 410 with a reason phrase, never a 5xx: installers
retry those and lose the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, send_file
from sqlalchemy import Connection, Engine

from countermark.entry import normalise_filename, normalise_project
from countermark.errors import MalformedError
from countermark.rules import State as RulesState
from countermark_server import attested, db, recorded, submission
from countermark_server.errors import ServerError
from countermark_server.index.caching import BRIEF, NEVER
from countermark_server.index.shown import logged_rows
from countermark_server.journey import State
from countermark_server.published import Published
from countermark_server.standings import Row, Standing, said, standings, state_of
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

METADATA_SUFFIX = ".metadata"


class Files:
    """Finds files by name, and says whether they may be served."""

    def __init__(self, engine: Engine, blobs: Blobs, published: Published) -> None:
        self._engine = engine
        self._blobs = blobs
        self._published = published

    def find(self, project: str, filename: str) -> tuple[Row, Standing]:
        """The submission of this name, in any spelling, and its standing. ServerError `not-found`."""
        found = self._find(project, filename)
        if isinstance(found, dict):
            code = {"held": "file-held", "removed": "file-removed"}.get(str(found["standing"]), "not-listed")
            raise ServerError(code, f"{found['filename']}: {found['message']}")
        return found

    def _find(self, project: str, filename: str) -> tuple[Row, Standing] | dict[str, Any]:
        """A submission and its standing, or what is said of a file that an import recorded without its bytes."""
        try:
            names = normalise_project(project), normalise_filename(filename)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        with db.read(self._engine) as connection:
            row = submission.find(connection, "", *names)
            if row is not None:
                return row, standings(connection, [row])[row["id"]]
            file = recorded.file(connection, names[0], filename)
            if file is not None:
                return _recorded(connection, [file])[0]
        raise ServerError("not-found", f"{filename!r} of {project!r} was never published here")

    def _served(self, project: str, filename: str) -> Row:
        row, standing = self.find(project, filename)
        check_served(row, standing)
        return row

    def artifact(self, project: str, filename: str) -> Response:
        """The bytes of a listed file."""
        row = self._served(project, filename)
        return self._send(row["sha256"], row["served_name"], "application/octet-stream")

    def metadata(self, project: str, filename: str) -> Response:
        """The METADATA of a listed file."""
        row = self._served(project, filename)
        if row["metadata_sha256"] is None:
            raise ServerError("not-found", f"no metadata of {filename!r} is kept")
        return self._send(row["metadata_sha256"], filename + METADATA_SUFFIX, "text/plain; charset=utf-8")

    def target(self, project: str, filename: str, sha256: str) -> Response:
        """The bytes of a TUF target, which may be asked for between `cleared` and `listed`."""
        row, standing = self.find(project, filename)
        if row["sha256"] != sha256 or (row["project"], row["served_name"]) != (project, filename):
            raise ServerError("not-found", f"there is no target {project}/{sha256}.{filename}")
        check_served(row, standing, also=(State.CLEARED,))
        return self._send(sha256, filename, "application/octet-stream")

    def status(self, project: str, filename: str) -> dict[str, Any]:
        """What became of a file, with the proof once the log has published it."""
        found = self._find(project, filename)
        said = found if isinstance(found, dict) else _described(*found)
        index, proof = said["index"], None
        if isinstance(index, int) and self._published.covers(index):
            proof = self._published.prove(index, str(said["leaf_hash"])).decode()
        came = [] if isinstance(found, dict) else self._attestations(found[0]["id"])
        return {**said, "attestations": came, "proof": proof}

    def _attestations(self, submission_id: int) -> list[dict[str, Any]]:
        """What was found of each PEP 740 object that came with the file. Information: no rule looks at it."""
        with db.read(self._engine) as connection:
            rows = attested.of_file(connection, submission_id)
        return [attested.described(row) for row in rows]

    def project(self, project: str) -> dict[str, Any]:
        """What became of every file of a project that the log knows, in its order."""
        try:
            name = normalise_project(project)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        with db.read(self._engine) as connection:
            rows = logged_rows(connection, name)
            found = standings(connection, rows)
            here = {row["leaf_index"] for row in rows}
            bare = [file for file in recorded.files_of(connection, name) if file["index"] not in here]
            files = [_described(row, found[row["id"]]) for row in rows] + _recorded(connection, bare)
        return {"project": name, "files": sorted(files, key=lambda file: int(file["index"]))}

    def _send(self, sha256: str, name: str, mimetype: str) -> Response:
        try:
            with self._blobs.local(sha256) as path:  # open after the block, too: a copy then has no name
                response = send_file(path, mimetype=mimetype, etag=sha256, conditional=True)
        except StoreError as error:
            raise ServerError("not-found", f"{name}: {error}") from None
        except FileNotFoundError:
            raise ServerError("not-found", f"the bytes of {name} are not here") from None
        response.headers["Cache-Control"] = BRIEF
        return response


def check_served(row: Row, standing: Standing, *, also: tuple[State, ...] = ()) -> None:
    """Raise the refusal that fits a file which must not be handed out now."""
    state, name = state_of(row, standing), row["served_name"]
    because = f": {row['reason']}" if row["reason"] else ""
    if state is State.REJECTED or standing.name == "removed":
        raise ServerError("file-removed", f"{name} was removed{standing.by}{because}")
    if state is State.HELD or standing.name == "held":
        raise ServerError("file-held", f"{name} is held for review{standing.by}{because}")
    if state is not State.LISTED and state not in also:
        raise ServerError("not-listed", f"{name}: {said(state, standing)}")


def _described(row: Row, standing: Standing) -> dict[str, Any]:
    """What anybody may know of a file. `prev` is what its owner's next statement must follow."""
    state = state_of(row, standing)
    words, members = recorded.shown(row)
    return {
        "project": row["project"],
        "version": row["version"],
        "filename": row["served_name"],
        "sha256": row["sha256"],
        "state": state,
        "standing": standing.name,
        "standing_entry": standing.entry,
        "standing_reason": standing.reason,
        "index": row["leaf_index"],
        "leaf_hash": row["leaf_hash"],
        "prev": standing.owner_head,
        "approvals": None if standing.waiting is None else standing.waiting.document(),
        "message": words + said(state, standing),
        "reason": row["reason"],
        **members,
    }


def _recorded(connection: Connection, files: Sequence[RulesState]) -> list[dict[str, Any]]:
    """The same of files that imports recorded and of which no bytes came."""
    rows = [{**file, "id": file["index"], "served_name": file["filename"]} for file in files]
    found = standings(connection, rows)
    described = []
    for file in files:
        standing = found[file["index"]]
        now = "not listed" if standing.name == "ok" else f"{standing.name}{standing.by}"
        described.append(
            {
                **{name: file[name] for name in ("project", "version", "filename", "sha256", "index")},
                "state": "imported",
                "standing": standing.name,
                "standing_entry": standing.entry,
                "standing_reason": standing.reason,
                "leaf_hash": file["lh"],
                "prev": standing.owner_head,
                "approvals": None,
                "message": f"{recorded.seen(file)}; {now}",
                "reason": None,
                "import": file["import"],
                "first_seen": file["time"],
            }
        )
    return described


def blueprint(files: Files) -> Blueprint:
    """The doors for files."""
    doors = Blueprint("files", __name__)

    @doors.get("/packages/<project>/<filename>")
    def package(project: str, filename: str) -> Response:
        if filename.endswith(METADATA_SUFFIX):
            return files.metadata(project, filename.removesuffix(METADATA_SUFFIX))
        return files.artifact(project, filename)

    @doors.get("/api/v1/files/<project>/<filename>")
    def status(project: str, filename: str) -> Response:
        return _now(files.status(project, filename))

    @doors.get("/api/v1/files/<project>")
    def all_of(project: str) -> Response:
        return _now(files.project(project))

    def _now(answer: dict[str, Any]) -> Response:
        response = jsonify(answer)
        response.headers["Cache-Control"] = NEVER
        return response

    return doors
