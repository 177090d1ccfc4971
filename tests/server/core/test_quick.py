"""Quick statements: what they answer is what SQLAlchemy answers, in the same transaction, with the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, bindparam, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import IntegrityError as DuplicateError

from countermark_server import db, migrations, proposal, quick
from countermark_server.stores import heads
from tests import postgres
from tests.log_world import NOW

TABLE = db.proposal
OF_STATE = select(TABLE.c.id, TABLE.c.type, TABLE.c.verified, TABLE.c.envelope).where(
    TABLE.c.state == "pending", TABLE.c.id >= bindparam("least")
)
ON_POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite is no server
BEGUN = db.head.insert()
STATES = db.rules_state.insert().values(key=bindparam("k"), value="{}")


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    file = f"sqlite:///{tmp_path / 'registry.sqlite'}"
    engine = db.open_engine(postgres.server().database() if request.param == "postgresql" else file)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


def test_rows_are_those_of_sqlalchemy(engine: Engine) -> None:
    """The same values of the same types, by position and by name; a statement's own values are not forgotten."""
    with db.write(engine) as connection:
        for number in range(3):
            proposal.propose(connection, "opaque", {"100%": "é"} if number else None, {}, now=NOW)
    with db.read(engine) as connection:
        slow = connection.execute(OF_STATE, {"least": 2})
        assert quick.run(connection, OF_STATE, {"least": 2}).fetchall() == [tuple(row) for row in slow]
        slow = connection.execute(OF_STATE, {"least": 1})
        assert quick.mappings(connection, OF_STATE, {"least": 1}) == [dict(row) for row in slow.mappings()]


def test_a_value_that_the_caller_forgot_is_no_null(engine: Engine) -> None:
    """A parameter that nobody gives is an error, not a comparison with nothing."""
    with pytest.raises(SQLAlchemyError), db.read(engine) as connection:
        quick.run(connection, OF_STATE, {})


def test_what_it_wrote_goes_with_the_transaction(engine: Engine) -> None:
    """It begins the transaction that it is in, and a rollback takes its writes along."""
    head = heads.Head("origin.test", "body", 0, b"", None)
    with db.write(engine) as connection:
        heads.create(connection, head)
    moved = heads.Head("origin.test", "other", 1, b"\0" * 32, "1-name")
    with pytest.raises(RuntimeError), db.write(engine) as connection:
        heads.swap(connection, head, moved)
        raise RuntimeError
    with db.write(engine) as connection:
        assert heads.hold(connection, "origin.test") == head
        heads.swap(connection, head, moved)
    with db.read(engine) as connection:
        assert heads.load(connection, "origin.test") == moved


@ON_POSTGRESQL
def test_a_reader_cannot_write(engine: Engine) -> None:
    """What is opened for reading stays so, with its promises, and says so as a DBAPIError."""
    asked = text("INSERT INTO proposal (type, registry, state, created) VALUES (:t, '{}', 'pending', 0)")
    with pytest.raises(DBAPIError, match="read-only"), db.read(engine) as connection:
        quick.run(connection, asked, {"t": "opaque"})


def test_a_servers_refusal_is_sqlalchemys_error(engine: Engine) -> None:
    """A constraint that is broken comes as the error that rooms expect, and the connection serves the next."""
    row = {"origin": "origin.test", "body": "b", "tree_size": 0, "edge": b"", "staging": None}
    with pytest.raises(DuplicateError), db.write(engine) as connection:
        quick.run(connection, BEGUN, row)
        quick.run(connection, BEGUN, row)
    with db.write(engine) as connection:
        assert heads.hold(connection, "origin.test") is None


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # PostgreSQL's driver has all rows before it answers
def test_what_fails_while_rows_are_read_is_sqlalchemys_error_too(engine: Engine) -> None:
    """SQLite reads on with each row, and so the disk may fail at the last of them; here a number overflows."""
    asked = text("SELECT abs(value) FROM json_each('[1, -9223372036854775808]')")
    for fetch in ("fetchone", "fetchall"):
        with db.read(engine) as connection:
            answer = quick.run(connection, asked, {})
            with pytest.raises(DBAPIError, match="integer overflow"):
                getattr(answer, fetch)()


@ON_POSTGRESQL
def test_a_server_that_goes_away_costs_one_transaction(engine: Engine) -> None:
    """A connection that is cut in the middle ends as an error of SQLAlchemy's; the next transaction has another."""
    cut = text("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(SQLAlchemyError), db.write(engine) as connection:
        proposal.propose(connection, "opaque", None, {}, now=NOW)
        quick.run(connection, cut, {})
    with db.write(engine) as connection:
        assert proposal.room(connection, most=5) == 5


def test_one_of_many_that_is_refused_takes_all_along(engine: Engine) -> None:
    """Once for each, in one transaction, with what the statement says itself; an error is SQLAlchemy's."""
    with db.write(engine) as connection:
        quick.each(connection, STATES, [{"k": "a"}, {"k": "b"}])
    with pytest.raises(DuplicateError), db.write(engine) as connection:
        quick.each(connection, STATES, [{"k": "c"}, {"k": "a"}])
    with db.read(engine) as connection:
        assert connection.execute(db.rules_state.select()).all() == [("a", "{}"), ("b", "{}")]
