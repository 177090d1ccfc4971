"""The plan of a later ceremony: what is renewed, and who signs from now on.

    format = "countermark-ceremony-next/v1"
    title = "cleo leaves, eve comes"
    operator = "dora"
    origin = "registry.example"
    date = 2027-08-22T12:00:00Z
    next_ceremony = 2028-01-22T12:00:00Z     # optional: no role may expire before it
    changes = ["holders"]              # of holders, threshold, trust-file, log-keys, online-keys, bins; [] re-signs

    [previous]
    folder = "root-1"                  # beside the plan: the output of the ceremony before this one
    root_words = "bulb maple ..."      # as everybody wrote them down then

    [keys.ada-root]                    # as in a first plan; old root keys that are to sign stand here too
    holder = "ada"
    public_key = "MFkwEwYHKoZI..."

    [roles.root]                       # each role that is renewed, as it is to be from now on
    keys = ["ada-root", "ben-root", "eve-root"]
    threshold = 2
    days = 365

    [trust_file]                       # optional: another trust file, which the new root accepts at once
    witness_policy = '''...'''         # tlog-policy text, with the log's own lines; others: "log-keys" too
    withdraw = false                   # true: trust files before it are not accepted any more

    [client_policy]                    # optional, with or without [trust_file]
    ...

    [online]                           # optional: online keys that follow others, more bins (onlineroles.py)
    ...

What the plan does not say stays as it is. `changes` says in words what the tables do: a plan that claims a
re-sign and moves a key is refused. So are: a root without the signatures of its predecessor's threshold; a step
that takes away as many keys as could have signed (hold two ceremonies); a role whose delegation changes while
its delegator is not renewed; a role that is left as it is and has expired, or soon will have; a key that changes
role, or is online; and everything a first plan may not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from countermark.errors import CountermarkError
from countermark.tlog.policy import Policy
from countermark.trustfile import TrustFile
from countermark.words import root_words
from countermark_ceremony import onlineroles
from countermark_ceremony.handover import fingerprint
from countermark_ceremony.onlineroles import OnlineChange, read_online
from countermark_ceremony.plan import EXPIRY_WINDOW, key_problems, next_problems, role_problems
from countermark_ceremony.previous import Previous
from countermark_ceremony.tables import (
    OFFLINE_ROLES,
    PlanError,
    PlanKey,
    Role,
    line,
    members,
    of_type,
    read_client_policy,
    read_keys,
    read_roles,
    read_toml,
    utc,
)

FORMAT = "countermark-ceremony-next/v1"
DELEGATOR = {"root": "root", "targets": "root", "trust": "targets", "index": "targets"}
_MEMBERS = {"format", "title", "operator", "origin", "date", "changes", "previous", "keys", "roles"}
_OPTIONAL = {"trust_file", "client_policy", "next_ceremony", "online"}


@dataclass(frozen=True)
class NextPlan:
    """A plan that passed every check, with the ceremony it follows."""

    title: str
    operator: str
    date: datetime
    next_ceremony: datetime | None
    previous: Previous
    keys: Mapping[str, PlanKey]
    roles: Mapping[str, Role]  # those that are renewed
    trust_file: TrustFile  # in force from now on
    accepted: tuple[str, ...]  # digests that the new root accepts
    changes: tuple[str, ...]
    online: OnlineChange
    raw: bytes

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the plan file."""
        return fingerprint(self.raw)

    @property
    def origin(self) -> str:
        """The registry's."""
        return self.previous.trust_file.origin

    @property
    def trial(self) -> bool:
        """What a registry began as it stays."""
        return self.previous.trial

    @property
    def number(self) -> int:
        """Of this ceremony."""
        return self.previous.number + 1

    def old_root_keys(self) -> tuple[PlanKey, ...]:
        """Keys of the root before, as far as the plan describes them."""
        _, old = self.previous.role("root")
        return tuple(key for key in self.keys.values() if key.fingerprint in old)

    @property
    def holders(self) -> tuple[str, ...]:
        """Everybody who is asked to sign, in alphabetical order."""
        keys = [key for role in self.roles.values() for key in role.keys]
        return tuple(
            sorted({key.holder for key in keys + list(self.old_root_keys() * ("root" in self.roles))})
        )

    def expires(self, role: str) -> datetime:
        """When a role's metadata expires after this ceremony, renewed or not."""
        if role in self.roles:
            return self.date + timedelta(days=self.roles[role].days)
        expires: datetime = self.previous.metadata[role].signed.expires
        return expires


