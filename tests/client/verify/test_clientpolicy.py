"""clientpolicy.py: modes, patterns, exceptions; and what is no policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.clientpolicy import Mode, Policies, load_policy
from countermark.errors import UsageError
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
expires = 2026-03-31
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
    ],
)  # fmt: skip
def test_what_is_no_policy_is_a_usage_error(tmp_path: Path, text: str) -> None:
    """Unknown words, missing members, wrong types."""
    with pytest.raises(UsageError, match="policy"):
        load(tmp_path, text)
