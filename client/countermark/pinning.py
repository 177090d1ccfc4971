"""Pinning: whose signature a project must have, kept in countermark.toml and in pylock.toml, and moved knowingly.

    acme: 9f86d081... -> 40c3f0a1...                    what `pin update` says of a project
        entry #31 enrols 40c3f0a1..., signed by 9f86d081..., too

A key changes when a publisher rotates it, and then the log says so: the older key has signed the newer one's
enrolment. A pin on the older key still holds, since it vouches. What nothing in the log connects is another matter:
it is the registry's word alone, and a pin is there because that is not enough. Such a pin is moved only by who says
so.

In a pylock.toml (PEP 751) a package's signers stand in `attestation-identities`, as tables of kind "countermark":

    attestation-identities = [{ kind = "countermark", key = "40c3f0a1..." }]

Files are edited line by line and parsed again (edits.py); what is written in a way we do not edit is left alone.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from countermark.edits import line_end, lines_of, statement
from countermark.errors import UsageError
from countermark.lockfile import IDENTITY_KIND
from countermark.names import is_project, matches, normalise_project
from countermark.signature import SignedBy
from countermark.values import dataclass
from countermark.verified import Outcome, Verified

BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)  # a key of TOML that needs no quotes


@dataclass(frozen=True)
class Move:
    """What becomes of one project's pin: from these keys to this one, and which entries say why."""

    project: str
    old: frozenset[str]
    new: str
    because: tuple[str, ...]
    is_connected: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "because": list(self.because),
            "connected": self.is_connected,
            "new": self.new,
            "old": sorted(self.old),
            "project": self.project,
        }


def newest_signer(outcomes: Iterable[Outcome]) -> SignedBy | None:
    """Who signed the newest of a project's files that a publisher signed."""
    signed = [o for o in outcomes if isinstance(o, Verified) and o.signed_by is not None]
    found = [o for o in signed if o.signed_by is not None and _lasts(o.signed_by)]
    return max(found, key=lambda outcome: outcome.index).signed_by if found else None


def _lasts(signed_by: SignedBy) -> bool:
    """Whether it is a key to pin: a publisher's, and not that of one run of a job."""
    return signed_by.party == "publisher" and signed_by.identity is None


def move(project: str, old: frozenset[str], signed_by: SignedBy) -> Move | None:
    """The pin's way to who signs now; None where the pin is on that very key."""
    if signed_by.keyid in old:
        return None
    because: list[str] = []
    links = signed_by.chain
    for (index, key), older in zip(links, (*links[1:], None), strict=True):
        if older is None:
            because.append(f"entry #{index} enrols {key}, on the registry's word")
        else:
            because.append(f"entry #{index} enrols {key}, signed by {older[1]}, too")
        if older is None or older[1] in old:
            break
    return Move(project, old, signed_by.keyid, tuple(because), signed_by.meets(old))


# --- countermark.toml -------------------------------------------------------------------------------------


def with_pins(text: str, path: Path, pins: Mapping[str, Sequence[str]]) -> str:
    """A policy file with these pins in its table `pins`, and everything else as it was."""
    document = _parsed(text, path)
    pins = {name: keys for project, keys in pins.items() for name in _spelled(document, project)}
    wanted = {**document, "pins": {**document.get("pins", {}), **{k: list(v) for k, v in pins.items()}}}
    lines, end = lines_of(text), line_end(text)
    for project, keys in pins.items():
        line = f"{_key(project)} = {json.dumps(list(keys))}{end}"
        old = statement(lines, ("pins",), project)
        if old:
            lines[old[0] : old[-1] + 1] = [line]
            continue
        header = next((n for n, each in enumerate(lines) if each.split("#")[0].strip() == "[pins]"), None)
        if header is None:
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += end
            lines += [end] * bool(lines) + [f"[pins]{end}", line]
        else:
            lines[header] = lines[header].rstrip("\r\n") + end
            lines.insert(header + 1, line)
    return _checked(
        "".join(lines), path, wanted, "; ".join(f"{k} = {json.dumps(list(v))}" for k, v in pins.items())
    )


def _spelled(document: Mapping[str, Any], project: str) -> list[str]:
    """How the file names this project; all of its spellings count, so none may keep the old keys."""
    written = [name for name in document.get("pins", {}) if is_project(name) and matches(name, project)]
    return written or [project]


def _key(project: str) -> str:
    return project if BARE.fullmatch(project) else json.dumps(project)


# --- pylock.toml ------------------------------------------------------------------------------------------


def signers_of(outcomes: Iterable[Outcome]) -> dict[str, frozenset[str]]:
    """The keys that signed each project's files; a project is left out where a publisher signed not all of them."""
    found: dict[str, frozenset[str]] = {}
    without: set[str] = set()
    for outcome in outcomes:
        project = outcome.artifact.project
        signed_by = outcome.signed_by if isinstance(outcome, Verified) else None
        if signed_by is None or not _lasts(signed_by):
            without.add(project)
        else:
            found[project] = found.get(project, frozenset()) | {signed_by.keyid}
    return {project: keys for project, keys in found.items() if project not in without}


def annotated(text: str, path: Path, signers: Mapping[str, frozenset[str]]) -> str:
    """A pylock.toml with the signers of its packages, in the place of those of our kind that were there."""
    document = _parsed(text, path)
    lines, end = lines_of(text), line_end(text)
    headers = [n for n, line in enumerate(lines) if line.split("#")[0].strip() == "[[packages]]"]
    packages = document.get("packages", [])
    if not isinstance(packages, list) or len(packages) != len(headers):
        raise UsageError(f'"{path}" has {len(headers)} [[packages]] of {len(packages)} that we find')
    for package, header, stop in reversed(
        list(zip(packages, headers, [*headers[1:], len(lines)], strict=True))
    ):
        identities = _identities(package, signers)
        part = lines[header:stop]
        old = statement(part, ("packages",), "attestation-identities")
        if package.get("attestation-identities", []) == identities:
            continue
        for number in reversed(old):
            del part[number]
        if identities:
            tables = (", ".join(f"{_key(k)} = {json.dumps(v)}" for k, v in i.items()) for i in identities)
            part.insert(1, f"attestation-identities = [{', '.join(f'{{ {t} }}' for t in tables)}]{end}")
            package["attestation-identities"] = identities
        else:
            package.pop("attestation-identities", None)
        lines[header:stop] = part
    return _checked("".join(lines), path, document, "attestation-identities of each package")


def unannotated(text: str, path: Path) -> list[str]:
    """The packages that name no signer of our kind."""
    packages = _parsed(text, path).get("packages", [])
    return [str(package["name"]) for package in packages if not _ours(package)]


def _identities(package: Mapping[str, Any], signers: Mapping[str, frozenset[str]]) -> list[dict[str, Any]]:
    """What others wrote there, and who signed by the log."""
    kept = [item for item in package.get("attestation-identities", []) if item.get("kind") != IDENTITY_KIND]
    keys = sorted(signers.get(normalise_project(str(package["name"])), ()))
    return kept + [{"kind": IDENTITY_KIND, "key": key} for key in keys]


def _ours(package: Mapping[str, Any]) -> bool:
    return any(item.get("kind") == IDENTITY_KIND for item in package.get("attestation-identities", []))


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f'"{path}" is not TOML: {error}') from None


def _checked(text: str, path: Path, wanted: Mapping[str, Any], by_hand: str) -> str:
    """The edited text, if it says exactly what was wanted."""
    try:
        is_right = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise UsageError(f'"{path}" is written in a way that we do not edit', hint=f"write there: {by_hand}")
    return text
