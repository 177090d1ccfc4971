"""afterwards.py: what a registry may hint at, what an owner signs, and rotation that may stop anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from countermark import afterwards, cli, cli_publish, rules, signer
from countermark.errors import CountermarkError, EvidenceError, MalformedError, PolicyError, UsageError
from countermark.fetch import Answer
from countermark.publish import Session
from countermark.schema import REMOVE_REASONS, REVOKE_REASONS, UNYANK_REASONS, YANK_REASONS
from countermark.statement import Envelope, KeySigner, Statement
from countermark.trust import opened
from countermark.verified import Artifact
from tests.machine import Machine
from tests.simulator import ACCOUNT, Published, World, _problem, signing_key


class OwnersWorld(World):
    """A simulated registry with the doors that owners use afterwards."""

    lie: Mapping[str, Any] = {}  # members of the next answer that are not true
    asked_for: list[Statement]

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        if not url.endswith("/api/v1/entries"):
            return super().post(url, body, **options)
        if options["headers"].get("Authorization") != "Bearer the-session":
            return _problem(403, "session-required", "an upload token may only upload")
        envelope = Envelope.parse(json.loads(body)["envelope"])
        statement = Statement.parse(envelope.payload)
        adds = {"approver" if statement.type == "approve" else "actor": ACCOUNT}
        index = self.submit(statement.type, envelope, adds)
        if isinstance(index, rules.Broken):
            return _problem(400, index.code, index.message)
        self.release()
        answer = {"index": index, "leaf_hash": self.leaves[index].hex(), "proof": self.proof(index)}
        return Answer(200, "OK", {}, json.dumps(answer | self.lie).encode())

    def _resource(self, path: str) -> bytes | None:
        name = path.removeprefix("/api/v1/files/")
        if name != path and "/" not in name:
            states = [state for key, state in self.view.items() if key[0] == "file" and key[2] == name]
            return json.dumps({"files": [self._hint(state) | self.lie for state in states]}).encode()
        return super()._resource(path)

    def _hint(self, state: Mapping[str, Any]) -> dict[str, Any]:
        key = rules.file_key("", state["project"], state["filename"])
        return {
            "filename": state["filename"],
            "sha256": state["sha256"],
            "index": state["index"],
            "standing": rules.standing_of(self.view, key),
            "prev": state["owner_head"],
        }


@pytest.fixture
def world() -> OwnersWorld:
    return OwnersWorld()


@pytest.fixture
def wheel(world: OwnersWorld) -> Published:
    return world.publish("acme-demo")


@pytest.fixture
def owner(tmp_path: Path, world: OwnersWorld, wheel: Published) -> afterwards.Owner:
    """Alice, signed in, with the key that published the wheel."""
    session = Session(ACCOUNT, "alice", "the-session", world.now + 3600, "the-token")
    with opened(Machine(tmp_path, world).registry, world, now=world.now) as view:
        pass
    return afterwards.Owner(view, world, session, world.publisher, world.now)


def find(owner: afterwards.Owner, wanted: str, local: Artifact | None = None) -> list[afterwards.Known]:
    return afterwards.find(owner.view, owner.fetcher, wanted, local)


def refused(world: OwnersWorld, kind: type[CountermarkError], act: Any) -> str:
    """The act is refused, and the log has no entry more."""
    before = len(world.entries)
    with pytest.raises(kind) as caught:
        act()
    assert len(world.entries) == before
    return str(caught.value)


def test_a_version_or_a_file_is_found_in_the_log(owner: afterwards.Owner, wheel: Published) -> None:
    """In any spelling; what is signed about it is what its entry says."""
    for wanted in (wheel.filename, f"Acme.Demo=={wheel.version}", f"acme-demo == {wheel.version}.0"):
        (known,) = find(owner, wanted)
        assert (known.filename, known.sha256, known.index) == (wheel.filename, wheel.sha256, wheel.index)
    done = owner.act("yank", known, "broken")
    assert done.index > wheel.index


def test_what_is_not_meant_is_not_found(
    world: OwnersWorld, owner: afterwards.Owner, wheel: Published
) -> None:
    """Another version, no project, other bytes under the name, and words that are no name at all."""
    refused(world, PolicyError, lambda: find(owner, "acme-demo==9"))
    refused(world, PolicyError, lambda: find(owner, "nobody==1"))
    other = Artifact(wheel.project, wheel.version, wheel.filename, "0" * 64)
    assert wheel.sha256 in refused(world, PolicyError, lambda: find(owner, wheel.filename, other))
    for nonsense in ("acme-demo", "==", "acme-demo==", "-==1", "acme-demo==x y"):
        refused(world, UsageError, lambda nonsense=nonsense: find(owner, nonsense))


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ({"index": 3}, EvidenceError),
        ({"filename": "acme_demo-1.0-py2-none-any.whl"}, EvidenceError),
        ({"filename": "other-1.0.tar.gz"}, PolicyError),
        ({"filename": 7}, PolicyError),
        ({"filename": "nonsense"}, MalformedError),
    ],
)
def test_a_hint_that_the_log_contradicts_is_not_signed(
    world: OwnersWorld, owner: afterwards.Owner, lie: dict[str, Any], kind: type[CountermarkError]
) -> None:
    """The registry names another entry, another file, or nothing that is one: nothing is signed about it."""
    world.lie = lie
    refused(world, kind, lambda: find(owner, "acme-demo==1.0"))


def test_a_proof_of_another_entry_is_refused(
    world: OwnersWorld, owner: afterwards.Owner, wheel: Published
) -> None:
    """The act is answered with a true proof of somebody else's entry: that proves nothing of ours."""
    (known,) = find(owner, wheel.filename)
    world.lie = {"index": 2, "leaf_hash": world.leaves[2].hex(), "proof": world.proof(2)}
    with pytest.raises(EvidenceError, match="of another entry, #2"):
        owner.act("yank", known, "broken")


