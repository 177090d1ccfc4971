"""A project as one JSON document, as PyPI has it: what mirrors and older tools ask for.

    GET /pypi/demo/json             newest version in `info`, every file in `releases`
    GET /pypi/demo/1.0/json         that version

    {"info":{"name":"demo","version":"1.0","summary":"..."},"last_serial":1763800000003,
     "releases":{"1.0":[{"digests":{"sha256":"5891..."},"filename":"demo-1.0.tar.gz","url":"https://..."}]},
     "urls":[...],"vulnerabilities":[...]}

bandersnatch finds what changed in the list at `/simple/`, reads this, and refuses it when `X-PyPI-Last-Serial` is
below what the list said. File addresses are whole ones below `/packages/`, as it wants them. `_countermark` rides
along for who reads a mirror's copy; it is found there and not believed. What `info` says is the file's own METADATA,
which its entry in the log vouches for by digest; the registry adds nothing to it.
"""

from __future__ import annotations

import hashlib
from email.message import Message
from email.parser import Parser
from email.policy import compat32
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, redirect, url_for
from packaging.version import InvalidVersion, Version
from sqlalchemy import Engine

from countermark_server import jsontext
from countermark_server.errors import ServerError
from countermark_server.index.advisories import Advisories
from countermark_server.index.kept import Kept, Page
from countermark_server.index.provenance import provenance_url
from countermark_server.index.shown import Shown, order, serial_of, shown
from countermark_server.index.simple import brief, one_spelling, upload_time, yanked
from countermark_server.standings import Row, Standing
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

# Fields of METADATA that hold one text, and those that hold many, under the names of the JSON document.
_ONE = {
    "summary": "Summary", "license": "License", "license_expression": "License-Expression", "keywords": "Keywords",
    "home_page": "Home-page", "requires_python": "Requires-Python",
    "description_content_type": "Description-Content-Type",
}  # fmt: skip
_MANY = {"classifiers": "Classifier", "requires_dist": "Requires-Dist", "provides_extra": "Provides-Extra"}


def blueprint(engine: Engine, blobs: Blobs, advisories: Advisories, *, base_url: str) -> Blueprint:
    """The two doors of this module."""
    doors = Blueprint("pypi", __name__, url_prefix="/pypi")
    kept = Kept(engine)

    @doors.get("/<project>/json")
    def project(project: str) -> Any:
        name = one_spelling(project)
        if name != project:
            return redirect(url_for("pypi.project", project=name))
        return _answer(name, None)

    @doors.get("/<project>/<version>/json")
    def release(project: str, version: str) -> Any:
        name = one_spelling(project)
        if name != project:
            return redirect(url_for("pypi.release", project=name, version=version))
        return _answer(name, version)

    def _answer(name: str, version: str | None) -> Response:
        def make() -> Page:
            found = shown(engine, name)
            document = _document(found, version, blobs, base_url)
            document["vulnerabilities"] = advisories.told(name, document["info"]["version"])
            body = jsontext.encode(document).encode("ascii")
            return Page(body, hashlib.sha256(body).hexdigest(), found.serial)

        page = kept.get((name, version), make, lambda: serial_of(engine, name))
        return brief(page, "application/json")

    return doors


def _document(project: Shown, version: str | None, blobs: Blobs, base_url: str) -> dict[str, Any]:
    releases = dict[str, list[tuple[Row, Standing]]]()
    for row, standing in project.files:
        releases.setdefault(row["version"], []).append((row, standing))
    wanted = _newest(releases) if version is None else version
    if version is not None and version not in releases:
        raise ServerError("not-found", f"no file of {project.name} {version} is listed")
    files = {
        each: [_file(*file, base_url) for file in releases[each]] for each in sorted(releases, key=order)
    }
    document: dict[str, Any] = {
        "info": _info(project, wanted, releases.get(wanted, []), blobs, base_url),
        "last_serial": project.serial,
        "urls": files.get(wanted, []),
    }
    return document if version is not None else {**document, "releases": files}


def _newest(releases: dict[str, Any]) -> str:
    """The newest version that is no pre-release and not yanked, as far as there is one."""

    def rank(version: str) -> tuple[bool, bool, Any]:
        try:
            early = Version(version).is_prerelease
        except InvalidVersion:
            early = True
        usable = any(standing.name == "ok" for _, standing in releases[version])
        return usable, not early, order(version)

    return max(releases, key=rank, default="")


def _info(
    project: Shown, version: str, files: list[tuple[Row, Standing]], blobs: Blobs, base_url: str
) -> dict[str, Any]:
    said = _metadata([row for row, _ in files], blobs)
    reasons = [reason for _, standing in files if (reason := yanked(standing))]
    urls = [each.partition(",") for each in said.get_all("Project-URL", [])]
    return {
        **{name: _text(said.get(field)) for name, field in _ONE.items()},
        **{name: [_text(each) for each in said.get_all(field, [])] for name, field in _MANY.items()},
        "name": files[0][0]["display_name"] if files else project.name,
        "version": version,
        "description": str(said.get("Description") or said.get_payload() or ""),
        "project_urls": {_text(label): _text(url) for label, _, url in urls} or None,
        "project_url": f"{base_url}/simple/{project.name}/",
        "yanked": bool(files) and len(reasons) == len(files),
        "yanked_reason": reasons[0] if reasons else None,
    }


def _metadata(rows: list[Row], blobs: Blobs) -> Message:
    """The METADATA of one of a release's files, a wheel's before another's; empty where none is kept."""
    for row in sorted(rows, key=lambda row: row["filetype"] != "bdist_wheel"):
        if row["metadata_sha256"] is not None:
            try:
                raw = blobs.read(row["metadata_sha256"])
                # A parser of bytes takes everything that is not ASCII for damage; METADATA is UTF-8.
                return Parser(policy=compat32).parsestr(raw.decode("utf-8", "replace"))
            except StoreError:
                continue
    return Message()


def _text(value: object) -> str | None:
    return (
        None if value is None else " ".join(str(value).split()) if "\n" in str(value) else str(value).strip()
    )


def _file(row: Row, standing: Standing, base_url: str) -> dict[str, Any]:
    when, reason, name = upload_time(row), yanked(standing), row["served_name"]
    wheel = row["filetype"] == "bdist_wheel"
    file: dict[str, Any] = {
        "filename": name,
        "url": f"{base_url}/packages/{row['project']}/{quote(name)}",
        "digests": {"sha256": row["sha256"]},
        "size": row["length"],
        "packagetype": row["filetype"],
        "python_version": name.removesuffix(".whl").split("-")[-3] if wheel else "source",
        "requires_python": row["requires_python"],
        "upload_time": when and when.removesuffix("Z"),
        "upload_time_iso_8601": when,
        "yanked": reason is not None,
        "yanked_reason": reason,
        "provenance": provenance_url(row, base_url),
        "_countermark": {"index": row["leaf_index"], "leaf_hash": row["leaf_hash"]},
    }
    if row["metadata_sha256"]:
        file["core-metadata"] = {"sha256": row["metadata_sha256"]}
    return file
