"""Staged releases: who could have a release listed that too few people have looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from countermark.actfile import Act
from countermark.filelist import files_digest
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark_server import db
from countermark_server.journey import State
from countermark_server.moderation.station import settle
from countermark_server.ruleview import SqlView
from countermark_server.standings import standings
from tests.archives import sdist, wheel
from tests.attacks.test_pages import signed_in
from tests.doors import DoorWorld, Person
from tests.log_world import ORIGIN

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
TAKEN = (200, 202)  # public, or durable and on its way
OTHER_ORIGIN = "elsewhere.example"


class Team(DoorWorld):
    """demo: Ada, Bob and Cy own it with a key each, and a release takes two of them."""

    name = "demo"

    def __init__(self, folder: Path, *, wait: float = 10.0, now: int | None = None) -> None:
        super().__init__(folder, wait=wait)
        self.clock.now = now or self.clock.now
        self.ada, self.bob, self.cy = self.person("ada"), self.person("bob"), self.person("cy")

    def begin(self, project: str | None = None, needed: int = 2) -> None:
        project = project or self.name
        assert self.ada.enrol(project).status_code in TAKEN
        self.quiet()
        for person in (self.bob, self.cy):
            self.act(self.ada, self.owning("add", person.account, "owner", project=project), self.ada.key)
            assert person.enrol(project, self.ada.key).status_code in TAKEN
            self.quiet()
        if needed:
            self.act(self.ada, self.requirement(needed, project=project), self.ada.key)

    def prev(self, project: str = "demo") -> Any:
        return self.client.get(f"/api/v1/projects/{project}").get_json()["prev"]

    def waits(self, version: str = "1.0") -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/v1/releases/{self.name}/{version}").get_json()
        return found

    # --- statements, as their signers would make them but for `changes` ---
    def owning(self, action: str, account: str, role: str | None, *, project: str = "demo") -> Statement:
        said = {"action": action, "account": account, "role": role}
        return self.about("owner", said, project=project)

    def requirement(self, needed: int, *, project: str = "demo") -> Statement:
        return self.about("require-approvals", {"needed": needed}, project=project)

    def about(self, kind: str, said: dict[str, Any], *, project: str = "demo") -> Statement:
        binding = {"origin": ORIGIN, "namespace": "", "project": project, "prev": self.prev(project)}
        return Statement.about(f"project:{project}", kind, binding | said)

    def approval(self, decision: str = "approve", version: str = "1.0", **changes: Any) -> Statement:
        waits = self.waits(version)
        said = {
            "origin": ORIGIN, "namespace": "", "project": self.name, "prev": waits["prev"], "version": version,
            "files_sha256": files_digest((file["filename"], file["sha256"]) for file in waits["files"]),
            "decision": decision,
        }  # fmt: skip
        said |= changes
        return Statement.about(f"project:{said['project']}", "approve", said)

    def send(self, who: Person, envelope: Envelope, token: str | None = None) -> TestResponse:
        bearer = {"Authorization": f"Bearer {token or who.session}"}
        return self.client.post("/api/v1/entries", json={"envelope": envelope.to_dict()}, headers=bearer)

    def act(self, who: Person, statement: Statement, *keys: KeySigner) -> Envelope:
        envelope = sign(statement, *keys)
        answer = self.send(who, envelope)
        assert answer.status_code in TAKEN, answer.get_json()
        self.quiet()
        return envelope

    def approve(self, who: Person, **changes: Any) -> Envelope:
        return self.act(who, self.approval(**changes), who.key)

    def refused(self, who: Person, envelope: Envelope, code: str, *, token: str | None = None) -> None:
        """The door says no for this reason, and nothing anywhere has changed."""
        self.quiet()
        before = self.state()
        answer = self.send(who, envelope, token)
        assert answer.get_json()["code"] == code, answer.get_json()
        assert self.state() == before

    def upload(self, who: Person, name: str, data: bytes, key: KeySigner | None = None) -> TestResponse:
        return who.upload(name, data, attestations=who.attest(name, data, key=key))

    def passed(self, *names: str) -> None:
        """The scan lets these through, as its room would."""
        for name in names:
            (row,) = [row for row in self.submissions() if row["served_name"] == name]
            key = ("file", "", row["project"], row["filename"])
            with db.read(self.engine) as connection:
                head = SqlView(connection, db.rules_state).get(key)["registry_head"]  # type: ignore[index]
            said = {
                "origin": ORIGIN, "namespace": "", "project": row["project"], "prev": head, "tier": "none",
                "classification": "no-findings", "confidence": "high", "ruleset_sha256": "0" * 64,
                "analyzers": [{"name": "archive", "version": "1"}], "findings_sha256": None,
            }  # fmt: skip
            statement = Statement(name, row["sha256"], "verdict", said)
            self.propose("verdict", sign(statement, self.roles["scanner"]).to_dict(), {})
            self.quiet()
            self.set_state(name, state=State.CLEARED)

    def check(self) -> None:
        """The log is sound; rows that a test moved by hand are where the log left them."""
        for row in self.submissions():
            self.set_state(row["served_name"], state=State.LOGGED)
        super().check()

    def listed(self, *names: str) -> list[bool]:
        """What the rules say, of which tufrepo and the timestamper make bins."""
        rows = [row for name in names for row in self.submissions() if row["served_name"] == name]
        with db.read(self.engine) as connection:
            found = standings(connection, rows)
        return [found[row["id"]].listed for row in rows]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Team]:
    """A wheel and a source distribution of demo 1.0 wait for two of three people."""
    made = Team(tmp_path)
    with made.run():
        made.begin()
        for name, data in ((WHEEL, wheel()), (SDIST, sdist())):
            assert made.upload(made.ada, name, data).status_code == 200
        made.passed(WHEEL, SDIST)
        yield made
        made.quiet()
        made.check()
    made.close()


def test_two_of_three_list_a_release(world: Team) -> None:
    """Everybody is told where it stands: who uploads, who asks for a file, who looks at the release."""
    again = world.upload(world.ada, WHEEL, wheel()).get_json()
    assert "waiting for approval 1 of 2" in again["message"]
    everybody = sorted(person.account for person in (world.ada, world.bob, world.cy))
    nothing = {"needed": 2, "approved": [], "rejected": [], "missing": everybody}
    assert world.waits()["approvals"] == nothing
    world.approve(world.ada)
    shown = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
    assert shown["message"] == "logged and cleared, not listed: waiting for approval 2 of 2"
    assert shown["approvals"]["approved"] == [world.ada.account]
    page = " ".join(signed_in(world, "bob").get("/me/projects/demo").get_data(as_text=True).split())
    for words in (
        "listed once 2 people",
        "approval 2 of 2",
        "Approved by ada.",
        "Missing:",
        "countermark approve demo 1.0",
    ):
        assert words in page, words
    answer = world.client.get(f"/packages/demo/{WHEEL}")
    assert answer.get_json()["code"] == "not-listed" and "approval 2 of 2" in answer.get_json()["detail"]
    assert world.listed(WHEEL, SDIST) == [False, False]
    world.approve(world.bob)
    assert world.listed(WHEEL, SDIST) == [True, True]
    assert (world.waits()["files"], world.waits()["approvals"]) == ([], None)


def test_one_approver_does_not_count_twice(world: Team) -> None:
    """Not by approving again, not by a second key of hers, not by Bob's key in her session, or hers in his."""
    first = world.approve(world.ada)
    second = KeySigner(Ed25519PrivateKey.generate())
    assert world.ada.enrol("demo", world.ada.key, world.bob.key, key=second).status_code == 200
    for key in (world.ada.key, second):
        world.refused(world.ada, sign(world.approval(), key), "entry-refused")
    world.refused(world.ada, first, "prev-stale")
    world.refused(world.ada, sign(world.approval(), world.bob.key), "entry-refused")
    world.refused(world.bob, sign(world.approval(), second), "entry-refused")
    world.refused(world.ada, sign(world.approval(), world.ada.key, world.bob.key), "signature-count")
    assert world.listed(WHEEL) == [False]


