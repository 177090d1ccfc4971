"""Quick: statements that run many times a second, past the layers between us and the database's driver.

    _HELD = select(head).where(head.c.origin == bindparam("o"))
    row = quick.run(connection, _HELD, {"o": origin}).fetchone()         # a row, by position
    changed = quick.run(connection, _SWAP, {...}).rowcount
    rows = quick.mappings(connection, _WAITING, {"n": 1024})              # rows, by name
    quick.each(connection, _SEQUENCE, [{...}, {...}])                     # once for each, on SQLite

SQLAlchemy looks a statement's text up anew each time it runs, and wraps every row. Here a statement is spelled once,
and rows come as the driver makes them. Transactions are SQLAlchemy's as before, and so are the errors: what a driver
raises, for the statement or for a row, comes as a `DBAPIError`.

For statements that are built once and whose parameters are all named, each of them one value: no lists that are
spelled out (`expanding`). Columns are those of plain types: numbers, text, bytes; a truth value may come as 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

Values = Mapping[str, Any]
# By dialect and statement; two threads may both spell one.
_spelled: dict[tuple[str, Any], tuple[str, Values]] = {}
_NAMED = sqlite.dialect(paramstyle="named")  # parameters by name, as in PostgreSQL, not by place


class Answer(Protocol):
    """What a statement gave: rows, or how many it changed."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Any: ...


def run(connection: Connection, statement: Executable, values: Values) -> Answer:
    """Run it in the connection's transaction. DBAPIError: the driver refused, or the server did."""
    if _is_watched(connection.engine):
        return connection.execute(statement, values)
    text, fixed = _text(connection, statement)
    raw: Any = connection.connection.dbapi_connection
    try:
        answer: Answer = raw.execute(text, {**fixed, **values})
    except raw.Error as error:
        raise _told(connection, text, error) from error
    return answer if connection.dialect.name == "postgresql" else _Rows(connection, text, answer)


class _Rows:
    """An answer of SQLite, which reads on as rows are fetched: the disk may fail then, too."""

    __slots__ = ("_answer", "_connection", "_text")

    def __init__(self, connection: Connection, text: str, answer: Answer) -> None:
        self._connection, self._text, self._answer = connection, text, answer

    @property
    def rowcount(self) -> int:
        return self._answer.rowcount

    def fetchone(self) -> Any:
        return self._told(self._answer.fetchone)

    def fetchall(self) -> Any:
        return self._told(self._answer.fetchall)

    def _told(self, fetch: Callable[[], Any]) -> Any:
        raw: Any = self._connection.connection.dbapi_connection
        try:
            return fetch()
        except raw.Error as error:
            raise _told(self._connection, self._text, error) from error


def mappings(connection: Connection, statement: Executable, values: Values) -> list[dict[str, Any]]:
    """The rows of its answer, each by the names of its columns."""
    names = statement.selected_columns.keys()  # type: ignore[attr-defined]
    return [dict(zip(names, row, strict=True)) for row in run(connection, statement, values).fetchall()]


def each(connection: Connection, statement: Executable, values: Sequence[Values]) -> None:
    """Run it once for each of these. Meant for SQLite, which runs in this process; elsewhere each is a question."""
    if _is_watched(connection.engine):
        connection.execute(statement, values)
        return
    text, fixed = _text(connection, statement)
    raw: Any = connection.connection.dbapi_connection
    try:
        raw.cursor().executemany(text, [{**fixed, **one} for one in values])
    except raw.Error as error:
        raise _told(connection, text, error) from error


def _told(connection: Connection, text: str, error: Any) -> BaseException:
    """The driver's error as SQLAlchemy's; a connection that is lost is not asked to roll back, nor used again."""
    raw: Any = connection.connection.dbapi_connection
    if connection.dialect.is_disconnect(error, raw, None):
        connection.invalidate(error)
    told: BaseException = DBAPIError.instance(text, None, error, raw.Error)
    return told


def _is_watched(engine: Engine) -> bool:
    """Whether somebody listens to each statement, as tests do that count them: then these go the long way."""
    return bool(engine.dispatch.before_cursor_execute)


def _text(connection: Connection, statement: Any) -> tuple[str, Values]:
    dialect = connection.dialect
    spelled = _spelled.get((dialect.name, statement))
    if spelled is None:
        compiled: Any = statement.compile(dialect=_NAMED if dialect.name == "sqlite" else dialect)
        # What the statement itself says is a parameter too; one that its caller should give, and does not, is missed.
        fixed = {name: each.value for each, name in compiled.bind_names.items() if not each.required}
        spelled = _spelled[dialect.name, statement] = str(compiled), fixed
    return spelled
