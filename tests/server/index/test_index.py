"""The index: only what is listed is offered, names are parsed, headers promise what is true, nothing is written."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark.simplepage import JSON_TYPE, encode_page
from countermark.tlog.proof import TlogProof
from countermark_server import index
from tests.archives import metadata, sdist, wheel
from tests.doors import DoorWorld

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
JSON = {"Accept": "application/vnd.pypi.simple.v1+json, text/html; q=0.01"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """A registry with a listed wheel, and a source distribution on its way."""
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    grace = made.person("grace")
    with made.run():
        assert grace.upload(WHEEL, wheel(extra="Requires-Python: >=3.9\n")).status_code == 200
        assert grace.upload(SDIST, sdist()).status_code == 200
        made.quiet()
    made.set_state(WHEEL, state="listed")
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with one listed wheel, and its log at work."""
    made = DoorWorld(tmp_path)
    with made.run():
        assert made.person("grace").upload(WHEEL, wheel()).status_code == 200
        made.set_state(WHEEL, state="listed")
        yield made
    made.close()


def page(world: DoorWorld, path: str = "/simple/demo/") -> dict[str, Any]:
    answer = world.client.get(path, headers=JSON)
    assert answer.status_code == 200, answer.get_data()
    found: dict[str, Any] = answer.get_json()
    return found


def test_the_simple_page_says_all_that_installers_read(world: DoorWorld) -> None:
    """PEP 691 with hashes, size, upload time, requires-python, core metadata, yanked; and our own key."""
    answer = world.client.get("/simple/demo/", headers=JSON)
    assert answer.content_type == "application/vnd.pypi.simple.v1+json"
    assert answer.headers["Cache-Control"] == "public, max-age=60" and answer.headers["Vary"] == "Accept"
    body = answer.get_json(force=True)
    assert answer.get_data() == encode_page(body, JSON_TYPE)
    data = wheel(extra="Requires-Python: >=3.9\n")
    (row,) = [row for row in world.submissions() if row["served_name"] == WHEEL]
    assert body == {
        "meta": {"api-version": "1.4", "_last-serial": int(answer.headers["X-PyPI-Last-Serial"])},
        "name": "demo",
        "project-status": {"status": "active"},
        "versions": ["1.0"],
        "files": [
            {
                "filename": WHEEL,
                "url": f"../../packages/demo/{WHEEL}",
                "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                "size": len(data),
                "upload-time": "2026-09-21T14:13:20Z",
                "requires-python": ">=3.9",
                "core-metadata": {
                    "sha256": hashlib.sha256(metadata("demo", "1.0", "Requires-Python: >=3.9\n")).hexdigest()
                },
                "yanked": False,
                "provenance": None,
                "_countermark": {
                    "index": row["leaf_index"],
                    "leaf_hash": row["leaf_hash"],
                    "status": f"../../api/v1/files/demo/{WHEEL}",
                },
            }
        ],
    }
    again = world.client.get("/simple/demo/", headers={**JSON, "If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.get_data()
    serial = body["meta"]["_last-serial"]
    assert page(world, "/simple/")["projects"] == [{"_last-serial": serial, "name": "demo"}]


def test_a_known_project_without_listed_files_is_an_empty_page(world: DoorWorld) -> None:
    """Not a 404, since some installers go on to the next index; unknown projects are one."""
    for state in ("logged", "scanned", "cleared", "held", "rejected"):
        world.set_state(WHEEL, state=state)
        assert page(world)["files"] == []
        # It stays in the list, with a larger serial: mirrors learn that there is nothing any more.
        assert [each["name"] for each in page(world, "/simple/")["projects"]] == ["demo"]
    world.set_state(WHEEL, state="listed")
    assert world.client.get("/simple/unknown/", headers=JSON).get_json()["code"] == "not-found"
    assert world.client.get("/simple/-/", headers=JSON).get_json()["code"] == "not-found"


def test_entries_about_a_listed_file_act_at_once(fresh: DoorWorld) -> None:
    """Yank, hold, clear, takedown, remove: page and file door follow the log, and name the entry."""
    world, path = fresh, f"/packages/demo/{WHEEL}"

    def seen() -> tuple[list[Any], int, str]:
        status = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()["standing"]
        return [file["yanked"] for file in page(world)["files"]], world.client.get(path).status_code, status

    assert seen() == ([False], 200, "ok")
    index = world.decide("yank", WHEEL, reason="broken")
    assert seen() == ([f"yanked by entry {index} of the log (broken)"], 200, "yanked")
    shown = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
    assert shown["message"].startswith(f"yanked by entry {index} of the log (broken); listed")
    assert (shown["standing_entry"], shown["standing_reason"]) == (index, "broken")
    (listed,) = world.client.get("/api/v1/files/Demo").get_json()["files"]
    assert listed == {name: value for name, value in shown.items() if name not in ("proof", "attestations")}
    world.decide("unyank", WHEEL, reason="fixed")
    assert seen() == ([False], 200, "ok")
    about = {"about": None, "evidence_sha256": None}
    index = world.decide("hold", WHEEL, reason="report", **about)
    assert seen() == ([], 403, "held")
    assert f"by entry {index} of the log (report)" in world.client.get(path).get_json()["detail"]
    assert world.client.get(f"{path}.metadata").status_code == 403
    world.decide("clear", WHEEL, reason="reviewed", **about)
    assert seen() == ([False], 200, "ok")
    world.decide("takedown", WHEEL, reason="malware", **about)
    assert seen() == ([], 410, "removed")
    world.decide("clear", WHEEL, reason="appeal-upheld", **about)
    assert seen() == ([False], 200, "ok")
    index = world.decide("remove", WHEEL, reason="mistake")
    assert seen() == ([], 410, "removed")
    assert f"by entry {index} of the log (mistake)" in world.client.get(path).get_json()["detail"]


def test_other_spellings_lead_to_the_one_page(world: DoorWorld) -> None:
    """PEP 503: one redirect to the normalised name."""
    answer = world.client.get("/simple/DEMO/", headers=JSON)
    assert answer.status_code in (301, 302, 308) and answer.headers["Location"] == "/simple/demo/"
    assert world.client.get("/simple/demo", headers=JSON).headers["Location"].endswith("/simple/demo/")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("image/png", 406),
        ("application/json;q=0, text/html;q=nonsense", 406),
        ("*/*", 200),
        (None, 200),
        ("application/vnd.pypi.simple.v1+json, */*;q=0.1", 200),
        ("application/json", 200),
    ],
)
def test_who_takes_neither_form_is_told_so(world: DoorWorld, accept: str | None, status: int) -> None:
    """JSON unless something else is liked better; who takes neither gets a sentence, not an empty page."""
    answer = world.client.get("/simple/demo/", headers={} if accept is None else {"Accept": accept})
    assert answer.status_code == status
    if status == 406:
        assert answer.get_json()["code"] == "not-acceptable" and "JSON" not in answer.headers


