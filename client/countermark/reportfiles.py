"""Report files: what came of a verification, in the two forms that CI systems read and show.

    countermark verify uv.lock --junit verified.xml --sarif verified.sarif

JUnit XML is shown as a list of tests by nearly every CI system: each artifact is a test, a refusal is a failure whose
type is the exit code, what could not be judged (3, 4) is an error, what policy let pass is a passed test with words.
SARIF 2.1.0 (OASIS) is shown as findings: each refusal is an `error`, what was let pass a `warning`; the rule is the
exit code, the location the file that was given (a lock, a wheel, an environment).
What is said of the whole result, policy's exceptions among it, is the suite's output and the run's notifications.

Both hold no time and no host name of this machine, so that equal results are equal files. A fingerprint joins the
same finding of two runs: rule and artifact, not the words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from countermark import __version__
from countermark.errors import CountermarkError
from countermark.values import dataclass
from countermark.verified import LetPass, Outcome, Refused, Report, Verified

RULES = {
    3: "cannot reach",
    4: "too old to judge",
    5: "refused by policy",
    6: "withdrawn or held",
    7: "evidence false",
}
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Told:
    """One sentence about one artifact; `level` is SARIF's word."""

    outcome: Outcome
    error: CountermarkError
    level: str
    because: str


def junit(report: Report) -> bytes:
    """The report as JUnit XML: one suite, one test case an artifact."""
    told = _told(report.outcomes)
    failed = [each for each in told if each.level == "error"]
    errors = sum(each.error.exit_code in (3, 4) for each in failed)
    suite = Xml.Element(
        "testsuite",
        name=f"countermark verify ({_plain(report.registry)})",
        tests=str(len(report.outcomes)),
        failures=str(len(failed) - errors),
        errors=str(errors),
        skipped="0",
    )
    for outcome in report.outcomes:
        name = _plain(outcome.artifact.name)
        case = Xml.SubElement(
            suite, "testcase", classname=_plain(outcome.artifact.project) or "environment", name=name
        )
        mine = [each for each in told if each.outcome is outcome]
        for each in mine:
            if each.level == "error":
                kind = "error" if each.error.exit_code in (3, 4) else "failure"
                words = {"type": f"exit-{each.error.exit_code}", "message": _plain(str(each.error))}
                Xml.SubElement(case, kind, words).text = _plain(
                    "\n".join(filter(None, (each.because, each.error.hint)))
                )
        said = [f"let pass: {each.error} ({each.because})" for each in mine if each.level == "warning"]
        if isinstance(outcome, Verified):
            said += [f"step {step.number}: {step.proved}, by {step.by}" for step in outcome.steps]
            said += outcome.remarks
        if said:
            Xml.SubElement(case, "system-out").text = _plain("\n".join(said))
    if report.remarks:
        Xml.SubElement(suite, "system-out").text = _plain("\n".join(report.remarks))
    Xml.indent(suite)
    written: bytes = Xml.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def sarif(report: Report, *, given: str) -> bytes:
    """The report as a SARIF log; `given` is the location of what has no file of its own, a lock's pin."""
    told = _told(report.outcomes)
    rules = [
        {
            "id": f"exit-{code}",
            "shortDescription": {"text": text},
            "helpUri": f"{report.registry}/h/exit-{code}",
            "defaultConfiguration": {"level": "error"},
        }
        for code, text in RULES.items()
    ]
    numbers = {code: number for number, code in enumerate(RULES)}
    driver = {"name": "countermark", "version": __version__, "rules": rules}
    results = [_result(each, numbers[each.error.exit_code], given) for each in told]
    run: dict[str, Any] = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    if report.remarks:
        notes = [{"level": "note", "message": {"text": words}} for words in report.remarks]
        run["invocations"] = [{"executionSuccessful": True, "toolExecutionNotifications": notes}]
    return (
        json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, sort_keys=True, indent=1).encode()
        + b"\n"
    )


def _result(each: _Told, rule: int, given: str) -> dict[str, Any]:
    artifact = each.outcome.artifact
    place = artifact.source if artifact.length is not None else given
    identity = (
        f"exit-{each.error.exit_code} {artifact.project} {artifact.version} {artifact.filename} {given}"
    )
    words = f"{artifact.name}: {each.error}" if artifact.name not in str(each.error) else str(each.error)
    return {
        "ruleId": f"exit-{each.error.exit_code}",
        "ruleIndex": rule,
        "level": each.level,
        "message": {"text": ". ".join(filter(None, (words, each.error.hint, each.because)))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(place)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"countermark/v1": hashlib.sha256(identity.encode()).hexdigest()},
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


def _uri(path: str) -> str:
    return quote(path.replace("\\", "/"))
