"""signature.py: what a file signed by a CI job's key proves, and what it doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.verify import verify
from tests.attacks.test_verify_refuses import forge_publish
from tests.jobs import RUN, enrol_run, publishing_job, trust_jobs
from tests.machine import Machine, artifact
from tests.simulator import World


@pytest.fixture
def world() -> World:
    return World()


def test_a_jobs_file_names_the_job_and_who_checked_it(tmp_path: Path, world: World) -> None:
    """The sentence has repository, workflow and ref, whose word that is, and the chain behind the trust."""
    trusted, enrolled = publishing_job(world, "acme-demo")
    file = world.publish("acme-demo")
    world.check()
    signed = Machine(tmp_path, world).accept(file).to_json()["artifacts"][0]["signed_by"]
    assert signed["sentence"] == (
        f"signed by key {RUN.keyid[:16]}, enrolled at #{enrolled}; by a job of acme/widgets, release.yml at "
        "refs/tags/v1.0 (https://token.actions.githubusercontent.com), identity as checked by the registry; "
        f"trusted by #{trusted}, chained to #{signed['first']}"
    )
    assert (signed["party"], signed["identity"]["repository_id"]) == ("publisher", "4711")


def test_a_pin_on_a_persons_key_is_not_met_by_a_job(tmp_path: Path, world: World) -> None:
    """Between the pinned key and the job stands the registry's word, which the pin is there to do without."""
    person = world.publisher
    publishing_job(world, "acme-demo")
    file = world.publish("acme-demo")
    registry = Machine(tmp_path, world).registry
    for pin, code in ((person.keyid, 5), (RUN.keyid, 0)):
        local = ClientPolicy(mode=Mode.OBSERVE, rules=(Rule("acme-*", Mode.ENFORCE, frozenset({pin})),))
        report = verify([artifact(file)], registry, world, now=world.now, policies=Policies(local=local))
        assert report.exit_code == code, report.to_json()


@pytest.mark.parametrize(
    "about",
    [
        {"repository_id": "666"},
        {"repository": "mallory/widgets"},
        {"workflow": "x.yml"},
        {"ref": "refs/heads/main"},
    ],
)
def test_a_job_nobody_trusted_is_refused(tmp_path: Path, world: World, about: dict[str, str]) -> None:
    """A registry that enrols another job's key under a project's trust is caught by every verifier."""
    world.enroll("acme-demo")
    enrolled = enrol_run(world, "acme-demo", trust_jobs(world, "acme-demo"), raw=True, **about)
    file = forge_publish(world, RUN, key_index=enrolled)
    Machine(tmp_path, world).refuse(7, "does not trust", file)


def test_trust_that_no_enrolled_key_signed_is_refused(tmp_path: Path, world: World) -> None:
    """Whom the project trusts, its own keys say; the registry can't say it for them."""
    world.enroll("acme-demo")
    trusted = trust_jobs(world, "acme-demo", by=world.keys.registry, raw=True)
    enrolled = enrol_run(world, "acme-demo", trusted, raw=True)
    file = forge_publish(world, RUN, key_index=enrolled)
    Machine(tmp_path, world).refuse(7, "lacks the signature", file)


def test_trust_of_another_project_is_refused(tmp_path: Path, world: World) -> None:
    """What one project trusts is nothing to another."""
    world.enroll("other")
    world.enroll("acme-demo")
    enrolled = enrol_run(world, "acme-demo", trust_jobs(world, "other"), raw=True)
    file = forge_publish(world, RUN, key_index=enrolled)
    Machine(tmp_path, world).refuse(7, "trusts a publisher for other", file)


def test_trust_that_was_removed_is_no_trust(tmp_path: Path, world: World) -> None:
    """A removal is no entry that trusts anybody."""
    world.enroll("acme-demo")
    trust_jobs(world, "acme-demo")
    removed = trust_jobs(world, "acme-demo", action="remove")
    enrolled = enrol_run(world, "acme-demo", removed, raw=True)
    file = forge_publish(world, RUN, key_index=enrolled)
    Machine(tmp_path, world).refuse(7, "it trusts no publisher", file)


def test_a_key_of_one_run_signs_nothing_a_day_later(tmp_path: Path, world: World) -> None:
    """Fifteen minutes, without the week that a recovered key may have waited."""
    _, enrolled = publishing_job(world, "acme-demo")
    world.now += 901
    file = forge_publish(world, RUN, key_index=enrolled)
    Machine(tmp_path, world).refuse(7, "was for 900 s", file)
