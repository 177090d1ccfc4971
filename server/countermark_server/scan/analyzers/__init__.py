"""Analyzers: one file each, with a name, a version, and a function that looks at one thing.

`of_source` sees each Python source, `of_archive` the list of members at the end. An analyzer only reads; it
compiles no regular expression (backtracking is a denial of service) and works in time linear in what it reads. A
change to what an analyzer finds is a new version; the digest of all of them stands in every verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from countermark_server.archive.members import Member
from countermark_server.scan.analyzers import archive, decode_exec, install_surface
from countermark_server.scan.artifact import Artifact, Source
from countermark_server.scan.findings import Finding

PER_MEMBER_MAX = 10  # findings of one analyzer in one file; more say nothing new


@dataclass(frozen=True)
class Analyzer:
    """One analyzer's name and version, and what it looks at."""

    name: str
    version: str
    file: str
    of_source: Callable[[Source], Iterator[Finding]] | None = None
    of_archive: Callable[[str, Sequence[Member]], Iterator[Finding]] | None = None


ANALYZERS = (
    Analyzer(archive.NAME, archive.VERSION, archive.__file__, archive.of_source, archive.of_archive),
    Analyzer(decode_exec.NAME, decode_exec.VERSION, decode_exec.__file__, decode_exec.of_source),
    Analyzer(
        install_surface.NAME, install_surface.VERSION, install_surface.__file__, install_surface.of_source
    ),
)


def examine(artifact: Artifact) -> Iterator[Finding]:
    """Ask every analyzer about the artifact."""
    for source in artifact.sources():
        for analyzer in ANALYZERS:
            if analyzer.of_source is not None:
                yield from islice(analyzer.of_source(source), PER_MEMBER_MAX)
    for analyzer in ANALYZERS:
        if analyzer.of_archive is not None:
            yield from analyzer.of_archive(artifact.filename, artifact.members)


def rules_in_force() -> list[tuple[str, str, bytes]]:
    """Name, version and source of every analyzer: what a ruleset digest is made of."""
    return [(analyzer.name, analyzer.version, Path(analyzer.file).read_bytes()) for analyzer in ANALYZERS]
