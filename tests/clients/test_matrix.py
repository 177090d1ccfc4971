"""The client matrix: twine, uv, poetry, hatch and flit as they are, on plain HTTP and on TLS.

Each one publishes a project whose statements went ahead (`countermark sign --submit`), and each refusal reaches the
person in front of it in our words. After every refusal the log is as large as it was.

`make test` runs all refusals on plain HTTP but two, and one on TLS. `make client-matrix` runs all of them at both
doors and prints what it saw as a table, with the versions (also of the newest clients: scripts/latest-clients.sh).
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.pinned import CLIENTS, LATEST, PINNED, ROOT, executable, version
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


@dataclass
class Table:
    """What was seen: by case and client, the doors at which it was so."""

    seen: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, case: str, client: str, door: str) -> None:
        self.seen.setdefault((case, client), []).append(door)

    def __str__(self) -> str:
        cases = [SIGNED, AGAIN, *REFUSALS]
        numbers = {client: re.findall(r"\d+(?:\.\d+)+", version(client))[0] for client in CLIENTS}
        rows = [["case", "status", *(f"{client} {number}" for client, number in numbers.items())]]
        for case in cases:
            status = "200" if case in (SIGNED, AGAIN) else REFUSALS[case][2]
            doors = (sorted(self.seen.get((case, client), [])) for client in CLIENTS)
            rows.append([case, status, *(" ".join(each) or "-" for each in doors)])
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Printed when all is done (`pytest -s`)."""
    made = Table()
    yield made
    print(f"\n\n{made}")


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
    """Each says so itself; with the newest ones, what they are is printed."""
    for client in CLIENTS:
        print(client, version(client))
        assert LATEST or PINNED[client] in version(client), client


@pytest.mark.parametrize("door", ["http", "tls"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_signed_upload(registry: Registry, table: Table, client: str, door: str) -> None:
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
    table.note(SIGNED, client, door)


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
SIGNED, AGAIN = "signed upload, and again", "answer lost (503), sent again"
AS_ANOTHER = (
    "not an owner",
    "name like another",
)  # in CI another refusal of the same status stands for these
IN_CI = {("http", refusal) for refusal in REFUSALS if refusal not in AS_ANOTHER} | {("tls", "unsigned")}
DOORS = [
    pytest.param(door, refusal, marks=[] if (door, refusal) in IN_CI else [pytest.mark.exhaustive])
    for door in ("http", "tls")
    for refusal in REFUSALS
]


@pytest.mark.parametrize(("door", "refusal"), DOORS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_read_by_a_person(  # noqa: PLR0917
    registry: Registry,
    table: Table,
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
    table.note(refusal, client, door)


@pytest.mark.parametrize("client", ["twine", pytest.param("uv", marks=pytest.mark.exhaustive)])
def test_after_sign_and_bundle_all_of_dist_still_uploads(registry: Registry, client: str) -> None:
    """`twine upload dist/*` and `uv publish`, as typed: signatures lie there, bundles do not."""
    world, url = registry.world, registry.doors["http"].url
    folder = make_project(world, f"all-of-dist-{client}")
    files = sorted((folder / "dist").iterdir())
    world.run("countermark", "sign", "--yes", "--submit", *files, cwd=folder)
    dist = sorted((folder / "dist").iterdir())
    assert len(dist) == 2 * len(files)
    words = {
        "twine": ("upload", "--non-interactive", "--repository-url", url, "-u", "__token__", "-p"),
        "uv": ("publish", "--no-config", "--publish-url", url, "--token"),
    }[client]
    world.run(executable(client), *words, registry.token, *dist, cwd=folder)
    world.run("countermark", "status", "--wait", *files, cwd=folder)
    world.run("countermark", "bundle", "make", *files, cwd=folder)
    assert sorted((folder / "dist").iterdir()) == dist
    assert {path.suffix for path in (folder / "countermark").iterdir()} == {".countermark"}
    world.run(executable(client), *words, registry.token, *dist, cwd=folder)


@contextmanager
def forgetful(port: int) -> Iterator[tuple[str, list[bytes]]]:
    """A door that hands each upload on and loses the registry's first answer to it: 503, as proxies say then."""
    came = list[bytes]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            behind.request("POST", self.path, body=body, headers=dict(self.headers))
            answer = behind.getresponse()
            said = answer.read()
            (name,) = re.findall(rb'filename="([^"]+)"', body)
            is_first = name not in came
            came.append(name)
            self.send_response(503 if is_first else answer.status)
            self.send_header("Content-Length", str(0 if is_first else len(said)))
            self.end_headers()
            self.wfile.write(b"" if is_first else said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/legacy/", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


@pytest.mark.parametrize(
    "client", ["twine", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in CLIENTS[1:])]
)
def test_an_upload_whose_answer_was_lost_is_sent_again(registry: Registry, table: Table, client: str) -> None:
    """By twine itself, by the person for the others: 200 in the end, and one entry for each file."""
    world = registry.world
    folder = make_project(world, f"{client}-retries")
    files = sorted((folder / "dist").iterdir())
    world.run("countermark", "sign", "--yes", "--submit", *files)
    for attestation in (folder / "dist").glob("*.attestation"):
        attestation.unlink()
    with forgetful(world.port) as (url, came):
        for _ in range(4):  # one file at a time meets the lost answer
            done = upload(client, world, folder, Target(url), registry.token)
            if client == "twine" or done.code == 0:
                break
        must_pass(done)
    assert {came.count(path.name.encode()) >= 2 for path in files} == {True}, came
    with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as rows:
        asked = rows.execute("SELECT envelope FROM proposal WHERE type = 'publish'").fetchall()
    subjects = [
        json.loads(base64.b64decode(json.loads(row[0])["payload"]))["subject"][0]["name"] for row in asked
    ]
    assert [subjects.count(path.name) for path in files] == [1] * len(files)
    table.note(AGAIN, client, "http")


def test_the_page_shows_what_this_suite_is_about() -> None:
    """docs/reference/upload-clients.md has every version and every refusal with its words, as they are here."""
    page = (ROOT / "docs/reference/upload-clients.md").read_text("utf-8")
    for client in CLIENTS:
        assert f"| {client} | {PINNED[client]} |" in page, client
    for refusal, (_, _, status, words) in REFUSALS.items():
        assert f"| {refusal} | {status} | {words} |" in page, refusal
    assert page.count("\n| ") == 2 + len(CLIENTS) + len(REFUSALS)
