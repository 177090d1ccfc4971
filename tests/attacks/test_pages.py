"""The signed-in pages: forms of other sites, cookies in wrong places, other people's things, browsers left open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from countermark_server import db, orgtables
from countermark_server.accounts import desk, orgapply, orgfile
from countermark_server.app import create_app
from countermark_server.settings import Registry
from tests.archives import wheel
from tests.doors import DoorWorld
from tests.log_world import ORIGIN

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """A registry with Grace's project, and Eve, who has none."""
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    with made.run():
        grace = made.person("grace")
        made.person("eve")
        assert grace.upload(WHEEL, wheel()).status_code == 200
        with db.write(made.engine) as connection:
            acme = orgfile.parse('[[organisation]]\nname = "acme"\nowners = ["grace"]\n')
            orgapply.apply(connection, acme, now=int(made.clock()))
        yield made
    made.close()


def signed_in(world: DoorWorld, login: str) -> FlaskClient:
    """A browser in which somebody signed in with a one-time code."""
    browser = world.app.test_client()
    world.clock.now += 10  # ten attempts a minute
    answer = sign_in(browser, world.login_code(login))
    assert answer.status_code == 303 and answer.headers["Location"] == "/me"
    return browser


def sign_in(browser: FlaskClient, code: str, **fields: str) -> Any:
    csrf = form_value(browser.get("/sign-in"))
    return browser.post("/sign-in", data={"csrf": csrf, "code": code, **fields})


def form_value(answer: Any) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', answer.get_data(as_text=True))
    assert found is not None, answer.get_data(as_text=True)
    return found[1]


