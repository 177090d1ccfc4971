"""The commands `pin`, `policy` and `lock`: who must have signed, what is asked, what a stricter policy would refuse.

The engines: pinning.py, policyview.py, lockcheck.py and offers.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from countermark.clientpolicy import ClientPolicy, Policies
from countermark.commands_configure import put_difference
from countermark.commands_install import pinned
from countermark.console import GREEN, RED, YELLOW, put, put_json, say
from countermark.disk import read_file, rewrite_file
from countermark.edits import difference
from countermark.errors import CountermarkError, EvidenceError, PolicyError, UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES, LOCK_MAX_BYTES
from countermark.lockcheck import verify_locks
from countermark.lockfile import is_pylock, read_lock
from countermark.mirrors import fetcher_for
from countermark.names import is_project, normalise_project
from countermark.offers import judge, look_up
from countermark.pinning import Move, annotated, move, newest_signer, signers_of, unannotated, with_pins
from countermark.pins import Home, Registry
from countermark.policyfile import PROJECT_POLICY, load_policies, load_policy, project_policy
from countermark.policyview import PLACES, asked, asked_of
from countermark.values import replace
from countermark.verified import Refused, Report
from countermark.verify import verify

SHOWN = 5  # files of one reason; --json lists them all


def update(arguments: argparse.Namespace) -> int:
    """Compare each pin with who signs now, and move those that the log connects."""
    _, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark, colour=YELLOW)
    path = arguments.file or project_policy(Path.cwd()) or Path(PROJECT_POLICY)
    text = _text(path, LOCAL_FILE_MAX_BYTES)
    policy = load_policy(path)
    names = [normalise_project(name) for name in arguments.projects]
    if arguments.lock is not None:
        names += sorted({pin.project for pin in read_lock(arguments.lock).pinned} - set(names))
    pinned_here = {normalise_project(r.project) for r in policy.rules if r.keys and is_project(r.project)}
    names = names or sorted(pinned_here)
    if not names:
        raise UsageError(f'nothing is pinned in "{path}"', hint="name projects, or --lock FILE")
    moves = [found for name in names if (found := _move(registry, name, policy.pins_for(name))) is not None]
    stuck = [each for each in moves if each.old and not each.is_connected and not arguments.replace]
    if arguments.json:
        put_json({"moves": [each.to_json() for each in moves], "refused": [each.project for each in stuck]})
    for each in moves if not arguments.json else ():
        put(f"{each.project}: {', '.join(sorted(each.old)) or 'not pinned'} -> {each.new}")
        for words in each.because:
            put(f"    {words}")
    kept = {each.project: [each.new] for each in moves if each not in stuck}
    if kept and arguments.write:
        rewrite_file(path, text.encode(), with_pins(text, path, kept).encode())
        say(f'pins written to "{path}": {len(kept)}', colour=GREEN)
    elif kept:
        say(f'--write puts them into "{path}"')
    elif not moves:
        say("every pin is on the key that signs now")
    if stuck:
        raise PolicyError(
            f"nothing in the log connects the pins of {', '.join(each.project for each in stuck)} with who signs now",
            hint="ask the publisher, by other means than this registry; then --replace",
        )
    return 0


def _move(registry: Registry, project: str, old: frozenset[str]) -> Move | None:
    """What became of one project's pin. Its files are judged without any pin, so that the new signer is seen."""
    now = int(time.time())
    fetcher = fetcher_for(registry)
    hints = look_up(project, registry, fetcher)
    if hints is None:
        raise PolicyError(f"{registry.url} knows no project {project}", reason="no-entry")
    judged = judge({project: hints}, registry, fetcher, now=now, policies=Policies())[0][project]
    if judged.error is not None:
        raise judged.error
    signer = newest_signer(offer.outcome for offer in judged.offers.values())
    if signer is None:
        raise PolicyError(
            f"no publisher has signed a file of {project}: there is no key to pin", reason="unsigned"
        )
    return move(project, old, signer)


def simulate(arguments: argparse.Namespace) -> int:
    """What of a lock would be refused under CI, if the policy said enforce."""
    home, registry, remarks = pinned(arguments)
    policies = load_policies(home.policy_file, Path.cwd(), os.environ).strictly()
    lock = read_lock(arguments.lock)
    report = verify_locks(
        [lock], registry, fetcher_for(registry), now=int(time.time()), policies=policies, remarks=remarks
    )
    by_reason: dict[str, list[Refused]] = defaultdict(list)
    for outcome in report.outcomes:
        if isinstance(outcome, Refused):
            by_reason[outcome.error.reason].append(outcome)
    reasons = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    if arguments.json:
        put_json(_simulated(report, reasons))
    else:
        _talk_simulated(report, reasons)
    false = [o for o in report.outcomes if o.exit_code == EvidenceError.exit_code]
    return EvidenceError.exit_code if false else 0


def _simulated(report: Report, reasons: list[tuple[str, list[Refused]]]) -> dict[str, Any]:
    return {
        "files": len(report.outcomes),
        "reasons": [
            {"count": len(found), "files": [each.to_json() for each in found], "reason": reason}
            for reason, found in reasons
        ],
        "refused": sum(len(found) for _, found in reasons),
        "remarks": list(report.remarks),
    }


