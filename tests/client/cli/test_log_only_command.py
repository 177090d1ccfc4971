"""`verify --log-only`: asked for by name, never called verified, in words, JSON and exit code."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from countermark import cli
from countermark.pins import Home
from tests.elsewhere import Elsewhere
from tests.simulator import World

NAME = "acme_demo-1.0-py3-none-any.whl"
POLICY = '[[log-only]]\nnamespace = "corp"\n'
MODE = ("verify", "--log-only", "--namespace", "corp")


class Desk:
    """A machine, a registry in memory, and a file that corp serves."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = World(now=int(time.time()))
        self.corp = Elsewhere(self.world, "corp")
        self.published = self.corp.publish()
        self.world.sign_checkpoint()
        self.home, self.capsys = folder / "home", capsys
        self.file = folder / NAME
        self.file.write_bytes(self.published.data)

    def run(self, *words: object, expect: int = 0) -> tuple[str, str]:
        code = cli.main([str(word) for word in words])
        out, err = self.capsys.readouterr()
        assert code == expect, f"{code}\n{out}\n{err}"
        return out, err

    def policy(self, text: str) -> None:
        (self.home / "policy.toml").write_text(text)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    desk = Desk(tmp_path, capsys)
    for name in ("CI", "COUNTERMARK_REGISTRY", "COUNTERMARK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COUNTERMARK_HOME", str(desk.home))
    for module in ("fetch", "mirrors"):
        monkeypatch.setattr(f"countermark.{module}.HttpFetcher", lambda **_: desk.world)
    Home(desk.home).add(desk.world.base, desk.world.root)
    return desk


def test_it_is_never_called_verified(desk: Desk) -> None:
    """With the policy's line exit 0, and every word says what it is not."""
    desk.policy(POLICY)
    out, err = desk.run(*MODE, desk.file)
    assert out.startswith(
        f"{NAME}: in the log only, not verified: no TUF, no verdict; entry #{desk.published.index} of"
    )
    assert ": verified" not in out + err and "nothing here is verified" in err
    document: Any = json.loads(desk.run(*MODE, desk.file, "--json")[0])
    assert (document["exit_code"], document["log_only"], document["namespace"]) == (0, True, "corp")
    assert (document["verified"], document["artifacts"][0]["verified"]) == (False, False)
    assert document["age"] < 60 and document["seen_by"] == ["w1"]
    assert re.search(r"seen by w1 [0-9]+ s ago", err)
    assert "findings" not in document["artifacts"][0]  # of another shape than what `verify` answers


def test_without_the_policys_line_it_ends_in_5(desk: Desk) -> None:
    """What was proved is printed, and who may call it enough."""
    out, err = desk.run(*MODE, desk.file, expect=5)
    assert "in the log only, not verified" in out
    assert 'hint: in policy.toml: [[log-only]] with namespace = "corp"' in err
    document: Any = json.loads(desk.run(*MODE, desk.file, "--json", expect=5)[0])
    assert (document["artifacts"][0]["logged"], document["artifacts"][0]["exit_code"]) == (True, 5)


def test_a_refused_file_is_not_logged_either(desk: Desk) -> None:
    """JSON has the same members, and the words name the file's bytes."""
    desk.policy(POLICY)
    desk.file.write_bytes(b"worm")
    _, err = desk.run(*MODE, desk.file, expect=7)
    assert f"refused: {NAME} is sha256:" in err
    document: Any = json.loads(desk.run(*MODE, desk.file, "--json", expect=7)[0])
    assert (document["artifacts"][0]["logged"], document["verified"]) == (False, False)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("verify", "--log-only"), "go together"),
        (("verify", "--namespace", "corp"), "go together"),
        (("verify", "--log-only", "--namespace", ""), "is no namespace"),
        (("verify", "--log-only", "--namespace", "../corp"), "is no namespace"),
    ],
)
def test_both_names_are_needed(desk: Desk, words: tuple[str, ...], why: str) -> None:
    """And nothing is asked of anybody before."""
    desk.world.asked.clear()
    _, err = desk.run(*words, desk.file, expect=2)
    assert why in err and not desk.world.asked


def test_a_lock_is_refused(desk: Desk) -> None:
    """It pins what a registry lists."""
    lock = desk.file.parent / "requirements.txt"
    lock.write_text("")
    assert "--log-only takes files" in desk.run(*MODE, lock, expect=2)[1]


