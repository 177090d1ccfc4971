"""Serials: every change of a page draws a larger one, in the order of commits; and what mirrors read by them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from countermark_server import db, serials
from countermark_server.index.advisories import Advisories
from tests.archives import sdist, wheel
from tests.doors import DoorWorld

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-2.0rc1.tar.gz"
EXTRA = "Requires-Python: >=3.9\nSummary: a demonstration\nProject-URL: Home, https://demo.example\n"
DECISION = {"about": None, "evidence_sha256": None}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An empty database of either kind."""
    made = db.open_engine(database_url)
    db.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A listed wheel and a listed pre-release."""
    made = DoorWorld(tmp_path)
    with made.run():
        grace = made.person("grace")
        for name, data in ((WHEEL, wheel(extra=EXTRA)), (SDIST, sdist(version="2.0rc1"))):
            assert grace.upload(name, data).status_code == 200
            made.set_state(name, state="listed")
        yield made
    made.close()


def get(world: DoorWorld, path: str) -> Any:
    answer = world.client.get(path, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.get_data()
    return answer.get_json(force=True)


def test_serials_only_rise_and_follow_the_clock(engine: Engine) -> None:
    """Also when the clock stands still, or goes back; two projects of one transaction have one each."""
    with db.write(engine) as connection:
        serials.touch(connection, ["b", "a", "a"], now=1000)
        assert serials.listed(connection) == [("a", 1_000_001), ("b", 1_000_002)]
        serials.touch(connection, ["b"], now=1000)
        serials.touch(connection, ["a"], now=1)
        serials.touch(connection, [], now=9999)
        assert (serials.of(connection, "b"), serials.of(connection, "a")) == (1_000_003, 1_000_004)
        assert serials.newest(connection) == 1_000_004 and serials.of(connection, "c") == 0
        serials.touch(connection, ["c"], now=2000)
        assert serials.of(connection, "c") == serials.newest(connection) == 2_000_001


def test_nobody_commits_a_smaller_serial_later(engine: Engine) -> None:
    """Who draws waits until the one before has committed: a mirror that saw the larger one has missed nothing."""
    order, drawn = list[str](), threading.Event()

    def second() -> None:
        drawn.wait(20)
        with db.write(engine) as connection:
            serials.touch(connection, ["second"], now=1)
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with db.write(engine) as connection:
        serials.touch(connection, ["first"], now=1)
        drawn.set()
        time.sleep(0.2)
        order.append("first")
    thread.join(20)
    with db.read(engine) as connection:
        assert serials.listed(connection) == [("first", 1001), ("second", 1002)]
    assert order == ["first", "second"]


def test_every_change_of_a_page_is_a_larger_serial(world: DoorWorld) -> None:
    """Yank, unyank, hold, clear, takedown, remove; a new upload that is not listed yet changes no page."""
    seen = [get(world, "/simple/demo/")["meta"]["_last-serial"]]
    for kind, reason in (
        ("yank", "broken"), ("unyank", "fixed"), ("hold", "report"), ("clear", "reviewed"),
        ("takedown", "malware"), ("clear", "appeal-upheld"), ("remove", "mistake"),
    ):  # fmt: skip
        world.decide(kind, WHEEL, reason=reason, **({} if kind in ("yank", "unyank", "remove") else DECISION))
        answer = world.client.get("/simple/demo/", headers={"Accept": "application/json"})
        seen.append(int(answer.headers["X-PyPI-Last-Serial"]))
        assert answer.get_json(force=True)["meta"]["_last-serial"] == seen[-1]
        listed = get(world, "/simple/")
        assert listed["projects"] == [{"_last-serial": seen[-1], "name": "demo"}]
        assert listed["meta"]["_last-serial"] == seen[-1]
    assert seen == sorted(set(seen))
    assert world.person("ada").upload("fresh-1.0.tar.gz", sdist(name="fresh")).status_code == 200
    assert get(world, "/simple/")["meta"]["_last-serial"] == seen[-1]


def test_a_project_as_one_document(world: DoorWorld) -> None:
    """The newest version that is no pre-release in `info`, from the file's METADATA; whole addresses; every file."""
    answer = world.client.get("/pypi/demo/json")
    found = answer.get_json()
    assert int(answer.headers["X-PyPI-Last-Serial"]) == found["last_serial"] > 0 and answer.headers["ETag"]
    info = found["info"]
    assert (info["name"], info["version"], info["summary"]) == ("demo", "1.0", "a demonstration")
    assert info["requires_python"] == ">=3.9" and info["project_urls"] == {"Home": "https://demo.example"}
    assert list(found["releases"]) == ["1.0", "2.0rc1"] and found["urls"] == found["releases"]["1.0"]
    (file,) = found["urls"]
    assert (
        file["url"] == f"http://registry.test/packages/demo/{WHEEL}" and file["packagetype"] == "bdist_wheel"
    )
    assert (
        file["core-metadata"]["sha256"] and file["upload_time_iso_8601"].endswith("Z") and not file["yanked"]
    )
    assert world.client.get(f"/packages/demo/{WHEEL}").get_etag()[0] == file["digests"]["sha256"]
    one = get(world, "/pypi/demo/2.0rc1/json")
    assert one["info"]["version"] == "2.0rc1" and "releases" not in one
    assert world.client.get("/pypi/Demo/json").headers["Location"] == "/pypi/demo/json"
    assert world.client.get("/pypi/nothing/json").status_code == 404
    assert world.client.get("/pypi/demo/3.0/json").status_code == 404


