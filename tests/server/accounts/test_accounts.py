"""Accounts: one-time codes once, tokens by kind, keys by session only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from countermark.errors import UsageError
from countermark.statement import KeySigner
from countermark.tlog.proof import TlogProof
from countermark_server import db
from countermark_server.accounts import codes, people, tokens
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.errors import ServerError
from tests.archives import sdist
from tests.doors import DoorWorld, enrolment
from tests.log_world import NOW

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    yield made
    made.close()


def test_a_code_signs_in_once(world: DoorWorld) -> None:
    """It gives a session that expires and an upload token; the second use is refused and changes nothing."""
    grace = world.person("grace@example.com")
    code = world.login_code("grace@example.com")
    answer = world.client.post("/api/v1/login", json={"code": code.lower().replace("-", " ")})
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    assert (body["account"], body["login"]) == (grace.account, "grace@example.com")
    assert body["session_expires"] == NOW + 3600
    with db.read(world.engine) as connection:
        for secret, kind in ((body["session"], "session"), (body["upload_token"], "upload")):
            found = tokens.authenticate(connection, f"Bearer {secret}", now=NOW)
            assert found == tokens.Principal(grace.account, kind, tokens.id_of(secret), since=NOW)
    before = world.state()
    again = world.client.post("/api/v1/login", json={"code": code})
    assert again.status_code == 401 and again.get_json()["code"] == "login-refused"
    assert world.state() == before


def test_secrets_are_not_in_the_database(world: DoorWorld) -> None:
    """Neither codes nor tokens: only their SHA-256."""
    world.person("grace")
    code = world.login_code("grace")
    body = world.client.post("/api/v1/login", json={"code": code}).get_json()
    dump = repr(world.rows())
    for secret in (code, code.replace("-", ""), body["session"], body["upload_token"]):
        assert secret not in dump


def test_wrong_spent_and_old_codes_are_refused(world: DoorWorld) -> None:
    """A code is good for ten minutes; others never."""
    world.person("grace")
    code = world.login_code("grace")
    world.clock.now += codes.VALID_SECONDS + 1
    before = world.state()
    for wrong in (code, "AAAA-BBBB-CCCC-DDDD", "x"):
        assert world.client.post("/api/v1/login", json={"code": wrong}).get_json()["code"] == "login-refused"
    for body in ({}, [], None, {"code": 7}, {"code": ""}, {"code": "x" * 65}):
        assert world.client.post("/api/v1/login", json=body).get_json()["code"] in (
            "bad-request",
            "too-many-attempts",
        )
    assert world.state() == before


def test_logins_are_limited(world: DoorWorld) -> None:
    """After ten attempts in a minute the next waits, also with the right code; then it works."""
    world.person("grace")
    code = world.login_code("grace")
    for _ in range(10):
        world.client.post("/api/v1/login", json={"code": "wrong"})
    answer = world.client.post("/api/v1/login", json={"code": code})
    assert answer.status_code == 429 and answer.get_json()["code"] == "too-many-attempts"
    world.clock.now += 61
    assert world.client.post("/api/v1/login", json={"code": code}).status_code == 200


def test_rate_limits_forget_the_longest_silent_source() -> None:
    """Memory is bounded, and sources are counted apart."""
    limit = RateLimit(1, 60)
    limit.count("a", now=0.0)
    with pytest.raises(ServerError):
        limit.count("a", now=59.0)
    limit.count("b", now=59.0)
    limit.count("a", now=60.0)
    for n in range(10_000):
        limit.count(str(n), now=61.0)
    limit.count("a", now=61.0)


def test_accounts_and_codes_name_who_is_missing(world: DoorWorld) -> None:
    """No code for nobody, no second account for one login, no empty login."""
    before = world.state()
    with db.read(world.engine) as connection:
        with pytest.raises(UsageError, match="nobody"):
            codes.create_login_code(connection, "nobody", now=NOW)
        for login in ("", " x", "a\nb", "x" * 300):
            with pytest.raises(UsageError):
                people.add_account(connection, login, now=NOW)
    assert world.state() == before
    world.person("grace")
    with db.read(world.engine) as connection, pytest.raises(UsageError, match="has an account"):
        people.add_account(connection, "grace", now=NOW)


def test_tokens_expire_and_are_revoked(world: DoorWorld) -> None:
    """A session ends after an hour, a revoked token at once."""
    grace = world.person("grace")
    with db.read(world.engine) as connection:
        tokens.authenticate(connection, f"Bearer {grace.session}", now=NOW + 3600)
        with pytest.raises(ServerError) as caught:
            tokens.authenticate(connection, f"Bearer {grace.session}", now=NOW + 3601)
    assert caught.value.code == "not-authenticated"
    with db.write(world.engine) as connection:
        connection.execute(update(db.token).where(db.token.c.kind == "upload").values(revoked=NOW))
    with db.read(world.engine) as connection, pytest.raises(ServerError):
        tokens.authenticate(connection, f"Bearer {grace.token}", now=NOW)
    for header in (None, "", "Bearer", "Basic", "Basic !!!", "Basic Og==", "Digest x", "Basic /w=="):
        with db.read(world.engine) as connection, pytest.raises(ServerError):
            tokens.authenticate(connection, header, now=NOW)


def test_a_key_is_enrolled_with_a_session_and_proved(world: DoorWorld) -> None:
    """The first key of a project: at once, by the registry's word, with a proof; the project shows it."""
    grace = world.person("grace")
    with world.run():
        answer = grace.enrol("Demo.Pkg".lower().replace(".", "-"))
        assert answer.status_code == 200, answer.get_data()
        body = answer.get_json()
        assert TlogProof.parse(body["proof"].encode()).index == body["index"] == 4
        shown = world.client.get("/api/v1/projects/Demo.Pkg").get_json()
        assert shown["project"] == "demo-pkg" and shown["owners"] == [grace.account]
        assert shown["prev"] == body["leaf_hash"]
        assert [key["keyid"] for key in shown["keys"]] == [grace.key.keyid]
        second = KeySigner(Ed25519PrivateKey.generate())
        assert grace.enrol("demo-pkg", grace.key, key=second).status_code == 200
        keys = world.client.get("/api/v1/projects/demo-pkg").get_json()["keys"]
        assert {key["keyid"] for key in keys} == {grace.key.keyid, second.keyid}
    world.check()


