"""What a later plan says of the online TUF roles: keys that follow others, and more bins.

    [online]                           # optional; what it does not name stays as it is
    bins = "MCowBQYDK2VwAyEA..."       # public halves as `countermark-server online-keys` prints them
    timestamp = "MFkwEwYHKoZI..."
    bit_length = 14                    # 2^14 bins instead of fewer

A new key of snapshot or timestamp changes the root; one of bins, and another number of bins, change the index. Each
online role has one key. Bins only become more: the roles of fewer would have to leave the snapshot, and TUF
lets none leave.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tuf.api.metadata import Root, SuccinctRoles, Targets

from countermark.errors import MalformedError
from countermark.limits import BIN_BITS_MAX
from countermark.statement import load_public_key
from countermark_ceremony.handover import ONLINE_ROLES, fingerprint, tuf_key
from countermark_ceremony.tables import PlanError, line, members, of_type

BIT_LENGTH = "bit_length"
RENEWS = {"bins": "index", BIT_LENGTH: "index", "snapshot": "root", "timestamp": "root"}


@dataclass(frozen=True)
class OnlineChange:
    """The table `[online]`: SPKI of each key that comes, and how many bins there are to be."""

    keys: Mapping[str, bytes] = field(default_factory=dict)
    bit_length: int | None = None

    @property
    def said(self) -> tuple[str, ...]:
        """Its members."""
        return (*self.keys, *((BIT_LENGTH,) if self.bit_length is not None else ()))

    def fingerprints(self) -> dict[str, str]:
        """Of each key that comes, to its role."""
        return {fingerprint(spki): f"TUF {role}" for role, spki in self.keys.items()}

    def changes(self) -> Iterator[str]:
        """As a plan's `changes` says it."""
        if self.keys:
            yield "online-keys"
        if self.bit_length is not None:
            yield "bins"

    @property
    def title(self) -> str:
        """In a line."""
        words = [f"another online key for {' and '.join(self.keys)}"] if self.keys else []
        return ", ".join([*words, *([f"2^{self.bit_length} bins"] if self.bit_length is not None else [])])

    def table(self) -> list[str]:
        """Its table in a plan, line by line, a blank one first; nothing where nothing changes."""
        lines = [f'{role} = "{base64.b64encode(spki).decode()}"' for role, spki in self.keys.items()]
        if self.bit_length is not None:
            lines.append(f"{BIT_LENGTH} = {self.bit_length}")
        return ["", "[online]", *lines] if lines else []


def read_online(table: Mapping[str, Any]) -> OnlineChange:
    """The table `[online]`."""
    members(table, set(table) & {*ONLINE_ROLES, BIT_LENGTH}, "[online]")
    if not table:
        raise PlanError(["[online] says nothing: leave it away"])
    keys = {role: read_public(role, line(table, role)) for role in ONLINE_ROLES if role in table}
    return OnlineChange(keys, of_type(table, BIT_LENGTH, int) if BIT_LENGTH in table else None)


def read_public(role: str, text: str) -> bytes:
    """A public half in base64, of a kind that online roles may have."""
    try:
        spki = base64.b64decode(text, validate=True)
        load_public_key(spki)
    except (MalformedError, binascii.Error) as error:
        raise PlanError(
            [f"[online] {role} is not a base64 SPKI of Ed25519 or ECDSA P-256: {error}"]
        ) from error
    return spki


def problems(
    change: OnlineChange, bins: SuccinctRoles, online: Mapping[str, str], renewed: Mapping[str, object]
) -> Iterator[str]:
    """Why this can't follow what is in force: `online` are the fingerprints of its keys, to their roles."""
    for said in change.said:
        if RENEWS[said] not in renewed:
            yield f"[online] {said} needs the role {RENEWS[said]}, which names it"
    prints = [fingerprint(spki) for spki in change.keys.values()]
    if len(set(prints)) != len(prints):
        yield "[online] gives one key to two roles"
    for print_, role in zip(prints, change.keys, strict=True):
        if print_ in online:
            yield f"[online] {role}: this key is in force already, as {online[print_]}"
    if change.bit_length is not None and not bins.bit_length < change.bit_length <= BIN_BITS_MAX:
        yield (
            f"[online] bit_length goes from {bins.bit_length} to {change.bit_length}: "
            f"it only rises, to {BIN_BITS_MAX} at the most"
        )


def renew_root(change: OnlineChange, root: Root) -> None:
    """Delegate snapshot and timestamp to the keys that come."""
    for role in ("snapshot", "timestamp"):
        if role in change.keys:
            key = tuf_key(change.keys[role])
            root.roles[role].keyids, root.keys[key.keyid] = [key.keyid], key


def renew_index(change: OnlineChange, index: Targets) -> None:
    """Delegate the bins to the key that comes, and to as many as there are to be."""
    delegations = index.delegations
    assert delegations is not None  # it was verified
    old = cast(SuccinctRoles, delegations.succinct_roles)
    keyids = list(old.keyids)
    if "bins" in change.keys:
        key = tuf_key(change.keys["bins"])
        keyids = [key.keyid]
        delegations.keys = {key.keyid: key}
    bit_length = change.bit_length or old.bit_length
    delegations.succinct_roles = SuccinctRoles(keyids, 1, bit_length, old.name_prefix)
