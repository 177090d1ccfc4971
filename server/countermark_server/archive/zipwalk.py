"""Zip archives, walked record by record.

    [local header][data] [local header][data] ... [central directory] [zip64 end, locator] [end]
    ^ byte 0                                                                          last byte ^

Everything must be in its place: the first record at byte 0, each where the one before ends, the central directory
right behind the last, one local record for one central one with the same fields, and nothing after the end.
Readers that stream (local headers) and readers that seek (central directory) then see the same members.

Refused although the format knows them: data descriptors, comments, encryption, methods other than stored and
deflated, doubled ZIP64 or Unicode-path fields, names that are not UTF-8, links. Format: PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from countermark_server.archive.members import CHUNK, ArchiveError, Budget, Kind, Limits, Member, Names

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
STORED, DEFLATED = 0, 8
UTF8, ENCRYPTED, DESCRIPTOR = 0x0800, 0x0001, 0x0008
LEVEL_BITS = 0x0006  # how hard the compressor tried; the only other flags allowed
DIRECTORY_MAX_BYTES = 32 * 1024 * 1024  # 20,000 members with long names and extras
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")
_EXTRA_ZIP64, _EXTRA_UNICODE_PATH = 0x0001, 0x7075
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class _Record:
    """What both headers of a member must agree on, and where its data lies."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int  # of the local header


class ZipArchive:
    """A zip whose structure was checked whole; `walk` then checks the contents as it hands them out."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        self._budget = Budget(limits)
        file.seek(0)
        if file.read(512)[257:262] == b"ustar":
            raise ArchiveError("archive-ambiguous", "archive is a zip and a tar at once")
        self._records, self._kinds = self._structure()

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Each member with its content in chunks, in the order of the file. Unread content is checked too."""
        for record in self._records:
            name = record.name.decode()
            member = Member(name.rstrip("/"), self._kinds[record.name], record.size)
            content = self._content(record)
            yield member, content
            for _ in content:
                pass

    # --- structure ----------------------------------------------------------------------------------------
    def _structure(self) -> tuple[list[_Record], dict[bytes, Kind]]:
        start, size, count = self._end()
        central = self._central(start, size, count)
        names, kinds = Names(), {}
        expected = 0
        for record, mode in central:
            if record.offset != expected:
                raise ArchiveError(
                    "archive-ambiguous",
                    f"zip record expected at byte {expected}, the directory says {record.offset}",
                )
            expected = self._local(record)
            kinds[record.name] = _kind(record, mode)
            names.add(_name(record).removesuffix("/"), kinds[record.name])
        if expected != start:
            raise ArchiveError(
                "archive-ambiguous", f"{start - expected} hidden bytes before the zip's directory"
            )
        names.finish()
        return [record for record, _ in central], kinds

    def _end(self) -> tuple[int, int, int]:
        """Offset, size and entry count of the central directory; the end records lie right behind it."""
        at = self._length - _END.size
        fields = self._unpack(_END, at, END, "end record in the last 22 bytes")
        _, disk, start_disk, here, count, size, start, comment = fields
        if comment or disk or start_disk or here != count:
            raise ArchiveError("archive-ambiguous", "zip has a comment or several disks")
        if count == _FULL16 or _FULL32 in (size, start):
            return self._end64(at, count, size, start)
        if start + size != at:
            raise ArchiveError(
                "archive-ambiguous", f"zip directory ends at byte {start + size}, its end record is at {at}"
            )
        return start, size, count

    def _end64(self, at: int, count: int, size: int, start: int) -> tuple[int, int, int]:
        at -= _LOCATOR64.size
        _, disk, offset, disks = self._unpack(_LOCATOR64, at, LOCATOR64, "zip64 locator")
        if disk or disks != 1 or offset + _END64.size != at:
            raise ArchiveError(
                "archive-ambiguous", f"zip64 locator points to byte {offset}, the end record is elsewhere"
            )
        fields = self._unpack(_END64, offset, END64, "zip64 end record")
        _, length, _, _, disk, start_disk, here, count64, size64, start64 = fields
        if length != _END64.size - 12 or disk or start_disk or here != count64 or start64 + size64 != offset:
            raise ArchiveError("archive-ambiguous", "zip64 end record contradicts itself")
        for short, full, long in (
            (count, _FULL16, count64),
            (size, _FULL32, size64),
            (start, _FULL32, start64),
        ):
            if short not in (full, long):
                raise ArchiveError("archive-ambiguous", f"zip end records disagree: {short} and {long}")
        return start64, size64, count64

    def _central(self, start: int, size: int, count: int) -> list[tuple[_Record, int]]:
        """The directory's records, by offset of their local header."""
        if size > DIRECTORY_MAX_BYTES or count > self._budget.limits.max_members:
            raise ArchiveError("archive-budget", f"zip directory of {count} members and {size} bytes")
        data = self._read(start, size)
        records, at = [], 0
        while at < size:
            if len(data) - at < _CENTRAL.size or data[at : at + 4] != CENTRAL:
                raise ArchiveError("archive-malformed", f"zip directory is damaged at byte {start + at}")
            head = _CENTRAL.unpack_from(data, at)
            flags, method, crc, packed, unpacked, name_len, extra_len, comment_len = (*head[3:5], *head[7:13])
            disk, mode, offset = head[13], head[15] >> 16, head[16]
            at += _CENTRAL.size
            name, extra = data[at : at + name_len], data[at + name_len : at + name_len + extra_len]
            at += name_len + extra_len + comment_len
            if comment_len or disk or at > size:
                raise ArchiveError(
                    "archive-ambiguous", f"zip directory entry {name!r} has a comment or is cut off"
                )
            unpacked, packed, offset = _zip64(name, extra, [unpacked, packed, offset])
            self._budget.spend_member()
            records.append((_Record(name, flags, method, crc, packed, unpacked, offset), mode))
        if len(records) != count:
            raise ArchiveError(
                "archive-ambiguous", f"zip directory holds {len(records)} entries, its end says {count}"
            )
        return sorted(records, key=lambda pair: pair[0].offset)

    def _local(self, record: _Record) -> int:
        """Compare the local header with the directory's record; returns where the record's data ends."""
        _, _, flags, method, _, _, crc, packed, size, name_len, extra_len = self._unpack(
            _LOCAL, record.offset, LOCAL, "local header"
        )
        data = self._read(record.offset + _LOCAL.size, name_len + extra_len)
        name, extra = data[:name_len], data[name_len:]
        size, packed = _zip64(name, extra, [size, packed])
        if (name, flags, method, crc, packed, size) != (
            record.name, record.flags, record.method, record.crc, record.packed, record.size,
        ):  # fmt: skip
            raise ArchiveError("archive-ambiguous", f"zip headers of {record.name!r} and {name!r} disagree")
        if flags & ~(UTF8 | LEVEL_BITS):
            raise ArchiveError(
                "archive-ambiguous",
                f"zip member {name!r} is encrypted or has a data descriptor (flags {flags:#06x})",
            )
        if method not in (STORED, DEFLATED) or (method == STORED and packed != size):
            raise ArchiveError(
                "archive-ambiguous",
                f"zip member {name!r} uses method {method}; only stored and deflated are taken",
            )
        return record.offset + _LOCAL.size + name_len + extra_len + packed

    # --- content ------------------------------------------------------------------------------------------
    def _content(self, record: _Record) -> Iterator[bytes]:
        crc = size = 0
        for chunk in self._inflated(record):
            self._budget.spend_bytes(len(chunk))
            size += len(chunk)
            if size > record.size:
                break
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if size != record.size or crc != record.crc:
            raise ArchiveError(
                "archive-malformed",
                f"zip member {record.name!r} is not the {record.size} bytes its header promises",
            )

    def _inflated(self, record: _Record) -> Iterator[bytes]:
        at = record.offset + _LOCAL.size
        head = _LOCAL.unpack(self._read(record.offset, _LOCAL.size))
        at, left = at + head[9] + head[10], record.packed
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if record.method == DEFLATED else None
        while left:
            packed = self._read(at, min(left, CHUNK))
            at, left = at + len(packed), left - len(packed)
            if inflate is None:
                yield packed
                continue
            while packed:
                try:
                    yield inflate.decompress(packed, CHUNK)
                except zlib.error as error:
                    raise ArchiveError("archive-malformed", f"zip member {record.name!r}: {error}") from None
                packed = inflate.unconsumed_tail
                if inflate.eof and (inflate.unused_data or left):
                    raise ArchiveError(
                        "archive-ambiguous", f"zip member {record.name!r} hides bytes behind its data"
                    )
        if inflate is not None:
            yield from self._rest(inflate, record)

    @staticmethod
    def _rest(inflate: zlib._Decompress, record: _Record) -> Iterator[bytes]:
        while not inflate.eof:  # output that did not fit into the last chunk
            chunk = inflate.decompress(b"", CHUNK)
            if not chunk:
                raise ArchiveError("archive-malformed", f"zip member {record.name!r} is cut off")
            yield chunk

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(count) if 0 <= at <= self._length else b""
        if len(data) != count:
            raise ArchiveError("archive-malformed", f"zip is cut off: {count} bytes expected at byte {at}")
        return data

    def _unpack(self, form: struct.Struct, at: int, magic: bytes, what: str) -> tuple[int, ...]:
        if at < 0:
            raise ArchiveError("archive-malformed", f"zip of {self._length} bytes has no {what}")
        data = self._read(at, form.size)
        if data[:4] != magic:
            raise ArchiveError("archive-malformed", f"zip has no {what} at byte {at}")
        return form.unpack(data)


