"""Mirrors and auditors of others, as they are: bandersnatch 8 mirrors a registry, `uv audit` hears what went.

bandersnatch needs Python 3.12 or newer and lives in an environment of its own, of pinned versions (requirements.txt
beside this file). Without such an interpreter these tests fail and say so. `make test-matrix` runs them, `make test`
does not.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.mirrors.environment import bandersnatch, newer_python
from tests.world.world import World, fresh

pytestmark = pytest.mark.matrix
CONFIGURATION = """
[mirror]
directory = {folder}
master = {url}
allow-non-https = true
json = true
timeout = 10
workers = 3
hash-index = false
simple-format = ALL
compare-method = hash
stop-on-error = false
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two projects, each with a wheel and a source distribution that are listed."""
    settings = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}
    with fresh(tmp_path_factory.mktemp("mirrored"), settings=settings) as made:
        made.up("--trial")
        made.login("alice", made.words(made.data / "ceremony"))
        for name in ("acme-demo", "acme-other"):
            publish(made, name, "1.0")
        yield made


def publish(world: World, name: str, version: str) -> list[Path]:
    files = sorted(world.project(name, version).iterdir())
    world.run("countermark", "publish", "--yes", *files)
    world.run("countermark", "status", "--wait", *files)
    return files


def decide(world: World, kind: str, path: Path, reason: str) -> int:
    """A moderator's decision about a file; the index of its entry."""
    project = path.name.split("-")[0].replace("_", "-")
    done = world.operator(kind, project, path.name, "--reason", reason)
    return int(done.out.split("#")[1].split()[0])


def mirror(world: World, folder: Path) -> str:
    """One run of unmodified bandersnatch; what it said."""
    folder.mkdir(exist_ok=True)
    configuration = folder / "bandersnatch.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder / "copy", url=world.url))
    done = subprocess.run(
        [bandersnatch(), "--config", configuration, "mirror"],
        capture_output=True, text=True, check=False, timeout=180, env=world.env(), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def copied(folder: Path) -> set[str]:
    return {path.name for path in (folder / "copy/web/packages").rglob("*") if path.is_file()}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The copy, by a server of files."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / "copy/web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def page(folder: Path, project: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"copy/web/simple/{project}/index.v1_json").read_bytes())
    return found


def test_the_interpreter_is_new_enough() -> None:
    """Printed, so that a run says what it was about."""
    print(newer_python(), bandersnatch())


def test_bandersnatch_copies_what_is_listed_and_then_only_what_changed(world: World, tmp_path: Path) -> None:
    """Files, metadata and pages are the registry's own; a second run asks nothing, a third about one."""
    folder = tmp_path / "mirror"
    mirror(world, folder)
    names = copied(folder)
    listed = [
        file
        for project in ("acme-demo", "acme-other")
        for file in json.loads(world.get(f"/pypi/{project}/json"))["urls"]
    ]
    assert {file["filename"] for file in listed} <= names and len(listed) == 4
    for file in listed:
        (path,) = (folder / "copy/web/packages").rglob(file["filename"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["digests"]["sha256"]
    raw = json.loads((folder / "copy/web/json/acme-demo").read_bytes())
    assert raw == json.loads(world.get("/pypi/acme-demo/json"))
    assert all("index" in file["_countermark"] for file in raw["urls"])

    said = mirror(world, folder)
    assert "acme-demo" not in said.replace(str(folder), ""), said

    publish(world, "acme-other", "1.1")
    said = mirror(world, folder)
    assert "acme-demo" not in said.replace(str(folder), ""), said
    assert {"1.0", "1.1"} == {
        each["filename"].split("-")[1].removesuffix(".tar.gz") for each in page(folder, "acme-other")["files"]
    }
    with served(folder) as url:
        python = world.machine("pip-nina")
        world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{url}/simple/", "acme-other==1.1")


def test_what_is_taken_down_leaves_the_mirror_with_its_next_run(world: World, tmp_path: Path) -> None:
    """The serial of a project rises with a decision about it, and the page has the file no more."""
    folder = tmp_path / "mirror"
    files = publish(world, "acme-evil", "1.0")
    mirror(world, folder)
    assert {each["filename"] for each in page(folder, "acme-evil")["files"]} == {path.name for path in files}
    decide(world, "takedown", files[0], "malware")
    mirror(world, folder)
    assert [each["filename"] for each in page(folder, "acme-evil")["files"]] == [files[1].name]
    decide(world, "takedown", files[1], "malware")
    mirror(world, folder)
    assert page(folder, "acme-evil")["files"] == []
    before = page(folder, "acme-demo")["files"]
    assert before, "other projects are as they were"


def test_uv_audit_tells_of_what_was_taken_down_since_the_lock(world: World, tmp_path: Path) -> None:
    """Our advisory by its number and reason, and the project's status; before that, nothing."""
    files = publish(world, "acme-audited", "1.0")
    project = tmp_path / "app"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["acme-audited"]\n'
    )
    index = {"UV_DEFAULT_INDEX": f"{world.url}/simple/", "UV_PYTHON": str(world.machine("uv-audit"))}
    world.run("uv", "lock", cwd=project, **index)
    audit = ("uv", "audit", "--preview", "--frozen", "--service-url", world.url)
    clean = world.run(*audit, cwd=project, expect=None, **index)
    assert clean.code == 0 and "CM-" not in clean.said, clean.said
    index_of = [decide(world, "takedown", path, "malware") for path in files]
    found = world.run(*audit, cwd=project, expect=None, **index, UV_NO_CACHE="1")
    assert found.code != 0, found.said
    assert any(f"-CM-{number}" in found.said for number in index_of), found.said
    assert "was taken down (malware)" in found.said
    assert "acme-audited is quarantined" in found.said, found.said
