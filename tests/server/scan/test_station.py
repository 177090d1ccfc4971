"""The scan station over a real log: what it sees becomes a signed, logged verdict, and moves the submission on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from countermark.entry import Entry
from countermark.statement import KeySigner, Statement, open_envelope, sign
from countermark_server import db, proposal
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.scan.sandbox import Sandbox
from countermark_server.scan.station import HOLD_MISSING_AGE, HOLDS_MISSING, Station
from countermark_server.scan.verdicts import file_state
from countermark_server.settings import Scan, Upload
from countermark_server.stores.blobs import Blobs
from tests.archives import sdist, wheel
from tests.doors import DoorWorld, Person
from tests.log_world import ORIGIN, key

pytestmark = pytest.mark.usefixtures("database")

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
EVIL = b"import base64\nimport setuptools\n\nexec(base64.b64decode('cHJpbnQoMSk='))\n"
CURIOUS = b"import urllib.request\nurllib.request.urlopen('https://example.invalid/')\n"


class ScanWorld(DoorWorld):
    """A registry, and the sandbox its stations share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sandbox = Sandbox(Scan(), Upload())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ScanWorld]:
    made = ScanWorld(tmp_path)
    with made.run(), made.sandbox:
        yield made
    made.close()


@pytest.fixture
def grace(world: ScanWorld) -> Person:
    return world.person("grace")


def station(world: ScanWorld, sandbox: Sandbox | None = None) -> Station:
    return Station(
        world.settings,
        world.engine,
        Blobs(world.settings.data / "blobs"),
        sandbox or world.sandbox,
        scanner=world.roles["scanner"],
        registry=world.roles["registry"],
        clock=world.clock,
    )


def work(world: ScanWorld, scan: Station) -> None:
    """Round after round, the log answering in between, until nothing moves."""
    while scan.round():
        world.quiet()
    scan.check_holds()
    world.quiet()


def row(world: ScanWorld, name: str) -> dict[str, Any]:
    (found,) = [row for row in world.submissions() if row["served_name"] == name]
    return found


def entries(world: ScanWorld) -> list[Entry]:
    published = Published(world.public, world.clock)
    return [Entry.parse(published.entry(index)) for index in range(published.checkpoint().size)]


def state_of(world: ScanWorld, name: str) -> dict[str, Any]:
    with db.read(world.engine) as connection:
        query = select(db.submission).where(db.submission.c.served_name == name)
        found = file_state(connection, connection.execute(query).mappings().one())
    assert found is not None
    return dict(found)


def test_an_honest_file_is_cleared_by_a_logged_verdict(world: ScanWorld, grace: Person) -> None:
    """No findings: tier none, never called benign; the verdict is signed by the scanner and names its findings."""
    grace.upload(WHEEL, wheel())
    work(world, station(world))
    assert row(world, WHEEL)["state"] == "cleared"
    verdict = entries(world)[-1]
    assert verdict.type == "verdict" and verdict.envelope is not None
    scanner = world.roles["scanner"]
    said = open_envelope(verdict.envelope, {scanner.keyid: scanner.public_key}).statement
    predicate = said.predicate
    assert (predicate["tier"], predicate["classification"]) == ("none", "no-findings")
    assert [item["name"] for item in predicate["analyzers"]] == ["archive", "decode-exec", "install-surface"]
    blob = Blobs(world.settings.data / "blobs").read(predicate["findings_sha256"])
    assert blob == bytes(32) + b"[]"
    assert state_of(world, WHEEL)["verdict"]["tier"] == "none"


