"""Tokens of CI jobs at the doors: what they are worth, and every reason why one is worth nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countermark.entry import Entry
from countermark_server import db, proposal
from countermark_server.app import create_app
from countermark_server.published import Published
from countermark_server.settings import Ci, SettingsError
from tests.archives import wheel
from tests.attacks.test_pages import signed_in
from tests.doors import form, publish
from tests.jobissuer import JobIssuer, running
from tests.jobworld import JobWorld, one_run
from tests.log_world import ORIGIN
from tests.server.upload.test_upload import refused

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def issuer() -> Iterator[JobIssuer]:
    with running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, issuer: JobIssuer) -> Iterator[JobWorld]:
    issuer.down = False
    made = JobWorld(tmp_path, issuer)
    with made.run():
        yield made
    made.close()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, issuer: JobIssuer) -> Iterator[JobWorld]:
    """One for all refusals: each leaves it as it was."""
    made = JobWorld(tmp_path_factory.mktemp("jobs"), issuer)
    with made.run():
        made.trusted()
        yield made
    made.close()


def upload(world: JobWorld, token: str, name: str = WHEEL, **fields: Any) -> Any:
    data = wheel() if name == WHEEL else fields.pop("data")
    basic = base64.b64encode(f"__token__:{token}".encode()).decode()
    return world.client.post(
        "/legacy/", data=form(name, data, **fields), headers={"Authorization": f"Basic {basic}"}
    )


def attested(run: Any) -> str:
    return json.dumps([publish(WHEEL, wheel(), run).to_dict()])


def entries(world: JobWorld) -> list[bytes]:
    """Every leaf that is public."""
    published = Published(world.public, world.clock)
    return [published.entry(index) for index in range(world.published_size())]


def newest(world: JobWorld) -> Entry:
    return Entry.parse(entries(world)[-1])


# --- what a job gets --------------------------------------------------------------------------------------
def test_a_job_enrols_a_key_and_publishes_without_a_stored_secret(world: JobWorld) -> None:
    """One token of the CI system gives a one-run key and an upload; the entries name the job in clear."""
    ada = world.trusted()
    assert world.client.get("/_/oidc/audience").get_json() == {"audience": ORIGIN}
    run = one_run()
    answer = world.enrol_job(world.job(), world.enrolment("demo", run))
    assert answer.status_code == 200, answer.get_json()
    made = answer.get_json()
    assert (
        made["projects"] == ["demo"] and made["token"].startswith("cmj_") and made["enrolments"][0]["proof"]
    )
    assert upload(world, made["token"], attestations=attested(run)).status_code == 200
    entry = newest(world)
    assert entry.type == "publish" and entry.registry["uploader"] == ada.account
    assert entry.registry["key_index"] == made["enrolments"][0]["index"]
    identity = entry.registry["identity"]
    (trusts,) = world.client.get("/api/v1/projects/demo").get_json()["publishers"]
    page = " ".join(signed_in(world, ada.login).get("/me/projects/demo").get_data(as_text=True).split())
    assert "acme/widgets (4711)" in page and f'<td><a href="/e/{trusts["index"]}">' in page
    assert (identity["repository"], identity["repository_id"]) == ("acme/widgets", "4711")
    assert (identity["workflow"], identity["ref"], identity["run"]) == (
        "release.yml",
        "refs/tags/v1.0",
        "9001",
    )


def test_persons_are_salted_digests(world: JobWorld) -> None:
    """Who started the job stands nowhere in clear, not even hashed the same way twice."""
    world.trusted()
    for run in (one_run(), one_run()):
        assert world.enrol_job(world.job(), world.enrolment("demo", run)).status_code == 200
    leaves = [Entry.parse(raw) for raw in entries(world)]
    actors = [leaf.registry["identity"]["actor"] for leaf in leaves if leaf.registry.get("identity")]
    assert len(set(actors)) == 2 and all(len(actor) == 64 for actor in actors)
    assert b'"ada"' not in b"".join(entries(world))


def test_the_minted_token_uploads_and_does_nothing_else(world: JobWorld) -> None:
    """To the project that trusts the job, for fifteen minutes; no key, no other project, no session's work."""
    ada = world.trusted()
    assert ada.enrol("other").status_code == 200
    made = world.mint(world.job()).get_json()
    assert made["success"] is True and made["expires"] == int(world.clock()) + 900
    token, key = made["token"], one_run()
    refused(ada.enrol("demo", ada.key, key=key, token=token), "session-required")
    refused(upload(world, token, "other-1.0-py3-none-any.whl", data=wheel("other")), "token-scope")
    bearer = {"Authorization": f"Bearer {token}"}
    refused(world.client.post("/api/v1/tokens", json={"name": "x"}, headers=bearer), "session-required")
    early = {"envelope": publish(WHEEL, wheel(), ada.key).to_dict()}
    refused(world.client.post("/api/v1/statements", json=early, headers=bearer), "token-scope")
    assert upload(world, token, attestations=ada.attest(WHEEL, wheel())).status_code == 200
    world.clock.now += 901
    refused(upload(world, token), "not-authenticated")


