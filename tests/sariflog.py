"""What a SARIF log must be: the part of the SARIF 2.1.0 schema that we write, and what GitHub wants beyond it.

    document = checked(raw)                 # AssertionError names each place that is wrong

Names, required properties, types and enumerations are those of OASIS' schema (sarif-schema-2.1.0.json); every
object is closed, there and here, so a property that we misspell or begin to write is seen. GitHub takes less than
SARIF allows: each rule with its three texts, each result with a rule, a fingerprint, and a place with a line; a path
is relative.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs

TEXT = {"type": "string"}
MESSAGE = {
    "type": "object",
    "properties": {"text": TEXT},
    "required": ["text"],
    "additionalProperties": False,
}
LEVEL = {"enum": ["none", "note", "warning", "error"]}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _list(of: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, **more}


PLACE = _closed(
    ["artifactLocation", "region"],
    artifactLocation=_closed(["uri"], uri={"type": "string", "format": "uri-reference", "minLength": 1}),
    region=_closed(["startLine"], startLine={"type": "integer", "minimum": 1}),
)
RULE = _closed(
    ["id", "shortDescription", "fullDescription", "help", "helpUri"],
    id=TEXT,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    helpUri={"type": "string", "format": "uri"},
    defaultConfiguration=_closed([], level=LEVEL),
)
RESULT = _closed(
    ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=_list(_closed(["physicalLocation"], physicalLocation=PLACE), minItems=1),
    partialFingerprints={"type": "object", "additionalProperties": TEXT, "minProperties": 1},
)
DRIVER = _closed(["name", "rules"], name=TEXT, version=TEXT, rules=_list(RULE, uniqueItems=True))
RUN = _closed(
    ["tool", "results"],
    tool=_closed(["driver"], driver=DRIVER),
    results=_list(RESULT),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    invocations=_list(
        _closed(
            ["executionSuccessful"],
            executionSuccessful={"type": "boolean"},
            toolExecutionNotifications=_list(_closed(["message"], level=LEVEL, message=MESSAGE)),
        )
    ),
)
LOG = _closed(
    ["version", "runs"],
    **{"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": _list(RUN)},
)
_VALIDATOR = jsonschema_rs.Draft7Validator(LOG, validate_formats=True)


def checked(raw: bytes) -> dict[str, Any]:
    """The log as a document, once it is one."""
    document: dict[str, Any] = json.loads(raw)
    wrong = [f"{list(error.instance_path)}: {error.message}" for error in _VALIDATOR.iter_errors(document)]
    assert not wrong, wrong
    for run in document["runs"]:
        ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(set(ids)) == len(ids)
        for result in run["results"]:
            assert ids[result["ruleIndex"]] == result["ruleId"]
            for location in result["locations"]:
                uri = location["physicalLocation"]["artifactLocation"]["uri"]
                assert urlsplit(uri).scheme or not uri.startswith("/"), uri
                assert "\\" not in uri and not uri.startswith("../"), uri
        prints = [tuple(sorted(result["partialFingerprints"].items())) for result in run["results"]]
        assert len(set(prints)) == len(prints), "two findings with one fingerprint"
    json.dumps(
        document, ensure_ascii=False
    ).encode()  # halves of surrogate pairs are no text to strict readers
    return document
