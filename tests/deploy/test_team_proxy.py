"""The shipped nginx configuration before a team's proxy: real TLS, real pip, and what is kept in front of it.

Two users, one of whom sees more, and people without credentials, to whom everything is the same for as long as a
judgement holds.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from countermark import proxy as proxy_module
from countermark.clientpolicy import Policies
from countermark.credentials import shown_to
from countermark.fetch import HttpFetcher
from countermark.filestore import FileStore
from countermark.pins import Home
from countermark.proxy import Proxy
from countermark.serving import Request, Response, Server, listening
from countermark.simplepage import JSON_TYPE, TEXT_HTML
from countermark.team import Team
from tests import archives
from tests.client.proxy.test_team import ANN, BEN, Guarded
from tests.deploy.front import Answer, ask, nginx
from tests.deploy.privateca import make_certificate
from tests.deploy.teamfront import write_team_front
from tests.simulator import Published, World
from tests.world.world import free_port

UV, PIP = "uv/0.13.9", "pip/26.3 {}"


@dataclass
class House:
    """A registry that asks who somebody is, a team's proxy of it, and nginx."""

    guarded: Guarded
    behind: str  # HOST:PORT of the proxy
    port: int
    folder: Path
    tls: ssl.SSLContext
    files: Mapping[str, Published]
    asked: list[Request]  # what came through nginx to the proxy

    def get(self, path: str, who: str | None = None, agent: str = UV, accept: str = JSON_TYPE) -> Answer:
        headers = {"Accept": accept, "User-Agent": agent, **({"Authorization": who} if who else {})}
        return ask(self.port, "GET", path, headers=headers, tls=self.tls)

    def file(self, project: str, who: str | None = None) -> Answer:
        return self.get(f"/packages/{project}/{self.files[project].filename}", who)

    def twice(self, path: str, name: str, values: Iterable[str]) -> None:
        """A request with several headers of one name."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=self.tls)
        connection.putrequest("GET", path)
        for value in values:
            connection.putheader(name, value)
        connection.endheaders()
        connection.getresponse().read()
        connection.close()

    def names(self, project: str, who: str | None = None, agent: str = UV) -> list[str]:
        page = self.get(f"/simple/{project}/", who, agent)
        assert page.status == 200, page
        return [file["filename"] for file in json.loads(page.body)["files"]]

    def kept(self) -> list[bytes]:
        """What lies in nginx's cache: keys, heads and bodies."""
        return [path.read_bytes() for path in (self.folder / "kept").rglob("*") if path.is_file()]


def _serve(server: Server) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    return thread


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A registry that asks who everybody is, with a wheel for everybody and one for Ann."""
    guarded = Guarded(World(now=int(time.time())))
    with listening(guarded.answer, "127.0.0.1", 0, max_body=0) as server:
        guarded.world.base = server.url
        thread = _serve(server)
        yield guarded
        server.shutdown()
        thread.join()


@pytest.fixture
def house(guarded: Guarded, tmp_path: Path) -> Iterator[House]:
    """All of it, with nginx listening."""
    world = guarded.world
    files = {name: world.publish(name, data=archives.wheel(name, "1.0")) for name in ("open", "secret")}
    registry = Home(tmp_path / "home").add(world.base, world.root)
    store = FileStore(tmp_path / "store")

    def make(authorization: str | None) -> Proxy:
        return Proxy(
            registry, HttpFetcher(credentials=shown_to(registry.url, authorization)), store,
            policies=Policies(), clock=lambda: int(time.time()), say=lambda text: None,
        )  # fmt: skip

    team = Team(make, lends=False)
    authority, chain, key = make_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(authority))
    asked: list[Request] = []

    def noted(request: Request) -> Response:
        asked.append(request)
        return team.answer(request)

    with listening(noted, "127.0.0.1", 0, max_body=0) as server:
        thread = _serve(server)
        behind, port = server.url.removeprefix("http://"), free_port()
        house = House(guarded, behind, port, tmp_path / "nginx", tls, files, asked)
        write_team_front(
            house.folder, port=port, behind=behind, chain=chain, key=key,
            access_log=f"{tmp_path}/team.log team_proxy",
        )  # fmt: skip
        with nginx(house.folder, house.port):
            yield house
        server.shutdown()
        thread.join()


def test_two_users_of_one_proxy_behind_tls(house: House, tmp_path: Path) -> None:
    """Ann gets her wheel; on the warm cache Ben gets a refusal, and what is for all; no log names a password."""
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
                "--dest", into, "--cert", tmp_path / "ca.pem",
                "--index-url", f"https://{user}@localhost:{house.port}/simple/", project,
            ],
            capture_output=True, text=True, check=False, timeout=60, env=env,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    download("ann:x", "secret", expect=0)
    assert (tmp_path / "ann:x" / "secret-1.0-py3-none-any.whl").read_bytes() == house.files["secret"].data
    said = download("ben:y", "secret", expect=1)
    assert "403" in said or "No matching distribution" in said
    download("ben:y", "open", expect=0)
    assert sorted(path.name for path in (tmp_path / "ben:y").iterdir()) == ["open-1.0-py3-none-any.whl"]
    logged = (tmp_path / "team.log").read_text("utf-8")
    assert "/simple/secret/" in logged and "ann" not in logged and "Basic" not in logged


def test_many_who_ask_at_once_cost_one_answer(house: House) -> None:
    """Page, metadata and file go to thirty from one answer each, the same to the byte; who holds it is told so."""
    house.guarded.public = True
    file = house.files["open"]
    paths = ["/simple/open/", f"/packages/open/{file.filename}", f"/packages/open/{file.filename}.metadata"]
    for path in paths:
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(house.get, [path] * 30))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert {answer.headers["cache-control"] for answer in answers} == {"no-cache"}
        assert not any("x-accel-expires" in answer.headers for answer in answers)
        held = {"If-None-Match": answers[0].headers["etag"], "Accept": JSON_TYPE, "User-Agent": UV}
        assert ask(house.port, "GET", path, headers=held, tls=house.tls).status == 304
    assert house.file("open").body == file.data
    assert [request.path for request in house.asked] == paths


def test_nothing_of_one_user_is_kept_or_reaches_another(house: House) -> None:
    """Ann's page and file lie in no cache of nginx; Ben and nobody are refused on it, and she is asked for anew."""
    house.guarded.public = True
    file = house.files["secret"]
    for _ in range(2):
        assert house.names("secret", ANN) == [file.filename] and house.file("secret", ANN).body == file.data
        for who, status in ((BEN, 403), (None, 401)):
            assert house.get("/simple/secret/", who).status == status
            assert house.file("secret", who).status == status
        assert house.names("open") and house.names("open", BEN)
    asked = [(request.headers.get("authorization"), request.path) for request in house.asked]
    assert asked.count((ANN, "/simple/secret/")) == 2 and asked.count((BEN, "/simple/open/")) == 2
    assert asked.count((None, "/simple/open/")) == 1
    kept = b"".join(house.kept())
    assert b"/simple/open/" in kept
    for never in (b"Basic", ANN.split()[1].encode(), b"secret", file.data):
        assert never not in kept


