"""Databases for tests of the server: SQLite and PostgreSQL run the same tests.

    pytestmark = pytest.mark.usefixtures("database")     # every test of a module runs on both

A world (tests/log_world.py) takes its database from the environment, as the service does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which database this test's world lives in."""
    kind: str = request.param
    if kind == "postgresql":
        monkeypatch.setenv("COUNTERMARK_DATABASE_URL", postgres.server().database())
    return kind


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "postgresql":
        return postgres.server().database()
    return f"sqlite:///{tmp_path / 'x.sqlite'}"
