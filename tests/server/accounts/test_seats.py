"""Seats: what a team may do becomes an entry of the log before it is worth anything, and ends before that does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from countermark.entry import Entry
from countermark_server import db, orgtables
from countermark_server.accounts import orgapply, orgfile
from countermark_server.accounts.seats import Seats, orphans
from countermark_server.app import create_app
from countermark_server.asking import Answers, foresee_all
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from tests.archives import wheel
from tests.doors import DoorWorld, Person
from tests.log_world import ORIGIN
from tests.server.upload.test_upload import refused

FILE = """
[[organisation]]
name = "acme"
owners = ["ada"]
names = ["acme-*"]
[[organisation.team]]
name = "ml"
members = ["grace", "linus"]
maintains = ["acme-ml-*", "*"]
"""
PROJECT = "acme-ml-tool"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with acme: Ada owns it, Grace and Linus maintain `acme-ml-*`; Eve is somebody else."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.people = {who: made.person(who) for who in ("ada", "grace", "linus", "eve")}  # type: ignore[attr-defined]
        apply(made, FILE)
        yield made
    made.close()


def apply(world: DoorWorld, text: str) -> None:
    with db.write(world.engine) as connection:
        orgapply.apply(connection, orgfile.parse(text), now=int(world.clock()))


def person(world: DoorWorld, who: str) -> Person:
    found: Person = world.people[who]  # type: ignore[attr-defined]
    return found


def upload(world: DoorWorld, who: str, version: str = "1.0", project: str = PROJECT, **fields: Any) -> Any:
    name = project.replace("-", "_")
    answer = person(world, who).upload(f"{name}-{version}-py3-none-any.whl", wheel(name, version), **fields)
    world.quiet()
    return answer


def owners(world: DoorWorld, project: str = PROJECT) -> dict[str, str]:
    """Who may act by the log, by login."""
    with db.read(world.engine) as connection:
        logins = {
            row.id: row.login for row in connection.execute(select(db.account.c.id, db.account.c.login))
        }
        state = SqlView(connection, db.rules_state).get(("project", "", project))
    assert state is not None
    return {logins[account]: role for account, role in state["owners"].items()}


def seats(world: DoorWorld) -> Seats:
    registry = world.roles["registry"]
    return Seats(world.engine, Answers(world.engine), registry, origin=ORIGIN, wait=5.0, clock=world.clock)


@pytest.mark.usefixtures("database")
def test_a_team_shares_a_project_and_leaves_it(world: DoorWorld) -> None:
    """Begun by one, the organisation's by the log, uploaded to by another; who leaves the team is out at once."""
    assert upload(world, "grace").status_code == 200
    assert owners(world) == {"grace": "owner", "organisation/acme": "owner"}
    assert upload(world, "linus", "1.1").status_code == 200
    assert owners(world) == {"grace": "owner", "linus": "maintainer", "organisation/acme": "owner"}
    refused(upload(world, "eve", "1.2"), "not-owner")
    assert upload(world, "ada", "1.2").status_code == 200  # an owner of acme
    apply(world, FILE.replace('members = ["grace", "linus"]', 'members = ["linus"]'))
    before = world.state()
    body = refused(upload(world, "grace", "1.3"), "not-owner")
    assert "came from a team of acme and ended with it" in body["detail"]
    assert world.state() == before
    assert [line.partition(":")[2].split()[0] for line in seats(world).settle()] == ["remove"]
    world.quiet()
    assert owners(world) == {"ada": "owner", "linus": "maintainer", "organisation/acme": "owner"}
    assert seats(world).settle() == []
    apply(world, FILE)
    assert upload(world, "grace", "1.3").status_code == 200
    assert owners(world)["grace"] == "maintainer"


