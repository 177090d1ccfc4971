"""Tables of a plan: TOML read strictly, every unknown member refused, every refusal naming its place.

    [keys.ada-root]
    holder = "ada"
    public_key = "MFkwEwYHKoZI..."     # base64 SPKI: ECDSA P-256, or Ed25519 (some tokens)
    token = { vendor = "Yubico", serial = "15835999", uri = "hsm:2?label=ada" }     # only of a key on a token

    [roles.root]
    keys = ["ada-root", "ben-root", "cleo-root"]
    threshold = 2
    days = 365

What the tables mean together is decided by the plan they stand in (plan.py, nextplan.py).
"""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from countermark.demands import KNOWN as DEMANDS
from countermark.demands import Demands, read_demands
from countermark.errors import MalformedError, UsageError
from countermark.statement import load_public_key
from countermark.tokens import ED25519, P256, Place
from countermark.trustfile import MODES, CentralPolicy, Pattern
from countermark_ceremony.handover import fingerprint

OFFLINE_ROLES = ("root", "targets", "index", "trust")
PLAN_MAX_BYTES = 256 * 1024


class PlanError(UsageError):
    """A plan that is refused; `problems` lists every reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("plan refused: " + "; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Token:
    """The device a key lives on, as `keys new` and `keys import` print it; `uri` says where `sign` finds the key."""

    vendor: str
    serial: str
    uri: str | None = None

    @property
    def device(self) -> tuple[str, str]:
        """The device, whichever of its keys is meant."""
        return self.vendor, self.serial


@dataclass(frozen=True)
class PlanKey:
    """A holder's key: its name in the plan, whose it is, and its public half."""

    name: str
    holder: str
    public_key: bytes  # SPKI DER
    token: Token | None = None

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the SPKI."""
        return fingerprint(self.public_key)

    def table(self) -> list[str]:
        """Its table in a plan, line by line, a blank one first."""
        public = base64.b64encode(self.public_key).decode()
        lines = ["", f"[keys.{self.name}]", f'holder = "{self.holder}"', f'public_key = "{public}"']
        if self.token is not None:
            said = {"vendor": self.token.vendor, "serial": self.token.serial, "uri": self.token.uri}
            members = ", ".join(f"{name} = {text(value)}" for name, value in said.items() if value)
            lines.append(f"token = {{ {members} }}")
        return lines


@dataclass(frozen=True)
class Role:
    """One offline TUF role."""

    name: str
    keys: tuple[PlanKey, ...]
    threshold: int
    days: int

    def table(self) -> list[str]:
        """Its table in a plan, line by line, a blank one first."""
        keys = ", ".join(f'"{key.name}"' for key in self.keys)
        head = ["", f"[roles.{self.name}]", f"keys = [{keys}]"]
        return [*head, f"threshold = {self.threshold}", f"days = {self.days}"]


def text(value: str) -> str:
    """A TOML string: of printable characters, JSON's spelling is one."""
    return json.dumps(value, ensure_ascii=False)


def read_toml(raw: bytes) -> dict[str, Any]:
    """The document in these bytes."""
    if len(raw) > PLAN_MAX_BYTES:
        raise PlanError([f"{len(raw)} bytes, at most {PLAN_MAX_BYTES} are read"])
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError([f"not TOML: {error}"]) from error


def members(table: object, expected: set[str], where: str) -> None:
    """Refuse a table that has not exactly these members."""
    if not isinstance(table, dict):
        raise PlanError([f"{where} is not a table"])
    problems = [f"{where} has no {name!r}" for name in sorted(expected - set(table))]
    problems += [f"{where} has an unknown member {name!r}" for name in sorted(set(table) - expected)]
    if problems:
        raise PlanError(problems)


def of_type(table: Mapping[str, Any], name: str, kind: type) -> Any:
    """A member of exactly this type (a bool is no int)."""
    if type(table[name]) is not kind:
        raise PlanError([f"{name} is {table[name]!r}, not a {kind.__name__}"])
    return table[name]


def utc(table: Mapping[str, Any], name: str) -> datetime:
    """A member that is a moment in UTC, in whole seconds."""
    found: datetime = of_type(table, name, datetime)
    if found.utcoffset() != timedelta(0) or found.microsecond:
        raise PlanError([f"{name} {found.isoformat()} is not UTC in whole seconds (write it with a Z)"])
    return found


def line(table: Mapping[str, Any], name: str) -> str:
    """A member that is one line of text."""
    found: str = of_type(table, name, str)
    if not found.isprintable() or not 0 < len(found) <= 200:
        raise PlanError([f"{name} is not a line of 1 to 200 printable characters"])
    return found


