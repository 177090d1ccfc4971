"""Where servers that tests start keep their files: in memory, where the machine has room for that.

What is killed here is a process, never the machine, so a file in memory survives what a file on a disk survives;
and a database of tests syncs as often as any other, which takes minutes on a disk that others use.

Nobody removes the files of a run of tests that was killed, and files in memory take memory from all runs after it:
whoever makes a folder here removes first those whose owner is gone. An owner holds its folder's lock while it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 6 << 30  # bytes free, of the file system and of the memory behind it; containers often have 64 MiB
_PREFIX = "countermark-tests-"
_LOCK = ".lock"
_HELD: dict[Path, int] = {}  # the open locks of our folders


def folder(name: str) -> Path:
    """A new folder of this process's own, until `remove`."""
    place = MEMORY if _room() >= ROOM else Path(tempfile.gettempdir())
    for beside in {MEMORY, place}:
        sweep(beside)
    # The lock first: whoever sweeps between these lines finds a lock without a folder.
    lock, path = tempfile.mkstemp(prefix=f"{_PREFIX}{name}-", suffix=_LOCK, dir=place)
    fcntl.flock(lock, fcntl.LOCK_EX)
    made = Path(path.removesuffix(_LOCK))
    made.mkdir(0o700)
    _HELD[made] = lock
    return made


def remove(made: Path) -> None:
    """Remove what `folder` made; nothing, the second time."""
    if made not in _HELD:
        return
    shutil.rmtree(made, ignore_errors=True)
    Path(f"{made}{_LOCK}").unlink(missing_ok=True)
    os.close(_HELD.pop(made))


def sweep(place: Path) -> list[Path]:
    """Remove the folders in `place` whose owner is gone; returns them."""
    gone = []
    for path in place.glob(f"{_PREFIX}*{_LOCK}"):
        with contextlib.suppress(OSError):  # another sweeper was faster, or it is locked
            lock = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone.append(Path(str(path).removesuffix(_LOCK)))
                shutil.rmtree(gone[-1], ignore_errors=True)
                path.unlink()
            finally:
                os.close(lock)
    return gone


def _room() -> int:
    """Bytes that files in memory may still take."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return 0
    found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return min(shutil.disk_usage(MEMORY).free, int(found[1]) * 1024 if found else 0)
