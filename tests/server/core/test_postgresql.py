"""PostgreSQL: only a server that keeps what it committed, and nothing that relies on SQLite's one writer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from countermark_server import db, migrations, postgresql, proposal
from countermark_server.accounts import people
from countermark_server.accounts.signin import SignIns
from countermark_server.errors import ServerError
from countermark_server.news import News
from countermark_server.stores import heads
from tests import postgres
from tests.log_world import NOW, LogWorld, drain


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    url = postgres.server().database()
    monkeypatch.setenv("COUNTERMARK_DATABASE_URL", url)
    return url


@pytest.fixture
def engine(url: str):
    engine = db.open_engine(url)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


def propose(connection) -> int:
    return proposal.propose(connection, "opaque", None, {}, now=NOW)


def test_a_role_that_may_lose_commits_is_refused(engine: Engine, url: str) -> None:
    """`synchronous_commit = off` is seen at the first connection, before a row is written."""
    lossy = db.open_engine(f"{url}&options=-csynchronous_commit%3Doff")
    with pytest.raises(postgresql.UnfitServerError, match="synchronous_commit = off"):
        migrations.upgrade(lossy)
    with pytest.raises(postgresql.UnfitServerError), db.write(lossy) as connection:
        propose(connection)
    with db.read(engine) as connection:
        assert connection.execute(db.proposal.select()).all() == []


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("off", "on", "UTF8"), "fsync = off"),
        (("on", "off", "UTF8"), "synchronous_commit = off"),
        (("on", "on", "SQL_ASCII"), "encoding is SQL_ASCII"),
    ],
)
def test_an_unfit_server_is_named(answers: tuple[str, str, str], words: str) -> None:
    """Each promise that is missing is said, with what to do."""
    postgresql.check_promises("on", "on", "UTF8")
    with pytest.raises(postgresql.UnfitServerError, match=words) as refused:
        postgresql.check_promises(*answers)
    assert refused.value.hint


def test_a_read_sees_one_moment_and_writes_nothing(engine: Engine) -> None:
    """What is committed during a read transaction does not appear in it."""
    with db.read(engine) as reading:
        assert reading.execute(db.proposal.select()).all() == []
        with db.write(engine) as writing:
            propose(writing)
        assert reading.execute(db.proposal.select()).all() == []
    with pytest.raises(SQLAlchemyError, match="read-only"), db.read(engine) as reading:
        propose(reading)
    with db.read(engine) as reading:
        assert len(reading.execute(db.proposal.select()).all()) == 1


@pytest.mark.parametrize("default", ["serializable", "repeatable read"])
def test_a_server_with_another_isolation_writes_no_differently(url: str, default: str) -> None:
    """What the server, the database or the role says of isolation is a default: our transactions say theirs."""
    spelled = default.replace(" ", "%5C%20")
    strict = db.open_engine(f"{url}&options=-cdefault_transaction_isolation%3D{spelled}")
    with db.write(strict) as connection:
        assert connection.execute(text("SHOW default_transaction_isolation")).scalar() == default
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
    with db.read(strict) as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"
    with db.write(strict) as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
    strict.dispose()


def test_news_is_heard_once_and_never_missed(engine: Engine) -> None:
    """Nothing while a writer works, yes after its commit, no after that; yes when the server went away."""
    news = News(engine)
    assert news.any() and not news.any()
    with db.write(engine) as connection:
        propose(connection)
        news.any()  # that somebody writes may be news
        assert not news.any()
    assert news.any() and not news.any()
    postgres.server().kill()
    try:
        assert news.any()
    finally:
        postgres.server().start()
    assert news.any() and not news.any()
    news.close()


def test_a_lower_id_that_commits_later_is_sequenced(url: str, tmp_path: Path) -> None:
    """Ids are given out of the order of commits: the slow one gets its index in a later round."""
    world = LogWorld(tmp_path)
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    with db.write(world.engine) as slow:
        late = propose(slow)
        early = world.upload(1, submitted=False)
        assert early > late
        drain(station)
        assert world.outcome(early).state == "published"
    drain(station)
    assert world.outcome(late).state in ("published", "refused")
    assert world.outcome(late).settled
    world.check()
    station.engine.dispose()
    world.close()


def test_bodies_proposed_together_have_ids_in_their_order(engine: Engine) -> None:
    """One statement takes any number of rows, and the ids it answers are those of the rows, in order."""
    bodies = [bytes([number % 251, 0, 34, 92]) * (number % 7 + 1) for number in range(1500)]
    with db.write(engine) as connection:
        ids = proposal.propose_raw(connection, bodies, now=NOW)
        alone = proposal.propose_raw(connection, [b"alone"], now=NOW)
    with db.read(engine) as connection:
        rows = connection.execute(db.proposal.select().order_by(db.proposal.c.id)).mappings().all()
    assert [row["id"] for row in rows] == [*ids, *alone]
    assert [proposal.raw_body(row) for row in rows] == [*bodies, b"alone"]
    told = {(row["type"], row["envelope"], row["verified"], row["created"], row["state"]) for row in rows}
    assert told == {("opaque", None, False, NOW, proposal.PENDING)}


def test_a_round_waits_for_the_head_and_then_finds_it_moved(engine: Engine) -> None:
    """Of two rounds side by side the second waits at the head row and does nothing."""
    old = heads.Head("log.test/x", "old", 0, b"", None)
    new = heads.Head("log.test/x", "new", 1, b"e" * 32, "staged")
    with db.write(engine) as connection:
        heads.create(connection, old)
    found: list[object] = []

    def rival() -> None:
        try:
            with db.write(engine) as connection:
                heads.check_held(connection, old)
                found.append("held")
        except heads.HeadLostError as error:
            found.append(error)

    with db.write(engine) as connection:
        heads.check_held(connection, old)
        thread = threading.Thread(target=rival)
        thread.start()
        thread.join(0.3)
        assert found == [], "the rival did not wait"
        heads.swap(connection, old, new)
    thread.join(20)
    assert [type(one) for one in found] == [heads.HeadLostError]


def test_who_stops_in_the_middle_loses_the_transaction(engine: Engine, monkeypatch) -> None:
    """A paused writer's locks are freed after a while, and its commit fails when it wakes."""
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 1)
    paused_engine = db.open_engine(engine.url.render_as_string(hide_password=False))
    head = heads.Head("log.test/x", "body", 0, b"", None)
    with db.write(engine) as connection:
        heads.create(connection, head)
    with pytest.raises(SQLAlchemyError, match="idle-in-transaction"), db.write(paused_engine) as paused:
        heads.check_held(paused, head)
        with db.write(engine) as connection:  # waits, at most LOCK_SECONDS
            heads.check_held(connection, head)
            heads.swap(connection, head, heads.Head("log.test/x", "new", 1, b"", None))
        heads.swap(paused, head, heads.Head("log.test/x", "other", 1, b"", None))
    with db.read(engine) as connection:
        found = heads.load(connection, "log.test/x")
    assert found is not None and found.body == "new"
    paused_engine.dispose()


