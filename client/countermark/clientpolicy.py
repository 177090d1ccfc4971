"""The client's policy: how strict to be about what is true but not good enough.

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

Three policies meet. The *central* one comes through TUF in the trust file; the *local* one is `policy.toml`
in the client's home; the *project's* is `countermark.toml`, in this folder or the nearest above it. The strictest
wins, so a file can tighten and never loosen; for the same reason an exception excuses only what its own file
demanded. Beside modes and pins each may have demands (demands.py): a cool-down, an age, allowed names.

The mode decides about findings of exit code 5 (unsigned, wrong identity, no entry, not provable) and 4 (too
old). Withdrawn files (6) pass only under `observe`. Tamper, fork and rollback (7) are refused in every
mode: no policy can allow a contradiction. A demand is decided by the mode of the file it stands in, `enforce` where
that names none. Exceptions in force are shown in every result. Expired ones are ignored, and so are those that last
longer than 30 days from now, with a remark: an exception is renewed, or it is a decision for ever.

Whether it is enough that a file is in the log, listed by no TUF and seen by no scanner, is for this machine
alone to say, namespace by namespace (`log-only`): the central policy is about what the registry lists.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from enum import IntEnum
from pathlib import Path
from typing import Any

from countermark.demands import KNOWN as DEMANDS
from countermark.demands import Demands, Facts, read_demands
from countermark.disk import read_file
from countermark.errors import CountermarkError, UsageError
from countermark.identities import check_form
from countermark.limits import EXCEPTION_MAX, LOCAL_FILE_MAX_BYTES
from countermark.teams import spelled_out
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

    def is_in_force(self, now: int) -> bool:
        """Not expired, and not for longer than an exception may be."""
        return 0 < self.expires - now <= EXCEPTION_MAX.total_seconds()


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
    demands: Demands = field(default_factory=Demands)
    says_mode: bool = False  # whether the file names a mode; demands are enforced where it does not
    source: str = "the local policy"

    def mode_for(self, project: str) -> Mode:
        """The strictest of the global mode and every pattern that matches."""
        return max([self.mode, *(rule.mode for rule in self.rules if _matches(rule.project, project))])

    def pins_for(self, project: str) -> frozenset[str]:
        """The key IDs a publish of this project must come from; empty: any enrolled key."""
        pins = [rule.keys for rule in self.rules if rule.keys and _matches(rule.project, project)]
        return frozenset().union(*pins)

    def exception_for(self, project: str, *, now: int) -> Exemption | None:
        found = (e for e in self.exceptions if e.is_in_force(now) and _matches(e.project, project))
        return next(found, None)

    def demand_mode(self, project: str) -> Mode:
        """How strict this file's own demands are."""
        return self.mode_for(project) if self.says_mode else Mode.ENFORCE

    def exception_words(self, now: int) -> list[str]:
        """Every exception that counts, and every one that does not because it lasts too long."""
        told = [e.sentence() for e in self.exceptions if e.is_in_force(now)]
        days = EXCEPTION_MAX.days
        ignored = [e.sentence() for e in self.exceptions if e.expires - now > EXCEPTION_MAX.total_seconds()]
        return told + [f"ignored, since it lasts longer than {days} days: {words}" for words in ignored]


Objection = tuple[CountermarkError, Decision]


