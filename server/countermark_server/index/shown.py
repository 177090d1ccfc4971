"""What a project shows: its files that may be chosen, and its status (PEP 792) where none may be.

    shown(engine, "demo")  ->  Shown(serial=1763800000003, files=[(row, standing)], status="active", reason=None)

A project of which every file is withheld by the registry is `quarantined`: an empty page with the reason, and never a
404, since uv would go on to the next index. One whose owners removed everything is an empty page that is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version
from sqlalchemy import Connection, Engine, bindparam, select

from countermark_server import attested, db, quick, recorded, serials
from countermark_server.errors import ServerError
from countermark_server.journey import ENDS, State
from countermark_server.standings import Row, Standing, standings, state_of

ACTIVE, QUARANTINED = "active", "quarantined"
WITHHELD_BY_REGISTRY = ("hold", "key-revoke", "takedown")
# What is uploaded beside files is read one by one (provenance.py): 5,000 files can bring 50 MB of it. The rest of
# these is the stations' own.
_NOT_SHOWN = ("attestations", "uploader", "state_since", "lease_until", "attempts")
_TABLE = db.submission
_LOGGED = (
    select(
        *[column for column in _TABLE.c if column.name not in _NOT_SHOWN],
        attested.shown.label("has_provenance"),
    )
    .where(_TABLE.c.namespace == "", _TABLE.c.project == bindparam("p"), _TABLE.c.leaf_index.is_not(None))
    .order_by(_TABLE.c.id)
)


@dataclass(frozen=True)
class Shown:
    """One project as its readers see it at one moment."""

    name: str
    serial: int
    files: list[tuple[Row, Standing]]  # that may be chosen, in the order of the log
    status: str
    reason: str | None

    @property
    def versions(self) -> list[str]:
        """Those with a file, the oldest first."""
        # In the order of the log, which is almost theirs: what is nearly sorted is sorted with few comparisons.
        return sorted(dict.fromkeys(row["version"] for row, _ in self.files), key=order)

    @property
    def project_status(self) -> dict[str, str]:
        """PEP 792's member of a page."""
        return {"status": self.status} | ({"reason": self.reason} if self.reason else {})


def shown(engine: Engine, project: str) -> Shown:
    """What a (normalised) project shows now. ServerError `not-found`: the log knows no such project."""
    with db.read(engine) as connection:
        serial = serials.of(connection, project)
        rows = logged_rows(connection, project)
        found = standings(connection, [row for row in rows if row["state"] in (*ENDS, State.HELD)])
        if not rows and not recorded.knows_project(connection, project):
            raise ServerError("not-found", f"no project {project!r} here")
    ended = [(row, found[row["id"]]) for row in rows if row["state"] in ENDS]
    files = [(row, each) for row, each in ended if state_of(row, each) is State.LISTED and each.served]
    reason = None if files else _withheld(rows, found)
    return Shown(project, serial, files, QUARANTINED if reason else ACTIVE, reason)


def serial_of(engine: Engine, project: str) -> int:
    """At which serial the project's page is."""
    with db.read(engine) as connection:
        return serials.of(connection, project)


def logged_rows(connection: Connection, project: str) -> Sequence[Row]:
    """The submissions of a project that the log has, in its order; without what was uploaded beside them."""
    return quick.mappings(connection, _LOGGED, {"p": project})


def order(version: str) -> tuple[bool, Any]:
    """Sorts versions as PEP 440 does; what is none comes first."""
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


def _withheld(rows: Sequence[Row], found: dict[int, Standing]) -> str | None:
    """Why the registry shows none of these files, by the newest of them; None where it withholds none."""
    for row in reversed(rows):
        standing = found.get(row["id"])
        if standing is None:
            continue
        if standing.cause in WITHHELD_BY_REGISTRY:
            return f"{row['served_name']} is {standing.name}{standing.by}"
        if row["state"] == State.HELD:
            return f"{row['served_name']} is held for review"
    return None
