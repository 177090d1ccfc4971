"""A process whose database connections are all taken says so, and says when to come back."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import flask
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

from countermark_server import errors


def test_no_free_database_connection_is_503_with_retry_after(tmp_path: Path) -> None:
    """Never 500, after which twine sends the whole file again at once; nothing was begun."""
    engine = create_engine(
        f"sqlite:///{tmp_path / 'x.sqlite'}",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.01,
    )
    app = flask.Flask("x")
    log = Mock()
    errors.install(app, "https://registry.test", log)

    @app.get("/")
    def _ask() -> str:
        with engine.connect() as connection:
            return str(connection.execute(text("SELECT 1")).scalar_one())

    client = app.test_client()
    with engine.connect():
        answer = client.get("/")
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.get_json(force=True)["code"] == "unavailable"
    log.error.assert_called_once()
    assert client.get("/").get_data(as_text=True) == "1"
    engine.dispose()
