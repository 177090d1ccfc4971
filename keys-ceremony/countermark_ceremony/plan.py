"""The plan: the one reviewed file a ceremony is made from. Validated whole before a key is touched.

    format = "countermark-ceremony-plan/v1"
    title = "first root of registry.example"
    operator = "dora"                  # who runs the machine; it stands in the transcript
    origin = "registry.example"
    trial = false
    date = 2026-11-22T12:00:00Z        # UTC; every expiry counts from it
    next_ceremony = 2027-04-22T12:00:00Z     # optional: no role may expire before it

    [input]
    file = "ceremony-input.json"       # beside the plan; what the registry's `init` wrote
    sha256 = "7d86..."

    [keys.ada-root]
    holder = "ada"
    public_key = "MFkwEwYHKoZI..."     # from `countermark-ceremony keys new`

    [roles.root]                       # and targets, index, trust
    keys = ["ada-root", "ben-root", "cleo-root"]
    threshold = 2
    days = 365

    [authority]
    key = "dora-authority"

    [client_policy]
    mode = "enforce"
    min_tree_size = 0
    patterns = [{ project = "legacy-*", mode = "warn" }]

    [client_policy.demands]            # optional, as in a policy file (countermark.demands)
    cool-down = "1d"

Unknown members are refused, at every level. So are: a threshold below two; fewer keys than threshold + 1; two
keys of one holder in a role (a threshold counts people); a key in two roles, except that `index` may have
the keys of `targets`; a key that is online as well; an expiry too near or too far, or before the next ceremony that
is planned; a date that is not UTC.
All refusals of a plan are said at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from countermark.tlog.policy import Policy
from countermark.trustfile import CentralPolicy
from countermark_ceremony.handover import Handover, fingerprint
from countermark_ceremony.tables import (
    PlanError,
    PlanKey,
    Role,
    line,
    members,
    named_key,
    of_type,
    read_client_policy,
    read_keys,
    read_roles,
    read_toml,
    utc,
)

FORMAT = "countermark-ceremony-plan/v1"
EXPIRY_WINDOW = timedelta(days=30)  # an expiry nearer than this leaves no time for the next ceremony
EXPIRY_MAX_DAYS = {"root": 400, "targets": 400, "index": 400, "trust": 200}  # a year or half one, and slack
UNWITNESSED_ENDINGS = (".test", ".example", ".invalid")


@dataclass(frozen=True)
class Plan:
    """A plan that passed every check, together with the input it names."""

    title: str
    operator: str
    origin: str
    trial: bool
    date: datetime
    next_ceremony: datetime | None
    roles: Mapping[str, Role]
    authority: PlanKey
    client_policy: CentralPolicy
    handover: Handover
    raw: bytes

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the plan file."""
        return fingerprint(self.raw)

    @property
    def holders(self) -> tuple[str, ...]:
        """Everybody who signs, in alphabetical order."""
        keys = [key for role in self.roles.values() for key in role.keys]
        return tuple(sorted({key.holder for key in [*keys, self.authority]}))

    def expires(self, role: str) -> datetime:
        """When a role's metadata expires."""
        return self.date + timedelta(days=self.roles[role].days)


def input_name(raw: bytes) -> str:
    """The file name of the input a plan names, so that the caller can read it."""
    document = read_toml(raw)
    section = document.get("input")
    name = section.get("file") if isinstance(section, dict) else None
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith("."):
        raise PlanError(["input.file is the name of a file beside the plan"])
    return name


def parse_plan(raw: bytes, input_raw: bytes, *, now: datetime) -> Plan:
    """The plan in these bytes, with the bytes of the input file it names."""
    document = read_toml(raw)
    input_name(raw)
    sections = {"format", "title", "operator", "origin", "trial", "date"} | {
        "input",
        "keys",
        "roles",
        "authority",
        "client_policy",
    }
    members(document, sections | (set(document) & {"next_ceremony"}), "the plan")
    if document["format"] != FORMAT:
        raise PlanError([f"format is {document['format']!r}, this program reads {FORMAT!r}"])
    members(document["input"], {"file", "sha256"}, "[input]")
    given = hashlib.sha256(input_raw).hexdigest()
    if document["input"]["sha256"] != given:
        raise PlanError([f"the input file has SHA-256 {given}, the plan says {document['input']['sha256']}"])
    keys = read_keys(of_type(document, "keys", dict))
    roles = read_roles(of_type(document, "roles", dict), keys)
    members(document["authority"], {"key"}, "[authority]")
    plan = Plan(
        title=line(document, "title"),
        operator=line(document, "operator"),
        origin=line(document, "origin"),
        trial=of_type(document, "trial", bool),
        date=utc(document, "date"),
        next_ceremony=utc(document, "next_ceremony") if "next_ceremony" in document else None,
        roles=roles,
        authority=named_key(keys, document["authority"]["key"], "[authority]"),
        client_policy=read_client_policy(document["client_policy"]),
        handover=Handover.parse(input_raw),
        raw=raw,
    )
    if problems := _problems(plan, keys, now):
        raise PlanError(problems)
    return plan


