"""An environment of its own for bandersnatch 8: pinned versions on Python 3.12 or newer.

    bandersnatch()     -> .work/clients/bandersnatch-<digest of the pins>/bin/bandersnatch, made on first use

Python 3.11 installs bandersnatch 6 without a word, which speaks another protocol; so a newer interpreter is looked
for: this one, `COUNTERMARK_PYTHON_312`, the PATH, /usr/bin and pyenv's versions. None: the tests fail and say so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
PINS = Path(__file__).with_name("requirements.txt")
LEAST = (3, 12)
_ASKED = "import sys; print('%d %d' % sys.version_info[:2])"


@cache
def newer_python() -> Path:
    """An interpreter that bandersnatch 8 runs on."""
    tried = []
    for candidate in _candidates():
        done = subprocess.run(
            [candidate, "-c", _ASKED], capture_output=True, text=True, check=False, timeout=30
        )
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= LEAST:
            return Path(candidate)
        tried.append(candidate)
    raise AssertionError(
        f"bandersnatch 8 needs Python {'.'.join(map(str, LEAST))} or newer; none of these is: {', '.join(tried)}; "
        "install one, or name one in COUNTERMARK_PYTHON_312"
    )


@cache
def bandersnatch() -> Path:
    """The program; its environment is made when there is none, by one process at a time."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".work" / "clients" / f"bandersnatch-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder / "ready"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _uv("venv", "--quiet", "--clear", "--no-project", "--python", str(newer_python()), str(folder))
            _uv(
                "pip",
                "install",
                "--quiet",
                "--python",
                str(folder / "bin/python"),
                "--no-deps",
                "-r",
                str(PINS),
            )
            done.touch()
    return folder / "bin" / "bandersnatch"


def _candidates() -> Iterator[str]:
    if named := os.environ.get("COUNTERMARK_PYTHON_312"):
        yield named
    yield sys.executable
    names = [f"python3.{minor}" for minor in (12, 13, 14)]
    yield from filter(None, map(shutil.which, names))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for name in names:
        yield from map(str, Path("/usr/bin").glob(name))
        yield from map(str, sorted(pyenv.glob(f"{name.removeprefix('python')}.*/bin/python")))


def _uv(*arguments: str) -> None:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
