"""Initialise: a new data directory with online keys, a witness, and what a ceremony needs to know of them.

    settings.toml            origin and base URL
    passphrase               opens the online keys (0600); absent when COUNTERMARK_KEY_PASSPHRASE was set
    keys/ timestamper/       encrypted online keys (signing.py)
    witness/                 a witness of our own: its key, and its memory of our log
    registry.sqlite          the tables, empty; where COUNTERMARK_DATABASE_URL names a server, they are there
    ceremony-input.json      public halves only: carry it to the ceremony

Nothing here is trusted by anybody yet. The ceremony decides which of these keys count, and for what; `adopt`
brings its answer back. Everything is made in a folder beside and renamed at the end, so a data directory is
there as a whole or not at all.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from countermark import keyfile
from countermark.cloudkeys import key_spki
from countermark.errors import UsageError
from countermark.limits import BIN_BITS_MAX
from countermark.predecessor import Predecessor
from countermark.statement import Statement, keyid_of, sign
from countermark.tlog.note import VerifierKey
from countermark_server import db, migrations, onlinekeys, signing
from countermark_server.settings import Registry, Settings, load

INPUT_FILE = "ceremony-input.json"
WITNESS = "witness-1"  # what the policy calls it
RANDOM_PASSPHRASE_N = 2**10  # 256 random bits need no stretching, and every start opens these files
_ORIGIN = re.compile(r"[!-*,-~]{1,200}")  # a key name: printable ASCII, no blank, no plus


@dataclass(frozen=True)
class Made:
    """What `init` made, as it prints it: names and fingerprints of public halves."""

    data: Path
    fingerprints: Mapping[str, str]
    vkeys: tuple[str, ...]
    witness: str


def initialise(
    data: Path,
    origin: str,
    base_url: str = "",
    *,
    bit_length: int = 12,
    predecessor: Predecessor | None = None,
    keys: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Made:
    """Make the data directory. UsageError: it exists, or a name is not one; nothing was made.

    `keys` says where an online TUF key lies already, by its role (onlinekeys.py); the others are made here.
    """
    check_origin(origin)
    check_base_url(base_url)
    for role in keys or {}:
        if role not in signing.TUF_ROLES:
            raise UsageError(f"{role!r} is not an online TUF role", hint=", ".join(signing.TUF_ROLES))
    if not 1 <= bit_length <= BIN_BITS_MAX:
        raise UsageError(f"bit length {bit_length} is not within 1 to {BIN_BITS_MAX}")
    beside = data.with_name(f".{data.name}.new-{os.getpid()}")
    try:
        if data.exists() and (not data.is_dir() or any(data.iterdir())):
            raise UsageError(
                f'"{data}" exists and is not empty', hint="nothing is overwritten; choose another one"
            )
        beside.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise UsageError(f'cannot make "{data}": {error.strerror}') from None
    try:
        made = _fill(beside, origin, base_url, bit_length, environ, predecessor=predecessor, keys=keys or {})
        beside.rename(data)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return Made(data, made.fingerprints, made.vkeys, made.witness)


def _fill(
    folder: Path,
    origin: str,
    base_url: str,
    bit_length: int,
    environ: Mapping[str, str],
    *,
    predecessor: Predecessor | None,
    keys: Mapping[str, str],
) -> Made:
    (folder / "settings.toml").write_text(_settings_text(origin, base_url, keys), encoding="utf-8")
    settings = replace(load(folder, environ), registry=Registry(origin, base_url))
    ours = [role for role in signing.TUF_ROLES if _is_made_here(settings, role)]
    names = (*signing.ROLES, *ours, signing.LOG_ED25519, signing.LOG_MLDSA44)
    _make_keys(folder, names, environ)
    tuf_keys = {role: onlinekeys.public_keys(settings, role)[0] for role in signing.TUF_ROLES}
    engine = db.open_engine(settings.database_url)  # COUNTERMARK_DATABASE_URL may say where
    migrations.upgrade(engine)
    engine.dispose()
    log_keys = [signer.vkey for signer in signing.log_signers(settings, environ)]
    witness = _make_witness(folder / "witness", f"{origin}/{WITNESS}", log_keys)
    lines = [f"log {key.format()}" for key in log_keys]
    lines += [f"witness {WITNESS} {witness}", f"quorum {WITNESS}", ""]
    document: dict[str, object] = {
        "origin": origin,
        "log_vkeys": [key.format() for key in log_keys],
        "witness_policy": "\n".join(lines),
        "tuf_keys": {role: key.to_dict() for role, key in tuf_keys.items()},
        "role_keys": {role: _enrolment(settings, role, environ) for role in signing.ROLES},
        "bit_length": bit_length,
    }
    if predecessor is not None:
        document["predecessor"] = predecessor.to_dict()
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (folder / INPUT_FILE).write_text(text, encoding="utf-8")
    prints = {name: _fingerprint(folder, name) for name in names}
    prints |= {role: keyid_of(key_spki(key)) for role, key in tuf_keys.items()}
    return Made(folder, prints, tuple(key.format() for key in log_keys), witness)


def _make_keys(folder: Path, names: tuple[str, ...], environ: Mapping[str, str]) -> None:
    stretch = keyfile.SCRYPT_N
    if signing.PASSPHRASE_VARIABLE not in environ:
        _write_private(folder / "passphrase", secrets.token_urlsafe(32).encode() + b"\n")
        stretch = RANDOM_PASSPHRASE_N
    for name in names:
        make_key(folder, signing.key_path(folder, name), environ, stretch=stretch)


def make_key(
    data: Path, path: Path, environ: Mapping[str, str] = os.environ, *, stretch: int | None = None
) -> None:
    """One more online key, in an encrypted file that was not there; `data` has the passphrase."""
    if stretch is None:
        stretch = keyfile.SCRYPT_N if signing.PASSPHRASE_VARIABLE in environ else RANDOM_PASSPHRASE_N
    key: keyfile.PrivateKey = ed25519.Ed25519PrivateKey.generate()
    if path.stem.startswith(signing.LOG_MLDSA44):
        key = mldsa.MLDSA44PrivateKey.generate()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    passphrase = signing.passphrase(data, environ)
    _write_private(
        path, keyfile.encrypt(key, passphrase, name=path.stem, salt=secrets.token_bytes(16), n=stretch)
    )


def _make_witness(folder: Path, name: str, log_keys: list[VerifierKey]) -> str:
    """A witness of our own, made by the client's command: the server never imports a command engine."""
    vkey = witness_command("init", "--dir", str(folder), "--name", name).strip()
    VerifierKey.parse(vkey)
    vkeys = [argument for key in log_keys for argument in ("--vkey", key.format())]
    witness_command("add-log", "--dir", str(folder), *vkeys)
    return vkey


