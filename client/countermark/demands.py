"""Demands: what a policy asks of files that are proved, before they are good enough to install.

    max-age = "12h"              # what is believed here may be no older: a quorum saw it, the timestamp is signed
    grace = "0h"                 # how long after its expiry metadata still counts for what was verified before
    quorum = 2                   # witnesses of so many operators cosigned, whatever the registry's own quorum is
    cool-down = "3d"             # no release younger than this: most malware is found within days
    not-flagged = true           # the verdict that lists it found nothing at all: no note, and no moderator's clear
    yanked = "refuse"            # or "remark"
    allow = ["acme-*", "numpy"]  # no other project
    deny = ["evil-*"]            # none of these
    require-pins = true          # only projects whose signer is pinned; under CI nothing else is accepted

Every objection is a sentence with the value that was demanded and the value that was found, and a `reason`, one word
for programs. What becomes of an objection is the policy's mode's business (clientpolicy.py). Pure: facts in,
objections out. A file's age counts from its entry's time, by the witnesses' clock: a waiting period is over only when
quorum time is past it, too. The verdict is the one the index lists the file by; a later rescan that found no more
than a note is not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from countermark.errors import CountermarkError, PolicyError, StaleError, UsageError
from countermark.names import matches
from countermark.values import dataclass, pattern

UNITS = {"m": 60, "h": 3600, "d": 86_400}
NAMES_MAX = 4096  # patterns in one list: what people can still read
_SPAN = pattern(r"([0-9]{1,7})([mhd])", re.ASCII)
KNOWN = frozenset(
    {"max-age", "grace", "quorum", "cool-down", "not-flagged", "yanked", "allow", "deny", "require-pins"}
)


@dataclass(frozen=True)
class Facts:
    """What is known of one file and of the view it was verified in. Times are UTC seconds."""

    project: str
    age: int  # seconds since a quorum saw the checkpoint or the timestamp was signed, whichever is longer ago
    expired_for: int  # seconds since the timestamp expired; 0 while it has not
    operators: int  # whose witnesses cosigned the checkpoint
    clock: int  # the earlier of this machine's time and the quorum's
    logged_at: int | None = None  # the publish entry's time; None where the entry was not read
    tier: str | None = None  # of the verdict that lists the file; None where nobody asked
    yank: int | None = None
    standing_known: bool = True  # whether anybody could say that it is yanked
    is_pinned: bool = False
    pin_line: str = (
        ""  # what to write into countermark.toml for the signer that was found; empty: nobody to pin
    )


@dataclass(frozen=True)
class Demands:
    """One policy's demands; the defaults demand nothing. Spans are seconds."""

    max_age: int | None = None
    grace: int | None = None
    quorum: int = 0
    cool_down: int = 0
    not_flagged: bool = False
    refuse_yanked: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    pins_required: bool = False

    @property
    def wants_entry(self) -> bool:
        """Whether a file's entries must be read to judge it."""
        return bool(self.cool_down or self.not_flagged)

    def of_name(self, project: str) -> Iterator[CountermarkError]:
        """Objections to a project, whatever is proved of its files."""
        denied = next((p for p in self.deny if matches(p, project)), None)
        if denied is not None:
            yield _objection("denied", f'{project} is denied (deny = "{denied}")')
        if self.allow and not any(matches(p, project) for p in self.allow):
            yield _objection(
                "not-allowed", f"{project} is none of the {len(self.allow)} patterns that are allowed"
            )

    def of_view(self, facts: Facts) -> Iterator[CountermarkError]:
        """Objections to what is believed of the registry as a whole."""
        if self.max_age is not None and facts.age > self.max_age:
            yield StaleError(
                f"what is known is {_words(facts.age)} old, at most {_words(self.max_age)} is accepted here",
                reason="max-age",
            )
        if self.grace is not None and facts.expired_for > self.grace:
            words = f"{_words(facts.expired_for)} ago, at most {_words(self.grace)} are accepted here"
            yield StaleError(f"the registry's metadata expired {words}", reason="grace")
        if facts.operators < self.quorum:
            yield _objection(
                "quorum",
                f"witnesses of {facts.operators} {'operator' if facts.operators == 1 else 'operators'} cosigned the "
                f"checkpoint, of {self.quorum} are demanded here",
            )

    def of_file(self, facts: Facts) -> Iterator[CountermarkError]:
        """Objections to one file that is proved."""
        if self.cool_down and facts.logged_at is not None:
            left = facts.logged_at + self.cool_down - facts.clock
            if left > 0:
                yield _objection(
                    "cool-down",
                    f"witnesses and this machine say that it is {_words(max(0, facts.clock - facts.logged_at))} old "
                    f"or more, and releases wait {_words(self.cool_down)} here",
                    f"in {_at_most(left)} it is old enough; until then take an older release",
                )
        if self.not_flagged and facts.tier not in (None, "none"):
            yield _objection("flagged", f'it is listed by "{facts.tier}", and only "none" is accepted here')
        if self.refuse_yanked and facts.yank is not None:
            yield _objection("yanked", f"it is yanked by entry #{facts.yank}, and none such is accepted here")
        if self.refuse_yanked and not facts.standing_known:
            yield _objection(
                "yanked", "nothing here says whether it is yanked, and none such is accepted here"
            )
        if self.pins_required and not facts.is_pinned:
            yield _objection(
                "no-pin",
                f"no signer of {facts.project} is pinned",
                f"if that is whom you expect, commit this line, under [pins] in countermark.toml: {facts.pin_line}"
                if facts.pin_line
                else "no publisher signed this file, so there is nobody to pin: ask the project for a signed release",
            )

    def to_dict(self) -> dict[str, Any]:
        """As a trust file holds them: what differs from the default, spans in seconds."""
        found: dict[str, Any] = {}
        for name in sorted(KNOWN):
            value = getattr(self, _FIELDS[name])
            if value != getattr(Demands(), _FIELDS[name]):
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    def as_written(self) -> dict[str, Any]:
        """The same as people write it in a policy file, for plans that are made by programs."""
        found = self.to_dict()
        for name in ("max-age", "grace", "cool-down"):
            if name in found:
                found[name] = f"{found[name] // 60}m"
        return found | ({"yanked": "refuse"} if "yanked" in found else {})

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Demands:
        """What a trust file holds; ValueError for anything else."""
        found = {}
        for name, value in table.items():
            default = getattr(cls(), _FIELDS.get(name, "")) if name in KNOWN else None
            if name not in KNOWN or value in (default, [], False):
                raise ValueError(f"{name} is no demand")
            found[_FIELDS[name]] = _stored(name, value)
        return cls(**found)


