"""New keys of the registry, made beside those in force: a kill in the middle takes nothing from anybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from countermark.errors import CountermarkError
from countermark_server import signing
from countermark_server.operate import keyring
from countermark_server.settings import Settings


class Killed(BaseException):
    """The process ends here: nobody catches it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine with a key for bins and the log's first set."""
    (tmp_path / "passphrase").write_text("a long random passphrase of this machine\n")
    made = Settings(data=tmp_path)
    for name in ("bins", *signing.log_key_names(1)):
        keyring.make_key(tmp_path, signing.key_path(tmp_path, name), {})
    return made


def kill_at(monkeypatch: pytest.MonkeyPatch, call: str, nth: int) -> None:
    """SIGKILL at the nth of these calls, as far as the disk can tell."""
    real, left = getattr(os, call), [nth]

    def maybe(*arguments: object, **more: object) -> object:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return real(*arguments, **more)

    monkeypatch.setattr(os, call, maybe)


def held(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (settings.data / "keys").iterdir()}


@pytest.mark.parametrize("call", ["open", "fdopen", "fsync"])
def test_a_kill_while_a_key_is_made(settings: Settings, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The keys in force stay; the next try writes over nothing, and what it names is a whole key."""
    before = held(settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, call, 1)
        keyring.make(settings, "bins", {})
    torn = held(settings)
    assert torn.items() >= before.items()
    uri = keyring.make(settings, "bins", {})
    assert held(settings).items() >= torn.items()
    made = settings.data / uri.removeprefix("keyfile:")
    assert made.name not in torn
    assert signing.load_key(settings.data, made.stem, {})


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("call", ["open", "fdopen", "fsync"])
def test_a_kill_while_a_key_set_of_the_log_is_made(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    """Before, in or between its two files: half a set signs nothing, and the next set is whole."""
    before = held(settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, call, nth)
        keyring.make_log_keys(settings, {})
    torn = held(settings)
    assert torn.items() >= before.items()
    if len(torn) > len(before) and (call, nth) != ("fsync", 2):  # there all bytes were written
        with pytest.raises((CountermarkError, OSError)):
            signing.key_set(settings, 2, {})
    number = keyring.make_log_keys(settings, {})
    assert number == (3 if len(torn) > len(before) else 2)
    assert held(settings).items() >= torn.items()
    assert signing.key_set(settings, number, {})
    assert signing.key_set(settings, 1, {})
