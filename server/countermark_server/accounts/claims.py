"""Claims: what the tokens of each CI system say of a job, as one machine identity (countermark.machine).

    github      repository, repository_id, job_workflow_ref, ref, event_name
    gitlab      project_path, project_id, ci_config_ref_uri, ref_path, pipeline_source
    buildkite   organization_slug/pipeline_slug, pipeline_id, step_key, build_branch or build_tag
    google      a service account: its project and name, its number; no workflow, no ref
    circleci    vcs-origin, project-id, pipeline-definition-id, vcs-ref
    claims      names of claims from the settings (`ci.claims`), for any other issuer

Jobs that outsiders can start are refused here, whoever the project trusts: those of pull and merge requests, whatever
ref their token names (`pull_request_target` runs on the base branch with a stranger's title), and those that
somebody is inside of (a rerun with SSH). A claim that is missing or has no form that an entry could hold is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from countermark.machine import NO_WORKFLOW, is_identity, is_ref
from countermark_server.errors import ServerError

Claims = Mapping[str, Any]
PUBLIC = {  # the issuers that everybody means by these names
    "github": "https://token.actions.githubusercontent.com",
    "gitlab": "https://gitlab.com",
    "buildkite": "https://agent.buildkite.com",
    "google": "https://accounts.google.com",
}
NAMED = ("repository", "repository_id", "workflow", "ref", "run", "sha", "actor")  # by `ci.claims`
_PULLS = ("refs/pull/", "refs/merge-requests/", "refs/pull-requests/")
_CIRCLE = "oidc.circleci.com/"


def identity_of(kind: str, claims: Claims, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The job behind these claims, without who started it; `actor` is that person in clear, for a digest.

    ServerError: an outsider could have started it, or its token does not say which job it is.
    """
    said = _mapped(claims, mapping) if kind == "claims" else KINDS[kind](claims)
    ref = said.get("ref")
    if ref is not None and str(ref).startswith(_PULLS):
        raise pull_request(str(ref))
    identity = {
        "actor": None,
        "issuer": claims["iss"],
        "ref": ref,
        "repository": str(said["repository"]).lower(),
        "repository_id": str(said["repository_id"]),
        "run": None if said.get("run") is None else str(said["run"]),
        "sha": said.get("sha") or None,
        "workflow": said.get("workflow") or NO_WORKFLOW,
    }
    if ref is not None and not is_ref(ref):
        raise ServerError(
            "job-token-invalid", f"the job ran for {str(ref)[:120]!r}, which is no branch or tag we can log"
        )
    if not is_identity(identity):
        shown = {name: identity[name] for name in ("repository", "repository_id", "workflow", "run", "sha")}
        raise ServerError(
            "job-token-invalid", f"the token names a job that no entry can hold: {str(shown)[:300]}"
        )
    return {**identity, "actor": None if said.get("actor") is None else str(said["actor"])}


def pull_request(what: str) -> ServerError:
    """The refusal of a job that a pull request started."""
    return ServerError(
        "job-pull-request",
        f"the job was started by a pull request ({what[:80]}): anybody can open one, so it publishes nothing; "
        "publish from a branch or a tag",
    )


def _github(claims: Claims) -> dict[str, Any]:
    event = _word(claims, "event_name")
    if event.startswith("pull_request"):
        raise pull_request(event)
    repository, workflow = _word(claims, "repository"), _word(claims, "job_workflow_ref")
    path, _, _ = workflow.partition("@")
    home = f"{repository}/.github/workflows/"
    if not path.lower().startswith(home.lower()):
        raise ServerError(
            "job-fork", f"the job runs {path[:160]!r}, a workflow of another repository than {repository!r}"
        )
    return {
        "repository": repository,
        "repository_id": _word(claims, "repository_id"),
        "workflow": path[len(home) :],
        "ref": _word(claims, "ref"),
        "run": claims.get("run_id"),
        "sha": claims.get("sha"),
        "actor": claims.get("actor_id"),
    }


