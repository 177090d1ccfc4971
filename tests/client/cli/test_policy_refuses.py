"""What a policy file asks, typed as people do: each demand refuses with its word and code, and says what to do.

In the environment of a CI job or of a developer, as the test says; demands.py's own borders are in test_demands.py.
"""

from __future__ import annotations

import datetime
import html
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from countermark.pins import Home
from tests.client.cli.test_bundle_commands import NAME, Desk, desk  # noqa: F401  (a fixture)
from tests.client.cli.test_policy_commands import OTHER, pylock
from tests.elsewhere import Elsewhere
from tests.project import Project
from tests.simulator import HOUR, Published, World

DAY = 24 * HOUR


def policy(desk: Desk, text: str) -> Path:  # noqa: F811
    path = desk.folder / "countermark.toml"
    path.write_text(text)
    return path


def another_registry(desk: Desk, mode: str) -> None:  # noqa: F811
    """The desk's registry from now on is one whose own policy has this mode."""
    desk.world = World(now=int(time.time()), mode=mode, base=f"https://{mode}.test")
    desk.published = desk.world.publish("acme-demo")
    desk.wheel.write_bytes(desk.published.data)
    home = Home(desk.folder / "home")
    for known in home.registries():
        for file in ("registry.json", "root.json"):
            (known.folder / file).unlink()
    home.add(desk.world.base, desk.world.root)


