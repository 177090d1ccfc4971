"""The journey: who moves a submission, which moves are legal, and that rows obey."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import select

from countermark_server import db, migrations, proposal, submission
from countermark_server.journey import ENDS, MOVES, SAID, STATIONS, State, is_legal
from countermark_server.submission import LEASE_SECONDS, IllegalMoveError

NOW = 1_790_000_000


@pytest.fixture
def connection(database_url: str):
    engine = db.open_engine(database_url)
    migrations.upgrade(engine)
    with db.write(engine) as connection:
        connection.execute(db.account.insert().values(id="a" * 32, login="ada", created=NOW))
        yield connection
    engine.dispose()


def receive(connection, filename: str = "acme-1.tar.gz") -> int:
    return submission.receive(
        connection,
        now=NOW,
        project="acme",
        version="1",
        filename=filename,
        served_name=filename,
        display_name="Acme",
        sha256="b" * 64,
        length=3,
        filetype="sdist",
        uploader="a" * 32,
    )


def put(connection, number: int, state: State) -> None:
    connection.execute(db.submission.update().where(db.submission.c.id == number).values(state=state))


def row(connection, number: int):
    return connection.execute(select(db.submission).where(db.submission.c.id == number)).mappings().first()


def test_every_state_is_moved_on_by_somebody_or_is_an_end() -> None:
    """No state is a trap, none is forgotten, and each is said in words."""
    assert set(STATIONS) | ENDS == set(State)
    assert not set(STATIONS) & ENDS
    assert {old for old, _ in MOVES} == set(STATIONS)
    assert set(SAID) == set(State)


def test_every_end_is_reachable_from_the_start() -> None:
    """received leads to listed and to rejected."""
    reached = {State.RECEIVED}
    while more := {new for old, new in MOVES if old in reached} - reached:
        reached |= more
    assert reached == set(State)


@pytest.mark.parametrize(("old", "new"), list(product(State, State)))
def test_rows_move_only_as_the_journey_says(connection, old: State, new: State) -> None:
    """All 49 pairs: a legal move happens, an illegal one changes nothing."""
    number = receive(connection)
    put(connection, number, old)
    before = row(connection, number)
    if is_legal(old, new):
        submission.finish(connection, number, old, new, now=NOW + 5)
        assert (row(connection, number)["state"], row(connection, number)["state_since"]) == (new, NOW + 5)
    else:
        with pytest.raises(IllegalMoveError):
            submission.finish(connection, number, old, new, now=NOW + 5)
        assert row(connection, number) == before


def test_a_row_that_moved_meanwhile_is_not_moved_again(connection) -> None:
    """The loser of two workers learns it."""
    number = receive(connection)
    submission.finish(connection, number, State.RECEIVED, State.LOGGED, now=NOW)
    with pytest.raises(IllegalMoveError, match="no longer received"):
        submission.finish(connection, number, State.RECEIVED, State.LOGGED, now=NOW)


def test_a_claim_is_a_lease(connection) -> None:
    """Nobody else gets the row before the lease runs out; then somebody does."""
    first, second = receive(connection), receive(connection, "acme-2.tar.gz")
    claimed = submission.claim(connection, State.RECEIVED, now=NOW, limit=1)
    assert [each["id"] for each in claimed] == [first]
    assert [each["id"] for each in submission.claim(connection, State.RECEIVED, now=NOW, limit=9)] == [second]
    assert submission.claim(connection, State.RECEIVED, now=NOW + LEASE_SECONDS, limit=9) == []
    again = submission.claim(connection, State.RECEIVED, now=NOW + LEASE_SECONDS + 1, limit=9)
    assert [each["id"] for each in again] == [first, second]
    assert row(connection, first)["attempts"] == 2


def test_discard_takes_back_what_has_no_leaf(connection) -> None:
    """A received row goes and its name is free; its proposal stays, pointing nowhere."""
    number = receive(connection)
    asked = proposal.propose(connection, "publish", {}, {}, now=NOW, submission_id=number)
    submission.discard(connection, [number])
    assert row(connection, number) is None
    assert proposal.outcome(connection, asked).state == proposal.PENDING
    receive(connection)


@pytest.mark.parametrize("state", sorted(set(State) - {State.RECEIVED}))
def test_discard_touches_nothing_that_has_a_leaf(connection, state: State) -> None:
    """A logged file stays for ever."""
    number = receive(connection)
    put(connection, number, state)
    submission.discard(connection, [number])
    assert row(connection, number)["state"] == state


def test_a_proposal_nobody_made_has_no_outcome(connection) -> None:
    """An unknown id is a bug of the caller, not `pending`."""
    with pytest.raises(LookupError):
        proposal.outcome(connection, 77)
    asked = proposal.propose(connection, "tuf", None, {}, now=NOW)
    assert not proposal.outcome(connection, asked).settled
