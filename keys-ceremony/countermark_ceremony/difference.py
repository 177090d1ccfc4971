"""The difference between what is in force and what is to be signed, in sentences read from the bytes alone.

    - root version 1, expires 2027-11-22T12:00:00Z
    + root version 2, expires 2028-08-22T12:00:00Z
      root: 2 of 3 keys
    -   root key ecdsa-sha2-nistp256 5f0c...
    +   root key ecdsa-sha2-nistp256 91aa...
    ! root: 1 of 3 keys leave, 1 come

`+` comes, `-` goes, a blank stays, `!` is a warning: a threshold that shrinks, a margin that shrinks, an expiry
that is nearer than the one before, a key whose id stays while its bytes change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import cast

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Role, Root, Targets

from countermark_ceremony.handover import fingerprint, key_spki


def difference(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Lines of `describe`, compared: each keeps its text and gets its mark."""
    lines: list[str] = []
    plain_old, plain_new = (
        [line.removeprefix("+ ") for line in old],
        [line.removeprefix("+ ") for line in new],
    )
    for tag, a, b, c, d in SequenceMatcher(None, plain_old, plain_new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [f"  {line}" for line in plain_new[c:d]]
        else:
            lines += [f"- {line}" for line in plain_old[a:b]]
            lines += [f"+ {line}" for line in plain_new[c:d]]
    return lines


def warnings(old: Root | Targets, new: Root | Targets) -> list[str]:
    """What a custodian should ask about before signing."""
    lines = []
    if new.version != old.version + 1:
        lines.append(f"! version {new.version} does not follow version {old.version}")
    if new.expires <= old.expires:
        lines.append(f"! expires on {new.expires:%Y-%m-%d}, no later than before ({old.expires:%Y-%m-%d})")
    before, after = _roles(old), _roles(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            lines.append(f"! the delegation to {name} {'is new' if name in after else 'goes away'}")
        else:
            lines += _role_warnings(name, before[name], after[name])
    return lines


def _role_warnings(
    name: str, old: tuple[Role, Mapping[str, str]], new: tuple[Role, Mapping[str, str]]
) -> list[str]:
    (before, keys_before), (after, keys_after) = old, new
    lines = []
    gone = set(keys_before.values()) - set(keys_after.values())
    come = set(keys_after.values()) - set(keys_before.values())
    if gone or come:
        lines.append(f"! {name}: {len(gone)} of {len(keys_before)} keys leave, {len(come)} come")
    if after.threshold < before.threshold:
        lines.append(f"! {name}: the threshold shrinks from {before.threshold} to {after.threshold}")
    spare, spare_before = len(keys_after) - after.threshold, len(keys_before) - before.threshold
    if spare < spare_before:
        lines.append(f"! {name}: {spare} keys may be lost from now on, before it was {spare_before}")
    if len(set(keys_after.values())) != len(keys_after):
        lines.append(f"! {name}: one key stands twice under different ids")
    for keyid in keys_before.keys() & keys_after.keys():
        if keys_before[keyid] != keys_after[keyid]:
            lines.append(f"! {name}: key id {keyid} stays, but its key is another one")
    return lines


def _roles(signed: Root | Targets) -> dict[str, tuple[Role, dict[str, str]]]:
    """Of each role this metadata delegates to: the role, and the fingerprint of each of its key ids."""
    if isinstance(signed, Root):
        roles: dict[str, Role] = dict(signed.roles)
        keys = signed.keys
    elif signed.delegations is not None:
        roles, keys = dict(signed.delegations.roles or {}), signed.delegations.keys
        if signed.delegations.succinct_roles is not None:
            roles[signed.delegations.succinct_roles.name_prefix] = signed.delegations.succinct_roles
    else:
        return {}
    return {
        name: (role, {keyid: fingerprint(key_spki(cast(SSlibKey, keys[keyid]))) for keyid in role.keyids})
        for name, role in roles.items()
    }
