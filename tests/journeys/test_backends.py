"""The whole story where nothing is on this machine's disk: PostgreSQL, S3-compatible storage, and both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres, s3
from tests.world.world import World, as_json, fresh

PROJECT = "hello-countermark"


def settings_of(backend: str) -> dict[str, str]:
    """The environment of a registry on this backend."""
    settings = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}
    if "postgresql" in backend:
        settings["COUNTERMARK_DATABASE_URL"] = postgres.server().database()
    if "s3" in backend:
        settings |= s3.server().world()
    return settings


@pytest.fixture(
    params=[
        "postgresql s3",
        pytest.param("postgresql files", marks=pytest.mark.exhaustive),
        pytest.param("sqlite s3", marks=pytest.mark.exhaustive),
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An initialised registry and a finished ceremony, on this backend."""
    with fresh(tmp_path / "world", settings=settings_of(request.param)) as world:
        world.init()
        yield world


def test_twine_publishes_and_verify_accepts_across_restart_and_loss(world: World) -> None:
    """`init` and `up`, unmodified twine, the client's proof; stopped, and its database lost, the same log goes on."""
    ceremony = world.ceremony()
    world.up("--ceremony", ceremony)
    world.login("alice", world.words(ceremony))

    def publish(version: str, project: str = PROJECT) -> Path:
        dist = world.project(project, version)
        world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
        world.run(
            "twine", "upload", "--non-interactive", "--attestations",
            "--repository-url", f"{world.url}/legacy/", "-u", "__token__", "-p", world.token(),
            *sorted(dist.iterdir()),
        )  # fmt: skip
        wheel = next(dist.glob("*.whl"))
        assert "listed" in world.run("countermark", "status", "--wait", wheel).out
        return wheel

    first = publish("1.0.0")
    assert as_json(world.run("countermark", "verify", "--json", first))["verified"] is True
    size = world.size()
    world.down()
    assert "no findings" in world.operator("fsck").err
    world.up()
    assert world.size() >= size
    second = publish("1.0.1")
    for wheel in (first, second):
        assert as_json(world.run("countermark", "verify", "--json", wheel))["verified"] is True
    world.down()
    assert "no findings" in world.operator("fsck").err
    # What the settings send elsewhere is nowhere here.
    if "COUNTERMARK_STORAGE_BUCKET" in world.settings:
        assert not (world.data / "public").exists() and not (world.data / "blobs").exists()
        contents = s3.server().contents(world.settings["COUNTERMARK_STORAGE_PREFIX"])
        assert "public/log/checkpoint" in contents and "public/tuf/timestamp.json" in contents
    if "COUNTERMARK_DATABASE_URL" in world.settings:
        assert not (world.data / "registry.sqlite").exists()
    # The database is lost. What follows from the tree comes back, and who was who does not.
    page = lose_database(world)
    rebuilt = as_json(world.operator("rebuild", "--json"))
    assert rebuilt["entries"] == rebuilt["tree_size"] and rebuilt["submissions"] == 4
    assert "no findings" in world.operator("fsck").err
    world.up()
    for wheel in (first, second):
        assert as_json(world.run("countermark", "verify", "--json", wheel))["verified"] is True
        assert "listed" in world.run("countermark", "status", "--wait", wheel).out
    assert page == world.get(f"/simple/{PROJECT}/")
    (lost,) = rebuilt["accounts"]  # type: ignore[misc]
    world.run("countermark-server", "account", "name", "--data", world.data, lost, "alice", **world.settings)
    world.login("alice", world.words(ceremony))
    third = publish("1.0.0", "another-project")
    assert as_json(world.run("countermark", "verify", "--json", third))["verified"] is True
    assert world.run("countermark", "audit", world.url).code == 0
    world.down()
    assert "no findings" in world.operator("fsck").err


def lose_database(world: World) -> bytes:
    """Every row is gone; returns the simple page as it was before."""
    world.up()
    page = world.get(f"/simple/{PROJECT}/")
    world.down()
    if url := world.settings.get("COUNTERMARK_DATABASE_URL"):
        postgres.server().create(url)
    else:
        for path in world.data.glob("registry.sqlite*"):
            path.unlink()
    return page
