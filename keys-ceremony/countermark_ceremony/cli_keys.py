"""countermark-ceremony keys: make, take in and show a holder's keys. Arguments and printing only.

countermark-ceremony keys new --name "ada root" --out ada-root.key.json
countermark-ceremony keys new --name "ada root" --token 'hsm:2?label=ada'
countermark-ceremony keys import 'hsm:2?label=ada'
countermark-ceremony keys show ada-root.key.json
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric import ec

from countermark import keyfile, tokens
from countermark.errors import UsageError
from countermark.statement import keyid_of
from countermark_ceremony import console, files

PATH = click.Path(path_type=Path)
PASSPHRASE = click.option(
    "--passphrase-file", type=PATH, help="File whose first line is the passphrase; asked for when absent."
)
PIN = click.option(
    "--pin-file", type=PATH, help="File whose first line is the token's PIN; asked for when absent."
)


@click.group(cls=console.Group)
def keys() -> None:
    """Make, take in and show a holder's keys, in encrypted files or on tokens."""


@keys.command()
@click.option("--name", required=True, help="What people call this key, such as 'ada root'.")
@click.option("--out", type=PATH, help="The encrypted key file to write (ECDSA P-256).")
@click.option(
    "--token", metavar="URI", help="Make it on a token instead: hsm:ID?label=L or pkcs11ed:ID?label=L."
)
@PASSPHRASE
@PIN
def new(
    name: str, out: Path | None, token: str | None, passphrase_file: Path | None, pin_file: Path | None
) -> None:
    """Make a key in an encrypted file or on a token; print what the plan needs of it."""
    if (out is None) == (token is None):
        raise UsageError("a key is made in a file (--out) or on a token (--token), one of them")
    if out is not None:
        _new_file(name, out, passphrase_file)
    elif token is not None:
        place = tokens.Place.parse(token)
        pin = secret(pin_file, f"PIN of token {place.label!r}")
        _print_token(place, tokens.generate(place, pin.decode(), name=name))


@keys.command(name="import")
@click.argument("uri", metavar="URI")
def import_(uri: str) -> None:
    """Read a key that is on a token already; print what the plan needs of it."""
    place = tokens.Place.parse(uri)
    _print_token(place, tokens.public_key(place))


@keys.command()
@click.argument("key", metavar="FILE_OR_URI")
def show(key: str) -> None:
    """Show the public half of a key file or of a key on a token."""
    if key.startswith((f"{tokens.P256}:", f"{tokens.ED25519}:")):
        place = tokens.Place.parse(key)
        _print_token(place, tokens.public_key(place))
    else:
        parsed = keyfile.KeyFile.parse(files.read(Path(key)))
        console.say(f"key {parsed.name!r}; fingerprint {parsed.keyid}")
        _print_public(parsed.public_key)


def secret(path: Path | None, prompt: str, *, confirm: bool = False) -> bytes:
    """A passphrase or PIN: the first line of a file, or what the person types."""
    if path is not None:
        first = files.read(path).split(b"\n", 1)[0].rstrip(b"\r")
        if not first:
            raise UsageError(f'"{path}" holds no secret in its first line')
        return first
    text: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return text.encode()


def _new_file(name: str, out: Path, passphrase_file: Path | None) -> None:
    files.check_absent(out)
    passphrase = secret(passphrase_file, f"passphrase for {name!r}", confirm=True)
    private = ec.generate_private_key(ec.SECP256R1())
    raw = keyfile.encrypt(private, passphrase, name=name, salt=os.urandom(keyfile.SALT_BYTES))
    keyfile.decrypt(raw, passphrase)  # a key nobody can open is found out now, not in the ceremony
    files.write_new(out, raw, mode=0o600)
    public = keyfile.KeyFile.parse(raw)
    console.say(f"wrote {out}; fingerprint {public.keyid}")
    _print_public(public.public_key)


def _print_token(place: tokens.Place, spki: bytes) -> None:
    found = tokens.device(place)
    console.say(f"key {place.id} on token {place.label!r}; fingerprint {keyid_of(spki)}")
    _print_public(spki)
    said = {"vendor": found.vendor, "serial": found.serial, "uri": place.uri}
    print("token = { " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in said.items()) + " }")


def _print_public(spki: bytes) -> None:
    print(f'public_key = "{base64.b64encode(spki).decode()}"')
