"""nginx in front of a registry that is not for everybody: nothing for who may not read, warm caches or not."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from countermark.credentials import Credentials, origin
from countermark.errors import NetworkError
from countermark.fetch import HttpFetcher
from countermark_server.settings import Access
from tests.archives import wheel
from tests.deploy.front import Answer, Front, ask
from tests.deploy.privateca import make_certificate
from tests.doors import DoorWorld
from tests.world.world import free_port

DEMO, OTHER = "demo-1.0-py3-none-any.whl", "other-1.0-py3-none-any.whl"
SECRET = "s" * 43


@dataclass(frozen=True)
class House:
    """The application on one port, nginx on another."""

    world: DoorWorld
    front: Front
    tls: ssl.SSLContext | None = None

    def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            own["Authorization"] = f"Bearer {token}"
        return ask(self.front.port, "GET", path, headers=own, tls=self.tls)

    def token(self, name: str, **scope: object) -> str:
        made = self.world.client.post(
            "/api/v1/tokens",
            json={"name": name, "actions": ["read"], **scope},
            headers={"Authorization": f"Bearer {self.world.person(name).session}"},
        )
        return str(made.get_json()["token"])


@contextmanager
def house(
    folder: Path,
    access: Access,
    certificate: tuple[Path, Path] | None = None,
    clients: Path | None = None,
) -> Iterator[House]:
    """A registry with two listed projects, behind nginx with the shipped files; `clients` vouches for readers."""
    secret = folder / "proxy-secret.conf"
    secret.write_text(f'set $countermark_secret "{SECRET}";\n')
    world = DoorWorld(folder / "registry", access=access)
    with world.run():
        grace = world.person("grace")
        for name, data in ((DEMO, wheel()), (OTHER, wheel("other"))):
            assert grace.upload(name, data).status_code == 200
            world.set_state(name, state="listed")
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    authority = clients or folder / "ca.pem"
    if not authority.exists():
        make_certificate(folder)
    front = Front(
        folder / "nginx", free_port(), world.settings.public, f"127.0.0.1:{server.server_port}", certificate,
        private=(authority, secret),
    )  # fmt: skip
    try:
        with front.running():
            yield House(world, front)
    finally:
        server.shutdown()
        thread.join()
        world.close()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Read with a token; the checkpoint is for everybody."""
    with house(tmp_path_factory.mktemp("token"), Access(mode="token", public_checkpoint=True)) as made:
        yield made


def doors(house: House) -> list[str]:
    """What of the project `demo` can be read: a page, its files, tiles and metadata."""
    size, digest = house.world.published_size(), hashlib.sha256(wheel()).hexdigest()
    return [
        "/simple/demo/", "/pypi/demo/json", "/pypi/demo/1.0/json", f"/packages/demo/{DEMO}",
        f"/packages/demo/{DEMO}.metadata", f"/tuf/targets/files/demo/{digest}.{DEMO}", "/api/v1/files/demo",
        f"/api/v1/files/demo/{DEMO}", "/api/v1/projects/demo", f"/api/v1/logged/{digest}",
        f"/log/tile/0/000.p/{size}", f"/log/tile/entries/000.p/{size}", "/tuf/1.root.json", "/simple/", "/",
    ]  # fmt: skip


def test_a_warm_cache_gives_nothing_to_who_may_not_read(private: House) -> None:
    """One person has just read everything, twice; the next one, with no token or another's, gets none of it."""
    ada, bob = private.token("ada", projects=["demo"]), private.token("bob", projects=["other"])
    uploader = private.token("eve", actions=["upload"])
    for path in doors(private) * 2:
        answer = private.get(path, ada)
        assert answer.status == 200, path
        assert not answer.headers.get("cache-control", "").startswith("public"), path
    digest = hashlib.sha256(wheel()).hexdigest()
    of_demo = [f"/integrity/demo/1.0/{DEMO}/provenance", "/api/v1/releases/demo/1.0"]
    of_all = [f"/blobs/{digest}", "/v1/vulns/CM-1", "/e/0", f"/api/v1/logged/default/demo/{DEMO}"]
    revoked = private.token("mallory")
    gone = {"Authorization": f"Bearer {revoked}"}
    assert (
        private.world.client.post("/api/v1/tokens/revoke", json={"token": revoked}, headers=gone).status_code
        == 200
    )
    for path in of_demo:
        assert private.get(path, bob).status == 403, path
    assert private.get(of_all[0], bob).status == 404  # an artifact is had by its name alone
    for path in (*doors(private), *of_demo, *of_all):
        for token in (None, "cmu_" + "A" * 43, revoked):
            answer = private.get(path, token)
            assert answer.status == 401, (path, answer)
            assert answer.headers["www-authenticate"].startswith("Basic")
            assert "/h/not-authenticated" in answer.reason and "no-store" in answer.headers["cache-control"]
        assert private.get(path, uploader).status == 403, path
    asked = ask(private.front.port, "POST", "/v1/querybatch", body=b'{"queries":[]}')
    assert asked.status == 401
    for path in doors(private):
        answer = private.get(path, bob)
        assert answer.status == (403 if "/demo" in path else 200), path
        if answer.status == 403:
            assert "/h/token-scope" in answer.reason and answer.body != wheel()
    assert private.get("/simple/other/", bob).status == 200 == private.get("/log/checkpoint").status