def test_a_stale_hint_a_stranger_and_a_stolen_token_change_nothing(
    world: OwnersWorld, owner: afterwards.Owner, wheel: Published
) -> None:
    """The rules refuse an old `prev` and a key that is not enrolled; the door refuses a token."""
    (known,) = find(owner, wheel.filename)
    owner.act("yank", known, "broken")
    assert "statement follows" in refused(world, PolicyError, lambda: owner.act("unyank", known, "fixed"))
    stranger = owner.as_signer(KeySigner(signing_key("mallory")))
    (known,) = find(owner, wheel.filename)
    refused(world, PolicyError, lambda: stranger.act("unyank", known, "fixed"))
    stolen = afterwards.Owner(
        owner.view,
        world,
        Session(ACCOUNT, "alice", "the-token", world.now + 9, ""),
        world.publisher,
        world.now,
    )
    refused(world, PolicyError, lambda: stolen.act("unyank", known, "fixed"))
    late = afterwards.Owner(
        owner.view, world, Session(ACCOUNT, "alice", "the-session", world.now, ""), world.publisher, world.now
    )
    assert "expired" in refused(world, PolicyError, lambda: late.act("unyank", known, "fixed"))


def test_a_revocation_holds_what_came_since(
    world: OwnersWorld, owner: afterwards.Owner, wheel: Published
) -> None:
    """The entry is proved, and the file is held; an index ahead of the log is refused."""
    keyid = world.publisher.keyid
    ahead = len(world.entries) + 99
    refused(world, PolicyError, lambda: owner.revoke("acme-demo", keyid, "compromised", ahead))
    refused(world, UsageError, lambda: owner.revoke("acme-demo", keyid, "lost", wheel.index))
    owner.revoke("acme-demo", keyid, "compromised", wheel.index)
    key = rules.file_key("", "acme-demo", wheel.filename)
    assert rules.standing_of(world.view, key) == "held"


def test_reasons_in_the_help_are_the_log_s(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line lists exactly the codes that entries may hold, and a wrong one is told them."""
    expected = {
        "yank": YANK_REASONS, "unyank": UNYANK_REASONS, "remove": REMOVE_REASONS, "revoke": REVOKE_REASONS,
    }  # fmt: skip
    assert {name: set(text.split(", ")) for name, text in cli_publish.REASONS.items()} == expected
    assert cli.main(["yank", "acme==1", "--reason", "ugly"]) == 2
    assert "broken, metadata" in capsys.readouterr().err
    with pytest.raises(UsageError, match="neither a keyid"):
        afterwards.check_keyid("40c3")


def test_a_rotation_may_stop_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is finished the old key has the name, afterwards the new one; neither is ever lost."""
    monkeypatch.setenv("COUNTERMARK_PASSPHRASE", "for tests only")
    first = signer.create_key(tmp_path, "publisher").keyid
    old, new = signer.begin_rotation(tmp_path, "publisher")
    again = signer.begin_rotation(tmp_path, "publisher")  # interrupted: the same successor goes on
    assert (old.keyid, new.keyid) == (again[0].keyid, again[1].keyid) and old.keyid == first
    honest = signer.replace_file

    def fails(path: Path, data: bytes, **options: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(signer, "replace_file", fails)
    with pytest.raises(OSError, match="full"):
        signer.finish_rotation(tmp_path, "publisher")
    assert signer.load_key(tmp_path, "publisher").keyid == first
    monkeypatch.setattr(signer, "replace_file", honest)
    kept = signer.finish_rotation(tmp_path, "publisher")
    assert (kept.keyid, signer.load_key(tmp_path, "publisher").keyid) == (first, new.keyid)
    assert signer.open_signer(kept).keyid == first
    assert signer.open_signer(signer.load_key(tmp_path, "publisher")).keyid == new.keyid
    # Stopped before the successor's own file was removed: the next rotation makes another.
    raw = signer.load_key(tmp_path, "publisher").path.read_bytes()
    (tmp_path / "publisher-next.json").write_bytes(raw)
    _, third = signer.begin_rotation(tmp_path, "publisher")
    assert third.keyid not in (first, new.keyid)


def test_a_key_without_passphrase_rotates_to_one_without(tmp_path: Path) -> None:
    """The stored passphrase opens both, so nobody is asked."""
    first = signer.create_key(tmp_path, "ci", no_passphrase=True).keyid
    signer.begin_rotation(tmp_path, "ci", environment={})
    kept = signer.finish_rotation(tmp_path, "ci")
    assert signer.open_signer(kept, environment={}).keyid == first
    assert signer.open_signer(signer.load_key(tmp_path, "ci"), environment={}).keyid != first
