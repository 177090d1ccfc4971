"""Where a file of a namespace is logged: told by name and by hash, and nothing else is said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from countermark.tlog.tile import Tile
from countermark_server import db
from countermark_server.log.fsck import check_log
from countermark_server.published import Published
from tests.archives import wheel
from tests.doors import DoorWorld, Person
from tests.server.accounts.test_entries import batch, check_proof, enrol, one, published

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[DoorWorld]:
    """A registry whose namespace `corp` is Grace's, with three files of hers logged; on both databases."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        assert enrol(made, grace).status_code == 200
        answer = batch(made, [published(n, grace.key) for n in range(3)], grace.token)
        made.batched = answer.get_json()  # type: ignore[attr-defined]
        made.quiet()
        yield made
    made.close()


def ask(world: DoorWorld, path: str, **headers: str) -> Any:
    return world.client.get(f"/api/v1/logged/{path}", headers=headers)


def test_a_name_tells_index_and_static_files(world: DoorWorld) -> None:
    """In any spelling; the index is the one of the proof that holds, and the names are tiles that exist."""
    said = ask(world, "corp/Widget/widget-1.tar.gz").get_json()
    item = world.batched["entries"][1]  # type: ignore[attr-defined]
    check_proof(world, item, world.batched["checkpoint"])  # type: ignore[attr-defined]
    assert (said["index"], said["leaf_hash"]) == (item["index"], item["leaf_hash"])
    assert (said["sha256"], said["key_index"]) == (hashlib.sha256(b"1").hexdigest(), 4)
    size = world.head().tree_size
    assert world.client.get(f"/{said['checkpoint']}").status_code == 200
    for name in (said["bundle"], said["tile"]):
        assert Tile.parse(name.removeprefix("log/")).full
        assert world.client.get(f"/{name}.p/{size}").status_code == 200


def test_a_hash_tells_every_name_it_was_logged_under(world: DoorWorld) -> None:
    """Anybody may log the same bytes in a namespace of theirs: all are told, the oldest first, and none is judged."""
    eve = world.person("eve")
    assert enrol(world, eve, "evil").status_code == 200
    assert one(world, published(1, eve.key, namespace="evil"), eve.token).status_code == 200
    world.quiet()
    said = ask(world, hashlib.sha256(b"1").hexdigest()).get_json()
    assert [each["namespace"] for each in said["entries"]] == ["corp", "evil"]
    assert said["entries"][0] == ask(world, "corp/widget/widget-1.tar.gz").get_json()
    assert ask(world, "00" * 32).get_json() == {"sha256": "00" * 32, "entries": []}


@pytest.mark.parametrize(
    "path",
    [
        "corp/widget/widget-9.tar.gz",
        "evil/widget/widget-1.tar.gz",
        "corp/other/widget-1.tar.gz",
        "XY",
        "corp/-/x",
    ],
)
def test_what_is_not_there_is_404_and_never_cached(world: DoorWorld, path: str) -> None:
    """Another namespace or project under the same file name is another file."""
    answer = ask(world, path)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not-found")
    assert answer.headers["Cache-Control"] == "no-store"


def test_files_of_the_default_namespace_are_not_here(world: DoorWorld) -> None:
    """They come in by upload, and their door says what became of them."""
    grace: Person = world.grace  # type: ignore[attr-defined]
    grace.enrol("demo")
    grace.upload(WHEEL, wheel(), attestations=grace.attest(WHEEL, wheel()))
    world.quiet()
    assert world.client.get(f"/api/v1/files/demo/{WHEEL}").status_code == 200
    assert ask(world, hashlib.sha256(wheel()).hexdigest()).get_json()["entries"] == []


def test_an_entry_is_told_once_it_is_public(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequenced is not published: nobody could prove it yet."""

    class Small:
        size = world.batched["entries"][1]["index"]  # type: ignore[attr-defined]

    monkeypatch.setattr(Published, "checkpoint", lambda _: Small)
    assert ask(world, "corp/widget/widget-0.tar.gz").status_code == 200
    assert ask(world, "corp/widget/widget-1.tar.gz").status_code == 404
    assert ask(world, hashlib.sha256(b"1").hexdigest()).get_json()["entries"] == []


def test_answers_are_cached_for_a_minute_under_an_etag(world: DoorWorld) -> None:
    """304 while nothing changed; the tag is of the bytes, so another entry of the same hash changes it."""
    by_name, by_hash = "corp/widget/widget-1.tar.gz", hashlib.sha256(b"1").hexdigest()
    tags = {path: ask(world, path).headers["ETag"] for path in (by_name, by_hash)}
    for path, tag in tags.items():
        answer = ask(world, path)
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        again = ask(world, path, **{"If-None-Match": tag})
        assert (again.status_code, again.data) == (304, b"")
        assert ask(world, path, **{"If-None-Match": '"other"'}).status_code == 200
    eve = world.person("eve")
    enrol(world, eve, "evil")
    one(world, published(1, eve.key, namespace="evil"), eve.token)
    world.quiet()
    assert ask(world, by_name).headers["ETag"] == tags[by_name]
    assert ask(world, by_hash).headers["ETag"] != tags[by_hash]


def test_the_table_says_what_the_rules_state_says(world: DoorWorld) -> None:
    """A row for every file of a namespace, and for no other; what happens to a file later adds none."""
    world.check()
    with db.read(world.engine) as connection:
        rows = [dict(row) for row in connection.execute(select(db.logged_elsewhere)).mappings()]
    assert [(row["namespace"], row["project"], row["filename"]) for row in rows] == [
        ("corp", "widget", f"widget-{n}.tar.gz") for n in range(3)
    ]
    assert [row["leaf_index"] for row in rows] == [5, 6, 7]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM logged_elsewhere WHERE leaf_index = 6",
        "UPDATE logged_elsewhere SET sha256 = '00' WHERE leaf_index = 6",
        "UPDATE logged_elsewhere SET leaf_index = 9 WHERE leaf_index = 6",
        "INSERT INTO logged_elsewhere VALUES ('corp', 'widget', 'more-1.tar.gz', '00', 6)",
    ],
)
def test_fsck_names_a_row_that_the_entries_do_not_make(world: DoorWorld, change: str) -> None:
    """A row that is missing, altered or invented would send a verifier to the wrong entry, or to none."""
    assert check_log(world.public, world.engine, world.trust) == []
    with db.write(world.engine) as connection:
        connection.execute(text(change))
    (found,) = check_log(world.public, world.engine, world.trust)
    assert found.startswith("the look-up of corp/widget/")
