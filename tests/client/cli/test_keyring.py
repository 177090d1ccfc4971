"""Where a sign-in's secrets go: the keyring where there is one, else a file, and in words either way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from countermark import session
from countermark.credentials import load
from countermark.disk import replace_file
from countermark.errors import UsageError
from countermark.pins import Home
from countermark.secretstore import find_keyring
from countermark.session import Session
from countermark.values import replace
from tests.client.cli.test_commands import LOGIN_CODE, Shell, shell, wheel, world  # noqa: F401  (fixtures)


class Chain(KeyringBackend):
    """A keyring in memory; `broken` says how it fails."""

    priority = 5.0  # type: ignore[assignment]
    name = "Test Keyring"

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.broken = ""

    def get_password(self, service: str, username: str) -> str | None:
        if self.broken == "locked":
            raise RuntimeError("locked")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.broken == "refuses":
            raise RuntimeError("refused")
        if self.broken != "forgets":
            self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture
def chain() -> Iterator[Chain]:
    made = Chain()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(NoKeyring())


def login(shell: Shell, *more: str, expect: int = 0) -> str:  # noqa: F811
    shell.run(
        "login", shell.world.base, "--root-words", shell.words, "--code", LOGIN_CODE, *more, expect=expect
    )
    return shell.err


def session_file(shell: Shell) -> str:  # noqa: F811
    path = Home().registry(shell.world.base).folder / "session.json"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text("utf-8")


def test_secrets_go_into_the_keyring_and_come_back(shell: Shell, chain: Chain) -> None:  # noqa: F811
    """No file has them; a release is published with them; a second sign-in replaces them."""
    assert "in the keyring of this system (Test Keyring)" in login(shell)
    ((where, held),) = chain.held.items()
    secrets = json.loads(held)
    assert where[0] == f"countermark {shell.world.base}" and set(secrets) == {"session", "upload_token"}
    assert not any(secret in session_file(shell) for secret in secrets.values())
    assert shell.run("token", shell.world.base).strip() == secrets["upload_token"]
    shell.run("publish", "--yes", "--no-passphrase", wheel(shell.folder))


@pytest.mark.parametrize("broken", ["refuses", "forgets", "locked"])
def test_a_keyring_that_fails_is_none(shell: Shell, chain: Chain, broken: str) -> None:  # noqa: F811
    """What it does not give back lies in the file instead, and the user is told why."""
    chain.broken = broken
    said = login(shell)
    assert "for your eyes alone; no keyring: the keyring (Test Keyring)" in said and "session.json" in said
    assert "upload_token" in session_file(shell)
    assert shell.run("token", shell.world.base).strip() in session_file(shell)


def test_a_locked_keyring_is_named(shell: Shell, chain: Chain) -> None:  # noqa: F811
    """Later commands do not act as nobody: they say what is missing, and how to go on without it."""
    login(shell)
    chain.broken = "locked"
    shell.run("token", shell.world.base, expect=2)
    assert "Test Keyring has none, or is locked" in shell.err and "--tokens file" in shell.err
    chain.broken = ""
    assert "a file was asked for" in login(shell, "--tokens", "file")
    assert chain.held == {} and "upload_token" in session_file(shell)


def test_without_a_keyring_it_is_the_file_unless_only_the_keyring_will_do(shell: Shell) -> None:  # noqa: F811
    """A system without one, or with one that hides nothing, is said; asked for by name it is an error."""
    keyring.set_keyring(NoKeyring())
    assert "no keyring: this system has none that keeps secrets" in login(shell)
    kept = session_file(shell)
    said = login(shell, "--tokens", "keyring", expect=2)
    assert "no keyring: this system has none" in said and session_file(shell) == kept


@pytest.mark.parametrize("again", ["keyring", "file"])
@pytest.mark.parametrize("step", ["session.json", "credentials.json"])
def test_a_sign_in_that_dies_half_way_leaves_one_that_works_or_says_so(
    shell: Shell,  # noqa: F811
    chain: Chain,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    again: str,
) -> None:
    """Killed at each file: the sign-in before, the new one, or none and a sentence; never half of one."""
    login(shell)
    registry = Home().registry(shell.world.base)
    first = Session.load(registry)
    second = replace(first, session="cms_second", upload_token="cmu_second")

    def killed(path: Path, data: bytes, **more: Any) -> None:
        if path.name == step:
            raise KeyboardInterrupt
        replace_file(path, data, **more)

    with monkeypatch.context() as patched:
        patched.setattr(session, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            second.save(registry, find_keyring(again))
    if step == "session.json" and again == "file":
        with pytest.raises(UsageError, match="are in the keyring, which does not give them"):
            Session.load(registry)
    else:
        assert Session.load(registry) == second
    second.save(registry, find_keyring(again))
    assert Session.load(registry) == second
    assert load({}, registry.folder.parent.parent).headers(registry.url) == {
        "Authorization": "Bearer cmu_second"
    }