def test_what_a_document_says_of_a_file_is_said_in_its_own_letters(tmp_path: Path) -> None:
    """METADATA is UTF-8."""
    made = DoorWorld(tmp_path)
    with made.run():
        extra = "Summary: caf\u00e9 \u6f22\nKeywords: \u00fc\n"
        assert made.person("grace").upload(WHEEL, wheel(extra=extra)).status_code == 200
        made.set_state(WHEEL, state="listed")
        info = get(made, "/pypi/demo/json")["info"]
    made.close()
    assert (info["summary"], info["keywords"]) == ("caf\u00e9 \u6f22", "\u00fc")


def test_a_project_without_files_is_an_empty_document(world: DoorWorld) -> None:
    """Not a 404, of which mirrors make nothing; the serial is larger than that of the day it had files."""
    before = get(world, "/pypi/demo/json")["last_serial"]
    for name in (WHEEL, SDIST):
        world.decide("takedown", name, reason="malware", **DECISION)
    found = get(world, "/pypi/demo/json")
    assert found["releases"] == {} and found["urls"] == [] and found["last_serial"] > before


def test_advisories_are_told_of_versions_and_withdrawn_when_cleared(world: DoorWorld) -> None:
    """OSV's three doors say what the log's entry says, and nothing of what we know nothing about."""
    package = {"ecosystem": "PyPI", "name": "Demo"}
    index = world.decide("takedown", WHEEL, reason="malware", **DECISION)
    other = world.decide("hold", SDIST, reason="legal", **DECISION)
    asked = [
        {"package": package, "version": "1.0"},
        {"package": package, "version": "9"},
        {"package": {"ecosystem": "npm", "name": "demo"}, "version": "1.0"},
        {"package": {"purl": "pkg:pypi/demo@2.0rc1"}},
    ]
    results = world.client.post("/v1/querybatch", json={"queries": asked}).get_json()["results"]
    name = f"MAL-2026-CM-{index}"
    assert [[one["id"] for one in each.get("vulns", [])] for each in results] == [
        [name],
        [],
        [],
        [f"CM-{other}"],
    ]
    one = get(world, f"/v1/vulns/{name}")
    assert world.client.post("/v1/query", json=asked[0]).get_json() == {"vulns": [one]}
    assert one["affected"][0]["versions"] == ["1.0"] and one["affected"][0]["package"]["name"] == "demo"
    assert one["database_specific"]["countermark"]["index"] == index and "withdrawn" not in one
    assert one["modified"] == results[0]["vulns"][0]["modified"] and f"entry {index}" in one["details"]
    assert get(world, "/pypi/demo/json")["vulnerabilities"] == []  # no version of it can be had
    for path in ("/v1/vulns/CM-1", f"/v1/vulns/CM-{index}", "/v1/vulns/nothing", "/v1/vulns/CM-999999"):
        assert world.client.get(path).get_json()["code"] == "not-found", path
    world.decide("clear", WHEEL, reason="appeal-upheld", **DECISION)
    assert world.client.post("/v1/query", json=asked[0]).get_json() == {}
    assert get(world, f"/v1/vulns/{name}")["withdrawn"].endswith("Z")


@pytest.mark.parametrize(
    "body",
    [b"no JSON", b"[]", b'{"queries":{}}', b'{"queries":[1]}', b'{"queries":[{"package":{"ecosystem":"PyPI"}}]}',
     b'{"queries":[' + b"{}," * 1001 + b"{}]}"],
)  # fmt: skip
def test_a_query_that_is_none_is_refused_in_words(world: DoorWorld, body: bytes) -> None:
    """400 with the form that is wanted; nothing is guessed."""
    answer = world.client.post("/v1/querybatch", data=body)
    assert answer.status_code == 400 and answer.get_json()["code"] == "bad-request"


def test_what_a_stranger_asks_costs_the_releases_asked_about(world: DoorWorld) -> None:
    """Of many versions of many projects, whether there are such or not, no other release is read."""
    read = list[str]()

    def noting(connection: Any, _: Any, statement: str, given: Any, *__: Any) -> None:
        if "submission.version" in statement:
            rows = connection.connection.cursor().execute(statement, given).fetchall()
            read.extend(value for row in rows for value in row if value in {"1.0", "2.0rc1"})

    index = world.decide("takedown", WHEEL, reason="malware", **DECISION)
    asked = [("demo", "1.0"), ("demo", "9"), *((f"p{number}", f"{number}.0") for number in range(2, 350))]
    event.listen(world.engine, "before_cursor_execute", noting)
    found = Advisories(world.engine, origin="x", base_url="y").of(asked)
    event.remove(world.engine, "before_cursor_execute", noting)
    assert [one["database_specific"]["countermark"]["index"] for one in found[0]] == [index]
    assert not any(found[1:]) and read == ["1.0"]


@pytest.mark.usefixtures("database")
def test_a_version_that_none_could_have_is_none(tmp_path: Path) -> None:
    """No advisory, and no question that a database refuses."""
    made = DoorWorld(tmp_path)
    for version in ("%00", "1.0%00", "1.0%0A"):
        query = {"package": {"purl": f"pkg:pypi/demo@{version}"}}
        assert made.client.post("/v1/query", json=query).get_json(force=True) == {}
        batch = made.client.post("/v1/querybatch", json={"queries": [query]})
        assert batch.status_code == 200 and batch.get_json(force=True) == {"results": [{}]}
    for version in ("\0", "\ud800"):
        query = {"package": {"ecosystem": "PyPI", "name": "demo"}, "version": version}
        answer = made.client.post("/v1/query", data=json.dumps(query))
        assert answer.status_code == 400 and answer.get_json(force=True)["code"] == "bad-request"
    made.close()
