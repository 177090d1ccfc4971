"""An auditor's memory of one log: a SQLite file that always stands at one position of the log.

    fact       single values: the head at the last position, versions of the last snapshot
    state      the rules' state after `position` entries, by key
    target     the listing after `listed_at` entries: every target the log demands, by path
    pending    what entries behind `listed_at` make of a target, until TUF says that it applied them
    tuf        the `tuf` entries; logged: digests of timestamps in them; seen: timestamps this auditor saw
    file       metadata digest of every published file, and the entry that touched it last
    status     entries that withdraw, yank or clear, until applied
    blob       blobs that entries name, until they were seen open
    manifest   what each import binds: its manifest's digest, the chain's first link, the count; until compared
    bin        each bin as last audited
    finding    what was found in entries, and whether a report has told it

Entries advance the position and everything that follows from them in one transaction, so a run that is
killed goes on behind the last one committed, and a finding that no report has told yet is still told by the
next. The position passes every authentic entry, whatever is wrong with it: a bad entry is found once, and
never blocks the way.

The file is trusted: who can change it decides what this auditor believes to have seen. Deleting it, or
`--from-start`, replays everything.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from countermark.audit_report import Finding
from countermark.bins import BinLeaf
from countermark.rules import LOG, Key, State

CACHE_MAX = 200_000  # states kept in memory between two commits; some 200 MB at most

_TABLES = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS target (path TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (number INTEGER PRIMARY KEY, entry INTEGER NOT NULL, path TEXT NOT NULL,
    value TEXT);
CREATE TABLE IF NOT EXISTS tuf (entry INTEGER PRIMARY KEY, predicate TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS logged (sha256 TEXT PRIMARY KEY, entry INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, tuf INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS file (path TEXT PRIMARY KEY, metadata TEXT NOT NULL, touched INTEGER NOT NULL,
    checked INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS status (entry INTEGER PRIMARY KEY, type TEXT NOT NULL, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blob (sha256 TEXT PRIMARY KEY, entry INTEGER NOT NULL, time INTEGER NOT NULL,
    opened INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifest (entry INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, chain TEXT NOT NULL,
    count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bin (number INTEGER PRIMARY KEY, leaf BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS finding (number INTEGER PRIMARY KEY, told INTEGER NOT NULL, document TEXT NOT NULL);
"""
Target = dict[str, Any]


