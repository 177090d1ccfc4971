"""Signing in by an identity provider that is not ours: a process of oidc-provider-mock, over HTTP on loopback."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import KeySet, RSAKey
from sqlalchemy import select

from countermark_server import db, orgtables
from countermark_server.accounts import organisations, people
from countermark_server.accounts.issuer import ProviderError
from countermark_server.accounts.sealed import Sealed
from countermark_server.app import create_app
from countermark_server.errors import ServerError
from countermark_server.settings import Access, Oidc
from tests.archives import wheel
from tests.doors import BASE_URL, DoorWorld, form
from tests.idp import Idp, running
from tests.server.upload.test_upload import refused

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    with running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, idp: Idp) -> Iterator[DoorWorld]:
    """A registry with that provider; its clock is the true one, since ID tokens are of this moment."""
    made = DoorWorld(tmp_path)
    made.clock.now = int(time.time())
    secret = tmp_path / "client-secret"
    secret.write_text("a secret of this registry\n", "utf-8")
    made.settings = replace(
        made.settings,
        oidc=Oidc(
            issuer=idp.issuer,
            client_id="registry",
            client_secret_file=str(secret),
            groups="publishers admins",
            admin_groups="publishers",
            moderator_groups="somebody-else",
        ),
    )
    made.settings.keys.mkdir(parents=True, exist_ok=True)
    made.app = create_app(
        made.settings, clock=made.clock, engine=made.engine, registry=made.roles["registry"]
    )
    made.client = made.app.test_client()
    with made.run():
        yield made
    made.close()


@dataclass(frozen=True)
class Machine:
    """A machine that waits, as its registry told it."""

    device_code: str
    user_code: str

    def ask(self, world: DoorWorld) -> Any:
        return world.client.post("/api/v1/login/device/token", json={"device_code": self.device_code})


def waiting(world: DoorWorld) -> Machine:
    body = world.client.post("/api/v1/login/device").get_json()
    assert body["verification_uri_complete"] == f"{BASE_URL}/login/device?code={body['user_code']}"
    return Machine(body["device_code"], body["user_code"])


def to_provider(world: DoorWorld, machine: Machine, browser: Any = None) -> str:
    """The browser is sent to the provider; where."""
    answer = (browser or world.client).get(f"/login/device?code={machine.user_code}")
    assert answer.status_code == 303, answer.get_data()
    assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Lax" in answer.headers["Set-Cookie"]
    return str(answer.headers["Location"])


def sign_in(world: DoorWorld, idp: Idp, sub: str) -> dict[str, Any]:
    """All of it, with a browser that does as it should; what the machine gets."""
    machine = waiting(world)
    back = idp.sign_in(to_provider(world, machine), sub)
    page = world.client.get("/login/callback", query_string=back)
    assert page.status_code == 200 and machine.user_code in page.get_data(as_text=True), page.get_data()
    done = world.client.post("/login/device", data={"code": machine.user_code})
    assert done.status_code == 200, done.get_data()
    answer = machine.ask(world)
    assert answer.status_code == 200, answer.get_json()
    found: dict[str, Any] = answer.get_json()
    return found


def upload(world: DoorWorld, token: str, name: str = WHEEL, data: bytes | None = None) -> Any:
    return world.client.post(
        "/legacy/", data=form(name, data or wheel()), headers={"Authorization": f"Bearer {token}"}
    )


def test_a_person_signs_a_machine_in(world: DoorWorld, idp: Idp) -> None:
    """Code and PKCE to the provider, a button here, a session there; once, and again as the same account."""
    assert world.client.get("/api/v1/registry").get_json()["sign_in"] == ["code", "device"]
    machine = waiting(world)
    refused(machine.ask(world), "login-pending")
    asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(to_provider(world, machine)).query))
    assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43 and asked["redirect_uri"] == f"{BASE_URL}/login/callback"
    signed_in = sign_in(world, idp, "ada")
    assert signed_in["login"] == "ada@example.com"
    assert upload(world, signed_in["upload_token"]).status_code == 200
    assert sign_in(world, idp, "ada")["account"] == signed_in["account"]
    refused(machine.ask(world), "login-pending")


def test_the_button_is_for_the_browser_that_signed_in(world: DoorWorld, idp: Idp) -> None:
    """Another browser neither ends somebody's sign-in nor presses their button; a state is good once."""
    machine = waiting(world)
    ada, eve = world.app.test_client(), world.app.test_client()
    back = idp.sign_in(to_provider(world, machine, ada), "ada")
    before = db_rows(world)
    refused(eve.get("/login/callback", query_string=back), "login-refused")
    refused(eve.post("/login/device", data={"code": machine.user_code}), "login-refused")
    refused(ada.post("/login/device", data={"code": machine.user_code}), "login-refused")
    assert db_rows(world) == before
    assert ada.get("/login/callback", query_string=back).status_code == 200
    refused(ada.get("/login/callback", query_string=back), "login-refused")
    refused(eve.post("/login/device", data={"code": machine.user_code}), "login-refused")
    refused(machine.ask(world), "login-pending")
    assert ada.post("/login/device", data={"code": machine.user_code}).status_code == 200
    refused(ada.post("/login/device", data={"code": machine.user_code}), "login-refused")
    assert machine.ask(world).status_code == 200
    refused(machine.ask(world), "login-refused")


