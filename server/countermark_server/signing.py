"""Signing: the online keys of this machine, and what signs with them.

    keys/log-ed25519.json      the log's Ed25519 line          -> log_signers()
    keys/log-mldsa44.json      the log's ML-DSA-44 line
    keys/registry.json         statements of the registry      -> role_signer("registry")
    keys/scanner.json          verdicts
    keys/moderation.json       moderation acts
    keys/bins.json             TUF role bins; where settings name another place: onlinekeys.py
    keys/snapshot.json         TUF role snapshot
    timestamper/timestamp.json TUF role timestamp: the timestamper's own, in its own folder

Every file is encrypted (`countermark.keyfile`). The passphrase comes from COUNTERMARK_KEY_PASSPHRASE or from
the file `passphrase` in the data directory. A process opens only the keys of its station.

These are *online* keys: who owns this machine can use them while he does. What he signs is in the log, is
bounded by roles whose keys are offline, and cannot outlive a ceremony. Root, targets, trust, index and
authority keys are never here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from countermark import keyfile
from countermark.errors import UsageError
from countermark.statement import KeySigner
from countermark.tlog.cosignature import MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, NoteSigner
from countermark_server.settings import Settings

PASSPHRASE_VARIABLE = "COUNTERMARK_KEY_PASSPHRASE"  # noqa: S105  (a name, not a passphrase)
LOG_ED25519, LOG_MLDSA44 = "log-ed25519", "log-mldsa44"
ROLES = ("registry", "scanner", "moderation")
TUF_ROLES = ("bins", "snapshot", "timestamp")


def key_path(data: Path, name: str) -> Path:
    """Where the encrypted key of this name lies."""
    return data / ("timestamper" if name == "timestamp" else "keys") / f"{name}.json"


def passphrase(data: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    """What opens the online keys. UsageError: nobody said."""
    if given := environ.get(PASSPHRASE_VARIABLE):
        return given.encode()
    path = data / "passphrase"
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except FileNotFoundError:
        raise UsageError(
            f"no passphrase for the online keys: {path} does not exist",
            hint=f"set {PASSPHRASE_VARIABLE}, or create the file with mode 0600",
        ) from None


def load_key(data: Path, name: str, environ: Mapping[str, str] = os.environ) -> keyfile.PrivateKey:
    """Open one online key. UsageError: it is not there, or the passphrase is wrong."""
    path = key_path(data, name)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"online key {path} does not exist", hint="`countermark-server init` makes the online keys"
        ) from None
    return keyfile.decrypt(raw, passphrase(data, environ))


def log_signers(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[NoteSigner, ...]:
    """The log's signers, in the order of their lines: Ed25519, ML-DSA-44, of each set that `log.keys` names."""
    numbers = settings.log.keys.split()
    if not numbers or len(set(numbers)) != len(numbers) or not all(map(str.isdecimal, numbers)):
        raise UsageError(f"log.keys is {settings.log.keys!r}, must be numbers of key sets, each once")
    return tuple(signer for number in numbers for signer in key_set(settings, int(number), environ))


def log_key_names(number: int) -> tuple[str, str]:
    """The file names of a key set of the log."""
    return (
        (LOG_ED25519, LOG_MLDSA44) if number == 1 else (f"{LOG_ED25519}-{number}", f"{LOG_MLDSA44}-{number}")
    )


def key_set(
    settings: Settings, number: int, environ: Mapping[str, str] = os.environ
) -> tuple[NoteSigner, NoteSigner]:
    """The two signers of one key set of the log."""
    classic, lasting = (load_key(settings.data, name, environ) for name in log_key_names(number))
    if not isinstance(classic, ed25519.Ed25519PrivateKey) or not isinstance(lasting, mldsa.MLDSA44PrivateKey):
        raise UsageError("the log's keys must be Ed25519 and ML-DSA-44, in this order")
    origin = settings.registry.origin
    return Ed25519NoteSigner(origin, classic), MlDsaSigner(origin, lasting)


def role_signer(settings: Settings, role: str, environ: Mapping[str, str] = os.environ) -> KeySigner:
    """Signs statements as `registry`, `scanner` or `moderation`."""
    if role not in ROLES:
        raise UsageError(f"{role!r} is not a role that signs statements")
    key = load_key(settings.data, role, environ)
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise UsageError(f"key {role} is of a kind that signs no statements")
    return KeySigner(key)


def public_key(data: Path, name: str) -> bytes:
    """The public half (SPKI DER) of an online key, without its passphrase."""
    try:
        return keyfile.KeyFile.parse(key_path(data, name).read_bytes()).public_key
    except FileNotFoundError:
        raise UsageError(f"online key {key_path(data, name)} does not exist") from None
