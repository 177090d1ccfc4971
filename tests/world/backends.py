"""Where a registry keeps its rows and bytes: SQLite or PostgreSQL, files or a bucket."""

from __future__ import annotations

from tests import postgres, s3


def settings_of(backend: str) -> dict[str, str]:
    """The environment of a registry on this backend."""
    settings = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}
    if "postgresql" in backend:
        settings["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
    if "s3" in backend:
        settings |= s3.server().world()
    return settings