def test_a_connection_that_the_server_closed_costs_nobody_an_error(engine: Engine) -> None:
    """After a restart of the server a pooled connection is dead: it is replaced before it is used."""
    asked = text("SELECT pg_backend_pid()")
    with db.read(engine) as connection:
        pid = connection.execute(asked).scalar_one()
    other = db.open_engine(str(engine.url.render_as_string(hide_password=False)))
    with db.write(other) as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    other.dispose()
    with db.read(engine) as connection:
        assert connection.execute(asked).scalar_one() != pid


def test_two_machines_with_one_device_code_share_one_sign_in(engine: Engine) -> None:
    """Both read the granted row; who deletes it second has nothing to redeem."""
    sign_ins = SignIns(engine, None, None, groups=(), clock=lambda: NOW)  # type: ignore[arg-type]
    device, _ = sign_ins.begin_device()
    with db.write(engine) as connection:
        account = people.add_account(connection, "lin", now=NOW)
        connection.execute(db.sign_in.update().values(account_id=account.id, granted=True))
    told: list[str] = []

    def second() -> None:
        try:
            told.append(sign_ins.redeem_device(device).id)
        except ServerError as error:
            told.append(error.code)

    thread = threading.Thread(target=second)
    with db.write(engine) as first:
        first.execute(db.sign_in.delete())
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits for what becomes of the row
    thread.join(30)
    assert told == ["login-refused"]
