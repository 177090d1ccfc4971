"""Teams in a policy: a name for the keys of some people, which the reader of the file has from them.

    [teams]
    ml = ["9f86d081...", "40c3f0a1..."]       # handed over by the team, not by the registry

    [[pattern]]
    project = "acme-ml-*"
    keys = ["team:ml"]

The log makes no key a team's: it knows accounts, and only the registry knows whose they are. A list that the registry
could change would say who signs on the registry's word, so this one stands in the file that demands it (ADR 32).
`team:ml` may stand wherever a policy lists keys; a name that the file does not explain is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from countermark.errors import UsageError

PREFIX = "team:"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_SIGNER = re.compile(r"[0-9a-f]{64}|ci:\S+")  # a key, or a job as policies name it


def spelled_out(document: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's document with every `team:NAME` replaced by the team's keys. UsageError: a name without keys."""
    rest = dict(document)
    teams = _teams(rest.pop("teams", {}))
    for word in ("pattern", "log-only"):
        if isinstance(tables := rest.get(word), list):
            rest[word] = [
                {**each, "keys": _keys(each["keys"], teams)}
                if isinstance(each, dict) and isinstance(each.get("keys"), list)
                else each
                for each in tables
            ]
    if isinstance(pins := rest.get("pins"), dict):
        rest["pins"] = {
            project: _keys(keys, teams) if isinstance(keys, list) else keys for project, keys in pins.items()
        }
    return rest


def _teams(table: object) -> dict[str, list[str]]:
    if not isinstance(table, dict):
        raise UsageError("teams is a table of names and their keys")
    for name, keys in table.items():
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a team: small letters, digits and dashes")
        if (
            not isinstance(keys, list)
            or not keys
            or not all(isinstance(key, str) and _SIGNER.fullmatch(key) for key in keys)
        ):
            raise UsageError(
                f"team {name}: its keys are a list of keyids, 64 hexadecimal digits each, or of jobs (ci:...)"
            )
    return table


def _keys(keys: list[Any], teams: Mapping[str, list[str]]) -> list[Any]:
    found = list[Any]()
    for key in keys:
        if not (isinstance(key, str) and key.startswith(PREFIX)):
            found.append(key)
        elif (name := key.removeprefix(PREFIX)) in teams:
            found += teams[name]
        else:
            raise UsageError(
                f"{key} is not explained: this file has "
                + (f"the teams {', '.join(sorted(teams))}" if teams else "no [teams]"),
                hint="no registry is asked for a team's keys: write them into [teams], as the team gave them to you",
            )
    return found