def is_next(raw: bytes) -> bool:
    """Whether these bytes are the plan of a later ceremony."""
    return read_toml(raw).get("format") == FORMAT


def previous_name(raw: bytes) -> str:
    """The folder a plan names, beside it."""
    section = read_toml(raw).get("previous")
    name = section.get("folder") if isinstance(section, dict) else None
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith("."):
        raise PlanError(["previous.folder is the name of a folder beside the plan"])
    return name


def parse_next(raw: bytes, previous: Previous, *, now: datetime) -> NextPlan:
    """The plan in these bytes, with the verified ceremony it names."""
    document = read_toml(raw)
    members(document, _MEMBERS | (set(document) & _OPTIONAL), "the plan")
    if document["format"] != FORMAT:
        raise PlanError([f"format is {document['format']!r}, this program reads {FORMAT!r}"])
    members(document["previous"], {"folder", "root_words"}, "[previous]")
    words = root_words(previous.metadata["root"].signed_bytes)
    if (said := line(document["previous"], "root_words")) != words:
        raise PlanError([f"the plan follows a root with the words {said!r}, that folder's are {words!r}"])
    keys = read_keys(of_type(document, "keys", dict))
    tables = of_type(document, "roles", dict)
    roles = read_roles(tables, keys, [name for name in OFFLINE_ROLES if name in tables])
    date = utc(document, "date")
    trust_file = _trust_file(document, previous, date)
    plan = NextPlan(
        title=line(document, "title"),
        operator=line(document, "operator"),
        date=date,
        next_ceremony=utc(document, "next_ceremony") if "next_ceremony" in document else None,
        previous=previous,
        keys=keys,
        roles=roles,
        trust_file=trust_file,
        accepted=_accepted(document, previous, trust_file),
        changes=tuple(of_type(document, "changes", list)),
        online=read_online(of_type(document, "online", dict)) if "online" in document else OnlineChange(),
        raw=raw,
    )
    origin = line(document, "origin")
    problems = [] if origin == plan.origin else [f"the plan is for {origin!r}, the root for {plan.origin!r}"]
    if problems := problems + _problems(plan, now):
        raise PlanError(problems)
    return plan


def _trust_file(document: Mapping[str, Any], previous: Previous, date: datetime) -> TrustFile:
    old = new = previous.trust_file
    if "client_policy" in document:
        new = replace(new, client_policy=read_client_policy(document["client_policy"]))
    if "trust_file" in document:
        members(document["trust_file"], {"witness_policy", "withdraw"}, "[trust_file]")
        new = replace(new, witness_policy=of_type(document["trust_file"], "witness_policy", str))
    if new == old:
        return old
    new = replace(new, version=old.version + 1, valid_from=int(date.timestamp()))
    problems = []
    try:
        TrustFile.parse(new.format())
        quorum_of_none = Policy.parse(new.witness_policy).quorum_time({}) is not None
    except CountermarkError as error:
        raise PlanError([f"the new trust file: {error}"]) from error
    if quorum_of_none and old.policy.quorum_time({}) is None:
        problems.append("`quorum none` cannot follow a quorum of witnesses")
    if sorted(key.type for key in new.log_keys) != sorted(key.type for key in old.log_keys):
        problems.append(
            "the log has other kinds of keys in the witness policy than in the trust file before it"
        )
    if new.client_policy.min_tree_size < old.client_policy.min_tree_size:
        problems.append("client_policy.min_tree_size falls: it is a floor against rollback and only rises")
    if problems:
        raise PlanError(problems)
    return new


def _accepted(document: Mapping[str, Any], previous: Previous, trust_file: TrustFile) -> tuple[str, ...]:
    if trust_file.digest in previous.accepted:
        return tuple(previous.accepted)
    withdraw = "trust_file" in document and of_type(document["trust_file"], "withdraw", bool)
    return (trust_file.digest,) if withdraw else (*previous.accepted, trust_file.digest)


