"""Names of organisations: a colleague who is not of the team, and a stranger who takes a name before it exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark_server import db
from countermark_server.accounts import orgapply, orgfile
from tests.archives import wheel
from tests.doors import DoorWorld, Person
from tests.server.upload.test_upload import refused

FILE = """
[[organisation]]
name = "acme"
owners = ["ada"]
names = ["acme-*"]
[[organisation.team]]
name = "ml"
members = ["grace"]
maintains = ["acme-ml-*"]
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry in which `acme-*` is of acme: Ada owns it, Grace is in its team ml."""
    made = DoorWorld(tmp_path)
    with made.run():
        made.people = {who: made.person(who) for who in ("ada", "grace", "eve")}  # type: ignore[attr-defined]
        with db.write(made.engine) as connection:
            orgapply.apply(connection, orgfile.parse(FILE), now=int(made.clock()))
        yield made
    made.close()


def person(world: DoorWorld, who: str) -> Person:
    found: Person = world.people[who]  # type: ignore[attr-defined]
    return found


def named(project: str, version: str = "1.0") -> tuple[str, bytes]:
    return f"{project}-{version}-py3-none-any.whl", wheel(project, version)


def test_colleague_outside_the_namespace(world: DoorWorld) -> None:
    """Signed in, of the same company, in no team of it: refused by upload and by key, and told whose it is."""
    world.quiet()
    before = world.state()
    for who, project in (("eve", "acme_ml_tool"), ("grace", "acme_web")):
        body = refused(person(world, who).upload(*named(project)), "name-granted")
        assert "organisation 'acme' (acme-*): ask an owner of acme" in body["detail"]
        refused(person(world, who).enrol(project.replace("_", "-")), "name-granted")
    assert world.state() == before
    assert person(world, "grace").upload(*named("acme_ml_tool")).status_code == 200
    assert person(world, "ada").enrol("acme-web").status_code == 200


def test_dependency_confusion_name(world: DoorWorld) -> None:
    """A name that only stands in the company's lock files is taken by nobody, however it is spelled or misread."""
    world.quiet()
    before = world.state()
    eve = person(world, "eve")
    for project in ("acme_internal_lib", "Acme.Internal.Lib", "acrne_internal_lib", "acme_internal"):
        refused(eve.upload(*named(project)), "name-granted")
    refused(eve.enrol("acme-internal-lib"), "name-granted")
    assert world.state() == before
    assert eve.upload(*named("acmeinternal")).status_code == 200  # no name of theirs: the pattern has a dash


def test_a_token_of_a_member_is_worth_no_more_than_the_member(world: DoorWorld) -> None:
    """Grace leaves the team: her token begins nothing under its names from that moment on."""
    grace = person(world, "grace")
    assert grace.upload(*named("acme_ml_one")).status_code == 200
    with db.write(world.engine) as connection:
        without = orgfile.parse(FILE.replace('members = ["grace"]', ""))
        orgapply.apply(connection, without, now=int(world.clock()))
    world.quiet()
    before = world.state()
    refused(grace.upload(*named("acme_ml_two")), "name-granted")
    assert world.state() == before
