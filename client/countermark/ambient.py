"""Ambient tokens: the OIDC token that a CI system gives the job that runs here, for one audience.

    set by hand    COUNTERMARK_SIGN_ID_TOKEN or COUNTERMARK_ID_TOKEN
    GitLab         a variable that its `id_tokens:` made: REGISTRY_TEST_TRIAL_ID_TOKEN for registry.test/trial
    GitHub         GET $ACTIONS_ID_TOKEN_REQUEST_URL&audience=...    with the job's own bearer
    Google         GET http://metadata.google.internal/...identity?audience=...&format=full
    Buildkite      buildkite-agent oidc request-token --audience ... --claim pipeline_id
    CircleCI       circleci run oidc get --claims '{"aud": "..."}'

In this order, and the first that is there is asked; if it gives nothing, nobody else is. Whether the token is good
the registry says. It is a secret for as long as it lives: it is sent to the registry alone, and printed nowhere.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from countermark.errors import MalformedError, UsageError
from countermark.fetch import Fetcher, decode_json
from countermark.limits import AMBIENT_TIMEOUT, AMBIENT_TOKEN_MAX_BYTES

SIGNING, ANY = "COUNTERMARK_SIGN_ID_TOKEN", "COUNTERMARK_ID_TOKEN"
GOOGLE = ("GCE_METADATA_HOST", "CLOUD_RUN_JOB", "BUILDER_OUTPUT")  # one is set where Google runs a job
METADATA_HOST = "metadata.google.internal"
METADATA = "computeMetadata/v1/instance/service-accounts/default/identity"
Ask = Callable[[Sequence[str]], str]


def ask_program(words: Sequence[str]) -> str:
    """What a CI system's own program prints. UsageError: it is not there, or says no."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=AMBIENT_TIMEOUT.total_seconds()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{words[0]} gives no OIDC token: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
        raise UsageError(f"{' '.join(words[:3])} gives no OIDC token: {said}")
    return done.stdout


def ambient_token(
    environment: Mapping[str, str], fetcher: Fetcher, wanted: str, *, ask: Ask = ask_program
) -> str:
    """The token that this job's CI system gives it for the audience `wanted`. UsageError: there is none."""
    named = variable(wanted)
    for name in (SIGNING, named, ANY):
        if environment.get(name):
            return environment[name]
    if environment.get("ACTIONS_ID_TOKEN_REQUEST_URL") and environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        return _github(environment, fetcher, wanted)
    if any(environment.get(name) for name in GOOGLE):
        return _google(environment, fetcher, wanted)
    if environment.get("BUILDKITE") == "true":
        words = ("buildkite-agent", "oidc", "request-token", "--audience", wanted, "--claim", "pipeline_id")
        return _token(ask(words), "buildkite-agent")
    if environment.get("CIRCLECI") == "true":
        claims = json.dumps({"aud": wanted})
        return _token(ask(("circleci", "run", "oidc", "get", "--claims", claims)), "circleci")
    raise UsageError(
        "this job has no OIDC token",
        hint=f"GitHub: permissions: id-token: write; GitLab: id_tokens: {named}: aud: {wanted}; "
        f"elsewhere: put a token for audience {wanted} into {ANY}",
    )


def variable(wanted: str) -> str:
    """The variable that upload tools look for, and in which GitLab puts a token for this audience."""
    return re.sub(r"[^A-Z0-9]", "_", wanted.upper()) + "_ID_TOKEN"


def _github(environment: Mapping[str, str], fetcher: Fetcher, wanted: str) -> str:
    url, secret = (environment[f"ACTIONS_ID_TOKEN_REQUEST_{name}"] for name in ("URL", "TOKEN"))
    joint = "&" if "?" in url else "?"
    bearer = {"Authorization": f"Bearer {secret}"}
    raw = fetcher.get(
        f"{url}{joint}audience={quote(wanted, safe='')}", max_bytes=AMBIENT_TOKEN_MAX_BYTES, headers=bearer
    )
    try:
        return _token(decode_json(raw or b"")["value"], "GitHub")
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"the CI system gives a token in a way we can't read: {error!r}") from None


def _google(environment: Mapping[str, str], fetcher: Fetcher, wanted: str) -> str:
    host = environment.get("GCE_METADATA_HOST") or METADATA_HOST
    url = f"http://{host}/{METADATA}?audience={quote(wanted, safe='')}&format=full"
    raw = fetcher.get(url, max_bytes=AMBIENT_TOKEN_MAX_BYTES, headers={"Metadata-Flavor": "Google"})
    return _token((raw or b"").decode("ascii", "replace"), host)


def _token(text: object, whose: str) -> str:
    """The token in what was answered: three parts and no more. MalformedError never shows it."""
    found = text.strip() if isinstance(text, str) else ""
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", found):
        raise MalformedError(f"{whose} gives something else than a token, of {len(found)} characters")
    return found
