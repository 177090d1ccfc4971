"""The `tokens` commands; the engine is accesstokens.py."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from countermark import accesstokens as engine
from countermark.commands_install import pinned
from countermark.console import put, put_json, say
from countermark.fetch import HttpFetcher
from countermark.pins import Registry
from countermark.session import Session
from countermark.trust import opened


def make(arguments: argparse.Namespace) -> int:
    registry, fetcher, session = _signed_in(arguments)
    made = engine.make(
        registry,
        fetcher,
        session,
        arguments.name,
        projects=arguments.project,
        actions=arguments.action,
        days=arguments.days,
        service=arguments.service,
    )
    if arguments.json:
        put_json(made)
        return 0
    say(f"token {made['id']}, {_scope(made)}; it is shown this once")
    put(str(made["token"]))
    return 0


def show_all(arguments: argparse.Namespace) -> int:
    found = engine.listed(*_signed_in(arguments))
    if arguments.json:
        put_json(found)
    for each in () if arguments.json else found:
        put(f"{each['id']}  {each.get('name') or each.get('kind')}  {_state(each)}  {_scope(each)}")
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    ended = engine.revoke(*_signed_in(arguments), arguments.id)
    if arguments.json:
        put_json(ended)
    else:
        put(f"token {arguments.id} is revoked")
    return 0


def _signed_in(arguments: argparse.Namespace) -> tuple[Registry, HttpFetcher, Session]:
    """The pinned registry, after it proved to be that one, and the session there."""
    _, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    session, fetcher, now = Session.load(registry), HttpFetcher(), int(time.time())
    session.check(registry, now=now)
    with opened(registry, fetcher, now=now):
        pass
    return registry, fetcher, session


def _scope(token: dict[str, Any]) -> str:
    projects, actions = token.get("projects"), token.get("actions")
    words = [", ".join(actions) if actions else "upload, entries" if token.get("kind") == "upload" else "all"]
    words.append(f"for {', '.join(projects)}" if projects else "for all projects of the account")
    if token.get("expires") is not None:
        words.append(f"until {_day(token['expires'])}")
    return " ".join(words)


def _state(token: dict[str, Any]) -> str:
    if token.get("revoked") is not None:
        return f"revoked {_day(token['revoked'])}"
    used = token.get("last_used")
    return f"{token.get('login')}, " + ("never used" if used is None else f"last used {_day(used)}")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")
