"""Distributions: an archive that must be a wheel or a source distribution of one project and version.

`examine` reads an archive once, from the first byte to the last, and returns what the registry keeps of it: the
metadata file, and for wheels the digest of RECORD. It refuses what `zipwalk` and `tarwalk` refuse, a wheel whose
RECORD does not name every file with its true digest and nothing else, and a source distribution with more than one
top directory or without PKG-INFO in it. RECORD is compared with the members that were really read:

    demo/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
    demo-1.0.dist-info/RECORD,,
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from countermark_server.archive.members import ArchiveError, Limits, Member
from countermark_server.archive.tarwalk import TarArchive
from countermark_server.archive.zipwalk import ZipArchive

METADATA_MAX_BYTES = 4 * 1024 * 1024  # a README of a megabyte is rare, four are unheard of
RECORD_MAX_BYTES = 8 * 1024 * 1024  # 20,000 lines with long names
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class _Seen:
    """What one member's content really was."""

    sha256: bytes
    length: int


@dataclass(frozen=True)
class Distribution:
    """What the registry keeps of an archive it has read whole."""

    metadata: bytes
    record_sha256: str | None
    top: str  # the .dist-info directory of a wheel, the top directory of a source distribution


class Archive(Protocol):
    """What both kinds of archive can do."""

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]: ...


def open_archive(file: BinaryIO, filename: str, limits: Limits) -> Archive:
    """The archive in `file`, of the kind its name says."""
    return TarArchive(file, limits) if filename.endswith(".tar.gz") else ZipArchive(file, limits)


def examine(file: BinaryIO, filename: str, limits: Limits) -> Distribution:
    """Read the whole archive once; returns what is kept of it or raises ArchiveError."""
    archive = open_archive(file, filename, limits)
    return _wheel(archive) if filename.endswith(".whl") else _sdist(archive)


def _wheel(archive: Archive) -> Distribution:
    infos: set[str] = set()
    kept: dict[str, bytes] = {}
    found: dict[str, _Seen] = {}
    for member, content in archive.walk():
        top, _, rest = member.name.partition("/")
        if top.endswith(".dist-info"):
            infos.add(top)
        if member.kind != "file":
            continue
        keep = top.endswith(".dist-info") and rest in ("METADATA", "WHEEL", "RECORD")
        found[member.name], data = _digest(member, content, keep=keep)
        if keep:
            kept[rest] = data
    if len(infos) != 1:
        raise ArchiveError("archive-layout", f"wheel has {len(infos)} .dist-info directories, must have one")
    top = infos.pop()
    for name in ("METADATA", "WHEEL", "RECORD"):
        if name not in kept:
            raise ArchiveError("archive-layout", f"wheel has no {top}/{name}")
    _check_record(kept["RECORD"], found, top)
    return Distribution(kept["METADATA"], hashlib.sha256(kept["RECORD"]).hexdigest(), top)


def _sdist(archive: Archive) -> Distribution:
    tops: set[str] = set()
    metadata: bytes | None = None
    for member, content in archive.walk():
        top, slash, rest = member.name.partition("/")
        tops.add(top)
        if not slash and member.kind != "directory":
            raise ArchiveError(
                "archive-layout", f"source distribution has {member.name!r} beside its top directory"
            )
        if rest == "PKG-INFO" and member.kind == "file":
            _, metadata = _digest(member, content, keep=True)
    if len(tops) != 1:
        raise ArchiveError(
            "archive-layout", f"source distribution has {len(tops)} top directories, must have one"
        )
    top = tops.pop()
    if metadata is None:
        raise ArchiveError("archive-layout", f"source distribution has no {top}/PKG-INFO")
    return Distribution(metadata, None, top)


def _digest(member: Member, content: Iterator[bytes], *, keep: bool) -> tuple[_Seen, bytes]:
    """Digest and length of the content, and the content itself if it is to be kept."""
    limit = RECORD_MAX_BYTES if member.name.endswith("/RECORD") else METADATA_MAX_BYTES
    if keep and member.size > limit:
        raise ArchiveError("archive-budget", f"{member.name} has {member.size} bytes, may have {limit}")
    hasher, chunks, length = hashlib.sha256(), [], 0
    for chunk in content:
        hasher.update(chunk)
        length += len(chunk)
        if keep:
            chunks.append(chunk)
    return _Seen(hasher.digest(), length), b"".join(chunks)


def _check_record(record: bytes, found: dict[str, _Seen], top: str) -> None:
    unrecorded = {f"{top}/{name}" for name in _UNRECORDED}
    missing = set(found) - unrecorded
    seen: set[str] = set()
    for name, digest, size in _record_lines(record):
        if name in seen:
            raise ArchiveError("record-mismatch", f"RECORD names {name!r} twice")
        seen.add(name)
        if name in unrecorded:
            continue
        if name not in missing:
            raise ArchiveError("record-mismatch", f"RECORD names {name!r}, which is not in the wheel")
        missing.discard(name)
        actual = base64.urlsafe_b64encode(found[name].sha256).rstrip(b"=").decode()
        if digest.rstrip("=") != f"sha256={actual}":
            raise ArchiveError(
                "record-mismatch", f"RECORD has another digest of {name!r} than the wheel: {digest!r}"
            )
        if size and size != str(found[name].length):
            raise ArchiveError(
                "record-mismatch", f"RECORD gives {name!r} {size} bytes, the wheel {found[name].length}"
            )
    if missing:
        raise ArchiveError("record-mismatch", f"RECORD does not name {sorted(missing)[0]!r}")


def _record_lines(record: bytes) -> Iterator[tuple[str, str, str]]:
    try:
        for row in csv.reader(io.StringIO(record.decode("utf-8"), newline=""), strict=True):
            if row:
                name, digest, size = row
                yield name, digest, size
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ArchiveError("record-mismatch", f"RECORD does not parse: {error}") from None
