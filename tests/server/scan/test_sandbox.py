"""The sandbox: limits hold, doors are shut, and nothing a child says is believed beyond its form."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from countermark.errors import MalformedError
from countermark_server.scan import sandbox as sandbox_module
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


WHEEL, NAME = wheel(), "demo-1.0-py3-none-any.whl"


def nursery(code: str) -> tuple[str, ...]:
    """The command of a nursery whose children run this code instead of ours."""
    program = (
        "import json, os, resource, socket, sys, time\n"
        "from countermark_server.scan.confine import confine\n"
        "from countermark_server.scan.nursery import main\n"
        "born = []\n"
        f"def examine():\n{textwrap.indent(code, '    ')}\n    return 0\n"
        "raise SystemExit(main(sys.argv[1:], examine))\n"
    )
    return ("-I", "-c", program)


Ask = Callable[[Sandbox], Examined]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Have the sandbox examine an honest wheel."""
    path = tmp_path / "a.whl"
    path.write_bytes(WHEEL)
    return lambda sandbox: sandbox.examine(path, NAME, hashlib.sha256(WHEEL).hexdigest())


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The real one."""
    with Sandbox(Scan(), Upload()) as made:
        yield made


def examine(ask: Ask, code: str, **scan: Any) -> Examined:
    """Examine a wheel with a child that runs this code instead of ours."""
    with Sandbox(Scan(**scan), Upload(), nursery(code)) as made:
        return ask(made)


def told(examined: Examined) -> list[str]:
    """What a child of a test's own says about itself, in the place of its protections."""
    assert examined.findings == (), examined.findings
    return list(examined.protections)


SAYS = 'print(json.dumps({"findings": [], "protections": [str(said) for said in saying]}))'


def is_failure(examined: Examined, reason: str) -> None:
    (finding,) = examined.findings
    assert (finding.rule, finding.tier) == ("analyzer-failed", "queue")
    assert reason in finding.excerpt, finding.excerpt


def is_gone(pid: int) -> bool:
    """Whether there is no such process, waiting a little for the kernel to end it."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # ended; waiting for init
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_an_honest_child_is_confined_by_all_that_this_machine_can_give(ask: Ask, sandbox: Sandbox) -> None:
    """No findings for an honest wheel, and every protection in force."""
    examined = ask(sandbox)
    assert examined.findings == ()
    assert "limits" in examined.protections and set(examined.protections) <= set(ALL)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.abort()", "signal 6"),
        ("return 3", "status 3"),
        ("raise ValueError", "status 1"),
        ("raise SystemExit(0)", "status 1"),
        ("pass", "not understood"),
        ("print('{}')", "not understood"),
        ("print('[' * 100000)", "not understood"),
        ("print('not json')", "not understood"),
        ('print(\'{"findings": [1], "protections": []}\')', "not understood"),
        ('print(\'{"findings": [], "protections": [1]}\')', "not understood"),
        ('print(\'{"findings": [], "protections": [], "more": 1}\')', "not understood"),
        ("print('x' * 2_000_000)", "more than"),
        ("while True: sys.stdout.write('x' * 65536)", "more than"),
        ("bytes(resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)) or 2**29)", "status 1"),
        ("confine(cpu_seconds=1, memory_bytes=2**29)\nwhile True: pass", "signal"),
        ("confine(cpu_seconds=1, memory_bytes=2**29)\nwhile True: os.fork()", "status 1"),
        (
            "confine(cpu_seconds=1, memory_bytes=2**29)\nkept = []\nwhile True: kept.append(bytes(2**20))",
            "status 1",
        ),
    ],
)
def test_a_child_that_crashes_lies_or_chatters_is_a_failure(ask: Ask, code: str, reason: str) -> None:
    """Whatever it says, it is `analyzer-failed` with the reason; never silence, never clean."""
    is_failure(examine(ask, code), reason)


@pytest.mark.parametrize("first", ["pass", "os.close(1)"])
def test_time_is_bounded_and_the_child_is_gone(ask: Ask, tmp_path: Path, first: str) -> None:
    """A child that sleeps is killed at its wall time, also when it has closed its output."""
    note = tmp_path / "pid"
    started = time.monotonic()
    code = f"open({str(note)!r}, 'w').write(str(os.getpid()))\n{first}\ntime.sleep(60)"
    is_failure(examine(ask, code, wall_seconds=1.0), "wall time")
    assert is_gone(int(note.read_text()))
    assert time.monotonic() - started < 20


def test_a_child_has_its_own_artifact_and_no_descriptor_else(ask: Ask) -> None:
    """Neither the nursery's socket nor anything of an earlier examination; and the nursery keeps nothing of it."""
    code = f"""
saying = []
for number in range(1024):
    try:
        saying.append((number, os.readlink(f"/proc/self/fd/{{number}}").partition(":")[0]))
    except OSError:
        pass
{SAYS}"""
    with Sandbox(Scan(), Upload(), nursery(code)) as made:
        first = told(ask(made))
        assert made.nursery is not None
        kept = _descriptors(made.nursery.process.pid)
        for _ in range(5):
            assert told(ask(made)) == first
        assert _descriptors(made.nursery.process.pid) == kept
    assert [item.partition(",")[0] for item in first] == ["(0", "(1", "(2", "(3"]
    assert "/dev/null" in first[2] and "a.whl" in first[3]