_FIELDS = {
    "max-age": "max_age",
    "grace": "grace",
    "quorum": "quorum",
    "cool-down": "cool_down",
    "not-flagged": "not_flagged",
    "yanked": "refuse_yanked",
    "allow": "allow",
    "deny": "deny",
    "require-pins": "pins_required",
}


def read_demands(table: Mapping[str, Any]) -> Demands:
    """The demands in a policy file as people write it; UsageError, without the file's name, for what is none."""
    found: dict[str, Any] = {}
    for name in KNOWN & table.keys():
        value = table[name]
        if name in ("max-age", "grace", "cool-down"):
            value = span(value)
        elif name == "yanked":
            if value not in ("remark", "refuse"):
                raise UsageError(f'yanked = "{value}" is none of remark, refuse')
            value = value == "refuse"
        try:
            found[_FIELDS[name]] = _stored(name, value)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return Demands(**found)


def span(text: object) -> int:
    """`90m`, `24h`, `7d` in seconds."""
    match = _SPAN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f'"{text}" is no span of time such as 90m, 24h or 7d')
    return int(match[1]) * UNITS[match[2]]


def _stored(name: str, value: Any) -> Any:
    """A value of the right kind; lists as tuples."""
    if name in ("allow", "deny"):
        if (
            isinstance(value, list)
            and len(value) <= NAMES_MAX
            and all(isinstance(v, str) and v for v in value)
        ):
            return tuple(value)
        raise ValueError(f"{name} is a list of at most {NAMES_MAX} names of projects")
    if name in ("not-flagged", "yanked", "require-pins"):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name} is true or false")
    if type(value) is int and 0 <= value <= 10**9:
        return value
    raise ValueError(f"{name} is no whole number")


def _words(seconds: int) -> str:
    """A span in the largest unit of which it has two, as people write it in a policy."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _at_most(seconds: int) -> str:
    """A span in the same units, rounded up: who waits as long as is said has waited long enough."""
    for unit in (86_400, 3600, 60):
        if seconds >= 2 * unit:
            return _words(-(-seconds // unit) * unit)
    return _words(seconds)


def _objection(reason: str, message: str, hint: str | None = None) -> PolicyError:
    return PolicyError(message, hint=hint, reason=reason)
