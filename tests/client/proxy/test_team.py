"""team.py: one proxy for several people, before a registry that shows each of them something else."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.clientpolicy import Policies
from countermark.credentials import shown_to
from countermark.fetch import HttpFetcher
from countermark.filestore import FileStore
from countermark.limits import TEAM_USERS_MAX
from countermark.pins import Home
from countermark.proxy import Proxy
from countermark.serving import Request, Response, listening
from countermark.team import Team
from tests.simulator import Published, World

ANN, BEN = ("Basic " + base64.b64encode(who).decode() for who in (b"ann:x", b"ben:y"))
PRIVATE = ("/simple/secret/", "/packages/secret/", "/api/v1/files/secret")


class Guarded:
    """A registry that asks everybody who they are, and shows one project to Ann alone.

    `public`: it shows everybody the rest.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[str | None, str]] = []
        self.public = False

    def answer(self, request: Request) -> Response:
        who = request.headers.get("authorization")
        self.asked.append((who, request.path))
        is_private = request.path.startswith(PRIVATE)
        if who not in (ANN, BEN) and (is_private or not self.public):
            return Response(401, b"", headers={"WWW-Authenticate": 'Basic realm="acme"'})
        if is_private and who != ANN:
            return Response(403, b"")
        return self.world.answer(request)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    world = World(now=int(time.time()))
    guarded = Guarded(world)
    with listening(guarded.answer, "127.0.0.1", 0, max_body=0) as server:
        world.base = server.url
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield guarded
        server.shutdown()
        thread.join()


@pytest.fixture
def secret(guarded: Guarded) -> Published:
    guarded.world.publish("open")
    return guarded.world.publish("secret")


@pytest.fixture
def team(guarded: Guarded, secret: Published, tmp_path: Path) -> Team:
    registry = Home(tmp_path / "home").add(guarded.world.base, guarded.world.root)
    store = FileStore(tmp_path / "store")

    def make(authorization: str | None) -> Proxy:
        return Proxy(
            registry, HttpFetcher(credentials=shown_to(registry.url, authorization)), store,
            policies=Policies(), clock=lambda: int(time.time()), say=lambda text: None,
        )  # fmt: skip

    return Team(make, lends=False)


def get(team: Team, path: str, who: str | None = None) -> Response:
    headers = {"accept": "application/vnd.pypi.simple.v1+json"} | ({"authorization": who} if who else {})
    return team.answer(Request("GET", path, headers))


def bytes_of(answer: Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body.pieces)


def test_credentials_are_passed_through(team: Team, guarded: Guarded, secret: Published) -> None:
    """The registry sees who asks, with every question; its answer says that no cache may keep it."""
    page = get(team, "/simple/secret/", ANN)
    assert page.status == 200 and secret.filename.encode() in bytes_of(page)
    assert page.headers["Cache-Control"] == "private" and page.headers["Vary"] == "Authorization"
    assert bytes_of(get(team, f"/packages/secret/{secret.filename}", ANN)) == secret.data
    assert {who for who, _ in guarded.asked} == {ANN, None}  # nothing is shown before the registry asks


def test_nothing_of_one_user_reaches_another_on_a_warm_cache(
    team: Team, guarded: Guarded, secret: Published
) -> None:
    """Ann's page is judged, her file lies on this disk; Ben, who may not see it, and nobody at all, get neither."""
    get(team, "/simple/secret/", ANN)
    bytes_of(get(team, f"/packages/secret/{secret.filename}", ANN))
    for who, status in ((BEN, 403), (None, 401), ("Basic bm9ib2R5Og==", 401)):
        for path in ("/simple/secret/", f"/packages/secret/{secret.filename}"):
            answer = get(team, path, who)
            assert answer.status == status and secret.data not in bytes_of(answer)
            assert ("WWW-Authenticate" in answer.headers) is (status == 401)
    assert get(team, "/simple/open/", BEN).status == 200
    guarded.world.down = lambda path: True  # not even when the registry cannot be asked any more
    assert get(team, f"/packages/secret/{secret.filename}", BEN).status == 403
    assert get(team, f"/packages/secret/{secret.filename}", None).status == 401


def test_the_front_page_is_for_who_may_read_the_registry(team: Team) -> None:
    """It names projects: nobody who would not be told them by the registry reads it, whoever read it before."""
    assert b"no exception is in force" in bytes_of(get(team, "/", ANN))
    answer = get(team, "/")
    assert (
        answer.status == 401 and "WWW-Authenticate" in answer.headers and b"exception" not in bytes_of(answer)
    )


def test_only_what_is_for_everybody_may_be_kept(team: Team, guarded: Guarded, secret: Published) -> None:
    """Answers to credentials, and all of a proxy that lends its certificate, are for no cache before it."""
    guarded.public = True
    paths = ["/simple/open/", "/packages/open/open-1.0-py3-none-any.whl"]
    lending = Team(team._make, lends=True)
    for path in paths:
        assert get(team, path).headers["X-Accel-Expires"].startswith("@")
        for answer in (get(team, path, ANN), get(lending, path)):
            assert answer.status == 200 and answer.headers["X-Accel-Expires"] == "0"
            assert answer.headers["Cache-Control"] == "private"


def test_credentials_leave_for_the_registrys_host_alone(guarded: Guarded) -> None:
    """Another host gets none, though it be asked by the same fetcher."""
    other = Guarded(guarded.world)
    other.public = True
    with listening(other.answer, "127.0.0.1", 0, max_body=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fetcher = HttpFetcher(credentials=shown_to(guarded.world.base, ANN))
        fetcher.get(f"{server.url}/log/checkpoint")
        server.shutdown()
        thread.join()
    assert [who for who, _ in other.asked] == [None]


def test_users_are_forgotten_in_turn(team: Team) -> None:
    """The number of users in memory is bounded; who was forgotten is asked for anew."""
    for number in range(TEAM_USERS_MAX + 5):
        team._of(f"Basic {number}")
    assert len(team._proxies) == TEAM_USERS_MAX
    assert not any("Basic" in who for who in team._proxies)


def test_a_store_past_its_limit_goes_on_serving(guarded: Guarded, tmp_path: Path) -> None:
    """More files than the disk may hold, installed one after the other: each arrives, the oldest make room."""
    world = guarded.world
    guarded.public = True
    files = [world.publish("acme", f"{n}.0", data=bytes([n]) * 1000) for n in range(1, 9)]
    registry = Home(tmp_path / "home").add(world.base, world.root)
    folder = tmp_path / "store"
    proxy = Proxy(
        registry, HttpFetcher(), FileStore(folder, max_bytes=3000),
        policies=Policies(), clock=lambda: int(time.time()), say=lambda text: None,
    )  # fmt: skip
    for file in (*files, *files):
        answer = proxy.answer(Request("GET", f"/packages/acme/{file.filename}"))
        assert answer.status == 200 and bytes_of(answer) == file.data
        kept = [path for path in folder.glob("??/*") if path.is_file()]
        assert sum(path.stat().st_size for path in kept) <= 3000 and kept
