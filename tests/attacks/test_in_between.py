"""Between the door and the log: the door foresees today's rules, the log judges by those of its moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark.statement import Statement, sign
from tests.archives import wheel
from tests.attacks.test_approvals import Team
from tests.log_world import ORIGIN

NAME = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Team]:
    """demo is Ada's, Bob's and Cy's, one signature suffices, and the log stands still."""
    made = Team(tmp_path, wait=0.05)
    with made.run():
        made.begin(needed=0)
    yield made
    made.close()


def refused_by_the_log(world: Team, code: str) -> None:
    """The log goes on: the first entry is taken, the upload has no leaf and no row, and nothing is lost."""
    before = world.head().tree_size
    with world.run():
        world.quiet()
        assert world.head().tree_size == before + 1
        assert [row for row in world.submissions() if row["served_name"] == NAME] == []
        again = world.upload(world.bob, NAME, wheel())
        assert again.get_json()["code"] == code, again.get_json()
    world.check()


def test_a_key_that_is_revoked_before_its_upload_is_sequenced(world: Team) -> None:
    """The door knows the key, the log has its revocation first: no file of that name is published."""
    keyid = world.bob.key.keyid
    said = {"keyid": keyid, "reason": "compromised", "compromised_since": None}
    binding = {"origin": ORIGIN, "namespace": "", "project": "demo", "prev": world.prev()}
    revoke = Statement.about(f"key:{keyid}", "key-revoke", binding | said)
    assert world.send(world.ada, sign(revoke, world.ada.key)).status_code == 202
    assert world.upload(world.bob, NAME, wheel()).status_code == 202
    refused_by_the_log(world, "key-revoked")


def test_an_owner_who_is_removed_before_the_upload_is_sequenced(world: Team) -> None:
    """Bob's upload is at the door when his removal is in the queue before it."""
    removal = world.owning("remove", world.bob.account, None)
    assert world.send(world.ada, sign(removal, world.ada.key)).status_code == 202
    assert world.upload(world.bob, NAME, wheel()).status_code == 202
    refused_by_the_log(world, "not-owner")


def test_an_approval_that_a_file_overtakes(world: Team) -> None:
    """Bob approves one file while another of the release is queued before: his approval is of a list that is gone."""
    with world.run():
        world.act(world.ada, world.requirement(1), world.ada.key)
        world.upload(world.ada, NAME, wheel())
        world.quiet()
    late, approval = "demo-1.0-1-py3-none-any.whl", sign(world.approval(), world.bob.key)
    assert world.upload(world.ada, late, wheel()).status_code == 202
    assert world.send(world.bob, approval).status_code == 202
    with world.run():
        world.quiet()
        assert len(world.waits()["files"]) == 2
        assert world.waits()["approvals"]["approved"] == []
        world.refused(world.bob, approval, "entry-refused")
    world.check()
