"""`countermark login` with a browser: a real registry, a real identity provider, a person who compares a code."""

from __future__ import annotations

import http.cookiejar
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.idp import Idp, running
from tests.world.world import BIN, World, free_port, fresh


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    with running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, idp: Idp) -> Iterator[World]:
    secret, port = tmp_path / "client-secret", free_port()
    secret.write_text("a secret of this registry", "utf-8")
    settings = {
        "COUNTERMARK_TUF_MIN_INTERVAL": "0.2",
        "COUNTERMARK_OIDC_ISSUER": idp.issuer,
        "COUNTERMARK_OIDC_CLIENT_ID": "registry",
        "COUNTERMARK_OIDC_CLIENT_SECRET_FILE": str(secret),
        "COUNTERMARK_OIDC_GROUPS": "publishers",
    }
    with fresh(tmp_path / "world", settings=settings, port=port) as world:
        world.up("--trial")
        yield world


def test_a_first_release_by_somebody_who_signs_in_with_a_browser(world: World, idp: Idp) -> None:
    """No code from an operator: a link, the provider's page, a button; then `publish`, and it is listed as signed."""
    words = world.words(world.data / "ceremony")
    login = subprocess.Popen(
        [BIN / "countermark", "login", world.url, "--root-words", words],
        env=world.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert login.stderr is not None
    for line in login.stderr:
        if found := re.search(r"open (\S+) and compare the code ([A-Z2-7]{4}-[A-Z2-7]{4})", line):
            break
    else:
        raise AssertionError(login.communicate())
    url, code = found.groups()
    page = through_the_browser(url, code, idp)
    assert "signed in as ada@example.com" in page
    out, err = login.communicate(timeout=60)
    assert login.returncode == 0 and "as ada@example.com" in out, err
    dist = world.project("by-browser")
    done = world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    assert done.out.count("verified") == 2, done.said


def through_the_browser(url: str, code: str, idp: Idp) -> str:
    """What a person does with the link; the last page."""
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), NoFurther()
    )
    sent = browser.open(url, timeout=20)
    assert sent.status == 303
    back = idp.sign_in(sent.headers["Location"], "ada")
    registry = url.partition("/login/")[0]
    page = browser.open(f"{registry}/login/callback?{urllib.parse.urlencode(back)}", timeout=20)
    assert code in page.read().decode()
    form = urllib.parse.urlencode({"code": code}).encode()
    said: str = browser.open(f"{registry}/login/device", data=form, timeout=20).read().decode()
    return said


class NoFurther(urllib.request.HTTPErrorProcessor):
    """A browser that shows where it is sent, and stays."""

    def http_response(self, request: object, response: object) -> object:
        return response
