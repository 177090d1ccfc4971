"""OSV's API, for tools that ask which of their packages are withdrawn: `uv audit --service-url`, pip-audit.

    POST /v1/querybatch   {"queries":[{"package":{"ecosystem":"PyPI","name":"demo"},"version":"1.0"}]}
                          {"results":[{"vulns":[{"id":"MAL-2026-CM-31","modified":"2026-09-21T14:13:20Z"}]}]}
    POST /v1/query        one of the queries: the advisories themselves
    GET  /v1/vulns/MAL-2026-CM-31

What an advisory says: advisories.py. Versions are compared as they are written. A package of which we know nothing
has no advisories here, which says nothing about it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, Response, request

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark_server.accounts.doorway import json_body
from countermark_server.errors import ServerError
from countermark_server.index.advisories import ECOSYSTEM, Advisories
from countermark_server.index.caching import BRIEF, NEVER

QUERIES_MAX = 1000  # of one request, as at osv.dev
BODY_MAX_BYTES = 1024 * 1024
_PURL = re.compile(r"pkg:pypi/([^@?#]+)(?:@([^?#]+))?")


def blueprint(advisories: Advisories) -> Blueprint:
    """The three doors of this module."""
    doors = Blueprint("osv", __name__, url_prefix="/v1")

    @doors.post("/querybatch")
    def querybatch() -> Response:
        body = json_body(BODY_MAX_BYTES)
        queries = body.get("queries") if isinstance(body, dict) else None
        if not isinstance(queries, list) or len(queries) > QUERIES_MAX:
            raise ServerError(
                "bad-request", f'the body must be {{"queries": [...]}} with at most {QUERIES_MAX}'
            )
        asked = [_asked(each) for each in queries]
        found = iter(advisories.of([each for each in asked if each is not None]))
        results = [[] if each is None else next(found) for each in asked]
        brief = [[{"id": one["id"], "modified": one["modified"]} for one in each] for each in results]
        return _answer({"results": [{"vulns": each} if each else {} for each in brief]}, NEVER)

    @doors.post("/query")
    def query() -> Response:
        asked = _asked(json_body(BODY_MAX_BYTES))
        (found,) = [[]] if asked is None else advisories.of([asked])
        return _answer({"vulns": found} if found else {}, NEVER)

    @doors.get("/vulns/<name>")
    def vulnerability(name: str) -> Response:
        response = _answer(advisories.one(name), BRIEF)
        response.set_etag(hashlib.sha256(response.get_data()).hexdigest())
        response.make_conditional(request)
        return response

    return doors


def _asked(query: Any) -> tuple[str, str] | None:
    """Project and version; None where it asks about other things than Python packages, of which we know nothing."""
    package = query.get("package") if isinstance(query, dict) else None
    if not isinstance(package, dict):
        raise ServerError("bad-request", 'a query must name a "package"')
    name, version = package.get("name"), query.get("version")
    if isinstance(purl := package.get("purl"), str):
        match = _PURL.fullmatch(purl)
        if match is None:
            return None
        name, version = unquote(match[1]), unquote(match[2] or "") or version
    elif package.get("ecosystem") != ECOSYSTEM:
        return None
    if not isinstance(name, str) or not isinstance(version, str):
        raise ServerError("bad-request", "a query must say the package's name and version")
    if not version.isprintable():  # nothing has such a version, nor could a database be asked for it
        return None
    try:
        return normalise_project(name), version
    except MalformedError:
        return None


def _answer(document: dict[str, Any], cache: str) -> Response:
    body = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return Response(body, content_type="application/json", headers={"Cache-Control": cache})