def test_an_upload_without_signature_is_refused_where_the_project_signs(world: JobWorld) -> None:
    """A job's token is no signature."""
    world.trusted()
    refused(upload(world, world.mint(world.job()).get_json()["token"]), "signature-missing")


def test_a_burned_token_is_worth_nothing(world: JobWorld) -> None:
    """At once; burning twice, or what is no token, is fine; no other kind of token burns."""
    ada = world.trusted()
    token = world.mint(world.job()).get_json()["token"]
    for each in (token, token, "cmj_nothing", ada.token):
        assert world.client.post("/_/oidc/burn-token", json={"token": each}).status_code == 200
    refused(upload(world, token), "not-authenticated")
    assert upload(world, ada.token, attestations=ada.attest(WHEEL, wheel())).status_code == 200


def test_a_job_of_several_projects_gets_one_token(world: JobWorld) -> None:
    """A repository that builds two projects, trusted by different people, uploads each in the right name."""
    world.trusted()
    bob = world.person("bob")
    assert bob.enrol("second").status_code == 200
    assert world.say(bob, "second").status_code == 200
    runs = {"demo": one_run(), "second": one_run()}
    made = world.enrol_job(
        world.job(), *(world.enrolment(name, run) for name, run in runs.items())
    ).get_json()
    assert made["projects"] == ["demo", "second"] and len(made["enrolments"]) == 2
    name, data = "second-1.0-py3-none-any.whl", wheel("second")
    said = json.dumps([publish(name, data, runs["second"]).to_dict()])
    assert upload(world, made["token"], name, data=data, attestations=said).status_code == 200
    assert newest(world).registry["uploader"] == bob.account


