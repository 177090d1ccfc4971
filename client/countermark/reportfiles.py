"""Report files: what came of a verification, in the two forms that CI systems read and show.

    countermark verify uv.lock --junit verified.xml --sarif verified.sarif

JUnit XML is shown as a list of tests by nearly every CI system: each artifact is a test, a refusal is a failure whose
type is the exit code, what could not be judged (3, 4) is an error, what policy let pass is a passed test with words.
SARIF 2.1.0 (OASIS) is shown as findings: each refusal is an `error`, what was let pass a `warning`; the rule is the
exit code, the location the line of the lock, the file, or the file in the environment (spots.py).
What is said of the whole result, policy's exceptions among it, is the suite's output and the run's notifications.

Both hold no clock and no host name of this machine, so that equal results are equal files (ADR 41): the suite's
timestamp is the quorum time of the checkpoint by which all of it was judged, and every test took no time. A
fingerprint joins the same finding of two runs: rule and artifact, not the words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as Xml

from countermark import __version__
from countermark.errors import (
    CountermarkError,
    EvidenceError,
    NetworkError,
    PolicyError,
    StaleError,
    UsageError,
    WithdrawnError,
)
from countermark.spots import Spots
from countermark.values import dataclass
from countermark.verified import LetPass, Outcome, Refused, Report, Verified

RULES: dict[int, tuple[str, type[CountermarkError]]] = {
    1: ("a bug of ours", CountermarkError),
    2: ("wrong usage", UsageError),
    3: ("cannot reach", NetworkError),
    4: ("too old to judge", StaleError),
    5: ("refused by policy", PolicyError),
    6: ("withdrawn or held", WithdrawnError),
    7: ("evidence false", EvidenceError),
}
CANNOT_JUDGE = (3, 4)  # JUnit's errors; what was judged and refused is a failure
NO_TIME = "0.000"  # no artifact has a time of its own: all are judged in one view, from tiles they share
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Told:
    """One sentence about one artifact; `level` is SARIF's word."""

    outcome: Outcome
    error: CountermarkError
    level: str
    because: str


def junit(report: Report, spots: Spots) -> bytes:
    """The report as JUnit XML: one suite, one test case an artifact."""
    told = _told(report.outcomes)
    failed = [each for each in told if each.level == "error"]
    errors = sum(each.error.exit_code in CANNOT_JUDGE for each in failed)
    suite = Xml.Element(
        "testsuite",
        name=f"countermark verify ({_plain(report.registry)})",
        tests=str(len(report.outcomes)),
        failures=str(len(failed) - errors),
        errors=str(errors),
        skipped="0",
        time=NO_TIME,
        timestamp=datetime.fromtimestamp(report.quorum_time, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
    )
    seen: dict[tuple[str, str], int] = {}
    for outcome in report.outcomes:
        case = _case(outcome, spots, seen)
        suite.append(case)
        _tell(case, outcome, _told([outcome]))
    if report.remarks:
        Xml.SubElement(suite, "system-out").text = _plain("\n".join(report.remarks))
    Xml.indent(suite)
    written: bytes = Xml.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _case(outcome: Outcome, spots: Spots, seen: dict[tuple[str, str], int]) -> Xml.Element:
    """A test of a name that no other has: of two with one name GitLab shows the first alone."""
    artifact, spot = outcome.artifact, spots.of(outcome.artifact)[0]
    classname, name = _plain(artifact.project) or "environment", _plain(artifact.name)
    if not artifact.filename and artifact.sha256:  # one of several hashes of a requirement
        name += f" sha256:{artifact.sha256[:16]}"
    number = seen[classname, name] = seen.get((classname, name), 0) + 1
    if number > 1:
        name += f" ({number})"
    return Xml.Element(
        "testcase", classname=classname, name=name, file=_plain(spot.path), line=str(spot.line), time=NO_TIME
    )


def _tell(case: Xml.Element, outcome: Outcome, told: Sequence[_Told]) -> None:
    """What came of it: a failure, an error, or words beside a test that passed."""
    for each in told:
        if each.level == "error":
            kind = "error" if each.error.exit_code in CANNOT_JUDGE else "failure"
            words = {"type": f"exit-{each.error.exit_code}", "message": _plain(str(each.error))}
            Xml.SubElement(case, kind, words).text = _plain(
                "\n".join(filter(None, (each.because, each.error.hint)))
            )
    said = [f"let pass: {each.error} ({each.because})" for each in told if each.level == "warning"]
    if isinstance(outcome, Verified):
        said += [f"step {step.number}: {step.proved}, by {step.by}" for step in outcome.steps]
        said += (*outcome.remarks, *outcome.told)
    if said:
        Xml.SubElement(case, "system-out").text = _plain("\n".join(said))


def sarif(report: Report, spots: Spots) -> bytes:
    """The report as a SARIF log."""
    told = _told(report.outcomes)
    rules = [_rule(code, f"{report.registry}/h/exit-{code}") for code in RULES]
    driver = {"name": "countermark", "version": __version__, "rules": rules}
    results = [_result(each, spots) for each in told]
    run: dict[str, Any] = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    if report.remarks:
        notes = [{"level": "note", "message": {"text": _whole(words)}} for words in report.remarks]
        run["invocations"] = [{"executionSuccessful": True, "toolExecutionNotifications": notes}]
    return (
        json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, sort_keys=True, indent=1).encode()
        + b"\n"
    )


def _rule(code: int, url: str) -> dict[str, Any]:
    """What a code host shows beside each finding; GitHub wants all of it."""
    short, kind = RULES[code]
    return {
        "id": f"exit-{code}",
        "shortDescription": {"text": short},
        "fullDescription": {"text": kind.__doc__ or short},
        "help": {"text": f"exit code {code}, {short}: what it means and what to do is at {url}"},
        "helpUri": url,
        "defaultConfiguration": {"level": "error"},
    }


def _result(each: _Told, spots: Spots) -> dict[str, Any]:
    artifact, places = each.outcome.artifact, spots.of(each.outcome.artifact)
    # A pin without a file name is known by its hash alone; a file's hash would be another after each build.
    which = artifact.filename or artifact.sha256
    identity = f"exit-{each.error.exit_code} {artifact.project} {artifact.version} {which} {places[0].path}"
    words = f"{artifact.name}: {each.error}" if artifact.name not in str(each.error) else str(each.error)
    return {
        "ruleId": f"exit-{each.error.exit_code}",
        "ruleIndex": list(RULES).index(each.error.exit_code),
        "level": each.level,
        "message": {"text": _whole(". ".join(filter(None, (words, each.error.hint, each.because))))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": place.uri},
                    "region": {"startLine": place.line},
                }
            }
            for place in places
        ],
        "partialFingerprints": {"countermark/v1": hashlib.sha256(_whole(identity).encode()).hexdigest()},
    }


def _told(outcomes: Sequence[Outcome]) -> list[_Told]:
    """Every sentence that is not good news."""
    told: list[_Told] = []
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            told.append(_Told(outcome, outcome.error, "error", outcome.because))
        elif isinstance(outcome, LetPass):
            told.append(_Told(outcome, outcome.error, "warning", outcome.because))
        else:
            told += [_Told(outcome, finding, "warning", "let pass by policy") for finding in outcome.findings]
    return told


def _plain(text: str) -> str:
    """Text without what XML cannot hold: a registry's words may contain anything."""
    return _NOT_XML.sub("\ufffd", text)


def _whole(text: str) -> str:
    """Text without halves of surrogate pairs, which a file's name may hold and a strict reader of JSON refuses."""
    return text.encode("utf-8", "backslashreplace").decode()
