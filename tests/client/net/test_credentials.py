"""credentials.py: bound to one origin, kept by `login`, never printed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark import session
from countermark.credentials import CERTIFICATES, TOKENS, Credentials, kept_with, load, origin
from countermark.errors import NetworkError, UsageError
from countermark.fetch import HttpFetcher
from countermark.pins import Home
from countermark.serving import Request, Response, listening
from countermark.session import Session
from tests.simulator import World

TOKEN = "cmu_" + "A" * 43


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://registry.example/simple/", True),
        ("https://REGISTRY.example:443", True),
        ("https://registry.example.:443", True),
        ("http://registry.example", False),
        ("https://registry.example:8443", False),
        ("https://registry.example.evil.example", False),
        ("https://registry.example@evil.example/", False),
        ("https://evil.example/?https://registry.example", False),
        ("https://registry.example:99999", False),
        ("ftp://registry.example", False),
    ],
)
def test_a_token_goes_to_its_origin_alone(url: str, same: bool) -> None:
    """Scheme, host and port, compared whole."""
    found = load({TOKENS: f"https://registry.example={TOKEN}"})
    assert found.headers(url) == ({"Authorization": f"Bearer {TOKEN}"} if same else {})


@pytest.mark.parametrize(
    "text", [TOKEN, f"={TOKEN}", f"registry.example={TOKEN}", f"https://registry.example/path={TOKEN}",
             f"https://u:p@registry.example={TOKEN}", "https://registry.example="]
)  # fmt: skip
def test_what_is_not_bound_is_refused_and_not_printed(text: str) -> None:
    """A token without a registry would be for everybody."""
    for variable in (TOKENS, CERTIFICATES):
        with pytest.raises(UsageError, match=variable) as raised:
            load({variable: text})
        assert TOKEN not in f"{raised.value} {raised.value.hint}"


def test_what_login_kept_and_the_environment_wins(tmp_path: Path) -> None:
    """One file for all registries; a later token replaces the earlier one of its registry alone."""
    for url, token in (
        ("https://a.example", "cmu_1"),
        ("https://b.example:444", "cmu_2"),
        ("https://a.example/", "cmu_3"),
    ):
        (tmp_path / "credentials.json").write_bytes(kept_with(tmp_path, url, token))
    assert json.loads((tmp_path / "credentials.json").read_bytes()) == {
        "https://a.example:443": "cmu_3", "https://b.example:444": "cmu_2",
    }  # fmt: skip
    found = load({TOKENS: f"https://b.example:444={TOKEN}"}, tmp_path)
    assert found.headers("https://a.example/x") == {"Authorization": "Bearer cmu_3"}
    assert found.headers("https://b.example:444/x") == {"Authorization": f"Bearer {TOKEN}"}
    (tmp_path / "credentials.json").write_text("[]")
    with pytest.raises(UsageError, match="does not hold"):
        load({}, tmp_path)


def test_sign_ins_at_several_registries_at_once_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two terminals, one file: neither writes over what the other has read meanwhile."""
    root, kept, written = World().root, kept_with, Session("ada", "ada@example.test", "cms_1", 1, "cmu_1")
    registries = [Home(tmp_path).add(f"https://{name}.example", root) for name in "abcd"]

    def slow(home: Path, url: str, token: str) -> bytes:
        found = kept(home, url, token)
        time.sleep(0.02)  # in which the others read, if they can
        return found

    monkeypatch.setattr(session, "kept_with", slow)
    threads = [threading.Thread(target=written.save, args=[registry]) for registry in registries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = load({}, tmp_path)
    for registry in registries:
        assert found.headers(registry.url) == {"Authorization": "Bearer cmu_1"}, registry.url


class Guarded:
    """A server that asks who comes, and remembers what it was shown."""

    def __init__(self, location: str | None = None) -> None:
        self.shown: list[str | None] = []
        self.location = location
        self.status = 401

    def __call__(self, request: Request) -> Response:
        self.shown.append(request.headers.get("authorization"))
        if self.location is not None and self.shown[-1] is not None:
            return Response(302, headers={"Location": self.location})
        asks = {"WWW-Authenticate": 'Basic realm="x"'} if self.status == 403 else {}
        return Response(200 if self.shown[-1] else self.status, b"hello", headers=asks)


@pytest.fixture
def two() -> Iterator[tuple[str, Guarded, str, Guarded]]:
    """Two registries on two ports of one host: two origins."""
    engines = Guarded(), Guarded()
    with (
        listening(engines[0], "127.0.0.1", 0, max_body=9) as a,
        listening(engines[1], "127.0.0.1", 0, max_body=9) as b,
    ):
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}) for server in (a, b)
        ]
        for thread in threads:
            thread.start()
        yield a.url, engines[0], b.url, engines[1]
        for server, thread in zip((a, b), threads, strict=True):
            server.shutdown()
            thread.join()


def test_nothing_is_shown_before_it_is_asked_for(two: tuple[str, Guarded, str, Guarded]) -> None:
    """Then at once; to the other origin nothing, although it asks, and not by way of a redirect."""
    url, first, other, second = two
    fetcher = HttpFetcher(credentials=Credentials({origin(url): f"Bearer {TOKEN}"}))
    for _ in range(2):
        assert fetcher.get(f"{url}/x") == b"hello"
    assert first.shown == [None, f"Bearer {TOKEN}", f"Bearer {TOKEN}"]
    assert (
        b"".join(
            HttpFetcher(credentials=Credentials({origin(url): f"Bearer {TOKEN}"})).chunks(
                f"{url}/x", max_bytes=9
            )
        )
        == b"hello"
    )
    with pytest.raises(NetworkError, match="401"):
        fetcher.get(f"{other}/x")
    first.location = f"{other}/stolen"
    with pytest.raises(NetworkError, match="redirects to another host"):
        fetcher.get(f"{url}/x")
    assert second.shown == [None]


def test_who_asks_for_a_certificate_takes_a_token_too(two: tuple[str, Guarded, str, Guarded]) -> None:
    """The registry's own processes have one: a 403 that names a way to say who we are is a question like a 401."""
    url, first, _, _ = two
    first.status = 403
    fetcher = HttpFetcher(credentials=Credentials({origin(url): f"Bearer {TOKEN}"}))
    assert fetcher.get(f"{url}/x") == b"hello" and first.shown == [None, f"Bearer {TOKEN}"]


def test_who_says_by_himself_who_he_is_is_left_alone(two: tuple[str, Guarded, str, Guarded]) -> None:
    """An upload or a signed-in request carries its own token."""
    url, first, _, _ = two
    fetcher = HttpFetcher(credentials=Credentials({origin(url): f"Bearer {TOKEN}"}))
    fetcher.get(f"{url}/x", headers={"Authorization": "Bearer cms_own"})
    assert first.shown == ["Bearer cms_own"]
