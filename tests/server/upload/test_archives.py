"""Archive safety: honest archives pass, each lie is refused with its own code, nothing leaks an exception."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark_server.archive import distribution
from countermark_server.archive.members import ArchiveError, Limits
from countermark_server.errors import CODES
from tests.archives import (
    TarMember,
    Zip,
    ZipMember,
    pax,
    record,
    sdist,
    targz,
    wheel,
    wheel_files,
    zip_of,
)

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
TOP = "demo-1.0"
INFO = TarMember(f"{TOP}/PKG-INFO", b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")


def examine(
    data: bytes, filename: str, *, unpacked: int = 1 << 28, members: int = 1000
) -> distribution.Distribution:
    limits = Limits(packed_bytes=len(data), max_unpacked_bytes=unpacked, max_members=members)
    return distribution.examine(io.BytesIO(data), filename, limits)


def code_of(data: bytes, filename: str, **limits: int) -> str:
    with pytest.raises(ArchiveError) as caught:
        examine(data, filename, **limits)
    assert caught.value.code in CODES
    return caught.value.code


def zipped(*members: ZipMember, **fields: object) -> bytes:
    honest = [ZipMember(name.encode(), data) for name, data in wheel_files().items()]
    return Zip([*honest, *members], **fields).build()  # type: ignore[arg-type]


def zip64(*, offset: int = 0, disks: int = 1, count: int = 0) -> bytes:
    """An honest wheel whose end record is a zip64 one; each argument is a lie by so much in locator or record."""
    whole = zipped()
    body, (_, _, _, here, total, size, start, _) = whole[:-22], struct.unpack("<4sHHHHIIH", whole[-22:])
    assert here == total
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, here, total + count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + offset, disks)
    return body + end + locator + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, start, 0)


def test_honest_wheel_and_sdist_pass() -> None:
    """What the usual tools make is taken, and its metadata handed out."""
    found = examine(wheel(), WHEEL)
    assert b"Name: demo" in found.metadata and found.top == "demo-1.0.dist-info"
    assert found.record_sha256 is not None
    assert examine(zip64(), WHEEL) == found
    found = examine(sdist(), SDIST)
    assert b"Name: demo" in found.metadata and found.top == TOP and found.record_sha256 is None


def test_what_the_standard_library_writes_passes() -> None:
    """zipfile and tarfile, in each of their formats, with long and non-ASCII names."""
    files = wheel_files(files={"demo/" + "long" * 50 + ".py": b"x", "demo/größe.py": b"y"})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("demo")
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=name.endswith("größe.py")) as member:
                member.write(data)
    assert examine(buffer.getvalue(), WHEEL).top == "demo-1.0.dist-info"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
            names = [f"{TOP}/PKG-INFO", f"{TOP}/{'d' * 90}/{'f' * 60}.py"]
            if form != tarfile.USTAR_FORMAT:
                names += [f"{TOP}/{'n' * 200}/größe.py", f"{TOP}/{'w' * 120}"]
            for name in names:
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(INFO.data), 1763800000.5  # type: ignore[assignment]
                tar.addfile(info, io.BytesIO(INFO.data))
            link = tarfile.TarInfo(f"{TOP}/docs")
            link.type, link.linkname = tarfile.SYMTYPE, "d" * 90
            tar.addfile(link)
        assert examine(buffer.getvalue(), SDIST).top == TOP


def test_installed_wheels_of_this_environment_would_pass() -> None:
    """Real wheels lying around here (pip's bundled ones) are not refused."""
    import ensurepip

    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("*.whl"))
    for path in bundled:
        examine(path.read_bytes(), path.name, members=5000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (zipped(prefix=b"#!/bin/sh\n"), "archive-ambiguous"),
        (zipped(suffix=b"x"), "archive-malformed"),
        (zipped(gap=b"hidden"), "archive-ambiguous"),
        (zipped(comment=b"hello"), "archive-malformed"),
        (zipped(count=3), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", comment=b"c")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", local_name=b"demo/b.py")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", local_size=7)), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", local_flags=2)), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", flags=1)), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", flags=8)), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", method=12, packed=b"BZh")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", method=0, packed=b"12")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", crc=5)), "archive-malformed"),
        (zipped(ZipMember(b"demo/a.py", b"12", size=1)), "archive-malformed"),
        (zipped(ZipMember(b"demo/a.py", b"12", size=3)), "archive-malformed"),
        (zipped(ZipMember(b"demo/a.py", b"1", packed=b"\xff\xff")), "archive-malformed"),
        (zipped(ZipMember(b"demo/a.py", b"", packed=b"\x03\x00hidden", crc=0)), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", extra=struct.pack("<HHQ", 1, 8, 1))), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", local_extra=struct.pack("<HH", 0x7075, 0))), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", extra=b"\1")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/a.py", b"1", extra=struct.pack("<HHQHHQ", 1, 8, 1, 1, 8, 1))), "archive-ambiguous"),
        (zip64(offset=1), "archive-ambiguous"),
        (zip64(offset=-22), "archive-ambiguous"),
        (zip64(disks=2), "archive-ambiguous"),
        (zip64(count=1), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/link", b"/etc", mode=0o120777)), "archive-link"),
        (zipped(ZipMember(b"demo/pipe", b"", mode=0o010644)), "archive-link"),
        (zipped(ZipMember(b"demo/dir/", b"content")), "archive-ambiguous"),
        (zipped(ZipMember(b"demo/\xff.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"../evil.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"/etc/evil", b"1")), "archive-path"),
        (zipped(ZipMember(b"C:evil", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo\\evil.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo/./evil.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo//evil.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo/a\0.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo/a\x1b[31m.py", b"1")), "archive-path"),
        (zipped(ZipMember("demo/a\u202e.py".encode(), b"1", flags=0x800)), "archive-path"),
        (zipped(ZipMember(b"demo/__init__.py", b"VALUE = 1\n")), "archive-path"),
        (zipped(ZipMember(b"demo/__INIT__.py", b"1")), "archive-path"),
        (zipped(ZipMember(b"DEMO/x.py", b"1")), "archive-path"),
        (zipped(
            ZipMember("demo/\u00e9.py".encode(), b"1", flags=0x800),
            ZipMember("demo/e\u0301.py".encode(), b"1", flags=0x800),
        ), "archive-path"),
        (zipped(ZipMember(b"demo/__init__.py/x", b"1")), "archive-path"),
        (zipped(ZipMember(b"demo/unrecorded.py", b"1")), "record-mismatch"),
        (zipped(ZipMember(b"other-1.0.dist-info/METADATA", b"1")), "archive-layout"),
    ],
)  # fmt: skip
def test_each_lie_in_a_zip_is_refused(data: bytes, code: str) -> None:
    """One field says something else than the others; the whole archive is refused."""
    assert code_of(data, WHEEL) == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (targz(INFO, suffix=b"x"), "archive-ambiguous"),
        (targz(INFO, suffix=gzip.compress(b"more")), "archive-ambiguous"),
        (targz(INFO, end=bytes(1024) + b"x" * 512), "archive-ambiguous"),
        (targz(INFO, end=bytes(512) + TarMember(f"{TOP}/x", b"1").build()), "archive-ambiguous"),
        (targz(INFO, end=b""), "archive-malformed"),
        (targz(INFO)[:-9], "archive-malformed"),
        (b"plain text", "archive-malformed"),
        (b"", "archive-malformed"),
        (zip_of({f"{TOP}/PKG-INFO": INFO.data}), "archive-malformed"),
        (targz(INFO, TarMember(f"{TOP}/dev", kind=b"3")), "archive-ambiguous"),
        (targz(INFO, TarMember(f"{TOP}/fifo", kind=b"6")), "archive-ambiguous"),
        (targz(INFO, TarMember(f"{TOP}/sparse", kind=b"S")), "archive-ambiguous"),
        (targz(INFO, TarMember(f"{TOP}/x", mode=0o4755)), "archive-ambiguous"),
        (targz(INFO, TarMember(f"{TOP}/x", b"1", size=600)), "archive-ambiguous"),
        (targz(INFO, TarMember(f"{TOP}/x", b"1", size=6000)), "archive-malformed"),
        (targz(INFO, TarMember("pax", pax(size="9"), b"x"), TarMember(f"{TOP}/x", b"1")), "archive-ambiguous"),
        (targz(INFO, TarMember("p", pax(GNU__sparse__major="1"), b"x"), TarMember("x")), "archive-ambiguous"),
        (targz(INFO, TarMember("pax", pax(path=f"{TOP}/y"), b"g"), TarMember(f"{TOP}/x")), "archive-ambiguous"),
        (
            targz(INFO, TarMember("pax", pax(path=f"{TOP}/y"), b"x"), TarMember("l", b"z\0", b"L"), TarMember("x")),
            "archive-ambiguous",
        ),
        (targz(INFO, TarMember("pax", pax(path=f"{TOP}/y"), b"x")), "archive-malformed"),
        (targz(INFO, TarMember("pax", b"999 path=x\n", b"x"), TarMember("x")), "archive-malformed"),
        (targz(INFO, TarMember("pax", b"x" * 70_000, b"x"), TarMember("x")), "archive-budget"),
        (targz(INFO, TarMember("../x")), "archive-path"),
        (targz(INFO, TarMember("/etc/x")), "archive-path"),
        (targz(INFO, TarMember("C:x")), "archive-path"),
        (targz(INFO, TarMember(f"{TOP}/a\\x")), "archive-path"),
        (targz(INFO, TarMember("pax", pax(path=f"{TOP}/a\0x"), b"x"), TarMember("x")), "archive-path"),
        (targz(INFO, TarMember("pax", pax(path=f"{TOP}/e\u0301"), b"x"), TarMember("x"),
               TarMember("pax", pax(path=f"{TOP}/\u00e9"), b"x"), TarMember("x")), "archive-path"),
        (targz(INFO, TarMember(f"{TOP}/x"), TarMember(f"{TOP}/X")), "archive-path"),
        (targz(INFO, TarMember(f"{TOP}/l", kind=b"2", link="sub"), TarMember(f"{TOP}/l/x")), "archive-path"),
        (targz(INFO, TarMember(f"{TOP}/l", kind=b"2", link="/etc")), "archive-link"),
        (targz(INFO, TarMember(f"{TOP}/l", kind=b"2", link="../../x")), "archive-link"),
        (targz(INFO, TarMember(f"{TOP}/l", kind=b"2", link="..")), "archive-link"),
        (targz(INFO, TarMember(f"{TOP}/l", kind=b"1", link=f"{TOP}/z"), TarMember(f"{TOP}/z")), "archive-link"),
        (
            targz(
                INFO,
                TarMember(f"{TOP}/d/up", kind=b"2", link="../d"),
                TarMember(f"{TOP}/m", kind=b"2", link="d/up/../x"),
            ),
            "archive-link",
        ),
        (targz(INFO, TarMember("other/x")), "archive-layout"),
        (targz(INFO, TarMember("beside")), "archive-layout"),
        (targz(TarMember(f"{TOP}/setup.py")), "archive-layout"),
        (targz(TarMember(f"{TOP}/sub/PKG-INFO", INFO.data)), "archive-layout"),
        (targz(), "archive-layout"),
    ],
)  # fmt: skip
def test_each_lie_in_a_tar_is_refused(data: bytes, code: str) -> None:
    """One header says something else than the others; the whole archive is refused."""
    assert code_of(data, SDIST) == code


