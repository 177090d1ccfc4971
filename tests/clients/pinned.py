"""Upload clients as people have them: each in an environment of its own, of a pinned version, never of this one.

    executable("poetry")     -> .work/clients/poetry-2.5.1/bin/poetry, made on first use

`COUNTERMARK_CLIENTS=latest` takes the newest versions instead (scripts/latest-clients.sh).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
PINNED = dict(line.split("==") for line in (Path(__file__).parent / "versions.txt").read_text().split())
LATEST = os.environ.get("COUNTERMARK_CLIENTS") == "latest"
# What a client needs beside itself: pdm does not start with a newer one of either.
BESIDE = {"pdm": ("hishel<2", "unearth<0.19")}
CLIENTS = ("twine", "uv", "poetry", "hatch", "flit")


@cache
def executable(client: str) -> Path:
    """The client's program; its environment is made when there is none, by one process at a time."""
    wanted = client if LATEST else f"{client}=={PINNED[client]}"
    folder = ROOT / ".work" / "clients" / f"{client}-{'latest' if LATEST else PINNED[client]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    program = folder / "bin" / client
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists() or LATEST:
            _uv("venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(folder))
            _uv(
                "pip",
                "install",
                "--quiet",
                "--python",
                str(folder / "bin/python"),
                wanted,
                *BESIDE.get(client, ()),
            )
    return program


@cache
def version(client: str) -> str:
    """What the program says of itself."""
    done = subprocess.run(
        [executable(client), "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split("\n", 1)[0].strip()


def _uv(*arguments: str) -> None:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
