"""The `countermark` command as a process of its own, also `python -m countermark`.

A check lives for some tens of milliseconds, and Python would spend ten more on looking for garbage among modules
that live as long as the process, and on taking everything apart at the end. `cli.main` is the command without that.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

# What securesystemslib imports where it is there, for keys elsewhere than in a file; these commands sign nothing.
_SIGNERS = ("azure", "boto3", "google.cloud", "hvac", "keylet", "pkcs11")
_UNSIGNED = frozenset({"bundle", "proxy", "run", "verify"})

gc.disable()  # while modules are loaded


def _spare() -> None:
    """Import argparse and pathlib without what they import for what no command of ours asks of them.

    argparse wants translations of its words, and `gettext` compiles a large pattern to count plurals; pathlib wants
    to write `file:` addresses, and `urllib.parse` brings `ipaddress`: together two of forty milliseconds. Both get a
    stand-in for as long as they are imported. Whoever imports these modules afterwards has the real ones.
    """

    def quote(data: Any) -> str:
        from urllib.parse import quote_from_bytes  # noqa: PLC0415

        return quote_from_bytes(data)

    spared: dict[str, dict[str, Any]] = {
        "gettext": {"gettext": str, "ngettext": lambda one, many, count: one if count == 1 else many},
        "urllib.parse": {"quote_from_bytes": quote},
    }
    standing = [name for name in spared if name not in sys.modules]
    for name in standing:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(spared[name])
    try:
        import argparse  # noqa: F401, PLC0415
        import pathlib  # noqa: F401, PLC0415
    finally:
        for name in standing:
            del sys.modules[name]


def _without(names: Sequence[str]) -> None:
    """Let these modules be missing in this process: PKCS #11 alone takes a twentieth of a warm check of a lock."""
    missing: dict[str, Any] = dict.fromkeys(names)
    sys.modules.update(missing)  # Python's own way: what is None there raises ModuleNotFoundError


class _Late(ModuleType):
    """A module of which only what was put here is there; it is imported when anything else of it is asked for."""

    def real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real(), name)


def _later(name: str = "importlib.metadata") -> None:
    """Let `importlib.metadata` be imported when somebody asks it something.

    urllib3 wants its `version` at hand for HTTP/2, which no command of ours speaks, and it brings zipfile and
    csv, which no check needs.
    """
    if name in sys.modules:
        return
    late: Any = _Late(name)
    late.version = lambda package: late.real().version(package)
    late.__path__ = [f"{folder}{os.sep}metadata" for folder in importlib.__path__]
    sys.modules[name] = late
    setattr(importlib, name.rpartition(".")[2], late)


def run() -> NoReturn:
    """Run one command, and end this process with its exit code."""
    _spare()
    if sys.argv[1:2] and sys.argv[1] in _UNSIGNED:
        _without(_SIGNERS)
        _later()
    from countermark.cli import main  # noqa: PLC0415  (it loads modules)

    try:
        code = main(loaded=_collect)
    except SystemExit as error:  # of argparse: 0 after --help, 2 where it understood nothing
        code = error.code if isinstance(error.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody may take for "allowed" what did not reach them
            code = code or 141
    # Whoever opened a file or started a thread has closed and joined it: nothing is left to be done.
    os._exit(code)


def _collect() -> None:
    gc.freeze()  # what is loaded stays
    gc.set_threshold(50_000, 20, 50)  # as in replay.py, which not every command loads
    gc.enable()


if __name__ == "__main__":
    run()
