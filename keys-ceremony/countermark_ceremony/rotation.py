"""The rotation planner: from what happened to people and keys, to the plan of the next ceremony.

    event = Event(lost=("cleo",), removed=(), added=(eve_root, eve_targets, eve_trust), thresholds={})
    rotation = plan_rotation(chain, event, now=now)
    rotation.steps[0]      # what the next ceremony renews, and who must sign it
    rotation.steps[1:]     # ceremonies after it, where one is not enough

Who leaves is named by holder (all their keys) or by key. `lost` is never asked to sign: gone, or perhaps in other
hands. `removed` is asked only where the old root has too few signers without them. A key that comes says its role
by its name, `<holder>-<role>`, such as eve-root or ben-root-2.

A root is signed by the thresholds of the root before it and of its own, and as many keys as could sign never leave it
in one step (nextplan.py). So a rotation may take two ceremonies or more: lost keys leave first, since they can't
sign the second; a holder's new key waits until the old one is gone, since a threshold counts people. Where too few of
the old root's keys are left, nothing can be planned, and the refusal says which way is left. Names of keys and
holders come from the plans in the ceremonies' folders, which their transcripts bind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations

from countermark.errors import UsageError
from countermark_ceremony.nextplan import DELEGATOR
from countermark_ceremony.plan import role_problems
from countermark_ceremony.previous import PLAN, Previous
from countermark_ceremony.status import RENEW_BEFORE
from countermark_ceremony.tables import OFFLINE_ROLES, PlanError, PlanKey, Role, read_keys, read_toml

DAYS = {"root": 365, "targets": 365, "index": 365, "trust": 180}  # where no plan says otherwise
KEY_NAME = re.compile(rf"(?P<holder>[A-Za-z0-9-]+?)-(?P<role>{'|'.join(OFFLINE_ROLES)})(-[0-9]+)?")


@dataclass(frozen=True)
class Event:
    """What happened: names of holders or keys, keys that come, and thresholds that are to be."""

    lost: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[PlanKey, ...] = ()
    thresholds: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Quota:
    """So many of these keys sign, in the name of a version of a role."""

    of: str
    keys: tuple[PlanKey, ...]
    threshold: int


@dataclass(frozen=True)
class Step:
    """One ceremony of a rotation."""

    roles: Mapping[str, Role]  # those that are renewed, as they are from then on
    before: Mapping[str, Role]
    asked: tuple[PlanKey, ...]  # old root keys that are to sign, in no role any more or still in one
    quotas: tuple[Quota, ...]

    @property
    def keys(self) -> dict[str, PlanKey]:
        """Every key that the plan describes, by name."""
        of_roles = [key for role in self.roles.values() for key in role.keys]
        return {key.name: key for key in sorted([*of_roles, *self.asked], key=lambda key: key.name)}

    @property
    def changes(self) -> list[str]:
        """As a plan says it."""
        found = []
        if any(set(role.keys) != set(self.before[name].keys) for name, role in self.roles.items()):
            found.append("holders")
        if any(role.threshold != self.before[name].threshold for name, role in self.roles.items()):
            found.append("threshold")
        return found

    def enough(self) -> tuple[str, ...]:
        """The fewest people who can sign all of it; where several sets can, the first in alphabetical order."""
        people = sorted({key.holder for quota in self.quotas for key in quota.keys})
        for count in range(1, len(people) + 1):
            for chosen in combinations(people, count):
                if all(_signed(quota, chosen) >= quota.threshold for quota in self.quotas):
                    return chosen
        raise UsageError("nobody could sign this: some role has fewer keys than its threshold")


@dataclass(frozen=True)
class Rotation:
    """All ceremonies that an event needs, the next one first."""

    steps: tuple[Step, ...]
    lost: tuple[PlanKey, ...]
    removed: tuple[PlanKey, ...]


def plan_rotation(
    chain: Sequence[Previous], event: Event, *, now: datetime, also: Collection[str] = ()
) -> Rotation:
    """The ceremonies that lead from what is in force to what is to be. UsageError: there are none.

    `also` are roles that the first one renews for a reason of its own, such as another trust file.
    """
    newest = chain[-1]
    present = present_roles(chain)
    known = {key.name: key for role in present.values() for key in role.keys}
    lost, removed = _named(event.lost, known), _named(event.removed, known)
    removed = tuple(key for key in removed if key not in lost)
    goal = _goal(present, {*lost, *removed}, event)
    _check_signable(newest, present["root"], lost)
    steps: list[Step] = []
    for number, root in enumerate(_roots(present["root"], goal["root"], lost)):
        before = {**goal, "root": steps[-1].roles["root"]} if steps else present
        after = {**goal, "root": root}
        renewed = {"root"} if steps else _renewed(newest, present, after, now, also)
        steps.append(_step(before, {name: after[name] for name in OFFLINE_ROLES if name in renewed}, lost))
        version = newest.root.version + number
        steps[-1] = replace(steps[-1], quotas=tuple(_quotas(steps[-1], version, lost)))
        if problems := role_problems(root, now + timedelta(days=root.days), now):
            raise PlanError(problems)
    return Rotation(tuple(steps), lost, removed)


def role_of(name: str) -> tuple[str, str]:
    """Holder and role of a key that comes, as its name says them."""
    found = KEY_NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"{name!r} does not say whose key it is, and for which role",
            hint="name it <holder>-<role>, such as eve-root, or ben-root-2 for somebody's second one",
        )
    return found["holder"], found["role"]


def present_roles(chain: Sequence[Previous]) -> dict[str, Role]:
    """The roles in force, their keys named as plans named them."""
    names: dict[str, PlanKey] = {}
    days = dict(DAYS)
    for each in chain:
        if PLAN not in each.files:
            continue
        document = read_toml(each.files[PLAN])
        names |= {key.fingerprint: key for key in read_keys(document["keys"]).values()}
        days |= {name: table["days"] for name, table in document["roles"].items()}
    roles = {}
    for name in OFFLINE_ROLES:
        role, prints = chain[-1].role(name)
        if unknown := [print_ for print_ in prints if print_ not in names]:
            raise UsageError(
                f"no plan in this folder names the {name} key {unknown[0][:16]}, so nobody knows whose it is",
                hint=f"copy the {PLAN} of each earlier ceremony into its folder; its transcript names its digest",
            )
        roles[name] = Role(name, tuple(names[print_] for print_ in prints), role.threshold, days[name])
    return roles


def _named(names: Sequence[str], known: Mapping[str, PlanKey]) -> tuple[PlanKey, ...]:
    """The keys that these holders or key names mean."""
    found: dict[str, PlanKey] = {}
    for name in names:
        meant = {key.name: key for key in known.values() if name in (key.name, key.holder)}
        if not meant:
            holders = sorted({key.holder for key in known.values()})
            raise UsageError(
                f"{name!r} is no holder of a role in force, and no key of one",
                hint=f"holders are {', '.join(holders)}; keys are {', '.join(sorted(known))}",
            )
        found |= meant
    return tuple(found.values())


def _goal(present: Mapping[str, Role], leaving: set[PlanKey], event: Event) -> dict[str, Role]:
    shared = set(present["targets"].keys) == set(present["index"].keys)
    goal = {}
    for name, role in present.items():
        roles = {name, "targets"} if name == "index" and shared else {name}
        come = tuple(key for key in event.added if role_of(key.name)[1] in roles)
        stay = tuple(key for key in role.keys if key not in leaving)
        threshold = (event.thresholds or {}).get(name, role.threshold)
        goal[name] = replace(role, keys=stay + come, threshold=threshold)
    return goal


def _check_signable(newest: Previous, root: Role, lost: tuple[PlanKey, ...]) -> None:
    """UsageError when the root in force can't be renewed by those who are left."""
    left = [key.name for key in root.keys if key not in lost]
    if len(left) < root.threshold:
        raise UsageError(
            f"root {newest.root.version} needs {root.threshold} of its keys to sign its successor, and "
            f"{' and '.join(left) or 'none'} {'are' if len(left) > 1 else 'is'} left: no ceremony can renew it",
            hint=f"it stays good until {newest.root.expires:%Y-%m-%d}: by then freeze this log, begin a successor "
            "with a root of its own (docs/how-to/succeed-a-log.md), and tell users its words",
        )


