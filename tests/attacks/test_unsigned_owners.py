"""Owners of a project that does not sign: the registry signs in their place, after a sign-in of a moment ago."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.archives import sdist
from tests.doors import DoorWorld, Person


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """demo is Grace's and signs nothing; other signs."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        assert grace.upload("demo-1.0.tar.gz", sdist()).status_code == 200
        assert grace.enrol("other").status_code == 200
        yield made
        made.quiet()
        made.check()
    made.close()


def ask(who: Person, project: str, token: str | None = None, **body: Any) -> TestResponse:
    said = {"action": "add", "account": None, "role": None} | body
    bearer = {"Authorization": f"Bearer {who.session if token is None else token}"}
    return who.world.client.post(f"/api/v1/projects/{project}/owners", json=said, headers=bearer)


def refused(who: Person, project: str, code: str, token: str | None = None, **body: Any) -> None:
    """The door says no for this reason, and nothing anywhere has changed."""
    who.world.quiet()
    before = who.world.state()
    answer = ask(who, project, token, **body)
    assert answer.get_json()["code"] == code, answer.get_json()
    assert who.world.state() == before


def test_owners_change_by_the_registrys_signature(world: DoorWorld) -> None:
    """Add, hand over, remove: each is an entry that names who asked for it; then the newcomer uploads."""
    grace: Person = world.grace  # type: ignore[attr-defined]
    lin = world.person("lin")
    added = ask(grace, "demo", account=lin.account, role="owner")
    assert (added.status_code, added.get_json()["index"] > 0) == (200, True)
    raw = world.public.read(f"log/tile/entries/000.p/{world.published_size()}")
    assert raw is not None and world.roles["registry"].keyid.encode() in raw
    assert lin.upload("demo-1.1.tar.gz", sdist(version="1.1")).status_code == 200
    assert ask(lin, "demo", action="remove", account=grace.account).status_code == 200
    refused(grace, "demo", "not-owner", account=grace.account, role="owner")
    refused(lin, "demo", "entry-refused", action="remove", account=lin.account)  # the last one


def test_a_stolen_token_or_an_old_session_changes_no_owner(world: DoorWorld) -> None:
    """What an upload token or a session found an hour later could do: nothing."""
    grace: Person = world.grace  # type: ignore[attr-defined]
    eve = world.person("eve")
    mine = {"account": eve.account, "role": "owner"}
    refused(grace, "demo", "session-required", token=grace.token, **mine)
    refused(grace, "demo", "not-authenticated", token="", **mine)
    refused(eve, "demo", "not-owner", **mine)
    refused(grace, "demo", "not-found", account="f" * len(eve.account), role="owner")  # nobody's
    world.clock.now += 601
    refused(grace, "demo", "sign-in-stale", **mine)


def test_a_project_that_signs_changes_by_its_own_keys(world: DoorWorld) -> None:
    """The registry's key is no way around them, nor is any other action than these three."""
    grace: Person = world.grace  # type: ignore[attr-defined]
    refused(grace, "other", "signature-missing", account="ab" * 16, role="owner")
    refused(grace, "nobodys", "not-found", account="ab" * 16, role="owner")
    refused(grace, "demo", "bad-request", action="signing-off")
    refused(grace, "demo", "bad-request", account="grace@example.com", role="owner")
    refused(grace, "demo", "bad-request", account="ab" * 16, role="king")
    refused(grace, "demo", "bad-request", account="ab" * 16, role="owner", more=1)
    assert grace.enrol("demo").status_code == 200
    refused(grace, "demo", "signature-missing", account="ab" * 16, role="owner")
