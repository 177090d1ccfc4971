"""`bundle make` and `bundle verify`. Engines: bundling.py and offline.py.

What works offline imports nothing that connects out: a process verifies one bundle in tens of milliseconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from countermark.bundle import SUFFIX
from countermark.clientpolicy import Policies
from countermark.console import GREEN, RED, YELLOW, put, put_json, say
from countermark.disk import create_file, read_file, replace_file, safe_name
from countermark.errors import UsageError
from countermark.limits import OFFLINE_BUNDLE_MAX_BYTES
from countermark.offline import OfflineReport, Result, verify_bundles
from countermark.pins import Home, Registry
from countermark.policyfile import load_policies
from countermark.verified import Artifact, LetPass, Refused, Verified

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def make(arguments: argparse.Namespace) -> int:
    from countermark.bundling import make as make_bundles  # noqa: PLC0415  (lazy: offline needs none of this)
    from countermark.bundling import make_log_only  # noqa: PLC0415
    from countermark.mirrors import fetcher_for  # noqa: PLC0415

    namespace, suffix = _asked(arguments)
    home, registry, remarks = _pinned(arguments)
    artifacts = [Artifact.from_path(path, namespace=namespace) for path in arguments.files]
    for artifact in artifacts if not arguments.replace else ():
        path = arguments.dir / safe_name(f"{artifact.filename}{suffix}")
        if path.exists():  # before anything is asked or written; create_file holds against races
            raise UsageError(f'"{path}" already exists', hint="--replace says that it may be overwritten")
    policies = load_policies(home.policy_file, Path.cwd(), os.environ)
    fetcher, now = fetcher_for(registry), int(time.time())
    if namespace:
        made = make_log_only(artifacts, namespace, registry, fetcher, now=now, policies=policies)
    else:
        made = make_bundles(artifacts, registry, fetcher, now=now, policies=policies)
    remarks = [*remarks, *policies.exception_words(now)]
    for remark in remarks:
        say(remark, colour=YELLOW)
    written = []
    for name, raw in made.items():
        path = arguments.dir / safe_name(f"{name}{suffix}")
        if arguments.replace:
            replace_file(path, raw, mode=0o644)
        else:
            create_file(path, raw, mode=0o644)
        written.append({"bundle": str(path), "bytes": len(raw), "filename": name})
        if not arguments.json:
            put(f"{path}: {len(raw)} bytes")
    if arguments.json:
        put_json({"bundles": written, "exit_code": 0, "registry": registry.url, "remarks": remarks})
    return 0


def verify(arguments: argparse.Namespace) -> int:
    max_age = _seconds(arguments.max_age)
    namespace, suffix = _asked(arguments)
    home, registry, remarks = _pinned(arguments)
    files = []
    for path in arguments.files:
        artifact = Artifact.from_path(path, namespace=namespace)
        bundle = arguments.dir / safe_name(f"{artifact.filename}{suffix}")
        raw = read_file(bundle, max_bytes=OFFLINE_BUNDLE_MAX_BYTES)
        if raw is None:
            raise UsageError(
                f'{artifact.filename}: no bundle "{bundle}"',
                hint=f"countermark bundle make {path}, on a machine that reaches the registry",
            )
        files.append((artifact, raw))
    policies = load_policies(home.policy_file, Path.cwd(), os.environ)
    if namespace:
        return _verify_log_only(
            files, namespace, registry, max_age, policies, remarks=remarks, json=arguments.json
        )
    report = verify_bundles(
        files, registry, now=int(time.time()), max_age=max_age, policies=policies, remarks=remarks
    )
    if arguments.json:
        put_json(report.to_json())
    else:
        _talk(report)
    return report.exit_code


def _asked(arguments: argparse.Namespace) -> tuple[str, str]:
    """The namespace of a log-only bundle (empty: it is about listed files), and the suffix of such bundles."""
    if not arguments.log_only and arguments.namespace is None:
        return "", SUFFIX
    from countermark.logbundle import SUFFIX as LOG_SUFFIX  # noqa: PLC0415  (lazy: listed files need none of this)
    from countermark.logged import asked_namespace  # noqa: PLC0415

    return asked_namespace(arguments.log_only, arguments.namespace), LOG_SUFFIX


def _verify_log_only(
    files: Sequence[tuple[Artifact, bytes]],
    namespace: str,
    registry: Registry,
    max_age: int,
    policies: Policies,
    *,
    remarks: Sequence[str],
    json: bool,
) -> int:
    from countermark.logged import NO_TUF, Logged  # noqa: PLC0415
    from countermark.logoffline import verify_log_bundles  # noqa: PLC0415

    report = verify_log_bundles(
        files,
        namespace,
        registry,
        now=int(time.time()),
        max_age=max_age,
        policies=policies,
        remarks=remarks,
    )
    if json:
        put_json(report.to_json())
        return report.exit_code
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for result in report.results:
        outcome, name = result.outcome, result.outcome.artifact.name
        if isinstance(outcome, Logged):
            put(f"{name}: {outcome.sentence}", colour=YELLOW)
            for sentence in result.sentences:
                put(f"  {sentence}")
        error = outcome.finding if isinstance(outcome, Logged) else outcome.error
        if error is not None:
            say(f"refused: {name}: {error}", colour=RED)
            if error.hint:
                say(f"hint: {error.hint}")
    say(f"log only, offline: nothing here is verified ({NO_TUF})", colour=YELLOW)
    return report.exit_code


def _pinned(arguments: argparse.Namespace) -> tuple[Home, Registry, list[str]]:
    """The registry a command is about, and the words every result about it carries."""
    home = Home()
    registry = home.registry(arguments.registry or os.environ.get("COUNTERMARK_REGISTRY"))
    return home, registry, registry.admit(os.environ, allow_trial=arguments.allow_trial)


def _seconds(text: str) -> int:
    unit = text[-1:] if text.endswith(("s", "m", "h", "d")) else ""
    number = text.removesuffix(unit)
    if not (number.isascii() and number.isdigit() and number[0] != "0" and len(number) <= 9):
        raise UsageError(f'"{text}" is not an age', hint="for example 90m, 24h, 7d")
    return int(number) * _SECONDS[unit]


def _talk(report: OfflineReport) -> None:
    """Results on stdout, everything about them on stderr."""
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for result in report.results:
        _talk_result(result)


def _talk_result(result: Result) -> None:
    outcome, name = result.outcome, result.outcome.artifact.name
    if isinstance(outcome, Refused):
        say(f"refused: {outcome.sentence}", colour=RED)
        if outcome.error.hint:
            say(f"hint: {outcome.error.hint}")
        return
    if isinstance(outcome, LetPass):
        put(outcome.sentence, colour=YELLOW)
    elif isinstance(outcome, Verified) and outcome.signed_by is not None:
        word, colour = ("verified", GREEN) if outcome.verified else ("let pass", YELLOW)
        put(f"{name}: {word} offline, entry #{outcome.index}, {outcome.signed_by.sentence}", colour=colour)
        for text in (*outcome.remarks, *map(str, outcome.findings)):
            say(f"{name}: {text}", colour=YELLOW)
    for sentence in result.claims.sentences if result.claims else ():
        put(f"  {sentence}")