def test_a_grave_finding_holds_at_once_by_an_entry_of_its_own(world: ScanWorld, grace: Person) -> None:
    """Tier block: a hold signed by the registry follows the verdict; the row says why."""
    grace.upload(SDIST, sdist(files={"setup.py": EVIL}))
    work(world, station(world))
    held = row(world, SDIST)
    assert held["state"] == "held" and held["reason"] == "decoded-code-run in demo-1.0/setup.py:4"
    verdict, hold = entries(world)[-2:]
    assert (verdict.type, hold.type) == ("verdict", "hold")
    assert verdict.statement is not None and hold.statement is not None
    assert verdict.statement.predicate["classification"] == "threat"
    assert hold.statement.predicate["about"] == verdict.leaf_hash.hex()
    assert hold.registry == {"case": None, "moderator": None}
    findings = json.loads(
        Blobs(world.settings.data / "blobs").read(hold.statement.predicate["evidence_sha256"])[32:]
    )
    assert [(item["rule"], item["line"]) for item in findings] == [("decoded-code-run", 4)]
    assert state_of(world, SDIST)["hold"] is not None
    answer = world.client.get(f"/packages/demo/{SDIST}")
    assert answer.status_code == 403 and "decoded-code-run" in answer.status


def test_what_a_person_must_see_is_held_without_a_hold_entry(world: ScanWorld, grace: Person) -> None:
    """Tier queue: the verdict alone keeps it from being listed."""
    grace.upload(SDIST, sdist(files={"setup.py": CURIOUS}))
    work(world, station(world))
    assert row(world, SDIST)["state"] == "held"
    assert entries(world)[-1].type == "verdict" and state_of(world, SDIST)["hold"] is None


def test_a_crash_is_a_finding_never_clean(world: ScanWorld, grace: Person) -> None:
    """A child that dies, says nothing or lies leads to a person, with the reason."""
    grace.upload(WHEEL, wheel())
    with Sandbox(Scan(), Upload(), ("-c", "import os; os.abort()")) as deadly:
        work(world, station(world, deadly))
    held = row(world, WHEEL)
    assert held["state"] == "held" and held["reason"] == "analyzer-failed"
    statement = entries(world)[-1].statement
    assert statement is not None
    assert (statement.predicate["tier"], statement.predicate["classification"]) == ("queue", "indeterminate")


def test_a_killed_nursery_loses_no_submission(world: ScanWorld, grace: Person) -> None:
    """The next nursery's child examines what waits, under the same lease, and nothing is held for it."""
    grace.upload(WHEEL, wheel())
    work(world, station(world))
    assert world.sandbox.nursery is not None
    world.sandbox.nursery.process.kill()
    grace.upload(SDIST, sdist())
    work(world, station(world))
    assert [(row(world, name)["state"], row(world, name)["attempts"]) for name in (WHEEL, SDIST)] == [
        ("cleared", 1),
        ("cleared", 1),
    ]


def test_swapped_bytes_are_not_examined_in_the_place_of_the_logged_ones(
    world: ScanWorld, grace: Person
) -> None:
    """A verdict is about the SHA-256 in the log; other bytes under its name are a finding."""
    data = wheel()
    grace.upload(WHEEL, data)
    with Blobs(world.settings.data / "blobs").local(hashlib.sha256(data).hexdigest()) as path:
        pass
    path.unlink()
    path.write_bytes(wheel(extra="Summary: swapped\n"))
    work(world, station(world))
    assert row(world, WHEEL)["state"] == "held" and row(world, WHEEL)["reason"] == "analyzer-failed"


def test_a_dead_worker_is_replaced_and_the_third_failure_is_the_last(world: ScanWorld, grace: Person) -> None:
    """A lease keeps others away until it runs out; three attempts without an end are a finding."""

    class Dying(Exception):
        pass

    class Deadly(Sandbox):
        def examine(self, path: Path, filename: str, sha256: str) -> Any:
            raise Dying

    grace.upload(WHEEL, wheel())
    for attempt in range(3):
        with pytest.raises(Dying):
            station(world, Deadly(Scan(), Upload())).round()
        assert row(world, WHEEL)["attempts"] == attempt + 1
        before = world.state()
        assert station(world).round() == 0  # leased
        assert world.state() == before
        world.clock.now += 121
    work(world, station(world, Deadly(Scan(), Upload())))
    assert row(world, WHEEL)["state"] == "held" and row(world, WHEEL)["reason"] == "analyzer-failed"


