"""The `key` commands; the engine is signer.py."""

from __future__ import annotations

import argparse
import base64

from countermark.console import put, put_json, say
from countermark.pins import Home
from countermark.signer import StoredKey, create_key, list_keys, load_key


def new(arguments: argparse.Namespace) -> int:
    key = create_key(Home().keys, arguments.name, no_passphrase=arguments.no_passphrase)
    if arguments.no_passphrase:
        say(f"key {key.name} has no passphrase: whoever can read {key.path.parent} can sign with it")
    _print(key, json=arguments.json)
    return 0


def show(arguments: argparse.Namespace) -> int:
    _print(load_key(Home().keys, arguments.name), json=arguments.json)
    return 0


def show_all(arguments: argparse.Namespace) -> int:
    keys = list(list_keys(Home().keys))
    if arguments.json:
        put_json([_json(key) for key in keys])
    for key in () if arguments.json else keys:
        put(f"{key.name}  {key.keyid}")
    return 0


def _print(key: StoredKey, *, json: bool) -> None:
    if json:
        put_json(_json(key))
    else:
        put(f"{key.name}  {key.keyid}")


def _json(key: StoredKey) -> dict[str, object]:
    return {
        "keyid": key.keyid,
        "name": key.name,
        "path": str(key.path),
        "public_key": base64.b64encode(key.file.public_key).decode(),
    }