def test_one_person_makes_no_second_one(world: Team) -> None:
    """With all her keys Ada lets nobody in, enrols nothing, and does not lower the number."""
    eve = world.person("eve")
    second = KeySigner(Ed25519PrivateKey.generate())
    assert world.ada.enrol("demo", world.ada.key, world.bob.key, key=second).status_code == 200
    for statement in (
        world.requirement(1),
        world.requirement(0),
        world.owning("add", eve.account, "owner"),
        world.owning("transfer", world.ada.account, None),
        world.about("owner", {"action": "signing-off", "account": None, "role": None}),
    ):
        world.refused(world.ada, sign(statement, world.ada.key, second), "not-authorised")
    world.quiet()
    before = world.state()
    third = KeySigner(Ed25519PrivateKey.generate())
    assert world.ada.enrol("demo", world.ada.key, second, key=third).get_json()["code"] == "not-authorised"
    assert world.state() == before


def test_a_stolen_token_or_a_strangers_key_approves_nothing(world: Team) -> None:
    """An upload token has no vote, with whatever signature; nor has who is signed in and owns nothing."""
    eve = world.person("eve")
    true = sign(world.approval(), world.bob.key)
    world.refused(world.bob, true, "session-required", token=world.bob.token)
    world.refused(eve, true, "entry-refused")
    world.refused(eve, sign(world.approval(), eve.key), "key-unknown")
    world.refused(world.bob, sign(world.approval(), world.roles["registry"]), "key-unknown")


