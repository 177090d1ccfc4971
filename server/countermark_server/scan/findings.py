"""Findings: what an analyzer saw, where, and what that makes of the artifact.

    {"analyzer":"decode-exec","excerpt":"exec(base64.b64decode(...))","file":"demo-1.0/setup.py","line":7,
     "rule":"decoded-code-run","surface":"setup","tier":"block"}

Tiers: `none` nothing to say; `note` a remark, listed all the same; `queue` a person looks first; `block` held at once
by an entry of its own. The gravest finding decides. The list of findings is a blob, 32 zero bytes and canonical JSON,
whose SHA-256 stands in the verdict: published from the start, so that every verdict can be argued with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from countermark.entry import encode_canonical
from countermark.errors import MalformedError

TIERS = ("none", "note", "queue", "block")  # in order of gravity
SURFACES = ("setup", "init", "code", "test", "archive")
FINDINGS_MAX = 200  # of one artifact; more say nothing new
TEXT_MAX_CHARS = 1100  # of a file name; a zip's may have 1,024 bytes
EXCERPT_MAX_CHARS = 200
LINE_MAX = 10_000_000
FAILED = "analyzer-failed"
ZERO_NONCE = bytes(32)  # of blobs that are public from the start


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that one analyzer saw."""

    analyzer: str
    rule: str
    tier: str
    surface: str
    file: str
    line: int
    excerpt: str


@dataclass(frozen=True)
class Opinion:
    """What the findings together say, in the words a verdict entry uses."""

    tier: str
    classification: str
    confidence: str


def opinion(findings: Iterable[Finding]) -> Opinion:
    """The gravest finding decides the tier; failing to look is no threat, but not nothing either."""
    listed = list(findings)
    tier = max((finding.tier for finding in listed), key=TIERS.index, default="none")
    if not listed:
        return Opinion(tier, "no-findings", "low")  # these rules found nothing: that is all it says
    grave = [finding for finding in listed if finding.tier == tier and tier in ("queue", "block")]
    if not grave or all(finding.rule == FAILED for finding in grave):
        return Opinion(tier, "indeterminate", "low")
    return Opinion(tier, "threat", "high" if tier == "block" else "medium")


def failed(reason: str) -> Finding:
    """The finding that stands for an examination which did not come to its end."""
    return Finding("sandbox", FAILED, "queue", "archive", "", 0, reason[:EXCERPT_MAX_CHARS])


def shown(text: str) -> str:
    """An excerpt that is safe to show: one line, printable ASCII, short."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))
    return plain if len(plain) <= EXCERPT_MAX_CHARS else plain[: EXCERPT_MAX_CHARS - 3] + "..."


def format_findings(findings: Iterable[Finding]) -> bytes:
    """The findings in canonical JSON, sorted: the same artifact and rules give the same bytes."""
    return encode_canonical([asdict(finding) for finding in sorted(set(findings))][:FINDINGS_MAX])


def findings_blob(findings: Iterable[Finding]) -> bytes:
    """The bytes that are stored, and whose SHA-256 the verdict names."""
    return ZERO_NONCE + format_findings(findings)


def parse_findings(value: object) -> list[Finding]:
    """The findings in what a child said. MalformedError: it said something else."""
    if type(value) is not list or len(value) > FINDINGS_MAX:
        raise MalformedError(f"findings must be an array of at most {FINDINGS_MAX}")
    return [_parse(item) for item in value]


def ruleset_sha256(analyzers: Iterable[tuple[str, str, bytes]]) -> str:
    """The digest of the rules in force: name, version and source of every analyzer."""
    listed = [
        {"name": name, "source_sha256": hashlib.sha256(source).hexdigest(), "version": version}
        for name, version, source in sorted(analyzers)
    ]
    return hashlib.sha256(encode_canonical(listed)).hexdigest()


def to_json(findings: Iterable[Finding]) -> str:
    """The findings as a row keeps them."""
    return json.dumps([asdict(finding) for finding in findings], sort_keys=True)


def _parse(item: Any) -> Finding:
    names = {"analyzer", "rule", "tier", "surface", "file", "line", "excerpt"}
    if not isinstance(item, Mapping) or item.keys() != names:
        raise MalformedError(f"finding must have exactly {', '.join(sorted(names))}")
    line = item["line"]
    if type(line) is not int or not 0 <= line <= LINE_MAX:
        raise MalformedError(f"finding's line {line!r} is not a line number")
    for name in names - {"line"}:
        text = item[name]
        if type(text) is not str or len(text) > TEXT_MAX_CHARS or not text.isprintable():
            raise MalformedError(f"finding's {name} is not a short printable text")
    if item["tier"] not in TIERS or item["surface"] not in SURFACES:
        raise MalformedError(f"finding has tier {item['tier']!r} and surface {item['surface']!r}")
    if len(item["excerpt"]) > EXCERPT_MAX_CHARS:
        raise MalformedError("finding's excerpt is too long")
    return Finding(**item)
