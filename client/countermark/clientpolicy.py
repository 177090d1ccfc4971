"""The client's policy: how strict to be about what is true but not good enough.

    mode = "enforce"                          # observe | warn | enforce

    [[pattern]]
    project = "acme-*"
    mode = "enforce"
    keys = ["9f86d081..."]                    # pins: a publish by any other key is refused

    [[exception]]
    project = "old-thing"
    reason = "vendor signs from March on"
    approver = "ops"
    expires = 2026-03-31

    [[log-only]]
    namespace = "corp"                        # it serves its files elsewhere: the log is enough
    keys = ["40c3f0a1..."]                    # and optionally, from these keys alone

Two policies meet. The *central* one comes through TUF in the trust file; the *local* one is `policy.toml`
in the client's home. Central wins unless the local one is stricter, so a local file can tighten and never
loosen; for the same reason an exception excuses only what the local file alone demanded.

The mode decides about findings of exit code 5 (unsigned, wrong identity, no entry, not provable) and 4 (too
old). Withdrawn files (6) pass only under `observe`. Tamper, fork and rollback (7) are refused in every
mode: no policy can allow a contradiction. Exceptions that were used are shown in every result, expired ones
are ignored.

Whether it is enough that a file is in the log, listed by no TUF and seen by no scanner, is for this machine
alone to say, namespace by namespace (`log-only`): the central policy is about what the registry lists.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from enum import IntEnum
from pathlib import Path
from typing import Any

from countermark.disk import read_file
from countermark.errors import UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES
from countermark.trustfile import CentralPolicy
from countermark.values import dataclass, field, replace


class Mode(IntEnum):
    """How strict; a greater value is stricter."""

    OBSERVE = 0
    WARN = 1
    ENFORCE = 2

    @classmethod
    def parse(cls, word: object) -> Mode:
        for mode in cls:
            if mode.word == word:
                return mode
        raise UsageError(f'policy mode "{word}" is none of observe, warn, enforce')

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Rule:
    """One pattern of project names with its mode and, locally, its pinned keys."""

    project: str
    mode: Mode
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Exemption:
    """Someone decided to let a project pass until a day, and signed their name under it."""

    project: str
    reason: str
    approver: str
    expires: int

    def sentence(self) -> str:
        until = datetime.fromtimestamp(self.expires, UTC).date()
        return f'exception for {self.project} until {until}: "{self.reason}", approved by {self.approver}'


@dataclass(frozen=True)
class LogOnly:
    """Someone decided that for the files of a namespace the log is enough, from these keys if any are named."""

    namespace: str
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """What the policy makes of one failure: refused, or let pass with these words."""

    refused: bool
    mode: Mode
    because: str


@dataclass(frozen=True)
class ClientPolicy:
    """One source's wishes. `Mode.WARN` is what someone gets who never wrote a policy."""

    mode: Mode = Mode.WARN
    rules: tuple[Rule, ...] = ()
    exceptions: tuple[Exemption, ...] = ()
    log_only: tuple[LogOnly, ...] = ()

    def mode_for(self, project: str) -> Mode:
        """The strictest of the global mode and every pattern that matches."""
        return max([self.mode, *(rule.mode for rule in self.rules if _matches(rule.project, project))])

    def pins_for(self, project: str) -> frozenset[str]:
        """The key IDs a publish of this project must come from; empty: any enrolled key."""
        pins = [rule.keys for rule in self.rules if rule.keys and _matches(rule.project, project)]
        return frozenset().union(*pins)

    def exception_for(self, project: str, *, now: int) -> Exemption | None:
        return next((e for e in self.exceptions if e.expires > now and _matches(e.project, project)), None)


@dataclass(frozen=True)
class Policies:
    """The central and the local policy together."""

    central: CentralPolicy = field(default_factory=lambda: CentralPolicy(min_tree_size=0, mode="warn"))
    local: ClientPolicy = field(default_factory=lambda: ClientPolicy(mode=Mode.OBSERVE))

    def with_central(self, central: CentralPolicy) -> Policies:
        """These policies under the central one that the trust file brought."""
        return replace(self, central=central)

    def mode_for(self, project: str) -> Mode:
        """The stricter of the two."""
        return max(Mode.parse(self.central.mode_for(project)), self.local.mode_for(project))

    def decide(self, project: str, exit_code: int, *, now: int) -> Decision:
        """Whether a failure of this exit code refuses this project."""
        central, local = Mode.parse(self.central.mode_for(project)), self.local.mode_for(project)
        mode = max(central, local)
        if exit_code not in (4, 5, 6):
            return Decision(True, mode, "refused in every mode")
        exemption = self.local.exception_for(project, now=now)
        if exemption is not None and local > central:
            # The exception lifts what only the local file demanded.
            mode, because = central, exemption.sentence()
        else:
            because = f"policy mode {mode.word}"
        limit = Mode.WARN if exit_code == 6 else Mode.ENFORCE
        return Decision(mode >= limit, mode, because)

    def pins_for(self, project: str) -> frozenset[str]:
        return self.local.pins_for(project)

    def log_only_for(self, namespace: str) -> LogOnly | None:
        """What this machine says of files that are in the log only; None: nothing, so they are refused."""
        return next((each for each in self.local.log_only if each.namespace == namespace), None)


def load_policy(path: Path) -> ClientPolicy:
    """The local policy file; without one, nothing is demanded locally. Unknown words are refused."""
    raw = read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES)
    if raw is None:
        return ClientPolicy(mode=Mode.OBSERVE)
    import tomllib  # noqa: PLC0415  (most machines have no such file)

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'policy "{path}" is not TOML: {error}') from None
    _only(path, document, {"mode", "pattern", "exception", "log-only"})
    return ClientPolicy(
        mode=Mode.parse(document.get("mode", "observe")),
        rules=tuple(_rule(path, item) for item in _tables(path, document, "pattern")),
        exceptions=tuple(_exemption(path, item) for item in _tables(path, document, "exception")),
        log_only=tuple(_log_only(path, item) for item in _tables(path, document, "log-only")),
    )


def _rule(path: Path, item: Mapping[str, Any]) -> Rule:
    _only(path, item, {"project", "mode", "keys"})
    keys = item.get("keys", [])
    if not isinstance(item.get("project"), str) or not isinstance(keys, list):
        raise UsageError(f'policy "{path}": a pattern needs a project name and a list of keys')
    return Rule(item["project"], Mode.parse(item.get("mode", "enforce")), frozenset(map(str, keys)))


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
    return LogOnly(namespace, frozenset(map(str, keys)))


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


def _matches(pattern: str, project: str) -> bool:
    return fnmatch.fnmatchcase(project, pattern)
