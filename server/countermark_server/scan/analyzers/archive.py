"""What an archive's list of members says: code without source, archives inside, code in .pth files.

The door has refused what is unsafe to unpack. Here is what unpacks well and deserves a look: a .pth file whose line
begins with `import` runs at every start of the interpreter (site.py executes it), a .pyc without its source cannot be
read by anybody, and an archive within the archive was not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from countermark_server.archive.members import Member
from countermark_server.scan.artifact import Source
from countermark_server.scan.findings import Finding, shown

NAME, VERSION = "archive", "1.0"
_NESTED = (".zip", ".whl", ".egg", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_PTH_LINE_MAX = 300  # editable installs and namespace packages write one short import line


def of_source(source: Source) -> Iterator[Finding]:
    """Sources that nobody can read, and code in .pth files."""
    if source.is_pth:
        yield from _pth(source)
    elif source.surface in ("setup", "init") and source.tree is None:
        yield Finding(
            NAME, "source-unreadable", "queue", source.surface, source.file, 0, "does not parse as Python"
        )


def of_archive(filename: str, members: Sequence[Member]) -> Iterator[Finding]:
    """Members that hide what they hold."""
    names = {member.name for member in members}
    for member in members:
        lower = member.name.lower()
        if lower.endswith(".pyc") and not _has_source(member.name, names):
            yield Finding(NAME, "bytecode-without-source", "note", "archive", member.name, 0, "")
        elif lower.endswith(_NESTED):
            yield Finding(NAME, "nested-archive", "note", "archive", member.name, 0, f"{member.size} bytes")


def _pth(source: Source) -> Iterator[Finding]:
    for number, line in enumerate(source.text.split(b"\n"), 1):
        if not line.startswith((b"import ", b"import\t")):
            continue
        text = line.decode("latin-1")
        grave = len(line) > _PTH_LINE_MAX or any(word in text for word in ("exec(", "eval(", "compile("))
        tier = "queue" if grave else "note"
        yield Finding(NAME, "pth-runs-code", tier, "setup", source.file, number, shown(text))


def _has_source(name: str, names: set[str]) -> bool:
    """Whether the .py stands beside the .pyc, or above its __pycache__."""
    folder, _, base = name.rpartition("/")
    module = base.split(".")[0] + ".py"
    if folder.endswith("__pycache__"):
        folder = folder.removesuffix("__pycache__").rstrip("/")
    return (f"{folder}/{module}" if folder else module) in names