def _problems(plan: NextPlan, now: datetime) -> list[str]:
    """Every reason to refuse a plan that is well-formed."""
    problems = []
    if plan.date > now + timedelta(days=1):
        problems.append(f"date {plan.date:%Y-%m-%dT%H:%M:%SZ} lies in the future")
    if plan.date <= plan.previous.held_at - timedelta(days=1):
        problems.append(f"date {plan.date:%Y-%m-%d} is before the previous ceremony")
    if "root" not in plan.roles and set(plan.roles) != {"trust"}:
        problems.append("a ceremony renews root, or trust alone")
    for role in plan.roles.values():
        problems += role_problems(role, plan.expires(role.name), now)
    problems += _kept_problems(plan, now)
    problems += next_problems({name: plan.expires(name) for name in OFFLINE_ROLES}, plan.next_ceremony)
    problems += _delegation_problems(plan)
    problems += _root_problems(plan)
    uses = {name: list(roles) for name, roles in _uses(plan).items()}
    present = plan.previous.online()
    problems += key_problems(plan.keys, uses, present | plan.online.fingerprints())
    problems += onlineroles.problems(plan.online, plan.previous.bins, present, plan.roles)
    real = sorted(_real_changes(plan))
    if sorted(plan.changes) != real:
        problems.append(f"changes says {sorted(plan.changes)}, the tables change {real}")
    return problems


def _kept_problems(plan: NextPlan, now: datetime) -> list[str]:
    """Roles that the plan leaves as they are, although clients refuse them today or before anybody meets again."""
    problems = []
    for name in OFFLINE_ROLES:
        expires = plan.expires(name)
        if name in plan.roles or expires >= now + EXPIRY_WINDOW:
            continue
        when = (
            f"expired {expires:%Y-%m-%d}"
            if expires <= now
            else f"expires {expires:%Y-%m-%d}, less than {EXPIRY_WINDOW.days} days away"
        )
        problems.append(f"{name} is not renewed and {when}: give [roles.{name}] too")
    return problems


def _delegation_problems(plan: NextPlan) -> list[str]:
    problems = []
    for name, role in plan.roles.items():
        old, prints = plan.previous.role(name)
        same = {key.fingerprint for key in role.keys} == set(prints) and role.threshold == old.threshold
        if not same and DELEGATOR[name] not in plan.roles:
            problems.append(
                f"{name} changes its keys or threshold: {DELEGATOR[name]} must be renewed as well"
            )
    if plan.trust_file.digest != plan.previous.trust_file.digest and not {"root", "trust"} <= set(plan.roles):
        problems.append("another trust file needs the roles root and trust: root accepts it, trust lists it")
    return problems


def _root_problems(plan: NextPlan) -> list[str]:
    """Whether the old root's holders can sign, and are not sent away in a majority."""
    if "root" not in plan.roles:
        return []
    old, prints = plan.previous.role("root")
    there = len(plan.old_root_keys())
    problems = []
    if there < old.threshold:
        problems.append(
            f"root {plan.previous.root.version} needs {old.threshold} of its keys to sign its successor, the plan "
            f"describes {there}: below its threshold a root can't be renewed, see the runbook"
        )
    gone = len(set(prints) - {key.fingerprint for key in plan.roles["root"].keys})
    if gone >= old.threshold:
        problems.append(
            f"{gone} keys leave the root at once, which {old.threshold} keys could sign for: replace them in "
            "two ceremonies"
        )
    return problems


def _uses(plan: NextPlan) -> dict[str, set[str]]:
    """By key name: the roles it has, in this plan or before it."""
    uses: dict[str, set[str]] = {name: set() for name in plan.keys}
    for role in plan.roles.values():
        for key in role.keys:
            uses[key.name].add(role.name)
    for name in OFFLINE_ROLES:
        _, prints = plan.previous.role(name)
        for key in plan.keys.values():
            if key.fingerprint in prints and (uses[key.name] or name == "root"):
                uses[key.name].add(name)
    return uses


def _real_changes(plan: NextPlan) -> set[str]:
    found = set()
    for name, role in plan.roles.items():
        old, prints = plan.previous.role(name)
        if {key.fingerprint for key in role.keys} != set(prints):
            found.add("holders")
        if role.threshold != old.threshold:
            found.add("threshold")
    if plan.trust_file.digest != plan.previous.trust_file.digest:
        found.add("trust-file")
    if set(plan.trust_file.log_keys) != set(plan.previous.trust_file.log_keys):
        found.add("log-keys")
    return found | set(plan.online.changes())
