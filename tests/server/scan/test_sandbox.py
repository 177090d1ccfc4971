"""The sandbox: limits hold, doors are shut, and nothing a child says is believed beyond its form."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from countermark.errors import MalformedError
from countermark_server.scan.confine import ALL
from countermark_server.scan.findings import FINDINGS_MAX, parse_findings
from countermark_server.scan.sandbox import Examined, Sandbox
from countermark_server.settings import Scan, Upload
from tests.archives import sdist, wheel

GOOD = {
    "analyzer": "a",
    "rule": "r",
    "tier": "note",
    "surface": "code",
    "file": "f.py",
    "line": 1,
    "excerpt": "x",
}


def examine(tmp_path: Path, code: str, **scan: Any) -> Examined:
    """Examine a wheel with a child that runs this code instead of ours."""
    path = tmp_path / "a.whl"
    path.write_bytes(wheel())
    sandbox = Sandbox(Scan(**scan), Upload(), ("-I", "-c", code))
    return sandbox.examine(path, "demo-1.0-py3-none-any.whl", hashlib.sha256(wheel()).hexdigest())


def is_failure(examined: Examined, reason: str) -> None:
    (finding,) = examined.findings
    assert (finding.rule, finding.tier) == ("analyzer-failed", "queue")
    assert reason in finding.excerpt, finding.excerpt


def test_an_honest_child_is_confined_by_all_that_this_machine_can_give(tmp_path: Path) -> None:
    """No findings for an honest wheel, and every protection in force."""
    path = tmp_path / "a.whl"
    path.write_bytes(wheel())
    name = "demo-1.0-py3-none-any.whl"
    examined = Sandbox(Scan(), Upload()).examine(path, name, hashlib.sha256(wheel()).hexdigest())
    assert examined.findings == ()
    assert "limits" in examined.protections and set(examined.protections) <= set(ALL)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise SystemExit(3)", "status 3"),
        ("pass", "not understood"),
        ("print('{}')", "not understood"),
        ("print('[' * 100000)", "not understood"),
        ("print('not json')", "not understood"),
        ('print(\'{"findings": [1], "protections": []}\')', "not understood"),
        ('print(\'{"findings": [], "protections": [1]}\')', "not understood"),
        ('print(\'{"findings": [], "protections": [], "more": 1}\')', "not understood"),
        ("print('x' * 2_000_000)", "more than"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "more than"),
    ],
)
def test_a_child_that_crashes_lies_or_chatters_is_a_failure(tmp_path: Path, code: str, reason: str) -> None:
    """Whatever it says, it is `analyzer-failed` with the reason; never silence, never clean."""
    is_failure(examine(tmp_path, code), reason)


def test_time_is_bounded_and_the_child_is_gone(tmp_path: Path) -> None:
    """A child that sleeps is killed at its wall time, also when it has closed its output."""
    started = time.monotonic()
    is_failure(examine(tmp_path, "import time; time.sleep(60)", wall_seconds=1.0), "wall time")
    closing = "import os, time; os.close(1); time.sleep(60)"
    is_failure(examine(tmp_path, closing, wall_seconds=1.0), "went on")
    assert time.monotonic() - started < 20


CONFINED = """
import sys, os, socket, subprocess, ctypes, mmap
from countermark_server.scan.confine import confine
held = confine(cpu_seconds=1, memory_bytes=256 * 1024 * 1024)
{attempt}
"""


def confined(attempt: str) -> subprocess.CompletedProcess[bytes]:
    code = CONFINED.format(attempt=attempt)
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, timeout=30, cwd="/", check=False
    )


def test_a_confined_process_dies_with_its_parent() -> None:
    """Also where it had been root: a change of user makes the kernel forget, so it is asked for afterwards."""
    done = confined("""
signal = ctypes.c_int()
assert ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0) == 0  # PR_GET_PDEATHSIG
sys.stdout.write(f"{'no-gain' in held} {signal.value}")
""")
    assert (done.returncode, done.stdout) == (0, b"True 9"), done.stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socketpair()",
        "open('/etc/hostname')",
        "open('/tmp/countermark-canary', 'w')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.unlink('/tmp/countermark-nothing')",
        "os.mkdir('/tmp/countermark-canary')",
        "os.setuid(0) if os.getuid() else open('/etc/shadow')",
    ],
)
def test_a_confined_process_is_refused(attempt: str) -> None:
    """Sockets, files, processes, signals: a canary that tries each one fails with an OSError."""
    done = confined(f"""
assert 'no-calls' in held, held
try:
    {attempt}
except OSError as error:
    sys.stdout.write('refused')
    sys.stdout.flush()
    os._exit(0)
os._exit(9)
""")
    assert (done.returncode, done.stdout) == (0, b"refused"), done.stderr
    assert not Path("/tmp/countermark-canary").exists()


def test_memory_and_cpu_are_bounded() -> None:
    """Too much memory is a MemoryError; too much CPU ends the process."""
    greedy = confined("try:\n    bytes(400 * 1024 * 1024)\nexcept MemoryError:\n    os._exit(7)")
    assert greedy.returncode == 7, greedy.stderr
    assert confined("while True: pass").returncode < 0


def test_a_bomb_and_a_deep_nest_stay_within_the_limits(tmp_path: Path) -> None:
    """Constructed sources cost bounded time and end in an answer or a failure, never in silence."""
    sources = {
        "blanks.py": b" " * 5_000_000,
        "line.py": b"x = '" + b"a" * 5_000_000 + b"'",
        "nested.py": b"(" * 100_000,
        "minus.py": b"x = " + b"-" * 200_000 + b"1",
        "dots.py": b"x = a" + b".a" * 100_000,
        "nul.py": b"x = 1\0",
        "cookie.py": b"# coding: no-such-codec\nx = 1\n",
        "latin.py": b"# coding: latin-1\nx = '\xe9'\n",
        "bytes.py": bytes(range(256)) * 100,
        "many.py": b"exec(bytes.fromhex('00'))\n" * 20_000,
    }
    for name, text in sources.items():
        data = sdist(files={name: text})
        path = tmp_path / "x.tar.gz"
        path.write_bytes(data)
        started = time.monotonic()
        examined = Sandbox(Scan(), Upload()).examine(
            path, "demo-1.0.tar.gz", hashlib.sha256(data).hexdigest()
        )
        assert time.monotonic() - started < 25, name
        assert len(examined.findings) <= FINDINGS_MAX


@pytest.mark.parametrize(
    "change",
    [
        {"tier": "clean"},
        {"surface": "elsewhere"},
        {"line": -1},
        {"line": True},
        {"line": "1"},
        {"file": "a\nb"},
        {"file": "x" * 5000},
        {"excerpt": "x" * 300},
        {"excerpt": "\x1b[31m"},
        {"rule": None},
        {"more": 1},
    ],
)
def test_findings_of_another_shape_are_refused(change: dict[str, Any]) -> None:
    """The parent's schema is closed: a hostile child cannot smuggle markup or escapes past it."""
    assert parse_findings([GOOD])[0].rule == "r"
    with pytest.raises(MalformedError):
        parse_findings([{**GOOD, **change}])
    with pytest.raises(MalformedError):
        parse_findings([GOOD] * (FINDINGS_MAX + 1))
    with pytest.raises(MalformedError):
        parse_findings(json.loads("{}"))
