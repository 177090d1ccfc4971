"""What may come in at all: names that nobody confuses, open releases, and no more than an allowance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from countermark_server import db, migrations
from countermark_server.allowance import DAY_SECONDS
from countermark_server.confusable import skeleton
from countermark_server.ruleview import encode_key
from countermark_server.settings import Limits
from tests.archives import sdist, wheel
from tests.doors import DoorWorld
from tests.log_world import NOW
from tests.server.upload.test_upload import refused

on_both_databases = pytest.mark.usefixtures("database")


@contextmanager
def registry(folder: Path, **limits: int | bool) -> Iterator[DoorWorld]:
    """A registry with these limits, its log at work."""
    made = DoorWorld(folder, limits=Limits(**limits))
    try:
        with made.run():
            yield made
    finally:
        made.close()


def named(project: str, version: str = "1.0") -> tuple[str, bytes]:
    """A wheel of some project: its file name and bytes."""
    return f"{project}-{version}-py3-none-any.whl", wheel(project, version)


# --- names ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("other", ["acmed3mo", "acmede-mo", "acme-derno", "a-cme-demo", "acme-dem0"])
def test_skeletons_are_what_people_read(other: str) -> None:
    """Dashes, l i 1, o 0, rn m and vv w are one; anything else is another name."""
    assert (skeleton(other) == skeleton("acme-demo")) == (other != "acmed3mo")
    assert skeleton("vvil1ow") == skeleton("wi1l0w")


@on_both_databases
def test_a_name_that_reads_like_another_s_is_refused(tmp_path: Path) -> None:
    """At the upload and at a first key alike; the owner of the older project may begin it."""
    with registry(tmp_path) as world:
        ada, eve = world.person("ada"), world.person("eve")
        assert ada.upload(*named("will0w")).status_code == 200
        world.quiet()
        before = world.state()
        body = refused(eve.upload(*named("vvillow")), "name-confusable")
        assert "'vvillow' reads like the project 'will0w'" in body["detail"]
        refused(eve.enrol("willow"), "name-confusable")
        assert world.state() == before
        assert ada.upload(*named("willow")).status_code == 200
        assert eve.upload(*named("yellow")).status_code == 200


def test_an_operator_may_take_names_that_read_alike(tmp_path: Path) -> None:
    """`confusable_names` is for registries whose people know each other."""
    with registry(tmp_path, confusable_names=True) as world:
        assert world.person("ada").upload(*named("willow")).status_code == 200
        assert world.person("eve").upload(*named("will0w")).status_code == 200


def test_a_module_of_python_is_no_name_for_a_new_project(tmp_path: Path) -> None:
    """`import json` must not become something one installs; nothing is left behind."""
    with registry(tmp_path) as world:
        ada, before = world.person("ada"), None
        before = world.state()
        for project in ("json", "js0n", "threading"):
            refused(ada.upload(*named(project)), "name-confusable")
        assert world.state() == before


def test_projects_from_before_the_table_are_known_after_the_upgrade(database_url: str) -> None:
    """The names stand in the rules' state; the upgrade takes them from there, of the default namespace alone."""
    engine = db.open_engine(database_url)
    migrations.upgrade(engine, "0006")
    with db.write(engine) as connection:
        for key in (("project", "", "acme-demo"), ("project", "corp", "widget"), ("namespace", "corp")):
            connection.execute(db.rules_state.insert().values(key=encode_key(key), value="{}"))
    migrations.upgrade(engine)
    with db.read(engine) as connection:
        assert [tuple(row) for row in connection.execute(db.project_name.select())] == [
            ("acmedem0", "acme-demo")
        ]


# --- releases ---------------------------------------------------------------------------------------------
@on_both_databases
@pytest.mark.parametrize("first", ["wheel", "sdist"])
def test_an_old_release_takes_no_further_file(tmp_path: Path, first: str) -> None:
    """Fourteen days from its first file; the same bytes again, other versions and look-alike versions go on."""
    files = {"wheel": named("demo"), "sdist": ("demo-1.0.tar.gz", sdist())}
    late = files["sdist" if first == "wheel" else "wheel"]
    with registry(tmp_path) as world:
        ada = world.person("ada")
        assert ada.upload(*files[first]).status_code == 200
        world.clock.now += 14 * DAY_SECONDS
        assert ada.upload("demo-1.0-py2-none-any.whl", wheel()).status_code == 200  # the last moment
        world.clock.now += 1
        world.quiet()
        before = world.state()
        body = refused(ada.upload(*late), "release-closed")
        assert "demo 1.0 began on" in body["detail"] and "14 days" in body["detail"]
        assert ada.upload(*files[first]).status_code == 200
        assert world.state() == before
        assert ada.upload(*named("demo", "1.0.1")).status_code == 200
        assert ada.upload(*named("demo", "1.1")).status_code == 200


