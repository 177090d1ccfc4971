"""The witness's memory: for each origin its keys and the checkpoint cosigned last, in one SQLite file.

Two promises. `advance` is a compare-and-swap on the row it was decided about, so two requests can't both
win from the same old size. `synchronous=FULL` with a write-ahead log: when `advance` returned True, the row
survives a power cut, and only then may the cosignature leave.

Load is not create: a missing file is an error, because an empty memory would sign anything once.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from countermark.errors import UsageError
from countermark.tlog.merkle import EMPTY_ROOT
from countermark.tlog.note import VerifierKey
from countermark.values import dataclass

EVIDENCE_MAX = 1000  # requests kept of each kind; a log that rewrites itself so often has been noticed

SCHEMA = """
CREATE TABLE log (
    origin TEXT PRIMARY KEY, vkeys TEXT NOT NULL,
    size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL
) STRICT;
CREATE TABLE evidence (
    sha256 TEXT PRIMARY KEY, origin TEXT NOT NULL, reason TEXT NOT NULL, time INTEGER NOT NULL,
    request BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class WitnessedLog:
    """A log this witness knows, and where it stands. `note` is empty until the first cosignature."""

    origin: str
    keys: tuple[VerifierKey, ...]
    size: int
    root: bytes
    note: bytes


class WitnessStore:
    """The SQLite file; one connection, used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @classmethod
    def create(cls, path: Path) -> WitnessStore:
        if path.exists():
            raise UsageError(f'"{path}" already exists')
        store = cls(_connect(path))
        store._connection.executescript(SCHEMA)
        return store

    @classmethod
    def load(cls, path: Path) -> WitnessStore:
        if not path.is_file():
            raise UsageError(
                f'no witness state at "{path}"', hint="a lost state is not replaced by an empty one"
            )
        return cls(_connect(path))

    def add_log(self, keys: Sequence[VerifierKey]) -> WitnessedLog:
        """Start (or go on) witnessing the log these keys belong to; all keys name one origin."""
        origins = {key.name for key in keys}
        if len(origins) != 1:
            raise UsageError(f"keys of one log name one origin, these name {', '.join(sorted(origins))}")
        origin = origins.pop()
        vkeys = "\n".join(sorted({key.format() for key in keys}))
        known = self.log(origin)
        with self._transaction() as connection:
            if known is None:
                connection.execute("INSERT INTO log VALUES (?, ?, 0, ?, x'')", (origin, vkeys, EMPTY_ROOT))
            else:
                connection.execute("UPDATE log SET vkeys = ? WHERE origin = ?", (vkeys, origin))
        return WitnessedLog(
            origin,
            tuple(VerifierKey.parse(vkey) for vkey in vkeys.split("\n")),
            known.size if known else 0,
            known.root if known else EMPTY_ROOT,
            known.note if known else b"",
        )

    def log(self, origin: str) -> WitnessedLog | None:
        with self._lock:
            row = self._connection.execute("SELECT * FROM log WHERE origin = ?", (origin,)).fetchone()
        return _log(row) if row else None

    def logs(self) -> list[WitnessedLog]:
        with self._lock:
            return [_log(row) for row in self._connection.execute("SELECT * FROM log ORDER BY origin")]

    def advance(self, log: WitnessedLog, *, size: int, root: bytes, note: bytes) -> bool:
        """Move from exactly `log` to the new head; False when the row moved on; OSError on a failure."""
        try:
            with self._transaction() as connection:
                cursor = connection.execute(
                    "UPDATE log SET size = ?, root = ?, note = ? WHERE origin = ? AND size = ? AND root = ?",
                    (size, root, note, log.origin, log.size, log.root),
                )
                return cursor.rowcount == 1
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def keep_evidence(
        self, origin: str, request: bytes, reason: str, time: int, *, about: str, proving: bool
    ) -> None:
        """Keep the bytes of a request that shows a log rewriting itself, one for each checkpoint it is `about`.

        Not `proving`: only the checkpoint is the log's, and the proof that fails may be anybody's. However many
        of those there are, there is room for as many that prove.
        """
        if self.evidence_count() >= (2 * EVIDENCE_MAX if proving else EVIDENCE_MAX):
            return
        row = (hashlib.sha256(about.encode()).hexdigest(), origin, reason, time, request)
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)", row)

    def evidence_count(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM evidence").fetchone()[0])

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Also after a COMMIT that failed: what is not durable must not be seen through this connection.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def _log(row: Sequence[object]) -> WitnessedLog:
    origin, vkeys, size, root, note = row
    assert isinstance(vkeys, str) and isinstance(size, int) and isinstance(root, bytes)
    assert isinstance(note, bytes)
    return WitnessedLog(str(origin), tuple(map(VerifierKey.parse, vkeys.split("\n"))), size, root, note)