def test_files_are_served_while_they_are_listed(world: DoorWorld) -> None:
    """Bytes and metadata, with an ETag and a minute of caching; ranges work."""
    answer = world.client.get(f"/packages/demo/{WHEEL}")
    data = wheel(extra="Requires-Python: >=3.9\n")
    assert answer.get_data() == data and answer.content_type == "application/octet-stream"
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    part = world.client.get(f"/packages/demo/{WHEEL}", headers={"Range": "bytes=2-9"})
    assert part.status_code == 206 and part.get_data() == data[2:10]
    inside = world.client.get(f"/packages/demo/{WHEEL}.metadata")
    assert inside.get_data() == metadata("demo", "1.0", "Requires-Python: >=3.9\n")


@pytest.mark.parametrize(
    ("columns", "status", "code"),
    [
        ({"state": "logged"}, 404, "not-listed"),
        ({"state": "cleared"}, 404, "not-listed"),
        ({"state": "held", "reason": "two rules fired"}, 403, "file-held"),
        ({"state": "rejected"}, 410, "file-removed"),
    ],
)
def test_a_file_that_is_not_listed_is_refused_with_its_reason(
    world: DoorWorld, columns: dict[str, Any], status: int, code: str
) -> None:
    """The reason phrase and the problem document say why; its state can be asked for at any time."""
    world.set_state(WHEEL, **{"reason": None, **columns})
    for path in (f"/packages/demo/{WHEEL}", f"/packages/demo/{WHEEL}.metadata"):
        answer = world.client.get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (status, code)
        assert answer.headers["Cache-Control"] == "no-store" and WHEEL in answer.status
        assert columns.get("reason", "") in answer.get_json()["detail"]
    shown = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
    assert shown["state"] == columns["state"] and shown["proof"] is not None
    world.set_state(WHEEL, state="listed", reason=None)


