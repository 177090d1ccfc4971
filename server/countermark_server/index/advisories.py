"""Advisories: what the registry decided about files, in the words of OSV (https://ossf.github.io/osv-schema/).

    {"id":"MAL-2026-CM-31","summary":"demo-1.0-py3-none-any.whl was taken down (malware)",
     "affected":[{"package":{"ecosystem":"PyPI","name":"demo","purl":"pkg:pypi/demo"},"versions":["1.0"]}],
     "database_specific":{"countermark":{"index":31,"origin":"registry.example/main","reason":"malware",
                                         "type":"takedown"}}, ...}

Every hold, takedown and revoked key that withholds a file is one advisory, named after its entry in the log: anybody
can look the decision up where it was made. `MAL-` is said of malware alone. An advisory whose files were cleared
since is `withdrawn`, and no longer told of a version; its address goes on answering. Nothing is kept for this:
advisories are read from the same entries as everything else (standings.py).
"""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, RowMapping, func, select

from countermark.entry import normalise_filename
from countermark.rules import file_key
from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.index.shown import WITHHELD_BY_REGISTRY
from countermark_server.journey import ENDS, State
from countermark_server.ruleview import SqlView
from countermark_server.standings import Standing, standings

ECOSYSTEM = "PyPI"  # names, versions and files are those of Python packages, wherever they are served
SCHEMA_VERSION = "1.7.0"
NAMES_PER_QUERY = 300  # SQLite takes 999 parameters at the least
_ID = re.compile(r"(?:MAL-[0-9]{4}-)?CM-(0|[1-9][0-9]{0,15})")
_SAID = {
    "hold": "is held for review",
    "takedown": "was taken down",
    "key-revoke": "is held: its key was compromised",
}
_TABLE = db.submission
_COLUMNS = [_TABLE.c[name] for name in ("id", "namespace", "project", "version", "served_name", "state")]


class Advisories:
    """Reads the registry's decisions as advisories."""

    def __init__(self, engine: Engine, *, origin: str, base_url: str) -> None:
        self._engine = engine
        self._origin = origin
        self._base_url = base_url

    def of(self, asked: Sequence[tuple[str, str]]) -> list[list[dict[str, Any]]]:
        """The advisories about each (normalised project, version), in the order asked."""
        with db.read(self._engine) as connection:
            rows = _rows(connection, asked)
            found = standings(connection, rows)
            withheld = [(row, found[row["id"]]) for row in rows if _is_withheld(found[row["id"]])]
            entries = _entries(connection, {int(each.entry or 0) for _, each in withheld})
        told = defaultdict[tuple[str, str], dict[str, dict[str, Any]]](dict)
        for row, standing in withheld:
            entry = entries[int(standing.entry or 0)]
            advisory = self._advisory(entry, row["project"], [row], row["served_name"])
            told[row["project"], row["version"]].setdefault(advisory["id"], advisory)
        return [list(told[each].values()) if each in told else [] for each in asked]

    def told(self, project: str, version: str) -> list[dict[str, Any]]:
        """The same, as the JSON document of a project has them (PyPI's `vulnerabilities`)."""
        return [
            {
                "id": each["id"],
                "summary": each["summary"],
                "details": each["details"],
                "aliases": [],
                "fixed_in": [],
                "link": each["references"][0]["url"],
                "source": "countermark",
                "withdrawn": None,
            }
            for each in self.of([(project, version)])[0]
        ]

    def one(self, name: str) -> dict[str, Any]:
        """An advisory by its id, withdrawn ones too. ServerError `not-found`."""
        match = _ID.fullmatch(name)
        with db.read(self._engine) as connection:
            entry = _entries(connection, {int(match[1])}).get(int(match[1])) if match else None
            if entry is None or entry["type"] not in WITHHELD_BY_REGISTRY:
                raise ServerError("not-found", f"there is no advisory {name[:80]!r}")
            statement = _statement(entry)
            project = statement["predicate"]["project"]
            rows = _rows(connection, [(project, None)])
            found = standings(connection, rows)
            affected = [row for row in rows if found[row["id"]].entry == entry["leaf_index"]]
            subject = statement["subject"][0]["name"]
            about = affected or [row for row in rows if row["served_name"] == subject]
            cleared = None if affected else _cleared(connection, project, subject)
        if not about or statement["predicate"]["namespace"]:
            raise ServerError("not-found", f"there is no advisory {name[:80]!r}")
        advisory = self._advisory(entry, project, about, about[0]["served_name"], cleared=cleared)
        if advisory["id"] != name:
            raise ServerError("not-found", f"{name[:80]!r} is called {advisory['id']}")
        return advisory

    def _advisory(
        self,
        entry: RowMapping,
        project: str,
        rows: Iterable[RowMapping],
        filename: str,
        *,
        cleared: int | None = None,
    ) -> dict[str, Any]:
        predicate, index = _statement(entry)["predicate"], entry["leaf_index"]
        reason, kind = predicate["reason"], entry["type"]
        published = _time(entry["created"])
        malware = f"MAL-{published[:4]}-" if reason == "malware" else ""
        said = f"{filename} {_SAID[kind]} ({reason})"
        where = f"{self._base_url}/api/v1/files/{project}/{quote(filename)}"
        help_page = f"{self._base_url}/h/{'file-removed' if kind == 'takedown' else 'file-held'}"
        package = {"ecosystem": ECOSYSTEM, "name": project, "purl": f"pkg:pypi/{project}"}
        advisory = {
            "schema_version": SCHEMA_VERSION,
            "id": f"{malware}CM-{index}",
            "published": published,
            "modified": _time(cleared or entry["created"]),
            "summary": said,
            "details": f"{said} by entry {index} of the log {self._origin}, which names who decided.",
            "affected": [{"package": package, "versions": sorted({row["version"] for row in rows})}],
            "references": [{"type": "ADVISORY", "url": where}, {"type": "WEB", "url": help_page}],
            "database_specific": {
                "countermark": {"origin": self._origin, "index": index, "type": kind, "reason": reason}
            },
        }
        return advisory if cleared is None else {**advisory, "withdrawn": _time(cleared)}