def test_an_approval_is_not_replayed_after_a_file_was_added(world: Team) -> None:
    """Two files were approved by one; a third joins them: his approval is void, and comes back by no door."""
    old = world.approve(world.bob)
    unsent = sign(world.approval(), world.cy.key)
    late, data = "demo-1.0-1-py3-none-any.whl", wheel()
    assert world.upload(world.ada, late, data).status_code == 200
    world.passed(late)
    world.refused(world.bob, old, "prev-stale")
    world.refused(world.cy, unsent, "entry-refused")  # of two files, and there are three
    assert world.waits()["approvals"]["approved"] == []
    world.approve(world.cy)
    assert world.listed(WHEEL, SDIST, late) == [False, False, False]
    world.approve(world.bob)
    assert world.listed(WHEEL, SDIST, late) == [True, True, True]


def test_after_the_listing_nothing_is_approved_or_rejected(world: Team) -> None:
    """A third approval, a rejection in hindsight, and an approval of files that come later."""
    third = sign(world.approval(), world.cy.key)
    for person in (world.ada, world.bob):
        world.approve(person)
    world.refused(world.cy, third, "entry-refused")
    for decision in ("approve", "reject"):
        world.refused(world.cy, sign(world.approval(decision), world.cy.key), "entry-refused")
    assert world.listed(WHEEL, SDIST) == [True, True]
    late, data = "demo-1.0-1-py3-none-any.whl", wheel()
    assert world.upload(world.ada, late, data).status_code == 200
    world.passed(late)
    assert world.listed(WHEEL, late) == [True, False]


def test_a_statement_of_elsewhere_or_of_another_version_is_not_taken(world: Team) -> None:
    """Another registry's, another project's with the same people, another version of the same project."""
    world.begin("sibling", needed=2)
    data = wheel(version="2.0")
    assert world.upload(world.ada, "demo-2.0-py3-none-any.whl", data).status_code == 200
    key = world.bob.key
    world.refused(world.bob, sign(world.approval(origin=OTHER_ORIGIN), key), "statement-mismatch")
    world.refused(world.bob, sign(world.approval(project="sibling"), key), "entry-refused")
    two = Statement.parse(sign(world.approval(version="2.0"), key).payload).predicate
    world.refused(world.bob, sign(world.approval(files_sha256=two["files_sha256"]), key), "entry-refused")
    moved = Envelope(sign(world.approval(version="2.0"), key).payload, sign(world.approval(), key).signatures)
    world.refused(world.bob, moved, "signature-invalid")


