"""The shipped nginx configuration before a team's proxy: real TLS, real pip, two users, one of whom sees more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.clientpolicy import Policies
from countermark.credentials import shown_to
from countermark.fetch import HttpFetcher
from countermark.filestore import FileStore
from countermark.pins import Home
from countermark.proxy import Proxy
from countermark.serving import listening
from countermark.team import Team
from tests import archives
from tests.client.proxy.test_team import Guarded
from tests.deploy.components import DEPLOY, program
from tests.deploy.front import MAIN
from tests.deploy.privateca import make_certificate
from tests.simulator import World
from tests.world.world import free_port


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A registry that asks who everybody is, with a wheel for everybody and one for Ann."""
    guarded = Guarded(World(now=int(time.time())))
    with listening(guarded.answer, "127.0.0.1", 0, max_body=0) as server:
        guarded.world.base = server.url
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for project in ("open", "secret"):
            guarded.world.publish(project, data=archives.wheel(project, "1.0"))
        yield guarded
        server.shutdown()
        thread.join()


@pytest.fixture
def address(guarded: Guarded, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port on which nginx speaks TLS, and the authority that vouches for it."""
    registry = Home(tmp_path / "home").add(guarded.world.base, guarded.world.root)
    store = FileStore(tmp_path / "store")

    def make(authorization: str | None) -> Proxy:
        return Proxy(
            registry, HttpFetcher(credentials=shown_to(registry.url, authorization)), store,
            policies=Policies(), clock=lambda: int(time.time()), say=lambda text: None,
        )  # fmt: skip

    with listening(Team(make).answer, "127.0.0.1", 0, max_body=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        authority, chain, key = make_certificate(tmp_path)
        port = free_port()
        text = (DEPLOY / "nginx" / "team-proxy.conf").read_text("utf-8")
        ours = {
            "listen": f"127.0.0.1:{port} ssl", "server_name": "localhost", "ssl_certificate": chain,
            "ssl_certificate_key": key, "access_log": f"{tmp_path}/team.log team_proxy", "proxy_pass": server.url,
        }  # fmt: skip
        for name, value in ours.items():
            text, count = re.subn(rf"(?m)^( *{name} )[^;]+; +# <-$", rf"\g<1>{value};", text)
            assert count == 1, name
        assert "# <-" not in text.split("\n", 1)[1]
        (tmp_path / "countermark.conf").write_text(text, encoding="utf-8")
        user = "user root;" if os.geteuid() == 0 else ""
        main = tmp_path / "nginx.conf"
        main.write_text(MAIN.format(prefix=tmp_path, user=user), encoding="utf-8")
        nginx = subprocess.Popen([program("nginx"), "-c", main, "-p", tmp_path], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not (tmp_path / "nginx.pid").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            yield port, authority
        finally:
            nginx.terminate()
            nginx.wait(10)
            server.shutdown()
            thread.join()


def test_two_users_of_one_proxy_behind_tls(address: tuple[int, Path], tmp_path: Path) -> None:
    """Ann gets her wheel; on the warm cache Ben gets a refusal, and what is for all; no log names a password."""
    port, authority = address

    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }

    def download(user: str, project: str, *, expect: int) -> str:
        into = tmp_path / user
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--no-deps", "--no-input",
                "--dest", into, "--cert", authority,
                "--index-url", f"https://{user}@localhost:{port}/simple/", project,
            ],
            capture_output=True, text=True, check=False, timeout=60, env=env,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    download("ann:x", "secret", expect=0)
    assert (tmp_path / "ann:x" / "secret-1.0-py3-none-any.whl").read_bytes() == archives.wheel(
        "secret", "1.0"
    )
    said = download("ben:y", "secret", expect=1)
    assert "403" in said or "No matching distribution" in said
    download("ben:y", "open", expect=0)
    assert sorted(path.name for path in (tmp_path / "ben:y").iterdir()) == ["open-1.0-py3-none-any.whl"]
    logged = (tmp_path / "team.log").read_text("utf-8")
    assert "/simple/secret/" in logged and "ann" not in logged and "Basic" not in logged