def _talk_simulated(report: Report, reasons: list[tuple[str, list[Refused]]]) -> None:
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for reason, found in reasons:
        put(f"{len(found):>5}  {reason}", colour=RED)
        for each in found[:SHOWN]:
            put(f"       {each.artifact.name}: {each.error}")
        if len(found) > SHOWN:
            put(f"       and {len(found) - SHOWN} more")
    refused = sum(len(found) for _, found in reasons)
    say(f"under CI and enforce, {refused} of {len(report.outcomes)} would be refused; nothing was changed")


def show(arguments: argparse.Namespace) -> int:
    """What applies in this folder, and which of the three places says so."""
    home, now = Home(), int(time.time())
    policies = load_policies(home.policy_file, Path.cwd(), os.environ)
    unknown: CountermarkError | None = None
    try:
        _, registry, _ = pinned(arguments)
        report = verify([], registry, fetcher_for(registry), now=now, policies=policies)
        central = f"{registry.url}, as of {report.freshness}"
        policies = policies if report.policy is None else policies.with_central(report.policy)
    except CountermarkError as error:
        unknown, central = error, f"not known: {error}"
    places = dict(zip(PLACES, (central, *map(_where, (policies.local, policies.project))), strict=True))
    names = [normalise_project(name) for name in arguments.projects]
    lines = asked(policies, now=now)
    of = {name: asked_of(policies, name, now=now) for name in names}
    if unknown is not None:  # what stands in for the registry's policy is a default, and nobody's word
        lines, of = (
            [x for x in lines if x.origin != PLACES[0]],
            {n: [x for x in found if x.origin != PLACES[0]] for n, found in of.items()},
        )
    if arguments.json:
        projects = {name: [line.to_json() for line in found] for name, found in of.items()}
        put_json({"asked": [line.to_json() for line in lines], "places": places, "projects": projects})
    else:
        for place, where in places.items():
            put(f"{place:<12} {where}")
        for line in lines if not of else ():
            put(line.sentence())
        for name, found in of.items():
            put(f"{name}:")
            for line in found:
                put(f"  {line.sentence()}")
    if unknown is not None and unknown.hint:
        say(f"hint: {unknown.hint}")
    return 0 if unknown is None else unknown.exit_code


def _where(policy: ClientPolicy) -> str:
    return policy.source if policy.source != ClientPolicy.source else "says nothing: there is no such file"


def annotate(arguments: argparse.Namespace) -> int:
    """Write who signed each package into a pylock.toml."""
    report, text = _locked(arguments)
    if report.exit_code:
        return report.exit_code
    signers = signers_of(report.outcomes)
    after = annotated(text, arguments.lock, signers)
    for project in sorted({o.artifact.project for o in report.outcomes} - signers.keys()):
        say(f"{project}: not every file of it is signed by a publisher, so nothing is written", colour=YELLOW)
    if after == text:
        say(f'"{arguments.lock}" says so already')
    elif arguments.write:
        rewrite_file(arguments.lock, text.encode(), after.encode())
        say(f'"{arguments.lock}" names signers; projects: {len(signers)}', colour=GREEN)
    else:
        put_difference(difference(text, after, str(arguments.lock)))
        say("this is what --write does")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Compare the signers that a pylock.toml names with those in the log; each package must name one."""
    report, text = _locked(arguments)
    if report.exit_code:
        return report.exit_code
    missing = unannotated(text, arguments.lock)
    if missing:
        raise PolicyError(
            f'"{arguments.lock}" names no signer of {", ".join(missing[:SHOWN])}'
            f"{f' and {len(missing) - SHOWN} more' if len(missing) > SHOWN else ''}",
            hint=f"countermark lock annotate {arguments.lock} --write",
            reason="no-pin",
        )
    say(f"signed by whom the lock says: {len(report.outcomes)} of {len(report.outcomes)} files", colour=GREEN)
    return 0


def _locked(arguments: argparse.Namespace) -> tuple[Report, str]:
    """A pylock.toml verified; what is refused in it has been said. `annotate` heeds no names that are there."""
    home, registry, remarks = pinned(arguments)
    if not is_pylock(arguments.lock.name):
        raise UsageError(
            f'"{arguments.lock}" is no pylock.toml',
            hint="uv export --format pylock.toml -o pylock.toml makes one from a uv.lock",
        )
    lock = read_lock(arguments.lock)
    text = _text(arguments.lock, LOCK_MAX_BYTES)
    if arguments.command == "policy.annotate":
        lock = replace(lock, pinned=tuple(replace(pin, keys=frozenset()) for pin in lock.pinned))
    policies = load_policies(home.policy_file, Path.cwd(), os.environ)
    fetcher, now = fetcher_for(registry), int(time.time())
    report = verify_locks([lock], registry, fetcher, now=now, policies=policies, remarks=remarks)
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for outcome in report.outcomes:
        if isinstance(outcome, Refused):
            say(f"refused: {outcome.artifact.name}: {outcome.error}", colour=RED)
            if outcome.error.hint:
                say(f"hint: {outcome.error.hint}")
    return report, text


def _text(path: Path, most: int) -> str:
    try:
        return (read_file(path, max_bytes=most) or b"").decode()
    except UnicodeDecodeError as error:
        raise UsageError(f'"{path}" is not UTF-8: {error.reason} at byte {error.start}') from None
