"""Who may not read, reads nothing: by any door, with somebody else's token, by a forged header, by an odd path."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from countermark_server.accounts.access import OPEN, OPEN_BELOW
from countermark_server.settings import Access, SettingsError
from tests.archives import wheel
from tests.doors import DoorWorld

WHEEL, OTHER = "demo-1.0-py3-none-any.whl", "other-1.0-py3-none-any.whl"
SECRET, OURS = "p" * 43, "o" * 43
_PEOPLE = itertools.count()
DIGEST = hashlib.sha256(wheel()).hexdigest()
READING = [
    "/", "/e/0", "/simple/", "/simple/demo/", "/pypi/demo/json", "/pypi/demo/1.0/json", f"/packages/demo/{WHEEL}",
    f"/packages/demo/{WHEEL}.metadata", f"/integrity/demo/1.0/{WHEEL}/provenance", f"/api/v1/files/demo/{WHEEL}",
    "/api/v1/files/demo", "/api/v1/projects/demo", "/api/v1/logged/" + "0" * 64, "/log/checkpoint",
    "/log/tile/0/000.p/3", "/log/tile/entries/000.p/3", "/tuf/1.root.json", "/tuf/timestamp.json",
    f"/tuf/targets/files/demo/{DIGEST}.{WHEEL}", "/blobs/" + "0" * 64, "/v1/vulns/CM-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """A registry that is read with a token; two projects, each with a listed file."""
    ours = hashlib.sha256(OURS.encode()).hexdigest()
    made = DoorWorld(tmp_path_factory.mktemp("private"), access=Access(mode="token", reader_sha256=ours))
    with made.run():
        grace = made.person("grace")
        assert grace.upload(WHEEL, wheel()).status_code == 200
        assert grace.upload(OTHER, wheel("other")).status_code == 200
        for name in (WHEEL, OTHER):
            made.set_state(name, state="listed")
        yield made
    made.close()


def token(world: DoorWorld, **scope: object) -> str:
    """A token of somebody's, narrowed so."""
    session = world.person(f"person-{next(_PEOPLE)}").session
    made = world.client.post(
        "/api/v1/tokens", json={"name": "t", **scope}, headers={"Authorization": f"Bearer {session}"}
    )
    assert made.status_code == 200, made.get_data()
    return str(made.get_json()["token"])


def get(world: DoorWorld, path: str, secret: str | None = None, **headers: str) -> TestResponse:
    own = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return world.client.get(path, headers={"Accept": "*/*", **own, **headers})


@pytest.mark.parametrize("path", READING)
def test_nothing_is_read_without_a_token(world: DoorWorld, path: str) -> None:
    """By no door, and the answer is the same whether there is such a thing or not."""
    before = world.state()
    for secret in (None, "cmu_" + "A" * 43, "o" * 42):
        answer = get(world, path, secret)
        assert (answer.status_code, answer.get_json()["code"]) == (401, "not-authenticated"), path
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert answer.headers["Cache-Control"] == "no-store"
    assert world.state() == before


def test_every_door_is_closed_unless_it_is_listed(world: DoorWorld) -> None:
    """A test of the list: whatever routes there are, now or later, a stranger gets in by the listed ones alone."""
    for rule in world.app.url_map.iter_rules():
        path = rule.rule
        for argument in rule.arguments:
            path = path.replace(f"<path:{argument}>", "x").replace(f"<{argument}>", "x")
            path = path.replace(f"<int:{argument}>", "1")
        is_listed = path in OPEN or path.startswith(OPEN_BELOW)
        if "GET" in (rule.methods or ()) and not is_listed:
            assert get(world, path).status_code == 401, path
    assert world.client.post("/v1/querybatch", json={"queries": []}).status_code == 401


def test_pages_of_who_is_signed_in_ask_to_sign_in_and_for_no_token(world: DoorWorld) -> None:
    """A browser has a cookie, and pages take no token: the first page after signing in is one of them."""
    for path in ("/me", "/me/tokens", "/me/approvals"):
        answer = get(world, path)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?next={path}")
    assert get(world, "/sign-in").status_code == 200
    assert get(world, "/sign-in/provider").status_code == 404  # this registry has none: no token is asked for
    assert get(world, "/mee").status_code == 401


def test_a_token_that_may_read_reads(world: DoorWorld) -> None:
    """As Bearer, or as password of Basic; what it gets is for no shared cache."""
    reader = token(world, actions=["read"])
    for path in (
        "/simple/",
        "/simple/demo/",
        f"/packages/demo/{WHEEL}",
        "/log/checkpoint",
        "/tuf/1.root.json",
    ):
        answer = get(world, path, reader)
        assert answer.status_code == 200, path
        assert not answer.headers["Cache-Control"].startswith("public") and "Authorization" in answer.vary
    assert get(world, "/log/checkpoint", OURS).status_code == 200
    assert get(world, "/simple/", token(world)).status_code == 200


def test_a_token_for_something_else_reads_nothing(world: DoorWorld) -> None:
    """One that may only upload is refused with the words that say so; one that was revoked is nobody's."""
    uploader = token(world, actions=["upload"])
    for path in ("/simple/demo/", "/log/checkpoint", "/tuf/1.root.json"):
        assert get(world, path, uploader).get_json()["code"] == "token-scope", path
    reader = token(world, actions=["read"])
    assert world.client.post("/api/v1/tokens/revoke", json={"token": reader}).status_code == 200
    assert get(world, "/log/checkpoint", reader).status_code == 401


