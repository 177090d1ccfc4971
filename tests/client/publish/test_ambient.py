"""ambient.py: where each CI system keeps the token of a job, and what is said where it keeps none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest

from countermark.ambient import ambient_token, ask_program
from countermark.errors import MalformedError, NetworkError, UsageError
from countermark.fetch import HttpFetcher
from tests.jobissuer import running

AUDIENCE, TOKEN = "registry.test/trial", "aGVhZA.Ym9keQ.c2ln"


class Host:
    """What answers at the addresses that a job asks, and what it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body, self.asked = body, list[tuple[str, dict[str, str]]]()

    def get(self, url: str, *, headers: Mapping[str, str] | None = None, **_: Any) -> bytes:
        self.asked.append((url, dict(headers or {})))
        return self.body

    def post(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a token is asked for, never sent")


class Program:
    """A CI system's program, and what it was called with."""

    def __init__(self, prints: str = TOKEN + "\n") -> None:
        self.prints, self.called = prints, list[tuple[str, ...]]()

    def __call__(self, words: Sequence[str]) -> str:
        self.called.append(tuple(words))
        return self.prints


def test_github_gives_a_token_for_our_audience() -> None:
    """Asked at the job's own door with its own secret; one token for each question, made for this registry."""
    with running() as issuer:
        job = issuer.begin_job(issuer.github)
        tokens = [ambient_token(job, HttpFetcher(), AUDIENCE) for _ in range(2)]
        assert issuer.asked == ["/job/idtoken?api-version=2.0&audience=registry.test%2Ftrial"] * 2
        said = [jwt.decode(token, options={"verify_signature": False}) for token in tokens]
        assert [each["aud"] for each in said] == [AUDIENCE] * 2
        assert said[0]["jti"] != said[1]["jti"]
        with pytest.raises(NetworkError) as caught:
            ambient_token(job | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-nobody"}, HttpFetcher(), AUDIENCE)
        assert "of-nobody" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"value": 7}', b'{"value": "no token"}', b"{" * 9000])
def test_an_odd_answer_is_no_token(body: bytes) -> None:
    """What GitHub's door answers is read, not trusted; a secret in it would not be shown."""
    job = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://door.test/", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s"}
    with pytest.raises(MalformedError):
        ambient_token(job, Host(body), AUDIENCE)


@pytest.mark.parametrize(
    ("job", "expect"),
    [
        ({"COUNTERMARK_SIGN_ID_TOKEN": "sign", "COUNTERMARK_ID_TOKEN": "any"}, "sign"),
        ({"REGISTRY_TEST_TRIAL_ID_TOKEN": "named", "COUNTERMARK_ID_TOKEN": "any"}, "named"),
        ({"GITLAB_CI": "true", "REGISTRY_TEST_TRIAL_ID_TOKEN": "named"}, "named"),
        ({"COUNTERMARK_ID_TOKEN": "any", "CIRCLECI": "true", "BUILDKITE": "true"}, "any"),
    ],
)
def test_a_variable_goes_before_every_question(job: dict[str, str], expect: str) -> None:
    """GitLab puts its token there, and so does who knows better; nobody is asked then."""
    host, program = Host(b""), Program()
    assert ambient_token(job, host, AUDIENCE, ask=program) == expect
    assert not host.asked and not program.called


def test_google_is_asked_at_its_metadata_host() -> None:
    """With the header that tells it from a confused browser, for the full token, by either way in."""
    for job, where in (
        ({"GCE_METADATA_HOST": "127.0.0.1:9"}, "127.0.0.1:9"),
        ({"CLOUD_RUN_JOB": "x"}, "metadata.google.internal"),
    ):
        host = Host(TOKEN.encode())
        assert ambient_token(job, host, AUDIENCE) == TOKEN
        path = "/computeMetadata/v1/instance/service-accounts/default/identity"
        url = f"http://{where}{path}?audience=registry.test%2Ftrial&format=full"
        assert host.asked == [(url, {"Metadata-Flavor": "Google"})]


def test_buildkite_and_circleci_are_asked_by_their_own_programs() -> None:
    """Each with our audience; Buildkite also for the number by which a pipeline is known."""
    program = Program()
    assert ambient_token({"BUILDKITE": "true"}, Host(b""), AUDIENCE, ask=program) == TOKEN
    assert ambient_token({"CIRCLECI": "true"}, Host(b""), AUDIENCE, ask=program) == TOKEN
    (agent, circle) = program.called
    assert agent == (
        *("buildkite-agent", "oidc", "request-token", "--audience", AUDIENCE),
        *("--claim", "pipeline_id"),
    )
    assert circle[:-1] == ("circleci", "run", "oidc", "get", "--claims")
    assert json.loads(circle[-1]) == {"aud": AUDIENCE}
    with pytest.raises(MalformedError):
        ambient_token({"CIRCLECI": "true"}, Host(b""), AUDIENCE, ask=Program("usage: circleci"))


def test_a_real_program_is_run_and_its_refusal_said(tmp_path: Path) -> None:
    """It gets its words as they are, never through a shell; one that says no, or is not there, is named."""
    program = tmp_path / "buildkite-agent"
    script = '#!/bin/sh\n[ "$2" = "a;b $(id)" ] && echo "$1" || { echo "not  in a job" >&2; exit 3; }\n'
    program.write_text(script.replace("$(id)", "\\$(id)"), "utf-8")
    program.chmod(0o755)
    assert ask_program([str(program), "token", "a;b $(id)"]) == "token\n"
    with pytest.raises(UsageError, match="gives no OIDC token: not in a job"):
        ask_program([str(program), "oidc"])
    with pytest.raises(UsageError, match="gives no OIDC token"):
        ask_program([str(tmp_path / "nothing")])


def test_a_machine_that_is_no_job_hears_what_to_do() -> None:
    """With the audience and the variable's name to copy."""
    with pytest.raises(UsageError) as caught:
        ambient_token({}, Host(b""), AUDIENCE)
    hint = caught.value.hint or ""
    assert "id-token: write" in hint and f"REGISTRY_TEST_TRIAL_ID_TOKEN: aud: {AUDIENCE}" in hint


def test_the_page_names_every_way() -> None:
    """docs/reference/environment.md lists each variable that is looked at."""
    root = Path(__file__).parents[3]
    source = (root / "client/countermark/ambient.py").read_text("utf-8")
    page = (root / "docs/reference/environment.md").read_text("utf-8")
    asked = set(re.findall(r'"([A-Z][A-Z0-9_]{5,})"', source)) | {"ACTIONS_ID_TOKEN_REQUEST_URL"}
    assert len(asked) >= 7
    for name in asked:
        assert f"`{name}`" in page, name
