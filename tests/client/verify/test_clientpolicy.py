"""clientpolicy.py: modes, patterns, exceptions; and what is no policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.errors import UsageError
from countermark.policyfile import load_policies, load_policy
from countermark.trustfile import CentralPolicy, Pattern

NOW = 1_763_800_000
POLICY = """
mode = "warn"
[[pattern]]
project = "acme-*"
mode = "enforce"
keys = ["aa", "bb"]
[[exception]]
project = "acme-old"
reason = "vendor signs from March on"
approver = "ops"
expires = 2025-12-20
"""


def load(folder: Path, text: str):
    (folder / "policy.toml").write_text(text)
    return load_policy(folder / "policy.toml")


def test_without_a_file_nothing_is_demanded_locally(tmp_path: Path) -> None:
    """An absent file is observe; central decides."""
    assert load_policy(tmp_path / "none").mode is Mode.OBSERVE


def test_patterns_pins_and_exceptions(tmp_path: Path) -> None:
    """Patterns tighten; pins join; an exception lifts what only the local file demanded, until its day."""
    local = load(tmp_path, POLICY)
    policies = Policies(central=CentralPolicy(0, "warn"), local=local)
    assert policies.pins_for("acme-x") == {"aa", "bb"} and not policies.pins_for("other")
    assert policies.decide("acme-x", 5, now=NOW).refused
    assert not policies.decide("other", 5, now=NOW).refused
    excused = policies.decide("acme-old", 5, now=NOW)
    assert not excused.refused and "approved by ops" in excused.because and "March" in excused.because
    assert policies.decide("acme-old", 5, now=NOW + 300 * 86400).refused
    assert policies.exception_words(NOW) == (excused.because,)
    assert policies.decide("acme-old", 5, now=NOW - 10 * 86400).refused, "it would last longer than 30 days"
    assert policies.exception_words(NOW - 10 * 86400)[0].startswith(
        "ignored, since it lasts longer than 30 days: "
    )
    (expires,) = [exemption.expires for exemption in local.exceptions]
    at_most = 30 * 86400
    for left, counts in ((at_most + 1, False), (at_most, True), (1, True), (0, False)):
        assert policies.decide("acme-old", 5, now=expires - left).refused is not counts, f"{left} s are left"
    strict = policies.with_central(CentralPolicy(0, "enforce"))
    assert strict.decide("acme-old", 5, now=NOW).refused, "a local exception can't loosen the central policy"


@pytest.mark.parametrize("mode", ["observe", "warn", "enforce"])
def test_contradictions_are_refused_in_every_mode(mode: str) -> None:
    """7 always; network and usage are nobody's policy; 6 passes only under observe; 4 and 5 by the mode."""
    policies = Policies(central=CentralPolicy(0, mode))
    assert all(policies.decide("x", code, now=NOW).refused for code in (1, 2, 3, 7))
    assert policies.decide("x", 6, now=NOW).refused is (mode != "observe")
    assert policies.decide("x", 5, now=NOW).refused is (mode == "enforce")


def test_central_patterns_are_tried_in_order() -> None:
    """The first that matches wins over the mode."""
    central = CentralPolicy(0, "enforce", (Pattern("warn", "old-*"), Pattern("observe", "*")))
    policies = Policies(central=central)
    assert not policies.decide("old-thing", 5, now=NOW).refused
    assert policies.mode_for("other") is Mode.OBSERVE


@pytest.mark.parametrize(
    "text",
    [
        "mode = 3", 'mode = "off"', 'mod = "warn"', "mode", "[[pattern]]", "[pattern]\nproject='x'", "pattern = [3]",
        "[[pattern]]\nproject = 'x'\nkeys = 'aa'", "[[exception]]\nproject = 'x'",
        "[[exception]]\nproject='x'\nreason='r'\napprover='a'\nexpires='soon'", "\x00",
        "cool-down = 3", "cool-down = '3w'", "max-age = '-1d'", "quorum = 'two'", "quorum = true", "not-flagged = 1",
        "yanked = true", "require-pins = 'some'", "pins = 3", "allow = 'acme'", "deny = [3]", "[pins]\nx = 'aa'",
    ],
)  # fmt: skip
def test_what_is_no_policy_is_a_usage_error(tmp_path: Path, text: str) -> None:
    """Unknown words, missing members, wrong types."""
    with pytest.raises(UsageError, match="policy"):
        load(tmp_path, text)


PROJECT = """
cool-down = "3d"
deny = ["evil-*"]
[pins]
acme-x = ["cc"]
"""