def test_an_upload_token_never_enrols_a_key(world: DoorWorld) -> None:
    """403 for an upload token, 401 for none; nothing is proposed."""
    grace = world.person("grace")
    with world.run():
        before = world.state()
        stolen = grace.enrol("demo", token=grace.token)
        assert stolen.status_code == 403 and stolen.get_json()["code"] == "session-required"
        assert grace.enrol("demo", token="cms_unknown").status_code == 401
        assert world.client.post("/api/v1/keys", json={}).status_code == 401
        assert world.state() == before


def test_enrolments_that_break_a_rule_are_refused_at_the_door(world: DoorWorld) -> None:
    """Foreign project, false predicate, wrong origin, unknown co-signer, role scope, somebody else's signature."""
    grace, eve = world.person("grace"), world.person("eve")
    with world.run():
        assert grace.enrol("demo").status_code == 200
        before = world.state()
        cases = [
            (eve.enrol("demo"), "not-owner"),
            (grace.enrol("demo"), "key-exists"),
            (grace.enrol("demo", eve.key, key=KeySigner(Ed25519PrivateKey.generate())), "key-unknown"),
            (grace.enrol("other", prev="0" * 64), "prev-stale"),
            (grace.enrol("other", origin="elsewhere.example"), "statement-mismatch"),
            (grace.enrol("other", scope="registry"), "statement-invalid"),
            (grace.enrol("other", scope="namespace"), "statement-invalid"),
            (grace.enrol("other", surprise=1), "statement-invalid"),
            (eve.enrol("other", key=grace.key), "key-taken"),
        ]
        for answer, code in cases:
            assert answer.get_json()["code"] == code, (code, answer.get_json())
        bearer = {"Authorization": f"Bearer {grace.session}"}
        envelope = enrolment(world, "other", eve.key).to_dict()
        envelope["signatures"][0]["sig"] = enrolment(world, "else", eve.key).to_dict()["signatures"][0]["sig"]
        bad = world.client.post("/api/v1/keys", json={"envelope": envelope}, headers=bearer)
        assert bad.get_json()["code"] == "signature-invalid"
        for body in (b"", b"{", b"[]", b'{"envelope":1}', b'{"envelope":{}}', b"[" * 100_000, b"x" * 200_000):
            answer = world.client.post("/api/v1/keys", data=body, headers=bearer)
            assert answer.get_json()["code"] in ("bad-request", "statement-invalid", "too-large"), body[:20]
        assert world.state() == before


def test_an_unknown_project_is_empty_and_a_bad_name_refused(world: DoorWorld) -> None:
    """What a publisher needs to sign the first statement: prev is null, nobody owns it."""
    shown = world.client.get("/api/v1/projects/nobody-has-it").get_json()
    assert shown == {
        "project": "nobody-has-it", "namespace": "", "keyed": False, "signed": False, "threshold": 1,
        "frozen": None, "approvals": 0, "publishers": [],
        "recovery": None, "prev": None, "keys": [], "owners": [],
    }  # fmt: skip
    assert world.client.get("/api/v1/projects/-x-").get_json()["code"] == "name-invalid"


def test_a_person_is_erased_by_deleting_the_mapping(world: DoorWorld) -> None:
    """The pseudonym stays in the log; the login is nowhere."""
    grace = world.person("grace@example.com")
    with world.run():
        assert grace.upload("demo-1.0.tar.gz", sdist()).status_code == 200
    with db.write(world.engine) as connection:
        connection.execute(update(db.account).values(login="erased"))
        assert people.get_account(connection, grace.account) == people.Account(grace.account, "erased")
        assert not connection.execute(select(db.account).where(db.account.c.login.contains("grace"))).all()
    assert all(b"grace" not in data for data in world.files().values())
