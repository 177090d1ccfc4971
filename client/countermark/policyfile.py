"""Policy files: `policy.toml` in the client's home and `countermark.toml` in a project, as people write them.

    mode = "enforce"                          # observe | warn | enforce

    [[pattern]]
    project = "acme-*"
    mode = "enforce"
    keys = ["9f86d081..."]                    # pins: a publish by any other key is refused (identities.py)

    [[exception]]
    project = "old-thing"
    reason = "vendor signs from March on"
    approver = "ops"
    expires = 2026-03-31

    [[log-only]]
    namespace = "corp"                        # it serves its files elsewhere: the log is enough
    keys = ["40c3f0a1..."]                    # and optionally, from these keys alone

    [pins]                                    # whose keys these are was found out by other means than this registry
    acme = ["9f86d081..."]

What these mean is for clientpolicy.py, what may be demanded for demands.py, who may be named for identities.py and
teams.py. A word that none of them knows is refused: a policy that is misspelled would else protect from nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from countermark.clientpolicy import ClientPolicy, Exemption, LogOnly, Mode, Policies, Rule
from countermark.demands import KNOWN, read_demands
from countermark.disk import read_file
from countermark.errors import UsageError
from countermark.identities import check_form
from countermark.limits import LOCAL_FILE_MAX_BYTES

PROJECT_POLICY = "countermark.toml"


def load_policies(home_file: Path, folder: Path, environment: Mapping[str, str]) -> Policies:
    """The policy of this user, and of the project that `folder` is in: the nearest `countermark.toml`."""
    local = load_policy(home_file)
    found = project_policy(folder)
    project = ClientPolicy(mode=Mode.OBSERVE) if found is None else load_policy(found)
    if project.log_only:
        raise UsageError(f'policy "{found}": log-only is for this machine to say, in "{home_file}"')
    is_ci = environment.get("CI", "").lower() in ("1", "true", "yes")
    return Policies(local=local, project=project, is_ci=is_ci)


def project_policy(folder: Path) -> Path | None:
    """The `countermark.toml` of the project a folder is in: no further up than the repository's root."""
    for each in (folder, *folder.parents):
        if (each / PROJECT_POLICY).is_file():
            return each / PROJECT_POLICY
        if (each / ".git").exists():
            return None
    return None


def load_policy(path: Path) -> ClientPolicy:
    """A policy file; without one, nothing is demanded. Unknown words are refused."""
    raw = read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES)
    if raw is None:
        return ClientPolicy(mode=Mode.OBSERVE)
    import tomllib  # noqa: PLC0415  (most machines have no such file)

    from countermark.teams import spelled_out  # noqa: PLC0415

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'policy "{path}" is not TOML: {error}') from None
    _only(path, document, {"mode", "pattern", "pins", "exception", "log-only", "teams"} | KNOWN)
    try:
        document = spelled_out(document)
        demands = read_demands(document)
    except UsageError as error:
        raise UsageError(f'policy "{path}": {error}', hint=error.hint) from None
    rules = [_rule(path, item) for item in _tables(path, document, "pattern")]
    return ClientPolicy(
        mode=Mode.parse(document.get("mode", "observe")),
        rules=(*rules, *_pins(path, document)),
        exceptions=tuple(_exemption(path, item) for item in _tables(path, document, "exception")),
        log_only=tuple(_log_only(path, item) for item in _tables(path, document, "log-only")),
        demands=demands,
        says_mode="mode" in document,
        source=str(path),
    )


def _rule(path: Path, item: Mapping[str, Any]) -> Rule:
    _only(path, item, {"project", "mode", "keys"})
    keys = item.get("keys", [])
    if not isinstance(item.get("project"), str) or not isinstance(keys, list):
        raise UsageError(f'policy "{path}": a pattern needs a project name and a list of keys')
    mode = Mode.parse(item.get("mode", "enforce"))
    return Rule(item["project"], mode, _identities(path, keys), binds=mode)


def _pins(path: Path, document: Mapping[str, Any]) -> Iterator[Rule]:
    """A pin is a pattern that asks for nothing but its keys; for these as its file asks, and else strictly."""
    table, binds = document.get("pins", {}), Mode.parse(document.get("mode", "enforce"))
    if not isinstance(table, dict):
        raise UsageError(f'policy "{path}": pins is a table of projects and their keys')
    for project, keys in table.items():
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
            raise UsageError(f'policy "{path}": the pin of {project} is a list of keys')
        yield Rule(project, Mode.OBSERVE, _identities(path, keys), binds=binds)


def _identities(path: Path, keys: list[Any]) -> frozenset[str]:
    try:
        return frozenset(check_form(str(key)) for key in keys)
    except UsageError as error:
        raise UsageError(f'policy "{path}": {error}', hint=error.hint) from None


def _exemption(path: Path, item: Mapping[str, Any]) -> Exemption:
    names = {"project", "reason", "approver", "expires"}
    _only(path, item, names)
    missing = sorted(names - item.keys())
    if missing:
        raise UsageError(f'policy "{path}": an exception needs {", ".join(missing)}')
    if not isinstance(item["expires"], date):
        raise UsageError(f'policy "{path}": an exception expires on a day such as 2026-03-31')
    day = item["expires"].date() if isinstance(item["expires"], datetime) else item["expires"]
    expires = int(datetime.combine(day, time(), UTC).timestamp())
    return Exemption(str(item["project"]), str(item["reason"]), str(item["approver"]), expires)


def _log_only(path: Path, item: Mapping[str, Any]) -> LogOnly:
    _only(path, item, {"namespace", "keys"})
    keys, namespace = item.get("keys", []), item.get("namespace")
    if not isinstance(namespace, str) or not namespace or not isinstance(keys, list):
        raise UsageError(f'policy "{path}": log-only needs a namespace, and may have a list of keys')
    return LogOnly(namespace, _identities(path, keys))


def _tables(path: Path, document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f'policy "{path}": write [[{name}]]')
    return tables


def _only(path: Path, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise UsageError(
            f'policy "{path}": unknown {", ".join(unknown)}', hint=f"known: {', '.join(sorted(known))}"
        )
