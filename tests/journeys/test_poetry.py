"""Real poetry, and uv with a lock that must be current: locked, installed and refused, over a real registry.

poetry asks the source that its project names and no other; what people read when a file is refused is compared, but
for what differs from run to run.
"""

from __future__ import annotations

import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.pinned import executable
from tests.world.insider import PROJECT, WHEEL, swap
from tests.world.installers import essential
from tests.world.stage import QUICK
from tests.world.world import World, fresh

SETTINGS = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_KEYRING_ENABLED": "false"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry on which alice has published; bob has pinned its root."""
    with fresh(tmp_path_factory.mktemp("world"), settings=QUICK) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        world.login("alice", world.words(ceremony))
        world.run("countermark", "publish", "--yes", *sorted(world.project(PROJECT).iterdir()))
        world.run("countermark", "trust", "add", world.url, "--root-words", world.words(ceremony), home="bob")
        yield world


def settings(world: World) -> dict[str, str]:
    """Bob's environment, in which the pinned poetry is found."""
    path = f"{executable('poetry').parent}{os.pathsep}{world.env()['PATH']}"
    return {**SETTINGS, "PATH": path, "POETRY_CACHE_DIR": str(world.root / "poetry-cache")}


def project(world: World, name: str, *configure: str) -> Path:
    """An application that depends on what alice published, pointed at the registry."""
    folder = world.root / name
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "0"\nrequires-python = ">=3.11"\n'
        f'dependencies = ["{PROJECT}==1.0.0"]\n[tool.uv]\npackage = false\n',
        encoding="utf-8",
    )
    for tool in configure:
        world.run("countermark", "configure", tool, "--write", cwd=folder, home="bob")
    return folder


def configuration(folder: Path, other: str, *, name: str = "config.toml") -> Path:
    """poetry's own settings, which name another index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f'[repositories.other]\nurl = "{other}"\n', encoding="utf-8")
    return folder


def keyring(world: World, given: dict[str, str]) -> Path:
    """A program that installers ask for passwords, first in the PATH; the file is there once it was asked."""
    asked, folder = world.root / "keyring-was-asked", world.root / "keyring"
    folder.mkdir()
    (folder / "keyring").write_text(f"#!/bin/sh\necho \"$@\" >> '{asked}'\necho secret\n", encoding="utf-8")
    (folder / "keyring").chmod(0o755)
    given["PATH"] = f"{folder}{os.pathsep}{given['PATH']}"
    return asked


def test_poetry_installs_what_is_proved_from_its_lock(world: World) -> None:
    """Locked by poetry, verified, installed, and the lock is what it was; no other index is asked, not even once."""
    asked: list[object] = []

    class Asked(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    app, given = project(world, "papp", "poetry"), settings(world)
    world.run("poetry", "lock", "--no-interaction", cwd=app, home="bob", **given)
    before = (app / "poetry.lock").read_bytes()
    # As on another machine: `lock` has made an environment, with a pip in it that nobody proved.
    shutil.rmtree(app / ".venv", ignore_errors=True)
    asked_for_secrets = keyring(world, given)
    with socketserver.TCPServer(("127.0.0.1", 0), Asked) as decoy:
        threading.Thread(target=decoy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        other = f"http://127.0.0.1:{decoy.server_address[1]}/"
        given |= {"POETRY_REPOSITORIES_OTHER_URL": other, "PIP_EXTRA_INDEX_URL": other}
        given |= {"POETRY_CONFIG_DIR": str(configuration(world.root / "poetry-config", other))}
        configuration(app, other, name="poetry.toml")
        configuration(world.root / "poetry-home" / "pypoetry", other)
        given["XDG_CONFIG_HOME"] = str(world.root / "poetry-home")
        netrc = world.root / "netrc"
        netrc.write_text("machine 127.0.0.1 login u password p\n", encoding="utf-8")
        netrc.chmod(0o600)
        given["NETRC"] = str(netrc)
        done = world.run(
            "countermark", "run", "--", "poetry", "install", "--no-root", "--no-interaction",
            cwd=app, home="bob", **given,
        )  # fmt: skip
        decoy.shutdown()
    assert asked == [] and not asked_for_secrets.exists()
    assert "cleared PIP_EXTRA_INDEX_URL, POETRY_REPOSITORIES_OTHER_URL" in done.err
    assert f"2 hashes in poetry.lock verified at {world.url}" in done.err
    assert world.run(app / ".venv" / "bin" / "python", "-c", "import hello_countermark").out == "hello\n"
    assert (app / "poetry.lock").read_bytes() == before
    clean = world.run("countermark", "verify", "--environment", app / ".venv", home="bob")
    assert "files here are those of the wheel" in clean.err and "not provable" not in clean.said


def test_uv_sync_asks_the_registry_and_leaves_the_lock(world: World) -> None:
    """Plain and --locked: a current lock installs; one that is out of date is uv's to refuse, with its own code."""
    app = project(world, "locked", "uv")
    configured = {"UV_NO_CONFIG": "0"}
    world.run("uv", "lock", cwd=app, home="bob", **configured)
    before = (app / "uv.lock").read_bytes()
    plain = ("countermark", "run", "--", "uv", "sync")
    for run in (plain, (*plain, "--locked")):
        world.run(*run, cwd=app, home="bob", **configured)
        assert (app / "uv.lock").read_bytes() == before
    assert world.run(app / ".venv" / "bin" / "python", "-c", "import hello_countermark").out == "hello\n"
    text = (app / "pyproject.toml").read_text("utf-8")
    (app / "pyproject.toml").write_text(text.replace('"0"', '"0.1"', 1).replace("==1.0.0", ">=0.5"), "utf-8")
    for run, hint in ((plain, "`uv lock` makes it anew"), ((*plain, "--locked"), "")):
        done = world.run(*run, cwd=app, home="bob", expect=None, **configured)
        assert done.code in (1, 2) and f"exit code {done.code} is uv's" in done.err
        assert "needs to be updated" in done.err and hint in done.err
        assert (app / "uv.lock").read_bytes() == before


