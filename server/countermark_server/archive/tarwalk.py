"""Gzipped tar archives, read as one stream of 512-byte blocks.

    gzip( [header][data padded to 512] [header][data] ... [zero block][zero block][zeros] )

One gzip member, nothing behind it. A name or size may be overridden once, by a PAX record or by a GNU long name,
never by both; sparse files, devices, pipes and setuid bits do not occur in source distributions and are refused.
Links must stay below the top directory and may not lead through another link. Format: POSIX.1-2001 pax.
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from countermark_server.archive.members import CHUNK, ArchiveError, Budget, Limits, Member, Names, check_name

BLOCK = 512
OVERRIDE_MAX_BYTES = 64 * 1024  # one PAX header or long name; honest ones have some hundred bytes
GZIP = 16 + zlib.MAX_WBITS
_IGNORED_PAX = ("atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment", "charset")
_IGNORED_PREFIXES = ("SCHILY.", "LIBARCHIVE.", "APPLE.", "RHT.")
_SETUID_SETGID = 0o6000


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: bytes
    link: str
    mode: int


@dataclass
class _Overrides:
    """What PAX and GNU headers said about the next member."""

    values: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: str) -> None:
        if self.values.setdefault(key, value) != value:
            raise ArchiveError(
                "archive-ambiguous",
                f"tar gives one member two values of {key}: {self.values[key]!r} and {value!r}",
            )


class TarArchive:
    """A `.tar.gz`; everything is checked while `walk` reads it from the first byte to the last."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        file.seek(0)
        self._budget = Budget(limits)
        self._stream = _Gunzip(file, self._budget)

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Each member with its content in chunks, in the order of the file. Unread content is checked too."""
        names, links, files = Names(), dict[str, str](), set[str]()
        overrides = _Overrides()
        while (header := self._header()) is not None:
            if header.kind in b"xgLK":
                self._override(header, overrides)
                continue
            member, link = _resolve(header, overrides)
            overrides = _Overrides()
            self._budget.spend_member()
            names.add(member.name, member.kind)
            if member.kind == "file":
                files.add(member.name)
            elif member.kind == "link":
                if header.kind == b"1" and link not in files:
                    raise ArchiveError(
                        "archive-link",
                        f"tar member {member.name!r} is a hard link to {link!r}, no earlier file",
                    )
                links[member.name] = link if header.kind == b"2" else ""
            content = self._content(member)
            yield member, content
            for _ in content:
                pass
        if overrides.values:
            raise ArchiveError("archive-malformed", "tar ends after a header that announces a member")
        names.finish()
        _check_links({name: target for name, target in links.items() if target})

    def _header(self) -> _Header | None:
        block = self._stream.read(BLOCK)
        if len(block) != BLOCK:
            raise ArchiveError("archive-malformed", "tar ends without its two zero blocks")
        if block.count(0) == BLOCK:
            self._end()
            return None
        stored = _octal(block[148:156], "checksum")
        if sum(block) - sum(block[148:156]) + 8 * 32 != stored:
            raise ArchiveError("archive-malformed", f"tar header checksum is not {stored}")
        name, prefix = (
            _text(block[0:100]),
            _text(block[345 : 345 + 155]) if block[257:263] == b"ustar\0" else "",
        )
        return _Header(
            name=f"{prefix}/{name}" if prefix else name,
            size=_octal(block[124:136], "size"),
            kind=block[156:157].replace(b"\0", b"0"),
            link=_text(block[157:257]),
            mode=_octal(block[100:108], "mode"),
        )

    def _end(self) -> None:
        second = self._stream.read(BLOCK)
        if len(second) != BLOCK or any(second):
            raise ArchiveError("archive-ambiguous", "tar does not end with two zero blocks")
        while chunk := self._stream.read(CHUNK):
            if any(chunk):
                raise ArchiveError("archive-ambiguous", "tar has bytes behind its end")

    def _override(self, header: _Header, overrides: _Overrides) -> None:
        if header.size > OVERRIDE_MAX_BYTES:
            raise ArchiveError("archive-budget", f"tar header of {header.size} bytes")
        self._budget.spend_member()
        data = b"".join(self._take(header.size))
        if header.kind == b"L":
            overrides.put("path", _utf8(data.rstrip(b"\0")))
        elif header.kind == b"K":
            overrides.put("linkpath", _utf8(data.rstrip(b"\0")))
        else:
            for key, value in _pax(data):
                if key in ("path", "linkpath", "size") and header.kind == b"x":
                    overrides.put(key, value)
                elif key not in _IGNORED_PAX and not key.startswith(_IGNORED_PREFIXES):
                    raise ArchiveError("archive-ambiguous", f"tar uses the PAX record {key!r}")

    def _content(self, member: Member) -> Iterator[bytes]:
        if member.kind == "file":
            yield from self._take(member.size)

    def _take(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self._stream.read(min(left, CHUNK))
            if not chunk:
                raise ArchiveError("archive-malformed", f"tar is cut off, {left} bytes missing")
            left -= len(chunk)
            yield chunk
        self._stream.read(-size % BLOCK)


class _Gunzip:
    """The unpacked bytes of exactly one gzip member."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file, self._budget = file, budget
        self._inflate = zlib.decompressobj(GZIP)
        self._buffer = bytearray()
        self._packed = b""

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count and self._fill():
            pass
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _fill(self) -> bool:
        if self._inflate.eof:
            if self._inflate.unused_data or self._file.read(1):
                raise ArchiveError("archive-ambiguous", "gzip has bytes behind its end")
            return False
        data = self._packed or self._file.read(CHUNK)
        try:
            unpacked = self._inflate.decompress(data, CHUNK)
        except zlib.error as error:
            raise ArchiveError("archive-malformed", f"not a gzip file: {error}") from None
        self._packed = self._inflate.unconsumed_tail
        if not data and not unpacked and not self._inflate.eof:
            raise ArchiveError("archive-malformed", "gzip is cut off")
        self._budget.spend_bytes(len(unpacked))
        self._buffer += unpacked
        return True


