"""Compare: what is new in a release, for somebody who is asked to approve it.

    + acme-1.1-py3-none-any.whl (14,210 bytes, was 12,004)
        + Requires-Dist: left-pad
        + entry point: acme = acme.evil:main
        + member: acme/evil.py

Metadata headers, entry points and member names are compared as sets of lines; who wants to see code reads the files.
Everything shown came out of an archive that somebody else made: it is text, cut to a length, and never unpacked.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import BytesParser
from email.policy import compat32

from countermark.errors import EvidenceError, MalformedError
from countermark.values import dataclass

MEMBER_MAX_BYTES = 8 * 1024 * 1024  # METADATA and entry points; what the registry takes, too
MEMBERS_MAX = 100_000  # names in one archive
LINES_MAX = 25  # of one file's difference; more are counted
LINE_MAX_CHARS = 160
_CHANGES_ALWAYS = ("version", "description", "metadata-version")


@dataclass(frozen=True)
class Contents:
    """What of a file is compared, each as a set of lines."""

    filename: str
    length: int
    metadata: frozenset[str] = frozenset()
    entry_points: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()
    remark: str | None = None  # why there is nothing to compare

    @property
    def kind(self) -> str:
        """The file name without its version: what is compared with what."""
        if not self.filename.endswith(".whl"):
            return self.filename.rpartition(".")[2]
        project, _, *tags = self.filename.split("-")
        return "-".join([project, *tags])


def read_contents(filename: str, data: bytes, sha256: str) -> Contents:
    """Read a distribution's bytes. EvidenceError: they are not the ones that were published."""
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise EvidenceError(f"{filename} came as sha256:{found}, its entry says sha256:{sha256}")
    try:
        return _wheel(filename, data) if filename.endswith((".whl", ".zip")) else _sdist(filename, data)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        MalformedError,
    ) as error:
        return Contents(filename, len(data), remark=f"not a readable archive: {error}")


def _wheel(filename: str, data: bytes) -> Contents:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()[:MEMBERS_MAX]

        def member(ending: str) -> bytes:
            found = [name for name in names if name.endswith(ending) and name.count("/") == 1]
            if not found:
                return b""
            with archive.open(found[0]) as stream:
                return stream.read(MEMBER_MAX_BYTES)

        metadata = member(".dist-info/METADATA") or member("/PKG-INFO")
        return _made(filename, data, metadata, member(".dist-info/entry_points.txt"), names)


def _sdist(filename: str, data: bytes) -> Contents:
    metadata, names = b"", list[str]()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for item in tar:
            names.append(item.name)
            if len(names) >= MEMBERS_MAX:
                break
            if item.isfile() and item.name.endswith("/PKG-INFO") and item.name.count("/") == 1:
                stream = tar.extractfile(item)
                metadata = b"" if stream is None else stream.read(MEMBER_MAX_BYTES)
    return _made(filename, data, metadata, b"", names)


def _made(filename: str, data: bytes, metadata: bytes, entry_points: bytes, names: Sequence[str]) -> Contents:
    headers = BytesParser(policy=compat32).parsebytes(metadata, headersonly=True)
    lines = {f"{name}: {value}" for name, value in headers.items() if name.lower() not in _CHANGES_ALWAYS}
    points = {line.strip() for line in entry_points.decode("utf-8", "replace").splitlines()} - {""}
    # The top folder of a source distribution and the metadata folder of a wheel carry the version.
    version = filename.split("-")[1] if filename.endswith(".whl") else ""
    inside = {_inside(name, version, top=not version) for name in names} - {""}
    return Contents(filename, len(data), frozenset(lines), frozenset(points), frozenset(inside))


def _inside(name: str, version: str, *, top: bool) -> str:
    return name.partition("/")[2] if top else name.replace(f"-{version}.dist-info/", ".dist-info/", 1)


def difference(new: Sequence[Contents], old: Sequence[Contents]) -> list[str]:
    """What is new, in lines to show; nothing is left out silently."""
    known, lines = {file.kind: file for file in old}, list[str]()
    for file in new:
        was = known.pop(file.kind, None)
        size = f"{file.length:,} bytes" + (
            f", was {was.length:,}" if was else ", no such file before" if old else ""
        )
        lines.append(f"+ {file.filename} ({size})")
        lines += [f"    {line}" for line in _changes(file, was)]
    return lines + [f"- {file.filename} has no counterpart now" for file in known.values()]


def _changes(new: Contents, old: Contents | None) -> list[str]:
    remarks = [f"! {file.filename}: {file.remark}" for file in (new, old) if file is not None and file.remark]
    if remarks:
        return remarks
    was = old or Contents("", 0)
    lines = []
    for what, now, then in (
        ("", new.metadata, was.metadata),
        ("entry point: ", new.entry_points, was.entry_points),
        ("member: ", new.members if old else frozenset(), was.members),
    ):
        lines += [f"+ {what}{line}"[:LINE_MAX_CHARS] for line in sorted(now - then)]
        lines += [f"- {what}{line}"[:LINE_MAX_CHARS] for line in sorted(then - now)]
    more = len(lines) - LINES_MAX
    return lines if more <= 0 else [*lines[:LINES_MAX], f"! and {more} lines more: look at the file itself"]
