"""Eight large uploads at once cost the web process no memory worth naming: files go to the disk as they come.

Measured on the real registry's worker: its peak resident set while the uploads run (the kernel's own high-water
mark, reset before), against what it held at rest.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import pytest

from tests.archives import metadata
from tests.world.world import World, fresh

MIB = 1024 * 1024
AT_ONCE = 8
MORE_AT_MOST = 64 * MIB
BOUNDARY = "boundary-of-a-large-upload"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {
        "COUNTERMARK_UPLOAD_MAX_BYTES": str(2048 * MIB),
        "COUNTERMARK_UPLOAD_MAX_UNPACKED_BYTES": str(2048 * MIB),
        "COUNTERMARK_WEB_WAIT": "60",
    }
    with fresh(tmp_path_factory.mktemp("large"), settings=settings) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        world.login("ada", world.words(ceremony))
        yield world


@pytest.mark.parametrize(
    ("mebibytes", "description"),
    [(24, 7), pytest.param(1024, 0, marks=[pytest.mark.exhaustive, pytest.mark.timeout(1800)])],
)
def test_eight_at_once_stay_within_64_mib(
    world: World, tmp_path: Path, mebibytes: int, description: int
) -> None:
    """Three times the bound arrives in CI, eight gibibytes in the full run; READMEs are read past."""
    versions = [f"{mebibytes}.{description}.{number}" for number in range(AT_ONCE)]
    files = [large_wheel(tmp_path, version, mebibytes * MIB) for version in versions]
    upload(world, large_wheel(tmp_path, f"{mebibytes}.{description}.99", MIB), "x")  # all is imported by now
    worker = web_worker(world)
    idle = memory(worker, "VmRSS")
    Path(f"/proc/{worker}/clear_refs").write_text("5", "ascii")  # the high-water mark starts here
    with ThreadPoolExecutor(AT_ONCE) as together:
        statuses = list(together.map(lambda file: upload(world, file, "x" * description * MIB), files))
    assert statuses == [200] * AT_ONCE
    more = memory(worker, "VmHWM") - idle
    assert more <= MORE_AT_MOST, f"{more / MIB:.0f} MiB more than at rest"


def web_worker(world: World) -> int:
    """The one process that answers requests: the only child of gunicorn's own."""
    master = world.pid("web")
    (child,) = Path(f"/proc/{master}/task/{master}/children").read_text("ascii").split()
    return int(child)


def memory(pid: int, what: str) -> int:
    """A line of /proc/PID/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {what}")


class Sparse(FileIO):
    """A file in which zeros take no room."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if len(data) > 4096 and not any(memoryview(data)[:1]) and bytes(data).count(0) == len(data):
            self.seek(len(data), 1)
            return len(data)
        return super().write(data)


def large_wheel(folder: Path, version: str, size: int) -> Path:
    """A wheel with one stored member of so many zeros."""
    path, info = folder / f"large-{version}-py3-none-any.whl", f"large-{version}.dist-info"
    files = {
        f"{info}/METADATA": metadata("large", version),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    zeros, data = hashlib.sha256(), bytes(MIB)
    for _ in range(size // MIB):
        zeros.update(data)
    lines = [f"large/zeros.bin,{_digest(zeros.digest())},{size}"]
    lines += [f"{name},{_digest(hashlib.sha256(body).digest())},{len(body)}" for name, body in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with Sparse(path, "w+b") as raw, zipfile.ZipFile(raw, "w") as archive:  # type: ignore[arg-type]
        member = zipfile.ZipInfo("large/zeros.bin")
        member.file_size = size
        with archive.open(member, "w") as stream:
            for _ in range(size // MIB):
                stream.write(data)
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body)
    return path


def _digest(raw: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def upload(world: World, file: Path, description: str) -> int:
    """POST one wheel as upload tools do, reading it piece by piece; the status."""
    fields = {
        ":action": "file_upload", "protocol_version": "1", "name": "large", "filetype": "bdist_wheel",
        "description": description,
    }  # fmt: skip
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="content"; filename="{file.name}"\r\n\r\n'
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head.encode()
        with file.open("rb") as stream:
            while piece := stream.read(256 * 1024):
                yield piece
        yield tail

    basic = base64.b64encode(f"__token__:{world.token()}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=900)
    connection.request(
        "POST", "/legacy/", body=body(),
        headers={
            "Authorization": f"Basic {basic}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(head.encode()) + file.stat().st_size + len(tail)),
        },
    )  # fmt: skip
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status in (200, 202), said
    return 200