def _resolve(header: _Header, overrides: _Overrides) -> tuple[Member, str]:
    """The member that header and overrides together describe, and its link target."""
    name = overrides.values.get("path", header.name)
    link = overrides.values.get("linkpath", header.link)
    size = overrides.values.get("size")
    if size is not None and size != str(header.size):
        raise ArchiveError(
            "archive-ambiguous", f"tar member {name!r} has two sizes: {header.size} and {size}"
        )
    if header.mode & _SETUID_SETGID:
        raise ArchiveError("archive-ambiguous", f"tar member {name!r} has a setuid or setgid bit")
    if header.kind == b"0" and not name.endswith("/"):
        return Member(name, "file", header.size), ""
    if header.kind not in (b"5", b"0", b"1", b"2") or header.size:
        raise ArchiveError(
            "archive-ambiguous", f"tar member {name!r} is of type {header.kind!r}: no file, directory or link"
        )
    if header.kind in (b"5", b"0"):
        return Member(name.removesuffix("/"), "directory", 0), ""
    return Member(name, "link", 0), link


def _check_links(links: dict[str, str]) -> None:
    """Every symbolic link stays below the top directory, and leads through no other link."""
    for name, target in links.items():
        check_target = target.rstrip("/")
        here = posixpath.dirname(name)
        if (
            not target
            or target.startswith("/")
            or "\\" in target
            or not target.isprintable()
            or target[1:2] == ":"
        ):
            raise ArchiveError("archive-link", f"tar member {name!r} links to {target!r}")
        for part in check_target.split("/"):
            if here in links:
                raise ArchiveError("archive-link", f"tar member {name!r} links through the link {here!r}")
            here = posixpath.dirname(here) if part == ".." else posixpath.normpath(posixpath.join(here, part))
            if here in ("", "."):
                raise ArchiveError(
                    "archive-link", f"tar member {name!r} links to {target!r}, outside the top directory"
                )
        check_name(here)


def _pax(data: bytes) -> Iterator[tuple[str, str]]:
    """The records `<length> <key>=<value>\\n` of a PAX header."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > at else b""
        if not digits.isdigit() or digits.startswith(b"0"):
            raise ArchiveError("archive-malformed", f"tar PAX header is damaged at byte {at}")
        end = at + int(digits)
        record = data[space + 1 : end]
        if end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise ArchiveError("archive-malformed", f"tar PAX header is damaged at byte {at}")
        key, _, value = record[:-1].partition(b"=")
        yield _utf8(key), value.decode("utf-8", "replace") if key.startswith(b"SCHILY.") else _utf8(value)
        at = end


def _text(data: bytes) -> str:
    return _utf8(data.split(b"\0", 1)[0])


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError("archive-path", f"tar name {data[:80]!r} is not UTF-8") from None


def _octal(data: bytes, what: str) -> int:
    digits = data.strip(b" \0")
    if not digits:
        return 0
    if any(c not in b"01234567" for c in digits):
        raise ArchiveError("archive-malformed", f"tar header has {data!r} as {what}")
    return int(digits, 8)