def test_under_ci_an_absent_pin_is_refused_with_the_line_to_commit(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 5, and the line, committed as it was printed, is all that is needed; another key in it is refused."""
    path = policy(desk, "require-pins = true\n\n[pins]\n")
    desk.run("verify", desk.wheel)
    assert "no signer of acme-demo is pinned" in desk.err  # a developer is told, and goes on
    monkeypatch.setenv("CI", "true")
    told = desk.json("verify", desk.wheel, expect=5)["artifacts"][0]
    assert (told["reason"], told["verified"]) == ("no-pin", False)
    desk.run("verify", desk.wheel, expect=5)
    line = f'acme-demo = ["{desk.world.publisher.keyid}"]'
    hint = next(each for each in desk.err.splitlines() if "commit this line" in each)
    assert "under [pins] in countermark.toml" in hint and hint.endswith(f": {line}")
    path.write_text(path.read_text() + hint.rpartition(": ")[2] + "\n")
    assert desk.json("verify", desk.wheel)["verified"] is True
    path.write_text(path.read_text().replace(desk.world.publisher.keyid, OTHER))
    assert desk.json("verify", desk.wheel, expect=5)["artifacts"][0]["reason"] == "other-signer"


def test_the_registrys_own_key_is_nobody_to_pin(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A file that no publisher signed offers no line, and a pin on whoever signs in their place is met by nothing."""
    another_registry(desk, "observe")
    file = desk.world.publish("unsigned", signed=False)
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    monkeypatch.setenv("CI", "true")
    policy(desk, "require-pins = true\n")
    told = desk.json("verify", path, expect=5)["artifacts"][0]
    assert told["reason"] == "no-pin" and "nobody to pin" in told["hint"] and "commit" not in told["hint"]
    policy(desk, f'require-pins = true\n[pins]\nunsigned = ["{desk.world.keys.registry.keyid}"]\n')
    assert desk.json("verify", path, expect=5)["artifacts"][0]["reason"] == "other-signer"


@pytest.mark.parametrize(("said", "code"), [("1", 5), ("True", 5), ("", 0), ("false", 0), ("0", 0)])
def test_what_counts_as_ci(desk: Desk, monkeypatch: pytest.MonkeyPatch, said: str, code: int) -> None:  # noqa: F811
    """What CI systems set, and not what people set to say that it is none."""
    policy(desk, "require-pins = true\n")
    monkeypatch.setenv("CI", said)
    desk.run("verify", desk.wheel, expect=code)


@pytest.mark.parametrize("mode", ["observe", "warn"])
def test_a_pin_binds_whatever_the_registrys_mode_is(desk: Desk, mode: str) -> None:  # noqa: F811
    """A registry that could make another signer a remark would decide about the pins that are there against it."""
    another_registry(desk, mode)
    pins = f'[pins]\nacme-demo = ["{OTHER}"]\n'
    policy(desk, pins)
    assert desk.json("verify", desk.wheel, expect=5)["artifacts"][0]["reason"] == "other-signer"
    for said in ("warn", "observe"):  # who tries pins out says so
        policy(desk, f'mode = "{said}"\n{pins}')
        assert desk.json("verify", desk.wheel)["verified"] is False
        policy(desk, f'[[pattern]]\nproject = "acme-*"\nmode = "{said}"\nkeys = ["{OTHER}"]\n')
        assert desk.json("verify", desk.wheel)["verified"] is False
    policy(desk, f'[[pattern]]\nproject = "acme-*"\nkeys = ["{OTHER}"]\n')
    desk.run("verify", desk.wheel, expect=5)
    tomorrow = datetime.date.fromtimestamp(time.time() + DAY)
    excused = f'[[exception]]\nproject = "acme-demo"\nreason = "r"\napprover = "a"\nexpires = {tomorrow}\n'
    policy(desk, pins + excused)
    desk.run("verify", desk.wheel)
    (desk.folder / "home" / "policy.toml").write_text(pins)  # one that stands elsewhere lifts nothing here
    desk.run("verify", desk.wheel, expect=5)


def test_nothing_of_a_pinned_project_passes_unsigned(desk: Desk) -> None:  # noqa: F811
    """Nor because it is in no log or has no hash, nor because a lock and not a file names the key."""
    another_registry(desk, "observe")
    stranger = desk.wheel.with_name("acme_demo-9.9-py3-none-any.whl")
    stranger.write_bytes(b"x")
    (desk.folder / "sub").mkdir()
    unhashed = (
        '[[package]]\nname = "acme-demo"\nversion = "2.0"\nsource = { git = "https://elsewhere.test/a#aa" }\n'
    )
    from_git = Project(desk.folder / "sub", desk.world).uv_lock(extra=unhashed)
    desk.run("verify", stranger)  # nobody minds
    desk.run("verify", from_git)
    policy(desk, f'[pins]\nacme-demo = ["{desk.world.publisher.keyid}"]\n')
    desk.run("verify", desk.wheel)
    assert desk.json("verify", stranger, expect=5)["artifacts"][0]["because"].startswith("pinned by ")
    assert desk.json("verify", from_git, expect=5)["artifacts"][0]["because"].startswith("pinned by ")
    (desk.folder / "countermark.toml").unlink()
    lock = pylock(desk.folder, desk.published)
    desk.run("lock", "annotate", lock, "--write")
    desk.run("lock", "check", lock)
    lock.write_text(lock.read_text().replace(desk.world.publisher.keyid, OTHER))
    assert "the lock" in desk.json("verify", lock, expect=5)["artifacts"][0]["because"]


def noted(world: World) -> Published:
    file = world.publish("noted", list_it=False)
    world.verdict(file, "note")
    world.release()
    return file


def yanked(world: World) -> Published:
    file = world.publish("pulled")
    world.yank(file)
    world.release()
    return file


@pytest.mark.parametrize(
    ("said", "made", "reason", "code"),
    [
        ("quorum = 2", None, "quorum", 5),
        ('cool-down = "1h"', None, "cool-down", 5),
        ("not-flagged = true", noted, "flagged", 5),
        ('yanked = "refuse"', yanked, "yanked", 5),
        ('allow = ["numpy"]', None, "not-allowed", 5),
        ('deny = ["acme-*"]', None, "denied", 5),
    ],
)
def test_each_demand_refuses_by_its_word(
    desk: Desk,  # noqa: F811
    said: str,
    made: Callable[[World], Published] | None,
    reason: str,
    code: int,
) -> None:
    """And lets pass with the same word under `warn`; without the line the file is verified."""
    file = desk.published if made is None else made(desk.world)
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    assert desk.json("verify", path)["verified"] is True
    policy(desk, said)
    refused = desk.json("verify", path, expect=code)["artifacts"][0]
    assert (refused["reason"], refused["exit_code"]) == (reason, code)
    policy(desk, f'mode = "warn"\n{said}')
    passed = desk.json("verify", path)["artifacts"][0]
    assert [finding["reason"] for finding in passed["findings"]] == [reason] and not passed["verified"]


@pytest.mark.parametrize(
    ("said", "made", "reason"),
    [
        ('max-age = "1h"', None, "max-age"),
        ("quorum = 2", None, "quorum"),
        ('cool-down = "3h"', None, "cool-down"),
        ("not-flagged = true", None, "flagged"),  # a bundle holds no verdict
        ('yanked = "refuse"', yanked, "yanked"),
        ('allow = ["numpy"]', None, "not-allowed"),
        ('deny = ["*"]', None, "denied"),
        ("require-pins = true", None, "no-pin"),
        (f'[pins]\nacme-demo = ["{OTHER}"]', None, "other-signer"),
    ],
)
def test_without_network_a_bundle_is_asked_for_the_same(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    made: Callable[[World], Published] | None,
    reason: str,
) -> None:
    """Two hours after it was made: good without the line, refused by its word with it."""
    file = desk.published if made is None else made(desk.world)
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    desk.run("bundle", "make", path)
    desk.world.down = lambda path: True
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(time, "time", lambda: float(desk.world.now + 2 * HOUR))
    assert desk.json("bundle", "verify", path)["verified"] is True
    policy(desk, said)
    code = 4 if reason == "max-age" else 5
    refused = desk.json("bundle", "verify", path, expect=code)
    assert (refused["artifacts"][0]["reason"], refused["exit_code"]) == (reason, code)


def test_ages_at_their_borders(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The registry goes on saying what it said: the last second that max-age and grace allow, and one more."""
    start = desk.world.now
    monkeypatch.setattr(time, "time", lambda: float(desk.world.now))
    desk.run("verify", desk.wheel)  # verified before, so that it passes in the grace period
    for said, age, code in (
        ('max-age = "12h"', 12 * HOUR, 0),
        ('max-age = "12h"', 12 * HOUR + 1, 4),
        ('grace = "0h"', DAY - 1, 0),
        ('grace = "0h"', DAY, 0),
        ('grace = "0h"', DAY + 1, 4),
        ('grace = "6h"', DAY + 6 * HOUR, 0),
        ('grace = "6h"', DAY + 6 * HOUR + 1, 4),
        ("", DAY + 6 * HOUR + 1, 0),
    ):
        policy(desk, said)
        desk.world.now = start + age
        told = desk.json("verify", desk.wheel, expect=code)["artifacts"][0]
        assert told.get("reason", "") == (said.partition(" ")[0] if code else ""), (said, age)


def test_a_cool_down_is_over_when_both_clocks_say_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """This machine's alone is not enough: no witness has seen the registry since."""
    monkeypatch.setattr(time, "time", lambda: float(desk.world.now))
    policy(desk, 'cool-down = "1h"')
    desk.world.now += HOUR - 1
    desk.world.heartbeat()
    desk.run("verify", desk.wheel, expect=5)
    assert "in 1 s it is old enough" in desk.err
    desk.world.now += 1
    desk.run("verify", desk.wheel, expect=5)
    desk.world.heartbeat()
    desk.run("verify", desk.wheel)


@pytest.mark.parametrize(
    ("central", "local", "code"),
    [("observe", "enforce", 5), ("enforce", "observe", 5), ("warn", "warn", 0), ("observe", "observe", 0)],
)
def test_the_stricter_of_registry_and_machine_decides(
    desk: Desk,  # noqa: F811
    central: str,
    local: str,
    code: int,
) -> None:
    """A file that no publisher signed, under both modes."""
    another_registry(desk, central)
    file = desk.world.publish("unsigned", signed=False)
    path = desk.folder / file.filename
    path.write_bytes(file.data)
    (desk.folder / "home" / "policy.toml").write_text(f'mode = "{local}"\n')
    told = desk.json("verify", path, expect=code)
    assert told["verified"] is False
    if code:
        assert told["artifacts"][0]["reason"] == "unsigned"


def ending(days: int) -> datetime.date:
    """The day at whose first second, in UTC, an exception ends: so many days from today."""
    return datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days)


def excuse(desk: Desk, *, days: int) -> str:  # noqa: F811
    """An exception in the user's policy, beside what lets a log alone be enough; its sentence."""
    text = f'[[exception]]\nproject = "old"\nreason = "moves in March"\napprover = "ops"\nexpires = {ending(days)}\n'
    home = desk.folder / "home" / "policy.toml"
    home.write_text(text + '[[log-only]]\nnamespace = "corp"\n')
    return f'exception for old until {ending(days)}: "moves in March", approved by ops'


def environment(folder: Path) -> Path:
    """A virtual environment in which nothing is installed."""
    (folder / "venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (folder / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return folder / "venv"


LOG_ONLY = ("--log-only", "--namespace", "corp")


def test_every_form_of_a_result_shows_the_exceptions_in_force(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reason, approver and end, on the screen and in each file; one that lasts too long is called ignored."""
    corp = Elsewhere(desk.world, "corp").publish("corp-demo")
    desk.world.release()
    logged = desk.folder / corp.filename
    logged.write_bytes(corp.data)
    lock = pylock(desk.folder, desk.published)
    files = {name: desk.folder / name for name in ("out.xml", "out.sarif")}
    (desk.folder / "sub").mkdir()
    locked = Project(desk.folder / "sub", desk.world).uv_lock(desk.published)
    forms: tuple[tuple[Any, ...], ...] = (
        ("verify", desk.wheel),
        ("verify", lock),
        ("verify", *LOG_ONLY, logged),
        ("bundle", "make", "--replace", desk.wheel),
        ("bundle", "verify", desk.wheel),
        ("bundle", "make", "--replace", *LOG_ONLY, logged),
        ("bundle", "verify", *LOG_ONLY, logged),
        ("policy", "simulate", "--lock", locked),
        ("verify", "--environment", environment(desk.folder)),
    )
    desk.run("lock", "annotate", lock, "--write")
    for days, begins in ((29, ""), (32, "ignored, since it lasts longer than 30 days: ")):
        words = begins + excuse(desk, days=days)
        for form in forms:
            desk.run(*form)
            assert f"countermark: {words}\n" in desk.err, form
            assert words in desk.json(*form)["remarks"], form
        for form in (("lock", "annotate", lock), ("lock", "check", lock)):
            desk.run(*form)
            assert words in desk.err, form
        desk.run("verify", desk.wheel, "--junit", files["out.xml"], "--sarif", files["out.sarif"])
        assert words in html.unescape(files["out.xml"].read_text())
        assert json.dumps(words)[1:-1] in files["out.sarif"].read_text()
        with monkeypatch.context() as folder:  # an installer that does nothing
            folder.chdir(locked.parent)
            folder.setattr("countermark.run._start", lambda command, environment: 0)
            desk.run("run", "--json", desk.folder / "run.json", "--", "uv", "sync", "--frozen")
        assert words in desk.err and words in json.loads((desk.folder / "run.json").read_text())["remarks"]


def test_thirty_days_are_an_exception_and_one_second_more_is_not(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock of this machine, to the second; the same exception on the day after its last counts no more."""
    midnight = int(datetime.datetime.combine(ending(1), datetime.time(), datetime.UTC).timestamp())
    monkeypatch.setattr(time, "time", lambda: float(desk.world.now))
    for at, days, code in (
        (midnight - 1, 31, 5),
        (midnight - 1, 1, 0),
        (midnight, 31, 0),
        (midnight, 1, 5),
    ):
        policy(desk, denied(days))
        desk.world.now = at
        desk.world.heartbeat()
        desk.run("verify", desk.wheel, expect=code)
        in_force = f'countermark: exception for acme-demo until {ending(days)}: "r", approved by ops\n'
        assert (in_force in desk.err) is (code == 0)


@pytest.mark.parametrize("missing", ["reason", "approver", "expires"])
def test_an_exception_says_why_who_and_until_when(desk: Desk, missing: str) -> None:  # noqa: F811
    """One that leaves something out is no policy."""
    kept = [line for line in denied(1).splitlines() if not line.startswith(missing)]
    policy(desk, "\n".join(kept))
    desk.run("verify", desk.wheel, expect=2)
    assert f"an exception needs {missing}" in desk.err


def denied(days: int) -> str:
    """A policy that denies the file, and excuses it until the day that many days from today."""
    excused = f'project = "acme-demo"\nreason = "r"\napprover = "ops"\nexpires = {ending(days)}\n'
    return f'deny = ["acme-*"]\n[[exception]]\n{excused}'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "  # the last\n\n"])
def test_annotating_a_lock_changes_no_other_byte(desk: Desk, end: str, tail: str) -> None:  # noqa: F811
    """Comments, blanks, line ends and a line that has none stay: without our lines the file is what it was."""
    second = desk.world.publish("acme-b")
    path = pylock(desk.folder, desk.published, second)
    text = "# ours \t\u00e9 \u2028[[packages]]\n" + path.read_text().replace(
        "\n[[packages]]", "\n\n [[packages]]  # one\n# more"
    )
    raw = (text.rstrip("\n") + tail).replace("\n", end).encode()
    path.write_bytes(raw)
    desk.run("lock", "annotate", path)
    assert path.read_bytes() == raw
    desk.run("lock", "annotate", path, "--write")
    lines = path.read_bytes().splitlines(keepends=True)
    ours = [line for line in lines if line.startswith(b"attestation-identities = ")]
    assert len(ours) == 2 and all(line.endswith(end.encode()) for line in ours)
    assert b"".join(line for line in lines if line not in ours) == raw
    desk.run("lock", "check", path)
    once = path.read_bytes()
    desk.run("lock", "annotate", path, "--write")
    assert path.read_bytes() == once


def test_simulate_says_what_ci_would_refuse_and_nothing_else_happens(desk: Desk) -> None:  # noqa: F811
    """Pins are asked for, though no CI is here; without findings the count is nought, and the memory stays."""
    policy(desk, "require-pins = true\n")
    (desk.folder / "sub").mkdir()
    lock = Project(desk.folder / "sub", desk.world).uv_lock(desk.published)
    told = desk.json("policy", "simulate", "--lock", lock)
    assert [(each["reason"], each["count"]) for each in told["reasons"]] == [("no-pin", 1)]
    assert told["reasons"][0]["files"][0]["filename"] == NAME
    policy(desk, f'require-pins = true\n[pins]\nacme-demo = ["{desk.world.publisher.keyid}"]\n')
    said = desk.run("policy", "simulate", "--lock", lock)
    assert said == "" and "0 of 1 would be refused; nothing was changed" in desk.err
    policy(desk, "")
    assert desk.json("policy", "simulate", "--lock", lock)["refused"] == 0
