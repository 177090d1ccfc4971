"""The signed-in pages in a real browser: signing in, projects with their proofs, tokens, organisations."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from countermark.actfile import Act
from countermark_server import db
from countermark_server.accounts import orgapply, orgfile
from countermark_server.app import create_app
from countermark_server.settings import Oidc, Registry
from tests.archives import wheel
from tests.attacks.test_approvals import Team
from tests.browser import Page, chromium
from tests.doors import DoorWorld, Person, form
from tests.idp import Idp, running
from tests.log_world import ORIGIN
from tests.world.world import free_port

FILE = """
[[organisation]]
name = "acme"
owners = ["grace"]
names = ["acme-*"]
[[organisation.team]]
name = "ml"
groups = ["publishers"]
maintains = ["acme-ml-*"]
"""
WHEEL, OTHER = "demo-1.0-py3-none-any.whl", "demo-1.1-py3-none-any.whl"
WAITS, RELEASE = "shared-1.0-py3-none-any.whl", "/me/projects/shared/releases/1.0"


class Shared(Team):
    """Beside all that, `shared` is Ada's, Bob's and Cy's, and two of them must approve a release."""

    name = "shared"


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, idp: Idp) -> Iterator[DoorWorld]:
    """A registry over HTTP with that provider, Grace's signed project in it, and a release that waits for two."""
    made = Shared(tmp_path_factory.mktemp("registry"), now=int(time.time()))
    port, secret = free_port(), made.settings.data / "client-secret"
    secret.write_text("a secret of this registry", "utf-8")
    made.settings = replace(
        made.settings,
        registry=Registry(origin=ORIGIN, base_url=f"http://127.0.0.1:{port}"),
        oidc=Oidc(
            issuer=idp.issuer, client_id="registry", client_secret_file=str(secret), groups="publishers"
        ),
    )
    made.settings.keys.mkdir(parents=True, exist_ok=True)
    made.app = create_app(
        made.settings, clock=made.clock, engine=made.engine, registry=made.roles["registry"]
    )
    made.client = made.app.test_client()
    server = make_server("127.0.0.1", port, made.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with made.run():
        grace = made.grace = made.person("grace")  # type: ignore[attr-defined]
        assert grace.enrol("demo").status_code == 200
        for name, version in ((WHEEL, "1.0"), (OTHER, "1.1")):
            data = wheel("demo", version)
            assert grace.upload(name, data, attestations=grace.attest(name, data)).status_code == 200
        made.decide("yank", OTHER, reason="broken")
        made.begin()
        data = wheel("shared")
        assert made.upload(made.ada, WAITS, data).status_code == 200
        made.passed(WAITS)
        with db.write(made.engine) as connection:
            orgapply.apply(connection, orgfile.parse(FILE), now=int(made.clock()))
        yield made
    server.shutdown()
    thread.join()
    server.server_close()
    made.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The browser with nothing in it, and without complaints afterwards."""
    browser.call("Network.clearBrowserCookies")
    browser.problems.clear()
    yield browser
    assert browser.problems == []


def at(world: DoorWorld, path: str) -> str:
    return world.settings.registry.base_url + path


def sign_in(world: DoorWorld, page: Page, login: str, path: str = "/me") -> None:
    """Open a page, be asked who one is, and type a one-time code."""
    page.goto(at(world, path))
    assert page.url == at(world, f"/sign-in?next={path}")
    page.fill("#code", world.login_code(login))
    page.click("main form button")
    assert page.url == at(world, path)


def grace_of(world: DoorWorld) -> Person:
    found: Person = world.grace  # type: ignore[attr-defined]
    return found


def test_a_person_sees_what_is_theirs_and_which_entries_say_so(world: DoorWorld, page: Page) -> None:
    """Project, releases, standing, the chain of keys; every entry that is named can be opened, with its proof."""
    sign_in(world, page, "grace")
    assert any(link.startswith("/e/") for link in page.links())  # the key by which the project signs
    page.click("main table a")
    assert page.url == at(world, "/me/projects/demo")
    said = page.text
    assert WHEEL in said and "Releases must be signed" in said and "unchained, first seen at entry" in said
    entries = sorted(link for link in page.links() if link.startswith("/e/"))
    assert len(entries) == 4  # an enrolment, two files, and what yanked one of them
    assert "yanked, by entry" in " ".join(said.split())
    file = world.client.get(f"/api/v1/files/demo/{WHEEL}").get_json()
    page.goto(at(world, f"/e/{file['index']}"))
    assert "publish" in page.text and file["leaf_hash"] in page.text and WHEEL in page.text
    assert file["proof"].splitlines()[-1] in page.text
    for entry in entries:
        page.goto(at(world, entry))
        assert grace_of(world).key.keyid in page.text or "broken" in page.text
    page.goto(at(world, "/me/organisations/acme"))
    assert "acme-*" in page.text and "acme-ml-*" in page.text


def test_a_release_is_approved_by_what_a_key_signed(world: Shared, page: Page, tmp_path: Path) -> None:
    """From the list to what is new in it; the form takes the file, and the page links to the vote's entry."""
    approval = tmp_path / "approval.act"
    sign_in(world, page, "bob", "/me/approvals")
    page.click("main table a")
    assert page.url == at(world, RELEASE)
    said = " ".join(page.text.split())
    assert f"+ {WAITS}" in said and "waiting for approval 1 of 2" in said and "Nobody yet" in said
    assert "countermark approve shared 1.0" in said
    (published,) = {link for link in page.links() if link.startswith("/e/")}
    for key in (world.ada.key, world.bob.key):  # Ada's signature is none of Bob's
        approval.write_bytes(Act.begin(at(world, ""), world.approval(), key).format())
        page.choose("#act", approval)
        page.click("main form button")
        if key is world.ada.key:
            assert "refuse this entry" in page.text and world.waits()["approvals"]["approved"] == []
            page.problems[:] = [each for each in page.problems if "400" not in each]
            page.goto(at(world, RELEASE))
    assert page.url == at(world, "/me/projects/shared") and "Approved by bob" in page.text
    page.goto(at(world, RELEASE))
    assert "bob: approve" in page.text and "waiting for approval 2 of 2" in page.text
    (vote,) = {link for link in page.links() if link.startswith("/e/")} - {published}
    page.goto(at(world, vote))
    assert "approve" in page.text and world.bob.key.keyid in page.text


def test_a_token_is_made_shown_once_used_and_revoked(world: DoorWorld, page: Page) -> None:
    """With a keyboard alone, from the form to the secret; the token uploads, until the button says no more."""
    sign_in(world, page, "grace", "/me/tokens")
    page.fill("#name", "laptop")
    page.fill("#projects", "demo")
    for _ in range(20):  # on through the form
        page.key("Tab")
        if page.js("document.activeElement.innerText") == "Make it":
            break
    page.press_to_leave("Enter")
    secret = page.js("document.querySelector('#secret').innerText")
    assert secret.startswith("cmu_")
    headers = {"Authorization": f"Bearer {secret}"}
    name, data = "demo-1.2-py3-none-any.whl", wheel("demo", "1.2")
    sent = form(name, data, attestations=grace_of(world).attest(name, data))
    assert world.client.post("/legacy/", data=sent, headers=headers).status_code == 200
    page.goto(at(world, "/me/tokens"))
    assert secret not in page.text and "laptop" in page.text and "never used" not in page.text
    page.click('button[aria-label="Revoke token laptop"]')
    assert "revoked" in page.text
    sent = form("demo-1.3-py3-none-any.whl", wheel("demo", "1.3"))
    assert world.client.post("/legacy/", data=sent, headers=headers).status_code == 401


def test_a_browser_left_open_makes_no_token(world: DoorWorld, page: Page) -> None:
    """After ten minutes the form is not there, and is not taken; a sign-in brings it back."""
    sign_in(world, page, "grace", "/me/tokens")
    world.clock.now += 601
    try:
        csrf = page.js("document.querySelector('[name=csrf]').value")
        page.goto(at(world, "/me/tokens"))
        assert page.js("document.querySelector('#name')") is None and "Sign in again" in page.text
        post = f"{{method: 'POST', body: new URLSearchParams({{name: 'late', csrf: '{csrf}'}})}}"
        sent = page.js(f"fetch('/me/tokens', {post}).then(r => r.url, e => 'refused')")
        assert sent == "refused"  # pages may not fetch at all: the policy says so
        page.problems.clear()
    finally:
        world.clock.now -= 601


def test_somebody_of_the_provider_signs_in_and_out(world: DoorWorld, idp: Idp, page: Page) -> None:
    """To the provider and back to the page that was asked for; its groups make them of a team; signed out is out."""
    page.goto(at(world, "/me/organisations/acme"))
    page.click("main a.button")
    assert page.url.startswith(idp.issuer) and "prompt=login" in page.url
    page.fill("[name=sub]", "ada")
    page.click("button, input[type=submit]")
    assert page.url == at(world, "/me/organisations/acme") and "ada@example.com" in page.text
    page.click("header form button")
    assert page.url == at(world, "/")
    page.goto(at(world, "/me"))
    assert page.url == at(world, "/sign-in?next=/me")
    page.goto(at(world, "/login/callback?state=of-nobody&code=made-up"))
    assert "Sign-in refused" in page.text and "not begun in this browser" in page.text
    page.problems.clear()  # what the provider's own page does is its own business; the refusal is a 401


def test_nothing_keeps_people_out_of_these_pages(world: DoorWorld, page: Page) -> None:
    """axe-core finds no barrier on any page, in light and in dark; each has one h1, a language and a title."""
    open_pages = ["/", "/h/", "/sign-in", "/nothing"]
    mine = [
        "/me",
        "/me/projects/demo",
        "/me/tokens",
        "/me/organisations/acme",
        "/me/projects/nobodys",
        "/e/5",
    ]
    for path in open_pages:
        look(world, page, path)
    sign_in(world, page, "grace")
    for path in mine:
        look(world, page, path)
    page.call("Network.clearBrowserCookies")
    sign_in(world, page, "cy", RELEASE)
    for path in ("/me/approvals", RELEASE, "/me/projects/shared"):
        look(world, page, path)
    page.problems[:] = [
        each for each in page.problems if "403" not in each and "/nothing" not in each
    ]  # a refusal is a page, too


def look(world: DoorWorld, page: Page, path: str) -> None:
    page.goto(at(world, path))
    for on in (False, True):
        page.dark(on=on)
        assert page.barriers(of_colour=on) == [], path
    page.dark(on=False)
    assert page.js("document.querySelectorAll('h1').length") == 1, path
    assert page.js("document.scripts.length") == 0 and page.js("document.documentElement.lang") == "en"
    for pixels in (400, 0):
        page.wide(pixels)
        assert page.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
