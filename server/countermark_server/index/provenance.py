"""Provenance: the PEP 740 objects that were uploaded with a file, as PyPI's integrity API hands them out.

    GET /integrity/demo/1.0/demo-1.0.tar.gz/provenance      application/vnd.pypi.integrity.v1+json

    {"attestation_bundles":[{"attestations":[{"envelope":{...},"verification_material":{...},"version":1}],
                             "publisher":{"claims":{"checked":true,"entry":31},"environment":null,"kind":"GitHub",
                                          "repository":"acme/demo","workflow":"release.yml"}}],
     "version":1}

Handed out is what was uploaded, byte for byte of its meaning, and only what the log has an `attest` entry for: what
this registry verified (`checked` is true), or could not since it has not the library (`checked` is false). What was
found false is kept as evidence and never handed out here, and neither is what nobody looked at yet. `publisher`
repeats what each object's own certificate says, so that PEP 740 readers know whom to hold it against; they verify it
themselves. Our own statements are not among these: they are entries of the log, found by `_countermark` on the
simple page. What was found of each, false ones too: `attestations` of `GET /api/v1/files/...`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cryptography import x509
from flask import Blueprint, Response, request
from sqlalchemy import Engine, RowMapping, select

from countermark_server import attested, db, fulcio
from countermark_server.errors import ServerError
from countermark_server.index.caching import BRIEF
from countermark_server.index.files import Files, check_served
from countermark_server.standings import Row

MEDIA_TYPE = "application/vnd.pypi.integrity.v1+json"
_ISSUER, _REPOSITORY, _CONFIG = "8", "12", "18"  # parts of what Fulcio says (fulcio.py)
_GITHUB, _GITLAB = "https://token.actions.githubusercontent.com", "https://gitlab.com"


def provenance_url(row: Row, base_url: str) -> str | None:
    """Where the file's provenance is, for its simple page; None without one."""
    if not row["has_provenance"]:
        return None
    parts = (row["project"], row["version"], row["served_name"])
    return f"{base_url}/integrity/{'/'.join(quote(part, safe='') for part in parts)}/provenance"


def provenance(attestations: str | None, rows: Sequence[RowMapping]) -> dict[str, Any]:
    """PEP 740's provenance object of what came with a file, one bundle for each publisher that is named."""
    bundles, listed = dict[str, dict[str, Any]](), json.loads(attestations or "[]")
    for row in rows:
        if row["leaf_index"] is None or row["verified"] not in (attested.YES, attested.NOT_CHECKED):
            continue
        item = listed[row["number"]]
        publisher = _publisher(item)
        name = json.dumps(publisher, sort_keys=True)
        claims = {"checked": row["verified"] == attested.YES, "entry": row["leaf_index"]}
        bundle = bundles.setdefault(name, {"publisher": {**publisher, "claims": claims}, "attestations": []})
        bundle["publisher"]["claims"]["checked"] &= claims["checked"]
        bundle["attestations"].append(item)
    return {"version": 1, "attestation_bundles": list(bundles.values())}


def blueprint(engine: Engine, files: Files) -> Blueprint:
    """The one door of this module."""
    doors = Blueprint("provenance", __name__)

    @doors.get("/integrity/<project>/<version>/<filename>/provenance")
    def of_file(project: str, version: str, filename: str) -> Response:
        row, standing = files.find(project, filename)
        check_served(row, standing)
        found = provenance(*_uploaded(engine, row["id"]))
        if row["version"] != version or not found["attestation_bundles"]:
            raise ServerError("not-found", f"no provenance came with {filename!r} of {project} {version}")
        body = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
        response = Response(body, content_type=MEDIA_TYPE, headers={"Cache-Control": BRIEF})
        response.set_etag(hashlib.sha256(body).hexdigest())
        response.make_conditional(request)
        return response

    return doors


def _uploaded(engine: Engine, number: int) -> tuple[str | None, Sequence[RowMapping]]:
    with db.read(engine) as connection:
        query = select(db.submission.c.attestations).where(db.submission.c.id == number)
        return connection.execute(query).scalar(), attested.of_file(connection, number)


def _publisher(item: Mapping[str, Any]) -> dict[str, Any]:
    """Whom the object's certificate names, in PEP 740's words."""
    said = _certificate(item)
    issuer, repository, config = (said.get(each, "") for each in (_ISSUER, _REPOSITORY, _CONFIG))
    if issuer == _GITHUB and (found := re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", repository)):
        workflow = config.partition("@")[0].rpartition("/")[2]
        return {"kind": "GitHub", "repository": found[1], "workflow": workflow, "environment": None}
    if issuer == _GITLAB and (found := re.fullmatch(r"https://gitlab\.com/(.+/[^/]+)", repository)):
        workflow = config.partition("@")[0].rpartition("//")[2]
        return {"kind": "GitLab", "repository": found[1], "workflow_filepath": workflow, "environment": None}
    return {"kind": "Unknown"}


def _certificate(item: Mapping[str, Any]) -> dict[str, str]:
    """What Fulcio says in the certificate; empty where there is none that we can read."""
    try:
        raw = base64.b64decode(item["verification_material"]["certificate"], validate=True)
        return fulcio.texts(x509.load_der_x509_certificate(raw).extensions)
    except Exception:  # a stranger's bytes, and parsers of certificates raise whatever they like
        return {}
