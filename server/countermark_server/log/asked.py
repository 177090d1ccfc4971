"""Asked: the leaf that a proposal asks for, whatever the rules will say of it.

formed(row, time)       # an Entry; or the exception that says why there can be none, which is an answer to who asked
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countermark.entry import Entry, make_entry
from countermark.statement import Envelope
from countermark_server.proposal import raw_body


def formed(row: Mapping[str, Any], time: int) -> Entry | Exception:
    """The leaf that a proposal asks for, of whatever the rules will say; or why there can be none."""
    try:
        return _entry(row, time)
    except Exception as error:
        return error


def _entry(row: Mapping[str, Any], time: int) -> Entry:
    if row["type"] == "opaque":
        return Entry.opaque(raw_body(row))
    if row["verified"]:
        return Entry.reassemble(
            type=row["type"], envelope=row["envelope"], registry=row["registry"], time=time
        )
    return make_entry(
        type=row["type"],
        envelope=Envelope.parse(json.loads(row["envelope"] or "null")),
        registry=json.loads(row["registry"]),
        time=time,
    )
