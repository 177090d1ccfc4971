"""Where servers that tests start keep their files: in memory, where the machine has room for that.

What is killed here is a process, never the machine, so a file in memory survives what a file on a disk survives;
and a database of tests syncs as often as any other, which takes minutes on a disk that others use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes free; containers often have 64 MiB


def folder(prefix: str) -> Path:
    """A new folder of this process's own."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    return Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else None))
