"""Tokens that are good for as little as they need, and the people and services that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from countermark.errors import UsageError
from countermark_server import db
from countermark_server.accounts import codes, people, tokens
from tests.archives import sdist, wheel
from tests.doors import DoorWorld, Person, publish
from tests.server.upload.test_upload import refused

DAY = 86_400
WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """One registry; each test has people of its own."""
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    with made.run():
        yield made
    made.close()


@pytest.fixture
def ada(world: DoorWorld, request: pytest.FixtureRequest) -> Person:
    return world.person(f"ada of {request.node.name}")


def post(world: DoorWorld, path: str, body: Any, secret: str) -> Any:
    return world.client.post(f"/api/v1/{path}", json=body, headers={"Authorization": f"Bearer {secret}"})


def make(person: Person, **asked: Any) -> dict[str, Any]:
    """A token of theirs."""
    answer = post(person.world, "tokens", {"name": "ci", **asked}, person.session)
    assert answer.status_code == 200, answer.get_json()
    found: dict[str, Any] = answer.get_json()
    return found


def listed(person: Person) -> dict[str, dict[str, Any]]:
    answer = person.world.client.get("/api/v1/tokens", headers={"Authorization": f"Bearer {person.session}"})
    return {each["id"]: each for each in answer.get_json()["tokens"]}


def named(project: str, version: str = "1.0") -> tuple[str, bytes]:
    return f"{project}-{version}-py3-none-any.whl", wheel(project, version)


def test_a_token_says_what_it_is_for_and_its_secret_once(world: DoorWorld, ada: Person) -> None:
    """Made by a session; listed with its scope and never with its secret, which is not in the database either."""
    now = int(world.clock())
    made = make(ada, projects=["Acme.Demo", "acme-*"], actions=["upload"], expires_in=90 * DAY)
    secret = made.pop("token")
    assert made == listed(ada)[made["id"]]
    assert made["projects"] == ["acme-*", "acme-demo"] and made["actions"] == ["upload"]
    assert made["expires"] == now + 90 * DAY and made["revoked"] is None and made["last_used"] is None
    assert secret not in repr(world.rows()) and secret[4:] not in repr(listed(ada))
    assert re.fullmatch(tokens.SCANNED, secret) and re.search(tokens.SCANNED, f'TOKEN="{secret}"')
    assert not re.search(tokens.SCANNED, "cmu_short") and not re.search(tokens.SCANNED, f"x{secret}")


@pytest.mark.parametrize(
    ("projects", "good", "bad"),
    [
        (["scoped-one"], ["scoped_one"], ["scoped", "scoped_one_more"]),
        (["range-*"], ["range_a", "range_b"], ["range", "ranger"]),
        (["*"], ["anything"], []),
        (["corp/*"], [], ["corp"]),
    ],
)
def test_a_token_uploads_to_its_projects_alone(
    world: DoorWorld, ada: Person, projects: list[str], good: list[str], bad: list[str]
) -> None:
    """By name or by pattern, new projects too; anything else is refused before the file is looked into."""
    secret = make(ada, projects=projects)["token"]
    for project in good:
        assert ada.upload(*named(project), token=secret).status_code == 200
    world.quiet()
    before = world.state()
    for project in bad:
        body = refused(ada.upload(*named(project), token=secret), "token-scope")
        assert projects[0] in body["detail"]
    assert world.state() == before


def test_a_token_does_its_actions_alone(world: DoorWorld, ada: Person) -> None:
    """One for files hands in no statement, one for statements no file; neither makes tokens or enrols keys."""
    assert ada.enrol("actions").status_code == 200
    files, entries = (make(ada, actions=[action])["token"] for action in ("upload", "entries"))
    name, data = named("actions")
    envelope = publish(name, data, ada.key).to_dict()
    world.quiet()
    before = world.state()
    refused(ada.upload(name, data, token=entries), "token-scope")
    refused(post(world, "statements", {"envelope": envelope}, files), "token-scope")
    refused(post(world, "entries", {"envelope": envelope}, files), "token-scope")
    for secret in (files, entries):
        for path, body in (("tokens", {"name": "more"}), (f"tokens/{tokens.id_of(files)}/revoke", {})):
            refused(post(world, path, body, secret), "session-required")
        assert ada.enrol("more", token=secret).get_json()["code"] == "session-required"
        answer = world.client.get("/api/v1/tokens", headers={"Authorization": f"Bearer {secret}"})
        refused(answer, "session-required")
    assert world.state() == before
    assert post(world, "statements", {"envelope": envelope}, entries).status_code == 200
    assert ada.upload(name, data, token=files).status_code == 200


def test_a_token_ends_when_it_is_revoked_or_its_time_is_over(world: DoorWorld, ada: Person) -> None:
    """At once, by its owner, by nobody else, by whoever found it; a second time changes nothing."""
    now = int(world.clock())
    one, two, three = (make(ada, name=name, expires_in=DAY) for name in ("one", "two", "three"))
    eve = world.person("eve of ends")
    before = world.state()
    refused(post(world, f"tokens/{one['id']}/revoke", {}, eve.session), "not-found")
    refused(post(world, "tokens/revoke", {"token": "cmu_" + "A" * 43}, ""), "not-found")
    refused(post(world, "tokens/revoke", {"token": 7}, ""), "bad-request")
    for odd in (r"cmu_\ud800", r"cmu_\u0000", r"\\\u0000"):
        refused(world.client.post("/api/v1/tokens/revoke", data=f'{{"token": "{odd}"}}'), "bad-request")
    refused(
        post(world, "tokens/revoke", {"token": r"é\u0000 \ud800"}, ""), "not-found"
    )  # backslashes are none
    assert world.state() == before
    assert post(world, f"tokens/{one['id']}/revoke", {}, ada.session).get_json()["revoked"] == now
    found = world.client.post("/api/v1/tokens/revoke", json={"token": two["token"]})
    assert found.get_json()["id"] == two["id"] and "token" not in found.get_json()
    world.clock.now += 5
    assert post(world, f"tokens/{one['id']}/revoke", {}, ada.session).get_json()["revoked"] == now
    for dead in (one, two):
        refused(ada.upload(*named("ends"), token=dead["token"]), "not-authenticated")
    world.clock.now += DAY + 1
    refused(ada.upload(*named("ends"), token=three["token"]), "not-authenticated")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("odd", ["\0", "robot\0", "\ud800"])
def test_what_no_database_can_be_asked_for_is_refused_at_every_door(tmp_path: Path, odd: str) -> None:
    """In a body, a path, a query, a form: words of ours instead of an error of the database; nothing is written."""
    world = DoorWorld(tmp_path)
    ada = world.person("ada")
    before = world.state()
    refused(post(world, "tokens", {"name": "x", "for": odd}, ada.session), "bad-request")
    refused(post(world, "login/device/token", {"device_code": odd}, ""), "bad-request")
    refused(
        post(world, "projects/demo/owners", {"action": "add", "account": odd, "role": "owner"}, ada.session),
        "bad-request",
    )
    if "\0" in odd:
        for path in (
            "/me/organisations/{}",
            "/login/device?code={}",
            "/api/v1/keys/{}",
            "/api/v1/projects/{}",
        ):
            headers = {"Authorization": f"Bearer {ada.session}"}
            answer = world.client.get(path.format(quote(odd)), headers=headers)
            assert answer.status.startswith("404 no address here holds a NUL"), path
    assert world.state() == before
    world.close()


def test_last_use_is_noted_to_within_the_hour(world: DoorWorld, ada: Person) -> None:
    """Also of a use that was refused; and a process writes it once an hour at the most."""
    now = int(world.clock())
    made = make(ada, projects=["used"])
    refused(ada.upload(*named("unused"), token=made["token"]), "token-scope")
    assert listed(ada)[made["id"]]["last_used"] == now
    world.clock.now += 3599
    assert ada.upload(*named("used"), token=made["token"]).status_code == 200
    assert listed(ada)[made["id"]]["last_used"] == now
    world.clock.now += 1
    assert ada.upload(*named("used"), token=made["token"]).status_code == 200
    assert listed(ada)[made["id"]]["last_used"] == now + 3600


def test_a_service_account_has_an_owner_and_a_last_day(world: DoorWorld, ada: Person) -> None:
    """Nobody signs in as it; its owner makes and revokes its tokens; on its last day they end."""
    now = int(world.clock())
    eve = world.person("eve of services")
    with db.write(world.engine) as connection:
        robot = people.add_service_account(connection, "robot", owner=ada.login, expires=now + DAY, now=now)
        with pytest.raises(UsageError, match="nobody signs in"):
            codes.create_login_code(connection, "robot", now=now)
        for owner in ("robot", "nobody"):
            with pytest.raises(UsageError, match="no account of a person"):
                people.add_service_account(connection, "r2", owner=owner, expires=now + 1, now=now)
    refused(post(world, "tokens", {"name": "x", "for": "robot"}, eve.session), "not-found")
    refused(post(world, "tokens", {"name": "x", "for": eve.login}, ada.session), "not-found")
    made = make(ada, **{"for": "robot"})
    assert made["login"] == "robot" and listed(ada)[made["id"]]["login"] == "robot"
    assert made["id"] not in listed(eve)
    assert ada.upload(*named("robots"), token=made["token"]).status_code == 200
    with db.read(world.engine) as connection:
        row = connection.execute(select(db.submission).where(db.submission.c.project == "robots"))
        assert row.mappings().one()["uploader"] == robot.id
    world.clock.now += DAY + 1
    body = refused(ada.upload("robots-1.0.tar.gz", sdist("robots"), token=made["token"]), "not-authenticated")
    assert "service account" in body["detail"]


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"name": ""}, {"name": "x" * 65}, {"name": 7}, {"name": "a\nb"},
        *({"name": "x", "projects": each} for each in ([], "demo", [7], ["-"], ["a*b"], ["A-*"])),
        *({"name": "x", "projects": each} for each in (["x/y/*"], ["d"] * 101)),
        *({"name": "x", "actions": each} for each in ([], ["enrol"], "upload", [["upload"]])),
        *({"name": "x", "expires_in": each} for each in (0, -1, True, "7", 10**9)),
        {"name": "x", "scope": "all"},
    ],
)  # fmt: skip
def test_what_is_no_request_for_a_token_makes_none(world: DoorWorld, ada: Person, body: object) -> None:
    """Nothing is guessed and nothing widened."""
    before = world.state()
    refused(post(world, "tokens", body, ada.session), "bad-request")
    assert world.state() == before
