"""Acts that several people sign, and approvals: what is looked at before a signature is given."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from countermark import afterwards, approving, countersign
from countermark.actfile import Act, describe
from countermark.compare import LINES_MAX, Contents, difference, read_contents
from countermark.entry import Entry
from countermark.errors import CountermarkError, EvidenceError, MalformedError, PolicyError, SignatureError
from countermark.filelist import files_digest
from countermark.projectstate import ProjectState
from countermark.publish import Session
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.trust import opened
from tests.archives import sdist, wheel
from tests.client.afterwards.test_afterwards import OwnersWorld
from tests.entrymaker import digest
from tests.machine import Machine
from tests.simulator import ACCOUNT, signing_key

NEW = KeySigner(signing_key("bob"))
WHEEL = "acme_demo-1.1-py3-none-any.whl"


class SharedWorld(OwnersWorld):
    """The same doors, and what an approver asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: dict[str, Any] = {}  # what the API says of the project, true or not
        self.waits: dict[str, Any] = {}  # of the release
        self.staged: dict[str, bytes] = {}

    def _resource(self, path: str) -> bytes | None:
        if path.startswith("/api/v1/releases/"):
            return json.dumps(self.waits).encode() if self.waits else None
        if path.startswith("/api/v1/staged/"):
            return self.staged.get(path.rpartition("/")[2])
        if path.startswith("/api/v1/projects/"):
            found = json.loads(super()._resource(path) or b"{}")
            found["keys"] = [{**key, "account": ACCOUNT} for key in found["keys"]]
            return json.dumps(found | self.needs).encode()
        return super()._resource(path)


@pytest.fixture
def world() -> SharedWorld:
    made = SharedWorld()
    made.publish("acme-demo")
    return made


@pytest.fixture
def alice(tmp_path: Path, world: SharedWorld) -> afterwards.Owner:
    session = Session(ACCOUNT, "alice", "the-session", world.now + 3600, "the-token")
    with opened(Machine(tmp_path, world).registry, world, now=world.now) as view:
        pass
    return afterwards.Owner(view, world, session, world.publisher, world.now)


def begun(world: SharedWorld, owner: afterwards.Owner, **needs: Any) -> Act:
    """An act of Alice's that somebody else must sign."""
    world.needs = {"threshold": 2} | needs
    made = owner.change("acme-demo", "add", "ab" * 16, "maintainer")
    assert isinstance(made, Act)
    return made


def refused(kind: type[CountermarkError], act: Any) -> str:
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


# --- the file ---------------------------------------------------------------------------------------------
def test_an_act_is_a_file_in_one_form(world: SharedWorld, alice: afterwards.Owner) -> None:
    """It reads as it was written; another format, type or spelling is none, nor is a revocation."""
    act = begun(world, alice)
    assert Act.parse(act.format()) == act
    value = json.loads(act.format())
    for change in ({"act": "countermark-act/v2"}, {"more": 1}, {"registry": 7}, {"envelope": {}}):
        refused(MalformedError, lambda change=change: Act.parse(json.dumps(value | change).encode()))
    refused(MalformedError, lambda: Act.parse(b" " + act.format()))
    revoke = Statement.about(f"key:{'0' * 64}", "key-revoke", {
        "origin": "x.test", "namespace": "", "project": "acme", "prev": None, "keyid": "0" * 64,
        "reason": "lost", "compromised_since": None,
    })  # fmt: skip
    refused(MalformedError, lambda: Act.parse(Act.begin("", revoke, world.publisher).format()))


def test_what_is_signed_is_said_from_the_signed_bytes(world: SharedWorld, alice: afterwards.Owner) -> None:
    """Account, role and what it follows; a second signature by the same key replaces the first."""
    act = begun(world, alice)
    words = "\n".join(describe(act.statement))
    assert "account " + "ab" * 16 + " becomes maintainer" in words
    assert str(act.statement.predicate["prev"]) in words
    assert act.signed_by(world.publisher).envelope.keyids == act.envelope.keyids
    assert len(act.signed_by(NEW).envelope.keyids) == 2


# --- looking before signing -------------------------------------------------------------------------------
def test_enough_people_and_keys_are_counted(world: SharedWorld, alice: afterwards.Owner) -> None:
    """Keys for the threshold, accounts where approvals are required; a key of nobody counts for nothing."""
    state = ProjectState("acme", None, {"a": 1, "b": 2, "c": 3}, 2, 2, {"a": "x", "b": "x", "c": "y"})
    assert state.lacking(["a", "z"]) == "1 of 2 keys have signed"
    assert state.lacking(["a", "b"]) == "1 of 2 people have signed"
    assert state.lacking(["a", "c"]) is None
    assert ProjectState("acme", None, {"a": 1}).lacking([]) is not None
    examined = countersign.examine(alice, begun(world, alice))
    assert examined.lacking == "1 of 2 keys have signed"
    world.needs = {"threshold": 1}
    assert countersign.examine(alice, examined.act).lacking is None