POETRY_SAYS = """\
409 Client Error: hello_countermark-1.0.0-py3-none-any.whl is sha256:HASH..., entry #N of demo.test/registry says \
sha256:HASH... exit-7 URL/h/exit-7 for url: URL/packages/hello-countermark/hello_countermark-1.0.0-py3-none-any.whl"""


def test_what_poetry_says_of_a_swapped_wheel(world: World) -> None:
    """By its lock it is not started, with both hashes; through a proxy the reason stands in poetry's own error."""
    app, given = project(world, "swapped", "poetry"), settings(world)
    through = world.root / "through"
    proxy = subprocess.Popen(
        ("countermark", "proxy", "--listen", "127.0.0.1:0"), env=world.env("bob"), text=True,
        cwd=world.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert proxy.stdout is not None
        index = proxy.stdout.readline().strip()
        project(world, "through")
        configure = ("countermark", "configure", "poetry", "--write", "--index", index)
        world.run(*configure, cwd=through, home="bob")
        world.run("poetry", "lock", "--no-interaction", cwd=through, home="bob", **given)
        shutil.rmtree(world.root / "poetry-cache")
        wheel = world.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
        shutil.rmtree(next((world.root / "bob" / "countermark" / "registries").iterdir()) / "files", True)
        old, new = swap(world, wheel, world.root / "scratch")
        world.run("poetry", "lock", "--no-interaction", cwd=app, home="bob", **given)
        assert new in (app / "poetry.lock").read_text("utf-8")
        run = ("countermark", "run", "--", "poetry", "install", "--no-root", "--no-interaction")
        done = world.run(*run, cwd=app, home="bob", expect=7, **given)
        said = f"refused: {WHEEL} is sha256:HASH, entry #N of demo.test/registry says sha256:HASH"
        assert said in " ".join(essential(done.err).split()) and old in done.err and new in done.err
        assert done.err.rstrip().endswith("exit code 7 is countermark's") and "Installing" not in done.out
        plain = ("poetry", "install", "--no-root", "--no-interaction")
        done = world.run(*plain, cwd=through, home="bob", expect=1, **given)
        assert POETRY_SAYS in re.sub(r"\s+", " ", essential(done.said)), done.said
        assert not list((through / ".venv").glob("lib/python*/site-packages/hello_countermark"))
    finally:
        proxy.terminate()
        _, said = proxy.communicate(timeout=10)
    assert "refused: " in said
