"""strace, as the hand that breaks a system call, and as the eye that saw them all.

    4711 fsync(7</data/staging/.new-k2j>)  = -1 EIO (Input/output error) (INJECTED)

A *call* is one line of a trace: what was asked of the kernel, about what (the class of its path or its socket), in
which phase of the subject, and as the how-manieth of its name in its thread, which is how strace is told to break it.
A *site* is what stays the same when names, sizes and repetitions do not: phase, name, class, and what came before.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = ("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "fchmod")
NAMES = (
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
)
READS = ("read", "pread64")
NETWORK = ("connect", "sendto", "sendmsg", "writev", "recvfrom", "recvmsg")
TRACED = (*WRITES, *NAMES, *READS, *NETWORK, "openat", "readlink")

KILL, EIO, ENOSPC = "kill", "EIO", "ENOSPC"
# Not "reset" while sending: an HTTP client then waits for an answer that was sent before the reset.
_BROKEN = {"connect": "ECONNREFUSED", "recvfrom": "ECONNRESET", "recvmsg": "ECONNRESET", "read": "ECONNRESET"}
_CLASSES = (
    ("staging", re.compile(r"/staging(/|[>\"])")),
    ("entry bundle", re.compile(r"/public/log/tile/entries")),
    ("tile", re.compile(r"/public/log/tile")),
    ("checkpoint", re.compile(r"/public/log(/|[>\"])")),
    ("database log", re.compile(r"/registry\.sqlite-wal")),
    ("database index", re.compile(r"/registry\.sqlite-shm")),
    ("database", re.compile(r"/registry\.sqlite|PGSQL|UNIX-STREAM")),
)
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_CREATES = re.compile(r"O_CREAT|O_TRUNC")


@dataclass(frozen=True)
class Call:
    """One system call of a trace."""

    thread: int
    name: str
    nth: int  # of this name in this thread, from 1
    about: str  # class of its path or socket
    phase: str
    before: str  # name and class of the call before it that was about something else
    text: str

    @property
    def site(self) -> tuple[str, str, str, str]:
        return self.phase, self.name, self.about, self.before

    @property
    def faults(self) -> tuple[str, ...]:
        """What can go wrong with it. A kill changes nothing unless the call changes something."""
        if self.name == "sendto" and self.about == "database":
            return (
                KILL,
            )  # libpq waits for ever after a failed send whose socket lives; resets are read, below
        if self.name in NETWORK:
            return (KILL, _BROKEN.get(self.name, "EHOSTUNREACH"))
        if self.name in READS:
            return (EIO,)
        if self.name == "openat":
            return (KILL, EIO, ENOSPC) if _CREATES.search(self.text) else (EIO,)
        if self.name in ("unlink", "unlinkat", "rmdir", "fchmod"):
            return (KILL, EIO)
        return (KILL, EIO, ENOSPC)


def attach(thread: int, out: Path, *, inject: tuple[str, str, int] | None = None) -> subprocess.Popen[str]:
    """strace on a waiting process and all its threads; returns when it is attached.

    `inject`: (name, fault, nth), into this one thread: strace counts calls in each thread by itself.
    """
    command = [
        "strace",
        *(["-f"] if inject is None else []),
        "-yy",
        "-s",
        "0",
        "-o",
        str(out),
        "-p",
        str(thread),
    ]
    if inject is None:
        command += ["-e", f"trace={','.join(TRACED)}"]
    else:
        name, fault, nth = inject
        broken = "signal=SIGKILL" if fault == KILL else f"error={fault}"
        command += ["-e", f"trace={name},readlink", "-e", f"inject={name}:{broken}:when={nth}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, f"strace cannot attach: {said}{tracer.stderr.read()}"
    return tracer


def calls(lines: Iterable[str], ports: dict[int, str]) -> Iterator[Call]:
    """The calls of a trace in their order. `ports`: who listens where on this machine."""
    counts: Counter[tuple[int, str]] = Counter()
    phase, before, last = "", "", ""
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, name, rest = int(match[1]), match[2], match[3]
        if name == "readlink":
            phase = _marked(rest) or phase
            continue
        counts[thread, name] += 1
        about = _about(rest, ports)
        here = f"{name} {about}"
        if here != last:
            before, last = last, here
        yield Call(thread, name, counts[thread, name], about, phase, before, line.rstrip())


def injected(out: Path, ports: dict[int, str]) -> tuple[str | None, str]:
    """What the broken call was about, or None when none was broken; and in which phase it broke.

    Not always that of the recorded call: an answer may come in more pieces than it did then. "" in a thread that
    makes no marks.
    """
    phase = ""
    for line in out.read_text("utf-8", "replace").splitlines():
        phase = _marked(line) or phase
        if "(INJECTED)" in line:
            return _about(line, ports), phase
        if "killed by SIGKILL" in line:
            return "killed", phase
    return None, phase


def _marked(text: str) -> str:
    found = re.search(r'"?/mark/(\w+)', text)
    return found[1] if found else ""


def _about(text: str, ports: dict[int, str]) -> str:
    for port, who in ports.items():
        if re.search(rf"(->127\.0\.0\.1:{port}\b|htons\({port}\))", text):
            return who
    for name, pattern in _CLASSES:
        if pattern.search(text):
            return name
    return "other"


def unsynced(trace: list[Call]) -> list[str]:
    """What a power failure could take: names given to bytes, or folders changed, without a sync in time.

    The order that holds: bytes, sync, name, sync of the folder, and all of that before the next step of the commit
    (a write to the database's log, a question to the witness, the subject's end).
    """
    dirty: set[str] = set()  # paths with bytes that are not on the disk
    names: set[str] = set()  # folders with names that are not on the disk
    found: list[str] = []
    for call in trace:
        path = re.search(r"\d+<([^<>]+)>", call.text)
        if call.about in ("staging", "tile", "entry bundle", "checkpoint"):
            quoted = re.findall(r'"([^"]+)"', call.text)
            if call.name in ("write", "pwrite64") and path:
                dirty.add(path[1])
            elif call.name in ("fsync", "fdatasync") and path:
                dirty.discard(path[1])
                names.discard(path[1])
            elif call.name in ("link", "rename"):
                if quoted[0] in dirty:
                    found.append(f"{quoted[1]} got its name before its bytes were on the disk")
                names.add(str(Path(quoted[1]).parent))
        elif call.about == "witness" or (call.about == "database log" and call.name == "pwrite64"):
            found += [f"a name in {folder} is not on the disk when {call.text} begins" for folder in names]
            names.clear()
    return found
