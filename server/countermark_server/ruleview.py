"""The rules' state in a table: a view that `countermark.rules` reads and writes like a dict.

    with SqlView(connection, db.rules_state) as view:
        changes = rules.apply(view, entry)          # reads rows as it asks for them
        for key, value in changes.writes.items():
            view.put(key, value)                    # kept here; written together when the block ends

A key is a JSON array of strings, a value a JSON object. What was read or put is remembered for the length of
the transaction, so an entry sees what the entries before it in the same round changed. An error leaves the
block without writing, and the transaction that surrounds it rolls back.

A file of a namespace is served elsewhere, so no submission knows its hash: its row in `logged_elsewhere` is
written with its state, in the same transaction. So is a row in `project_name` for a new project of the default
namespace, by which names that read alike are found (confusable.py).

Asking key by key costs a question each; whoever knows what many entries touch (`rules.keys`) lets the view `fetch`
it all before. As with a dict, `get` hands out the value itself: it is shared, and nobody may change it in place.

The sequencer keeps the state at the head in `rules_state`; tufrepo keeps its own at what it applied, in
`tufrepo_state`. Both are caches of the log: fsck replays it and compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from json.encoder import encode_basestring_ascii
from types import TracebackType
from typing import Any

from sqlalchemy import BigInteger, Connection, Table, Text, bindparam, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from countermark.rules import LOG
from countermark_server import db, jsontext, quick, serials
from countermark_server.stores import syncs

Key = tuple[str, ...]
Value = dict[str, Any]
Write = Callable[[], object]
MANY = 256  # rows that are worth a thread
_ALIKE = str.maketrans("lio", "110")
# What a page shows of a file that is listed, or does not; a verdict alone takes nothing from a page.
_SHOWN = ("cleared", "hold", "removed", "takedown", "yank")
_STATES = (db.rules_state, db.tufrepo_state)
# Built once: building a statement costs more than running it.
_SELECTS = {table.name: select(table.c.value).where(table.c.key == bindparam("k")) for table in _STATES}
# PostgreSQL takes any number of names, or of rows, as lines of one text, since the driver quotes arrays element by
# element. No line has a newline in it: what a row holds is JSON, which spells it `\n`, or a name, which has none; and
# nothing is empty, of which PostgreSQL makes no line at all.
# (Taken apart as one JSON document, a row with `\u0000` in it would be refused, and with it the round.)
# (An array, no subquery: of one PostgreSQL expects a hundred rows, and reads a table of some thousands for them.)
_NAMES = {
    "postgresql": func.any(func.string_to_array(bindparam("k", type_=Text), "\n")),
    "sqlite": func.json_each(bindparam("k", type_=Text)).table_valued("value").c.value,
}
_FETCHES = {
    (table.name, dialect): select(table.c.key, table.c.value).where(
        table.c.key == names if dialect == "postgresql" else table.c.key.in_(select(names))
    )
    for table in _STATES
    for dialect, names in _NAMES.items()
}


class SqlView:
    """A view over one table with columns `key` and `value`, for the length of one transaction."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table
        self._select = _SELECTS[table.name]
        self._known: dict[Key, Value | None] = {}
        self._spelled: dict[Key, str] = {}  # of the keys that were fetched, which are those that change
        self._changed: set[Key] = set()
        self._elsewhere: dict[Key, Value] = {}
        self._begun: list[str] = []
        self._shown: set[str] = set()

    def __enter__(self) -> SqlView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.flush()

    def get(self, key: Key) -> Value | None:
        """The value of a key, or None. It is the view's own: nobody may change it in place."""
        try:
            return self._known[key]
        except KeyError:
            row = quick.run(self._connection, self._select, {"k": self._name(key)}).fetchone()
            self._known[key] = value = None if row is None else jsontext.decode(row[0])
            return value

    def fetch(self, keys: Iterable[Key]) -> None:
        """Read all of these that are not known yet, in one question."""
        unread = {self._name(key): key for key in keys if key not in self._known}
        if unread:
            dialect, names = self._connection.dialect.name, sorted(unread)
            asked = {"k": "\n".join(names) if dialect == "postgresql" else json.dumps(names)}
            found = quick.run(self._connection, _FETCHES[self._table.name, dialect], asked)
            self._known.update(dict.fromkeys(unread.values()))
            for name, value in found.fetchall():
                self._known[unread[name]] = jsontext.decode(value)

    def _name(self, key: Key) -> str:
        name = self._spelled.get(key)
        if name is None:
            name = self._spelled[key] = encode_key(key)
        return name

    def put(self, key: Key, value: Mapping[str, Any] | None) -> None:
        """Give a key its new value, which is shared from now on; None removes it. Written by `flush`."""
        kind, before = key[0], self._known.get(key)
        if kind in ("file", "project"):
            if len(key) == 3 and before is None and not key[1]:
                self._begun.append(key[2])
            elif len(key) == 4 and key[1] and value is not None:
                row = dict(zip(("namespace", "project", "filename"), key[1:], strict=True))
                self._elsewhere[key] = {**row, "sha256": value["sha256"], "leaf_index": value["index"]}
            if before is not None and _changes_page(key, before, value):
                self._shown.add(key[2])
        self._known[key] = value if value is None or type(value) is dict else dict(value)
        self._changed.add(key)

    def flush(self) -> None:
        """Write what was put."""
        _in_turn(self._writes())

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Write what was put, done when the block is, which works meanwhile and does not speak to the database.

        That saves time where a server does the writing, and is no use for a few rows: a thread costs as much.
        """
        if self._connection.dialect.name != "postgresql" or len(self._changed) < MANY:
            self.flush()
            yield
            return
        written = syncs.begin([partial(_in_turn, self._writes())])
        try:
            yield
        finally:
            written()

    def _writes(self) -> list[Write]:
        """What writes all that was put, in turn, and is spelled already: that much is this process's own work."""
        rows, gone, writes = list[Value](), list[Value](), list[Write]()
        for key in sorted(self._changed, key=self._name):
            value = self._known[key]
            if value is None:
                gone.append({"k": self._name(key)})
            else:
                rows.append({"key": self._name(key), "value": jsontext.encode(value)})
        writes += self._write(self._table, rows)
        if self._table is db.rules_state:
            writes += self._write(db.logged_elsewhere, list(self._elsewhere.values()))
            begun = [{"skeleton": skeleton(project), "project": project} for project in self._begun]
            writes += self._write(db.project_name, begun)
            if self._shown:
                log, shown = self.get(LOG), set(self._shown)
                writes.append(partial(serials.touch, self._connection, shown, now=log["time"] if log else 0))
        if gone:
            removed = delete(self._table).where(self._table.c.key == bindparam("k"))
            writes.append(partial(self._connection.execute, removed, gone))
        self._changed.clear()
        self._elsewhere.clear()
        self._begun.clear()
        self._shown.clear()
        return writes

    def _write(self, table: Table, rows: Sequence[Value]) -> list[Write]:
        """Insert or replace: row by row on SQLite, which runs in this process; on PostgreSQL in one statement."""
        dialect = self._connection.dialect.name
        if not rows:
            return []
        if dialect == "postgresql":
            lines = {name: "\n".join([str(row[name]) for row in rows]) for name in rows[0]}
            return [partial(quick.run, self._connection, _WRITES[table.name, dialect], lines)]
        return [partial(quick.each, self._connection, _WRITES[table.name, dialect], rows)]


