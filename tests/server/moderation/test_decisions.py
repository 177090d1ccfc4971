"""Moderation: who may decide what, that every decision is an entry first, and that rows follow the log."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from countermark.statement import Statement, sign
from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.moderation.decisions import Decided, Decision, Desk
from countermark_server.moderation.station import settle
from countermark_server.tufrepo import listed
from tests.archives import sdist
from tests.doors import DoorWorld, Person
from tests.log_world import NOW, ORIGIN

pytestmark = pytest.mark.usefixtures("database")

FILE = "demo-1.0.tar.gz"
MODERATOR = "ee" * 16


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    with made.run():
        made.grace = made.person("grace")  # type: ignore[attr-defined]
        assert made.grace.upload(FILE, sdist()).status_code == 200  # type: ignore[attr-defined]
        yield made
    made.close()


def desk(world: DoorWorld) -> Desk:
    return Desk(world.engine, origin=ORIGIN, signer=world.roles["moderation"], wait=10.0, clock=world.clock)


def decide(world: DoorWorld, kind: str, reason: str, **changes: Any) -> list[Decided]:
    decision = {"moderator": MODERATOR, "case": None, "project": "demo", "filename": FILE} | changes
    done = desk(world).decide(Decision(kind=kind, reason=reason, **decision))
    world.quiet()
    return done


def refused(world: DoorWorld, code: str, kind: str, reason: str, **changes: Any) -> str:
    """The decision is refused for this reason, and nothing has changed."""
    before = world.state()
    with pytest.raises(ServerError) as caught:
        decide(world, kind, reason, **changes)
    assert caught.value.code == code, caught.value.detail
    assert world.state() == before
    return caught.value.detail


def entry(world: DoorWorld, index: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the decision's entry says: its statement's predicate, and what the registry adds."""
    with db.read(world.engine) as connection:
        row = (
            connection.execute(select(db.proposal).where(db.proposal.c.leaf_index == index)).mappings().one()
        )
    payload = base64.b64decode(json.loads(row["envelope"])["payload"])
    return json.loads(payload)["predicate"], json.loads(row["registry"])


def verdict(world: DoorWorld, tier: str) -> str:
    """A verdict entry, and its row as the scan station keeps it; its leaf hash."""
    (row,) = world.submissions()
    shown = world.client.get(f"/api/v1/files/demo/{FILE}").get_json()
    predicate = {
        "origin": ORIGIN, "namespace": "", "project": "demo", "prev": shown["leaf_hash"], "tier": tier,
        "classification": "indeterminate", "confidence": "low", "ruleset_sha256": "2" * 64, "analyzers": [],
        "findings_sha256": None,
    }  # fmt: skip
    statement = Statement(FILE, row["sha256"], "verdict", predicate)
    asked = world.propose("verdict", sign(statement, world.roles["scanner"]).to_dict())
    world.quiet()
    with db.write(world.engine) as connection:
        connection.execute(
            db.verdict.insert().values(submission_id=row["id"], proposal_id=asked, tier=tier, body="{}")
        )
    leaf_hash = world.outcome(asked).leaf_hash
    assert leaf_hash is not None
    return leaf_hash


def state(world: DoorWorld) -> str:
    (row,) = world.submissions()
    return str(row["state"])


def test_a_decision_is_an_entry_under_a_pseudonym(world: DoorWorld) -> None:
    """Signed by the moderation role, with reason and case; each follows the one before."""
    (held,) = decide(world, "hold", "malware", case="cc" * 16)
    assert held.published
    predicate, registry = entry(world, held.index)
    assert (predicate["reason"], predicate["about"]) == ("malware", None)
    assert registry == {"case": "cc" * 16, "moderator": MODERATOR}
    (cleared,) = decide(world, "clear", "false-positive")
    assert entry(world, cleared.index)[0]["prev"] == held.leaf_hash
    world.check()


def test_what_the_rules_refuse_is_not_proposed(world: DoorWorld) -> None:
    """Nothing to clear, held twice, unknown file, foreign reason, one's own project, a case that is no id."""
    refused(world, "entry-refused", "clear", "reviewed")
    detail = refused(world, "bad-request", "hold", "because")
    assert "malware" in detail and "because" in detail
    refused(world, "not-found", "hold", "malware", filename="demo-2.0.tar.gz")
    refused(world, "not-found", "hold", "malware", filename="nonsense")
    refused(world, "statement-invalid", "hold", "malware", case="case 7")
    grace: Person = world.grace  # type: ignore[attr-defined]
    detail = refused(world, "entry-refused", "takedown", "malware", moderator=grace.account)
    assert "their own project" in detail
    decide(world, "hold", "malware")
    refused(world, "entry-refused", "hold", "malware")


