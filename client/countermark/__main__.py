"""The `countermark` command as a process of its own, also `python -m countermark`.

A check lives for some tens of milliseconds, and Python would spend ten more on looking for garbage among modules
that live as long as the process, and on taking everything apart at the end. `cli.main` is the command without that.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

gc.disable()  # while modules are loaded


def run() -> NoReturn:
    """Run one command, and end this process with its exit code."""
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
