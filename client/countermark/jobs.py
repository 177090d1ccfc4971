"""A CI job that publishes without a stored secret: its OIDC token for a key of one run and an upload token.

    countermark trusted-publisher add demo --issuer https://token.actions.githubusercontent.com ...    once
    countermark publish --ci dist/*                                                                    in each job

The job asks its CI system (ambient.py) for a token that is made for this registry's origin, makes a key in memory,
signs the key's enrolment with it, and sends both. The registry checks the token and enrols the key for fifteen
minutes, under the trusted publisher that the owners signed; the key signs the files and is forgotten. No file of this
machine holds it.

What the token says is not proved here: it decides which of the trusted publishers we name in the enrolment. The
registry judges that, and the log's rules judge the registry.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.errors import MalformedError, NetworkError, PolicyError, UsageError
from countermark.fetch import Fetcher, decode_json
from countermark.limits import CI_KEY_SECONDS
from countermark.pins import Registry
from countermark.place import Place
from countermark.projectstate import ProjectState
from countermark.publish import ENROL_TIMEOUT, JSON, check_answer, check_proof, document_of
from countermark.session import Session
from countermark.statement import Envelope, KeySigner, Statement, sign
from countermark.trust import View


def audience(registry: Registry, fetcher: Fetcher) -> str:
    """For whom the job's token must be made; PolicyError where the registry takes none."""
    raw = fetcher.get(f"{registry.url}/_/oidc/audience", missing_ok=True)
    if raw is None:
        raise PolicyError(
            f"{registry.url} takes no tokens of CI jobs", hint="its operator names their issuers: ci.issuers"
        )
    try:
        return str(decode_json(raw)["audience"])
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{registry.url} names its audience in a way we can't read: {error!r}") from None


def enrol_run(
    view: View, fetcher: Fetcher, token: str, projects: Sequence[str], *, now: int
) -> tuple[KeySigner, Session, dict[str, int]]:
    """A key of this run, enrolled for these projects: the key, what uploads, and the index of each enrolment."""
    registry, signer = view.registry, KeySigner(Ed25519PrivateKey.generate())
    claims = _claims(token)
    envelopes = [_enrolment(view, fetcher, signer, project, claims) for project in projects]
    body = {"envelopes": [each.to_dict() for each in envelopes], "token": token}
    answer = fetcher.post(
        f"{registry.url}/_/oidc/enrol-keys",
        json.dumps(body).encode(),
        content_type=JSON,
        timeout=ENROL_TIMEOUT,
    )
    check_answer(answer, f"enrolling a key of this run for {', '.join(projects)}")
    document, found = document_of(answer), dict[str, int]()
    enrolments = document.get("enrolments")
    if not isinstance(enrolments, list) or len(enrolments) != len(projects):
        raise MalformedError(f"{registry.url} answers an enrolment in a way we can't read")
    for project, each in zip(projects, enrolments, strict=True):
        if type(each.get("index")) is not int or each.get("proof") is None:
            raise NetworkError(
                f"the enrolment for {project} was taken and is not in the log yet",
                hint="run the job again: its token is used up",
            )
        check_proof(view, str(each["proof"]).encode(), each["index"], str(each.get("leaf_hash")), now=now)
        found[project] = each["index"]
    session = Session("", "a job", "", 0, str(document.get("token")))
    return signer, session, found


def choose(publishers: Sequence[Mapping[str, Any]], claims: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The trusted publisher that this job's token seems to speak of; None: none of them."""
    said = [str(value).lower() for value in claims.values()]
    fits = [
        each
        for each in publishers
        if each["issuer"] == claims.get("iss") and str(each["repository_id"]).lower() in said
    ]
    # A job that is trusted by two workflows of its repository names one of them.
    named = [each for each in fits if any(str(each["workflow"]).lower() in word for word in said)]
    return next(iter(named or fits), None)


def _enrolment(
    view: View, fetcher: Fetcher, signer: KeySigner, project: str, claims: Mapping[str, Any]
) -> Envelope:
    state = ProjectState.fetch(fetcher, view.registry, project)
    publisher = choose(state.publishers, claims)
    if publisher is None:
        raise PolicyError(
            f"{project} trusts no job of {str(claims.get('iss'))[:120]} that this one could be "
            f"({str(claims.get('sub'))[:160]})",
            hint=f"an owner adds it: countermark trusted-publisher add {project} ...",
        )
    predicate = {
        "key": base64.b64encode(signer.public_key).decode(),
        **Place.parse(project).binding,
        "origin": view.trust_file.origin,
        "prev": publisher["leaf_hash"],
        "scope": "ci",
        "threshold": 1,
        "valid_for": CI_KEY_SECONDS,
    }
    return sign(Statement.about(f"key:{signer.keyid}", "key-enroll", predicate), signer)


def _claims(token: str) -> dict[str, Any]:
    """What the token says, unproved."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise UsageError("what the job has for an OIDC token is none: it has no three parts of JSON")
    return claims
