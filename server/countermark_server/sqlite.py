"""SQLite, as the registry opens it: what a connection promises, and whose turn it is to write.

    sqlite:///registry.sqlite

* **Durable.** WAL mode with `synchronous=FULL`: a commit that returned survives a power loss.
* **Reading** is one snapshot, beside whoever writes.
* **Writing** is immediate: the write lock is taken at the beginning, so that a reader that later writes can never be
  refused halfway.
* **One writes at a time.** Threads of a process take turns here; processes ask again every millisecond (SQLite's own
  pauses grow to 100 ms, in which a busy door would starve the log).

What PostgreSQL does instead: postgresql.py.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

BUSY_SECONDS = 30.0  # for the write lock; then the transaction fails, having changed nothing
BUSY_PAUSE = 0.001  # seconds between two tries
WRITES: dict[str, Any] = {"countermark_write": True}
_BUSY = f"busy_timeout={int(BUSY_SECONDS * 1000)}"
# Writers of this process take turns, engine by engine; values hold nothing of their keys.
_TURNS: weakref.WeakKeyDictionary[Engine, threading.Lock] = weakref.WeakKeyDictionary()


def open_engine(url: str, *, pool_size: int) -> Engine:
    """The engine for a file, or for a database in memory."""
    in_memory = url in ("sqlite://", "sqlite:///:memory:")
    pool: dict[str, Any] = {} if in_memory else {"pool_size": pool_size, "pool_use_lifo": True}
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **pool)
    _TURNS[engine] = threading.Lock()

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", _BUSY):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        raw: Any = connection.connection.dbapi_connection
        if not connection.get_execution_options().get("countermark_write", False):
            raw.execute("BEGIN")
            return
        try:
            _begin_immediate(raw)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
                # SQLite opens for reading what it could not open for writing (one EIO is enough), and says
                # so only now. Such a connection would fail for as long as the pool keeps it.
                connection.invalidate(error)
            raise

    return engine


def _begin_immediate(raw: Any) -> None:
    """Take SQLite's write lock, or fail as SQLAlchemy's own statements do."""
    deadline = time.monotonic() + BUSY_SECONDS
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= deadline:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
            time.sleep(BUSY_PAUSE)
    finally:
        raw.execute(f"PRAGMA {_BUSY}")


def turn(engine: Engine) -> AbstractContextManager[Any]:
    """This thread's turn to write, for the length of a block; at once on an engine of another kind."""
    return _TURNS.get(engine) or nullcontext()
