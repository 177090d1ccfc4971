"""Kept pages: asking again costs no query, and no page outlives a commit of anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, insert, select

from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.index.kept import Kept, Page


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An empty database of either kind."""
    made = db.open_engine(database_url)
    db.metadata.create_all(made)
    yield made
    made.dispose()


class Shelf:
    """Makes a page out of one table's rows, and counts how often it had to."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.made = engine, 0
        self.kept = Kept(engine)

    def make(self) -> Page:
        """The page as the database has it."""
        self.made += 1
        with db.read(self.engine) as connection:
            roles = connection.execute(select(db.tuf_version.c.role).order_by(db.tuf_version.c.role))
            return Page(" ".join(roles.scalars()).encode(), str(self.made))

    def page(self, name: str = "roles") -> bytes:
        """The page, kept or new."""
        return self.kept.get(name, self.make).body


def commit(engine: Engine, role: str) -> None:
    with db.write(engine) as connection:
        connection.execute(insert(db.tuf_version).values(role=role, version=1))


def test_a_page_is_made_once_while_nobody_commits(engine: Engine) -> None:
    """The second reader costs no query, each page has its own name, and reading is no news."""
    shelf = Shelf(engine)
    assert [shelf.page(), shelf.page(), shelf.page("others"), shelf.page("others")] == [b""] * 4
    assert shelf.made == 2


def test_any_commit_makes_every_page_anew(engine: Engine) -> None:
    """The very next reader after a commit, by this process or another, sees what it changed."""
    shelf, elsewhere = Shelf(engine), db.open_engine(engine.url.render_as_string(hide_password=False))
    for number, writer in enumerate((engine, elsewhere, engine)):
        before = shelf.page(), shelf.page("others")
        commit(writer, f"bin-{number}")
        expected = before[0] + (b" " if before[0] else b"") + f"bin-{number}".encode()
        assert (shelf.page(), shelf.page("others")) == (expected, expected)
    elsewhere.dispose()


def test_a_page_read_before_a_commit_is_not_kept_beyond_it(engine: Engine) -> None:
    """A slow reader whose page is old when it is made: another reader asked meanwhile, and heard of the commit."""
    shelf = Shelf(engine)

    def slow() -> Page:
        old = shelf.make()
        commit(engine, "bins")
        assert shelf.page("others") == b"bins"
        return old

    assert shelf.kept.get("roles", slow).body == b""
    assert shelf.page() == b"bins"


def test_many_who_ask_at_once_have_one_page_made(engine: Engine) -> None:
    """However often it changes: one of them makes it, and the others wait for that."""
    shelf, together = Shelf(engine), threading.Barrier(8)

    def slow() -> Page:
        page = shelf.make()
        time.sleep(0.05)
        return page

    def ask(serial: int) -> bytes:
        together.wait()
        return shelf.kept.get("roles", slow, lambda: serial).body

    with ThreadPoolExecutor(8) as askers:
        for serial in range(3):
            commit(engine, "ab"[:serial] or "0")
            assert len(set(askers.map(ask, [serial] * 8))) == 1
            assert shelf.made == serial + 1
    assert not shelf.kept._turns


def test_a_refusal_is_not_kept(engine: Engine) -> None:
    """What `make` raises passes; the next reader asks again."""
    shelf = Shelf(engine)

    def refuse() -> Page:
        raise ServerError("not-found", "no such project")

    with pytest.raises(ServerError):
        shelf.kept.get("roles", refuse)
    assert shelf.page() == b"" and shelf.made == 1


def test_pages_are_dropped_when_they_hold_too_many_bytes(engine: Engine) -> None:
    """Memory is bounded by the pages' bytes, and a page that is larger than all of it is served all the same."""
    kept, made = Kept(engine, most=100), list[str]()

    def page(name: str, size: int) -> int:
        def make() -> Page:
            made.append(name)
            return Page(b"x" * size, name)

        return len(kept.get(name, make).body)

    assert [page("a", 60), page("a", 60), page("b", 60), page("b", 60), page("a", 60)] == [60] * 5
    assert made == ["a", "b", "a"]
    assert page("large", 1000) == 1000


def test_a_database_in_memory_keeps_nothing() -> None:
    """It cannot say whether there is news."""
    engine = db.open_engine("sqlite://")
    db.metadata.create_all(engine)
    shelf = Shelf(engine)
    assert shelf.page() == shelf.page() == b"" and shelf.made == 2
