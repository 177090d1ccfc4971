"""Migrations: the revisions lead to exactly the tables the code declares."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from countermark_server import db, jsontext, migrations
from countermark_server.ruleview import encode_key


def test_upgrade_from_empty_gives_the_declared_tables(database_url: str) -> None:
    """After all revisions, an empty database differs in nothing from `db.metadata`."""
    engine = db.open_engine(database_url)
    assert not migrations.is_current(engine)
    migrations.upgrade(engine)
    with db.read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, db.metadata) == []
        tables = set(inspect(connection).get_table_names())
    assert tables == {*db.metadata.tables, "alembic_version"}
    assert migrations.is_current(engine)


def test_upgrade_twice_changes_nothing(database_url: str) -> None:
    """A database at the newest revision is left alone, rows included."""
    engine = db.open_engine(database_url)
    migrations.upgrade(engine)
    with db.write(engine) as connection:
        connection.execute(db.account.insert().values(id="a" * 32, login="ada", created=1))
    migrations.upgrade(engine)
    with db.read(engine) as connection:
        assert connection.execute(db.account.select()).mappings().one()["login"] == "ada"


def test_the_declared_tables_and_the_migrated_ones_are_the_same_sql(tmp_path: Path) -> None:
    """Columns with defaults, constraints and indexes come out of the revisions as declared."""
    migrated = db.open_engine(f"sqlite:///{tmp_path / 'migrated.sqlite'}")
    migrations.upgrade(migrated)
    declared = db.open_engine(f"sqlite:///{tmp_path / 'declared.sqlite'}")
    db.metadata.create_all(declared)
    for table in db.metadata.tables:
        for ask in (
            "get_columns",
            "get_unique_constraints",
            "get_foreign_keys",
            "get_indexes",
            "get_pk_constraint",
        ):
            one, other = (getattr(inspect(engine), ask)(table) for engine in (migrated, declared))
            assert _sorted(one) == _sorted(other), (table, ask)


def test_files_logged_before_revision_3_get_their_rows(database_url: str) -> None:
    """What the rules' state knows of namespaces is found by hash after the upgrade; nothing of the default one is."""
    engine = db.open_engine(database_url)
    migrations.upgrade(engine, "0002")
    with db.write(engine) as connection:
        for namespace, number in (("corp", 7), ("", 8)):
            key = encode_key(("file", namespace, "widget", f"widget-{number}.tar.gz"))
            value = jsontext.encode({"index": number, "sha256": f"{number}" * 64})
            connection.execute(db.rules_state.insert().values(key=key, value=value))
    migrations.upgrade(engine)
    with db.read(engine) as connection:
        (row,) = connection.execute(db.logged_elsewhere.select()).all()
    assert tuple(row) == ("corp", "widget", "widget-7.tar.gz", "7" * 64, 7)


def _sorted(found: object) -> object:
    return sorted(map(repr, found)) if isinstance(found, list) else repr(found)