def test_who_reads_one_project_gets_no_file_of_another(world: DoorWorld) -> None:
    """In any spelling, by every door that hands out bytes or pages; lists, log and TUF are whole."""
    reader = token(world, actions=["read"], projects=["other"])
    for path in (
        f"/packages/other/{OTHER}",
        "/simple/other/",
        "/simple/",
        "/log/checkpoint",
        "/tuf/1.root.json",
    ):
        assert get(world, path, reader).status_code == 200, path
    for path in [each for each in READING if "/demo" in each] + [
        f"/packages/DEMO/{WHEEL}", f"/packages/./demo/{WHEEL}", f"/packages/other/../demo/{WHEEL}",
        f"/packages//demo/{WHEEL}", f"/packages/%64emo/{WHEEL}", f"/packages/%2564emo/{WHEEL}",
    ]:  # fmt: skip
        answer = get(world, path, reader)
        assert answer.status_code in (403, 404), (path, answer.status_code)
        assert wheel() != answer.get_data()


@pytest.mark.parametrize(
    "path",
    ["/h/../tuf/1.root.json", "/legacy/../log/checkpoint", "/h//../log/checkpoint", "/h/%2e%2e/log/checkpoint",
     "/h/%252e%252e/log/checkpoint", "/login/..%2f..%2flog/checkpoint", "/log/checkpoint/../tile/0/000",
     "/h/\\..\\log", "", "log/checkpoint", "/static/./../simple/"],
)  # fmt: skip
def test_the_proxy_is_told_no_for_a_path_with_two_readings(world: DoorWorld, path: str) -> None:
    """What nginx would resolve to something closed is not judged by how it begins."""
    assert get(world, "/api/v1/access", **{"X-Original-URI": path}).status_code == 401
    narrow = token(world, actions=["read"], projects=["other"])
    answer = get(world, "/api/v1/access", narrow, **{"X-Original-URI": f"{path}/../simple/demo/"})
    assert answer.status_code == 403


def test_the_proxy_is_told_what_the_doors_say(world: DoorWorld) -> None:
    """One decision for both; an answer about a person is not kept by anybody but who asked."""
    reader = token(world, actions=["read"], projects=["other"])
    for path, status in (
        ("/log/tile/0/000", 204), ("/simple/other/", 204), ("/simple/demo/", 403), ("/packages/demo/x.whl", 403),
        ("/h/not-found", 204),
    ):  # fmt: skip
        answer = get(world, "/api/v1/access", reader, **{"X-Original-URI": path})
        assert (answer.status_code, answer.headers["Cache-Control"]) == (status, "no-store"), path
    assert get(world, "/api/v1/access", **{"X-Original-URI": "/log/tile/0/000"}).status_code == 401


def test_the_checkpoint_alone_may_be_for_everybody(tmp_path: Path) -> None:
    """For witnesses elsewhere; the tree behind it stays closed."""
    world = DoorWorld(tmp_path, access=Access(mode="token", public_checkpoint=True))
    with world.run():
        assert get(world, "/log/checkpoint").status_code == 200
        for path in (
            "/log/tile/0/000.p/1",
            "/log/tile/entries/000.p/1",
            "/log/checkpoint/",
            "/tuf/1.root.json",
        ):
            assert get(world, path).status_code == 401, path
    world.close()


def test_a_forged_word_of_the_proxy_opens_nothing(tmp_path: Path) -> None:
    """Its header without its secret, its secret from elsewhere, a certificate that is none; nor does a token."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    ours = hashlib.sha256(OURS.encode()).hexdigest()
    settings = Access(
        mode="mtls", proxies="127.0.0.1", proxy_secret_file=str(tmp_path / "secret"), reader_sha256=ours
    )
    world = DoorWorld(tmp_path / "registry", access=settings)
    with world.run():
        person = world.person("ada")
        good = {"X-Countermark-Client-Verify": "SUCCESS", "X-Countermark-Proxy": SECRET}
        assert get(world, "/log/checkpoint", **good).status_code == 200
        for bad in (
            {}, {"X-Countermark-Client-Verify": "SUCCESS"}, {"X-Countermark-Proxy": SECRET},
            {**good, "X-Countermark-Proxy": SECRET[1:]}, {**good, "X-Countermark-Client-Verify": "NONE"},
            {**good, "X-Countermark-Client-Verify": "FAILED:expired"}, {"Authorization": f"Bearer {person.token}"},
        ):  # fmt: skip
            assert get(world, "/log/checkpoint", **bad).status_code == 403, bad
        assert "WWW-Authenticate" in get(world, "/log/checkpoint").headers
        assert get(world, "/log/checkpoint", OURS).status_code == 200  # the registry's own processes
        elsewhere = world.client.get(
            "/log/checkpoint", headers=good, environ_overrides={"REMOTE_ADDR": "10.0.0.7"}
        )
        assert (elsewhere.status_code, elsewhere.get_json()["code"]) == (403, "certificate-needed")
        assert person.upload(WHEEL, wheel()).status_code == 200  # a token of its own is what an upload needs
    world.close()


@pytest.mark.parametrize(
    "settings",
    [Access(mode="private"), Access(mode="mtls"), Access(mode="mtls", proxy_secret_file="nowhere"),
     Access(mode="mtls", proxy_secret_file="short")],
)  # fmt: skip
def test_a_registry_that_could_not_tell_does_not_start(tmp_path: Path, settings: Access) -> None:
    """An unknown mode, no secret, one that is not there, one that can be guessed."""
    (tmp_path / "short").write_text("secret")
    with pytest.raises(SettingsError, match=r"access\."):
        DoorWorld(tmp_path, access=settings)
