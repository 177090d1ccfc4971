"""The client matrix: twine, uv, poetry, hatch and flit as they are, on plain HTTP and on TLS.

Each one publishes a project whose statements went ahead (`countermark sign --submit`), and each refusal reaches the
person in front of it in our words. After every refusal the log is as large as it was.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.pinned import CLIENTS, version
from tests.clients.uploading import Target, make_project, said, upload
from tests.deploy.front import Front
from tests.deploy.privateca import make_certificate
from tests.world.world import Done, World, as_json, free_port, fresh

MAX_BYTES = 30_000


@dataclass(frozen=True)
class Registry:
    """A registry with one door on plain HTTP and one on TLS, and the people at it."""

    world: World
    doors: dict[str, Target]
    token: str

    def publish(self, client: str, door: str, folder: Path, token: str | None = None) -> Done:
        return upload(client, self.world, folder, self.doors[door], token or self.token)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("clients")
    settings = {
        "COUNTERMARK_TUF_MIN_INTERVAL": "0.2",
        "COUNTERMARK_UPLOAD_MAX_BYTES": str(MAX_BYTES),
        "COUNTERMARK_LIMITS_ENTRIES_A_DAY": "1000",
    }
    with fresh(root / "world", settings=settings) as world:
        world.up("--trial")
        authority, chain, key = make_certificate(root)
        port = free_port()
        front = Front(
            root / "nginx", port, world.data / "public", f"127.0.0.1:{world.port}", certificate=(chain, key)
        )
        with front.running():
            world.login("alice", world.words(world.data / "ceremony"))
            doors = {
                "http": Target(f"{world.url}/legacy/"),
                "tls": Target(f"https://localhost:{port}/legacy/", authority),
            }
            yield Registry(world, doors, world.token())


@pytest.fixture(scope="module")
def others(registry: Registry) -> dict[str, str]:
    """Tokens that are good for something else: nobody's, another project's, of who has had enough today."""
    world = registry.world
    world.login("dora", world.words(world.data / "ceremony"), home="dora")
    with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as rows:
        (dora,) = rows.execute("SELECT id FROM account WHERE login = 'dora'").fetchone()
        today = int(time.time()) // 86_400
        rows.execute(
            "INSERT INTO spending (kind, name, shard, bytes, day, entries, projects)"
            " VALUES ('account', ?, 16, 0, ?, 1000, 0)",
            (dora, today),
        )
    made = world.run("countermark", "tokens", "make", "elsewhere", "--project", "somewhere-else")
    return {
        "unknown": "cmu_" + "A" * 43,
        "elsewhere": made.out.strip(),
        "dora": world.token(home="dora"),
    }


@pytest.fixture(scope="module")
def projects(registry: Registry) -> dict[str, Path]:
    """What is refused, built once for all clients; `taken` is published, signed, as version 1.0."""
    world = registry.world
    first = make_project(world, "taken")
    world.run("countermark", "sign", "--yes", "--submit", *sorted((first / "dist").iterdir()))
    must_pass(registry.publish("twine", "http", first))
    noise = "".join(f"{n * 2654435761 % 2**32:08x}" for n in range(20_000))
    return {
        "again": first,
        "other bytes": make_project(world, "taken", says="else"),
        "unsigned": make_project(world, "taken", "1.1"),
        "new": make_project(world, "brand-new"),
        "like another": make_project(world, "json"),
        "large": make_project(world, "large", says=noise),
    }


@pytest.fixture(scope="module")
def size(registry: Registry, projects: dict[str, Path], others: dict[str, str]) -> int:
    """The log's size once all of that is listed and publishing has come to rest."""
    looks = [-1, -2, -3]
    while len(set(looks[-3:])) > 1:
        time.sleep(0.7)
        looks.append(registry.world.size())
    return looks[-1]


def must_pass(done: Done) -> None:
    assert done.code == 0, done.said


def test_the_versions_are_the_pinned_ones() -> None:
    """Printed, so that a run says what it was about."""
    for client in CLIENTS:
        print(client, version(client))


@pytest.mark.parametrize("door", ["http", "tls"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_signed_upload(registry: Registry, client: str, door: str) -> None:
    """Signed ahead, uploaded by an unmodified client, taken again without a second entry, verified as signed."""
    world = registry.world
    folder = make_project(world, f"{client}-by-{door}")
    files = sorted((folder / "dist").iterdir())
    world.run("countermark", "sign", "--yes", "--submit", *files)
    for attestation in (folder / "dist").glob("*.attestation"):
        attestation.unlink()  # uv would send them
    must_pass(registry.publish(client, door, folder))
    states = as_json(world.run("countermark", "status", "--wait", "--json", *files))["artifacts"]
    must_pass(registry.publish(client, door, folder))
    assert as_json(world.run("countermark", "status", "--json", *files))["artifacts"] == states
    for result in as_json(world.run("countermark", "verify", "--json", *files))["artifacts"]:  # type: ignore[attr-defined]
        assert result["verified"] is True and result["signed_by"]["party"] == "publisher", result


REFUSALS = {
    "unknown token": ("new", "unknown", "401", "token is not known here"),
    "token of another project": ("new", "elsewhere", "403", "is for somewhere-else, not for brand-new"),
    "allowance spent": ("new", "dora", "429", "1000 entries by this account today"),
    "not an owner": ("unsigned", "dora", "403", "this account is no owner of 'taken'"),
    "unsigned": ("unsigned", None, "400", "its project signs: `countermark sign --submit dist/*`"),
    "other bytes": ("other bytes", None, "400", "File already exists"),
    "name like another": ("like another", None, "400", "reads like a module of Python"),
    "too large": ("large", None, "413", f"more than {MAX_BYTES} bytes"),
}
AS_ANOTHER = (
    "not an owner",
    "name like another",
)  # in CI another refusal of the same status stands for these
DOORS = [
    pytest.param("http", refusal, marks=[pytest.mark.exhaustive] if refusal in AS_ANOTHER else [])
    for refusal in REFUSALS
] + [("tls", "unsigned")]


@pytest.mark.parametrize(("door", "refusal"), DOORS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_read_by_a_person(  # noqa: PLR0917
    registry: Registry,
    projects: dict[str, Path],
    others: dict[str, str],
    client: str,
    door: str,
    refusal: str,
    size: int,
) -> None:
    """The client fails, prints our reason and the status, and the log has not grown."""
    what, whose, status, words = REFUSALS[refusal]
    done = registry.publish(client, door, projects[what], others[whose] if whose else None)
    assert done.code != 0, done.said
    assert words.replace(" ", "") in said(done), done.said
    assert status in done.said, done.said
    assert registry.world.size() == size