def _roots(old: Role, goal: Role, lost: tuple[PlanKey, ...]) -> Iterator[Role]:
    """The root role after each ceremony: no step takes away as many keys as could have signed."""
    while True:
        gone = sorted((key for key in old.keys if key not in goal.keys), key=lambda key: key not in lost)
        if len(gone) < old.threshold:
            yield goal
            return
        stay = tuple(key for key in old.keys if key not in gone[: old.threshold - 1])
        people = {key.holder for key in stay}
        come = tuple(key for key in goal.keys if key not in stay and key.holder not in people)
        # The threshold of the goal comes with the last step, or as soon as the old one leaves no key to spare.
        keep = len(stay + come) > old.threshold
        old = replace(old, keys=stay + come, threshold=old.threshold if keep else goal.threshold)
        yield old


def _renewed(
    newest: Previous,
    present: Mapping[str, Role],
    after: Mapping[str, Role],
    now: datetime,
    also: Collection[str],
) -> set[str]:
    """What changes, whoever delegates to it, and what is due; everything, where nothing changes."""
    changed = {
        name
        for name, role in after.items()
        if set(role.keys) != set(present[name].keys) or role.threshold != present[name].threshold
    }
    if not changed and not also:
        return set(OFFLINE_ROLES)
    due = {
        name
        for name, metadata in newest.metadata.items()
        if now >= metadata.signed.expires - RENEW_BEFORE[name]
    }
    found = changed | due | set(also)
    found |= {DELEGATOR[name] for name in changed}
    return found | {"root"}


def _step(before: Mapping[str, Role], roles: Mapping[str, Role], lost: tuple[PlanKey, ...]) -> Step:
    old, new = before["root"], roles["root"]
    stay = tuple(key for key in old.keys if key in new.keys and key not in lost)
    able = tuple(key for key in old.keys if key not in lost)
    return Step(roles, before, stay if len(stay) >= old.threshold else able, ())


def _quotas(step: Step, version: int, lost: tuple[PlanKey, ...]) -> Iterator[Quota]:
    old = step.before["root"]
    yield Quota(f"root {version}", step.asked, old.threshold)
    for name, role in step.roles.items():
        keys = tuple(key for key in role.keys if key not in lost)
        yield Quota(f"the new {name}", keys, role.threshold)


def _signed(quota: Quota, people: Sequence[str]) -> int:
    return sum(key.holder in people for key in quota.keys)
