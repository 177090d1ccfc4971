"""`evidence list` and `evidence check`: contradictions that this machine has kept. Engines: evidence*.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from countermark.console import YELLOW, put, put_json, say
from countermark.disk import read_file
from countermark.errors import CountermarkError, PolicyError, UsageError
from countermark.evidence import Evidence, parse
from countermark.limits import EVIDENCE_FILE_MAX_BYTES, ROOT_MAX_BYTES
from countermark.pins import Home, Registry
from countermark.tufjson import Root

if TYPE_CHECKING:
    from countermark.evidence_check import Checked
    from countermark.fetch import Fetcher


def show_all(arguments: argparse.Namespace) -> int:
    """What was kept at each exit code 7, newest first; nothing is checked."""
    home = Home()
    registries = [home.registry(arguments.registry)] if arguments.registry else list(home.registries())
    found = sorted((each for registry in registries for each in _saved(registry)), reverse=True)
    if arguments.json:
        put_json(
            [
                {"class": kind, "file": path, "registry": url, "sentences": list(said), "time": time}
                for time, kind, path, url, said in found
            ]
        )
        return 0
    for time, kind, path, url, said in found:
        put(f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}Z  {kind}  {url}")
        for sentence in said:
            put(f"    {sentence}")
        put(f"    {path}")
    say("no evidence was saved" if not found else "countermark evidence check FILE says whom it convinces")
    return 0


def _saved(registry: Registry) -> Iterator[tuple[int, str, str, str, tuple[str, ...]]]:
    """When, class, file, registry and sentences of what is kept of one registry."""
    for path in sorted((registry.folder / "evidence").glob("*.json")):
        try:
            evidence, saved = parse(read_file(path, max_bytes=EVIDENCE_FILE_MAX_BYTES) or b"")
        except CountermarkError as error:
            say(f'"{path}" is passed over: {error}', colour=YELLOW)
            continue
        yield saved, evidence.kind.value, str(path), registry.url, tuple(evidence.sentences)


def check(arguments: argparse.Namespace) -> int:
    raw = read_file(arguments.file, max_bytes=EVIDENCE_FILE_MAX_BYTES)
    if raw is None:
        raise UsageError(f'there is no file "{arguments.file}"')
    evidence, saved = parse(raw)
    if arguments.root is not None:
        root = read_file(arguments.root, max_bytes=ROOT_MAX_BYTES)
        if root is None:
            raise UsageError(f'there is no file "{arguments.root}"')
    else:
        root = _root_for(Home(), evidence.registry)
    if arguments.replay:
        checked = _replay(evidence, saved, Root.parse(root), arguments)
    else:
        from countermark import evidence_check  # noqa: PLC0415

        checked = evidence_check.check(evidence, saved, Root.parse(root))
    if arguments.json:
        put_json(checked.to_json())
    else:
        for sentence in checked.sentences:
            put(sentence)
    return 0


def _replay(evidence: Evidence, saved: int, root: Root, arguments: argparse.Namespace) -> Checked:
    """With the log beside the file: the registry's own, or a copy."""
    from countermark.evidence_replay import FolderFetcher, check_by_replay  # noqa: PLC0415
    from countermark.fetch import HttpFetcher  # noqa: PLC0415

    log = arguments.log
    if log is None:
        if not any(registry.url == evidence.registry for registry in Home().registries()):
            raise PolicyError(
                f"{evidence.registry or 'the registry'} of this evidence is not one pinned here",
                hint="--log URL-OR-FOLDER says where its log can be read",
            )
        log = f"{evidence.registry}/log"
    fetcher: Fetcher = HttpFetcher() if re.match("https?://", log) else FolderFetcher()
    return check_by_replay(evidence, saved, root, fetcher=fetcher, log=log)


def _root_for(home: Home, url: str) -> bytes:
    """The root pinned for the registry an evidence file names: the file itself vouches for nothing."""
    for registry in home.registries():
        if registry.url == url:
            return registry.root
    raise PolicyError(
        f"no root is pinned for {url or 'the registry'} of this evidence, so nobody vouches for its keys",
        hint="--root FILE, or countermark trust add URL --root-words '...'",
    )
