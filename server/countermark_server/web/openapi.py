"""`GET /api/v1/openapi.json`: the doors of the API, described for programs (OpenAPI 3.1).

    {"openapi":"3.1.0","paths":{"/api/v1/entries":{"post":{"operationId":"entries", ...}}, ...}}

One table below says what each door takes and answers; a test holds it against the application's own routes, and
another asks every door for what a generator makes of it. Refusals are the same everywhere: a problem document whose
`code` has a help page (errors.py). What a client must believe is never here: proofs, checkpoints and TUF metadata
are verified from the pinned root, not from a description that the registry serves.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

Schema = dict[str, Any]
VERSION = "1.0.0"  # of the API, which the path's `v1` stands for


def _object(required: dict[str, Schema], **more: Any) -> Schema:
    return {"type": "object", "properties": required, "required": sorted(required), **more}


def _or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


_STRING: Schema = {"type": "string"}
_STATIC: Schema = {"type": "string", "description": "path of a static file"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_HEX: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_WHERE: dict[str, Schema] = {
    "index": _or_null("integer"),
    "leaf_hash": _or_null("string"),
    "status_url": _or_null("string"),
}
_FILE: dict[str, Schema] = {
    **dict.fromkeys(("project", "version", "filename", "sha256", "state", "standing", "message"), _STRING),
    **dict.fromkeys(("standing_reason", "leaf_hash", "prev", "reason"), _or_null("string")),
    **dict.fromkeys(("standing_entry", "index"), _or_null("integer")),
    "approvals": _or_null(
        "object", description="what it waits for: needed, approved, rejected, missing accounts"
    ),
}
SCHEMAS: dict[str, Schema] = {
    "Problem": _object({
        "type": _STRING, "title": _STRING, "status": {"type": "integer"}, "detail": _STRING, "code": _STRING,
    }),
    "Envelope": _object(
        {
            "payload": {"type": "string", "contentEncoding": "base64"},
            "payloadType": {"const": "application/vnd.in-toto+json"},
            "signatures": _list(_object({"keyid": _HEX, "sig": _STRING}), minItems=1, maxItems=16),
        },
        additionalProperties=False,
    ),
    "Statement": _object({"envelope": _ref("Envelope")}, additionalProperties=False),
    "Act": {
        "type": "object", "required": ["envelope"], "additionalProperties": False,
        "properties": {"envelope": _ref("Envelope"), "blob": {
            "type": "string", "contentEncoding": "base64", "description": "what an attest names by digest",
        }},
    },
    "Placed": _object({**_WHERE, "proof": _or_null("string", description="a C2SP tlog-proof")}),
    "Batch": _object(
        {"entries": _list(_ref("Act"), minItems=1)}, additionalProperties=False
    ),
    "Batched": _object({
        "checkpoint": _or_null("string", description="signed note; every proof below is under it"),
        "entries": _list({"oneOf": [
            _object({"problem": _ref("Problem")}, additionalProperties=False),
            _object(
                {**_WHERE, "proof": _or_null("array", items=_STRING)}, additionalProperties=False
            ),
        ]}),
    }),
    "File": _object(_FILE),
    "ProvedFile": _object({**_FILE, "proof": _or_null("string")}),
    "Logged": _object({
        **dict.fromkeys(("namespace", "project", "version", "filename"), _STRING),
        **dict.fromkeys(("bundle", "tile", "checkpoint"), _STATIC),
        **dict.fromkeys(("sha256", "leaf_hash"), _HEX),
        "index": _COUNT, "key_index": _or_null("integer"),
    }),
    "Ahead": _object({
        **dict.fromkeys(("project", "filename", "sha256", "state"), _STRING), "expires": _or_null("integer"),
    }),
}  # fmt: skip
_HOLDER: dict[str, Schema] = {
    "project": _STRING, "namespace": _STRING, "keyed": {"type": "boolean"},
    "signed": {"type": "boolean"}, "threshold": _COUNT, "approvals": _COUNT,
    "frozen": _or_null("integer"), "recovery": _or_null("object"),
    "prev": _or_null("string"), "owners": _list(_STRING),
    "publishers": _list(_object({
        **dict.fromkeys(("id", "leaf_hash"), _HEX), "index": _COUNT, "ref": _or_null("string"),
        **dict.fromkeys(("issuer", "repository", "repository_id", "workflow"), _STRING),
    })),
    "keys": _list(_object({
        "keyid": _HEX, "index": _COUNT, "scope": _STRING, "valid_until": _or_null("integer"),
        "account": _STRING,
    })),
}  # fmt: skip
_PROJECT = _object(_HOLDER)
_COVERED = _object({**_HOLDER, "covered_by": _PROJECT})
_SIGNED_IN = _object({
    "account": _STRING, "login": _STRING, "session": _STRING, "session_expires": _COUNT,
    "upload_token": _STRING,
})  # fmt: skip
_DEVICE = _object({
    **dict.fromkeys(("device_code", "user_code", "verification_uri", "verification_uri_complete"), _STRING),
    "expires_in": _COUNT, "interval": _COUNT,
})  # fmt: skip
_TOKEN_FIELDS: dict[str, Schema] = {
    **dict.fromkeys(("id", "kind", "login"), _STRING), "name": _or_null("string"), "created": _COUNT,
    **dict.fromkeys(("expires", "revoked", "last_used"), _or_null("integer")),
    **dict.fromkeys(("projects", "actions"), _or_null("array", items=_STRING)),
}  # fmt: skip
_TOKEN = _object(_TOKEN_FIELDS)
_MADE = _object({**_TOKEN_FIELDS, "token": _STRING})
_NEW_TOKEN: Schema = {
    "type": "object", "required": ["name"], "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 64},
        "projects": _or_null("array", items=_STRING, minItems=1, maxItems=100),
        "actions": _or_null("array", items={"enum": ["entries", "read", "upload"]}, minItems=1),
        "expires_in": _or_null("integer", minimum=1), "for": _or_null("string"),
    },
}  # fmt: skip
_ENROLMENTS = _object({
    "keyid": _HEX,
    "enrolments": _list(_object({"namespace": _STRING, "project": _STRING, "index": _COUNT})),
})  # fmt: skip
_RELEASE = _object({
    **dict.fromkeys(("namespace", "project", "version"), _STRING),
    "prev": _or_null("string"), "approvals": _or_null("object"),
    "files": _list(_object({"filename": _STRING, "sha256": _HEX, "length": _COUNT, "index": _COUNT})),
})  # fmt: skip
_REGISTRY = _object({
    "origin": _STRING, "base_url": _STRING, "trial": _or_null("boolean"),
    "checkpoint_size": _or_null("integer"), "sign_in": _list({"enum": ["code", "device"]}),
})  # fmt: skip


def _door(
    name: str,
    summary: str,
    answer: Schema,
    *,
    body: Schema | None = None,
    path: dict[str, Schema] | None = None,
    token: bool = False,
    late: bool = False,
    kind: str = "application/json",
) -> Schema:
    """One operation: what it takes, and its answers; `late` doors may answer 202 with the same form."""
    good = {"content": {kind: {"schema": answer}}}
    described: Schema = {
        "operationId": name,
        "summary": summary,
        "security": [{"token": []}] if token else [],
        "responses": {"200": {"description": "done", **good}, "default": _ref_response("Problem")},
    }
    if late:
        described["responses"]["202"] = {"description": "durable, not public yet: ask status_url", **good}
    if path:
        described["parameters"] = [
            {"name": each, "in": "path", "required": True, "schema": schema} for each, schema in path.items()
        ]
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return described


def _ref_response(name: str) -> Schema:
    return {"$ref": f"#/components/responses/{name}"}


PATHS: dict[str, dict[str, Schema]] = {
    "/api/v1/login": {"post": _door(
        "login", "sign in with a one-time code", _SIGNED_IN,
        body=_object({"code": {"type": "string", "minLength": 1, "maxLength": 64}}),
    )},
    "/api/v1/login/device": {"post": _door(
        "beginDevice", "begin to sign a machine in by the identity provider (RFC 8628)", _DEVICE,
    )},
    "/api/v1/login/device/token": {"post": _door(
        "deviceToken", "ask whether somebody has vouched for the machine", _SIGNED_IN,
        body=_object({"device_code": {"type": "string", "maxLength": 128}}, additionalProperties=False),
    )},
    "/api/v1/keys": {"post": _door(
        "enrol", "enrol a publisher's key", _ref("Placed"), body=_ref("Statement"), token=True, late=True,
    )},
    "/api/v1/keys/{keyid}": {"get": _door(
        "enrolments", "projects and namespaces a key may sign for", _ENROLMENTS,
        path={"keyid": _HEX}, token=True,
    )},
    "/api/v1/entries": {"post": _door(
        "entries",
        "propose what an owner signed: yank, remove, approve, owner, key-revoke, attest, a publish in a namespace",
        _ref("Placed"), body=_ref("Act"), token=True, late=True,
    )},
    "/api/v1/entries/batch": {"post": _door(
        "batch", "propose many statements; each is answered on its own, in order", _ref("Batched"),
        body=_ref("Batch"), token=True, late=True,
    )},
    "/api/v1/entries/{number}": {"get": _door(
        "entryStatus", "what became of an entry that was answered 202", _ref("Placed"),
        path={"number": _COUNT}, token=True, late=True,
    )},
    "/api/v1/statements": {"post": _door(
        "statementAhead", "hand in a publish statement before its file", _ref("Ahead"),
        body=_ref("Statement"), token=True,
    )},
    "/api/v1/tokens": {
        "post": _door("makeToken", "make an upload token", _MADE, body=_NEW_TOKEN, token=True),
        "get": _door(
            "tokens", "the account's tokens and those of its service accounts",
            _object({"tokens": _list(_TOKEN)}), token=True,
        ),
    },
    "/api/v1/tokens/{token_id}/revoke": {"post": _door(
        "revokeToken", "end a token", _TOKEN, path={"token_id": _STRING}, token=True,
    )},
    "/api/v1/tokens/revoke": {"post": _door(
        "foundToken", "end a token that one has found", _TOKEN, body=_object({"token": _STRING}),
    )},
    "/api/v1/projects/{project}": {"get": _door(
        "project", "owners and keys of a project, and what to sign next", _PROJECT, path={"project": _STRING},
    )},
    "/api/v1/namespaces/{namespace}": {"get": _door(
        "namespace", "owners and keys of a namespace whose files are served elsewhere", _PROJECT,
        path={"namespace": _STRING},
    )},
    "/api/v1/namespaces/{namespace}/projects/{project}": {"get": _door(
        "covered", "the same of a project in it, and of the namespace, whose keys sign for it, too", _COVERED,
        path={"namespace": _STRING, "project": _STRING},
    )},
    "/api/v1/namespaces/{namespace}/files/{project}": {"get": _door(
        "coveredFiles", "where the files of a project there are logged, and what an owner's next entry follows",
        _object({"namespace": _STRING, "project": _STRING, "files": _list(_object({
            **dict.fromkeys(("filename", "standing"), _STRING), "sha256": _HEX, "index": _COUNT,
            "prev": _or_null("string"),
        }))}),
        path={"namespace": _STRING, "project": _STRING},
    )},
    "/api/v1/namespaces/{namespace}/releases/{project}/{version}": {"get": _door(
        "coveredRelease", "the files of a release there that wait for approvals", _RELEASE,
        path={"namespace": _STRING, "project": _STRING, "version": _STRING},
    )},
    "/api/v1/projects/{project}/owners": {"post": _door(
        "changeOwners", "change owners of a project that does not sign, after a fresh sign-in", _ref("Placed"),
        body=_object(
            {"action": {"enum": ["add", "remove", "transfer"]}, "account": _STRING, "role": _or_null("string")},
            additionalProperties=False,
        ),
        path={"project": _STRING}, token=True, late=True,
    )},
    "/api/v1/releases/{project}/{version}": {"get": _door(
        "release", "the files of a release that wait for approvals", _RELEASE,
        path={"project": _STRING, "version": _STRING},
    )},
    "/api/v1/staged/{project}/{filename}": {"get": _door(
        "staged", "a file that is not listed yet, for owners of its project",
        {"type": "string", "format": "binary"}, path={"project": _STRING, "filename": _STRING}, token=True,
        kind="application/octet-stream",
    )},
    "/api/v1/files/{project}": {"get": _door(
        "files", "what became of every file of a project",
        _object({"project": _STRING, "files": _list(_ref("File"))}), path={"project": _STRING},
    )},
    "/api/v1/files/{project}/{filename}": {"get": _door(
        "fileStatus", "what became of a file, with its proof", _ref("ProvedFile"),
        path={"project": _STRING, "filename": _STRING},
    )},
    "/api/v1/logged/{sha256}": {"get": _door(
        "loggedHash", "where files with these bytes are logged that other registries serve",
        _object({"sha256": _HEX, "entries": _list(_ref("Logged"), maxItems=100)}), path={"sha256": _HEX},
    )},
    "/api/v1/logged/{namespace}/{project}/{filename}": {"get": _door(
        "logged", "where a file is logged that another registry serves", _ref("Logged"),
        path={"namespace": _STRING, "project": _STRING, "filename": _STRING},
    )},
    "/api/v1/access": {"get": {  # answers without a body
        "operationId": "access", "summary": "whether the request that a proxy asks about may be read", "security": [],
        "responses": {"204": {"description": "it may"}, "default": _ref_response("Problem")},
    }},
    "/api/v1/registry": {"get": _door("registry", "what this registry says about itself", _REGISTRY)},
    "/api/v1/openapi.json": {"get": _door("openapi", "this description", {"type": "object"})},
}  # fmt: skip


def describe(base_url: str) -> Schema:
    """The whole description."""
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Countermark registry", "version": VERSION},
        "servers": [{"url": base_url or "/"}],
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "responses": {"Problem": {"description": "refused; nothing changed", "content": problem}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def blueprint(*, base_url: str) -> Blueprint:
    """The one door of this module."""
    doors = Blueprint("openapi", __name__)
    described = describe(base_url)

    @doors.get("/api/v1/openapi.json")
    def openapi() -> Response:
        return jsonify(described)

    return doors