@pytest.mark.parametrize(
    "text",
    ["[[log-only]]\n", '[[log-only]]\nnamespace = ""\n', '[[log-only]]\nnamespace = "corp"\nkeys = "a"\n',
     '[[log-only]]\nnamespace = "corp"\nmore = 1\n', 'log-only = "corp"\n'],
)  # fmt: skip
def test_a_policy_that_is_not_understood_allows_nothing(desk: Desk, text: str) -> None:
    """A usage error, whatever is verified."""
    desk.policy(text)
    desk.run(*MODE, desk.file, expect=2)


def test_a_bundle_for_a_machine_without_network(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made and read by the same names; the plain commands do not see it, and it does not see theirs."""
    monkeypatch.chdir(desk.file.parent)
    desk.policy(POLICY)
    mode = MODE[1:]
    out, _ = desk.run("bundle", "make", *mode, desk.file)
    assert out.startswith(f"countermark/{NAME}.log-only.countermark: ")
    assert "already exists" in desk.run("bundle", "make", *mode, desk.file, expect=2)[1]
    desk.world.down = lambda path: True
    out, err = desk.run("bundle", "verify", *mode, desk.file)
    lines = out.splitlines()
    assert lines[0].startswith(f"{NAME}: in the log only, not verified: no TUF, no verdict; entry #")
    assert lines[2] == "  nothing is said of its standing: no TUF, no verdict, no later entry was read"
    assert "nothing here is verified" in err
    document: Any = json.loads(desk.run("bundle", "verify", *mode, desk.file, "--json")[0])
    assert (document["verified"], document["log_only"]) == (False, True)
    assert "no bundle" in desk.run("bundle", "verify", desk.file, expect=2)[1]
    assert "go together" in desk.run("bundle", "verify", "--log-only", desk.file, expect=2)[1]
    (desk.home / "policy.toml").unlink()
    out, err = desk.run("bundle", "verify", *mode, desk.file, expect=5)
    assert "nothing on this machine says" in err


@pytest.mark.parametrize(
    ("said", "reason", "code"),
    [
        ('deny = ["acme-*"]', "denied", 5),
        ('allow = ["numpy"]', "not-allowed", 5),
        ('cool-down = "3h"', "cool-down", 5),
        ("quorum = 2", "quorum", 5),
        ("not-flagged = true", "flagged", 5),
        ("require-pins = true", "no-pin", 5),
        ('max-age = "1h"', "max-age", 4),
    ],
)
def test_it_is_asked_for_what_policy_demands_of_any_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, said: str, reason: str, code: int
) -> None:
    """Online and by a bundle two hours later; under `warn` it passes and is said."""
    monkeypatch.chdir(desk.file.parent)
    monkeypatch.setenv("CI", "true")
    desk.policy(POLICY)
    desk.run("bundle", "make", *MODE[1:], desk.file)
    offline = ("bundle", "verify", *MODE[1:])
    at = desk.world.now + 2 * 3600
    for mode in (MODE, offline):
        if mode is offline:
            desk.world.down = lambda path: True
            monkeypatch.setattr(time, "time", lambda: float(at))
        elif reason == "max-age":
            continue  # the log's newest head is as old as it was asked for
        desk.policy(POLICY)
        desk.run(*mode, desk.file)
        (desk.home / "policy.toml").write_text(f"{said}\n{POLICY}")
        document: Any = json.loads(desk.run(*mode, desk.file, "--json", expect=code)[0])
        assert (document["exit_code"], document["artifacts"][0]["reason"]) == (code, reason)
        (desk.home / "policy.toml").write_text(f'mode = "warn"\n{said}\n{POLICY}')
        document = json.loads(desk.run(*mode, desk.file, "--json")[0])
        assert any("let pass" in remark for remark in document["artifacts"][0]["remarks"])


def test_a_yanked_file_is_refused_where_none_is_accepted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle cannot say that it is none."""
    monkeypatch.chdir(desk.file.parent)
    desk.policy(POLICY)
    desk.run("bundle", "make", *MODE[1:], desk.file)
    desk.policy(f'yanked = "refuse"\n{POLICY}')
    desk.run(*MODE, desk.file)
    assert (
        "nothing here says whether it is yanked"
        in desk.run("bundle", "verify", *MODE[1:], desk.file, expect=5)[1]
    )


def test_keys_beside_the_namespace_are_pins(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names them has said whose signature counts."""
    monkeypatch.setenv("CI", "true")
    desk.policy(f'require-pins = true\n{POLICY}keys = ["{desk.corp.key.keyid}"]\n')
    desk.run(*MODE, desk.file)