def _problems(plan: Plan, keys: Mapping[str, PlanKey], now: datetime) -> list[str]:
    """Every reason to refuse a plan that is well-formed."""
    problems = []
    if plan.date > now + timedelta(days=1):
        problems.append(f"date {plan.date:%Y-%m-%dT%H:%M:%SZ} lies in the future")
    for role in plan.roles.values():
        problems += role_problems(role, plan.expires(role.name), now)
    problems += next_problems({name: plan.expires(name) for name in plan.roles}, plan.next_ceremony)
    problems += key_problems(keys, _uses(plan), plan.handover.online_fingerprints())
    if plan.origin != plan.handover.origin:
        problems.append(f"the plan is for {plan.origin!r}, the input for {plan.handover.origin!r}")
    policy = Policy.parse(plan.handover.witness_policy)
    host = plan.origin.split("/", maxsplit=1)[0]  # a name that nobody can own, wherever its path ends
    if policy.quorum_time({}) is not None and not host.endswith(UNWITNESSED_ENDINGS):
        problems.append(
            f"`quorum none` is only for origins ending in {', '.join(UNWITNESSED_ENDINGS)}, not {plan.origin!r}"
        )
    return problems


def role_problems(role: Role, expires: datetime, now: datetime) -> list[str]:
    """Why a role may not be so, in this or any later plan."""
    problems = []
    if role.threshold < 2:
        problems.append(f"{role.name}: a threshold of {role.threshold} lets one person act alone")
    if len(role.keys) < role.threshold + 1:
        problems.append(
            f"{role.name}: {len(role.keys)} keys for a threshold of {role.threshold}; "
            f"{role.threshold + 1} are needed to survive the loss of one"
        )
    if len({key.holder for key in role.keys}) != len(role.keys):
        problems.append(f"{role.name}: one holder has two of its keys; a threshold counts people")
    if expires < now + EXPIRY_WINDOW:
        problems.append(f"{role.name}: expires {expires:%Y-%m-%d}, less than {EXPIRY_WINDOW.days} days away")
    if role.days > EXPIRY_MAX_DAYS[role.name]:
        problems.append(f"{role.name}: {role.days} days, at most {EXPIRY_MAX_DAYS[role.name]}")
    return problems


def next_problems(expires: Mapping[str, datetime], next_ceremony: datetime | None) -> list[str]:
    """The roles that would expire before the next ceremony is held."""
    return [
        f"{role}: expires {each:%Y-%m-%d}, before the next ceremony on {next_ceremony:%Y-%m-%d}"
        for role, each in expires.items()
        if next_ceremony is not None and each <= next_ceremony
    ]


def _uses(plan: Plan) -> dict[str, list[str]]:
    uses: dict[str, list[str]] = {}
    for role in plan.roles.values():
        for key in role.keys:
            uses.setdefault(key.name, []).append(role.name)
    uses.setdefault(plan.authority.name, []).append("authority")
    return uses


def key_problems(
    keys: Mapping[str, PlanKey], uses: Mapping[str, Collection[str]], online: Mapping[str, str]
) -> list[str]:
    """Keys with two names, two places or no use. `online`: fingerprints of keys on networked machines."""
    problems = []
    seen: dict[str, str] = {}
    places: dict[tuple[str, ...], str] = {}
    for key in keys.values():
        if key.token is not None and key.token.uri is not None:
            place = (*key.token.device, key.token.uri)
            if (other := places.setdefault(place, key.name)) != key.name:
                problems.append(f"keys {other!r} and {key.name!r} lie at one place, {key.token.uri}")
        if (other := seen.setdefault(key.fingerprint, key.name)) != key.name:
            problems.append(f"keys {other!r} and {key.name!r} are the same key")
        if key.fingerprint in online:
            problems.append(f"key {key.name!r} is online too, as {online[key.fingerprint]}")
        used = uses.get(key.name, ())
        if not used:
            problems.append(f"key {key.name!r} is used nowhere")
        elif len(used) > 1 and set(used) != {"targets", "index"}:
            problems.append(f"key {key.name!r} is used twice: {' and '.join(used)}")
    return problems


def utc_now() -> datetime:
    """The one clock of this program; everything else gets the time as an argument."""
    return datetime.now(UTC)
