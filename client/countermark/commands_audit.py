"""The `audit` command; the engine is audit.py."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from countermark.audit import audit as run
from countermark.audit_predecessor import Old
from countermark.audit_report import AuditReport
from countermark.console import GREEN, RED, YELLOW, put, put_json, say
from countermark.disk import read_file
from countermark.errors import UsageError
from countermark.evidence import kept_at
from countermark.evidence_replay import FolderFetcher
from countermark.fetch import Fetcher, HttpFetcher
from countermark.limits import TRUST_FILE_MAX_BYTES
from countermark.pins import Home
from countermark.trustfile import TrustFile
from countermark.verified import seen_words


def audit(arguments: argparse.Namespace) -> int:
    """Audit one pinned registry, print what was found and what was covered."""
    registry = Home().registry(arguments.url or os.environ.get("COUNTERMARK_REGISTRY"))
    remarks = registry.admit(os.environ, allow_trial=arguments.allow_trial)
    report = run(
        registry,
        HttpFetcher(),
        now=int(time.time()),
        say=lambda text: say(f"audit: {text}"),
        wait=time.sleep,
        tell=_tell_json if arguments.json else _tell,
        files=arguments.files,
        from_start=arguments.from_start,
        predecessor=_predecessor(arguments.predecessor, arguments.predecessor_trust),
        remarks=remarks,
    )
    return report.exit_code


def _predecessor(where: str | None, trust: Path | None) -> Old | None:
    """The log that was given to compare with; its trust file comes from the caller, never from there."""
    if where is None and trust is None:
        return None
    if where is None or trust is None:
        raise UsageError(
            "--predecessor and --predecessor-trust go together",
            hint="the old registry's tuf/targets/trust/*.trust.json that its pinned root lists",
        )
    raw = read_file(trust, max_bytes=TRUST_FILE_MAX_BYTES)
    if raw is None:
        raise UsageError(f'there is no trust file "{trust}"')
    fetcher: Fetcher = HttpFetcher() if where.startswith(("http://", "https://")) else FolderFetcher()
    return Old(f"{where.rstrip('/')}/log", TrustFile.parse(raw), fetcher)


def _tell_json(report: AuditReport) -> None:
    put_json(report.to_json())


def _tell(report: AuditReport) -> None:
    """Findings and coverage are data; what surrounds them is talk."""
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for found in report.findings:
        colour = RED if found.exit_code == 7 else YELLOW
        put(f"{found.kind.value}: {found.code}: {found.message} (at fault: the {found.party})", colour=colour)
        if found.evidence:
            say(kept_at(found.evidence))
    for what, count in sorted(report.covered.items()):
        put(f"covered: {what}: {count}")
    for what in report.not_covered:
        put(f"not covered: {what}")
    if report.earlier:
        say(
            f"{len(report.earlier)} entries were findings of earlier audits (--json lists them)",
            colour=YELLOW,
        )
    count = len(report.findings)
    where = f"{report.position} of {report.tree_size} entries of {report.origin or report.registry}"
    if report.age is not None:
        where += f", {seen_words(report.witnesses, report.age)}"
    if count:
        put(f"{count} findings, {where}", colour=RED)
    else:
        put(f"no findings, {where}", colour=GREEN)
