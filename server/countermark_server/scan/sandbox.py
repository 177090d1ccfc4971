"""The worker's side of the sandbox: ask for one examination, listen for a bounded time, believe little.

The child gets one descriptor of ours, opened read-only, and nothing else: no environment, no key. The nursery that
forks it (nursery.py) is started when it is first needed, and anew when it has ended. Whatever goes wrong becomes the
finding `analyzer-failed`, with the reason, and so a person's business; only where the nursery itself was killed is
the artifact examined again, once.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from countermark.errors import MalformedError
from countermark_server import telemetry
from countermark_server.archive.members import Limits
from countermark_server.scan.findings import Finding, failed, parse_findings
from countermark_server.scan.nursery import DESCRIPTORS, ENDING, GO, KILL
from countermark_server.settings import Scan, Upload

NURSERY = ("-I", "-m", "countermark_server.scan.nursery")
SCANS_PER_NURSERY = 1000  # children of one nursery share hash seed and addresses; a new one costs 60 ms
NURSERIES_PER_SCAN = 2
GRACE_SECONDS = 30.0  # beyond a child's wall time, until the nursery counts as hung; its start is in it
ANSWER_MAX_BYTES = 1024 * 1024
HASH_CHUNK = 1024 * 1024


class NurseryEndedError(Exception):
    """The nursery was killed, or hangs: it says nothing about the artifact."""


@dataclass(frozen=True)
class Examined:
    """What came back: findings, and which protections the child says it had."""

    findings: tuple[Finding, ...]
    protections: tuple[str, ...] = ()


class Sandbox:
    """Examines artifacts, one at a time. `command` stands behind the interpreter and starts a nursery."""

    def __init__(self, scan: Scan, upload: Upload, command: Sequence[str] = NURSERY) -> None:
        self.scan = scan
        self.upload = upload
        self.command = command
        self.nursery: Nursery | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def examine(self, path: Path, filename: str, sha256: str) -> Examined:
        """Examine the artifact at `path`, whose bytes must be those that were logged."""
        for _ in range(NURSERIES_PER_SCAN):
            try:
                return self._examine(path, filename, sha256)
            except NurseryEndedError as error:
                telemetry.logger().warning("the scan's nursery ended", reason=str(error))
                self.close()
        return Examined((failed(f"the nursery ended {NURSERIES_PER_SCAN} times during the examination"),))

    def close(self) -> None:
        """End the nursery, and with it a child of its; the next examination starts another."""
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None

    def _examine(self, path: Path, filename: str, sha256: str) -> Examined:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return Examined((failed(f"the artifact cannot be read: {error.strerror}"),))
        try:
            found, length = _digest(descriptor)
            if found != sha256:
                return Examined((failed(f"the stored bytes have SHA-256 {found}, not the logged {sha256}"),))
            os.lseek(descriptor, 0, os.SEEK_SET)
            return self._running().examine(descriptor, self._task(filename, length))
        finally:
            os.close(descriptor)

    def _task(self, filename: str, length: int) -> bytes:
        limits = Limits(length, self.upload.max_unpacked_bytes, self.upload.max_members)
        task = {
            "filename": filename,
            "limits": asdict(limits),
            "cpu_seconds": self.scan.cpu_seconds,
            "memory_bytes": self.scan.memory_bytes,
        }
        return json.dumps(task).encode()

    def _running(self) -> Nursery:
        if self.nursery is not None and self.nursery.scans >= SCANS_PER_NURSERY:
            self.close()
        if self.nursery is None:
            self.nursery = Nursery(self.command, self.scan.wall_seconds)
        return self.nursery


class Nursery:
    """A running nursery, as its worker sees it."""

    def __init__(self, command: Sequence[str], wall_seconds: float, *more: str) -> None:
        self.scans = 0
        self._patience = wall_seconds + GRACE_SECONDS
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *command, str(theirs.fileno()), str(wall_seconds), *more],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"LANG": "C.UTF-8"},
                cwd="/",
            )

    def close(self) -> None:
        """Kill it. The kernel kills its child with it (confine.py)."""
        self._socket.close()
        self.process.kill()
        self.process.wait()

    def examine(self, artifact: int, task: bytes) -> Examined:
        """One child's examination of what the descriptor `artifact` reads. NurseryEndedError: there is no answer."""
        return _examined(*self.ask(artifact, task))

    def ask(self, artifact: int, task: bytes) -> tuple[bytes, str | None]:
        """What a child says of it, and how it ended, where that was not well. NurseryEndedError as above."""
        self.scans += 1
        deadline = time.monotonic() + self._patience
        answer = self._send(artifact, task)
        try:
            said = self._listen(answer, deadline)
            if len(said) > ANSWER_MAX_BYTES:
                self._socket.send(KILL)
            status, late = self._ending(deadline)
        except OSError as error:
            raise NurseryEndedError(f"{type(error).__name__}: {error}") from error
        finally:
            os.close(answer)
        return said, _problem(said, status, late)

    def _send(self, artifact: int, task: bytes) -> int:
        """Hand over the artifact; returns where the child's answer is read."""
        answer, theirs = os.pipe()
        read, write = os.pipe()
        try:
            os.write(write, task)  # fits in the pipe: a file's name and some numbers
            handed = [read, theirs, artifact]
            assert len(handed) == DESCRIPTORS
            socket.send_fds(self._socket, [GO], handed)
        except OSError as error:
            os.close(answer)
            raise NurseryEndedError(f"{type(error).__name__}: {error}") from error
        finally:
            for descriptor in (theirs, read, write):
                os.close(descriptor)
        return answer

    def _listen(self, answer: int, deadline: float) -> bytes:
        """What the child says until it closes its output, or too much."""
        said = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(answer, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ)
            while len(said) <= ANSWER_MAX_BYTES:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if not ready:
                    raise NurseryEndedError("it neither ended the child nor said so")
                if answer not in ready:  # the child has ended and all it said is read, or the nursery has
                    break
                chunk = os.read(answer, 65536)
                if not chunk:
                    break
                said += chunk
        return bytes(said)

    def _ending(self, deadline: float) -> tuple[int, bool]:
        """How the child ended: its status, and whether its time was over."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        said = self._socket.recv(ENDING.size)
        if len(said) != ENDING.size:
            raise NurseryEndedError(f"its status is {self.process.poll()}")
        status, late = ENDING.unpack(said)
        return status, late


def _problem(said: bytes, status: int, late: bool) -> str | None:
    if len(said) > ANSWER_MAX_BYTES:
        return f"the examination answered more than {ANSWER_MAX_BYTES} bytes"
    if late:
        return "the examination took longer than its wall time"
    return _ending(status) if status else None


def _examined(said: bytes, problem: str | None) -> Examined:
    if problem is not None:
        return Examined((failed(problem),))
    try:
        answer: Any = json.loads(said)
        if type(answer) is not dict or answer.keys() != {"findings", "protections"}:
            raise MalformedError("the answer must have exactly findings and protections")
        protections = answer["protections"]
        if type(protections) is not list or not all(type(name) is str for name in protections):
            raise MalformedError("protections must be names")
        return Examined(tuple(parse_findings(answer["findings"])), tuple(protections))
    except (ValueError, RecursionError, MalformedError) as error:
        return Examined((failed(f"the examination's answer was not understood: {type(error).__name__}"),))


def _ending(code: int) -> str:
    return (
        f"the examination ended by signal {-code}"
        if code < 0
        else f"the examination ended with status {code}"
    )


def _digest(descriptor: int) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    while chunk := os.read(descriptor, HASH_CHUNK):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length