@pytest.mark.parametrize(
    "path",
    ["/h/../tuf/1.root.json", "/h/%2e%2e/tuf/1.root.json", "/log/checkpoint/../../tuf/1.root.json",
     "/legacy/../tuf/1.root.json", "/h/..%2ftuf/1.root.json", "//tuf/1.root.json", "/tuf/./1.root.json"],
)  # fmt: skip
def test_no_spelling_gets_around_the_question(private: House, path: str) -> None:
    """What nginx resolves to a closed file is judged as closed."""
    assert private.get("/tuf/1.root.json", private.token(f"w{abs(hash(path))}")).status == 200
    answer = private.get(path)
    assert answer.status in (400, 401, 404) and b"signed" not in answer.body, answer


def test_our_own_client_reads_with_its_token_and_shows_it_to_nobody_else(private: House) -> None:
    """Asked for it, it says who it is; a mirror or another registry that asks is told nothing."""
    url, token = f"http://127.0.0.1:{private.front.port}", private.token("nina")
    fetcher = HttpFetcher(credentials=Credentials({origin(url): f"Bearer {token}"}))
    assert fetcher.get(f"{url}/tuf/1.root.json") == private.get("/tuf/1.root.json", token).body
    assert b"".join(fetcher.chunks(f"{url}/packages/demo/{DEMO}", max_bytes=100_000)) == wheel()
    with pytest.raises(NetworkError, match="401"):
        HttpFetcher(credentials=Credentials({origin("http://127.0.0.1:1"): f"Bearer {token}"})).get(
            f"{url}/tuf/1.root.json"
        )


def test_with_no_application_nothing_is_read(tmp_path: Path) -> None:
    """Who could say who may read is away: closed, also what nginx could serve by itself."""
    with house(tmp_path, Access(mode="token")) as made:
        token = made.token("ada")
        assert made.get("/tuf/1.root.json", token).status == 200
    with made.front.running():  # and with the cache it had
        assert made.get("/tuf/1.root.json").status in (401, 503)
        assert made.get("/tuf/1.trust.json", token).status == 503


def test_a_certificate_is_verified_by_nginx_and_by_nobody_else(tmp_path: Path) -> None:
    """With one under the right authority all is read; without, with a foreign one, or with forged words, nothing."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    authority, chain, key = make_certificate(tmp_path)
    (tmp_path / "secret").write_text(SECRET)
    access = Access(mode="mtls", proxy_secret_file=str(tmp_path / "secret"))
    _, foreign_chain, foreign_key = make_certificate(foreign)

    def context(*certificate: Path) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority))
        if certificate:
            made.load_cert_chain(*map(str, certificate))
        return made

    with house(tmp_path, access, (chain, key)) as made:
        member = House(made.world, made.front, context(chain, key))
        stranger, other = (
            House(made.world, made.front, each) for each in (context(), context(foreign_chain, foreign_key))
        )
        for path in doors(made) * 2:
            assert member.get(path).status == 200, path
        forged = {"X_Countermark_Client_Verify": "SUCCESS", "X_Countermark_Proxy": "x" * 43}
        for path in doors(made):
            assert stranger.get(path).status == 403 == stranger.get(path, **forged).status, path
            assert other.get(path).status == 403 == stranger.get(path, token="cmu_" + "A" * 43).status, path
        url = f"https://localhost:{made.front.port}"
        mine = Credentials({}, {origin(url): (str(chain), str(key))})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(authority))
            assert HttpFetcher(credentials=mine).get(f"{url}/tuf/1.root.json")
            with pytest.raises(NetworkError, match="403"):
                HttpFetcher(credentials=Credentials()).get(f"{url}/tuf/1.root.json")
