"""The `trust` commands; the engine is pins.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from countermark import clientcerts
from countermark.console import put, put_json, say
from countermark.credentials import bound, load, origin
from countermark.disk import read_file, replace_file
from countermark.errors import CountermarkError, NetworkError, PolicyError, UsageError
from countermark.fetch import HttpFetcher
from countermark.limits import ROOT_MAX_BYTES, TRUST_FILE_MAX_BYTES
from countermark.pins import Home, Registry, RootInfo, find_root, normalise_url
from countermark.timeline import Timeline
from countermark.trustfile import TrustFile
from countermark.values import replace
from countermark.words import check_root_words


def add(arguments: argparse.Namespace) -> int:
    """Pin a root from a file, by its words, or (marked for ever) the first one seen."""
    url, home = normalise_url(arguments.url), Home()
    shown, first_use = _certificate(arguments, url), False
    held = clientcerts.kept(home.path)
    credentials = load(os.environ, home.path)
    if shown is not None:
        credentials = replace(credentials, certificates={**credentials.certificates, origin(url): shown})
    fetcher = HttpFetcher(credentials=credentials)
    if arguments.root is not None:
        raw = read_file(arguments.root, max_bytes=ROOT_MAX_BYTES)
        if raw is None:
            raise UsageError(f'there is no file "{arguments.root}"')
        if arguments.root_words:
            check_root_words(arguments.root_words, RootInfo.parse(raw).signed)
    elif arguments.root_words:
        raw = find_root(fetcher, url, arguments.root_words)
    elif arguments.trust_on_first_use:
        raw, first_use = _first_root(fetcher, url), True
    elif arguments.client_cert is not None and (known := home.find(url)) is not None:
        raw, first_use = known.root, known.first_use
    else:
        raise UsageError(
            "where does the trust come from?",
            hint="--root FILE, or --root-words '...'; never from the server itself",
        )
    registry = home.add(url, raw, first_use=first_use, mirrors=arguments.mirror)
    if arguments.client_cert is not None:
        replace_file(home.path / clientcerts.FILE, clientcerts.kept_with(held, bound(url), shown))
    _print(registry, json=arguments.json, keys=False)
    return 0


def _certificate(arguments: argparse.Namespace, url: str) -> clientcerts.Certificate | None:
    """The files that --client-cert and --client-key name, which can be shown; None: none, or "" to forget them."""
    if not arguments.client_cert:
        if arguments.client_key:
            raise UsageError("--client-key goes with --client-cert")
        return None
    files = (arguments.client_cert, arguments.client_key or arguments.client_cert)
    certificate = str(Path(files[0]).absolute()), str(Path(files[1]).absolute())
    clientcerts.check(certificate, url)
    return certificate


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


def _first_root(fetcher: HttpFetcher, url: str) -> bytes:
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        raise PolicyError("trust on first use is refused under CI", hint="--root FILE")
    raw = fetcher.get(f"{url}/tuf/1.root.json", max_bytes=ROOT_MAX_BYTES, missing_ok=True)
    if raw is None:
        raise NetworkError(f"{url} serves no root")
    say("this root is believed because it is the first one seen; every result will say so")
    return raw


def _print(registry: Registry, *, json: bool, keys: bool = True) -> None:
    if json:
        put_json(_json(registry))
        return
    info = registry.info
    marks = (", trial" if info.trial else "") + (", trusted on first use" if registry.first_use else "")
    put(f"{registry.url}  root version {info.version}, expires {info.expires}{marks}")
    put(info.words)
    if (shown := _shown(registry)) is not None:
        put(f"client certificate {shown[0]}, key {shown[1]}")
    for mirror in registry.mirrors:
        put(f"mirror {mirror}")
    if not keys:
        say(
            f"pinned here; `countermark trust show {registry.url}` lists the keys of its log and its witnesses"
        )
        return
    trust_file = _in_force(registry)
    if trust_file is None:
        say("the keys of its log and its witnesses are not known before something was verified here")
        return
    put(f"{trust_file.origin}  trust file version {trust_file.version}, verified here")
    for line in trust_file.witness_policy.splitlines():
        put(line)


def _shown(registry: Registry) -> clientcerts.Certificate | None:
    return load(os.environ, Home().path).certificate(registry.url)


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
        "client_certificate": _shown(registry),
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
