"""Migrations: how the tables came to be what `db.metadata` says, in steps that never change again.

    upgrade(engine)     # what `init` and `up` call: from nothing, or from any older revision, to the newest

A revision that was released is not edited; a change is a new revision. SQLite cannot alter a table in place,
so revisions use Alembic's batch mode. A test upgrades an empty database and compares it with `db.metadata`.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from countermark_server import db, postgresql


def upgrade(engine: Engine, to: str = "head") -> None:
    """Bring the database to the newest revision, or to an older one, for tests of the steps behind it."""
    with db.write(engine) as connection:
        if engine.dialect.name == "postgresql":
            postgresql.lock_migrations(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def is_current(engine: Engine) -> bool:
    """Whether the database is at the newest revision."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with db.read(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision() == newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