def witness_command(*arguments: str) -> str:
    """Run `countermark witness ...` to its end; its standard output. UsageError: it refused."""
    argv = [sys.executable, "-m", "countermark", "witness", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise UsageError(f"countermark witness {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _enrolment(settings: Settings, role: str, environ: Mapping[str, str]) -> dict[str, object]:
    """`key-enroll` of a role key, signed by that key; the ceremony adds the authority's signature."""
    signer = signing.role_signer(settings, role, environ)
    predicate = {
        "origin": settings.registry.origin,
        "namespace": "",
        "project": "",
        "prev": None,
        "key": base64.b64encode(signer.public_key).decode(),
        "scope": role,
        "valid_for": None,
        "threshold": 1,
    }
    return sign(Statement.about(f"key:{signer.keyid}", "key-enroll", predicate), signer).to_dict()


def check_origin(origin: str) -> None:
    """An origin is a name: a URL without scheme, never reachable because it looks like one."""
    if not _ORIGIN.fullmatch(origin) or "://" in origin or origin.endswith("/"):
        raise UsageError(
            f"{origin!r} is not an origin",
            hint="a name like registry.example.com/main: no scheme, no blank, no plus, no slash at its end",
        )
    if origin == "rehearsal.invalid":
        raise UsageError(
            "rehearsal.invalid is the stand-in registry of rehearsals: its root is refused everywhere"
        )


def check_base_url(base_url: str) -> None:
    """Empty (decided by `up --listen`), or an http or https URL without trailing slash."""
    parts = urlsplit(base_url)
    plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    if base_url and (not plain or base_url.endswith("/") or not base_url.isprintable()):
        raise UsageError(
            f"{base_url!r} is not a base URL", hint="https://registry.example.com, no slash at its end"
        )


def _is_made_here(settings: Settings, role: str) -> bool:
    default = signing.key_path(settings.data, role).relative_to(settings.data)
    return onlinekeys.uris(settings, role) == (f"keyfile:{default}",)


def _settings_text(origin: str, base_url: str, keys: Mapping[str, str]) -> str:
    lines = ["# Countermark: every setting is in docs/operations/settings.md", "[registry]"]
    lines += [f"origin = {json.dumps(origin)}", f"base_url = {json.dumps(base_url)}"]
    sections: dict[str, list[str]] = {}
    for role, uri in keys.items():
        section, name = onlinekeys.setting_of(role).split(".")
        sections.setdefault(section, []).append(f"{name} = {json.dumps(uri)}")
    for section, values in sections.items():
        lines += ["", f"[{section}]", *values]
    return "\n".join([*lines, ""])


def _fingerprint(folder: Path, name: str) -> str:
    return keyfile.KeyFile.parse(signing.key_path(folder, name).read_bytes()).keyid


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
