"""Policy view: what the three policies ask, value by value, with the place each comes from.

    [line.sentence() for line in asked(policies, now=now)]

    mode         enforce   (the registry: it decides)
    mode         warn   (the project: a stricter one decides)
    cool-down    72h   (the project: enforced)
    pin          acme = 9f86d081...   (this machine: one of these must have signed)

Beside one another, because a person who is refused asks first "who says so?". Which value decides is said of values
that can be compared; every other one holds beside the rest (clientpolicy.py). Pure: policies in, lines out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.values import dataclass

PLACES = ("the registry", "this machine", "the project")
_STRICTEST: dict[str, Callable[[Any], Any]] = {
    "cool-down": max,
    "quorum": max,
    "max-age": min,
    "grace": min,
}


@dataclass(frozen=True)
class Asked:
    """One value of one policy. `decides` is False where a stricter value of the same kind stands elsewhere."""

    what: str
    value: Any
    origin: str  # one of PLACES
    becomes: str  # what it does, in words
    decides: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "becomes": self.becomes,
            "decides": self.decides,
            "from": self.origin,
            "value": self.value,
            "what": self.what,
        }

    def sentence(self) -> str:
        value = self.value
        if self.what in ("cool-down", "max-age", "grace"):
            value = f"{value // 60}m" if value % 3600 else f"{value // 3600}h"
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        elif value is True:
            value = "yes"
        return f"{self.what:<12} {value}   ({self.origin}: {self.becomes})"


def asked(policies: Policies, *, now: int) -> list[Asked]:
    """Every value that any of the three policies names; modes first."""
    return [*_modes(policies), *_demands(policies), *_named(policies, now=now)]


def asked_of(policies: Policies, project: str, *, now: int) -> list[Asked]:
    """The same for one project: its mode, its pins, and whether its name alone is refused."""
    found = [
        Asked("mode", mode.word, origin, "", decides=mode == policies.mode_for(project))
        for origin, mode in zip(PLACES, _modes_for(policies, project), strict=True)
    ]
    found = [_told(line) for line in found]
    for origin, policy in _files(policies):
        if (binds := policy.pin_mode(project)) is not None:
            found.append(Asked("pin", sorted(policy.pins_for(project)), origin, _binding(binds)))
        if (exemption := policy.exception_for(project, now=now)) is not None:
            found.append(Asked("exception", exemption.sentence(), origin, "lifts what this place asks"))
    for error, decision in policies.objections_to_name(project, now=now):
        does = "refused" if decision.refused else "let pass"
        found.append(Asked("name", str(error), "a list", f"{does}: {decision.because}"))
    return found


def _binding(mode: Mode) -> str:
    others = "" if mode is Mode.ENFORCE else f", mode {mode.word}: others are said, and let pass"
    return f"one of these must have signed{others}"


def _modes_for(policies: Policies, project: str) -> tuple[Mode, ...]:
    central = Mode.parse(policies.central.mode_for(project))
    return (central, *(policy.mode_for(project) for _, policy in _files(policies)))


def _files(policies: Policies) -> tuple[tuple[str, ClientPolicy], ...]:
    return ((PLACES[1], policies.local), (PLACES[2], policies.project))


def _modes(policies: Policies) -> Iterator[Asked]:
    modes = [(PLACES[0], Mode.parse(policies.central.mode))]
    modes += [(origin, policy.mode) for origin, policy in _files(policies) if policy.says_mode]
    strictest = max(mode for _, mode in modes)
    for origin, mode in modes:
        yield _told(Asked("mode", mode.word, origin, "", decides=mode == strictest))
    for pattern in policies.central.patterns:
        yield Asked("pattern", f"{pattern.project} = {pattern.mode}", PLACES[0], "the first that fits counts")
    for origin, policy in _files(policies):
        for rule in policy.rules:
            if rule.mode > Mode.OBSERVE:
                yield Asked("pattern", f"{rule.project} = {rule.mode.word}", origin, "the strictest counts")


def _told(line: Asked) -> Asked:
    words = "it decides" if line.decides else "a stricter one decides"
    return Asked(line.what, line.value, line.origin, words, decides=line.decides)


def _demands(policies: Policies) -> Iterator[Asked]:
    """Each demand is decided by the mode of the place it stands in, so equal ones of two places both stay."""
    places = [(PLACES[0], policies.central.demands.to_dict(), Mode.parse(policies.central.mode))]
    for origin, policy in _files(policies):
        mode = policy.mode if policy.says_mode else Mode.ENFORCE
        places.append((origin, policy.demands.to_dict(), mode))
    for what in sorted({name for _, demands, _ in places for name in demands}):
        said = [(origin, demands[what], mode) for origin, demands, mode in places if what in demands]
        enforced = [value for _, value, mode in said if mode is Mode.ENFORCE]
        for origin, value, mode in said:
            decides = what not in _STRICTEST or value == _STRICTEST[what](enforced or [value])
            becomes = "enforced" if mode is Mode.ENFORCE else f"mode {mode.word}: it is said, and lets pass"
            yield Asked(
                what, value, origin, becomes if decides else f"{becomes}, and less than another", decides
            )


def _named(policies: Policies, *, now: int) -> Iterator[Asked]:
    """Pins, exceptions and what is enough with a log alone."""
    for origin, policy in _files(policies):
        for rule in policy.rules:
            if rule.keys:
                keys = " or ".join(sorted(rule.keys))
                yield Asked("pin", f"{rule.project} = {keys}", origin, _binding(rule.binds))
    for origin, policy in _files(policies):
        for exemption in policy.exceptions:
            counts = exemption.is_in_force(now)
            past = "expired" if exemption.expires <= now else "it lasts longer than exceptions may"
            becomes = "lifts what this place asks" if counts else f"ignored: {past}"
            yield Asked("exception", exemption.sentence(), origin, becomes, decides=counts)
        for each in policy.log_only:
            keys = f", from {' or '.join(sorted(each.keys))}" if each.keys else ""
            yield Asked(
                "log-only", f"{each.namespace}{keys}", origin, "for `verify --log-only` the log is enough"
            )
