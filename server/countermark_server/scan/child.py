"""The sandboxed child: `python -I -m countermark_server.scan.child`. Examines one artifact and says what it saw.

    argv    {"fd": 7, "filename": "demo-1.0.tar.gz", "limits": {...}, "cpu_seconds": 20, "memory_bytes": 536870912}
    stdout  {"findings": [...], "protections": ["limits", "no-files", "no-network", ...]}

Order matters: import everything, shut every door (confine.py), only then read the first byte of the artifact. The
parent believes nothing of this process but a list of findings of the right shape.
"""

from __future__ import annotations

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


def main(arguments: str) -> int:
    """Confine this process, examine the artifact, print the findings."""
    task = json.loads(arguments)
    with os.fdopen(task["fd"], "rb") as file:
        limits = Limits(**task["limits"])
        protections = confine(cpu_seconds=task["cpu_seconds"], memory_bytes=task["memory_bytes"])
        found: list[Finding]
        try:
            found = list(islice(examine(Artifact(file, task["filename"], limits)), FINDINGS_MAX))
        except ArchiveError as error:
            found = [Finding("archive", error.code, "queue", "archive", "", 0, error.detail[:200])]
    answer = {"findings": json.loads(format_findings(found)), "protections": protections}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
