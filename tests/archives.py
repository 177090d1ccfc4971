"""Archives for tests, built by hand, byte by byte where a library would refuse.

`wheel()` and `sdist()` give honest ones; `Zip` and `Tar` take every field as an argument, so that a test can lie
in exactly one of them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class ZipMember:
    """One member; fields of the local header may differ from the central one's."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    local_name: bytes | None = None
    local_flags: int | None = None
    local_size: int | None = None
    crc: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    packed: bytes | None = None
    size: int | None = None


@dataclass
class Zip:
    """A zip: honest unless told otherwise."""

    members: list[ZipMember] = field(default_factory=list)
    prefix: bytes = b""
    gap: bytes = b""  # between the last member and the directory
    comment: bytes = b""
    suffix: bytes = b""
    count: int | None = None

    def build(self) -> bytes:
        out, central = bytearray(self.prefix), bytearray()
        for m in self.members:
            packed, crc = self._pack(m)
            size = len(m.data) if m.size is None else m.size
            offset = len(out)
            local = m.local_name if m.local_name is not None else m.name
            flags = m.local_flags if m.local_flags is not None else m.flags
            local_size = m.local_size if m.local_size is not None else size
            out += struct.pack(
                "<4sHHHHHIIIHH", b"PK\3\4", 20, flags, m.method, 0, 33, crc, len(packed), local_size,
                len(local), len(m.local_extra),
            )  # fmt: skip
            out += local + m.local_extra + packed
            central += struct.pack(
                "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0x0314, 20, m.flags, m.method, 0, 33, crc, len(packed), size,
                len(m.name), len(m.extra), len(m.comment), 0, 0, m.mode << 16, offset,
            )  # fmt: skip
            central += m.name + m.extra + m.comment
        out += self.gap
        start = len(out)
        count = len(self.members) if self.count is None else self.count
        out += central + struct.pack(
            "<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(central), start, len(self.comment)
        )
        return bytes(out + self.comment + self.suffix)

    @staticmethod
    def _pack(m: ZipMember) -> tuple[bytes, int]:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = m.data if m.method == 0 else deflate.compress(m.data) + deflate.flush()
        crc = zlib.crc32(m.data) if m.crc is None else m.crc
        return (packed if m.packed is None else m.packed), crc


@dataclass
class TarMember:
    """One header and its data."""

    name: str
    data: bytes = b""
    kind: bytes = b"0"
    link: str = ""
    mode: int = 0o644
    size: int | None = None
    magic: bytes = b"ustar\x0000"

    def build(self) -> bytes:
        size = len(self.data) if self.size is None else self.size
        head = bytearray(512)
        head[0:100] = self.name.encode()[:100].ljust(100, b"\0")
        head[100:136] = b"%07o\0%07o\0%07o\0%011o\0" % (self.mode, 0, 0, size)
        head[136:148] = b"%011o\0" % 0
        head[148:156] = b" " * 8
        head[156:157] = self.kind
        head[157:257] = self.link.encode().ljust(100, b"\0")
        head[257:265] = self.magic
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head) + self.data + bytes(-len(self.data) % 512)


def pax(**records: str) -> bytes:
    """The body of a PAX header."""
    out = b""
    for key, value in records.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        out += str(length).encode() + body
    return out


def targz(*members: TarMember, end: bytes = bytes(1024), suffix: bytes = b"") -> bytes:
    """A gzipped tar of these members, in order."""
    return gzip.compress(b"".join(m.build() for m in members) + end, 6, mtime=0) + suffix


def metadata(name: str, version: str, extra: str = "") -> bytes:
    """A METADATA or PKG-INFO file."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extra}\nAbout {name}.\n".encode()


def record(files: Mapping[str, bytes], path: str) -> bytes:
    """The RECORD that names these files."""
    lines = [f"{name},{_digest(data)},{len(data)}" for name, data in files.items()]
    return "\n".join([*lines, f"{path},,", ""]).encode()


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def wheel_files(
    name: str = "demo", version: str = "1.0", files: Mapping[str, bytes] | None = None, extra: str = ""
) -> dict[str, bytes]:
    """The members of an honest wheel, RECORD last."""
    stem = f"{name.replace('-', '_')}-{version}.dist-info"
    members = dict(files if files is not None else {f"{name.replace('-', '_')}/__init__.py": b"VALUE = 1\n"})
    members[f"{stem}/METADATA"] = metadata(name, version, extra)
    members[f"{stem}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members[f"{stem}/RECORD"] = record(members, f"{stem}/RECORD")
    return members


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """An honest zip of these files."""
    return Zip([ZipMember(name.encode(), data) for name, data in files.items()]).build()


def wheel(
    name: str = "demo", version: str = "1.0", files: Mapping[str, bytes] | None = None, extra: str = ""
) -> bytes:
    """An honest wheel."""
    return zip_of(wheel_files(name, version, files, extra))


def sdist(
    name: str = "demo", version: str = "1.0", files: Mapping[str, bytes] | None = None, extra: str = ""
) -> bytes:
    """An honest source distribution."""
    top = f"{name.replace('-', '_')}-{version}"
    members = [
        TarMember(f"{top}/", kind=b"5", mode=0o755),
        TarMember(f"{top}/PKG-INFO", metadata(name, version, extra)),
    ]
    members += [
        TarMember(f"{top}/{path}", data)
        for path, data in (files or {"setup.py": b"import setuptools\n"}).items()
    ]
    return targz(*members)
