"""The publisher's key: one file per name, an encrypted key or a reference to one that is somewhere else.

    ~/.config/countermark/keys/publisher.json           keyfile.py, or keyreference.py; the public half is readable
                               publisher.passphrase     only after `key new --no-passphrase`

The passphrase comes from COUNTERMARK_PASSPHRASE, or is asked for on the terminal, or, where somebody
decided so in words (`--no-passphrase`), lies beside the key: then whoever reads this folder can sign.
Without any of the three there is no key, rather than an unprotected one. A key that the ssh-agent or a token holds
needs none: who may use it is theirs to ask.

Rotation gives a name to a new key, under the same passphrase; the old one stays beside it as `publisher-<keyid>`,
until its owner deletes it.

A public key stays in the log for ever and may identify its owner: that is said before it is enrolled, and a
fresh key is offered first.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark import keyfile
from countermark.disk import create_file, read_file, remove_file, replace_file, safe_name
from countermark.errors import UsageError
from countermark.keyreference import KeyReference, find, is_reference, open_reference
from countermark.limits import KEY_FILE_MAX_BYTES
from countermark.statement import KeySigner, Signer
from countermark.values import dataclass

DEFAULT_NAME = "publisher"
PASSPHRASE_FILE_MAX_BYTES = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
Ask = Callable[[str], str]


@dataclass(frozen=True)
class StoredKey:
    """A key file in the keys folder."""

    name: str
    path: Path
    file: keyfile.KeyFile | KeyReference

    @property
    def where(self) -> str:
        """Where its private half is, in words."""
        return self.file.where if isinstance(self.file, KeyReference) else str(self.path)

    @property
    def keyid(self) -> str:
        return self.file.keyid

    @property
    def passphrase_file(self) -> Path:
        return self.path.with_suffix(".passphrase")


def ask_terminal(prompt: str) -> str:
    """Ask without echo; UsageError where nobody could answer."""
    if not sys.stdin.isatty():
        raise UsageError(
            "a passphrase is needed and nobody is there to type it",
            hint="set COUNTERMARK_PASSPHRASE, or make a key with `countermark key new --no-passphrase`",
        )
    return getpass.getpass(prompt)


def create_key(
    folder: Path,
    name: str = DEFAULT_NAME,
    *,
    no_passphrase: bool = False,
    environment: Mapping[str, str] = os.environ,
    ask: Ask = ask_terminal,
) -> StoredKey:
    """Make an Ed25519 key; never over an existing one."""
    path = _path(folder, name)
    if path.exists():
        raise UsageError(f'key "{name}" already exists', hint="choose another --name")
    if no_passphrase:
        passphrase = secrets.token_hex(16)
        create_file(path.with_suffix(".passphrase"), passphrase.encode())
    else:
        passphrase = environment.get("COUNTERMARK_PASSPHRASE") or _ask_twice(ask)
    create_file(path, _encrypted(passphrase, name))
    return load_key(folder, name)


def load_key(folder: Path, name: str) -> StoredKey:
    """The key file of this name; UsageError with the command to run when there is none."""
    path = _path(folder, name)
    raw = read_file(path, max_bytes=KEY_FILE_MAX_BYTES)
    if raw is None:
        raise UsageError(f'no key "{name}"', hint=f"countermark key new --name {name}")
    file = KeyReference.parse(raw) if is_reference(raw) else keyfile.KeyFile.parse(raw)
    return StoredKey(name, path, file)


def has_key(folder: Path, name: str) -> bool:
    """Whether a key has this name, whatever is wrong with it."""
    return _path(folder, name).exists()


def add_key(folder: Path, name: str, where: str, *, environment: Mapping[str, str] = os.environ) -> StoredKey:
    """Give a name to a key that the ssh-agent or a token holds; never to two keys."""
    path = _path(folder, name)
    if path.exists():
        raise UsageError(f'key "{name}" already exists', hint="choose another --name")
    create_file(path, find(name, where, environment).format())
    return load_key(folder, name)


def list_keys(folder: Path) -> Iterator[StoredKey]:
    """Every key in the folder, by name."""
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        yield load_key(folder, path.stem.removeprefix("-"))


def open_signer(
    key: StoredKey, *, environment: Mapping[str, str] = os.environ, ask: Ask = ask_terminal
) -> Signer:
    """The signer of a key, once its passphrase opened it, or whoever holds it answered."""
    if isinstance(key.file, KeyReference):
        return open_reference(key.file, environment, ask)
    return _open(key, _passphrase(key, environment, ask))


def begin_rotation(
    folder: Path, name: str, *, environment: Mapping[str, str] = os.environ, ask: Ask = ask_terminal
) -> tuple[Signer, Signer]:
    """The key of this name and its successor, made now or left by a rotation that was interrupted.

    The successor is a key file, under the old one's passphrase; after a key that is elsewhere, under a new one.
    """
    key, waiting = load_key(folder, name), _path(folder, f"{name}-next")
    old: Signer
    if isinstance(key.file, KeyReference):
        old = open_reference(key.file, environment, ask)
        passphrase = environment.get("COUNTERMARK_PASSPHRASE") or _ask_twice(ask)
    else:
        passphrase = _passphrase(key, environment, ask)
        old = _open(key, passphrase)
    if waiting.exists() and load_key(folder, waiting.stem).keyid == old.keyid:
        remove_file(waiting)  # the last rotation was finished but for this
    if not waiting.exists():
        create_file(waiting, _encrypted(passphrase, name))
        # If we stop here, or anywhere before finish_rotation, the next rotation goes on with this key.
    return old, _open(load_key(folder, waiting.stem), passphrase)


def finish_rotation(folder: Path, name: str) -> StoredKey:
    """Give the name to the successor; the old key, under its new name."""
    old, waiting = load_key(folder, name), _path(folder, f"{name}-next")
    kept = _path(folder, f"{name}-{old.keyid[:16]}")
    if not kept.exists():
        stored = read_file(old.passphrase_file, max_bytes=PASSPHRASE_FILE_MAX_BYTES)
        if stored is not None:
            replace_file(kept.with_suffix(".passphrase"), stored)
        create_file(kept, read_file(old.path, max_bytes=KEY_FILE_MAX_BYTES) or b"")
    # If we stop here the old key is there under both names, and the rotation is finished by the next one.
    replace_file(old.path, read_file(waiting, max_bytes=KEY_FILE_MAX_BYTES) or b"")
    # If we stop here the new key is there under both names; begin_rotation removes the second.
    remove_file(waiting)
    return load_key(folder, kept.stem)


def _passphrase(key: StoredKey, environment: Mapping[str, str], ask: Ask) -> str:
    stored = read_file(key.passphrase_file, max_bytes=PASSPHRASE_FILE_MAX_BYTES)
    if stored is not None:
        return stored.decode().strip()
    return environment.get("COUNTERMARK_PASSPHRASE") or ask(f"passphrase of key {key.name}: ")


def _open(key: StoredKey, passphrase: str) -> KeySigner:
    raw = read_file(key.path, max_bytes=KEY_FILE_MAX_BYTES) or b""
    private = keyfile.decrypt(raw, passphrase.encode())
    if not isinstance(private, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise UsageError(f'key "{key.name}" is of a kind that signs no statements')
    return KeySigner(private)


def _encrypted(passphrase: str, name: str) -> bytes:
    """A new key in its file's form."""
    salt = secrets.token_bytes(keyfile.SALT_BYTES)
    return keyfile.encrypt(Ed25519PrivateKey.generate(), passphrase.encode(), name=name, salt=salt)


def _ask_twice(ask: Ask) -> str:
    first = ask("new passphrase: ")
    if not first:
        raise UsageError("an empty passphrase protects nothing", hint="--no-passphrase says so deliberately")
    if ask("the same once more: ") != first:
        raise UsageError("the two passphrases differ")
    return first


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(f'"{name}" is no key name: small letters, digits, dash and underscore')
    return folder / safe_name(f"{name}.json")
