"""News: whether anybody has committed, and small questions, for whoever asks very often.

    news = News(engine)
    if news.any(): ...             # look now: somebody may have committed since the last call
    news.first("SELECT ...")       # without the cost of a transaction
    news.close()

It keeps one connection of its own, and gives it back when the server goes away; the next call takes another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from countermark_server import postgresql
from countermark_server.db import read

T = TypeVar("T")


class News:
    """Whether anybody has committed since we looked last: a question cheap enough to ask every millisecond.

    SQLite answers it in microseconds (`PRAGMA data_version`, on a connection that never writes), PostgreSQL in
    one question (which transactions are visible); a database in memory always says yes, and the caller looks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._postgresql = engine.dialect.name == "postgresql"
        self._asks = self._postgresql or engine.url.database not in (None, ":memory:")
        self._version: int | str | None = None
        self._connection: Any = None

    def any(self) -> bool:
        """True when there may be something new; what was committed before this call is visible after it."""
        if not self._asks:
            return True
        try:
            version = self._ask()
        except (SQLAlchemyError, sqlite3.Error):
            self.close()  # the server went away, or the disk did; the caller looks, and hears of it
            return True
        changed, self._version = version != self._version, version
        return changed

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question of one statement, whose view is its own: without the cost of a transaction."""
        if self._postgresql:
            try:
                self._connection = self._connection or postgresql.watch(self._engine)
                return question(self._connection)
            except SQLAlchemyError:
                self.close()  # the server went away, perhaps for a moment: ask once more, on another connection
        with read(self._engine) as connection:
            return question(connection)

    def first(self, question: str) -> Any:
        """The first row of an answer, or None, to a question that both databases understand: often asked."""
        if self._postgresql:
            try:
                self._connection = self._connection or postgresql.watch(self._engine)
                return postgresql.first(self._connection, question)
            except SQLAlchemyError:
                self.close()
        with read(self._engine) as connection:
            return connection.exec_driver_sql(question).first()

    @property
    def cheap(self) -> bool:
        """Whether `any` costs less than a question that looks for itself."""
        return not self._postgresql

    def _ask(self) -> int | str:
        if self._postgresql:
            if self._connection is None:
                self._connection = postgresql.watch(self._engine)
            return postgresql.snapshot(self._connection)
        if self._connection is None:
            self._connection = self._engine.raw_connection()
        cursor = self._connection.cursor()
        try:
            version: int = cursor.execute("PRAGMA data_version").fetchone()[0]
        finally:
            cursor.close()
        return version

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection, self._version = None, None
