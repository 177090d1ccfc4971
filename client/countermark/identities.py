"""Identities: how a policy names who must have signed.

    40c3f0a1...  or  key:40c3f0a1...                          a key, or one that it vouches for
    ci:https://gitlab.com/acme/widgets@.gitlab-ci.yml         jobs of one workflow of one repository
    ci:gitlab.com/acme/widgets@.gitlab-ci.yml#refs/tags/v*    the same, for these tags alone

`ci:ISSUER/REPO@WORKFLOW[#REF]`: https is meant where the issuer names no scheme; a ref may end with a star. It is met
by the identity that the registry has checked and the project's keys have trusted, so it says less than a key does:
the registry's word is part of it. The other way round a job's key meets no pin on the key behind its trust.

Where two issuers share a host, one may spell the beginning of the other's repositories; who chooses a policy knows
the issuers that a registry takes (`ci.issuers`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from countermark.errors import UsageError
from countermark.machine import is_ref_pattern, is_repository, is_workflow, ref_fits
from countermark.values import pattern

CI, KEY = "ci:", "key:"
_FORM: Final = pattern(r"ci:(https?://)?([^@#]+)@([^@#]+)(?:#([^@#]+))?")


def check_form(identity: str) -> str:
    """The same, if it is a form that can be met. UsageError: it never is, and would refuse everything."""
    if identity.startswith(KEY) and not re.fullmatch(r"key:[0-9a-f]{64}", identity):
        raise UsageError(
            f"{identity[:100]!r} is no key: 64 hexadecimal digits follow", hint="countermark key list"
        )
    if identity.startswith(CI):
        found = _FORM.fullmatch(identity)
        where = found[2].rpartition("/")[2] if found else ""
        if (
            found is None
            or "/" not in found[2]
            or not is_repository(where)
            or not is_workflow(found[3])
            or (found[4] is not None and not is_ref_pattern(found[4]))
        ):
            raise UsageError(
                f"{identity[:200]!r} names no job",
                hint="ci:ISSUER/REPO@WORKFLOW[#REF], such as ci:gitlab.com/acme/widgets@.gitlab-ci.yml#refs/tags/*",
            )
    return identity


def meets(pins: Collection[str], keyids: Collection[str], job: Mapping[str, Any] | None) -> bool:
    """Whether one of the pins names one of these keys, or this job."""
    return any(
        (job is not None and _is_job(pin, job)) if pin.startswith(CI) else pin.removeprefix(KEY) in keyids
        for pin in pins
    )


def form_of(job: Mapping[str, Any]) -> str:
    """How a policy names this job's workflow, whatever ref it ran for."""
    return f"{CI}{job['issuer'].rstrip('/')}/{job['repository']}@{job['workflow']}"


def _is_job(pin: str, job: Mapping[str, Any]) -> bool:
    found = _FORM.fullmatch(pin)
    if found is None:
        return False
    named = f"{CI}{found[1] or 'https://'}{found[2]}@{found[3]}"
    return named == form_of(job) and ref_fits(found[4], job["ref"])