def test_the_projects_policy_is_the_nearest_and_tightens(tmp_path: Path) -> None:
    """countermark.toml of the repository, no further up; what both files pin must both hold."""
    home, repository = tmp_path / "home", tmp_path / "repository"
    (repository / "src" / "deep").mkdir(parents=True)
    home.mkdir()
    (tmp_path / "countermark.toml").write_text('mode = "observe"\ndeny = ["*"]\n')
    (repository / ".git").mkdir()
    (home / "policy.toml").write_text(POLICY)
    nothing = load_policies(home / "policy.toml", repository / "src", {})
    assert nothing.project == ClientPolicy(mode=Mode.OBSERVE), (
        "what lies above the repository is not its policy"
    )
    (repository / "countermark.toml").write_text(PROJECT)
    policies = load_policies(home / "policy.toml", repository / "src" / "deep", {"CI": "true"})
    assert policies.is_ci and policies.project.demands.cool_down == 3 * 86400
    assert policies.pin_sets("acme-x") == [{"aa", "bb"}, {"cc"}]
    [(denied, decision)] = policies.objections_to_name("evil-thing", now=NOW)
    assert denied.reason == "denied" and decision.refused and "countermark.toml" in decision.because
    (repository / "countermark.toml").write_text("[[log-only]]\nnamespace = 'corp'\n")
    with pytest.raises(UsageError, match="for this machine to say"):
        load_policies(home / "policy.toml", repository, {})


def test_an_exception_lifts_what_its_own_file_demands(tmp_path: Path) -> None:
    """Not what the other file, or the registry's policy, asks for."""
    lifted = load(
        tmp_path,
        PROJECT + POLICY.split("[[exception]]")[1].join(["[[exception]]", ""]).replace("acme-old", "evil-*"),
    )
    assert not Policies(project=lifted).objections_to_name("evil-x", now=NOW)[0][1].refused
    both = Policies(project=lifted, local=load(tmp_path, PROJECT))
    assert [decision.refused for _, decision in both.objections_to_name("evil-x", now=NOW)] == [True, False]


@pytest.mark.parametrize(
    ("mode", "refused"), [("", True), ('mode = "warn"\n', False), ('mode = "enforce"\n', True)]
)
def test_demands_are_enforced_unless_the_file_says_otherwise(
    tmp_path: Path, mode: str, refused: bool
) -> None:
    """Who writes a demand and no mode means it; a mode of warn tries it out."""
    policies = Policies(CentralPolicy(0, "observe"), load(tmp_path, mode + PROJECT))
    assert policies.objections_to_name("evil-x", now=NOW)[0][1].refused is refused
    assert policies.mode_for("other") is Mode.parse(mode.split('"')[1] if mode else "observe")


ML, OPS = ["1" * 64, "2" * 64], ["3" * 64, "ci:https://ci.example/acme/ops@release.yml"]
TEAMS = f"""
[teams]
ml = {ML}
ops = {OPS}
[[pattern]]
project = "acme-ml-*"
keys = ["team:ml", "{"4" * 64}"]
[[log-only]]
namespace = "corp"
keys = ["team:ops"]
[pins]
acme-web = ["team:ops"]
"""


def test_a_team_is_the_keys_that_the_file_gives_it(tmp_path: Path) -> None:
    """`team:ml` stands for its keys wherever keys are listed, and for nobody else's."""
    policy = load(tmp_path, TEAMS)
    assert policy.pins_for("acme-ml-x") == {*ML, "4" * 64} and policy.pins_for("acme-web") == set(OPS)
    assert policy.log_only[0].keys == set(OPS) and policy.pins_for("other") == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("team:ml", "team:mI", "team:mI is not explained: this file has the teams ml, ops"),
        ("[teams]", "[pins2]", "unknown pins2"),
        (f"ml = {ML}", "ml = []", "team ml: its keys are a list of keyids"),
        (f"ml = {ML}", 'ml = ["team:ops"]', "team ml: its keys are a list of keyids"),
        (f"ml = {ML}", 'ml = "all"', "team ml: its keys are a list of keyids"),
        ("ops = ", '"Ops!" = ', "'Ops!' is no name of a team"),
        (TEAMS, '[[pattern]]\nproject = "x"\nkeys = ["team:ml"]', "this file has no \\[teams\\]"),
    ],
)
def test_a_team_without_keys_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    """A name that the file does not explain pins nothing, so the file is not taken."""
    with pytest.raises(UsageError, match=words):
        load(tmp_path, TEAMS.replace(old, new, 1))


@pytest.mark.parametrize("spelling", ["Acme_Demo", "acme.demo", "ACME-demo", "Acme_*", "acme__demo"])
def test_a_project_is_meant_however_its_name_is_spelled(tmp_path: Path, spelling: str) -> None:
    """Names are one project in all their spellings (PEP 503); else such a line would protect from nothing."""
    pinned = load(tmp_path, f'mode = "enforce"\n[pins]\n"{spelling}" = ["{"aa" * 32}"]\n')
    assert pinned.pins_for("acme-demo") and not pinned.pins_for("acmedemo")
    strict = load(tmp_path, f'[[pattern]]\nproject = "{spelling}"\nmode = "enforce"\n')
    assert strict.mode_for("acme-demo") is Mode.ENFORCE
    denied = load(tmp_path, f'deny = ["{spelling}"]\n')
    assert [error.reason for error in denied.demands.of_name("acme-demo")] == ["denied"]
    allowed = load(tmp_path, f'allow = ["{spelling}"]\n')
    assert not list(allowed.demands.of_name("acme-demo")) and list(allowed.demands.of_name("other"))
    central = CentralPolicy(0, "warn", patterns=(Pattern("enforce", spelling),))
    assert central.mode_for("acme-demo") == "enforce" and central.mode_for("other") == "warn"
