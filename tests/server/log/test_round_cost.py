"""What a round asks the database does not depend on how many entries share it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, select, text, update

from countermark_server import db, proposal
from countermark_server.log import sequence
from countermark_server.stores.immutable import ConflictError
from tests.log_world import LogWorld, drain

_LIST = re.compile(r"\(\?(, \?)*\)")  # SQLite's parameters of an IN


@pytest.fixture
def world(tmp_path: Path, database: str):
    world = LogWorld(tmp_path)
    world.begin()
    yield world
    world.close()


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """The statements that reach the database meanwhile; on PostgreSQL one for each row of an executemany."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, parameters, _context, executemany) -> None:
        each = len(parameters) if executemany and engine.dialect.name == "postgresql" else 1
        seen.extend([_LIST.sub("(?)", statement)] * each)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def submissions(world: LogWorld) -> dict[str, tuple[str, int | None]]:
    """State and leaf index of each, by file name."""
    table = db.submission
    with db.read(world.engine) as connection:
        rows = connection.execute(select(table.c.filename, table.c.state, table.c.leaf_index))
        return {name: (state, index) for name, state, index in rows}


def test_as_many_statements_for_one_entry_as_for_forty(world: LogWorld) -> None:
    """A round, and the telling of those it covers, ask the same questions whatever the number of uploads."""
    station = world.station()
    station.check_start()
    drain(station)
    rounds, tellings, number = [], [], 0
    for count in (2, 1, 40):  # the first reads what is read once
        for _ in range(count):
            world.upload(number)
            number += 1
        with asked(station.engine) as statements:
            assert station.sequencer.round() == count
        rounds.append(statements)
        with asked(station.engine) as statements:
            station.publisher.publish(station.sequencer.checkpoint)
        tellings.append(statements)
    assert rounds[1] == rounds[2]
    assert tellings[1] == tellings[2]
    assert {state for state, _ in submissions(world).values()} == {"logged"}
    world.check()


_HISTORY = (
    "INSERT INTO proposal (type, registry, verified, created, state, leaf_index)"
    " SELECT 'yank', '{}', true, 1, state, 1000000 + n"
    " FROM generate_series(1, 3000) AS n, unnest(array['published', 'sequenced']) AS state",
    "INSERT INTO rules_state (key, value)"
    " SELECT '[\"none\",\"' || n || '\"]', '{}' FROM generate_series(1, 3000) AS n",
)
_READ = ("SELECT", "UPDATE", "INSERT")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite leaves no dead rows behind
def test_no_round_reads_what_earlier_rounds_left(world: LogWorld) -> None:
    """Whatever a table holds already, and the dead rows of it: PostgreSQL goes to the rows that are asked for."""
    station = world.station()
    station.check_start()
    drain(station)
    station.publisher.publish(station.sequencer.checkpoint)
    with db.write(world.engine) as connection:
        for each in _HISTORY:
            connection.execute(text(each.replace(":", "\\:")))
    world.upload(0)
    seen: list[tuple[str, object]] = []
    event.listen(station.engine, "before_cursor_execute", lambda *a: seen.append((a[2], a[3])))
    assert station.sequencer.round() == 1
    station.publisher.publish(station.sequencer.checkpoint)
    with db.read(station.engine) as connection:
        proposal.settled(connection, [1, 2])
    with db.read(world.engine) as connection:
        asked = [(said, given) for said, given in seen if said.lstrip().startswith(_READ)]
        plans = {said: _plan(connection, said, given) for said, given in asked}
    assert len(plans) > 10
    for said, plan in plans.items():
        assert not re.search(r"Seq Scan on (proposal|rules_state)", plan), f"{said}\n{plan}"
        assert "(state)::text = 'sequenced'" not in plan, f"{said}\n{plan}"


def _plan(connection: Connection, statement: str, given: object) -> str:
    return "\n".join(row[0] for row in connection.exec_driver_sql("EXPLAIN " + statement, given))


def test_a_submission_that_moved_on_by_itself_is_said_and_left(world: LogWorld, capsys) -> None:
    """Somebody rejected it in the database: the others are told all the same."""
    station = world.station()
    station.check_start()
    drain(station)
    ids = [world.upload(number) for number in range(2)]
    station.sequencer.round()
    with db.write(world.engine) as connection:
        first = db.submission.c.filename == "acme-0.tar.gz"
        connection.execute(update(db.submission).where(first).values(state="rejected"))
    station.publisher.publish(station.sequencer.checkpoint)
    assert {world.outcome(number).state for number in ids} == {"published"}
    assert submissions(world) == {"acme-0.tar.gz": ("rejected", None), "acme-1.tar.gz": ("logged", 5)}
    assert "was not waiting" in "".join(capsys.readouterr())


def test_tiles_of_another_tree_are_found_before_anything_is_signed(world: LogWorld, monkeypatch) -> None:
    """A name that the round needs has other bytes: in a folder the round ends before it signs."""
    station = world.station()
    station.check_start()
    drain(station)
    world.upload(0)
    world.public.put("log/tile/0/000.p/5", b"another tree".ljust(160))
    monkeypatch.setattr(sequence, "sign_note", lambda *_, **__: pytest.fail("signed"))
    before = world.head()
    with pytest.raises(ConflictError):
        station.sequencer.round()
    assert world.head() == before
    assert list(station.staging.sizes()) == []