def db_rows(world: DoorWorld) -> Any:
    with db.read(world.engine) as connection:
        return [tuple(row) for row in connection.execute(select(db.sign_in))], list(
            connection.execute(select(db.account.c.login)).scalars()
        )


@pytest.mark.parametrize("what", ["another nonce", "no such code", "in no group", "too late", "declined"])
def test_what_is_no_sign_in_grants_nothing(world: DoorWorld, idp: Idp, what: str) -> None:
    """An ID token of another sign-in, a made-up code, a stranger to the groups, an old machine, a refusal."""
    machine = waiting(world)
    url = to_provider(world, machine)
    if what == "another nonce":
        url = re.sub(r"nonce=[^&]*", "nonce=of-another-sign-in", url)
    back = idp.sign_in(url, "eve" if what == "in no group" else "ada")
    if what == "no such code":
        back["code"] = "made-up"
    if what == "too late":
        world.clock.now += 601
    if what == "declined":
        back = {"error": "access_denied", "state": back["state"]}
    refused(world.client.get("/login/callback", query_string=back), "login-refused")
    refused(world.client.post("/login/device", data={"code": machine.user_code}), "login-refused")
    assert machine.ask(world).get_json()["code"] in ("login-pending", "login-refused")
    with db.read(world.engine) as connection:
        assert connection.execute(select(db.identity)).first() is None


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer
@pytest.mark.parametrize("meanwhile", ["before the look", "after it"])
@pytest.mark.usefixtures("database")
def test_two_first_sign_ins_at_once_are_one_account(
    world: DoorWorld, idp: Idp, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Somebody new signs in by two browsers: who comes second finds the account that the first one made."""
    rivals = list[dict[str, Any]]()
    named = "_check_free" if meanwhile == "after it" else "find_account"
    look = getattr(people, named)

    def looked(connection: Any, login: str) -> Any:
        found = look(connection, login)
        if not rivals:
            monkeypatch.setattr(people, named, look)
            client, world.client = world.client, world.app.test_client()
            rivals.append(sign_in(world, idp, "ada"))
            world.client = client
        return found

    monkeypatch.setattr(people, named, looked)
    ours = sign_in(world, idp, "ada")
    assert rivals and ours["account"] == rivals[0]["account"]


def test_a_name_at_the_provider_takes_over_no_account(world: DoorWorld, idp: Idp) -> None:
    """Who is called like a local account gets one of their own."""
    with db.write(world.engine) as connection:
        local = people.add_account(connection, "root", now=1)
    signed_in = sign_in(world, idp, "mallory")
    assert signed_in["account"] != local.id and re.fullmatch(r"root#[0-9a-f]{8}", signed_in["login"])


def test_disabled_at_the_provider_is_dead_here_within_15_minutes(world: DoorWorld, idp: Idp) -> None:
    """Session, upload token and the tokens of a service account; a new sign-in brings the tokens back."""
    ada = sign_in(world, idp, "ada")
    with db.write(world.engine) as connection:
        robot = people.add_service_account(
            connection, "robot", owner="ada@example.com", expires=2**40, now=int(world.clock())
        )
    session = {"Authorization": f"Bearer {ada['session']}"}
    made = world.client.post(
        "/api/v1/tokens", json={"name": "ci", "for": "robot"}, headers=session
    ).get_json()
    assert upload(world, made["token"], "robots-1.0-py3-none-any.whl", wheel("robots")).status_code == 200
    world.clock.now += 700
    assert upload(world, ada["upload_token"]).status_code == 200  # asked, and vouched for
    idp.disable("ada")
    assert upload(world, ada["upload_token"]).status_code == 200  # was asked just now
    world.clock.now += 899
    world.quiet()
    before = world.rows()["submission"]
    for token in (ada["upload_token"], made["token"]):
        body = refused(
            upload(world, token, "demo-2.0-py3-none-any.whl", wheel(version="2.0")), "not-authenticated"
        )
        assert "no longer vouches" in body["detail"]
    refused(world.client.get("/api/v1/tokens", headers=session), "not-authenticated")
    assert world.rows()["submission"] == before
    assert sign_in(world, idp, "ada")["account"] == ada["account"]
    assert upload(world, ada["upload_token"]).status_code == 200
    refused(world.client.get("/api/v1/tokens", headers=session), "not-authenticated")
    assert robot.owner == ada["account"]


def test_who_is_disabled_reads_no_longer(world: DoorWorld, idp: Idp) -> None:
    """Where reading wants a token: who comes by no other door is asked about at this one, by nginx's question too."""
    settings = replace(world.settings, access=Access(mode="token"))
    registry = world.roles["registry"]
    reader = create_app(settings, clock=world.clock, engine=world.engine, registry=registry).test_client()
    shown = {"Authorization": f"Bearer {sign_in(world, idp, 'ada')['upload_token']}"}
    paths = {"/simple/": {}, "/log/checkpoint": {}, "/api/v1/access": {"X-Original-URI": "/tuf/1.root.json"}}
    for path, more in paths.items():
        assert reader.get(path, headers={**shown, **more}).status_code < 300
    idp.disable("ada")
    world.clock.now += 899
    for path, more in paths.items():
        body = refused(reader.get(path, headers={**shown, **more}), "not-authenticated")
        assert "no longer vouches" in body["detail"]
    before = world.state()
    refused(reader.get("/simple/", headers=shown), "not-authenticated")
    assert world.state() == before


def test_groups_give_roles_for_as_long_as_the_provider_says_so(world: DoorWorld, idp: Idp) -> None:
    """A group of the settings makes an admin; what it said of groups is forgotten when it says something else."""
    ada = sign_in(world, idp, "ada")["account"]
    roles = {"admin": ("publishers",), "moderator": ("somebody-else",)}
    with db.write(world.engine) as connection:
        assert organisations.has_role(connection, ada, "admin")
        assert not organisations.has_role(connection, ada, "moderator")
        organisations.grant_role(connection, ada, "moderator", now=1)  # by the operator: no group takes that
        organisations.note_groups(connection, ada, None, roles, now=1)
        assert organisations.has_role(connection, ada, "admin")
        organisations.note_groups(connection, ada, ["guests"], roles, now=1)
        assert not organisations.has_role(connection, ada, "admin")
        assert organisations.has_role(connection, ada, "moderator")
        groups = connection.execute(select(orgtables.identity_group.c.name)).scalars().all()
    assert groups == ["guests"]


def test_a_browser_of_somebody_disabled_is_out_within_15_minutes(world: DoorWorld, idp: Idp) -> None:
    """The page says so; nothing of theirs is shown."""
    browser = world.app.test_client()
    sent = browser.get("/sign-in/provider?next=/me/tokens")
    back = idp.sign_in(sent.headers["Location"], "ada")
    answer = browser.get("/login/callback", query_string=back)
    assert answer.status_code == 303 and answer.headers["Location"] == "/me/tokens"
    assert browser.get("/me").status_code == 200
    stranger = world.app.test_client()
    stranger.get("/sign-in/provider")
    assert stranger.get("/login/callback", query_string=back).status_code == 401
    idp.disable("ada")
    world.clock.now += 899
    answer = browser.get("/me")
    assert answer.status_code == 401 and "no longer vouches" in answer.get_data(as_text=True)
    assert "ada@example.com" not in answer.get_data(as_text=True)
    sign_in(world, idp, "ada")  # in another browser: the one that was left open somewhere stays out
    assert browser.get("/me").headers["Location"].startswith("/sign-in")


@pytest.mark.parametrize("code", ["K7QM", "K7QM-2XH1", "page-ABCDEFGH", "\0", "K7QM-2XHD K7QM-2XHD"])
def test_what_is_no_code_of_a_machine_leads_nowhere(world: DoorWorld, code: str) -> None:
    """Neither to the provider nor, by the button, to a machine; a page's own sign-in is nobody's to press."""
    begun = world.app.extensions["sign_ins"]
    before = world.state()
    for act in (lambda: begun.begin(code), lambda: begun.grant(code, "cookie")):
        with pytest.raises(ServerError, match="no machine shows this code") as refusal:
            act()
        assert refusal.value.code == "login-refused"
    assert world.state() == before


def test_a_silent_provider_is_waited_for_until_the_fifteenth_minute(world: DoorWorld, idp: Idp) -> None:
    """Then 503, which says to try again: nobody is dead because a provider is, nor alive for ever."""
    ada = sign_in(world, idp, "ada")
    described = world.app.extensions["sign_ins"]._provider._issuer.describe()
    working = described["token_endpoint"]
    described["token_endpoint"] = "http://127.0.0.1:9/token"
    world.clock.now += 800
    assert upload(world, ada["upload_token"]).status_code == 200
    world.clock.now += 101
    answer = upload(world, ada["upload_token"])
    refused(answer, "unavailable")
    described["token_endpoint"] = working
    world.clock.now += 31
    assert upload(world, ada["upload_token"]).status_code == 200


def test_refresh_tokens_are_sealed(world: DoorWorld, idp: Idp) -> None:
    """The database alone opens nothing; under another key nothing opens either."""
    sign_in(world, idp, "ada")
    with db.read(world.engine) as connection:
        kept = connection.execute(select(db.identity.c.refresh)).scalar_one()
    key = world.settings.keys / "sealing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    opened = Sealed(key).open(kept)
    assert len(opened) > 20 and opened not in repr(world.rows())
    assert Sealed(key.with_name("other.key")).open(kept) == ""


@pytest.mark.parametrize(
    "lie", ["none", "shared secret", "other key", "other issuer", "other audience", "old", "early"]
)
def test_id_tokens_that_lie_are_refused(world: DoorWorld, idp: Idp, lie: str) -> None:
    """Signed by nobody, by a secret that all know, by another key; for others; of another time."""
    provider = world.app.extensions["sign_ins"]._provider
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    provider._issuer._keys = KeySet([RSAKey.import_key(public, {"kid": "k1"})])
    provider._issuer._keys_at = now = int(world.clock())
    claims: dict[str, Any] = {"iss": idp.issuer, "aud": "registry", "sub": "ada", "iat": now, "exp": now + 60}
    header = {"alg": "RS256", "kid": "k1"}

    def rs256(data: bytes, signer: rsa.RSAPrivateKey = key) -> bytes:
        return signer.sign(data, PKCS1v15(), SHA256())

    assert provider._claims(by_hand(header, claims, rs256))["sub"] == "ada"
    made = {
        "none": lambda: by_hand({"alg": "none"}, claims, lambda _: b""),
        "shared secret": lambda: by_hand(
            {**header, "alg": "HS256"}, claims, lambda data: hmac.digest(public, data, "sha256")
        ),
        "other key": lambda: by_hand(header, claims, lambda data: rs256(data, other)),
        "other issuer": lambda: by_hand(header, {**claims, "iss": "https://other.example"}, rs256),
        "other audience": lambda: by_hand(header, {**claims, "aud": "another-client"}, rs256),
        "old": lambda: by_hand(header, {**claims, "exp": now - 61}, rs256),
        "early": lambda: by_hand(header, {**claims, "iat": now + 61}, rs256),
    }
    with pytest.raises(ProviderError):
        provider._claims(made[lie]())


def test_a_key_that_the_provider_withdrew_is_soon_worth_nothing(world: DoorWorld, idp: Idp) -> None:
    """Whoever stole it signs in for five minutes at the longest, not for as long as this process lives."""
    provider = world.app.extensions["sign_ins"]._provider
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    provider._issuer._keys = KeySet([RSAKey.import_key(public, {"kid": "k1"})])
    provider._issuer._keys_at = now = int(world.clock())
    claims = {"iss": idp.issuer, "aud": "registry", "sub": "ada", "iat": now, "exp": now + 3600}
    token = by_hand({"alg": "RS256", "kid": "k1"}, claims, lambda data: key.sign(data, PKCS1v15(), SHA256()))
    world.clock.now += 299
    assert provider._claims(token)["sub"] == "ada"
    world.clock.now += 1
    with pytest.raises(ProviderError):
        provider._claims(token)


def by_hand(header: Any, claims: Any, signed: Callable[[bytes], bytes]) -> str:
    """A JWT as RFC 7515 has it, without a library that might refuse to write such a thing."""

    def part(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    said = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (said + b"." + part(signed(said))).decode()