def read_keys(tables: Mapping[str, Any]) -> dict[str, PlanKey]:
    """The keys of `[keys]`, by name."""
    keys = {}
    for name, table in tables.items():
        known = {"holder", "public_key"} | ({"token"} if "token" in table else set())
        members(table, known, f"[keys.{name}]")
        try:
            spki = base64.b64decode(line(table, "public_key"), validate=True)
            load_public_key(spki)
        except MalformedError as error:
            raise PlanError([f"key {name!r} is neither ECDSA P-256 nor Ed25519: {error}"]) from error
        except ValueError as error:
            raise PlanError([f"key {name!r}: public_key is not a base64 SPKI"]) from error
        holder = line(table, "holder")
        if not holder.replace("-", "").isalnum() or not holder.isascii():
            raise PlanError([f"key {name!r}: holder {holder!r} is not letters, digits and dashes"])
        keys[name] = PlanKey(name, holder, spki, _token(table, name, spki))
    return keys


def read_roles(
    tables: Mapping[str, Any], keys: Mapping[str, PlanKey], names: Collection[str] = OFFLINE_ROLES
) -> dict[str, Role]:
    """The roles of `[roles]`: exactly those of these names, in their order."""
    members(tables, set(names), "[roles]")
    roles = {}
    for name in names:
        table = tables[name]
        members(table, {"keys", "threshold", "days"}, f"[roles.{name}]")
        named = [named_key(keys, key, f"[roles.{name}]") for key in of_type(table, "keys", list)]
        threshold, days = of_type(table, "threshold", int), of_type(table, "days", int)
        if not 0 <= threshold <= 100 or not 0 <= days <= 10_000:
            raise PlanError([f"[roles.{name}] threshold {threshold} or days {days} out of bounds"])
        roles[name] = Role(name, tuple(named), threshold, days)
    return roles


def warnings(roles: Mapping[str, Role]) -> list[str]:
    """What a plan may do and people should know: a threshold counts people only when no device is shared.

    One vendor's fault, or one lost device, must not take a threshold of keys with it.
    """
    found = set()
    for role in roles.values():
        devices = [(key, key.token) for key in role.keys if key.token is not None]
        for vendor in {token.vendor for _, token in devices}:
            count = sum(token.vendor == vendor for _, token in devices)
            if count >= role.threshold:
                found.add(
                    f"{role.name}: {count} of its keys, a threshold of {role.threshold}, are on tokens of {vendor!r}"
                )
    owners: dict[tuple[str, str], set[str]] = {}
    for key in (key for role in roles.values() for key in role.keys):
        if key.token is not None:
            owners.setdefault(key.token.device, set()).add(key.holder)
    for (vendor, serial), holders in owners.items():
        if len(holders) > 1:
            found.add(f"token {serial} of {vendor!r} holds keys of {' and '.join(sorted(holders))}")
    return sorted(found)


def _token(table: Mapping[str, Any], name: str, spki: bytes) -> Token | None:
    if "token" not in table:
        return None
    said = table["token"]
    optional = {"uri"} if isinstance(said, dict) and "uri" in said else set()
    members(said, {"vendor", "serial"} | optional, f"[keys.{name}] token")
    token = Token(line(said, "vendor"), line(said, "serial"), line(said, "uri") if optional else None)
    if token.uri is not None:
        place = Place.parse(token.uri)
        kind = ED25519 if isinstance(load_public_key(spki), Ed25519PublicKey) else P256
        if place.scheme != kind:
            raise PlanError([f"key {name!r}: {token.uri!r} is of another kind than its public_key"])
    return token


def named_key(keys: Mapping[str, PlanKey], name: object, where: str) -> PlanKey:
    """The key that a table names."""
    if not isinstance(name, str) or name not in keys:
        raise PlanError([f"{where} names the key {name!r}, which the plan does not describe"])
    return keys[name]


def read_client_policy(table: Any) -> CentralPolicy:
    """The policy of `[client_policy]`."""
    demanded = {"demands"} if isinstance(table, dict) and "demands" in table else set()
    members(table, {"mode", "min_tree_size", "patterns"} | demanded, "[client_policy]")
    patterns = []
    for pattern in of_type(table, "patterns", list):
        members(pattern, {"mode", "project"}, "a client_policy pattern")
        patterns.append(Pattern(_mode(pattern), line(pattern, "project")))
    size = of_type(table, "min_tree_size", int)
    if size < 0:
        raise PlanError([f"client_policy.min_tree_size is {size}"])
    return CentralPolicy(size, _mode(table), tuple(patterns), _demands(table.get("demands", {})))


def _demands(table: Any) -> Demands:
    """What `[client_policy.demands]` asks of every installer, written as in a policy file (`cool-down = "3d"`)."""
    if not isinstance(table, dict):
        raise PlanError(["client_policy.demands is not a table"])
    unknown = sorted(set(table) - DEMANDS)
    if unknown:
        raise PlanError([f"client_policy.demands has an unknown member {name!r}" for name in unknown])
    try:
        return read_demands(table)
    except UsageError as error:
        raise PlanError([f"client_policy.demands: {error}"]) from None


def _mode(table: Mapping[str, Any]) -> str:
    mode = line(table, "mode")
    if mode not in MODES:
        raise PlanError([f"mode {mode!r} is none of {', '.join(MODES)}"])
    return mode