def _is_withheld(standing: Standing) -> bool:
    return standing.entry is not None and standing.cause in WITHHELD_BY_REGISTRY


def _rows(connection: Connection, asked: Sequence[tuple[str, str | None]]) -> list[RowMapping]:
    """Submissions of these releases (None: all of the project's) that may have a standing."""
    wanted, found = sorted(set(asked), key=lambda each: (each[0], each[1] or "")), list[RowMapping]()
    for start in range(0, len(wanted), NAMES_PER_QUERY):
        chunk = set(wanted[start : start + NAMES_PER_QUERY])
        query = select(*_COLUMNS).where(
            _TABLE.c.namespace == "",
            _TABLE.c.project.in_(sorted({project for project, _ in chunk})),
            _TABLE.c.leaf_index.is_not(None),
        )
        versions = {version for _, version in chunk}
        if None not in versions:  # else a stranger's request costs every file of so many projects
            query = query.where(_TABLE.c.version.in_(sorted(each for each in versions if each is not None)))
        rows = connection.execute(query.order_by(_TABLE.c.id)).mappings()
        found += [
            row
            for row in rows
            if row["state"] in (*ENDS, State.HELD)
            and not chunk.isdisjoint({(row["project"], row["version"]), (row["project"], None)})
        ]
    return found


def _entries(connection: Connection, indexes: Iterable[int]) -> dict[int, RowMapping]:
    """The proposals with these places in the log."""
    table, wanted = db.proposal, sorted(indexes)
    found = dict[int, RowMapping]()
    for start in range(0, len(wanted), NAMES_PER_QUERY):
        query = select(table.c.leaf_index, table.c.type, table.c.envelope, table.c.created).where(
            table.c.leaf_index.in_(wanted[start : start + NAMES_PER_QUERY]), table.c.envelope.is_not(None)
        )
        found |= {row["leaf_index"]: row for row in connection.execute(query).mappings()}
    return found


def _cleared(connection: Connection, project: str, filename: str) -> int | None:
    """When somebody cleared this file last, in UTC seconds."""
    file = SqlView(connection, db.rules_state).get(file_key("", project, normalise_filename(filename)))
    if file is None or file["cleared"] is None:
        return None
    query = select(func.max(db.proposal.c.created)).where(db.proposal.c.leaf_index == file["cleared"])
    return connection.execute(query).scalar()


def _statement(entry: RowMapping) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(entry["envelope"])["payload"]))
    return found


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
