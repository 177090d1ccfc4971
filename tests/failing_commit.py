"""A SQLite connection whose next COMMIT fails and leaves its transaction open, as SQLite's may (SQLITE_BUSY)."""

from __future__ import annotations

import sqlite3
from typing import Any


class FailingCommit:
    """Put it in the place of a store's connection."""

    def __init__(self, connection: sqlite3.Connection, *, passing: int = 0) -> None:
        self.connection, self.passing, self.failures = connection, passing, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.passing:
            self.passing -= 1
        elif statement == "COMMIT" and self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError("database is locked")
        return self.connection.execute(statement, *values)