def test_credentials_that_come_twice_open_nothing(house: House) -> None:
    """nginx decides by the header that the proxy gets: an empty one before Ann's makes nobody of who brings both."""
    house.guarded.public = True
    for values in (("", ANN), (ANN, "")):
        house.twice("/simple/secret/", "Authorization", values)
        assert house.get("/simple/secret/").status == 401
    assert not any(b"secret-1.0" in kept for kept in house.kept())


def test_nothing_is_kept_for_who_shows_a_certificate(house: House, tmp_path: Path) -> None:
    """With the shipped lines for certificates of visitors: each is answered by the proxy itself."""
    house.guarded.public = True
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    asking = replace(house, port=free_port(), folder=tmp_path / "asking")
    write_team_front(asking.folder, port=asking.port, behind=house.behind, chain=chain, key=key)
    written = asking.folder / "countermark.conf"
    text = written.read_text("utf-8").replace("/etc/nginx/clients.pem", f"{tmp_path}/ca.pem")
    for line in ("ssl_client_certificate ", "ssl_verify_client "):
        assert text.count(f"    #{line}") == 1
        text = text.replace(f"    #{line}", f"    {line}")
    written.write_text(text, encoding="utf-8")
    asking.tls.load_cert_chain(chain, key)
    with nginx(asking.folder, asking.port):
        for _ in range(2):
            assert asking.names("open")
    assert len(house.asked) == 2 and asking.kept() == []


def test_the_proxy_is_asked_for_the_form_that_is_kept(house: House) -> None:
    """Who asks for two forms at once does not change what others get: each is kept under what the proxy was asked."""
    house.guarded.public = True
    house.twice("/simple/open/", "Accept", (TEXT_HTML, JSON_TYPE))
    for form in (TEXT_HTML, JSON_TYPE):
        answer = house.get("/simple/open/", accept=form)
        assert answer.headers["content-type"].startswith(form)


def test_a_hold_reaches_through_what_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets page or file longer than a judgement holds (2 s here); then everybody is told the reason."""
    monkeypatch.setattr(proxy_module, "PROXY_JUDGED_FOR", timedelta(seconds=2))
    house.guarded.public = True
    world, file = house.guarded.world, house.files["open"]
    for agent in (UV, PIP):
        assert house.names("open", agent=agent) == [file.filename]
    assert house.file("open").status == 200
    world.decide("hold", file, "malware")
    world.release()
    held = asked = time.monotonic()
    while file.filename in house.names("open") or house.file("open").status == 200:
        assert asked < held + 2  # on a busy machine the answer itself may come later
        asked = time.monotonic()
        time.sleep(0.05)
    assert house.file("open").status == 403
    notices = house.names("open")
    assert notices and house.names("open", agent=PIP) == notices
    for name in notices:
        assert "refused" in name and house.get(f"/packages/open/{name}").status == 403
    world.decide("clear", file, "false-positive")
    world.release()
    cleared = asked = time.monotonic()
    while house.file("open").status != 200:
        assert asked < cleared + 2
        asked = time.monotonic()
        time.sleep(0.05)


def test_an_error_is_kept_by_nobody(house: House) -> None:
    """While the registry is away nothing is offered, and at once again when it is back."""
    house.guarded.public = True
    world = house.guarded.world
    world.down = lambda path: True
    assert house.get("/simple/open/").status >= 400 and house.get("/packages/open/none.whl").status >= 400
    world.down = lambda path: False
    assert house.names("open") and house.file("open").status == 200


def test_a_file_that_is_cut_off_is_seen_to_be_and_kept_by_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file whose bytes are false ends early for who asked first, and is refused to who asks then."""
    monkeypatch.setattr(proxy_module, "PROXY_WHOLE_BYTES", 100_000)
    house.guarded.public = True
    world = house.guarded.world
    data = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(10_000))
    file = world.publish("large", data=data)
    right = world.packages[f"large/{file.filename}"]
    world.packages[f"large/{file.filename}"] = right[:-1] + b"?"
    path = f"/packages/large/{file.filename}"
    with pytest.raises(http.client.IncompleteRead) as cut:
        house.get(path)
    assert 0 < len(cut.value.partial) < len(data)
    assert house.get(path).status == 409
    assert not any(data[:1000] in kept for kept in house.kept())