def _in_turn(writes: Sequence[Write]) -> None:
    for write in writes:
        write()


def _changes_page(key: Key, before: Value | None, after: Mapping[str, Any] | None) -> bool:
    """Whether the project's page changes: by a file that was there before, or by a compromised key."""
    if before is None or after is None or len(key) < 3 or key[1]:
        return False
    names = _SHOWN if key[0] == "file" else ("compromised",) if key[0] == "project" else ()
    return any(before.get(name) != after.get(name) for name in names)


def _lines(table: Table) -> Any:
    """The rows of a table, for PostgreSQL: of each column the values, one a line."""
    texts = [
        func.unnest(func.string_to_array(bindparam(column.name, type_=Text), "\n"))
        for column in table.columns
    ]
    return select(
        *(
            cast(each, BigInteger) if isinstance(column.type, BigInteger) else each
            for column, each in zip(table.columns, texts, strict=True)
        )
    )


def _written(insert: Any, table: Table) -> Any:
    """Of the rules' state the newest value stays. A file's hash and index never change, nor a project's name."""
    if table in _STATES:
        return insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded.value})
    return insert.on_conflict_do_nothing()


_WRITES = {
    (table.name, dialect): _written(insert, table)
    for table in (*_STATES, db.logged_elsewhere, db.project_name)
    for dialect, insert in (
        ("sqlite", sqlite.insert(table)),
        ("postgresql", postgresql.insert(table).from_select(list(table.columns.keys()), _lines(table))),
    )
}


def skeleton(project: str) -> str:
    """What remains of a (normalised) project name once all that people confuse is one; see confusable.py."""
    return project.replace("-", "").replace("rn", "m").replace("vv", "w").translate(_ALIKE)


def encode_key(key: Key) -> str:
    """A key as the table spells it: a JSON array. Part by part, since only strings have a quick way."""
    return f"[{','.join(map(encode_basestring_ascii, key))}]"