def test_a_tuf_target_is_served_by_its_hash_from_cleared_on(world: DoorWorld) -> None:
    """The path names project, hash and file; another hash or project is another target, which is not there."""
    data = wheel(extra="Requires-Python: >=3.9\n")
    digest = hashlib.sha256(data).hexdigest()
    path = f"/tuf/targets/files/demo/{digest}.{WHEEL}"
    for state in ("cleared", "listed"):
        world.set_state(WHEEL, state=state)
        assert world.client.get(path).get_data() == data
    world.set_state(WHEEL, state="logged")
    assert world.client.get(path).status_code == 404
    world.set_state(WHEEL, state="listed")
    for wrong in (
        f"/tuf/targets/files/demo/{'0' * 64}.{WHEEL}",
        f"/tuf/targets/files/other/{digest}.{WHEEL}",
        f"/tuf/targets/files/DEMO/{digest}.{WHEEL}",
        f"/tuf/targets/files/demo/{digest}.{SDIST}",
        f"/tuf/targets/files/demo/{WHEEL}",
    ):
        assert world.client.get(wrong).status_code == 404, wrong


def test_the_state_of_a_file_comes_with_a_proof(world: DoorWorld) -> None:
    """In any spelling of its name; the proof names the entry."""
    for filename in (WHEEL, "Demo-1.0.0-py3-none-any.whl"):
        answer = world.client.get(f"/api/v1/files/DEMO/{filename}")
        body = answer.get_json()
        assert answer.headers["Cache-Control"] == "no-store"
        assert body["filename"] == WHEEL and body["state"] == "listed" and body["standing"] == "ok"
        assert TlogProof.parse(body["proof"].encode()).index == body["index"]
        assert body["message"].startswith("listed")
    assert world.client.get("/api/v1/files/demo/demo-2.0.tar.gz").get_json()["code"] == "not-found"
    assert world.client.get("/api/v1/files/demo/nonsense").get_json()["code"] == "not-found"


def test_a_lie_in_the_database_is_not_proved(world: DoorWorld) -> None:
    """Proofs come from the public tree: a row with a false leaf hash or index gets 409, not a proof."""
    (row,) = [row for row in world.submissions() if row["served_name"] == WHEEL]
    for lie in ({"leaf_hash": "0" * 64}, {"leaf_index": row["leaf_index"] - 1}):
        world.set_state(WHEEL, **lie)
        answer = world.client.get(f"/api/v1/files/demo/{WHEEL}")
        assert (answer.status_code, answer.get_json()["code"]) == (409, "proof-invalid")
        world.set_state(WHEEL, leaf_hash=row["leaf_hash"], leaf_index=row["leaf_index"])


def test_the_log_s_tree_has_the_right_types_and_promises(world: DoorWorld) -> None:
    """Checkpoint asked for each time, tiles and bundles immutable, all readable from a browser."""
    answer = world.client.get("/log/checkpoint")
    assert (
        answer.content_type == "text/plain; charset=utf-8" and answer.headers["Cache-Control"] == "no-cache"
    )
    assert answer.get_data() == world.public.read("log/checkpoint")
    size = world.published_size()
    for path in (f"tile/0/000.p/{size}", f"tile/entries/000.p/{size}"):
        answer = world.client.get(f"/log/{path}")
        assert answer.get_data() == world.public.read(f"log/{path}")
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["Cache-Control"] == "public, max-age=604800, immutable"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_entry_bundles_are_compressed_for_who_asks(world: DoorWorld) -> None:
    """The same bytes once unpacked, another answer for caches; hashes and the checkpoint are sent as they are."""
    size = world.published_size()
    for path, packs in (
        (f"tile/entries/000.p/{size}", True),
        (f"tile/0/000.p/{size}", False),
        ("checkpoint", False),
    ):
        plain, packed = (
            world.client.get(f"/log/{path}", headers={"Accept-Encoding": accept})
            for accept in ("gzip;q=0, identity", "br, gzip")
        )
        assert "Content-Encoding" not in plain.headers and plain.get_data() == world.public.read(
            f"log/{path}"
        )
        assert (
            plain.headers.get("Vary") == packed.headers.get("Vary") == ("Accept-Encoding" if packs else None)
        )
        assert packed.headers.get("Content-Encoding") == ("gzip" if packs else None)
        if packs:
            assert len(packed.get_data()) < len(plain.get_data())
            assert gzip.decompress(packed.get_data()) == plain.get_data()