def test_clearing_what_the_scanner_queued_is_two_entries(world: DoorWorld) -> None:
    """There is no hold to end: the hold that the person found is logged, about the verdict, then its end."""
    leaf_hash = verdict(world, "queue")
    world.set_state(FILE, state="held", reason="two rules fired")
    assert settle(world.engine, now=NOW) == 0 and state(world) == "held"
    hold, clear = decide(world, "clear", "reviewed")
    assert (hold.kind, clear.kind) == ("hold", "clear")
    assert [entry(world, done.index)[0]["about"] for done in (hold, clear)] == [leaf_hash, leaf_hash]
    assert settle(world.engine, now=NOW) == 1 and state(world) == "cleared"
    (row,) = world.submissions()
    assert row["reason"] is None
    assert settle(world.engine, now=NOW) == 0


@pytest.mark.parametrize("who", ["moderator", "owner"])
def test_a_held_file_that_was_removed_is_rejected(world: DoorWorld, who: str) -> None:
    """By a takedown, or by its owner meanwhile; its reason stays, and rows move only by the log."""
    verdict(world, "block")
    world.set_state(FILE, state="held", reason="a rule fired")
    decide(world, "hold", "verdict")
    assert settle(world.engine, now=NOW) == 0 and state(world) == "held"
    if who == "moderator":
        decide(world, "takedown", "malware")
    else:
        world.decide("remove", FILE, reason="mistake")
    assert settle(world.engine, now=NOW) == 1 and state(world) == "rejected"
    assert world.client.get(f"/packages/demo/{FILE}").status_code == 410


def test_a_won_appeal_lists_a_rejected_file_again(world: DoorWorld) -> None:
    """The journey has ended; its standing goes on: page, door and API say listed."""
    verdict(world, "block")
    world.set_state(FILE, state="held")
    decide(world, "takedown", "malware")
    settle(world.engine, now=NOW)
    assert state(world) == "rejected"
    decide(world, "clear", "appeal-upheld")
    assert settle(world.engine, now=NOW) == 0 and state(world) == "rejected"
    assert world.client.get(f"/packages/demo/{FILE}").status_code == 200
    assert world.client.get(f"/api/v1/files/demo/{FILE}").get_json()["state"] == "listed"
    page = world.client.get("/simple/demo/", headers={"Accept": "application/json"}).get_json(force=True)
    assert [file["filename"] for file in page["files"]] == [FILE]


def test_a_decision_that_comes_second_is_signed_again(
    world: DoorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict slips in between the signature and the log: the decision follows it in the next try."""
    from countermark_server.moderation import decisions

    slipped: list[str] = []
    honest = decisions.proposal.propose

    def late(connection: Any, type_: str, *rest: Any, **more: Any) -> int:
        if not slipped:
            slipped.append(type_)
            (row,) = connection.execute(select(db.submission)).mappings().all()
            stale = json.loads(json.dumps(rest[0]))
            predicate = json.loads(base64.b64decode(stale["payload"]))["predicate"] | {"prev": "0" * 64}
            statement = Statement(FILE, row["sha256"], type_, predicate)
            return honest(
                connection, type_, sign(statement, world.roles["moderation"]).to_dict(), rest[1], **more
            )
        return honest(connection, type_, *rest, **more)

    monkeypatch.setattr(decisions.proposal, "propose", late)
    (held,) = decide(world, "hold", "malware")
    assert held.published and slipped == ["hold"]


def test_tufrepo_does_not_hold_again_what_was_just_cleared(world: DoorWorld) -> None:
    """Its state still knows the hold and not yet the clear: the file waits, and is not sent back."""
    verdict(world, "block")
    world.set_state(FILE, state="held")
    decide(world, "hold", "verdict")
    with db.write(world.engine) as connection:  # what tufrepo has applied
        for row in connection.execute(select(db.rules_state)).mappings().all():
            connection.execute(db.tufrepo_state.insert().values(**row))
    decide(world, "clear", "reviewed")
    assert settle(world.engine, now=NOW) == 1 and state(world) == "cleared"
    for expected in ("cleared", "held"):
        (row,) = world.submissions()
        with db.write(world.engine) as connection:
            listed.move(connection, [row], now=NOW)
        assert state(world) == expected
        if expected == "cleared":
            decide(world, "hold", "report")