# --- what a job does not get ------------------------------------------------------------------------------
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pull request": ("job-pull-request", "pull request", {"ref": "refs/pull/7/merge", "event_name": "push"}),
    "pull_request_target": ("job-pull-request", "pull request", {"event_name": "pull_request_target"}),
    "fork": ("job-unknown-publisher", "a fork", {
        "repository": "mallory/widgets", "repository_id": "666",
        "job_workflow_ref": "mallory/widgets/.github/workflows/release.yml@refs/tags/v1.0",
    }),
    "foreign workflow": ("job-fork", "another repository", {
        "job_workflow_ref": "mallory/tools/.github/workflows/release.yml@refs/heads/main",
    }),
    "renamed": ("job-renamed", "its repository is 'acme/gadgets'", {
        "repository": "acme/gadgets",
        "job_workflow_ref": "acme/gadgets/.github/workflows/release.yml@refs/tags/v1.0",
    }),
    "name taken over": ("job-renamed", "its repository_id is '4712'", {"repository_id": "4712"}),
    "other workflow": ("job-unknown-publisher", "nightly.yml", {
        "job_workflow_ref": "acme/widgets/.github/workflows/nightly.yml@refs/tags/v1.0",
    }),
    "other ref": ("job-unknown-publisher", "refs/heads/main", {"ref": "refs/heads/main"}),
    "odd ref": ("job-token-invalid", "no branch or tag", {"ref": "refs/heads/a b"}),
    "wrong audience": ("job-audience", ORIGIN, {"aud": "pypi"}),
    "two audiences": ("job-audience", ORIGIN, {"aud": [ORIGIN, "pypi"]}),
    "no audience": ("job-audience", ORIGIN, {"aud": None}),
    "expired": ("job-token-expired", "exp", {"exp": 1_700_000_000}),
    "no exp": ("job-token-expired", "exp", {"exp": None}),
    "not yet": ("job-token-expired", "nbf", {"nbf": 4_000_000_000}),
    "from the future": ("job-token-expired", "iat", {"iat": 4_000_000_000}),
    "other issuer": ("job-token-invalid", "known are", {"iss": "https://token.actions.githubusercontent.com"}),
    "no repository": ("job-token-invalid", "its repository", {"repository": None}),
    "odd commit": ("job-token-invalid", "no entry can hold", {"sha": "ada@example.com"}),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_each_refusal_has_its_own_words(steady: JobWorld, why: str) -> None:
    """By both doors, with what upload tools print, and nothing is left behind."""
    code, words, changes = REFUSED[why]
    before = steady.state()
    for answer in (
        steady.mint(steady.job(**changes)),
        steady.enrol_job(steady.job(**changes), steady.enrolment("demo", one_run())),
    ):
        body = answer.get_json()
        assert (answer.status_code, body["code"]) == (422, code), body
        assert words in body["detail"], body
        assert (
            body["success"] is False
            and body["errors"][0]["code"] == code
            and "/h/" in body["errors"][0]["description"]
        )
    assert steady.state() == before


def test_clocks_may_differ_by_a_minute_and_no_more(steady: JobWorld) -> None:
    """A token that ended or begins a moment ago or hence is taken; at the sixty-first second it is not."""
    now = int(steady.clock())
    for early, late in (({"nbf": now + 59}, {"nbf": now + 62}), ({"exp": now - 58}, {"exp": now - 61})):
        assert steady.mint(steady.job(**early)).status_code == 200
        refused(steady.mint(steady.job(**late)), "job-token-expired")