@dataclass(frozen=True)
class Policies:
    """The central, the local and the project's policy together, and what a lock pins."""

    central: CentralPolicy = field(default_factory=lambda: CentralPolicy(min_tree_size=0, mode="warn"))
    local: ClientPolicy = field(default_factory=lambda: ClientPolicy(mode=Mode.OBSERVE))
    project: ClientPolicy = field(default_factory=lambda: ClientPolicy(mode=Mode.OBSERVE))
    lock_pins: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_ci: bool = False
    is_strict: bool = False  # the registry's demands are enforced, whatever its mode

    def with_central(self, central: CentralPolicy) -> Policies:
        """These policies under the central one that the trust file brought."""
        return replace(self, central=central)

    def mode_for(self, project: str) -> Mode:
        """The strictest of them."""
        return max(Mode.parse(self.central.mode_for(project)), *(p.mode_for(project) for p in self._files))

    @property
    def _files(self) -> tuple[ClientPolicy, ClientPolicy]:
        return (self.local, self.project)

    def strictly(self) -> Policies:
        """The same as CI would have it, if the project's file (this user's, where it has none) said `enforce`."""
        name = "project" if self.project.source != ClientPolicy.source else "local"
        enforcing = replace(getattr(self, name), mode=Mode.ENFORCE, says_mode=True)
        return replace(self, is_ci=True, is_strict=True, **{name: enforcing})

    def decide(self, project: str, exit_code: int, *, now: int) -> Decision:
        """Whether a failure of this exit code refuses this project."""
        mode = self.mode_for(project)
        if exit_code not in (4, 5, 6):
            return Decision(True, mode, "refused in every mode")
        because = f"policy mode {mode.word}"
        # An exception lifts what its own file demanded, and nothing else.
        exempt = {p.source: p.exception_for(project, now=now) for p in self._files}
        kept = [p.mode_for(project) for p in self._files if exempt[p.source] is None]
        rest = max([Mode.parse(self.central.mode_for(project)), *kept])
        if rest < mode:
            mode, because = rest, "; ".join(e.sentence() for e in exempt.values() if e is not None)
        limit = Mode.WARN if exit_code == 6 else Mode.ENFORCE
        return Decision(mode >= limit, mode, because)

    def pins_for(self, project: str) -> frozenset[str]:
        """Every key that any file pins for the project; empty: any enrolled key will do."""
        return frozenset().union(*self.pin_sets(project))

    def pin_sets(self, project: str) -> list[frozenset[str]]:
        """What each file and the lock pin: one key of each set must have signed, or vouch for who did."""
        sets = [*(p.pins_for(project) for p in self._files), self.lock_pins.get(project, frozenset())]
        return [pins for pins in sets if pins]

    # --- demands ------------------------------------------------------------------------------------------
    @property
    def wants_entry(self) -> bool:
        """Whether a demand is about what a file's entries say."""
        return any(demands.wants_entry for _, demands in self._demands)

    @property
    def wants_tier(self) -> bool:
        return any(demands.not_flagged for _, demands in self._demands)

    def objections_to_name(self, project: str, *, now: int) -> list[Objection]:
        """What is said against a project, whatever is proved of its files."""
        return [
            (error, self._decide_demand(policy, project, now=now))
            for policy, demands in self._demands
            for error in demands.of_name(project)
        ]

    def objections(self, facts: Facts, *, now: int) -> list[Objection]:
        """What is said against a file that is proved, and by whose mode it is decided."""
        found = self.objections_to_name(facts.project, now=now)
        facts = replace(facts, is_pinned=bool(self.pin_sets(facts.project)))
        for policy, demands in self._demands:
            for error in (*demands.of_view(facts), *demands.of_file(facts)):
                decision = self._decide_demand(policy, facts.project, now=now)
                if error.reason == "no-pin" and not self.is_ci:
                    decision = replace(decision, refused=False, because="a pin is needed under CI only")
                found.append((error, decision))
        return found

    def exception_words(self, now: int) -> tuple[str, ...]:
        """The exceptions in force, which every result shows."""
        return tuple(words for policy in self._files for words in policy.exception_words(now))

    @property
    def _demands(self) -> list[tuple[ClientPolicy | None, Demands]]:
        found: list[tuple[ClientPolicy | None, Demands]] = [(p, p.demands) for p in self._files]
        return [(None, self.central.demands), *found]

    def _decide_demand(self, policy: ClientPolicy | None, project: str, *, now: int) -> Decision:
        if policy is None:
            mode = Mode.ENFORCE if self.is_strict else Mode.parse(self.central.mode_for(project))
            return Decision(mode >= Mode.ENFORCE, mode, "demanded by the registry's policy")
        mode, exemption = policy.demand_mode(project), policy.exception_for(project, now=now)
        if exemption is not None:
            return Decision(False, mode, exemption.sentence())
        return Decision(mode >= Mode.ENFORCE, mode, f"demanded by {policy.source}, mode {mode.word}")

    def log_only_for(self, namespace: str) -> LogOnly | None:
        """What this machine says of files that are in the log only; None: nothing, so they are refused."""
        return next((each for each in self.local.log_only if each.namespace == namespace), None)


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

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'policy "{path}" is not TOML: {error}') from None
    _only(path, document, {"mode", "pattern", "pins", "exception", "log-only", "teams"} | DEMANDS)
    try:
        document = spelled_out(document)
        demands = read_demands(document)
    except UsageError as error:
        raise UsageError(f'policy "{path}": {error}', hint=error.hint) from None
    rules = [_rule(path, item) for item in _tables(path, document, "pattern")]
    return ClientPolicy(
        mode=Mode.parse(document.get("mode", "observe")),
        rules=(*rules, *_pins(path, document.get("pins", {}))),
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
    return Rule(item["project"], Mode.parse(item.get("mode", "enforce")), _identities(path, keys))


def _pins(path: Path, table: object) -> Iterator[Rule]:
    """A pin is a pattern that asks for nothing but its keys."""
    if not isinstance(table, dict):
        raise UsageError(f'policy "{path}": pins is a table of projects and their keys')
    for project, keys in table.items():
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
            raise UsageError(f'policy "{path}": the pin of {project} is a list of keys')
        yield Rule(project, Mode.OBSERVE, _identities(path, keys))


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


def _matches(pattern: str, project: str) -> bool:
    return fnmatch.fnmatchcase(project, pattern)
