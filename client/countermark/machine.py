"""Machine identities: which job of which CI system did something, in clear, and what a project trusts of it.

What the registry writes into an entry after it has checked a job's OIDC token, shown on several lines:

    {"actor":"5f1e...","issuer":"https://token.actions.githubusercontent.com","ref":"refs/tags/v1.0",
     "repository":"acme/widgets","repository_id":"4711","run":"9001","sha":"77ab...","workflow":"release.yml"}

`issuer`, `repository`, `repository_id` and `workflow` must be those of a trusted publisher of the project, and `ref`
must fit its pattern. A repository is matched by name *and* by the number that its host gave it: a name can be left
and taken by somebody else, a number cannot. Names are in lower case, as hosts compare them; `run` and `sha` are for
readers.
`actor` is who started the job, a person: a digest under a salt that the registry keeps and forgets (ADR 30).

No member can hold an e-mail address: `@` and blanks are in no alphabet here. What does not fit is refused.
A ref is a branch or a tag: refs of pull requests have no form that could stand in an entry.

As a policy names such an identity (`identities.py`): `ci:ISSUER/REPO@WORKFLOW[#REF]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from countermark.canonical import encode_canonical
from countermark.digest import sha256
from countermark.values import pattern

TRUSTED: Final = (
    "issuer",
    "ref",
    "repository",
    "repository_id",
    "workflow",
)  # what makes a publisher this one
NO_WORKFLOW: Final = "-"  # of CI systems whose tokens name none

_ISSUER = pattern(
    r"(?:https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|http://(?:localhost|127\.0\.0\.1))(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]*)*"
)
_REPOSITORY = pattern(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+)*")
_REPOSITORY_ID = pattern(r"[A-Za-z0-9-]{1,64}")
_WORKFLOW = pattern(r"[A-Za-z0-9._/-]{1,255}")
_REF = pattern(r"refs/(?:heads|tags)/[A-Za-z0-9._/+-]{1,200}")
_PATTERN = pattern(r"refs/(?:heads|tags)/[A-Za-z0-9._/+-]{0,200}\*?")
_RUN = pattern(r"[A-Za-z0-9._-]{1,64}")
_SHA = pattern(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGEST = pattern(r"[0-9a-f]{64}")


def is_issuer(value: Any) -> bool:
    """Whether `value` is one issuer's URL: https, or http on this machine; never a pattern."""
    return _fits(_ISSUER, value)


def is_repository(value: Any) -> bool:
    """Whether `value` is a repository's name in lower case, `owner/name` at most hosts."""
    return _fits(_REPOSITORY, value)


def is_repository_id(value: Any) -> bool:
    return _fits(_REPOSITORY_ID, value)


def is_workflow(value: Any) -> bool:
    """Whether `value` names a workflow: a file, or `-` where the issuer says nothing about one."""
    return _fits(_WORKFLOW, value)


def is_ref(value: Any) -> bool:
    """Whether `value` is a branch or a tag, in full: `refs/tags/v1.0`."""
    return _fits(_REF, value)


def is_ref_pattern(value: Any) -> bool:
    """Whether `value` is a ref, or the beginning of some and a star: `refs/tags/v*`."""
    return _fits(_PATTERN, value) and len(value) > len("refs/tags/")


def is_identity(value: Any) -> bool:
    """Whether `value` is a machine identity as an entry may hold it."""
    return (
        type(value) is dict
        and value.keys() == _MEMBERS.keys()
        and all(_MEMBERS[name](member) for name, member in value.items())
    )


def publisher_id(said: Mapping[str, Any]) -> str:
    """By which a trusted publisher is known: the digest of all that it must match."""
    return sha256(encode_canonical({name: said[name] for name in TRUSTED})).hexdigest()


def why_not(publisher: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Why an identity is not the one that this trusted publisher is; None when it is."""
    for name in ("issuer", "repository_id", "repository", "workflow"):
        if identity[name] != publisher[name]:
            return f"its {name} is {identity[name]!r}, the trusted one is {publisher[name]!r}"
    if not ref_fits(publisher["ref"], identity["ref"]):
        return f"its ref is {identity['ref']!r}, trusted is {publisher['ref']!r}"
    return None


def ref_fits(pattern: str | None, ref: str | None) -> bool:
    """Whether a pattern takes a ref; no pattern takes every branch and tag, and what has no ref."""
    if pattern is None:
        return True
    if ref is None:
        return False
    return ref.startswith(pattern[:-1]) if pattern.endswith("*") else ref == pattern


def sentence(identity: Mapping[str, Any]) -> str:
    """One identity in words for people."""
    ref = "" if identity["ref"] is None else f" at {identity['ref']}"
    workflow = "" if identity["workflow"] == NO_WORKFLOW else f", {identity['workflow']}"
    return f"{identity['repository']}{workflow}{ref} ({identity['issuer']})"


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return type(value) is str and len(value) <= 255 and pattern.fullmatch(value) is not None


_MEMBERS: Final = {
    "actor": lambda value: value is None or _fits(_DIGEST, value),
    "issuer": is_issuer,
    "ref": lambda value: value is None or is_ref(value),
    "repository": is_repository,
    "repository_id": is_repository_id,
    "run": lambda value: value is None or _fits(_RUN, value),
    "sha": lambda value: value is None or _fits(_SHA, value),
    "workflow": is_workflow,
}