def forged(world: JobWorld) -> dict[str, Callable[[], str]]:
    """Tokens whose signature is not the issuer's."""
    issuer = world.issuer
    claims = issuer.github(ORIGIN, world.clock())
    public = issuer.keys["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    def by_hand(header: dict[str, Any], signature: bytes) -> str:
        return f"{part(header)}.{part(claims)}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def hs256() -> str:
        import hmac

        head = f"{part({'alg': 'HS256', 'kid': 'k1'})}.{part(claims)}"
        mac = hmac.digest(public, head.encode(), "sha256")
        return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    return {
        "alg none": lambda: by_hand({"alg": "none", "kid": "k1"}, b""),
        "HS256 by the public key": hs256,
        "unknown kid": lambda: issuer.sign(claims, kid="k9", key=rsa.generate_private_key(65537, 2048)),
        "no kid": lambda: by_hand({"alg": "RS256"}, b"x" * 256),
        "another's key": lambda: issuer.sign(claims, kid="k1", key=rsa.generate_private_key(65537, 2048)),
        "empty signature": lambda: by_hand({"alg": "RS256", "kid": "k1"}, b""),
        "changed claims": lambda: ".".join(
            (
                issuer.sign(claims).split(".")[0],
                part({**claims, "ref": "refs/tags/v2"}),
                issuer.sign(claims).split(".")[2],
            )
        ),
        "no JWT": lambda: "cmj_not.a-jwt",
    }


@pytest.mark.parametrize(
    "lie",
    [
        "alg none",
        "HS256 by the public key",
        "unknown kid",
        "no kid",
        "another's key",
        "empty signature",
        "changed claims",
        "no JWT",
    ],
)
def test_what_the_issuer_did_not_sign_is_refused(steady: JobWorld, lie: str) -> None:
    """No algorithm, a secret that everybody knows, a key nobody has heard of."""
    before = steady.state()
    answer = steady.mint(forged(steady)[lie]())
    refused(answer, "job-token-invalid")
    assert steady.state() == before


def test_a_token_is_good_once_whichever_worker_it_comes_by(world: JobWorld) -> None:
    """A unique row: two web processes share nothing else. A refusal before that uses nothing up."""
    world.trusted()
    other, token = world.another_worker().test_client(), world.job()
    assert world.mint(token).status_code == 200
    for client in (world.client, other):
        refused(world.mint(token, client), "job-token-reused")
    refused(world.enrol_job(token, world.enrolment("demo", one_run())), "job-token-reused")
    same = world.issuer.github(ORIGIN, world.clock(), jti="the same")
    assert world.mint(world.issuer.sign(same), other).status_code == 200
    refused(world.mint(world.issuer.sign({**same, "sha": "cd" * 20})), "job-token-reused")


def test_a_token_is_used_by_what_it_brings_or_not_at_all(
    world: JobWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for the enrolment, or an end before the commit: no row is left, and the same token is good again."""
    world.trusted()
    token, run = world.job(), one_run()
    asked = world.enrolment("demo", run)
    full = replace(world.settings, entries=replace(world.settings.entries, queue_max=0))
    registry = world.roles["registry"]
    worker = create_app(full, clock=world.clock, engine=world.engine, registry=registry).test_client()
    before = world.state()
    body = {"token": token, "envelopes": [asked.to_dict()]}
    refused(worker.post("/_/oidc/enrol-keys", json=body), "busy")
    assert world.state() == before
    propose_all = proposal.propose_all

    def killed(*given: Any, **more: Any) -> list[int]:
        propose_all(*given, **more)
        raise KeyboardInterrupt  # everything is written, nothing committed

    with monkeypatch.context() as patched:
        patched.setattr(proposal, "propose_all", killed)
        with pytest.raises(KeyboardInterrupt):
            world.enrol_job(token, asked)
    assert world.state() == before
    assert world.enrol_job(token, asked).status_code == 200
    refused(world.mint(token), "job-token-reused")


def test_a_token_without_a_number_is_known_by_what_was_signed(world: JobWorld) -> None:
    """Some issuers write no jti."""
    world.trusted()
    token = world.job(jti=None)
    assert world.mint(token).status_code == 200
    refused(world.mint(token), "job-token-reused")


def test_a_key_rotated_mid_flight(world: JobWorld, issuer: JobIssuer) -> None:
    """The new key is fetched when its first token comes; the withdrawn one is worth nothing five minutes later."""
    world.trusted()
    assert world.mint(world.job()).status_code == 200
    old_key, old_kid = issuer.keys[list(issuer.keys)[-1]], list(issuer.keys)[-1]
    world.clock.now += 61
    issuer.rotate("after")
    assert world.mint(world.job()).status_code == 200
    late = issuer.sign(issuer.github(ORIGIN, world.clock()), kid=old_kid, key=old_key)
    refused(world.mint(late), "job-token-invalid")
    held = issuer.keys["after"]
    issuer.rotate("k1")
    world.clock.now += 301
    stolen = issuer.sign(issuer.github(ORIGIN, world.clock()), kid="after", key=held)
    refused(world.mint(stolen), "job-token-invalid")
    assert world.mint(world.job()).status_code == 200


def test_keys_of_kinds_that_nobody_knows_yet_are_passed_over(
    world: JobWorld, issuer: JobIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer may announce keys of tomorrow beside today's; what is no list of keys makes nobody's token good."""
    world.trusted()
    keys = issuer.jwks()["keys"]
    strange = [{"kty": "AKP", "alg": "ML-DSA-44", "kid": "new", "pub": "AA"}, {"kty": "RSA"}, {}, 7, None]
    for wrong in ({}, {"keys": None}, {"keys": {"k1": 7}}, {"keys": strange}):
        monkeypatch.setattr(issuer, "jwks", lambda wrong=wrong: wrong)
        refused(world.mint(world.job(), world.another_worker().test_client()), "job-token-invalid")
    monkeypatch.setattr(issuer, "jwks", lambda: {"keys": [*strange, *keys]})
    assert world.mint(world.job(), world.another_worker().test_client()).status_code == 200


def test_an_issuer_that_is_down_vouches_for_nobody(
    tmp_path: Path, world: JobWorld, issuer: JobIssuer
) -> None:
    """503, so that the job tries again; nothing is believed meanwhile, and nothing used up."""
    world.trusted()
    token, fresh = world.job(), world.another_worker().test_client()
    issuer.down = True
    refused(world.mint(token, fresh), "unavailable")
    issuer.down = False
    assert world.mint(token, fresh).status_code == 200


def test_tokens_of_strangers_ask_a_silent_issuer_now_and_then(world: JobWorld, issuer: JobIssuer) -> None:
    """Each question waits for an answer and all others wait behind it; whom the known keys prove waits for nobody."""
    world.trusted()
    worker = world.another_worker().test_client()
    assert world.mint(world.job(), worker).status_code == 200
    issuer.rotate("later", keep=True)
    unknown, known = world.job(), next(iter(issuer.keys))
    world.clock.now += 61
    issuer.down = True
    asked = len(issuer.asked)
    for _ in range(3):
        refused(world.mint(unknown, worker), "unavailable")
        proved = issuer.sign(issuer.github(ORIGIN, world.clock()), kid=known)
        assert world.mint(proved, worker).status_code == 200
    silent = len(issuer.asked) - asked
    issuer.down = False
    refused(world.mint(unknown, worker), "unavailable")
    world.clock.now += 10
    assert world.mint(unknown, worker).status_code == 200
    assert silent <= 1


def test_trust_that_ended_ends_tokens(world: JobWorld) -> None:
    """A token minted a moment before uploads nothing any more."""
    ada = world.trusted()
    token = world.mint(world.job()).get_json()["token"]
    done = world.say(ada, "demo", action="remove")
    assert done.status_code == 200, done.get_json()
    refused(upload(world, token, attestations=ada.attest(WHEEL, wheel())), "job-unknown-publisher")
    refused(world.mint(world.job()), "job-unknown-publisher")


def test_only_an_owner_with_a_session_and_a_key_trusts(world: JobWorld) -> None:
    """No upload token, no job's token, no stranger's key."""
    ada = world.trusted()
    before = world.state()
    mallory = world.person("mallory")
    refused(world.say(mallory, "demo", key=ada.key, workflow="x.yml"), "not-owner")
    refused(world.say(ada, "demo", key=mallory.key, workflow="x.yml"), "key-unknown")
    after = world.state()
    for rows in (before["rows"], after["rows"]):
        for table in ("account", "token"):  # mallory's own
            rows.pop(table)
    assert after == before


@pytest.mark.parametrize(
    "changes",
    [{"scope": "project", "valid_for": None}, {"namespace": "corp"}, {"prev": "00" * 32}, {"valid_for": 901}],
)
def test_what_a_job_cannot_enrol(world: JobWorld, changes: dict[str, Any]) -> None:
    """A key that stays, another project's, one under another trust, one that lives longer. The token stays good."""
    world.trusted()
    before, token = world.state(), world.job()
    answer = world.enrol_job(token, world.enrolment("demo", one_run(), **changes))
    assert answer.status_code in (400, 422), answer.get_json()
    assert world.state() == before
    assert world.enrol_job(token, world.enrolment("demo", one_run())).status_code == 200


def test_a_registry_without_issuers_says_so(world: JobWorld) -> None:
    """And settings that name no issuer are refused at the start."""
    import dataclasses

    plain = dataclasses.replace(world.settings, ci=Ci())
    client = create_app(
        plain, clock=world.clock, engine=world.engine, registry=world.roles["registry"]
    ).test_client()
    refused(client.get("/_/oidc/audience"), "not-found")
    refused(client.post("/_/oidc/mint-token", json={"token": world.job()}), "not-found")
    for ci in (
        Ci(issuers="jenkins=https://ci.example"),
        Ci(issuers="gitlab=http://ci.example"),
        Ci(issuers="circleci"),
        Ci(issuers="github", claims="who=sub"),
    ):
        with pytest.raises(SettingsError):
            create_app(
                dataclasses.replace(world.settings, ci=ci),
                engine=world.engine,
                registry=world.roles["registry"],
            )
    with db.read(world.engine) as connection:
        assert connection.execute(db.job_token.select()).all() == []