def _gitlab(claims: Claims) -> dict[str, Any]:
    source = claims.get("pipeline_source")
    if source in ("merge_request_event", "external_pull_request_event"):
        raise pull_request(str(source))
    repository, config = _word(claims, "project_path"), _word(claims, "ci_config_ref_uri")
    path, _, _ = config.partition("@")
    home = f"{urlsplit(claims['iss']).netloc}/{repository}//"
    if not path.lower().startswith(home.lower()):
        raise ServerError(
            "job-fork", f"the job runs {path[:160]!r}, a configuration of another project than {repository!r}"
        )
    kinds = {"branch": "refs/heads/", "tag": "refs/tags/"}
    ref = claims.get("ref_path") or kinds.get(claims.get("ref_type", ""), "") + _word(claims, "ref")
    return {
        "repository": repository,
        "repository_id": _word(claims, "project_id"),
        "workflow": path[len(home) :],
        "ref": ref,
        "run": claims.get("pipeline_id"),
        "sha": claims.get("sha"),
        "actor": claims.get("user_id"),
    }


def _buildkite(claims: Claims) -> dict[str, Any]:
    if "pipeline_id" not in claims:
        raise ServerError(
            "job-token-invalid",
            "the token lacks pipeline_id: ask for it with `buildkite-agent oidc request-token --claim pipeline_id`",
        )
    branch, tag = str(claims.get("build_branch") or ""), claims.get("build_tag")
    if ":" in branch:  # how builds of forks are told apart there: `somebody:branch`
        raise ServerError("job-fork", f"the job was built for a fork's branch, {branch[:80]!r}")
    if branch.startswith("refs/") or not (tag or branch):
        raise pull_request(branch or "no branch")
    return {
        "repository": f"{_word(claims, 'organization_slug')}/{_word(claims, 'pipeline_slug')}",
        "repository_id": _word(claims, "pipeline_id"),
        "workflow": claims.get("step_key"),
        "ref": f"refs/tags/{tag}" if tag else f"refs/heads/{branch}",
        "run": claims.get("build_number"),
        "sha": claims.get("build_commit"),
    }


def _google(claims: Claims) -> dict[str, Any]:
    name, at, domain = _word(claims, "email").partition("@")
    project, dot, rest = domain.partition(".")
    if not at or not dot or rest != "iam.gserviceaccount.com" or claims.get("email_verified") is not True:
        raise ServerError("job-token-invalid", "the token is of no service account, which alone is a machine")
    return {"repository": f"{project}/{name}", "repository_id": _word(claims, "sub")}


def _circleci(claims: Claims) -> dict[str, Any]:
    if claims.get(f"{_CIRCLE}ssh-rerun") is not False:
        raise ServerError("job-token-invalid", "the job is a rerun with SSH: somebody may be inside of it")
    origin, _, user = _word(claims, f"{_CIRCLE}vcs-origin"), "", _word(claims, "sub").partition("/user/")[2]
    _, _, repository = origin.removeprefix("https://").partition("/")
    return {
        "repository": repository.removesuffix(".git"),
        "repository_id": _word(claims, f"{_CIRCLE}project-id"),
        "workflow": claims.get(f"{_CIRCLE}pipeline-definition-id"),
        "ref": _word(claims, f"{_CIRCLE}vcs-ref"),
        "run": claims.get(f"{_CIRCLE}workflow-id"),
        "actor": user.partition("/")[0] or None,
    }


def _mapped(claims: Claims, mapping: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {name: claims.get(claim) for name, claim in mapping.items()}
    for name in ("repository", "repository_id"):
        said[name] = _word(claims, mapping.get(name, name))
    return said


def _word(claims: Claims, name: str) -> str:
    value = claims.get(name)
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value:
        raise ServerError("job-token-invalid", f"the token does not say its {name}")
    return value


KINDS: Mapping[str, Callable[[Claims], dict[str, Any]]] = {
    "github": _github,
    "gitlab": _gitlab,
    "buildkite": _buildkite,
    "google": _google,
    "circleci": _circleci,
}
