"""Attestations: the signed statements that come with a file.

    attestations=[{"payload":"eyJfdHlwZSI6...","payloadType":"application/vnd.in-toto+json","signatures":[...]},
                  {"version":1,"verification_material":{...},"envelope":{...}}]

Ours is the first kind: a DSSE envelope whose statement has predicateType `https://countermark.dev/v1/publish`. It
must be about exactly this file, and whether its key may speak for the project is the log's to decide. The second are
PEP 740's: about this file too, and verified later (pep740.py). Others, words we do not know, are kept as they came:
uv sends whatever lies in dist/, and refusing that would stop honest uploads. Kept is not believed.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from countermark.entry import check_statement
from countermark.errors import MalformedError
from countermark.statement import PREDICATE_PREFIX, Envelope, Statement
from countermark_server.errors import ServerError
from countermark_server.upload.artifact import Artifact
from countermark_server.upload.pep740 import check_genuine, genuine

ATTESTATIONS_MAX_BYTES = 512 * 1024  # a PEP 740 object has about 10 kB
ATTESTATIONS_MAX = 16
PUBLISH = "publish"


@dataclass(frozen=True)
class Attestations:
    """What came with a file: our own statement, if there is one, and everything verbatim."""

    publish: Envelope | None
    verbatim: str | None
    genuine: tuple[int, ...]  # places in the array of those that mean to be PEP 740 objects


def read_attestations(text: str | None, artifact: Artifact) -> Attestations:
    """Sort the array that a tool sent. ServerError: no such array, two of ours, a false PEP 740 object."""
    if text is None:
        return Attestations(None, None, ())
    if len(text) > ATTESTATIONS_MAX_BYTES:
        raise ServerError("statement-invalid", f"attestations of {len(text)} characters")
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        raise ServerError("statement-invalid", "attestations are not JSON") from None
    if type(listed) is not list or len(listed) > ATTESTATIONS_MAX or not all(type(x) is dict for x in listed):
        raise ServerError(
            "statement-invalid", f"attestations must be an array of at most {ATTESTATIONS_MAX} objects"
        )
    ours = [item for item in listed if _is_ours(item)]
    if len(ours) > 1:
        raise ServerError(
            "statement-invalid", f"attestations hold {len(ours)} publish statements, may hold one"
        )
    try:
        envelope = Envelope.parse(ours[0]) if ours else None
    except MalformedError as error:
        raise ServerError("statement-invalid", f"publish attestation: {error}") from None
    numbers = genuine(listed)
    check_genuine(listed, numbers, artifact)
    return Attestations(envelope, text, numbers)


def publish_statement(artifact: Artifact, origin: str) -> Statement:
    """What a publish statement about this file must say, word for word."""
    predicate = {
        "origin": origin,
        "namespace": "",
        "project": artifact.names.project,
        "prev": None,
        "version": artifact.names.version,
        "length": artifact.length,
        "metadata_sha256": artifact.metadata_sha256,
        "record_sha256": artifact.record_sha256,
    }
    return Statement(artifact.names.served_name, artifact.sha256, PUBLISH, predicate)


def check_publish(envelope: Envelope, expected: Statement) -> None:
    """The envelope says exactly what the file says. ServerError: the first member that differs, both values."""
    try:
        said = Statement.parse(envelope.payload)
        check_statement(said)
    except MalformedError as error:
        raise ServerError("statement-invalid", f"publish statement: {error}") from None
    pairs: list[tuple[str, Any, Any]] = [
        ("file name", said.subject_name, expected.subject_name),
        ("SHA-256", said.subject_sha256, expected.subject_sha256),
    ]
    pairs += [(name, said.predicate[name], value) for name, value in expected.predicate.items()]
    for name, given, true in pairs:
        if given != true:
            raise ServerError(
                "statement-mismatch", f"publish statement says {name} {given!r}, the file {true!r}"
            )


def _is_ours(item: dict[str, Any]) -> bool:
    """Whether this is a DSSE envelope of a publish statement of ours, by its predicate type alone."""
    payload = item.get("payload")
    if not isinstance(payload, str):
        return False
    try:
        statement = json.loads(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(statement, dict) and statement.get("predicateType") == PREDICATE_PREFIX + PUBLISH
