"""As much of Windows as the client can tell, on this machine: below one folder files behave as they do there.

    with Windows(tmp_path) as windows:     # sys.platform says win32, and locks are msvcrt's
        windows.hold(path)                 # somebody, a scanner for example, has it open
        ...
    windows.refused                        # how often the system said no

* A file that anybody has open is neither replaced, nor renamed, nor removed; a folder is not renamed while a file
  in it is open. That holds for our own open files, too: what this process has open is asked of the kernel.
* Names that Windows does not take (reserved characters, a dot or space at the end, devices) are errors, as soon
  as something is made or looked for below the folder.
* A name that differs in case alone is the same name.

Not simulated: paths of more than 260 characters, rights, other drives. It has not been run on Windows.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest

FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')
DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9\u00b9\u00b2\u00b3]) *(\.|$)")
ONE_PATH = (
    "open",
    "stat",
    "lstat",
    "unlink",
    "remove",
    "rmdir",
    "mkdir",
    "chmod",
    "utime",
    "access",
    "scandir",
    "listdir",
)


class Windows:
    """One folder of a machine that runs Windows."""

    LK_NBLCK = 2

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.refused = 0
        self._held: set[tuple[int, int]] = set()
        self._patch = pytest.MonkeyPatch()
        self._real = {name: getattr(os, name) for name in (*ONE_PATH, "replace", "rename", "link", "fstat")}
        self._open = io.open

    def __enter__(self) -> Windows:
        module = types.ModuleType("msvcrt")
        module.LK_NBLCK, module.locking = self.LK_NBLCK, self.locking  # type: ignore[attr-defined]
        self._patch.setitem(sys.modules, "msvcrt", module)
        self._patch.setattr(sys, "platform", "win32")
        self._patch.setattr(shutil, "_use_fd_functions", False, raising=False)
        for name in ONE_PATH:
            self._patch.setattr(
                os, name, self._with_path(self._real[name], removes=name in ("unlink", "remove"))
            )
        self._patch.setattr(io, "open", self._with_path(self._open))
        for name in ("replace", "rename", "link"):
            self._patch.setattr(os, name, self._with_two(name))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def hold(self, path: Path) -> None:
        """Somebody opens a file, or looks into a folder."""
        self._held.add(self._identity(str(path)) or (0, 0))

    def let_go(self) -> None:
        """Whoever had something open has it open no more."""
        self._held.clear()

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        """msvcrt's, which refuses at once."""
        assert (mode, count) == (self.LK_NBLCK, 1)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # --- what the system does ---------------------------------------------------------------------------------
    def _with_path(self, real: Callable[..., Any], *, removes: bool = False) -> Callable[..., Any]:
        def act(path: Any, *given: Any, **named: Any) -> Any:
            found = self._found(path)
            if removes:
                self._refuse_if_open(found)
            return real(found, *given, **named)

        return act

    def _with_two(self, name: str) -> Callable[..., Any]:
        def act(source: Any, target: Any, **named: Any) -> None:
            source, target = self._found(source), self._found(target)
            if name != "link":
                self._refuse_if_open(source)
                self._refuse_if_open(target)
                if name == "rename" and self._identity(target):
                    raise FileExistsError(errno.EEXIST, "it exists", target)
                if Path(target).is_dir():
                    raise PermissionError(errno.EACCES, "Access is denied", target)
            self._real[name](source, target, **named)

        return act

    def _found(self, path: Any) -> Any:
        """The path as it is spelled on the disk; OSError for a name that Windows does not take."""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
        if not isinstance(text, str) or not f"{text}/".startswith(f"{self.root}/"):
            return path
        at = self.root
        for name in PurePath(text).relative_to(self.root).parts:
            if name != ".." and (FORBIDDEN.search(name) or DEVICE.match(name)):
                raise OSError(errno.EINVAL, "The filename or directory name syntax is incorrect", text)
            known = name
            if self._identity(f"{at}/{name}") is None:
                try:
                    names = self._real["listdir"](at)
                except OSError:
                    names = []
                known = next((each for each in names if each.casefold() == name.casefold()), name)
            at = f"{at}/{known}"
        return at

    def _identity(self, path: str) -> tuple[int, int] | None:
        try:
            about = self._real["lstat"](path)
        except OSError:
            return None
        return (about.st_dev, about.st_ino)

    def _refuse_if_open(self, path: str) -> None:
        """A file, or for a folder all that is in it."""
        if not isinstance(path, str) or not path.startswith(self.root):
            return
        open_now = self._held | set(self._open_here())
        within = [path, *(f"{top}/{name}" for top, _, names in os.walk(path) for name in names)]
        if open_now & {self._identity(each) for each in within}:
            self.refused += 1
            raise PermissionError(errno.EACCES, "The process cannot access the file", path)

    def _open_here(self) -> list[tuple[int, int]]:
        found = []
        for descriptor in self._real["listdir"]("/proc/self/fd"):
            try:
                about = self._real["fstat"](int(descriptor))
            except OSError:
                continue
            found.append((about.st_dev, about.st_ino))
        return found
