"""Serials: one counter for the whole index, and for each project its value when its page changed last.

    touch(connection, ["demo"], now=1763800000)      in the transaction that changes what the page shows
    newest(connection), of(connection, "demo")       1763800000007, 1763800000003
    listed(connection)                               every project that ever had something to show, with its serial

A mirror keeps the largest serial that it has seen and asks again for projects whose own is larger (bandersnatch does;
`X-PyPI-Last-Serial` says it too). That is sound only while serials come in the order of commits: the counter's row
stays locked until the transaction ends, so nobody commits a smaller one later.

A serial is the milliseconds since 1970 by the clock of who counts, or one more than the last: a database brought back
from a backup goes on above all that it gave out before. Nothing a verifier believes depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, String, Table, bindparam, case, select
from sqlalchemy.dialects import postgresql, sqlite

from countermark_server.tables import metadata

PROJECTS = ""  # the counter's name: that of no other
MILLISECONDS = 1000

index_counter = Table(
    "index_counter",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
index_serial = Table(
    "index_serial",
    metadata,
    # Projects of the default namespace that have, or had, a listed file.
    Column("project", String(255), primary_key=True),
    Column("serial", BigInteger, nullable=False),
    Index("ix_index_serial_serial", "serial"),
)


def _count(insert: Any) -> Any:
    """Draw numbers up to the value that is returned; the row is locked until the transaction ends."""
    row = insert(index_counter).values(name=PROJECTS, value=bindparam("least"))
    after = index_counter.c.value + bindparam("many")
    larger = case((after < bindparam("least"), bindparam("least")), else_=after)
    return row.on_conflict_do_update(index_elements=["name"], set_={"value": larger}).returning(
        index_counter.c.value
    )


def _upsert(insert: Any) -> Any:
    row = insert(index_serial)
    return row.on_conflict_do_update(index_elements=["project"], set_={"serial": row.excluded.serial})


_INSERTS = (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
_COUNT = {dialect: _count(insert) for dialect, insert in _INSERTS}
_UPSERT = {dialect: _upsert(insert) for dialect, insert in _INSERTS}
_OF = select(index_serial.c.serial).where(index_serial.c.project == bindparam("p"))
_NEWEST = select(index_counter.c.value).where(index_counter.c.name == PROJECTS)
_LISTED = select(index_serial.c.project, index_serial.c.serial).order_by(index_serial.c.project)


def touch(connection: Connection, projects: Iterable[str], *, now: int) -> None:
    """Give each of these (normalised) projects the next serial. `now` in seconds."""
    names = sorted(set(projects))
    if not names:
        return
    dialect = connection.dialect.name
    drawn = {"least": now * MILLISECONDS + len(names), "many": len(names)}
    last: int = connection.execute(_COUNT[dialect], drawn).scalar_one()
    rows = [{"project": name, "serial": last - len(names) + 1 + at} for at, name in enumerate(names)]
    connection.execute(_UPSERT[dialect], rows)


def newest(connection: Connection) -> int:
    """The largest serial that anything has; 0 before anything was listed."""
    return int(connection.execute(_NEWEST).scalar() or 0)


def of(connection: Connection, project: str) -> int:
    """The project's serial; 0 while it never had anything to show."""
    return int(connection.execute(_OF, {"p": project}).scalar() or 0)


def listed(connection: Connection) -> list[tuple[str, int]]:
    """Projects with their serials, by name."""
    return [(name, serial) for name, serial in connection.execute(_LISTED)]
