"""The whole story on PostgreSQL, S3-compatible storage, and both; a database lost and rebuilt, a log frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres, s3
from tests.world.backends import settings_of
from tests.world.world import World, as_json, fresh

PROJECT = "hello-countermark"


ELSEWHERE = pytest.mark.parametrize(
    "backend",
    [
        "postgresql s3",
        pytest.param("postgresql files", marks=pytest.mark.exhaustive),
        pytest.param("sqlite s3", marks=pytest.mark.exhaustive),
    ],
)
ANYWHERE = pytest.mark.parametrize("backend", ["sqlite files", "postgresql s3"])


@pytest.fixture
def world(backend: str, tmp_path: Path) -> Iterator[World]:
    """A registry on this backend after its ceremony, running, and a publisher who signed in."""
    with fresh(tmp_path / "world", settings=settings_of(backend)) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        world.login("alice", world.words(ceremony))
        yield world


def publish(world: World, version: str, project: str = PROJECT) -> Path:
    """A wheel and an sdist, signed and uploaded with unmodified twine, until they are listed."""
    dist = world.project(project, version)
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    world.run(
        "twine", "upload", "--non-interactive", "--attestations",
        "--repository-url", f"{world.url}/legacy/", "-u", "__token__", "-p", world.token(),
        *sorted(dist.iterdir()),
    )  # fmt: skip
    wait_until_listed(world, dist)
    return next(dist.glob("*.whl"))


def wait_until_listed(world: World, dist: Path) -> None:
    """Both files: a page shows each as soon as it is listed."""
    files = [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]
    assert len(files) == 2
    for file in files:
        assert "listed" in world.run("countermark", "status", "--wait", file).out


def verifies(world: World, *wheels: Path) -> bool:
    results = [as_json(world.run("countermark", "verify", "--json", wheel)) for wheel in wheels]
    return all(result["verified"] is True for result in results)


@ELSEWHERE
def test_twine_publishes_and_verify_accepts_across_a_restart(world: World) -> None:
    """`init` and `up`, unmodified twine, the client's proof; stopped and started, the same log goes on."""
    first = publish(world, "1.0.0")
    assert verifies(world, first)
    size = world.size()
    world.down()
    assert "no findings" in world.operator("fsck").err
    world.up()
    assert world.size() >= size
    assert verifies(world, first, publish(world, "1.0.1"))
    world.down()
    assert "no findings" in world.operator("fsck").err
    # What the settings send elsewhere is nowhere here.
    if "COUNTERMARK_STORAGE_BUCKET" in world.settings:
        assert not (world.data / "public").exists() and not (world.data / "blobs").exists()
        contents = s3.server().contents(world.settings["COUNTERMARK_STORAGE_PREFIX"])
        assert "public/log/checkpoint" in contents and "public/tuf/timestamp.json" in contents
    if "COUNTERMARK_DATABASE_URL" in world.settings:
        assert not (world.data / "registry.sqlite").exists()


@pytest.mark.exhaustive
@ANYWHERE
@pytest.mark.timeout(900)  # four starts of six processes
def test_a_lost_database_is_rebuilt_and_the_log_frozen(world: World) -> None:
    """What follows from the tree comes back, who was who does not; frozen, everything is served and nothing taken."""
    first = publish(world, "1.0.0")
    page = lose_database(world)
    rebuilt = as_json(world.operator("rebuild", "--json"))
    assert rebuilt["entries"] == rebuilt["tree_size"] and rebuilt["submissions"] == 2
    assert "no findings" in world.operator("fsck").err
    world.up()
    assert verifies(world, first)
    wait_until_listed(world, first.parent)
    before, after = json.loads(page), json.loads(world.get(f"/simple/{PROJECT}/"))
    assert before["meta"].pop("_last-serial") < after["meta"].pop("_last-serial")  # mirrors look again
    assert before == after
    (lost,) = rebuilt["accounts"]  # type: ignore[misc]
    world.run("countermark-server", "account", "name", "--data", world.data, lost, "alice", **world.settings)
    world.login("alice", world.words(world.root / "ceremony" / "out"))
    second = publish(world, "1.0.1")
    frozen = as_json(world.operator("freeze", "--reason", "retired", "--json"))
    assert frozen["tree_size"] == world.size() == int(str(frozen["entry"])) + 1
    refused = world.run(
        "twine", "upload", "--non-interactive", "--repository-url", f"{world.url}/legacy/",
        "-u", "__token__", "-p", world.token(), second, expect=1,
    )  # fmt: skip
    assert "409" in refused.said and "log-frozen" in "".join(refused.said.split())
    assert verifies(world, first, second)
    assert world.run("countermark", "audit", world.url).code == 0
    world.down()
    assert "no findings" in world.operator("fsck").err
    world.up()
    assert world.size() == frozen["tree_size"] and verifies(world, second)


def lose_database(world: World) -> bytes:
    """Every row is gone; returns the simple page as it was before."""
    page = world.get(f"/simple/{PROJECT}/")
    world.down()
    if url := world.settings.get("COUNTERMARK_DATABASE_URL"):
        postgres.server().create(url)
    else:
        for path in world.data.glob("registry.sqlite*"):
            path.unlink()
    return page
