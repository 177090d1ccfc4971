"""The `key` commands; the engine is signer.py."""

from __future__ import annotations

import argparse
import base64
import os
import sys

from countermark.agent import Agent
from countermark.console import ask, put, put_json, say
from countermark.errors import CountermarkError, UsageError
from countermark.keyreference import AGENT
from countermark.pins import Home
from countermark.signer import StoredKey, add_key, create_key, list_keys, load_key


def new(arguments: argparse.Namespace) -> int:
    key = create_key(Home().keys, arguments.name, no_passphrase=arguments.no_passphrase)
    if arguments.no_passphrase:
        say(f"key {key.name} has no passphrase: whoever can read {key.path.parent} can sign with it")
    _print(key, json=arguments.json)
    return 0


def add(arguments: argparse.Namespace) -> int:
    key = add_key(Home().keys, arguments.name, arguments.where)
    say(
        "once it is enrolled its public half stays in the log for ever: who knows it from elsewhere knows you"
    )
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


def chosen_place() -> str | None:
    """Where the key lies that a person takes instead of a fresh one; None: a fresh one, or nobody to ask."""
    if not sys.stdin.isatty():
        return None
    try:
        held = [key for key in Agent.at_hand(os.environ).held() if key.public_key is not None]
    except CountermarkError:
        return None
    if not held:
        return None
    say("there is no key here yet; which one shall sign?")
    say("  1  a fresh one, which nobody knows (the default)")
    for number, key in enumerate(held, 2):
        say(
            f"  {number}  {key.fingerprint} of the ssh-agent, {key.comment}: who knows it knows you, for ever"
        )
    answer = ask("number") or "1"
    if not answer.isdecimal() or not 1 <= int(answer) <= len(held) + 1:
        raise UsageError(f"{answer!r} is none of them")
    return None if answer == "1" else f"{AGENT}:{held[int(answer) - 2].fingerprint}"


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
        "where": key.where,
    }