def test_a_tar_that_is_also_a_zip_is_refused() -> None:
    """A tar header in front of zip records is neither."""
    tar = bytearray(512)
    tar[257:262] = b"ustar"
    assert code_of(bytes(tar) + wheel(), WHEEL) == "archive-ambiguous"
    assert code_of(sdist(), WHEEL) == "archive-malformed"


def test_budgets_are_measured_on_real_bytes() -> None:
    """Members, unpacked bytes and ratio are counted while they stream by, in both kinds."""
    big = bytes(70 * 1024 * 1024)
    bomb = wheel(files={"demo/zeros.bin": big})
    assert code_of(bomb, WHEEL) == "archive-budget"
    assert code_of(targz(INFO, TarMember(f"{TOP}/zeros", big)), SDIST) == "archive-budget"
    assert code_of(wheel(), WHEEL, unpacked=100) == "archive-budget"
    assert code_of(wheel(), WHEEL, members=3) == "archive-budget"
    assert code_of(sdist(), SDIST, members=1) == "archive-budget"


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_a_wheel_without_its_parts_is_refused(missing: str) -> None:
    """Each of the three files of .dist-info must be there."""
    files = wheel_files()
    del files[f"demo-1.0.dist-info/{missing}"]
    assert code_of(zip_of(files), WHEEL) == "archive-layout"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.replace(b"demo/__init__.py,sha256=", b"demo/__init__.py,sha256=A"),
        lambda r: r.replace(b"demo/__init__.py,sha256", b"demo/__init__.py,md5"),
        lambda r: r.replace(b"demo/__init__.py", b"demo/other.py"),
        lambda r: r + b"demo/ghost.py,,\n",
        lambda r: r + r,
        lambda r: r + b"\xff,,\n",
        lambda r: r + b"one,two\n",
        lambda r: r.replace(b",10\n", b",11\n"),
        lambda r: b"",
    ],
)
def test_a_false_record_is_refused(change) -> None:
    """RECORD names every file with its true digest, and nothing else."""
    files = wheel_files()
    name = "demo-1.0.dist-info/RECORD"
    changed = change(files[name])
    assert changed != files[name]
    assert code_of(zip_of({**files, name: changed}), WHEEL) == "record-mismatch"


def test_signed_record_files_need_no_line() -> None:
    """RECORD.jws and RECORD.p7s are not in RECORD, by its specification."""
    files = wheel_files()
    files["demo-1.0.dist-info/RECORD.jws"] = b"{}"
    assert examine(zip_of(files), WHEEL).top == "demo-1.0.dist-info"
    assert record({}, "x") == b"x,,\n"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_archives_are_refused_or_read_whole(data: st.DataObject) -> None:
    """Flipping, cutting and inserting bytes ends in an ArchiveError or an archive that still holds together."""
    name, original = data.draw(st.sampled_from([(WHEEL, wheel()), (SDIST, sdist())]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del damaged[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        if not damaged:
            break
    try:
        examine(bytes(damaged), name)
    except ArchiveError as error:
        assert error.code in CODES


def test_random_bytes_are_refused() -> None:
    """Noise is no archive."""
    noise = random.Random(1)
    for length in (0, 1, 21, 22, 23, 600, 5000):
        data = noise.randbytes(length)
        assert code_of(data, WHEEL) == "archive-malformed"
        assert code_of(data, SDIST) == "archive-malformed"
