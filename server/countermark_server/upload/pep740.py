"""PEP 740 objects at the upload door: their form, and whether they are about the file that they came with.

    {"version":1,"verification_material":{"certificate":"MII...","transparency_entries":[{...}]},
     "envelope":{"statement":"eyJf...","signature":"MEUC..."}}

Refused at once, with words that upload tools print: an object that has a member of these and not the form; one whose
statement names another file or digest; two of one predicate type. Whether the signature holds is found out later, in
the scan's sandbox (scan/pep740.py): no such code runs in a request. Until then nothing here is believed or shown.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from countermark_server.errors import ServerError
from countermark_server.upload.artifact import Artifact

MARKS = {"verification_material", "envelope"}  # an object with both means to be PEP 740's
PEP740_MAX = 4  # of one file; PyPI takes 2, one for each of the predicate types that it knows
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SAYS = "Invalid attestations supplied during upload: "  # as PyPI begins it


def genuine(listed: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The places of those that mean to be PEP 740 objects."""
    return tuple(number for number, item in enumerate(listed) if item.keys() >= MARKS)


def check_genuine(listed: Sequence[Mapping[str, Any]], numbers: Sequence[int], artifact: Artifact) -> None:
    """Each has the form, and is about this file. ServerError: the first that is not, with both values."""
    if len(numbers) > PEP740_MAX:
        raise ServerError(
            "statement-invalid", f"{SAYS}{len(numbers)} PEP 740 attestations, at most {PEP740_MAX} may come"
        )
    seen: dict[str, int] = {}
    for number in numbers:
        try:
            name, sha256, predicate_type = _read(listed[number])
        except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServerError(
                "statement-invalid",
                f"{SAYS}attestation {number + 1} is no PEP 740 object: {_words(error)}",
            ) from None
        said, true = (name, sha256), (artifact.names.served_name, artifact.sha256)
        if said != true:
            raise ServerError(
                "statement-mismatch",
                f"{SAYS}attestation {number + 1} is about {name!r} with SHA-256 {sha256}, "
                f"the file is {true[0]!r} with {true[1]}",
            )
        if (first := seen.setdefault(predicate_type, number)) != number:
            raise ServerError(
                "statement-invalid",
                f"{SAYS}attestations {first + 1} and {number + 1} both have predicate type {predicate_type!r}",
            )


def _read(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """The file that the statement names, its digest, and the predicate type."""
    material, envelope = item["verification_material"], item["envelope"]
    if item.keys() != MARKS | {"version"} or type(item["version"]) is not int or item["version"] != 1:
        raise ValueError("it must have version 1, verification_material and envelope, and nothing else")
    entries = material["transparency_entries"]
    if type(entries) is not list or not entries or not all(type(entry) is dict for entry in entries):
        raise ValueError("it has no transparency_entries")
    for part in (material["certificate"], envelope["signature"]):
        if not base64.b64decode(part, validate=True):
            raise ValueError("certificate or signature is empty")
    statement = json.loads(base64.b64decode(envelope["statement"], validate=True))
    if statement["_type"] != STATEMENT_TYPE:
        raise ValueError(f"its statement has _type {statement['_type']!r}")
    if len(statement["subject"]) != 1:
        raise ValueError(f"its statement has {len(statement['subject'])} subjects, must have one")
    (subject,) = statement["subject"]
    found = (subject["name"], subject["digest"]["sha256"], statement["predicateType"])
    if not all(type(each) is str for each in found):
        raise TypeError("its subject is not spelled in texts")
    return found


def _words(error: Exception) -> str:
    """An error of parsing in words for who uploads."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)[:200]
