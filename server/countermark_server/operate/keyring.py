"""The online TUF keys of this machine: which there are, which are in force, and how one follows another.

    bins       keyfile:keys/bins.json             in force   9c41...   MCowBQYDK2VwAyEA...
    bins       keyfile:keys/bins-2.json           waits      5d10...   MCowBQYDK2VwAyEA...

A key that is to follow another is made beside it, never over it: `make` writes a file, a token or a service makes its
own. Then the setting names both, the ceremony says from when the new one counts, and the old one is taken out of
the setting when it is in force. docs/operations/online-keys.md has the steps.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from countermark.cloudkeys import key_spki
from countermark.errors import CountermarkError
from countermark.statement import keyid_of
from countermark_server import adopted, onlinekeys, signing
from countermark_server.operate.initialise import make_key
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.stores.public import TIMESTAMP, Public


@dataclass(frozen=True)
class Listed:
    """One key that the settings lead to."""

    role: str
    uri: str
    standing: str  # in force · waits · unknown: no ceremony was adopted here
    fingerprint: str
    public_key: str  # SPKI, base64, as the plan of a later ceremony takes it


def listed(settings: Settings, role: str) -> list[Listed]:
    """Every key of a role, in the order of its setting. Asks for no secret."""
    named = _in_force(places.public(settings)).get(role)
    found = []
    uris, keys = onlinekeys.uris(settings, role), onlinekeys.public_keys(settings, role)
    for uri, key in zip(uris, keys, strict=True):
        spki = key_spki(key)
        standing = "unknown" if named is None else "in force" if key.keyid in named else "waits"
        found.append(Listed(role, uri, standing, keyid_of(spki), base64.b64encode(spki).decode()))
    return found


def every(settings: Settings) -> Iterator[Listed | str]:
    """The keys of all roles; a sentence about each role whose keys are not on this machine."""
    for role in signing.TUF_ROLES:
        try:
            yield from listed(settings, role)
        except CountermarkError as error:
            yield f"{role}: {error}"


def make(settings: Settings, role: str, environ: Mapping[str, str] = os.environ) -> str:
    """A new key for a role in an encrypted file beside the present one; its URI. Nothing uses it yet."""
    onlinekeys.uris(settings, role)  # it is a role
    first, number = signing.key_path(settings.data, role), 2
    while (path := first.with_name(f"{role}-{number}.json")).exists():
        number += 1
    make_key(settings.data, path, environ)
    return f"{onlinekeys.KEYFILE}:{path.relative_to(settings.data)}"


def make_log_keys(settings: Settings, environ: Mapping[str, str] = os.environ) -> int:
    """One more key set of the log, in files; its number. Nothing signs with it yet."""
    number = 2
    while any(signing.key_path(settings.data, name).exists() for name in signing.log_key_names(number)):
        number += 1
    for name in signing.log_key_names(number):
        make_key(settings.data, signing.key_path(settings.data, name), environ)
    return number


def policy_with(settings: Settings, number: int, environ: Mapping[str, str] = os.environ) -> str:
    """The witness policy in force, with the log lines of this key set: what a ceremony's plan takes."""
    lines = adopted.trust_file(places.public(settings)).witness_policy.splitlines()
    ours = [f"log {signer.vkey.format()}" for signer in signing.key_set(settings, number, environ)]
    rest = [line for line in lines if not line.startswith("log ")]
    return "\n".join([*ours, *rest, ""])


def _in_force(public: Public) -> dict[str, list[str]]:
    """Key ids of each role, as the root that clients find and the index in force say; nothing before the first."""
    raw, timestamp = adopted.newest_root(public), public.read(TIMESTAMP)
    if raw is None or timestamp is None:
        return {}
    version = Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(public.read(f"tuf/{version}.snapshot.json") or b"{}").signed
    index = public.read(f"tuf/{snapshot.meta['index.json'].version}.index.json")
    bins = Metadata[Targets].from_bytes(index or b"{}").signed.delegations
    assert bins is not None and bins.succinct_roles is not None  # our own metadata, as it is served
    roles = Metadata[Root].from_bytes(raw).signed.roles
    return {role: roles[role].keyids for role in ("snapshot", "timestamp")} | {
        "bins": bins.succinct_roles.keyids
    }