def made_tokens(world: DoorWorld) -> int:
    with db.read(world.engine) as connection:
        return len(connection.execute(select(db.token.c.id)).all())


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "of Eve"])
def test_a_form_of_another_site_does_nothing(world: DoorWorld, csrf: str | None) -> None:
    """Without the value of this very browser no token is made or revoked, and nobody is signed out."""
    grace, eve = signed_in(world, "grace"), signed_in(world, "eve")
    if csrf == "of Eve":
        csrf = form_value(eve.get("/me"))
    token = world.client.get("/api/v1/tokens", headers=bearer(world, "grace")).get_json()["tokens"][0]["id"]
    before = world.rows()
    for path in ("/me/tokens", f"/me/tokens/{token}/revoke", "/sign-out"):
        data = {"name": "theirs"} | ({} if csrf is None else {"csrf": csrf})
        answer = grace.post(path, data=data, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403 and "form-foreign" in answer.get_data(as_text=True)
    assert world.rows() == before
    assert grace.get("/me").status_code == 200


def bearer(world: DoorWorld, login: str) -> dict[str, str]:
    answer = world.client.post("/api/v1/login", json={"code": world.login_code(login)})
    return {"Authorization": f"Bearer {answer.get_json()['session']}"}


def test_nobody_is_signed_in_as_somebody_else_by_another_site(world: DoorWorld) -> None:
    """A stranger's code in a form of theirs: the browser has not opened our page, so it is not signed in as them."""
    code, victim = world.login_code("eve"), world.app.test_client()
    answer = victim.post("/sign-in", data={"code": code, "csrf": form_value(world.client.get("/sign-in"))})
    assert answer.status_code == 403
    assert victim.get("/me").headers["Location"] == "/sign-in?next=/me"


@pytest.mark.parametrize(
    "path",
    ["https://evil.example/", "//evil.example", "/me/../packages", "/mean", "/me?x=//e", "/\\evil", "/me/\n"],
)
def test_a_sign_in_leads_to_a_page_of_ours_alone(world: DoorWorld, path: str) -> None:
    """What is asked for behind the sign-in is a path of these pages, or nothing."""
    assert desk.inside(path) == "/me" and desk.inside("/me/projects/a-b.c") == "/me/projects/a-b.c"
    world.clock.now += 10
    answer = sign_in(world.app.test_client(), world.login_code("eve"), next=path)
    assert answer.headers["Location"] == "/me"


def test_a_cookie_is_no_token_and_a_token_no_cookie(world: DoorWorld) -> None:
    """What a browser holds opens pages alone; what a machine holds opens none."""
    browser = signed_in(world, "grace")
    cookie = browser.get_cookie("countermark")
    assert cookie is not None and cookie.http_only and cookie.same_site == "Lax" and cookie.path == "/"
    answer = world.client.get("/api/v1/tokens", headers={"Authorization": f"Bearer {cookie.value}"})
    assert answer.status_code == 401
    stranger = world.app.test_client()
    session = bearer(world, "grace")["Authorization"].removeprefix("Bearer ")
    stranger.set_cookie("countermark", session)
    assert stranger.get("/me").status_code == 303
    assert cookie.value not in repr(world.rows())


def test_a_cookie_from_before_the_sign_in_is_worth_nothing_after_it(world: DoorWorld) -> None:
    """Neither one that somebody planted, nor the one of an earlier sign-in in the same browser."""
    browser = world.app.test_client()
    browser.set_cookie("countermark", "planted")
    world.clock.now += 60
    sign_in(browser, world.login_code("grace"))
    first = browser.get_cookie("countermark")
    sign_in(browser, world.login_code("grace"))
    second = browser.get_cookie("countermark")
    assert first is not None and second is not None and "planted" != first.value != second.value
    other = world.app.test_client()
    other.set_cookie("countermark", first.value)
    assert other.get("/me").status_code == 303 and browser.get("/me").status_code == 200
    browser.post("/sign-out", data={"csrf": form_value(browser.get("/me"))})
    other.set_cookie("countermark", second.value)
    assert other.get("/me").status_code == 303


def test_what_is_somebody_elses_is_not_shown(world: DoorWorld) -> None:
    """Eve opens Grace's project, token and organisation by their addresses; she hears no more than a stranger."""
    eve = signed_in(world, "eve")
    assert eve.get("/me/projects/demo").status_code == 403
    hidden, none = eve.get("/me/organisations/acme"), eve.get("/me/organisations/nothing")
    assert hidden.status_code == none.status_code == 404
    assert hidden.get_data(as_text=True).replace("acme", "nothing") == none.get_data(as_text=True)
    token = world.client.get("/api/v1/tokens", headers=bearer(world, "grace")).get_json()["tokens"][0]["id"]
    csrf = form_value(eve.get("/me"))
    assert eve.post(f"/me/tokens/{token}/revoke", data={"csrf": csrf}).status_code == 404


def test_a_browser_left_open_makes_no_token_but_ends_one(world: DoorWorld) -> None:
    """After ten minutes power is not given any more, only taken; after eight hours the browser is nobody's."""
    grace = signed_in(world, "grace")
    csrf, count = form_value(grace.get("/me")), made_tokens(world)
    world.clock.now += 601
    answer = grace.post("/me/tokens", data={"csrf": csrf, "name": "late"})
    assert answer.headers["Location"] == "/sign-in?next=/me/tokens" and made_tokens(world) == count
    token = world.client.get("/api/v1/tokens", headers=bearer(world, "grace")).get_json()["tokens"][0]["id"]
    assert grace.post(f"/me/tokens/{token}/revoke", data={"csrf": csrf}).headers["Location"] == "/me/tokens"
    world.clock.now += 8 * 3600
    assert grace.get("/me").status_code == 303


def test_an_erased_person_is_out(world: DoorWorld) -> None:
    """The account's row goes, and its browsers with it."""
    world.person("leaving")
    browser = signed_in(world, "leaving")
    with db.write(world.engine) as connection:
        mine = select(db.account.c.id).where(db.account.c.login == "leaving").scalar_subquery()
        for table in (db.token, db.login_code):
            connection.execute(table.delete().where(table.c.account_id == mine))
        connection.execute(db.account.delete().where(db.account.c.login == "leaving"))
        left = connection.execute(select(orgtables.browser_session.c.account_id)).scalars().all()
    assert browser.get("/me").status_code == 303 and len(set(left)) <= 2


def test_over_tls_the_cookie_is_for_this_host_alone(world: DoorWorld, tmp_path: Path) -> None:
    """`__Host-` and Secure: no other host, no other path, and never in the clear."""
    settings = replace(world.settings, registry=Registry(origin=ORIGIN, base_url="https://registry.test"))
    app = create_app(settings, clock=world.clock, engine=world.engine, registry=world.roles["registry"])
    browser = app.test_client()
    csrf = form_value(browser.get("/sign-in", base_url="https://registry.test"))
    answer = browser.post(
        "/sign-in",
        data={"csrf": csrf, "code": world.login_code("grace")},
        base_url="https://registry.test",
    )
    set_ = next(
        value for value in answer.headers.getlist("Set-Cookie") if value.startswith("__Host-countermark=")
    )
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(set_.split("; ")) and "Domain" not in set_


def test_pages_keep_to_the_strict_policy(world: DoorWorld) -> None:
    """No script, no frame, forms to ourselves; nothing is kept in a cache."""
    grace = signed_in(world, "grace")
    for path in (
        "/me",
        "/me/projects/demo",
        "/me/tokens",
        "/me/organisations/acme",
        "/sign-in",
        "/me/projects/x",
    ):
        answer = grace.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "form-action 'self'" in policy and "script" not in policy
        assert answer.headers["Cache-Control"] == "no-store" and "<script" not in answer.get_data(
            as_text=True
        )
        assert "style=" not in answer.get_data(as_text=True)
