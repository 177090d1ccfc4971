"""The `trust` commands; the engine is pins.py."""

from __future__ import annotations

import argparse
import os

from countermark.console import put, put_json, say
from countermark.disk import read_file
from countermark.errors import CountermarkError, NetworkError, PolicyError, UsageError
from countermark.fetch import HttpFetcher
from countermark.limits import ROOT_MAX_BYTES, TRUST_FILE_MAX_BYTES
from countermark.pins import Home, Registry, RootInfo, find_root, normalise_url
from countermark.timeline import Timeline
from countermark.trustfile import TrustFile
from countermark.words import check_root_words


def add(arguments: argparse.Namespace) -> int:
    """Pin a root from a file, by its words, or (marked for ever) the first one seen."""
    url = normalise_url(arguments.url)
    first_use = False
    if arguments.root is not None:
        raw = read_file(arguments.root, max_bytes=ROOT_MAX_BYTES)
        if raw is None:
            raise UsageError(f'there is no file "{arguments.root}"')
        if arguments.root_words:
            check_root_words(arguments.root_words, RootInfo.parse(raw).signed)
    elif arguments.root_words:
        raw = find_root(HttpFetcher(), url, arguments.root_words)
    elif arguments.trust_on_first_use:
        raw, first_use = _first_root(url), True
    else:
        raise UsageError(
            "where does the trust come from?",
            hint="--root FILE, or --root-words '...'; never from the server itself",
        )
    _print(Home().add(url, raw, first_use=first_use, mirrors=arguments.mirror), json=arguments.json)
    return 0


def show(arguments: argparse.Namespace) -> int:
    _print(Home().registry(arguments.url), json=arguments.json)
    return 0


def show_all(arguments: argparse.Namespace) -> int:
    registries = list(Home().registries())
    if arguments.json:
        put_json([_json(registry) for registry in registries])
    elif not registries:
        say("no registry is pinned")
    for registry in () if arguments.json else registries:
        put(f"{registry.url}  {registry.info.words}")
    return 0


def _first_root(url: str) -> bytes:
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        raise PolicyError("trust on first use is refused under CI", hint="--root FILE")
    raw = HttpFetcher().get(f"{url}/tuf/1.root.json", max_bytes=ROOT_MAX_BYTES, missing_ok=True)
    if raw is None:
        raise NetworkError(f"{url} serves no root")
    say("this root is believed because it is the first one seen; every result will say so")
    return raw


def _print(registry: Registry, *, json: bool) -> None:
    if json:
        put_json(_json(registry))
        return
    info = registry.info
    marks = (" trial" if info.trial else "") + (" trusted-on-first-use" if registry.first_use else "")
    put(f"{registry.url}  root version {info.version}, expires {info.expires}{marks}")
    put(info.words)
    for mirror in registry.mirrors:
        put(f"mirror {mirror}")
    trust_file = _in_force(registry)
    if trust_file is None:
        say("the keys of its log and its witnesses are not known before something was verified here")
        return
    put(f"{trust_file.origin}  trust file version {trust_file.version}, verified here")
    for line in trust_file.witness_policy.splitlines():
        put(line)


def _in_force(registry: Registry) -> TrustFile | None:
    """The trust file that this machine verified last and follows: whose keys must sign and cosign."""
    raw = read_file(registry.folder / "tuf" / "trust.file", max_bytes=TRUST_FILE_MAX_BYTES)
    followed = Timeline.load(registry.folder / "timeline.json").trust_sha256
    try:
        found = TrustFile.parse(raw or b"")
    except CountermarkError:
        return None
    return found if found.digest == followed else None


def _json(registry: Registry) -> dict[str, object]:
    info, trust_file = registry.info, _in_force(registry)
    return {
        "expires": info.expires,
        "first_use": registry.first_use,
        "fingerprint": info.fingerprint,
        "mirrors": list(registry.mirrors),
        "trial": info.trial,
        "trust_file": None if trust_file is None else _keys(trust_file),
        "url": registry.url,
        "version": info.version,
        "words": info.words,
    }


def _keys(trust_file: TrustFile) -> dict[str, object]:
    """Whose signatures and cosignatures count."""
    policy = trust_file.policy
    return {
        "log_keys": [key.format() for key in trust_file.log_keys],
        "origin": trust_file.origin,
        "version": trust_file.version,
        "witness_policy": trust_file.witness_policy,
        "witnesses": {witness.name: witness.key.format() for witness in policy.witnesses},
    }
