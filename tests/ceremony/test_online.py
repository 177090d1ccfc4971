"""A later ceremony about online roles: keys that follow others, and more bins."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from countermark_ceremony import history
from countermark_ceremony.files import write_folder
from countermark_ceremony.handover import key_spki
from countermark_ceremony.nextplan import parse_next
from countermark_ceremony.tables import PlanError
from tests import ceremony_world as world
from tests.ceremony.test_commands import run, tree


class Room:
    """A registry whose first ceremony is finished."""

    def __init__(self) -> None:
        self.registry, self.holders = world.Registry(), world.Holders()
        self.files = world.finished(self.registry, self.holders)
        self.base = history.verify(self.files)[-1]

    def document(self, changes: list[str], **online: object) -> dict[str, Any]:
        return world.next_document(self.base, self.holders, changes=changes, online=online)

    def hold(self, document: dict[str, Any]) -> Any:
        prepared = world.next_prepared(self.base, document)
        return history.verify(world.next_finished(self.files, prepared, self.holders))[-1]


@pytest.fixture(scope="module")
def room() -> Room:
    return Room()


def public(signer: CryptoSigner) -> str:
    return base64.b64encode(key_spki(signer.public_key)).decode()


def test_new_online_keys_and_more_bins_stand_in_root_and_index_and_nothing_else_changes(room: Room) -> None:
    """Every role but those named stays; each online role has its one new key; the bins are 2^4."""
    new = {role: CryptoSigner.generate_ed25519() for role in ("bins", "snapshot", "timestamp")}
    said = {role: public(signer) for role, signer in new.items()}
    done = room.hold(room.document(["bins", "online-keys"], **said, bit_length=4))
    root, old = done.metadata["root"].signed, room.base.metadata["root"].signed
    assert isinstance(root, Root) and isinstance(old, Root)
    for role in ("snapshot", "timestamp"):
        assert root.roles[role].keyids == [new[role].public_key.keyid] and root.roles[role].threshold == 1
    assert set(root.keys) == {keyid for role in root.roles.values() for keyid in role.keyids}
    assert (root.roles["root"], root.roles["targets"]) == (old.roles["root"], old.roles["targets"])
    index = done.metadata["index"].signed
    assert isinstance(index, Targets) and index.delegations is not None
    bins = index.delegations.succinct_roles
    assert bins is not None and (bins.bit_length, bins.name_prefix) == (4, "bins")
    assert bins.keyids == list(index.delegations.keys) == [new["bins"].public_key.keyid]


def test_what_is_not_named_stays(room: Room) -> None:
    """One new key: the other roles keep theirs."""
    new = CryptoSigner.generate_ed25519()
    done = room.hold(room.document(["online-keys"], timestamp=public(new)))
    before, after = room.base.online(), done.online()
    assert {role for print_, role in after.items() if print_ not in before} == {"TUF timestamp"}
    assert done.bins == room.base.bins


@pytest.mark.parametrize(
    ("changes", "online", "says"),
    [
        ([], {"bit_length": 4}, "changes says \\[\\], the tables change \\['bins'\\]"),
        (["bins"], {"bit_length": 2}, "bit_length goes from 2 to 2"),
        (["bins"], {"bit_length": 1}, "it only rises"),
        (["bins"], {"bit_length": 17}, "to 16 at the most"),
        (["online-keys"], {"timestamp": "of:snapshot"}, "in force already, as TUF snapshot"),
        (["online-keys"], {"timestamp": "of:timestamp"}, "in force already, as TUF timestamp"),
        (["online-keys"], {"timestamp": "new:a", "snapshot": "new:a"}, "one key to two roles"),
        (["online-keys"], {"timestamp": "of:ada-root"}, "is online too, as TUF timestamp"),
        (["online-keys"], {"root": "new:a"}, "unknown member 'root'"),
        (["online-keys"], {"timestamp": "AAAA"}, "not a base64 SPKI"),
        ([], {}, "says nothing"),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    room: Room, changes: list[str], online: dict[str, Any], says: str
) -> None:
    """Before any key is touched, with the place in the plan."""
    made = {"new:a": public(CryptoSigner.generate_ed25519())}
    made |= {f"of:{role}": public(signer) for role, signer in room.registry.tuf.items()}
    made["of:ada-root"] = room.holders.public("ada-root")
    said = {name: made.get(value, value) for name, value in online.items()}
    with pytest.raises(PlanError, match=says):
        parse_next(world.to_toml(room.document(changes, **said)), room.base, now=world.LATER)


@pytest.mark.parametrize(("said", "needs"), [("bins", "index"), ("bit_length", "index")])
def test_the_role_that_names_it_must_be_renewed(room: Room, said: str, needs: str) -> None:
    """More bins without a new index would change nothing."""
    value: Any = 4 if said == "bit_length" else public(CryptoSigner.generate_ed25519())
    document = room.document(["bins" if said == "bit_length" else "online-keys"], **{said: value})
    del document["roles"][needs]
    with pytest.raises(PlanError, match=f"{said} needs the role {needs}"):
        parse_next(world.to_toml(document), room.base, now=world.LATER)


def test_holders_see_the_change_before_they_sign(room: Room) -> None:
    """The request shows keys that leave and come, and how many bins there will be, read from the payloads."""
    from countermark_ceremony import console

    new = CryptoSigner.generate_ed25519()
    prepared = world.next_prepared(
        room.base, room.document(["bins", "online-keys"], timestamp=public(new), bit_length=4)
    )
    shown = "\n".join(console.show_request(prepared.request("ada")))
    assert "+ delegates everything to 16 bins" in shown and "- delegates everything to 4 bins" in shown
    assert "! timestamp: 1 of 1 keys leave, 1 come" in shown


def test_the_planner_writes_such_a_plan(room: Room, tmp_path: Any) -> None:
    """`rotate --online --bit-length` renews root and index, and its plan is one that `prepare` takes."""
    write_folder(tmp_path / "root-1", room.files)
    path, new = tmp_path / "plan-2.toml", CryptoSigner.generate_ed25519()
    online = ["--online", f"bins={public(new)}", "--bit-length", "4"]
    date = ["--date", f"{world.LATER - timedelta(days=200):%Y-%m-%d}"]
    run("rotate", "root-1", *online, *date, "--out", path, cwd=tmp_path)
    plan = parse_next(path.read_bytes(), room.base, now=world.LATER - timedelta(days=200))
    assert set(plan.roles) == {"root", "index"} and plan.changes == ("online-keys", "bins")
    assert plan.online.keys == {"bins": key_spki(new.public_key)} and plan.online.bit_length == 4
    before = tree(tmp_path)
    done = run("rotate", "root-1", "--online", "root=AAAA", "--out", "x", cwd=tmp_path, expect=2)
    assert "not ROLE=PUBLIC" in done.stderr and tree(tmp_path) == before