class AuditState:
    """The database, and the rules' view over it (`get`, `put`). One thread uses it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.executescript(_TABLES)
        self._cache: dict[Key, State | None] = {}
        self._dirty: set[Key] = set()

    def close(self) -> None:
        self._connection.close()

    # --- the rules' view ----------------------------------------------------------------------------------
    def get(self, key: Key, /) -> State | None:
        if key not in self._cache:
            row = self._one("SELECT value FROM state WHERE key = ?", _key(key))
            self._cache[key] = None if row is None else json.loads(row[0])
        return self._cache[key]

    def put(self, key: Key, value: State | None, /) -> None:
        self._cache[key] = value
        self._dirty.add(key)

    @property
    def position(self) -> int:
        """How many entries were replayed."""
        log = self.get(LOG)
        return 0 if log is None else int(log["size"])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is kept, or nothing of it; the view forgets what was not kept."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._write_view()
            self._connection.execute("COMMIT")
        except BaseException:
            self._cache.clear()
            self._dirty.clear()
            self._connection.execute("ROLLBACK")
            raise
        if len(self._cache) > CACHE_MAX:
            self._cache.clear()

    def _write_view(self) -> None:
        for key in self._dirty:
            value = self._cache[key]
            if value is None:
                self._run("DELETE FROM state WHERE key = ?", _key(key))
            else:
                self._run("INSERT OR REPLACE INTO state VALUES (?, ?)", _key(key), json.dumps(value))
        self._dirty.clear()

    # --- facts and findings -------------------------------------------------------------------------------
    def fact(self, name: str) -> Any:
        row = self._one("SELECT value FROM fact WHERE name = ?", name)
        return None if row is None else json.loads(row[0])

    def set_fact(self, name: str, value: Any) -> None:
        self._run("INSERT OR REPLACE INTO fact VALUES (?, ?)", name, json.dumps(value))

    def add_finding(self, found: Finding) -> None:
        self._run("INSERT INTO finding (told, document) VALUES (0, ?)", json.dumps(found.to_json()))

    def findings(self, *, told: bool) -> tuple[Finding, ...]:
        """Findings about entries that a report has told, or has not told yet."""
        rows = self._all("SELECT document FROM finding WHERE told = ? ORDER BY number", told)
        return tuple(Finding.from_json(json.loads(row[0])) for row in rows)

    def tell(self) -> None:
        """A report is about to tell everything."""
        self._run("UPDATE finding SET told = 1")

    # --- what entries leave behind ------------------------------------------------------------------------
    def add_pending(self, entry: int, path: str, target: Target | None) -> None:
        value = None if target is None else json.dumps(target)
        self._run("INSERT INTO pending (entry, path, value) VALUES (?, ?, ?)", entry, path, value)

    def add_file(self, path: str, metadata: str, time: int) -> None:
        self._run(
            "INSERT OR IGNORE INTO file (path, metadata, touched) VALUES (?, ?, ?)", path, metadata, time
        )

    def touch_file(self, path: str, time: int) -> None:
        self._run("UPDATE file SET touched = ? WHERE path = ?", time, path)

    def add_tuf(self, entry: int, predicate: Mapping[str, Any]) -> None:
        self._run("INSERT OR REPLACE INTO tuf VALUES (?, ?)", entry, json.dumps(dict(predicate)))
        for digest in predicate["timestamps"]:
            self._run("INSERT OR IGNORE INTO logged VALUES (?, ?)", digest, entry)

    def add_status(self, entry: int, kind: str, time: int) -> None:
        self._run("INSERT OR REPLACE INTO status VALUES (?, ?, ?)", entry, kind, time)

    def add_blob(self, sha256: str, entry: int, time: int) -> None:
        self._run("INSERT OR IGNORE INTO blob (sha256, entry, time) VALUES (?, ?, ?)", sha256, entry, time)

    def add_manifest(self, entry: int, sha256: str, chain: str, count: int) -> None:
        self._run("INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?)", entry, sha256, chain, count)

    # --- the listing --------------------------------------------------------------------------------------
    def list_at(self, applied: int) -> bool:
        """Bring the listing to `applied` entries; False when it is beyond that already."""
        if (self.fact("listed_at") or 0) > applied:
            return False
        for path, value in self._all(
            "SELECT path, value FROM pending WHERE entry < ? ORDER BY number", applied
        ):
            if value is None:
                self._run("DELETE FROM target WHERE path = ?", path)
            else:
                self._run("INSERT OR REPLACE INTO target VALUES (?, ?)", path, value)
        self._run("DELETE FROM pending WHERE entry < ?", applied)
        self._run("DELETE FROM status WHERE entry < ?", applied)
        self.set_fact("listed_at", applied)
        return True

    def projects(self) -> list[str]:
        """Every project of the default namespace with a published file."""
        names = {path.split("/")[1] for (path,) in self._all("SELECT path FROM file")}
        return sorted(name for name in names if "." not in name)  # a dot ends a namespace

    def targets_of(self, project: str) -> dict[str, Target]:
        """A project's part of the listing after `listed_at` entries, by file name."""
        return self._of(project, "SELECT path, value FROM target WHERE path > ? AND path < ?")

    def newest_of(self, project: str) -> dict[str, Target | None]:
        """What entries behind `listed_at` make of a project's targets; None: not to be listed."""
        query = "SELECT path, value FROM pending WHERE path > ? AND path < ? ORDER BY number"
        return self._of(project, query)

    def _of(self, project: str, query: str) -> dict[str, Any]:
        first = f"files/{project}/"
        rows = self._all(query, first, f"files/{project}0")  # "0" is the character behind "/"
        return {path[len(first) :]: None if value is None else json.loads(value) for path, value in rows}

    def targets(self) -> Iterator[tuple[str, Target]]:
        """The listing after `listed_at` entries, in path order."""
        for path, value in self._all("SELECT path, value FROM target ORDER BY path"):
            yield path, json.loads(value)

    def file(self, path: str) -> tuple[str, int] | None:
        """The metadata digest of a published file, and when an entry touched it last."""
        row = self._one("SELECT metadata, touched FROM file WHERE path = ?", path)
        return None if row is None else (str(row[0]), int(row[1]))

    def is_checked(self, path: str) -> bool:
        """Whether the file's served metadata was read before."""
        row = self._one("SELECT checked FROM file WHERE path = ?", path)
        return row is not None and bool(row[0])

    def check_file(self, path: str) -> None:
        self._run("UPDATE file SET checked = 1 WHERE path = ?", path)

    # --- TUF ----------------------------------------------------------------------------------------------
    def tuf_entries(self, start: int, end: int) -> list[tuple[int, dict[str, Any]]]:
        """The `tuf` entries with an index from `start` up to but not including `end`."""
        rows = self._all(
            "SELECT entry, predicate FROM tuf WHERE entry >= ? AND entry < ? ORDER BY entry", start, end
        )
        return [(int(entry), json.loads(predicate)) for entry, predicate in rows]

    def see_timestamp(self, version: int, sha256: str, tuf: int) -> None:
        """This auditor saw a timestamp, made for the `tuf` entry at that index."""
        self._run("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", version, sha256, tuf)

    def unlogged(self, before: int, size: int) -> list[tuple[int, str]]:
        """Timestamps seen for `tuf` entries before that index which none of the first `size` entries logs."""
        query = (
            "SELECT version, sha256 FROM seen WHERE tuf < ? AND sha256 NOT IN"
            " (SELECT sha256 FROM logged WHERE entry < ?) ORDER BY version"
        )
        return [(int(version), str(sha256)) for version, sha256 in self._all(query, before, size)]

    def statuses(self) -> list[tuple[int, str, int]]:
        """Status entries that are not applied: index, type, time."""
        return [
            (int(entry), str(kind), int(time))
            for entry, kind, time in self._all("SELECT entry, type, time FROM status ORDER BY entry")
        ]

    def bins(self) -> dict[int, BinLeaf]:
        return {
            int(number): BinLeaf.parse(leaf) for number, leaf in self._all("SELECT number, leaf FROM bin")
        }

    def put_bin(self, number: int, leaf: BinLeaf) -> None:
        self._run("INSERT OR REPLACE INTO bin VALUES (?, ?)", number, leaf.format())

    # --- blobs --------------------------------------------------------------------------------------------
    def closed_blobs(self, before: int) -> list[tuple[str, int, int]]:
        """Blobs named before that time and not seen open yet: digest, entry, time."""
        return [
            (str(sha256), int(entry), int(time))
            for sha256, entry, time in self._all(
                "SELECT sha256, entry, time FROM blob WHERE opened = 0 AND time < ? ORDER BY entry", before
            )
        ]

    def open_blob(self, sha256: str) -> None:
        self._run("UPDATE blob SET opened = 1 WHERE sha256 = ?", sha256)

    def manifests(self) -> list[tuple[int, str, str, int]]:
        """Imports whose manifest was not compared yet: entry, the manifest's digest, first link, count."""
        query = "SELECT entry, sha256, chain, count FROM manifest ORDER BY entry"
        return [
            (int(entry), str(sha256), str(chain), int(count))
            for entry, sha256, chain, count in self._all(query)
        ]

    def compare_manifest(self, entry: int, sha256: str) -> None:
        """The manifest was read, and is the one that the import binds."""
        self._run("DELETE FROM manifest WHERE entry = ?", entry)
        self.open_blob(sha256)

    def _run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def _one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(statement, values))


def _key(key: Key) -> str:
    return json.dumps(key)
