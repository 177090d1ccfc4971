"""A trial registry for the benchmarks, a signed-in publisher with an enrolled key, and small wheels to upload."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import tempfile
import time
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.world.world import World, fresh

PROJECT = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
UNBOUND = {  # one account does what a registry's accounts do together
    "COUNTERMARK_TUF_MIN_INTERVAL": "0.2",
    "COUNTERMARK_LIMITS_UPLOADS_A_MINUTE": "0",
    "COUNTERMARK_LIMITS_ENTRIES_A_DAY": "0",
    "COUNTERMARK_LIMITS_PROJECTS_A_DAY": "0",
}


@dataclass(frozen=True)
class Wheel:
    """One wheel's name and bytes, with the attestation that its publisher signed."""

    path: Path
    attestation: bytes

    @property
    def body(self) -> bytes:
        """The wheel's bytes."""
        return self.path.read_bytes()


@contextlib.contextmanager
def running(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[World]:
    """A trial registry of six processes on loopback, with `alice` signed in and trusted."""
    root = Path(tempfile.mkdtemp(prefix="countermark-bench-"))
    try:
        with fresh(root, settings={**UNBOUND, **settings}) as world:
            world.init()
            ceremony = world.ceremony()
            world.up("--ceremony", ceremony)
            world.login("alice", world.words(ceremony))
            yield world
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def raw_log(settings: Mapping[str, str]) -> Iterator[World]:
    """A raw log on loopback: witness, log and web, and a door that takes any bytes."""
    root = Path(tempfile.mkdtemp(prefix="countermark-bench-"))
    try:
        raw = {"COUNTERMARK_TESTING_RAW_ADD": "true", **settings}
        with fresh(root, settings=raw, ready="/healthz") as world:
            world.init()
            world.up("--ceremony", world.ceremony())
            yield world
    finally:
        shutil.rmtree(root, ignore_errors=True)


def spent(pid: int) -> float:
    """CPU seconds of a process so far, its living children's included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(spent(int(child)) for child in children)


def wait_for(port: int, seconds: float = 30) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def signed_wheels(world: World, count: int, *, start: int = 0) -> list[Wheel]:
    """`count` wheels of about 1 kB, signed by alice's enrolled key."""
    folder = world.root / "wheels"
    folder.mkdir(exist_ok=True)
    paths = [make_wheel(folder, f"1.0.{start + number}") for number in range(count)]
    for first in range(0, count, 100):
        world.run("countermark", "sign", "--yes", *paths[first : first + 100])
    return [Wheel(path, path.with_name(path.name + ".publish.attestation").read_bytes()) for path in paths]


def make_wheel(folder: Path, version: str, project: str = PROJECT) -> Path:
    """A small wheel with one empty module."""
    members = {
        f"{project}.py": b"",
        f"{project}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode()
        ),
        f"{project}-{version}.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{name},sha256={_digest(body)},{len(body)}\n" for name, body in members.items())
    record += f"{project}-{version}.dist-info/RECORD,,\n"
    members[f"{project}-{version}.dist-info/RECORD"] = record.encode()
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    path = folder / f"{project}-{version}-py3-none-any.whl"
    path.write_bytes(raw.getvalue())
    return path


def _digest(body: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
