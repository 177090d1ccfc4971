"""claims.py: each CI system's tokens as one machine identity, and the jobs that publish nothing."""

from __future__ import annotations

from typing import Any

import pytest

from countermark.machine import is_identity
from countermark_server.accounts.claims import identity_of
from countermark_server.errors import ServerError

CIRCLE = "oidc.circleci.com/"
JOBS: dict[str, dict[str, Any]] = {
    "github": {
        "iss": "https://token.actions.githubusercontent.com", "repository": "Acme/Widgets", "repository_id": "4711",
        "job_workflow_ref": "Acme/Widgets/.github/workflows/release.yml@refs/tags/v1", "ref": "refs/tags/v1",
        "event_name": "release", "run_id": "9", "sha": "ab" * 20, "actor_id": "17",
    },
    "gitlab": {
        "iss": "https://gitlab.com", "project_path": "acme/group/widgets", "project_id": 4711, "user_id": "17",
        "ci_config_ref_uri": "gitlab.com/acme/group/widgets//ci/release.yml@refs/tags/v1", "ref": "v1",
        "ref_type": "tag", "pipeline_source": "push", "pipeline_id": "9", "sha": "ab" * 20,
    },
    "buildkite": {
        "iss": "https://agent.buildkite.com", "organization_slug": "acme", "pipeline_slug": "widgets",
        "pipeline_id": "0184990a-477b", "build_branch": "main", "build_tag": "v1", "build_number": 9,
        "build_commit": "ab" * 20, "step_key": "release",
    },
    "google": {
        "iss": "https://accounts.google.com", "sub": "104029292853099978293", "email_verified": True,
        "email": "publisher@acme-builds.iam.gserviceaccount.com",
    },
    "circleci": {
        "iss": "https://oidc.circleci.com/org/9c0c", "sub": "org/9c0c/project/77ab/user/5f1e",
        f"{CIRCLE}project-id": "77ab", f"{CIRCLE}vcs-origin": "github.com/acme/widgets",
        f"{CIRCLE}vcs-ref": "refs/tags/v1", f"{CIRCLE}pipeline-definition-id": "44cd", f"{CIRCLE}ssh-rerun": False,
    },
    "claims": {
        "iss": "https://ci.example", "repo": "tools/x", "repo_id": "5", "file": "ci.yml", "git_ref": "refs/heads/a",
    },
}  # fmt: skip
MAPPING = {"repository": "repo", "repository_id": "repo_id", "workflow": "file", "ref": "git_ref"}
EXPECTED = {
    "github": ("acme/widgets", "4711", "release.yml", "refs/tags/v1", "17"),
    "gitlab": ("acme/group/widgets", "4711", "ci/release.yml", "refs/tags/v1", "17"),
    "buildkite": ("acme/widgets", "0184990a-477b", "release", "refs/tags/v1", None),
    "google": ("acme-builds/publisher", "104029292853099978293", "-", None, None),
    "circleci": ("acme/widgets", "77ab", "44cd", "refs/tags/v1", "5f1e"),
    "claims": ("tools/x", "5", "ci.yml", "refs/heads/a", None),
}


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_of_each_kind(kind: str) -> None:
    """Number, name, workflow, ref; who started it comes apart, and an entry could hold the rest."""
    found = identity_of(kind, JOBS[kind], MAPPING)
    said = tuple(found[name] for name in ("repository", "repository_id", "workflow", "ref", "actor"))
    assert said == EXPECTED[kind]
    assert is_identity({**found, "actor": None}) and "@" not in str({**found, "actor": None})


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("github", {"event_name": "pull_request_target"}, "job-pull-request"),
        ("github", {"ref": "refs/pull/1/merge"}, "job-pull-request"),
        ("github", {"job_workflow_ref": "mallory/x/.github/workflows/release.yml@main"}, "job-fork"),
        ("gitlab", {"pipeline_source": "merge_request_event"}, "job-pull-request"),
        ("gitlab", {"ref_path": "refs/merge-requests/1/head"}, "job-pull-request"),
        ("gitlab", {"ci_config_ref_uri": "gitlab.com/mallory/x//ci/release.yml@refs/tags/v1"}, "job-fork"),
        ("buildkite", {"build_branch": "mallory:main"}, "job-fork"),
        ("buildkite", {"build_branch": "refs/pull/1/head"}, "job-pull-request"),
        ("buildkite", {"pipeline_id": None}, "job-token-invalid"),
        ("google", {"email": "ada@example.com"}, "job-token-invalid"),
        ("google", {"email_verified": False}, "job-token-invalid"),
        ("circleci", {f"{CIRCLE}ssh-rerun": True}, "job-token-invalid"),
        ("circleci", {f"{CIRCLE}vcs-ref": "refs/pull/1"}, "job-pull-request"),
        ("claims", {"git_ref": "refs/pull/1/head"}, "job-pull-request"),
        ("claims", {"repo": None}, "job-token-invalid"),
        ("claims", {"repo": "../../x y"}, "job-token-invalid"),
    ],
)
def test_jobs_that_outsiders_start_publish_nothing(kind: str, changes: dict[str, Any], code: str) -> None:
    """Pull and merge requests, forks, reruns that somebody is inside of, accounts of people."""
    claims = {name: value for name, value in (JOBS[kind] | changes).items() if value is not None}
    with pytest.raises(ServerError) as caught:
        identity_of(kind, claims, MAPPING)
    assert caught.value.code == code, caught.value