def test_an_owner_who_is_removed_meanwhile_neither_uploads_nor_counts(world: Team) -> None:
    """Cy approved, and signed another release; then two others remove him."""
    world.approve(world.cy)
    name, data = "demo-3.0-py3-none-any.whl", wheel(version="3.0")
    attested = world.cy.attest(name, data)
    world.act(world.ada, world.owning("remove", world.cy.account, None), world.ada.key, world.bob.key)
    world.quiet()
    before = world.state()
    assert world.cy.upload(name, data, attestations=attested).get_json()["code"] == "not-owner"
    assert world.state() == before
    assert world.waits()["approvals"]["approved"] == []
    world.approve(world.ada)
    world.refused(world.cy, sign(world.approval(), world.cy.key), "not-owner")
    assert world.listed(WHEEL) == [False]
    world.approve(world.bob)
    assert world.listed(WHEEL) == [True]


def test_a_key_that_is_revoked_meanwhile_counts_for_nothing(world: Team) -> None:
    """Bob's approval is in the log; his key is found stolen before the second one comes."""
    world.approve(world.bob)
    said = {"keyid": world.bob.key.keyid, "reason": "compromised", "compromised_since": None}
    binding = {"origin": ORIGIN, "namespace": "", "project": "demo", "prev": world.prev()}
    revoke = Statement.about(f"key:{world.bob.key.keyid}", "key-revoke", binding | said)
    world.act(world.ada, revoke, world.ada.key)
    world.approve(world.ada)
    assert world.listed(WHEEL) == [False]
    world.refused(world.bob, sign(world.approval(), world.bob.key), "key-revoked")
    world.approve(world.cy)
    assert world.listed(WHEEL) == [True]


def test_a_moderators_clear_is_no_approval(world: Team) -> None:
    """A file that was held and given back goes on in its journey, and still waits for its people."""
    world.decide("hold", WHEEL, reason="report", about=None, evidence_sha256=None)
    world.set_state(WHEEL, state=State.HELD)
    world.decide("clear", WHEEL, reason="reviewed", about=None, evidence_sha256=None)
    assert settle(world.engine, now=int(world.clock())) == 1
    assert {row["state"] for row in world.submissions() if row["served_name"] == WHEEL} == {"cleared"}
    assert world.listed(WHEEL) == [False]
    for person in (world.ada, world.bob):
        world.approve(person)
    assert world.listed(WHEEL) == [True]


def test_only_owners_see_what_waits(world: Team) -> None:
    """The bytes of a staged file are for those who may approve them; a held one is for nobody."""

    def ask(token: str) -> TestResponse:
        return world.client.get(f"/api/v1/staged/demo/{WHEEL}", headers={"Authorization": f"Bearer {token}"})

    answer = ask(world.bob.session)
    assert (answer.status_code, answer.data) == (200, wheel())
    assert answer.headers["Cache-Control"] == "no-store"
    assert ask(world.person("eve").session).get_json()["code"] == "not-owner"
    assert ask("").get_json()["code"] == "not-authenticated"
    asked = {"name": "ci", "projects": ["other"], "actions": ["upload"]}
    headers = {"Authorization": f"Bearer {world.bob.session}"}
    narrow = world.client.post("/api/v1/tokens", json=asked, headers=headers).get_json()["token"]
    for token in (narrow, world.bob.token):  # stolen, they would show what nobody may see yet
        assert ask(token).get_json()["code"] == "session-required"
    world.decide("hold", WHEEL, reason="malware", about=None, evidence_sha256=None)
    assert ask(world.bob.session).get_json()["code"] == "file-held"


# --- the page -----------------------------------------------------------------------------------------------
RELEASE = "/me/projects/demo/releases/1.0"


