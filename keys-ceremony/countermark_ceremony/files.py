"""Files of a ceremony: read with a bound, written once, never overwritten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from countermark.errors import UsageError

FOLDER_MAX_FILES = 10_000  # nine files a ceremony, for centuries
FILE_MAX_BYTES = 1024 * 1024  # the largest, a request, is some 20 kB


def read(path: Path) -> bytes:
    """The file's bytes, as the person at the keyboard named it."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f'cannot read "{path}": {error.strerror}') from error
    if len(raw) > FILE_MAX_BYTES:
        raise UsageError(f'"{path}" is longer than {FILE_MAX_BYTES} bytes, no file of a ceremony is')
    return raw


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name in it; without the key files of a trial."""
    if not folder.is_dir():
        raise UsageError(f'"{folder}" is not a folder')
    found = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    if len(found) > FOLDER_MAX_FILES:
        raise UsageError(f'"{folder}" holds {len(found)} files, a ceremony at most {FOLDER_MAX_FILES}')
    return {name: read(path) for name, path in found.items() if not name.startswith("trial/")}


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that does not exist yet, durably."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(
            f'output "{path}" already exists', hint="a ceremony never overwrites; choose another name"
        ) from None
    except OSError as error:
        raise UsageError(f'cannot write "{path}": {error.strerror}') from error


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder as a whole: it appears under its name when everything is in it, or not at all."""
    check_absent(folder)
    beside = folder.with_name(f"{folder.name}.incomplete")
    if beside.exists():
        raise UsageError(
            f'"{beside}" is what an interrupted command left',
            hint="nothing of it counts; look at it, remove it, and try again",
        )
    for name, content in files.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        write_new(beside / name, content, mode=0o600 if "/keys/" in f"/{name}" else 0o644)
    # If we stop here, an `.incomplete` folder says so; nothing has the final name.
    beside.rename(folder)


def check_absent(path: Path) -> None:
    """Refuse an output that exists, before any work is done for it."""
    if path.exists():
        raise UsageError(
            f'output "{path}" already exists', hint="a ceremony never overwrites; choose a new one"
        )