def test_tuf_metadata_has_the_right_types_and_promises(world: DoorWorld) -> None:
    """Versioned names are immutable, the timestamp and the candidate are asked for each time."""
    (world.settings.public / "tuf/timestamp.json").write_bytes(b"{}")
    for path, cache in (
        ("1.root.json", "immutable"),
        ("1.trust.json", "immutable"),
        ("timestamp.json", "no-cache"),
        (f"targets/trust/{world.trust.digest}.trust.json", "immutable"),
    ):
        answer = world.client.get(f"/tuf/{path}")
        assert answer.content_type == "application/json" and cache in answer.headers["Cache-Control"]
        assert answer.get_data() == world.public.read(f"tuf/{path}")
    for name in ("bins/" + "ab" * 32, "changes/" + "ab" * 32):
        world.public.put(f"tuf/{name}", b"tile")
        assert world.client.get(f"/tuf/{name}").content_type == "application/octet-stream"


@pytest.mark.parametrize(
    "path",
    [
        "/log/tile/0/999", "/log/tile/0/000.p/0", "/log/tile/0/000.p/256", "/log/tile/64/000", "/log/tile/0/0",
        "/log/tile/00/000", "/log/tile/0/x000/001", "/log/../registry.sqlite", "/log/%2e%2e/registry.sqlite",
        "/log/tile/../../../settings.toml", "/log/checkpoint/", "/log/", "/log//checkpoint",
        "/tuf/2.root.json", "/tuf/0.root.json", "/tuf/01.root.json", "/tuf/root.json", "/tuf/1.root.json/",
        "/tuf/../passphrase", "/tuf/%2e%2e/%2e%2e/passphrase", "/tuf/bins/xyz", "/tuf/changes/xyz",
        "/tuf/targets/files/demo/x",
        "/tuf/targets/trust/../1.root.json", "/tuf/..%2flog%2fcheckpoint", "/tuf/1.Root.json",
        "/packages/demo/..%2f..%2fpassphrase", "/packages/../passphrase", "/tuf/1.root.json%00",
    ],
)  # fmt: skip
def test_names_that_are_not_in_the_table_do_not_exist(world: DoorWorld, path: str) -> None:
    """Parsed before any file is looked for; and the refusal is not cacheable (a tile may come to be)."""
    answer = world.client.get(path)
    assert answer.status_code in (404, 405, 308), answer.status
    if answer.status_code == 404:
        assert answer.headers["Cache-Control"] == "no-store" and "ETag" not in answer.headers


@pytest.mark.parametrize("path", ["//log/checkpoint", "//tuf/timestamp.json", "/log//checkpoint"])
def test_a_static_file_has_one_address(world: DoorWorld, path: str) -> None:
    """Routing would forgive an empty part at the front; a cache would keep a second copy of a checkpoint."""
    assert world.client.get("/log/checkpoint").status_code == 200
    answer = world.client.get("/log/checkpoint", environ_overrides={"PATH_INFO": path})
    assert answer.status_code in (308, 404), answer.data


def test_no_query_strings_in_the_proof_path(world: DoorWorld) -> None:
    """One address per file, so that no cache holds two."""
    for path in ("/log/checkpoint?x=1", "/tuf/1.root.json?v=2"):
        assert world.client.get(path).get_json()["code"] == "bad-request"


def test_the_registry_describes_itself(world: DoorWorld) -> None:
    """Informative only."""
    body = world.client.get("/api/v1/registry").get_json()
    assert body["origin"] == world.settings.registry.origin and body["trial"] is True
    assert body["checkpoint_size"] == world.published_size()


def test_reading_changes_nothing(world: DoorWorld) -> None:
    """A round through every door of the index leaves rows and files as they were."""
    before = world.state()
    for path in ("/simple/", "/simple/demo/", f"/packages/demo/{WHEEL}", f"/api/v1/files/demo/{WHEEL}",
                 "/log/checkpoint", "/tuf/1.root.json", "/api/v1/registry", "/nothing"):  # fmt: skip
        world.client.get(path)
        world.client.head(path)
    assert world.state() == before


def test_the_index_cannot_write() -> None:
    """By law: no module of this room names anything that writes rows or files."""
    banned = {
        "write",
        "put",
        "put_all",
        "replace",
        "insert",
        "update",
        "delete",
        "propose",
        "receive",
        "finish",
    }
    allowed = {("static.py", "replace")}
    for path in Path(index.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in banned or (path.name, node.attr) in allowed, (
                    f"{path.name}: {node.attr}"
                )


def test_an_upload_before_the_log_has_begun_is_refused(tmp_path: Path) -> None:
    """503 with a sentence: nothing is promised that cannot be proved."""
    world = DoorWorld(tmp_path)
    grace = world.person("grace")
    before = world.state()
    answer = grace.upload(WHEEL, wheel())
    assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
    assert world.client.get("/log/checkpoint").status_code == 404
    assert json.loads(world.client.get("/api/v1/registry").get_data())["checkpoint_size"] is None
    assert world.state() == before
    world.close()
