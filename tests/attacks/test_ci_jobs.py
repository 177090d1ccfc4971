"""Stories around CI jobs: a token leaks, a fork knocks, a name is taken over, somebody is inside of the CI system.

After each refusal the registry is as it was: rows, blobs and the public log.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from countermark.statement import KeySigner
from tests.archives import wheel
from tests.doors import form, publish
from tests.jobissuer import JobIssuer, running
from tests.jobworld import JobWorld, one_run
from tests.server.upload.test_upload import refused

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def issuer() -> Iterator[JobIssuer]:
    with running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, issuer: JobIssuer) -> Iterator[JobWorld]:
    made = JobWorld(tmp_path, issuer)
    with made.run():
        yield made
    made.close()


def upload(world: JobWorld, token: str, key: KeySigner | None) -> Any:
    fields = {"attestations": json.dumps([publish(WHEEL, wheel(), key).to_dict()])} if key else {}
    basic = base64.b64encode(f"__token__:{token}".encode()).decode()
    return world.client.post(
        "/legacy/", data=form(WHEEL, wheel(), **fields), headers={"Authorization": f"Basic {basic}"}
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_ci_token_that_leaked_after_it_was_burned(world: JobWorld) -> None:
    """It stands in a build's output, where uv has ended it: it uploads nothing and burns nothing else."""
    world.trusted()
    token = world.mint(world.job()).get_json()["token"]
    assert world.client.post("/_/oidc/burn-token", json={"token": token}).status_code == 200
    before = world.state()
    refused(upload(world, token, None), "not-authenticated")
    refused(upload(world, token, one_run()), "not-authenticated")
    assert world.client.post("/_/oidc/burn-token", json={"token": token}).status_code == 200
    assert world.state() == before


def test_a_living_ci_token_becomes_no_publisher(world: JobWorld) -> None:
    """Who steals it within its fifteen minutes enrols no key, by any door, trusts nobody and makes no token."""
    ada = world.trusted()
    token, thief = world.mint(world.job()).get_json()["token"], one_run()
    before = world.state()
    refused(ada.enrol("demo", key=thief, token=token), "session-required")
    refused(world.enrol_job(token, world.enrolment("demo", thief)), "job-token-invalid")
    refused(world.mint(token), "job-token-invalid")
    refused(
        world.client.post("/api/v1/tokens", json={"name": "mine"}, headers=bearer(token)), "session-required"
    )
    stolen = type(ada)(world, ada.account, ada.login, token, token)
    stolen.key = thief
    refused(world.say(stolen, "demo", workflow="evil.yml"), "token-scope")
    refused(upload(world, token, thief), "key-unknown")
    refused(upload(world, token, None), "signature-missing")
    assert world.state() == before


def test_a_jwt_that_leaked_is_used_up(world: JobWorld) -> None:
    """The job was first. Whoever has the token afterwards gets neither a key nor an upload, from no worker."""
    world.trusted()
    token = world.job()
    assert world.enrol_job(token, world.enrolment("demo", one_run())).status_code == 200
    other = world.another_worker().test_client()
    before = world.state()
    refused(world.enrol_job(token, world.enrolment("demo", one_run())), "job-token-reused")
    refused(world.mint(token, other), "job-token-reused")
    assert world.state() == before


def test_two_workers_at_the_same_moment_give_one_token(world: JobWorld) -> None:
    """The row is unique in the database: of three that come together one is first."""
    world.trusted()
    token, codes, start = world.job(), list[int](), Barrier(3)
    clients = [world.another_worker().test_client() for _ in range(3)]

    def knock(client: Any) -> None:
        start.wait(20)
        codes.append(world.mint(token, client).status_code)

    threads = [Thread(target=knock, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(codes) == [200] + [422] * 2


def test_a_fork_publishes_nothing(world: JobWorld) -> None:
    """Same workflow, same tag, another repository; then one that a pull request of the fork started."""
    world.trusted()
    before = world.state()
    fork = {
        "repository": "mallory/widgets",
        "repository_id": "666",
        "job_workflow_ref": "mallory/widgets/.github/workflows/release.yml@refs/tags/v1.0",
    }
    for changes, code in (
        (fork, "job-unknown-publisher"),
        ({"event_name": "pull_request"}, "job-pull-request"),
        ({"ref": "refs/pull/7/merge"}, "job-pull-request"),
    ):
        refused(world.mint(world.job(**changes)), code)
        refused(world.enrol_job(world.job(**changes), world.enrolment("demo", one_run())), code)
    assert world.state() == before


def test_a_name_that_was_left_and_taken_over(world: JobWorld) -> None:
    """Mallory registers acme/widgets anew; it is the same name in every claim, and another number."""
    world.trusted()
    before = world.state()
    refused(world.mint(world.job(repository_id="31337")), "job-renamed")
    assert world.state() == before


def test_a_job_of_one_project_enrols_nothing_for_another(world: JobWorld) -> None:
    """Trusted by demo, it asks for a key of a project that trusts somebody else, or nobody."""
    world.trusted()
    bob = world.person("bob")
    assert bob.enrol("second").status_code == 200
    said = {"repository": "bob/second", "repository_id": "99"}
    assert world.say(bob, "second", **said).status_code == 200
    assert bob.enrol("third").status_code == 200
    before = world.state()
    for project in ("second", "third"):
        answer = world.enrol_job(world.job(), world.enrolment(project, one_run()))
        assert answer.status_code in (400, 422), answer.get_json()
    assert world.state() == before


def test_a_key_of_one_run_is_worth_nothing_after_its_run(world: JobWorld) -> None:
    """A runner is taken over a quarter of an hour later, with key and all: by nobody's token does it publish."""
    ada, run = world.trusted(), one_run()
    made = world.enrol_job(world.job(), world.enrolment("demo", run)).get_json()
    world.clock.now += 901
    before = world.state()
    refused(upload(world, made["token"], run), "not-authenticated")
    refused(upload(world, ada.token, run), "key-expired")
    assert world.state() == before


def test_a_taken_over_job_changes_nothing_that_stays(world: JobWorld) -> None:
    """Within its run it may sign files; it adds no key, no owner, no trust, and withdraws nothing."""
    ada, run = world.trusted(), one_run()
    made = world.enrol_job(world.job(), world.enrolment("demo", run)).get_json()
    before = world.state()
    session = type(ada)(world, ada.account, ada.login, ada.session, made["token"])
    session.key = run  # even with the session of an owner at hand
    for answer in (
        world.say(session, "demo", workflow="evil.yml"),
        world.say(session, "demo", action="remove"),
        session.enrol("demo", run, key=one_run()),
    ):
        assert answer.status_code == 400, answer.get_json()
    assert world.state() == before