def test_a_shared_projects_key_is_replaced_by_an_act(world: SharedWorld, alice: afterwards.Owner) -> None:
    """Where two people or keys must sign, rotation begins an act by old and new key, and logs nothing."""
    size = len(world.leaves)
    for needs, lacks in (({"threshold": 2}, "1 of 2 keys"), ({"approvals": 2}, "1 of 2 people")):
        world.needs = needs
        act = alice.vouch("acme-demo", NEW)
        assert isinstance(act, Act) and set(act.envelope.keyids) == {world.publisher.keyid, NEW.keyid}
        assert act.statement.predicate["threshold"] == needs.get("threshold", 1)  # it does not fall
        assert lacks in str(countersign.examine(alice, act).lacking)
    assert len(world.leaves) == size


def test_an_act_for_elsewhere_or_of_yesterday_is_not_signed(
    world: SharedWorld, alice: afterwards.Owner
) -> None:
    """Another origin, an older `prev`, a key of no enrolment, a false signature, a key the log knows otherwise."""
    act = begun(world, alice)
    said = {**act.statement.predicate, "origin": "elsewhere.test"}
    elsewhere = Act.begin("", Statement.about(act.statement.subject_name, "owner", said), world.publisher)
    assert "elsewhere.test" in refused(PolicyError, lambda: countersign.examine(alice, elsewhere))
    stale = {**act.statement.predicate, "prev": "00" * 32}
    old = Act.begin("", Statement.about(act.statement.subject_name, "owner", stale), world.publisher)
    assert "the newest entry" in refused(PolicyError, lambda: countersign.examine(alice, old))
    assert "not enrolled" in refused(PolicyError, lambda: countersign.examine(alice, act.signed_by(NEW)))
    other = sign(Statement.about(act.statement.subject_name, "owner", said), world.publisher)
    forged = Act("", Envelope(act.envelope.payload, other.signatures), act.statement)
    refused(SignatureError, lambda: countersign.examine(alice, forged))
    (key,) = json.loads(world._resource("/api/v1/projects/acme-demo") or b"")["keys"]
    world.needs |= {"keys": [{**key, "index": 1}]}
    assert "says that entry #1 enrols" in refused(EvidenceError, lambda: countersign.examine(alice, act))


def test_only_a_key_of_the_project_signs(world: SharedWorld, alice: afterwards.Owner) -> None:
    """A stranger's signature would make the act worthless; a new key signs its own enrolment alone."""
    examined = countersign.examine(alice, begun(world, alice))
    stranger = alice.as_signer(NEW)
    refused(PolicyError, lambda: countersign.countersign(stranger, examined))
    refused(PolicyError, lambda: stranger.require("acme-demo", 0))
    world.needs = {}
    enrolment = alice.let_in("acme-demo", NEW, [], None, None)
    assert isinstance(enrolment, Act) and enrolment.new_keyid == NEW.keyid
    examined = countersign.examine(alice, enrolment)
    assert examined.lacking == "0 of 1 keys have signed"
    signed = countersign.countersign(alice, examined)
    assert signed.lacking is None and len(signed.act.envelope.keyids) == 2
    refused(PolicyError, lambda: alice.let_in("acme-demo", world.publisher, [], None, None))
    refused(PolicyError, lambda: alice.let_in("nobodys", NEW, [], None, None))


def test_one_signature_is_handed_in_at_once(world: SharedWorld, alice: afterwards.Owner) -> None:
    """A requirement by an only owner is an entry, and its proof was checked."""
    done = alice.require("acme-demo", 1)
    assert isinstance(done, afterwards.Recorded)
    assert world.view.get(("project", "", "acme-demo"))["approvals"] == 1


# --- approving --------------------------------------------------------------------------------------------
def waiting(world: SharedWorld, owner: afterwards.Owner) -> approving.Release:
    """A release of one wheel that waits for Alice."""
    owner.require("acme-demo", 1)
    file = world.publish("acme-demo", "1.1")
    world.waits = {
        "prev": None, "files": [{"filename": file.filename, "index": file.index}],
        "approvals": {"needed": 1, "approved": [], "rejected": [], "missing": [ACCOUNT]},
    }  # fmt: skip
    world.staged = {file.filename: file.data}
    return approving.look(owner, "acme-demo", "1.1")


def test_a_release_is_compared_with_the_one_before_and_signed(
    world: SharedWorld, alice: afterwards.Owner
) -> None:
    """The list that is signed is that of the publish entries; listed once it is in."""
    release = waiting(world, alice)
    (file,) = release.files
    done = approving.decide(alice, release, "approve")
    statement = Entry.parse(world.entries[done.index]).statement
    assert statement is not None and world.check() is None
    assert statement.predicate["files_sha256"] == files_digest([(file.filename, file.sha256)])
    assert approving.words(release, ACCOUNT) == ["0 of 1 approvals", "missing: you"]


