"""Identities of policies: a key, or the jobs of one workflow; what meets them, and what can be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.errors import UsageError
from countermark.identities import check_form, form_of, meets
from countermark.policyfile import load_policies, load_policy
from countermark.verify import verify
from tests.cimaker import identity
from tests.jobs import RUN, publishing_job
from tests.machine import Machine, artifact
from tests.simulator import World

GITHUB = "https://token.actions.githubusercontent.com"
JOB = f"ci:{GITHUB}/acme/widgets@release.yml"


@pytest.mark.parametrize(
    ("pin", "is_met"),
    [
        (JOB, True),
        (JOB.replace("https://", ""), True),
        (f"{JOB}#refs/tags/v1.0", True),
        (f"{JOB}#refs/tags/*", True),
        (f"{JOB}#refs/heads/main", False),
        (JOB.replace("https://", "http://"), False),
        (JOB.replace("acme", "mallory"), False),
        (JOB.replace("release", "nightly"), False),
        (JOB.replace("token.", "token.evil."), False),
        ("key:" + "40" * 32, True),
        ("40" * 32, True),
        ("key:" + "41" * 32, False),
        ("team:release", False),
    ],
)
def test_what_meets_an_identity(pin: str, is_met: bool) -> None:
    """All of issuer, repository and workflow, and the ref where one is named; or the key."""
    assert meets({pin}, {"40" * 32}, identity()) is is_met
    assert meets({pin}, {"40" * 32}, None) is (is_met and not pin.startswith("ci:"))


def test_a_job_is_named_as_a_policy_names_it() -> None:
    """The line that is offered for a policy is met by the job it was made from."""
    assert form_of(identity()) == JOB
    assert meets({check_form(form_of(identity()))}, (), identity())


@pytest.mark.parametrize(
    "pin",
    [
        "ci:acme",
        "ci:acme/widgets",
        f"{JOB}#v1",
        f"{JOB}#refs/pull/1/merge",
        f"{JOB}#a#b",
        f"{JOB}@x",
        "key:40c3",
        "ci:https://*/x@y#*",
    ],
)
def test_what_names_nobody_is_refused_when_it_is_read(tmp_path: Path, pin: str) -> None:
    """A pin that is never met would refuse everything, one that says too little too little."""
    path = tmp_path / "policy.toml"
    path.write_text(f'[pins]\nacme-demo = ["{pin}"]\n', "utf-8")
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert str(path) in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("pin", "code"),
    [
        (JOB, 0),
        (f"{JOB}#refs/tags/*", 0),
        (f"{JOB}#refs/heads/main", 5),
        (f"ci:{GITHUB}/mallory/widgets@release.yml", 5),
        (f"key:{RUN.keyid}", 0),
    ],
)
def test_a_pinned_job_is_verified_and_another_refused(tmp_path: Path, pin: str, code: int) -> None:
    """The pin meets what the log says of the key: its enrolment's identity, under the project's own trust."""
    world = World()
    person = world.publisher
    publishing_job(world, "acme-demo")
    file = world.publish("acme-demo")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'mode = "enforce"\n[pins]\nacme-demo = ["{pin}"]\n', "utf-8")
    machine = Machine(tmp_path / "machine", world)
    policies = load_policies(policy, tmp_path, {})
    report = verify([artifact(file)], machine.registry, world, now=world.now, policies=policies)
    assert report.exit_code == code, report.to_json()
    world.publisher = person
    other = world.publish("acme-demo", "2.0")  # signed by a person of the project: no job
    report = verify([artifact(other)], machine.registry, world, now=world.now, policies=policies)
    assert report.exit_code == 5, report.to_json()
