"""Statements ahead: hand the registry a publisher's signature before the file it is about.

    countermark sign --submit dist/*
    twine upload dist/*                    (or uv publish, or poetry publish: any tool, no attestations)

The registry keeps the statement for a day and takes it for the publish entry of the upload that has exactly this
project, file name and SHA-256. Its answer proves nothing and need not: whether the file was logged with this
signature is seen in the log afterwards (`countermark status`, `countermark verify`).
"""

from __future__ import annotations

import json

from countermark.distribution import Distribution
from countermark.errors import MalformedError
from countermark.fetch import Fetcher
from countermark.pins import Registry
from countermark.publish import JSON, check_answer, document_of
from countermark.session import Session
from countermark.statement import Envelope


def submit(
    registry: Registry, fetcher: Fetcher, session: Session, distribution: Distribution, envelope: Envelope
) -> int | None:
    """Hand in the statement of one file; until when it waits, or None where the file is logged already.

    The upload token suffices, so this works where `publish` would: in CI, and after a sign-in has expired.
    """
    answer = fetcher.post(
        f"{registry.url}/api/v1/statements",
        json.dumps({"envelope": envelope.to_dict()}).encode(),
        content_type=JSON,
        headers={"Authorization": f"Bearer {session.upload_token}"},
        idempotent=True,  # the registry keeps one statement for one file
    )
    check_answer(answer, f"submitting the statement of {distribution.filename}")
    document = document_of(answer)
    state, expires = document.get("state"), document.get("expires")
    if state == "logged":
        return None
    if state != "waiting" or type(expires) is not int:
        raise MalformedError(
            f"{registry.url} answers a statement of {distribution.filename} in a way we can't read: "
            f"state {str(state)[:40]!r}, expires {str(expires)[:40]!r}"
        )
    return expires
