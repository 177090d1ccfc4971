"""The sandboxed child: forked by the nursery, examines one artifact and says what it saw.

    0, the task     {"filename": "demo-1.0.tar.gz", "limits": {...}, "cpu_seconds": 20, "memory_bytes": 536870912}
    1, the answer   {"findings": [...], "protections": ["limits", "no-network", "no-root", ...]}
    3               the artifact, opened read-only

Order matters: everything is imported already, shut every door (confine.py), only then read the first byte of the
artifact. The worker believes nothing of this process but a list of findings of the right shape.
"""

from __future__ import annotations

import ast

# Codecs of honest encoding cookies, loaded while files can still be opened.
import encodings.ascii
import encodings.cp1252
import encodings.idna
import encodings.latin_1
import json
import os
import sys
from itertools import islice

import encodings.utf_8_sig  # noqa: F401  isort: skip
import unicodedata  # noqa: F401  isort: skip

from countermark_server.archive.members import ArchiveError, Limits
from countermark_server.scan.analyzers import examine
from countermark_server.scan.artifact import Artifact
from countermark_server.scan.confine import confine
from countermark_server.scan.findings import FINDINGS_MAX, Finding, format_findings

ARTIFACT = 3  # the descriptor
ORPHANED = 2  # exit status: the nursery was gone before the kernel was asked to end us with it


def warm() -> None:
    """What the first examination would set up for all: done once, in the nursery, with bytes of our own."""
    ast.parse("import os\n")


def main() -> int:
    """Confine this process, examine the artifact, print the findings."""
    nursery = os.getppid()
    task = json.load(sys.stdin)
    with os.fdopen(ARTIFACT, "rb") as file:
        limits = Limits(**task["limits"])
        protections = confine(cpu_seconds=task["cpu_seconds"], memory_bytes=task["memory_bytes"])
        if os.getppid() != nursery:
            return ORPHANED
        found: list[Finding]
        try:
            found = list(islice(examine(Artifact(file, task["filename"], limits)), FINDINGS_MAX))
        except ArchiveError as error:
            found = [Finding("archive", error.code, "queue", "archive", "", 0, error.detail[:200])]
    answer = {"findings": json.loads(format_findings(found)), "protections": protections}
    sys.stdout.write(json.dumps(answer))
    return 0
