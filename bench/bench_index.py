"""The index at size: a million files of 100,000 projects and a project of 5,000, read while others commit.

    COUNTERMARK_BENCH_PROJECTS=100000

The rows of files are written straight into the database of a running trial registry, SQLite, one gunicorn worker, as
the stations would have left them. Then readers ask for pages with the tag that they have (304) and for such as have
to be made; wheels are published for real, and the clock runs from the row that the upload made until the page shows
the file. The part of that which is the page's own, since the row was `listed`, stands beside it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import connections
import registry
from figures import Figure, percentile
from tests.deploy.front import ask
from tests.world.world import World

PROJECTS = int(os.environ.get("COUNTERMARK_BENCH_PROJECTS", "100000"))
FILES = 10  # of each
LARGE, LARGE_FILES = "large-project", 5000
CONNECTIONS, RUNS, SECONDS = 16, 3, 2.0
PUBLISHED = 5
ROWS = 50_000  # of one transaction
JSON = "application/vnd.pypi.simple.v1+json"
_INSERT = """
INSERT INTO submission (namespace, project, version, filename, served_name, display_name, sha256, length, filetype,
  uploaded, state, state_since, leaf_index, leaf_hash, attempts)
VALUES ('', ?, ?, ?, ?, ?, ?, 1000, 'sdist', 1763800000, 'listed', 1763800000, ?, ?, 0)
"""


def measure() -> list[Figure]:
    """Answers a second with and without a tag, first pages, and how soon a new file is seen."""
    with registry.running() as world:
        wheels = registry.signed_wheels(world, PUBLISHED)
        _fill(world)
        return [*_pages(world), *_seen(world, wheels)]


def _pages(world: World) -> list[Figure]:
    figures = []
    for name, path in (
        (f"page of {LARGE_FILES} files", f"/simple/{LARGE}/"),
        (f"list of {PROJECTS} projects", "/simple/"),
    ):
        first = [_first(world, path) for _ in range(3)]
        figures.append(Figure(f"{name}, made anew", "ms", first, 1000))
        tag = ask(world.port, "GET", path, headers={"Accept": JSON}).headers["etag"]
        figures += _asked(world, f"{name}, tag unchanged", path, tag)
        with _others_commit(world):
            figures += _asked(world, f"{name}, tag unchanged, 20 commits/s", path, tag)
    return figures


def _asked(world: World, name: str, path: str, tag: str) -> list[Figure]:
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {JSON}\r\nIf-None-Match: {tag}\r\n\r\n".encode()
    )
    rates, tails = [], []
    for _ in range(RUNS):
        asking = connections.for_seconds(request, SECONDS)
        waits, seconds = connections.closed_loop(world.port, asking, connections=CONNECTIONS, status=304)
        rates.append(len(waits) / seconds)
        tails.append(percentile(waits, 0.99) * 1000)
    return [
        Figure(name, "answers/s", rates, budget=800, more_is_better=True),
        Figure(f"{name}, p99", "ms", tails),
    ]


def _first(world: World, path: str) -> float:
    """Milliseconds of a page that has to be made: its serial has just changed."""
    with _rows(world) as rows:
        rows.execute("UPDATE index_serial SET serial = serial + 1 WHERE project = ?", (LARGE,))
        rows.execute("UPDATE index_counter SET value = value + 1")
    started = time.perf_counter()
    answer = ask(world.port, "GET", path, headers={"Accept": JSON})
    assert answer.status == 200
    return 1000 * (time.perf_counter() - started)


def _seen(world: World, wheels: list[registry.Wheel]) -> list[Figure]:
    """Publish one by one, and look at the row and at the page meanwhile, as an installer would."""
    since_received, since_listed = [], []
    for wheel in wheels:
        publisher = threading.Thread(target=world.run, args=("countermark", "publish", "--yes", wheel.path))
        publisher.start()
        received = _when(lambda name=wheel.path.name: _state_of(world, name) is not None)
        listed = _when(lambda name=wheel.path.name: _state_of(world, name) == "listed")
        shown = _when(lambda name=wheel.path.name: name in _page(world))
        publisher.join()
        since_received.append(shown - received)
        since_listed.append(shown - listed)
    return [
        Figure(
            f"a new file on its page, of {PROJECTS * FILES} files, since received", "s", since_received, 5
        ),
        Figure(f"a new file on its page, of {PROJECTS * FILES} files, since listed", "s", since_listed),
    ]


def _when(true: Callable[[], bool]) -> float:
    while not true():
        time.sleep(0.002)
    return time.perf_counter()


def _state_of(world: World, filename: str) -> str | None:
    with _rows(world) as rows:
        found = rows.execute(
            "SELECT state FROM submission WHERE namespace = '' AND project = ? AND served_name = ?",
            (registry.PROJECT, filename),
        ).fetchone()
    return None if found is None else str(found[0])


def _page(world: World) -> set[str]:
    answer = ask(world.port, "GET", f"/simple/{registry.PROJECT}/", headers={"Accept": JSON})
    return {file["filename"] for file in json.loads(answer.body).get("files", [])}


@contextmanager
def _others_commit(world: World) -> Iterator[None]:
    """Somebody else commits about something else, again and again."""
    stop = threading.Event()

    def commit() -> None:
        with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as rows:
            while not stop.wait(0.05):
                rows.execute("UPDATE submission SET attempts = attempts + 1 WHERE id = 1")
                rows.commit()

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _rows(world: World) -> Iterator[sqlite3.Connection]:
    rows = sqlite3.connect(world.data / "registry.sqlite", timeout=30)
    try:
        yield rows
        rows.commit()
    finally:
        rows.close()


def _fill(world: World) -> None:
    """Listed files of many projects, and many of one; the rules' state of the latter, which its page reads."""
    names = [f"project-{number:06d}" for number in range(PROJECTS)]
    files = [(name, f"{n}.0") for name in names for n in range(FILES)]
    files += [(LARGE, f"{n}.0") for n in range(LARGE_FILES)]
    with _rows(world) as rows:
        for start in range(0, len(files), ROWS):
            rows.executemany(_INSERT, map(_row, range(start, start + ROWS), files[start : start + ROWS]))
            rows.commit()
        rows.executemany(
            "INSERT INTO index_serial (project, serial) VALUES (?, ?)",
            [(name, number) for number, name in enumerate([*names, LARGE], 1)],
        )
        rows.executemany(
            "INSERT INTO rules_state (key, value) VALUES (?, ?)",
            [_state(number, f"{number}.0") for number in range(LARGE_FILES)] + [_holder()],
        )


def _row(number: int, file: tuple[str, str]) -> tuple[object, ...]:
    project, version = file
    name = f"{project.replace('-', '_')}-{version}.tar.gz"
    digest = f"{number:064x}"
    return project, version, name, name, project, digest, 10_000_000 + number, digest


def _state(number: int, version: str) -> tuple[str, str]:
    from countermark.rules import file_key
    from countermark.rules_state import new_file
    from countermark_server import jsontext
    from countermark_server.ruleview import encode_key

    name = f"{LARGE.replace('-', '_')}-{version}.tar.gz"
    key = file_key("", LARGE, name)
    state = new_file(
        key=key, filename=name, version=version, sha256=f"{number:064x}", length=1000, index=10_000_000 + number,
        leaf_hash=f"{number:064x}", time=1763800000,
    )  # fmt: skip
    return encode_key(key), jsontext.encode({**state, "status": 0})


def _holder() -> tuple[str, str]:
    from countermark.rules import project_key
    from countermark.rules_state import new_holder
    from countermark_server import jsontext
    from countermark_server.ruleview import encode_key

    return encode_key(project_key("", LARGE)), jsontext.encode(new_holder({"0" * 32: "owner"}))
