"""PostgreSQL, where it differs from SQLite: what a connection promises, what a transaction sees, who is fenced.

    postgresql+psycopg://user@host/database          (the extra `countermark-server[postgresql]`)

* **Durable.** A commit that returned survives a power loss, or the server is refused: one with `fsync = off`,
  or where this role commits with `synchronous_commit = off`, would lose what the log has acknowledged.
* **Reading** is one snapshot (repeatable read, read only), as in SQLite.
* **Writing** is read committed, whatever the server's default: statements see what others committed meanwhile,
  and rows are locked as they are touched. So every move names the state it starts from and counts the rows it
  changed, names are unique by constraint, and a round of the log first locks the head row (`stores.heads.hold`),
  which fences it.
* **Ids are not in the order of commits.** A proposal with a lower id may appear after a higher one was taken:
  whoever looks for work asks for a state, never for "ids beyond the last one".
* **Who stops in the middle** (a paused machine, a cut cable) loses its transaction after a while; the locks it
  held are free, and its commit fails when it wakes.
"""

from __future__ import annotations

import select
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError

from countermark.errors import UsageError

LOCK_SECONDS = 30  # for a row lock; then the transaction fails, having changed nothing
IDLE_SECONDS = 120  # in a transaction without a statement: longer than any round stages
CONNECT_SECONDS = 10
MIGRATION_LOCK = 0x636F756E  # any fixed number: two processes must not migrate at once
WRITES = "READ COMMITTED"
READS: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_PROMISES = (
    "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
    " current_setting('server_encoding')"
)
_SNAPSHOT = "SELECT pg_current_snapshot()::text"


class UnfitServerError(UsageError):
    """This server does not promise what the log needs. Nothing was written."""


def open_engine(url: str, *, pool_size: int) -> Engine:
    """The engine for a PostgreSQL server. UnfitServerError, at the first connection: it may lose commits."""
    arguments = {"connect_timeout": CONNECT_SECONDS}
    engine = create_engine(
        url, connect_args=arguments, isolation_level=WRITES, pool_size=pool_size, pool_use_lifo=True
    )

    @event.listens_for(engine, "checkout")
    def _look(connection: Any, _record: Any, _proxy: Any) -> None:
        # A restart of the server cuts every pooled connection, which must cost no request an error. Nobody speaks
        # on a connection that rests but a server that ends it: a look at the socket says as much as a question.
        if _has_spoken(connection.fileno()):
            raise DisconnectionError("the server has ended this connection")  # the pool opens another

    @event.listens_for(engine, "connect")
    def _check(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            check_promises(*cursor.execute(_PROMISES).fetchone())
            cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.commit()

    return engine


def _has_spoken(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def check_promises(fsync: str, synchronous_commit: str, encoding: str) -> None:
    """Refuse a server that may lose a commit that returned, or that can't hold every text."""
    if fsync != "on":
        raise UnfitServerError(
            f"PostgreSQL runs with fsync = {fsync}: it may lose entries that were acknowledged",
            hint="set fsync = on in postgresql.conf and reload the server",
        )
    if synchronous_commit == "off":
        raise UnfitServerError(
            "PostgreSQL commits with synchronous_commit = off: it may lose entries that were acknowledged",
            hint="ALTER ROLE ... SET synchronous_commit = on",
        )
    if encoding != "UTF8":
        raise UnfitServerError(
            f"the database's encoding is {encoding}, must be UTF8",
            hint="CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )


def lock_migrations(connection: Connection) -> None:
    """Wait until no other process migrates this database; freed when the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": MIGRATION_LOCK})


def watch(engine: Engine) -> Connection:
    """A connection of its own to ask `snapshot` on; it never holds a transaction open."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def first(connection: Connection, question: str) -> Any:
    """The first row of an answer, or None: straight from the driver, for a quarter of what all layers cost."""
    raw: Any = connection.connection.dbapi_connection
    try:
        return raw.execute(question).fetchone()
    except raw.Error as error:
        raise DBAPIError.instance(question, None, error, raw.Error) from error


def snapshot(connection: Connection) -> str:
    """Which transactions are visible now: equal answers mean that nothing was committed in between.

    (The position of the write-ahead log would not do: it moves before the commit is visible, so a look in
    between would find nothing and never look again.)
    """
    return str(first(connection, _SNAPSHOT)[0])
