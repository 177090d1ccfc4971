"""The timestamper's memory: one SQLite file, nobody else's.

    state   the rules' state after the first `applied` entries, by key
    target  every target the log demands, by path, with its bin
    bin     version, SHA-256 and targets root of each bin as last signed for
    signed  every timestamp it ever signed or adopted: version, SHA-256, bytes (none, where only the fence speaks of
            it), and whether the log holds its digest
    fact    single values: the root, the last checkpoint carried, logged digests of offline metadata

`transaction` is all or nothing, and what it committed survives a power loss (`synchronous=FULL`): a version
number can't be signed twice, and nothing that was accepted can be forgotten by pulling a plug. Whoever can write
this file can make the timestamper forget; it belongs on a disk only its own account can write.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

from countermark.bins import BinLeaf, bin_number
from countermark.rules import Key, State
from countermark_server import jsontext

# Of any number of keys, or of bins: one parameter, a JSON array.
_STATES = "SELECT key, value FROM state WHERE key IN (SELECT value FROM json_each(?))"
_TARGETS = "SELECT bin, path, value FROM target WHERE bin IN (SELECT value FROM json_each(?)) ORDER BY path"
_TABLES = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS target (path TEXT PRIMARY KEY, bin INTEGER NOT NULL, value TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS target_bin ON target (bin);
CREATE TABLE IF NOT EXISTS bin (number INTEGER PRIMARY KEY, leaf BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS signed (
    version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, raw BLOB NOT NULL, logged INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class SignedTimestamp:
    """A timestamp this key has signed."""

    version: int
    sha256: str
    raw: bytes


class Store:
    """The database. One thread uses it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside, durably, or nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # Also after a COMMIT that failed: what is not durable must not be read, nor be in the next one's way.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def get(self, key: Key, /) -> State | None:
        """The rules' state of a key, after the entries applied."""
        row = self._one("SELECT value FROM state WHERE key = ?", _name(key))
        return None if row is None else jsontext.decode(row[0])

    def get_all(self, keys: Iterable[Key]) -> dict[Key, State | None]:
        """The same of many keys."""
        asked = {_name(key): key for key in keys}
        found: dict[Key, State | None] = dict.fromkeys(asked.values())
        rows = self._connection.execute(_STATES, (json.dumps(list(asked)),))
        found.update((asked[name], jsontext.decode(text)) for name, text in rows)
        return found

    def put_all(self, writes: Mapping[Key, State | None]) -> None:
        """Write what a replay left; None removes."""
        gone = [(_name(key),) for key, value in writes.items() if value is None]
        rows = [(_name(key), jsontext.encode(value)) for key, value in writes.items() if value is not None]
        self._connection.executemany("DELETE FROM state WHERE key = ?", gone)
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)

    def fact(self, name: str) -> Any:
        """A single value, None when it was never set."""
        row = self._one("SELECT value FROM fact WHERE name = ?", name)
        return None if row is None else json.loads(row[0])

    def set_fact(self, name: str, value: Any) -> None:
        """Set a single value."""
        self._connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))

    def targets(self, numbers: Collection[int]) -> dict[int, dict[str, dict[str, Any]]]:
        """Every target the log demands in these bins, in order of path."""
        found = dict[int, dict[str, dict[str, Any]]]()
        for number, path, text in self._connection.execute(_TARGETS, (json.dumps(list(numbers)),)):
            found.setdefault(number, {})[path] = jsontext.decode(text)
        return found

    def put_targets(self, bins: Mapping[int, Mapping[str, Mapping[str, Any] | None]]) -> None:
        """Demand these targets of these bins, or (None) their absence."""
        demanded = [
            (path, number, target) for number, targets in bins.items() for path, target in targets.items()
        ]
        gone = [(path,) for path, _, target in demanded if target is None]
        rows = [
            (path, number, jsontext.encode(target)) for path, number, target in demanded if target is not None
        ]
        self._connection.executemany("DELETE FROM target WHERE path = ?", gone)
        self._connection.executemany("INSERT OR REPLACE INTO target VALUES (?, ?, ?)", rows)

    def bins(self) -> dict[int, BinLeaf]:
        """Every bin as last signed for."""
        rows = self._connection.execute("SELECT number, leaf FROM bin ORDER BY number")
        return {number: BinLeaf.parse(bytes(leaf)) for number, leaf in rows}

    def put_bins(self, leaves: Mapping[int, BinLeaf]) -> None:
        """Remember these bins."""
        rows = [(number, leaf.format()) for number, leaf in leaves.items()]
        self._connection.executemany("INSERT OR REPLACE INTO bin VALUES (?, ?)", rows)

    def rebin(self, bit_length: int) -> None:
        """More bins: each target moves to its new one, and no bin is known."""
        self._connection.execute("DELETE FROM bin")
        paths = [path for (path,) in self._connection.execute("SELECT path FROM target")]
        rows = ((bin_number(path, bit_length), path) for path in paths)
        self._connection.executemany("UPDATE target SET bin = ? WHERE path = ?", rows)

    def newest(self) -> SignedTimestamp | None:
        """The newest timestamp signed or adopted."""
        row = self._one(
            "SELECT version, sha256, raw FROM signed WHERE length(raw) > 0 ORDER BY version DESC LIMIT 1"
        )
        return None if row is None else SignedTimestamp(row[0], row[1], bytes(row[2]))

    def add_signed(self, timestamp: SignedTimestamp) -> None:
        """Remember a timestamp; IntegrityError when its version was signed before."""
        row = (timestamp.version, timestamp.sha256, timestamp.raw)
        self._connection.execute("INSERT INTO signed VALUES (?, ?, ?, 0)", row)

    def signed(self, version: int) -> SignedTimestamp | None:
        """The timestamp of this version, where one is known; without bytes where it was only spoken of."""
        row = self._one("SELECT version, sha256, raw FROM signed WHERE version = ?", version)
        return None if row is None else SignedTimestamp(row[0], row[1], bytes(row[2]))

    def add_bytes(self, timestamp: SignedTimestamp) -> None:
        """What was only spoken of was seen."""
        row = (timestamp.raw, timestamp.version, timestamp.sha256)
        self._connection.execute("UPDATE signed SET raw = ? WHERE version = ? AND sha256 = ?", row)

    def add_owed(self, version: int, sha256: str) -> None:
        """Remember a timestamp that another one signed and we never saw, to have it logged; a known one stays."""
        self._connection.execute("INSERT OR IGNORE INTO signed VALUES (?, ?, x'', 0)", (version, sha256))

    def unlogged(self) -> list[str]:
        """Digests of timestamps the log does not hold yet, oldest first."""
        return [sha256 for _, sha256 in self.owed()]

    def owed(self) -> list[tuple[int, str]]:
        """Version and digest of each of them."""
        rows = self._connection.execute(
            "SELECT version, sha256 FROM signed WHERE logged = 0 ORDER BY version"
        )
        return [(row[0], row[1]) for row in rows]

    def mark_logged(self, digests: set[str]) -> None:
        """The log holds these digests."""
        for digest in digests:
            self._connection.execute("UPDATE signed SET logged = 1 WHERE sha256 = ?", (digest,))

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row


def _name(key: Key) -> str:
    """A key as the table spells it: `json.dumps` of its parts. Part by part, since only strings have a quick way."""
    return f"[{', '.join(map(encode_basestring_ascii, key))}]"