@pytest.mark.usefixtures("database")
def test_two_are_let_in_at_once(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their entries follow the same one, and the log takes one of them: nobody is sent away for that."""
    upload(world, "grace")
    others = [person(world, "linus").account, person(world, "ada").account]

    def late(*given: Any, **more: Any) -> Any:
        found = foresee_all(*given, **more)
        if others:  # between our look and our proposal somebody else is let in
            seats(world).take(others.pop(), "", PROJECT)
        return found

    before = len(entries(world))
    monkeypatch.setattr("countermark_server.accounts.seats.foresee_all", late)
    seats(world).take(person(world, "linus").account, "", PROJECT)
    world.quiet()
    assert owners(world) == {
        "ada": "owner", "grace": "owner", "linus": "maintainer", "organisation/acme": "owner",
    }  # fmt: skip
    assert [entry.type for entry in entries(world)[before:]] == ["owner", "owner"]


def test_of_two_who_left_the_log_hears_one_after_the_other(world: DoorWorld) -> None:
    """Their entries follow the same one: `settle` proposes none that the log must refuse, and says to come again."""
    for who, version in (("grace", "1.0"), ("linus", "1.1"), ("ada", "1.2")):
        assert upload(world, who, version).status_code == 200
    apply(world, FILE.replace('members = ["grace", "linus"]', 'members = ["eve"]'))
    before = len(entries(world))
    said = seats(world).settle()
    assert sorted("comes after that" in line for line in said) == [False, True]
    world.quiet()
    assert len(entries(world)) == before + 1 and len(owners(world)) == 3
    (line,) = seats(world).settle()
    assert "comes after that" not in line
    world.quiet()
    assert owners(world) == {"ada": "owner", "organisation/acme": "owner"}
    with db.read(world.engine) as connection:
        refusals = select(db.proposal.c.refusal).where(db.proposal.c.refusal.is_not(None))
        assert connection.execute(refusals).all() == []


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("by", ["upload", "key"])
def test_a_project_begun_by_a_process_that_died_is_its_organisation_s(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The entry is committed and nothing after it: `settle` finds the founder's seat, and says what is missing."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Answers, "heard" if by == "upload" else "outcomes", killed)
        patched.setattr(Seats, "founded", killed)
        with pytest.raises(KeyboardInterrupt):
            upload(world, "grace") if by == "upload" else person(world, "grace").enrol(PROJECT)
    world.quiet()
    assert owners(world) == {"grace": "owner"}
    (said,) = seats(world).settle()
    world.quiet()
    if by == "key":
        assert "countermark owner add" in said
        return
    assert owners(world) == {"grace": "owner", "organisation/acme": "owner"}
    assert seats(world).settle() == []


def test_a_project_that_is_refused_leaves_no_seat(world: DoorWorld) -> None:
    """By a queue that is full, for one."""
    settings = replace(world.settings, entries=replace(world.settings.entries, queue_max=0))
    registry = world.roles["registry"]
    full = create_app(settings, clock=world.clock, engine=world.engine, registry=registry)
    open_client, world.client = world.client, full.test_client()
    before = world.state()["rows"]
    refused(upload(world, "grace"), "busy")
    refused(person(world, "grace").enrol(PROJECT), "busy")
    world.client = open_client
    assert world.state()["rows"] == before


def test_the_log_says_on_whose_behalf_the_registry_signed(world: DoorWorld) -> None:
    """Two owner entries by the registry's key: for who began the project, and for the organisation."""
    upload(world, "grace")
    upload(world, "linus", "1.1")
    with db.read(world.engine) as connection:
        organisation = connection.execute(select(orgtables.organisation.c.account_id)).scalar_one()
    said = [entry for entry in entries(world) if entry.type == "owner"]
    assert [entry.registry["actor"] for entry in said] == [person(world, "grace").account, organisation]
    assert all(entry.envelope and entry.envelope.keyids == (world.roles["registry"].keyid,) for entry in said)


def entries(world: DoorWorld) -> list[Entry]:
    published = Published(world.public, world.clock)
    return [Entry.parse(published.entry(index)) for index in range(published.checkpoint().size)]


def test_a_role_is_worth_nothing_in_a_project_of_others(world: DoorWorld) -> None:
    """A pattern that is too wide gives nobody else's project away: the log must name the organisation."""
    assert upload(world, "eve", project="other").status_code == 200
    before = world.state()
    body = refused(upload(world, "linus", "1.1", project="other"), "not-owner")
    assert (
        "is not owned by acme in the log" in body["detail"]
        and "countermark owner add other" in body["detail"]
    )
    assert world.state() == before


def test_where_a_project_signs_its_key_must_let_people_in(world: DoorWorld) -> None:
    """The registry signs in nobody's place there; the refusal has the command, and so has `settle`."""
    grace = person(world, "grace")
    assert grace.enrol(PROJECT).status_code == 200
    world.quiet()
    with db.read(world.engine) as connection:
        organisation = connection.execute(select(orgtables.organisation.c.account_id)).scalar_one()
    assert owners(world) == {"grace": "owner"}
    (line,) = seats(world).settle()
    assert line == (
        f"{PROJECT}: needs a key of its owners: countermark owner add {PROJECT} {organisation} --role owner"
    )
    assert owners(world) == {"grace": "owner"}


def test_a_project_whose_people_have_gone_is_its_organisation_s(world: DoorWorld) -> None:
    """Grace is erased: acme's owner goes on. Of a project that only Eve had, the admins hear."""
    upload(world, "grace")
    assert upload(world, "eve", project="lonely").status_code == 200
    with db.write(world.engine) as connection:
        assert list(orphans(connection, now=1)) == []
        for who in ("grace", "eve"):  # as far as an erasure goes while rows of uploads name the account
            lost = f"lost:{person(world, who).account}"
            connection.execute(db.account.update().where(db.account.c.login == who).values(login=lost))
        found = {each.project: each.organisation for each in orphans(connection, now=1)}
    assert found == {PROJECT: "acme", "lonely": None}
    assert upload(world, "ada", "1.1").status_code == 200