def _descriptors(pid: int) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def test_a_child_finds_nothing_of_an_earlier_one(ask: Ask) -> None:
    """Forked from the same pristine nursery: another process each time, with no trace of the last, and nice."""
    code = f"""
saying = [os.getpid(), len(born), os.environ.get('HOME'), os.getpriority(os.PRIO_PROCESS, 0)]
born.append(1)
{SAYS}"""
    with Sandbox(Scan(), Upload(), nursery(code)) as made:
        answers = [told(ask(made)) for _ in range(3)]
    assert len({pid for pid, *_ in answers}) == 3
    assert {tuple(rest) for _, *rest in answers} == {
        ("0", "None", str(min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)))
    }


def test_the_nursery_holds_no_byte_of_a_task_or_an_answer(ask: Ask, sandbox: Sandbox) -> None:
    """What a child were to find in the memory it was forked with: no name and no finding of an earlier artifact."""
    ask(sandbox)
    assert sandbox.nursery is not None
    assert not _in_memory(sandbox.nursery.process.pid, NAME.encode())
    assert _in_memory(sandbox.nursery.process.pid, b"analyzer-failed"), "the search finds nothing at all"


def _in_memory(pid: int, wanted: bytes) -> bool:
    found = False
    process = Path(f"/proc/{pid}")
    with (process / "mem").open("rb", 0) as memory:
        for line in (process / "maps").read_text("ascii").splitlines():
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                memory.seek(begin)
                found = found or wanted in memory.read(end - begin)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_nursery_that_was_killed_or_hangs_is_replaced(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Between two examinations: the next one is by a child of another."""
    monkeypatch.setattr(sandbox_module, "GRACE_SECONDS", 2.0)
    with Sandbox(Scan(wall_seconds=2.0), Upload()) as made:
        ask(made)
        assert made.nursery is not None
        first = made.nursery.process.pid
        os.kill(first, number)
        assert ask(made).findings == ()
        assert made.nursery is not None and made.nursery.process.pid != first


SLEEPS_IN_THE_FIRST = """
try:
    file = open({note!r}, "x")
except FileExistsError:
    saying = ["second"]
    {says}
    return 0
file.write(str(os.getpid()))
file.close()
confine(cpu_seconds=9, memory_bytes=2**29)
time.sleep(60)"""


def confined_child(note: Path) -> int:
    """The pid that the first child left, once it is confined."""
    for _ in range(1000):
        with suppress(FileNotFoundError):
            pid = note.read_text()
            if pid and "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text():
                return int(pid)
        time.sleep(0.01)
    raise AssertionError("no child was confined")


def test_a_nursery_killed_in_the_middle_loses_no_examination(ask: Ask, tmp_path: Path) -> None:
    """The artifact is examined again by a child of the next nursery; the kernel ends the first child."""
    note, children = tmp_path / "pid", []
    code = SLEEPS_IN_THE_FIRST.format(note=str(note), says=SAYS)
    with Sandbox(Scan(), Upload(), nursery(code)) as made:

        def kill() -> None:
            children.append(confined_child(note))
            assert made.nursery is not None
            made.nursery.process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        assert told(ask(made)) == ["second"]
        thread.join()
    assert is_gone(children[0])


def test_nurseries_that_always_end_are_a_failure(ask: Ask) -> None:
    """Two for one artifact are enough: a finding, not a loop, and not after the wall time."""
    started = time.monotonic()
    is_failure(examine(ask, "os.kill(os.getppid(), 9)\ntime.sleep(15)"), "ended 2 times")
    assert time.monotonic() - started < 10
    with Sandbox(Scan(), Upload(), ("-I", "-c", "raise SystemExit(9)")) as made:
        is_failure(ask(made), "ended 2 times")


def test_nursery_and_child_end_with_their_worker(tmp_path: Path) -> None:
    """A worker that is killed leaves neither behind."""
    note = tmp_path / "pid"
    code = SLEEPS_IN_THE_FIRST.format(note=str(note), says=SAYS)
    worker = subprocess.Popen([
        sys.executable, "-c",
        "import hashlib, pathlib, sys\n"
        "from countermark_server.scan.sandbox import Sandbox\n"
        "from countermark_server.settings import Scan, Upload\n"
        "sandbox = Sandbox(Scan(), Upload(), tuple(sys.argv[1:]))\n"
        "sandbox.examine(pathlib.Path('/dev/null'), 'a-1.tar.gz', hashlib.sha256(b'').hexdigest())\n",
        *nursery(code),
    ])  # fmt: skip
    child = confined_child(note)
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    worker.kill()
    worker.wait()
    assert is_gone(child) and is_gone(parent)


def test_a_stop_of_the_service_fails_no_examination(ask: Ask) -> None:
    """A service manager signals every process; the worker alone decides when the others end."""
    code = f"""
for pid in (os.getpid(), os.getppid()):
    os.kill(pid, 15)
    os.kill(pid, 2)
saying = ['here']
{SAYS}"""
    assert told(examine(ask, code)) == ["here"]


def test_a_nursery_is_not_for_ever(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of one nursery share hash seed and addresses, so it is replaced after a while."""
    monkeypatch.setattr(sandbox_module, "SCANS_PER_NURSERY", 2)
    with Sandbox(Scan(), Upload(), nursery(f"saying = [os.getppid()]\n{SAYS}")) as made:
        parents = [told(ask(made))[0] for _ in range(4)]
    assert parents[0] == parents[1] != parents[2] == parents[3]


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


def test_a_bomb_and_a_deep_nest_stay_within_the_limits(tmp_path: Path, sandbox: Sandbox) -> None:
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
        examined = sandbox.examine(path, "demo-1.0.tar.gz", hashlib.sha256(data).hexdigest())
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
