"""The database: the one engine of a process, its transactions, and its tables.

The database answers "where is it?". Nothing a verifier believes depends on it: the log's tree is rebuilt from
entry bundles, and the public part of these tables from the log. What only a backup holds: accounts, tokens,
proposals not sequenced yet, statements that wait for their file, the queue, and what was spent of allowances.

SQLite and PostgreSQL run the same code; `sqlite.py` and `postgresql.py` say what each promises. On either a commit
that returned survives a power loss, `read()` is one snapshot, and a `write()` that waits too long fails, having
changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, text

# Whoever asks `metadata` for the tables finds all of them: those of modules of their own, too.
from countermark_server import attested, orgtables, postgresql, serials, sqlite  # noqa: F401
from countermark_server.tables import (
    account,
    closing,
    head,
    identity,
    job_token,
    logged_elsewhere,
    login_code,
    metadata,
    project_name,
    proposal,
    rules_state,
    sign_in,
    spending,
    statement_ahead,
    submission,
    token,
    token_use,
    tuf_candidate,
    tuf_version,
    tufrepo_state,
    verdict,
)

__all__ = [
    "POOL_SIZE",
    "account",
    "closing",
    "head",
    "identity",
    "inserted_id",
    "job_token",
    "logged_elsewhere",
    "login_code",
    "metadata",
    "open_engine",
    "ping",
    "project_name",
    "proposal",
    "read",
    "reads_beside_writers",
    "rules_state",
    "sign_in",
    "spending",
    "statement_ahead",
    "submission",
    "token",
    "token_use",
    "tuf_candidate",
    "tuf_version",
    "tufrepo_state",
    "verdict",
    "write",
]

POOL_SIZE = 64  # connections kept open: more than any process has threads, none is opened per request


def open_engine(url: str) -> Engine:
    """The engine of this process for `sqlite:///path` or `postgresql+psycopg://...`."""
    opened = sqlite.open_engine if url.startswith("sqlite") else postgresql.open_engine
    return opened(url, pool_size=POOL_SIZE)


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A read transaction: one consistent view."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(**postgresql.READS)
        with connection.begin():
            yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A write transaction. SQLite takes the write lock at once; PostgreSQL locks rows as they are touched."""
    with sqlite.turn(engine), engine.connect() as connection:
        connection.execution_options(**sqlite.WRITES)
        with connection.begin():
            yield connection


def reads_beside_writers(engine: Engine) -> bool:
    """Whether a write transaction makes nobody wait before it writes: SQLite has one for all."""
    return engine.dialect.name == "postgresql"


def inserted_id(result: CursorResult[Any]) -> int:
    """The id that an INSERT of one row was given."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def ping(engine: Engine) -> None:
    """Raise if the database does not answer."""
    with read(engine) as connection:
        connection.execute(text("SELECT 1"))
