"""The simple index (PEP 691, api-version 1.4): which files of a project an installer may choose from.

    {"files":[{"_countermark":{"index":6,"leaf_hash":"9f2c..."},
               "core-metadata":{"sha256":"77ab..."},"filename":"demo-1.0-py3-none-any.whl",
               "hashes":{"sha256":"5891..."},"requires-python":">=3.9","size":1421,
               "upload-time":"2025-11-22T08:26:40Z","url":"../../packages/demo/demo-1.0-py3-none-any.whl",
               "yanked":false}],
     "meta":{"api-version":"1.4"},"name":"demo","versions":["1.0"]}

A file that an import brought in has no `upload-time` and no `core-metadata`, which no entry vouches for; its
`_countermark` names the import.

Old tools that take no JSON get the frozen HTML form of the same page (countermark.simplepage).

Nothing here is believed by our own client: it verifies hashes against TUF metadata and the log. A project of which
nothing may be chosen is an empty page and not a 404, since uv would go on to the next index. Pages live a minute:
that bounds how long a cached page offers a file that was withdrawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from sqlalchemy import Engine, RowMapping, select

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark.simplepage import META, content_type, encode_page, negotiate
from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.index.caching import BRIEF
from countermark_server.index.files import listed_files
from countermark_server.index.kept import Kept, Page
from countermark_server.journey import State
from countermark_server.standings import Standing


def blueprint(engine: Engine) -> Blueprint:
    """The index of all projects, and a page for each."""
    doors = Blueprint("simple", __name__, url_prefix="/simple")
    kept = Kept(engine)

    @doors.get("/")
    def projects() -> Response:
        return _page(kept, None, lambda: _projects(engine))

    @doors.get("/<project>/")
    def project(project: str) -> Any:
        try:
            name = normalise_project(project)
        except MalformedError as error:
            raise ServerError("not-found", str(error)) from None
        if name != project:
            return redirect(url_for("simple.project", project=name))
        return _page(kept, name, lambda: _project(engine, name))

    return doors


def _projects(engine: Engine) -> dict[str, Any]:
    return {"meta": META, "projects": [{"name": name} for name in _listed_projects(engine)]}


def _project(engine: Engine, name: str) -> dict[str, Any]:
    known, rows = listed_files(engine, name)
    if not known:
        raise ServerError("not-found", f"no project {name!r} here")
    files = [_file(row, standing) for row, standing in rows]
    versions = sorted({row["version"] for row, _ in rows})
    return {"meta": META, "name": name, "versions": versions, "files": files}


def _listed_projects(engine: Engine) -> list[str]:
    table = db.submission
    query = (
        select(table.c.project)
        .where(table.c.namespace == "", table.c.state == State.LISTED)
        .distinct()
        .order_by(table.c.project)
    )
    with db.read(engine) as connection:
        return list(connection.execute(query).scalars())


def _file(row: RowMapping, standing: Standing) -> dict[str, Any]:
    yanked = f"yanked{standing.by}" if standing.name == "yanked" else False
    file: dict[str, Any] = {
        "filename": row["served_name"],
        "url": f"../../packages/{row['project']}/{row['served_name']}",
        "hashes": {"sha256": row["sha256"]},
        "size": row["length"],
        "yanked": yanked,
        "_countermark": {"index": row["leaf_index"], "leaf_hash": row["leaf_hash"]},
    }
    if row["import_index"] is None:
        uploaded = datetime.fromtimestamp(row["uploaded"], UTC)
        file["upload-time"] = uploaded.strftime("%Y-%m-%dT%H:%M:%SZ")
    else:  # nobody knows when, or by whom
        file["_countermark"]["import"] = row["import_index"]
    if row["requires_python"]:
        file["requires-python"] = row["requires_python"]
    if row["metadata_sha256"]:
        file["core-metadata"] = {"sha256": row["metadata_sha256"]}
    return file


def _page(kept: Kept, project: str | None, make: Callable[[], dict[str, Any]]) -> Response:
    """In the form that is asked for. Who takes none of ours is told so in words: no page to be misread as empty."""
    media_type = negotiate(request.headers.get("Accept"))
    if media_type is None:
        raise ServerError(
            "not-acceptable", "the simple index is served as JSON (PEP 691) and as HTML (PEP 503)"
        )
    page = kept.get((project, media_type), lambda: _encoded(make(), media_type))
    response = Response(page.body, content_type=content_type(media_type))
    response.headers["Cache-Control"] = BRIEF
    response.headers["Vary"] = "Accept"
    response.set_etag(page.etag)
    response.make_conditional(request)
    return response


def _encoded(document: dict[str, Any], media_type: str) -> Page:
    body = encode_page(document, media_type)
    return Page(body, hashlib.sha256(body).hexdigest())