def test_a_release_that_the_log_contradicts_is_not_signed(
    world: SharedWorld, alice: afterwards.Owner
) -> None:
    """Another entry, another version, other bytes, nothing that waits, words that are no version."""
    release = waiting(world, alice)
    lies = [{"index": 3}, {"filename": "acme_demo-1.0-py3-none-any.whl"}]
    true = world.waits
    for lie in lies:
        world.waits = true | {"files": [true["files"][0] | lie]}
        refused(EvidenceError, lambda: approving.look(alice, "acme-demo", "1.1"))
    world.waits = true
    refused(EvidenceError, lambda: approving.look(alice, "acme-demo", "1.2"))
    world.staged = {release.files[0].filename: b"other bytes"}
    assert "came as sha256" in refused(EvidenceError, lambda: approving.contents(alice, release))
    for nothing in ({}, true | {"approvals": None}, true | {"files": []}):
        world.waits = nothing
        refused(PolicyError, lambda: approving.look(alice, "acme-demo", "1.1"))
    world.waits = {"files": 7}
    refused(MalformedError, lambda: approving.look(alice, "acme-demo", "1.1"))
    refused(CountermarkError, lambda: approving.look(alice, "acme-demo", "one point one"))


def test_an_approval_is_signed_where_nobody_is_signed_in(world: SharedWorld, alice: afterwards.Owner) -> None:
    """It travels as a file, is handed in as it is, and is stale once a file or somebody's word has come since."""
    release = waiting(world, alice)
    key_alone = afterwards.Owner(alice.view, world, Session.nobody(), world.publisher, world.now)
    act = Act.parse(approving.written(key_alone, release, "approve").format())
    assert any("approve version 1.1" in line for line in describe(act.statement))
    refused(PolicyError, lambda: key_alone.submit(act))  # nobody is signed in there
    size, true = len(world.leaves), world.waits
    for lie in ({"prev": "ab" * 32}, {"files": [*true["files"], true["files"][0]]}):
        world.waits = true | lie
        assert "the act says" in refused(PolicyError, lambda: approving.check_act(alice, act))
    world.waits = true
    assert len(world.leaves) == size
    assert approving.check_act(alice, act) == release
    done = alice.submit(act)
    assert Entry.parse(world.entries[done.index]).statement == act.statement and world.check() is None


# --- comparing --------------------------------------------------------------------------------------------
def read(filename: str, data: bytes) -> Contents:
    return read_contents(filename, data, hashlib.sha256(data).hexdigest())


def test_what_is_new_is_shown() -> None:
    """A dependency, an entry point, a member, a file more and one less; what stayed is not."""
    points = {
        "demo/__init__.py": b"",
        "demo-1.1.dist-info/entry_points.txt": b"[console_scripts]\nx = evil:main\n",
    }
    old = [read("demo-1.0-py3-none-any.whl", wheel()), read("demo-1.0.tar.gz", sdist())]
    new = [
        read(
            "demo-1.1-py3-none-any.whl", wheel(version="1.1", files=points, extra="Requires-Dist: left-pad\n")
        ),
        read("demo-1.1-cp311-cp311-linux_x86_64.whl", wheel(version="1.1")),
    ]
    lines = difference(new, old)
    assert lines[0].startswith("+ demo-1.1-py3-none-any.whl (") and "was" in lines[0]
    assert "    + Requires-Dist: left-pad" in lines and "    + entry point: x = evil:main" in lines
    assert "    + member: demo-1.1.dist-info/entry_points.txt".replace("-1.1", "") in lines
    assert any("no such file before" in line for line in lines)
    assert lines[-1] == "- demo-1.0.tar.gz has no counterpart now"
    assert not any("METADATA" in line or "Name: demo" in line for line in lines[1:4])
    assert difference(old, old) == [line for line in difference(old, old) if line.startswith("+ ")]


def test_an_odd_archive_is_said_to_be_one() -> None:
    """No archive, a truncated one, one with ten thousand members: a remark or a bounded list, never a crash."""
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(500):
            archive.writestr(f"demo/{number}\x1b[2J.py", b"")
    for name, data in (
        ("demo-1.1-py3-none-any.whl", b"no archive"),
        ("demo-1.1-py3-none-any.whl", wheel()[:-30]),
        ("demo-1.1.tar.gz", sdist()[:40]),
    ):
        assert "not a readable archive" in str(read(name, data).remark)
    old = read("demo-1.0-py3-none-any.whl", wheel())
    lines = difference([read("demo-1.1-py3-none-any.whl", many.getvalue())], [old])
    assert len(lines) == LINES_MAX + 2 and "lines more" in lines[-1]
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w:gz"):
        pass
    assert read("demo-1.1.tar.gz", empty.getvalue()).members == frozenset()
    refused(EvidenceError, lambda: read_contents("demo-1.1.tar.gz", b"x", digest("y")))
