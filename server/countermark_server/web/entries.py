"""One entry of the log, for people: what it says, who signed it, and the proof that it is there.

    GET /e/31        the entry at index 31, as the public log has it

It is read from the public tree and proved under the newest checkpoint before it is shown, like every proof that
leaves this registry. What is shown is still this registry's word: the page says how to check it without.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from flask import Blueprint, render_template

from countermark.entry import Entry
from countermark.errors import MalformedError
from countermark.tlog.merkle import leaf_hash
from countermark.tlog.tile import WIDTH, tile_at
from countermark_server.errors import ServerError
from countermark_server.published import Published


def blueprint(published: Published) -> Blueprint:
    """The page of an entry, over the public log."""
    pages = Blueprint("entries", __name__, template_folder="templates")

    @pages.get("/e/<int:index>")
    def entry(index: int) -> str:
        size = published.checkpoint().size
        if not 0 <= index < size:
            raise ServerError("not-found", f"the public log has {size} entries, and no entry {index}")
        raw = published.entry(index)
        leaf = leaf_hash(raw).hex()
        return render_template(
            "entry.html",
            index=index,
            leaf_hash=leaf,
            size=size,
            said=_said(raw),
            bundle=f"/log/{tile_at(0, index // WIDTH, size).bundle().path()}",
            proof=published.prove(index, leaf).decode(),
        )

    return pages


def _said(raw: bytes) -> dict[str, object]:
    """What the entry says, as a page shows it; an entry that is not in its form is shown as bytes alone."""
    try:
        entry = Entry.parse(raw)
    except MalformedError:
        return {
            "type": "unreadable",
            "time": "",
            "subject": None,
            "keys": (),
            "predicate": None,
            "registry": "{}",
        }
    statement = entry.statement
    return {
        "type": entry.type,
        "time": datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "subject": None if statement is None else statement.subject_name,
        "keys": () if entry.envelope is None else entry.envelope.keyids,
        "predicate": None if statement is None else _pretty(statement.predicate),
        "registry": _pretty(entry.registry),
    }


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, default=dict)
