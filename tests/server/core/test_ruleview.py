"""SqlView: the rules' state in a table, the same as in a dict."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from countermark_server import db, jsontext, ruleview
from countermark_server.ruleview import SqlView, encode_key


@pytest.fixture
def engine(database_url: str):
    engine = db.open_engine(database_url)
    db.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_what_was_put_is_seen_at_once_and_kept(engine) -> None:
    """Within the transaction and after it; None removes."""
    key = ("file", "", "proj", "proj-1.0.tar.gz")
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        assert view.get(key) is None
        view.put(key, {"n": 1})
        view.put(("gone",), {"n": 2})
        view.put(("gone",), None)
        assert view.get(key) == {"n": 1}
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        assert view.get(key) == {"n": 1}
        assert view.get(("gone",)) is None
        view.put(key, None)
    with db.read(engine) as connection:
        assert SqlView(connection, db.rules_state).get(key) is None


def test_what_is_fetched_needs_no_further_question(engine) -> None:
    """One question for many keys, known or not; what was put before stays as it was put."""
    keys = [("file", "", "proj", str(n)) for n in range(1500)]  # more than SQLite takes parameters
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        for n, key in enumerate(keys[:-1]):
            view.put(key, {"n": n})
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with db.read(engine) as connection:
        view = SqlView(connection, db.rules_state)
        view.put(keys[0], {"n": "put"})
        view.fetch(keys)
        found = [view.get(key) for key in keys]
    assert found == [{"n": "put"}, *({"n": n} for n in range(1, len(keys) - 1)), None]
    assert len([text for text in asked if text.startswith("SELECT")]) == 1


def test_an_error_writes_nothing(engine) -> None:
    """Leaving the block by an exception drops what was put."""
    with db.write(engine) as connection:
        with pytest.raises(RuntimeError), SqlView(connection, db.rules_state) as view:
            view.put(("a",), {"n": 1})
            raise RuntimeError
        assert connection.execute(db.rules_state.select()).all() == []


@pytest.mark.parametrize("rows", [1, ruleview.MANY])
def test_rows_are_written_while_the_caller_works(engine, rows: int) -> None:
    """Few or many: all are there when the block ends."""
    with db.write(engine) as connection:
        view = SqlView(connection, db.rules_state)
        for number in range(rows):
            view.put(("key", str(number)), {"n": number})
        with view.flushing():
            pass
        found = connection.execute(db.rules_state.select()).all()
    assert {row.key: row.value for row in found} == {
        encode_key(("key", str(number))): jsontext.encode({"n": number}) for number in range(rows)
    }


@pytest.mark.parametrize("rows", [1, ruleview.MANY])
@pytest.mark.parametrize("broken", [False, True])
def test_what_the_database_refuses_is_raised_by_the_block(
    engine, monkeypatch, rows: int, broken: bool
) -> None:
    """Also when the caller's own work failed meanwhile; and nothing runs on behind the block."""

    def refuse(*_: object) -> None:
        time.sleep(0.05)
        ended.append(True)
        raise RuntimeError("no space")

    ended = list[bool]()
    monkeypatch.setattr(ruleview.quick, "run", refuse)
    monkeypatch.setattr(ruleview.quick, "each", refuse)
    with db.write(engine) as connection:
        view = SqlView(connection, db.tufrepo_state)
        for number in range(rows):
            view.put(("key", str(number)), {"n": number})
        with pytest.raises(RuntimeError, match="no space"), view.flushing():
            if broken:
                raise OSError("staging")
    assert ended == [True]


def test_a_row_is_spelled_one_way(engine) -> None:
    """Whatever the database and the way to it, a key and a value are stored letter for letter as encoded."""
    key = ("key", 'a"b', "é\\", "\u2028\U0001f600")
    value = {"z": [1, {"y": None, "x": '\u0000"\\/'}], "a": "é\U0001f600", "": True}
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        view.put(key, value)
        view.put(("other",), {"n": 1})
    with db.read(engine) as connection:
        rows = {row.key: row.value for row in connection.execute(db.rules_state.select())}
    assert rows == {encode_key(key): jsontext.encode(value), '["other"]': '{"n":1}'}
    assert encode_key(key) == json.dumps(key, separators=(",", ":"))


KEYS = st.tuples(st.sampled_from(["file", "project", "key"]), st.text(max_size=4))
VALUES = st.none() | st.dictionaries(
    st.text(max_size=3), st.integers(0, 2**53 - 1) | st.none() | st.booleans(), max_size=3
)


@given(st.lists(st.lists(st.tuples(KEYS, VALUES), max_size=5), max_size=4))
def test_the_table_is_a_dict(rounds) -> None:
    """Whatever is put in whichever order, over several transactions, reads like a dict."""
    engine = db.open_engine("sqlite://")
    db.metadata.create_all(engine, tables=[db.tufrepo_state])
    model: dict[tuple[str, ...], object] = {}
    for puts in rounds:
        with db.write(engine) as connection, SqlView(connection, db.tufrepo_state) as view:
            for key, value in puts:
                view.put(key, value)
                model[key] = value
            for key, value in model.items():
                assert view.get(key) == value
    with db.read(engine) as connection:
        view = SqlView(connection, db.tufrepo_state)
        for key, value in model.items():
            assert view.get(key) == value
    engine.dispose()
