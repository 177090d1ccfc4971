"""Real pip and uv below `run`, in an environment that points everywhere at another index: it is never asked.

The other index counts who calls, by TCP connections, and offers a newer version. Each setting is tried on its own
without us first: what would not have worked there proves nothing. poetry: tests/journeys/test_poetry.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from countermark import configuring, run
from countermark.clientpolicy import Policies
from countermark.errors import PolicyError
from countermark.filestore import FileStore
from countermark.installers import plan
from countermark.proxy import Proxy
from tests import archives
from tests.clients.pinned import executable
from tests.machine import Machine
from tests.simulator import Published, World

PROJECT, NEWER = "acme-demo", "acme_demo-99.0-py3-none-any.whl"


class Other:
    """Another index, which offers a newer version of everything's name."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        other, wheel = self, archives.wheel(PROJECT, "99.0")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                other.asked.append(self.path)
                page = f'<a href="/{NEWER}#sha256={hashlib.sha256(wheel).hexdigest()}">{NEWER}</a>'.encode()
                body = wheel if self.path.endswith(".whl") else page
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_CONNECT = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nobody's terminal."""

        class Server(ThreadingHTTPServer):
            def process_request(self, request: object, client_address: object) -> None:
                other.asked.append(f"from {client_address}")  # also who says nothing
                super().process_request(request, client_address)  # type: ignore[arg-type]

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple/"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()


@pytest.fixture
def other() -> Iterator[Other]:
    other = Other()
    yield other
    other.server.shutdown()
    other.server.server_close()


class Desk:
    """Somebody's home, a project in it, and programs that get them as an installer gets them."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world, self.folder, self.home = world, folder / "app", folder / "home"
        self.file = world.publish(PROJECT, data=archives.wheel(PROJECT, "1.0"))
        self.machine, self.said = Machine(folder / "countermark", world), list[str]()
        for each in (self.folder, self.home, folder / "bin"):
            each.mkdir()
        self.keyring = folder / "keyring-was-asked"
        program = folder / "bin" / "keyring"
        program.write_text(f"#!/bin/sh\necho \"$@\" >> '{self.keyring}'\necho secret\n", encoding="utf-8")
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"), "NO_COLOR": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        (self.folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")

    def plainly(self, words: Sequence[str], given: Mapping[str, str]) -> int:
        """The same without us."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **given},
            check=False,
            capture_output=True,
            timeout=60,
        )
        return done.returncode

    def verified(
        self, words: Sequence[str], given: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> run.Finished:
        """By `countermark run`: the child is a real one."""
        monkeypatch.chdir(self.folder)
        environment, policies = {**self.environment, **given}, Policies()
        machine = configuring.Machine(self.folder, self.home, environment, sys.platform)
        todo = plan(words, folder=self.folder, own=configuring.uv_files(machine))
        proxy = Proxy(
            self.machine.registry, self.world, FileStore(self.home / "store"), policies=policies,
            clock=lambda: self.world.now, say=self.said.append,
        )  # fmt: skip
        if todo.is_pinned:
            return run.run(
                todo, proxy, self.machine.registry, self.world, now=self.world.now, policies=policies,
                environment=environment, say=self.said.append,
            )  # fmt: skip
        return run.run_proxied(
            todo, proxy, self.machine.registry, environment=environment, say=self.said.append
        )

    def installed(self) -> list[str]:
        found = [path.parent.name for path in self.folder.rglob("acme_demo-*.dist-info/METADATA")]
        for kept in ("site", ".venv", "uv.lock"):
            path = self.folder / kept
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, World())


PYPROJECT = """\
[project]
name = "app"
version = "0"
requires-python = ">=3.11"
dependencies = ["acme-demo"]
[tool.uv]
package = false
"""


def _variables(**names: str) -> Callable[[Desk, Other], dict[str, str]]:
    return lambda desk, other: {
        name: value.format(url=other.url, root=other.url.removesuffix("/simple/"))
        for name, value in names.items()
    }


def _file(path: str, text: str, name: str = "") -> Callable[[Desk, Other], dict[str, str]]:
    """A file in the home or, after `app/`, in the project; and a variable that names it."""

    def write(desk: Desk, other: Other) -> dict[str, str]:
        target = desk.home.parent / path
        target.parent.mkdir(parents=True, exist_ok=True)
        before = target.read_text("utf-8") if target.exists() else ""
        target.write_text(before + text.format(url=other.url), encoding="utf-8")
        return {name: str(target)} if name else {}

    return write


