"""Databases for tests of the server: SQLite and PostgreSQL run the same tests.

    pytestmark = pytest.mark.usefixtures("database")     # every test of a module runs on both

A world (tests/log_world.py) takes its database from the environment, as the service does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import postgres, s3


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which database this test's world lives in."""
    return _settle(request.param, monkeypatch)


@pytest.fixture(params=["sqlite files", "postgresql files", "sqlite s3", "postgresql s3"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which database and which storage this test's world lives in: all four."""
    return _settle(request.param, monkeypatch)


@pytest.fixture(params=["sqlite files", "postgresql s3"])
def either_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything on this machine, or nothing of it."""
    return _settle(request.param, monkeypatch)


def _settle(kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
    if "postgresql" in kind:
        monkeypatch.setenv("COUNTERMARK_DATABASE_URL", postgres.server().database())
    if "s3" in kind:
        for name, value in s3.server().world().items():
            monkeypatch.setenv(name, value)
    return kind


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "postgresql":
        return postgres.server().database()
    return f"sqlite:///{tmp_path / 'x.sqlite'}"
