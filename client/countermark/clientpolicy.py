"""The client's policy: how strict to be about what is true but not good enough.

Three policies meet. The *central* one comes through TUF in the trust file; the *local* one is `policy.toml`
in the client's home; the *project's* is `countermark.toml`, in this folder or the nearest above it. The strictest
wins, so a file can tighten and never loosen; for the same reason an exception excuses only what its own file
demanded. Beside modes and pins each may have demands (demands.py): a cool-down, an age, allowed names.

The mode decides about findings of exit code 5 (unsigned, wrong identity, no entry, not provable) and 4 (too
old). Withdrawn files (6) pass only under `observe`. Tamper, fork and rollback (7) are refused in every
mode: no policy can allow a contradiction. A demand is decided by the mode of the file it stands in, `enforce` where
that names none; and so is a pin, or the registry it protects against could make it a remark. Exceptions in force are
shown in every result. Expired ones are ignored, and so are those that last longer than 30 days from now, with a
remark: an exception is renewed, or it is a decision for ever.

Whether it is enough that a file is in the log, listed by no TUF and seen by no scanner, is for this machine
alone to say, namespace by namespace (`log-only`): the central policy is about what the registry lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum

from countermark.demands import Demands, Facts
from countermark.errors import CountermarkError, UsageError
from countermark.limits import EXCEPTION_MAX
from countermark.names import matches
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
    """One pattern of project names with its mode and, locally, its pinned keys.

    `binds`: how strict to be with a file of which it is not shown that one of the keys signed it.
    """

    project: str
    mode: Mode
    keys: frozenset[str] = frozenset()
    binds: Mode = Mode.ENFORCE


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
        return max([self.mode, *(rule.mode for rule in self.rules if matches(rule.project, project))])

    def pins_for(self, project: str) -> frozenset[str]:
        """The key IDs a publish of this project must come from; empty: any enrolled key."""
        pins = [rule.keys for rule in self.rules if rule.keys and matches(rule.project, project)]
        return frozenset().union(*pins)

    def pin_mode(self, project: str) -> Mode | None:
        """How strict this file is where none of the keys that it pins signed; None: it pins none."""
        modes = [rule.binds for rule in self.rules if rule.keys and matches(rule.project, project)]
        return max(modes, default=None)

    def exception_for(self, project: str, *, now: int) -> Exemption | None:
        found = (e for e in self.exceptions if e.is_in_force(now) and matches(e.project, project))
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

    def decide_pins(self, project: str, *, now: int) -> Decision | None:
        """Whether it refuses this project that no pinned key is shown to have signed; None: nobody minds.

        Whatever the registry's mode is: it would else decide about the pins that are there against it.
        """
        if self.lock_pins.get(project):
            return Decision(True, Mode.ENFORCE, "the lock names who must have signed")
        for policy in self._files:
            mode = policy.pin_mode(project)
            if mode is Mode.ENFORCE and policy.exception_for(project, now=now) is None:
                return Decision(True, mode, f"pinned by {policy.source}")
        return None

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