ELSEWHERE = "http://elsewhere.invalid/simple/"
PIP_ELSEWHERE = {"PIP_INDEX_URL": ELSEWHERE, "PIP_TRUSTED_HOST": "elsewhere.invalid"}
UV_INDEX = '[[index]]\nname = "evil"\nurl = "{url}"\n'
SMUGGLED = {
    "pip": {
        "PIP_INDEX_URL": _variables(PIP_INDEX_URL="{url}"),
        "PIP_EXTRA_INDEX_URL": _variables(PIP_EXTRA_INDEX_URL="{url}"),
        "PIP_FIND_LINKS": _variables(PIP_FIND_LINKS="{url}acme-demo/"),
        "PIP_CONFIG_FILE": _file("home/other.conf", "[global]\nextra-index-url = {url}\n", "PIP_CONFIG_FILE"),
        "pip.conf": _file("home/.config/pip/pip.conf", "[global]\nextra-index-url = {url}\n"),
        "PIP_PROXY": _variables(PIP_PROXY="{root}", NO_PROXY="", **PIP_ELSEWHERE),
        "HTTP_PROXY": _variables(HTTP_PROXY="{root}", NO_PROXY="", **PIP_ELSEWHERE),
        "a keyring": _variables(PIP_EXTRA_INDEX_URL="{url}", PIP_KEYRING_PROVIDER="subprocess"),
    },
    "uv": {
        "UV_DEFAULT_INDEX": _variables(UV_DEFAULT_INDEX="{url}"),
        "UV_INDEX": _variables(UV_INDEX="evil={url}", UV_INDEX_EVIL_USERNAME="u", UV_INDEX_EVIL_PASSWORD="p"),
        "UV_EXTRA_INDEX_URL": _variables(UV_EXTRA_INDEX_URL="{url}"),
        "UV_FIND_LINKS": _variables(UV_FIND_LINKS="{url}acme-demo/"),
        "UV_CONFIG_FILE": _file("home/other.toml", UV_INDEX, "UV_CONFIG_FILE"),
        "uv.toml of the user": _file("home/.config/uv/uv.toml", UV_INDEX),
        "uv.toml of the project": _file("app/uv.toml", UV_INDEX),
        "pyproject.toml": _file("app/pyproject.toml", UV_INDEX.replace("[[index]]", "[[tool.uv.index]]")),
        "HTTP_PROXY": _variables(HTTP_PROXY="{root}", NO_PROXY="", UV_DEFAULT_INDEX=ELSEWHERE),
        "a keyring": _variables(UV_INDEX="{url}", UV_KEYRING_PROVIDER="subprocess"),
    },
}  # fmt: skip

ALWAYS = {"PIP_EXTRA_INDEX_URL", "pip.conf", "UV_INDEX", "pyproject.toml"}  # the others by `make test-matrix`


def _commands(client: str, file: Published) -> dict[str, list[str]]:
    pip = [str(executable("pip")), "install", "--disable-pip-version-check", "--no-deps", "--target", "site"]
    uv = [
        str(executable("uv")),
        "pip",
        "install",
        "--no-deps",
        "--target",
        "site",
        "--python",
        sys.executable,
    ]
    sync = [str(executable("uv")), "sync", "--python", sys.executable]
    if client == "pip":
        return {"by name": [*pip, PROJECT], "by hash": [*pip, "--require-hashes", "-r", "requirements.txt"]}
    return {
        "by name": [*uv, PROJECT],
        "sync": sync,
        "by hash": [*uv, "--require-hashes", "-r", "requirements.txt"],
    }


@pytest.mark.parametrize(
    ("client", "setting"),
    [
        pytest.param(client, setting, marks=() if setting in ALWAYS else pytest.mark.matrix)
        for client, settings in SMUGGLED.items()
        for setting in settings
    ],
)
def test_another_index_is_never_asked(
    desk: Desk, other: Other, monkeypatch: pytest.MonkeyPatch, client: str, setting: str
) -> None:
    """Requests to any other index: none, by name and by hash; what is installed is the verified one."""
    (desk.folder / "requirements.txt").write_text(
        f"{PROJECT}==1.0 --hash=sha256:{desk.file.sha256}\n", "utf-8"
    )
    given = SMUGGLED[client][setting](desk, other)
    commands = _commands(client, desk.file)
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    desk.plainly(commands["by name"], given)
    desk.installed()
    assert other.asked, "without us this setting has no effect, and so it proves nothing"
    other.asked.clear()
    desk.keyring.unlink(missing_ok=True)
    for route, words in commands.items():
        finished = desk.verified(words, given, monkeypatch)
        assert finished.exit_code == 0, (route, json.dumps(finished.to_json()), desk.said)
        assert desk.installed() == ["acme_demo-1.0.dist-info"], route
        assert other.asked == [], route
    assert not desk.keyring.exists()


@pytest.mark.parametrize("setting", ["uv.toml of the user", "uv.toml of the project"])
@pytest.mark.parametrize("options", [["--locked"], []])
def test_another_index_is_not_asked_whether_a_lock_is_up_to_date(
    desk: Desk, other: Other, monkeypatch: pytest.MonkeyPatch, options: list[str], setting: str
) -> None:
    """uv finds out by resolving anew, at every index it knows: then it is not started."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    words = [str(executable("uv")), "sync", *options, "--python", sys.executable]
    lock = desk.folder / "uv.lock"
    lock.write_text(
        f'version = 1\nrequires-python = ">=3.11"\n[[package]]\nname = "{PROJECT}"\nversion = "1.0"\n'
        f'source = {{ registry = "{desk.world.base}/simple/" }}\nwheels = [{{ hash = "sha256:{desk.file.sha256}", '
        f'url = "{desk.world.base}/packages/{PROJECT}/{desk.file.filename}" }}]\n',
        encoding="utf-8",
    )
    before = lock.read_bytes()
    SMUGGLED["uv"][setting](desk, other)
    desk.plainly(words, {})
    assert other.asked, "without us this setting has no effect, and so it proves nothing"
    other.asked.clear()
    lock.write_bytes(before)
    with pytest.raises(PolicyError, match="would ask another index"):
        desk.verified(words, {}, monkeypatch)
    assert other.asked == []