def test_a_verdict_that_came_second_is_signed_again(world: ScanWorld, grace: Person) -> None:
    """Another entry on the registry's side was first: the log refuses ours, and takes it behind that one."""
    grace.upload(WHEEL, wheel())
    with db.read(world.engine) as connection:
        view = SqlView(connection, db.rules_state)
        file = view.get(("file", "", "demo", row(world, WHEEL)["filename"]))
    assert file is not None
    predicate = {
        "origin": ORIGIN,
        "namespace": "",
        "project": "demo",
        "prev": file["registry_head"],
        "reason": "report",
        "about": None,
        "evidence_sha256": None,
    }
    statement = Statement(WHEEL, file["sha256"], "hold", predicate)
    envelope = sign(statement, world.roles["moderation"]).to_dict()
    scan = station(world)
    asked: list[int] = []

    original = scan._verdict  # the hold slips in between signing the verdict and the log's answer

    def racing(connection: Any, submission_row: Any, said: Any, stored: str) -> int:
        if not asked:
            registry = {"case": None, "moderator": "ff" * 16}
            asked.append(proposal.propose(connection, "hold", envelope, registry, now=0))
        return original(connection, submission_row, said, stored)

    scan._verdict = racing  # type: ignore[method-assign]
    work(world, scan)
    assert [entry.type for entry in entries(world)[-2:]] == ["hold", "verdict"]
    assert (
        row(world, WHEEL)["state"] == "cleared"
    )  # the scan says nothing grave; the hold is tufrepo's to see
    assert state_of(world, WHEEL)["hold"] is not None


@pytest.mark.parametrize("role", ["scanner", "registry"])
def test_a_key_the_log_refuses_is_not_tried_in_a_loop(world: ScanWorld, grace: Person, role: str) -> None:
    """A revoked key leaves one proposal a minute, not thousands; with the next key the file moves on."""
    grace.upload(SDIST, sdist(files={"setup.py": EVIL}))
    honest = world.roles[role]
    world.roles[role] = KeySigner(key("nobody"))
    scan = station(world)
    for _ in range(10):
        scan.round()
        scan.check_holds()
        world.quiet()
    kind = {"scanner": "verdict", "registry": "hold"}[role]

    def proposals() -> int:
        with db.read(world.engine) as connection:
            return len(connection.execute(select(db.proposal).where(db.proposal.c.type == kind)).all())

    assert proposals() <= 2
    assert kind not in [entry.type for entry in entries(world)]
    world.roles[role] = honest
    world.clock.now += 61
    scan = station(world)
    work(world, scan)
    work(world, scan)
    assert [entry.type for entry in entries(world)[-2:]] == ["verdict", "hold"]
    assert row(world, SDIST)["state"] == "held"


def test_a_hold_without_an_entry_grows_old_and_is_forgotten_once_it_has_one(
    world: ScanWorld, grace: Person
) -> None:
    """The alarm of 15 minutes reads this age; a restarted scan knows it too, and a logged hold ends it."""
    grace.upload(SDIST, sdist(files={"setup.py": EVIL}))
    honest = world.roles["registry"]
    world.roles["registry"] = KeySigner(key("nobody"))
    work(world, station(world))
    world.clock.now += 901
    assert station(world).check_holds() == 1
    assert HOLD_MISSING_AGE._value.get() >= 900 and HOLDS_MISSING._value.get() == 1
    world.quiet()  # the log has refused what was just asked once more: nothing pends under the wrong key
    world.roles["registry"] = honest
    scan = station(world)
    work(world, scan)
    assert scan.check_holds() == 0
    assert HOLD_MISSING_AGE._value.get() == HOLDS_MISSING._value.get() == 0
    assert [entry.type for entry in entries(world)[-2:]] == ["verdict", "hold"]


def test_the_same_artifact_and_rules_give_the_same_findings(world: ScanWorld, grace: Person) -> None:
    """Examined twice, byte for byte the same blob."""
    data = sdist(files={"setup.py": EVIL + CURIOUS})
    path = world.settings.data / "x.tar.gz"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    first, second = (world.sandbox.examine(path, SDIST, digest) for _ in range(2))
    assert first == second and {finding.rule for finding in first.findings} == {
        "decoded-code-run",
        "install-network",
    }
