"""Environment: are the installed files those that were logged?

    report = verify_environment(read_place(Path(".venv")), proxy, now=now, policies=policies)

For each installed distribution the wheel it must have come from is found among what the registry offers: same
project, same version, same tags. It is verified like any file (verify.py), its bytes are brought (from this
disk, if `run` or `proxy` brought them before), and every file of it is held against what lies here
(installed.py). So a file that was changed together with its line in RECORD is found, and so is one that nobody
installed.

What came from elsewhere (a folder, a URL, another index, a build of a source) is *not provable* and is refused or let
pass by policy, like a file without an entry. The exception is the pip that Python itself carries and puts into a new
environment: it is held against the wheel in the library of the Python that checks.

A file that was modified, is missing or that nobody brought is refused in every mode: exit 7. That says something of
this machine, nothing of the registry, so no evidence is kept.
"""

from __future__ import annotations

import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from countermark.clientpolicy import Policies
from countermark.demanded import refused_or_let_pass
from countermark.errors import CountermarkError, EvidenceError, MalformedError, PolicyError
from countermark.installed import Finding, Held, Installed, Place
from countermark.names import normalise_version, parse_filename
from countermark.offers import Judged, Offer
from countermark.prefetch import Tick, quiet
from countermark.proxy import Proxy
from countermark.values import replace
from countermark.verified import Artifact, LetPass, Outcome, Refused, Report, Verified

CARRIED = frozenset({"pip", "setuptools"})  # what Python puts into a new environment


def verify_environment(
    place: Place,
    proxy: Proxy,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str] = (),
    tick: Tick = quiet,
) -> Report:
    """Hold everything installed here against what the registry logged. Errors of the registry's view are raised."""
    report = proxy.check()
    policies = policies if report.policy is None else policies.with_central(report.policy)
    held, outcomes = Held(place), list[Outcome]()
    unknown: list[tuple[Installed, str]] = []
    for number, installed in enumerate(place.installed, 1):
        tick("distributions", number, len(place.installed))
        try:
            outcomes.append(_held_against_its_wheel(installed, held, proxy))
        except _UnknownError as error:
            unknown.append((installed, str(error)))
        except _RefusedError as decided:
            outcomes.append(replace(decided.outcome, artifact=_artifact(installed)))
            held.leave(installed)
        except CountermarkError as error:
            outcomes.append(refused_or_let_pass(_artifact(installed), error, policies, now=now))
            held.leave(installed)
    for installed, reason in unknown:
        held.leave(installed, reason)
    held.rest()
    changed = {finding.project for finding in held.findings if finding.kind in ("modified", "missing")}
    good = [o for o in outcomes if not (isinstance(o, Verified) and o.artifact.project in changed)]
    found = [_outcome(finding, policies, now=now) for finding in held.findings]
    if place.sees_system:
        remarks = (
            *remarks,
            "this environment also imports what the system's Python has: nothing is said of that",
        )
    return replace(report, outcomes=(*good, *found), remarks=(*report.remarks, *remarks))


class _UnknownError(Exception):
    """Nobody whom we trust knows this distribution; the reason in words."""


class _RefusedError(Exception):
    """Policy has decided about the wheel, with what is known of the wheel alone."""

    def __init__(self, outcome: Refused) -> None:
        self.outcome = outcome


def _held_against_its_wheel(installed: Installed, held: Held, proxy: Proxy) -> Outcome:
    """Find the wheel, verify it, hold it against what is here."""
    judged = proxy.judged(installed.project) if installed.project else None
    if judged is not None and judged.error is not None:
        raise judged.error
    offers = [] if judged is None else _offers(installed, judged)
    if not offers:
        return _carried(
            installed, held, "unknown to the registry" if judged is None else "not a wheel of the registry"
        )
    good = [offer for offer in offers if offer.error is None]
    if not good:
        if isinstance(offers[0].outcome, Refused):
            raise _RefusedError(offers[0].outcome)
        raise offers[0].error or PolicyError("nothing is known of it")
    before = held.compared
    for offer in good:
        with proxy.open(offer) as file, _opened(file, offer.artifact.filename) as wheel:
            if offer is good[-1] or _is_from(installed, wheel):
                held.compare(installed, wheel)
                break
    outcome = offer.outcome
    if isinstance(outcome, Verified):
        words = f"{held.compared - before} files here are those of the wheel"
        return replace(outcome, told=(*outcome.told, words))
    return outcome


def _offers(installed: Installed, judged: Judged) -> list[Offer]:
    """The wheels it can have come from: of its version, and with its tags where any has them."""
    version = normalise_version(installed.version, strip_zeros=True)
    found = []
    for filename, offer in judged.offers.items():
        name = parse_filename(filename)
        if name.is_wheel and normalise_version(name.version, strip_zeros=True) == version:
            found.append(offer)
    return [offer for offer in found if _tags(offer.artifact.filename) == installed.tags]


def _tags(filename: str) -> frozenset[str]:
    """What a wheel's WHEEL says beside this file name (PEP 425: `py2.py3-none-any` is two tags)."""
    python, abi, platform = (part.split(".") for part in filename.removesuffix(".whl").split("-")[-3:])
    return frozenset(f"{p}-{a}-{f}" for p in python for a in abi for f in platform)


def _is_from(installed: Installed, wheel: zipfile.ZipFile) -> bool:
    """Whether this is the build it came from, of several with the same tags."""
    names = [name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL")]
    return any(wheel.read(name) == (installed.folder / "WHEEL").read_bytes() for name in names)


def _carried(installed: Installed, held: Held, reason: str) -> Outcome:
    """The pip of a new environment, held against the wheel in this Python's own library."""
    if installed.source is not None:
        reason = f"installed from a place of its own, {reason}"
    if installed.project not in CARRIED:
        raise _UnknownError(reason)
    folders = (Path(sysconfig.get_path("stdlib"), "ensurepip", "_bundled"), Path("/usr/share/python-wheels"))
    for path in (path for folder in folders for path in sorted(folder.glob(f"{installed.project}-*.whl"))):
        if parse_filename(path.name).version == installed.version:
            before = held.compared
            with path.open("rb") as file, _opened(file, path.name) as wheel:
                held.compare(installed, wheel)
            words = f"{held.compared - before} files here are those of the {installed.project} that Python carries"
            return LetPass(_artifact(installed), PolicyError(reason), words)
    raise _UnknownError(reason)


def _opened(file: IO[bytes], filename: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise MalformedError(f"{filename} was logged and is no wheel") from None


def _artifact(installed: Installed) -> Artifact:
    return Artifact(installed.project, installed.version, "", "", source=str(installed.folder))


def _outcome(finding: Finding, policies: Policies, *, now: int) -> Outcome:
    """A finding as what came of a file: not provable is the policy's to judge, anything else is refused."""
    artifact = Artifact(finding.project, "", finding.path, "", source=finding.kind)
    told = f"{finding.kind}: {finding.path}: {finding.told}"
    if finding.kind != "unprovable":
        hint = "make the environment anew, through `countermark run`"
        return Refused(artifact, EvidenceError(told, hint=hint), "refused in every mode")
    error = PolicyError(f"not provable: {finding.path}: {finding.told}", reason="not-provable")
    return refused_or_let_pass(artifact, error, policies, now=now)
