"""The parent's side of the sandbox: start a child for one artifact, listen for a bounded time, believe little.

The child gets one descriptor, opened read-only, and nothing else of ours: no environment, no input, no key. It is
killed by its process id when its time is over or it says too much. Whatever goes wrong becomes the finding
`analyzer-failed`, with the reason, and so a person's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from countermark.errors import MalformedError
from countermark_server.archive.members import Limits
from countermark_server.scan.findings import Finding, failed, parse_findings
from countermark_server.settings import Scan, Upload

CHILD = ("-I", "-m", "countermark_server.scan.child")
ANSWER_MAX_BYTES = 1024 * 1024
HASH_CHUNK = 1024 * 1024
NICE = 10  # an examination takes what uploads and the log leave: nobody waits for it in a request


@dataclass(frozen=True)
class Examined:
    """What came back: findings, and which protections the child says it had."""

    findings: tuple[Finding, ...]
    protections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sandbox:
    """How children are started and how long they may live. `command` stands behind the interpreter."""

    scan: Scan
    upload: Upload
    command: Sequence[str] = CHILD

    def examine(self, path: Path, filename: str, sha256: str) -> Examined:
        """Examine the artifact at `path`, whose bytes must be those that were logged."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return Examined((failed(f"the artifact cannot be read: {error.strerror}"),))
        try:
            found, length = _digest(descriptor)
            if found != sha256:
                return Examined((failed(f"the stored bytes have SHA-256 {found}, not the logged {sha256}"),))
            os.lseek(descriptor, 0, os.SEEK_SET)
            return self._ask(descriptor, filename, length)
        finally:
            os.close(descriptor)

    def _ask(self, descriptor: int, filename: str, length: int) -> Examined:
        limits = Limits(length, self.upload.max_unpacked_bytes, self.upload.max_members)
        task = {
            "fd": descriptor,
            "filename": filename,
            "limits": asdict(limits),
            "cpu_seconds": self.scan.cpu_seconds,
            "memory_bytes": self.scan.memory_bytes,
        }
        child = subprocess.Popen(
            [sys.executable, *self.command, json.dumps(task)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env={"LANG": "C.UTF-8"},
            cwd="/",
        )
        with suppress(OSError):  # it may have ended already, and a slow machine is no reason to fail
            os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
        try:
            said, problem = _listen(child, time.monotonic() + self.scan.wall_seconds)
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
        if problem is None and child.returncode != 0:
            problem = _ending(child.returncode)
        return _examined(said, problem)


def _listen(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, str | None]:
    """What the child says until it closes its output; and why we stopped listening, if it was our decision."""
    assert child.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return bytes(said), "the examination took longer than its wall time"
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                break
            said += chunk
            if len(said) > ANSWER_MAX_BYTES:
                return bytes(said), f"the examination answered more than {ANSWER_MAX_BYTES} bytes"
    try:
        child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return bytes(said), "the examination went on after its answer"
    return bytes(said), None


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
