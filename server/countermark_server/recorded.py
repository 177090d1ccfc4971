"""Recorded: files that the log knows by an import. Read from the rules' state, where alone all of them stand.

    file(connection, "old", "old-1.0.tar.gz")   -> the rules' state of it, or None: it was no import's
    files_of(connection, "old")                 -> all of a project, in the order of the log
    seen(file)                                  -> "imported by entry 9, not signed; first seen by the log at ..."

Nobody uploaded or signed such a file, and nobody here has its bytes before somebody brings them (upload/bring.py).
From then on a submission travels beside it, with `import_index` set; `shown` says the same of that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from countermark.rules import State, file_key, project_key
from countermark_server import db, jsontext
from countermark_server.ruleview import SqlView, encode_key


def file(connection: Connection, project: str, filename: str) -> State | None:
    """What the rules know of this file, if an import made it. Any spelling of the file's name."""
    found = SqlView(connection, db.rules_state).get(file_key("", project, filename))
    return found if found is not None and "import" in found else None


def files_of(connection: Connection, project: str) -> list[State]:
    """The imported files of a (normalised) project, in the order of the log."""
    first = encode_key(("file", "", project, ""))[:-2]  # ends where the file name begins: ..."old","
    table = db.rules_state
    between = (table.c.key >= first, table.c.key < first[:-1] + chr(ord(first[-1]) + 1))
    rows = connection.execute(select(table.c.value).where(*between)).scalars()
    found = [state for state in map(jsontext.decode, rows) if "import" in state]
    return sorted(found, key=lambda state: int(state["index"]))


def knows_project(connection: Connection, project: str) -> bool:
    """Whether the log knows a project of this (normalised) name, whoever brought it in."""
    return SqlView(connection, db.rules_state).get(project_key("", project)) is not None


def seen(file: State) -> str:
    """Where an imported file comes from, in words; never that somebody uploaded it."""
    return _words(file["import"], file["time"])


def shown(row: RowMapping | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Words and members of an answer that say of a submission that an import made it; both empty where none did."""
    if row["import_index"] is None:
        return "", {}
    members = {"import": row["import_index"], "first_seen": row["uploaded"]}
    return _words(row["import_index"], row["uploaded"]) + "; ", members


def _words(index: int, time: int) -> str:
    when = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"imported by entry {index}, not signed; first seen by the log at {when}"
