"""A registry for each file of tests/deploy: a trial of six processes, behind nginx with the shipped files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.front import Front
from tests.world.world import World, free_port, fresh


@dataclass(frozen=True)
class House:
    """The registry behind nginx: `world.url` is nginx, `web` is gunicorn's port."""

    world: World
    front: Front
    web: int
    words: str

    @property
    def public(self) -> Path:
        return self.world.data / "public"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A publisher has signed in, through nginx; nothing is uploaded yet."""
    front, web = free_port(), free_port()
    settings = {
        "COUNTERMARK_TUF_MIN_INTERVAL": "0.2",
        "COUNTERMARK_REGISTRY_BASE_URL": f"http://127.0.0.1:{front}",
        "COUNTERMARK_UPLOAD_MAX_BYTES": "1000000",
    }
    root = tmp_path_factory.mktemp("deploy")
    with fresh(root / "world", settings=settings, port=web) as world:
        world.up("--trial")
        world.port = front
        nginx = Front(root / "nginx", front, world.data / "public", f"127.0.0.1:{web}")
        with nginx.running():
            words = next(
                line.partition("root words: ")[2]
                for line in world.log_tail().splitlines()
                if "root words: " in line
            )
            world.login("alice", words)
            yield House(world, nginx, web, words)


@pytest.fixture(scope="module")
def published(house: House) -> Path:
    """A wheel that unmodified twine published through nginx, signed, and listed by now."""
    world = house.world
    dist = world.project("through-nginx")
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    world.run(
        "twine", "upload", "--non-interactive", "--attestations", "--repository-url", f"{world.url}/legacy/",
        "-u", "__token__", "-p", world.token(), *sorted(dist.iterdir()),
    )  # fmt: skip
    wheel = next(dist.glob("*.whl"))
    assert "listed" in world.run("countermark", "status", "--wait", wheel).out
    return wheel