def _zip64(name: bytes, extra: bytes, values: list[int]) -> list[int]:
    """Replace the saturated values by those of the ZIP64 field, which must hold exactly these."""
    seen: dict[int, bytes] = {}
    at = 0
    while at < len(extra):
        if len(extra) - at < 4:
            raise ArchiveError("archive-ambiguous", f"zip member {name!r} has a damaged extra field")
        kind, length = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if len(body) != length or kind == _EXTRA_UNICODE_PATH or (kind == _EXTRA_ZIP64 and kind in seen):
            raise ArchiveError(
                "archive-ambiguous", f"zip member {name!r} has a doubled or renaming extra field {kind:#06x}"
            )
        seen[kind] = body
    wide = [i for i, value in enumerate(values) if value == _FULL32]
    body = seen.get(_EXTRA_ZIP64, b"")
    if len(body) != 8 * len(wide):
        raise ArchiveError(
            "archive-ambiguous",
            f"zip member {name!r} has a ZIP64 field of {len(body)} bytes for {len(wide)} values",
        )
    result = list(values)
    for position, i in enumerate(wide):
        result[i] = struct.unpack_from("<Q", body, 8 * position)[0]
    return result


def _name(record: _Record) -> str:
    try:
        return record.name.decode("utf-8" if record.flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise ArchiveError(
            "archive-path", f"zip member name {record.name!r} is not UTF-8 and marked as such"
        ) from None


def _kind(record: _Record, mode: int) -> Kind:
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError("archive-link", f"zip member {record.name!r} is a link or a device")
    if record.name.endswith(b"/"):
        if record.size or record.packed > 2:  # an empty deflate stream is two bytes
            raise ArchiveError("archive-ambiguous", f"zip directory {record.name!r} has content")
        return "directory"
    return "file"
