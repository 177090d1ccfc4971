"""The simple index (PEP 691, api-version 1.4): which files of a project an installer may choose from.

    {"files":[{"_countermark":{"index":6,"leaf_hash":"9f2c...","status":"../../api/v1/files/demo/demo-1.0.tar.gz"},
               "core-metadata":{"sha256":"77ab..."},"filename":"demo-1.0-py3-none-any.whl",
               "hashes":{"sha256":"5891..."},"provenance":null,"requires-python":">=3.9","size":1421,
               "upload-time":"2025-11-22T08:26:40Z","url":"../../packages/demo/demo-1.0-py3-none-any.whl",
               "yanked":false}],
     "meta":{"_last-serial":1763800000003,"api-version":"1.4"},"name":"demo",
     "project-status":{"status":"active"},"versions":["1.0"]}

A file that an import brought in has no `upload-time` and no `core-metadata`, which no entry vouches for; its
`_countermark` names the import.

The list of projects says of each at which serial it is (serials.py); a project that once had a listed file stays in
it, so that mirrors hear of the day on which it has none. Old tools that take no JSON get the frozen HTML form of the
same page (countermark.simplepage).

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
from sqlalchemy import Engine

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark.simplepage import JSON_TYPE, META, content_type, encode_page, negotiate
from countermark_server import db, jsontext, serials
from countermark_server.errors import ServerError
from countermark_server.index.caching import BRIEF
from countermark_server.index.kept import Kept, Page
from countermark_server.index.provenance import provenance_url
from countermark_server.index.shown import Shown, serial_of, shown
from countermark_server.standings import Row, Standing

LAST_SERIAL = "X-PyPI-Last-Serial"  # by which mirrors know a page that is older than the list


def blueprint(engine: Engine, *, base_url: str) -> Blueprint:
    """The index of all projects, and a page for each."""
    doors = Blueprint("simple", __name__, url_prefix="/simple")
    kept = Kept(engine)

    @doors.get("/")
    def projects() -> Response:
        return _page(kept, None, lambda: _projects(engine), lambda: _newest(engine))

    @doors.get("/<project>/")
    def project(project: str) -> Any:
        name = one_spelling(project)
        if name != project:
            return redirect(url_for("simple.project", project=name))
        return _page(
            kept, name, lambda: _project(shown(engine, name), base_url), lambda: serial_of(engine, name)
        )

    return doors


def one_spelling(project: str) -> str:
    """The normalised name. ServerError `not-found`: nothing could be called that."""
    try:
        return normalise_project(project)
    except MalformedError as error:
        raise ServerError("not-found", str(error)) from None


def upload_time(row: Row) -> str | None:
    """When it was uploaded, in UTC; None of an imported file: nobody knows when, or by whom."""
    if row["import_index"] is not None:
        return None
    return datetime.fromtimestamp(row["uploaded"], UTC).isoformat().removesuffix("+00:00") + "Z"


def yanked(standing: Standing) -> str | None:
    """Why it is yanked, in words; None where it is not."""
    return f"yanked{standing.by}" if standing.name == "yanked" else None


def _newest(engine: Engine) -> int:
    with db.read(engine) as connection:
        return serials.newest(connection)


def _projects(engine: Engine) -> dict[str, Any]:
    with db.read(engine) as connection:
        newest, listed = serials.newest(connection), serials.listed(connection)
    projects = [{"_last-serial": serial, "name": name} for name, serial in listed]
    return {"meta": {**META, "_last-serial": newest}, "projects": projects}


def _project(project: Shown, base_url: str) -> dict[str, Any]:
    return {
        "meta": {**META, "_last-serial": project.serial},
        "name": project.name,
        "project-status": project.project_status,
        "versions": project.versions,
        "files": [_file(row, standing, base_url) for row, standing in project.files],
    }


def _file(row: Row, standing: Standing, base_url: str) -> dict[str, Any]:
    path = f"{row['project']}/{row['served_name']}"
    file: dict[str, Any] = {
        "filename": row["served_name"],
        "url": f"../../packages/{path}",
        "hashes": {"sha256": row["sha256"]},
        "size": row["length"],
        "yanked": yanked(standing) or False,
        "provenance": provenance_url(row, base_url),
        "_countermark": {
            "index": row["leaf_index"],
            "leaf_hash": row["leaf_hash"],
            "status": f"../../api/v1/files/{path}",
        },
    }
    if (when := upload_time(row)) is not None:
        file["upload-time"] = when
    else:
        file["_countermark"]["import"] = row["import_index"]
    if row["requires_python"]:
        file["requires-python"] = row["requires_python"]
    if row["metadata_sha256"]:
        file["core-metadata"] = {"sha256": row["metadata_sha256"]}
    return file


def _page(
    kept: Kept, project: str | None, make: Callable[[], dict[str, Any]], serial: Callable[[], int]
) -> Response:
    """In the form that is asked for. Who takes none of ours is told so in words: no page to be misread as empty."""
    media_type = negotiate(request.headers.get("Accept"))
    if media_type is None:
        raise ServerError(
            "not-acceptable", "the simple index is served as JSON (PEP 691) and as HTML (PEP 503)"
        )
    page = kept.get((project, media_type), lambda: _encoded(make(), media_type), serial)
    return brief(page, content_type(media_type), Vary="Accept")


def brief(page: Page, media_type: str, **headers: str) -> Response:
    """A page that caches may keep for a minute, under its tag; 304 for who has it."""
    response = Response(page.body, content_type=media_type, headers=headers)
    response.headers["Cache-Control"] = BRIEF
    response.headers[LAST_SERIAL] = str(page.serial)
    response.set_etag(page.etag)
    response.make_conditional(request)
    return response


def _encoded(document: dict[str, Any], media_type: str) -> Page:
    is_json = media_type == JSON_TYPE  # in the same letters as `encode_page`, and several times as fast
    body = jsontext.encode(document).encode("ascii") if is_json else encode_page(document, media_type)
    return Page(body, hashlib.sha256(body).hexdigest(), document["meta"]["_last-serial"])