def test_an_operator_may_leave_releases_open(tmp_path: Path) -> None:
    """`release_open_days = 0` closes nothing."""
    with registry(tmp_path, release_open_days=0) as world:
        ada = world.person("ada")
        assert ada.upload(*named("demo")).status_code == 200
        world.clock.now += 400 * DAY_SECONDS
        assert ada.upload("demo-1.0.tar.gz", sdist()).status_code == 200


# --- allowances -------------------------------------------------------------------------------------------
@on_both_databases
def test_entries_of_a_day_are_counted_at_every_door(tmp_path: Path) -> None:
    """Uploads and keys count, refusals and repetitions do not; 429 says until when; the next day is another."""
    with registry(tmp_path, entries_a_day=2) as world:
        ada, eve = world.person("ada"), world.person("eve")
        assert ada.upload(*named("demo")).status_code == 200
        refused(ada.upload(*named("demo", "2.0"), sha256_digest="0" * 64), "digest-mismatch")
        assert ada.upload(*named("demo")).status_code == 200
        assert ada.enrol("demo").status_code == 200
        world.quiet()
        before = world.state()
        answer = ada.upload("demo-2.0.tar.gz", sdist(version="2.0"))
        body = refused(answer, "quota-day")
        assert "2 entries by this account today" in body["detail"] and "at most 2 a day" in body["detail"]
        assert int(answer.headers["Retry-After"]) == DAY_SECONDS - NOW % DAY_SECONDS
        assert ada.enrol("other").get_json()["code"] == "quota-day"
        assert world.state() == before
        assert eve.upload(*named("hers")).status_code == 200
        world.clock.now += DAY_SECONDS
        assert ada.upload(*named("tomorrow")).status_code == 200


def test_projects_begun_in_a_day_are_counted(tmp_path: Path) -> None:
    """By an upload or by a first key; files of projects that are there go on."""
    with registry(tmp_path, projects_a_day=2) as world:
        ada = world.person("ada")
        assert ada.upload(*named("one")).status_code == 200
        assert ada.enrol("two").status_code == 200
        world.quiet()
        before = world.state()
        refused(ada.upload(*named("three")), "quota-day")
        assert ada.enrol("four").get_json()["code"] == "quota-day"
        assert world.state() == before
        assert ada.upload(*named("one", "2.0")).status_code == 200


@pytest.mark.parametrize("whose", ["project", "account"])
def test_bytes_are_counted_by_project_and_by_account(tmp_path: Path, whose: str) -> None:
    """The sum says how much there is; what is in stays, and the same bytes again cost nothing."""
    one, two = named("demo"), named("demo", "2.0")
    with registry(tmp_path, **{f"{whose}_bytes": len(one[1]) + 10}) as world:
        ada = world.person("ada")
        assert ada.upload(*one).status_code == 200
        world.quiet()
        before = world.state()
        body = refused(ada.upload(*two), "quota-bytes")
        assert str(len(one[1])) in body["detail"] and str(len(one[1]) + 10) in body["detail"]
        assert ada.upload(*one).status_code == 200
        assert world.state() == before
        assert (ada.upload(*named("other")).status_code == 200) == (whose == "project")


def test_uploads_within_a_minute_are_counted_by_account(tmp_path: Path) -> None:
    """Also those that fail: a loop that sends rubbish is stopped before its files are read."""
    with registry(tmp_path, uploads_a_minute=2) as world:
        ada, eve = world.person("ada"), world.person("eve")
        refused(ada.upload(*named("demo"), sha256_digest="0" * 64), "digest-mismatch")
        assert ada.upload(*named("demo")).status_code == 200
        world.quiet()
        before = world.state()
        answer = ada.upload(*named("demo", "2.0"))
        refused(answer, "too-many-attempts")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert world.state() == before
        assert eve.upload(*named("hers")).status_code == 200
        world.clock.now += 61
        assert ada.upload(*named("demo", "2.0")).status_code == 200