def hand_in(world: Team, browser: FlaskClient, raw: bytes, **fields: str) -> TestResponse:
    """Somebody sends the page's form with a file."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', browser.get("/me/tokens").get_data(as_text=True))
    csrf = {"csrf": found[1]} if found else {}
    data: dict[str, Any] = {**csrf, **fields, "act": (BytesIO(raw), "approval.act")}
    return browser.post(RELEASE, data=data, content_type="multipart/form-data")


def written(statement: Statement, *keys: KeySigner) -> bytes:
    """As `countermark approve --act` writes it."""
    return Act.begin("https://registry.test", statement, *keys).format()


def test_a_page_shows_what_is_new_and_brings_what_was_signed(world: Team) -> None:
    """With the entries that say so; the second approval lists the release."""
    browser = signed_in(world, "bob")
    text = browser.get("/me/approvals").get_data(as_text=True)
    assert RELEASE in text and "waiting for approval 1 of 2" in text and "are asked" in text
    for row in world.submissions():
        assert f"/e/{row['leaf_index']}" in text
    text = browser.get(RELEASE).get_data(as_text=True)
    assert "+ Summary: " in text or "+ demo-1.0" in text
    assert "No release of this project was listed before" in text and "Nobody yet" in text
    answer = hand_in(world, browser, written(world.approval(), world.bob.key))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/me/projects/demo")
    world.quiet()
    (vote,) = re.findall(r"bob: approve, <a href=\"/e/(\d+)\"", browser.get(RELEASE).get_data(as_text=True))
    assert "approve" in browser.get(f"/e/{vote}").get_data(as_text=True)
    assert world.listed(WHEEL) == [False]
    hand_in(world, signed_in(world, "ada"), written(world.approval(), world.ada.key))
    world.quiet()
    assert world.listed(WHEEL, SDIST) == [True, True]
    assert browser.get(RELEASE).status_code == 404
    assert "Nothing of yours waits" in browser.get("/me/approvals").get_data(as_text=True)


def test_a_stolen_browser_approves_nothing(world: Team) -> None:
    """Freshly signed in as Bob, and with every signature but his: no vote, and nothing anywhere has changed."""
    browser, thief = signed_in(world, "bob"), KeySigner(Ed25519PrivateKey.generate())
    said = world.approval()
    other = world.approval(version="2.0", prev=None, files_sha256="0" * 64)
    forged = Act.parse(written(said, thief))
    bobs = replace(forged.envelope.signatures[0], keyid=world.bob.key.keyid)
    forged = replace(forged, envelope=Envelope(forged.envelope.payload, (bobs,)))
    world.quiet()
    before = world.state()
    for raw, code in (
        (written(said, thief), "key-unknown"),
        (written(said, world.ada.key), "entry-refused"),  # Ada's vote is not Bob's
        (written(said, world.ada.key, world.bob.key), "signature-count"),
        (forged.format(), "signature-invalid"),
        (written(other, world.bob.key), "statement-mismatch"),
        (written(world.requirement(0), world.bob.key, world.ada.key), "statement-mismatch"),
        (b"", "bad-request"),
        (b"{}", "statement-invalid"),
        (b"x" * 400_000, "too-large"),
    ):
        text = hand_in(world, browser, raw).get_data(as_text=True)
        assert f"/h/{code}" in text, (code, text)
    assert world.state() == before


def test_a_browser_left_open_or_another_sites_form_hands_in_nothing(world: Team) -> None:
    """Also with a true approval that lies on that desk: after ten minutes, or without this browser's value."""
    browser, true = signed_in(world, "bob"), written(world.approval(), world.bob.key)
    world.quiet()
    before = world.state()
    assert "/h/form-foreign" in hand_in(world, browser, true, csrf="0" * 64).get_data(as_text=True)
    world.clock.now += 601
    answer = hand_in(world, browser, true)
    assert answer.headers["Location"] == f"/sign-in?next={RELEASE}"
    assert 'type="file"' not in browser.get(RELEASE).get_data(as_text=True)
    nobody = world.app.test_client()
    assert nobody.get(RELEASE).headers["Location"] == f"/sign-in?next={RELEASE}"
    assert nobody.post(RELEASE).headers["Location"].startswith("/sign-in")
    assert world.state()["files"] == before["files"]


def test_a_stranger_sees_no_release_that_waits(world: Team) -> None:
    """Neither the difference nor that there is one."""
    world.person("eve")
    eve = signed_in(world, "eve")
    assert "Nothing of yours waits" in eve.get("/me/approvals").get_data(as_text=True)
    answer = eve.get(RELEASE)
    assert answer.status_code == 403 and "/h/not-owner" in answer.get_data(as_text=True)
    assert WHEEL not in answer.get_data(as_text=True)
