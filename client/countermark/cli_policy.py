"""The arguments of `configure` and of the commands about policy; cli.py says how they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Add = Callable[..., Any]


def arguments(commands: Any, add: Add, actions: Add) -> None:
    """Add these commands; `add` and `actions` are those of cli.py."""
    _configure(commands, add)


def _configure(commands: Any, add: Add) -> None:
    told = "make the registry the index that an installer or upload tool uses"
    configure = add(commands, "configure", "configure.configure", told, json=False)
    configure.add_argument("tool", choices=("pip", "uv", "poetry", "pdm", "twine"))
    does = configure.add_mutually_exclusive_group()
    does.add_argument("--write", action="store_true", help="change the file; else the difference is shown")
    does.add_argument("--undo", action="store_true", help="take out what --write put in, exactly")
    configure.add_argument(
        "--file", type=Path, metavar="FILE", help="this file, not the one that the tool reads here"
    )
    configure.add_argument(
        "--index", metavar="URL", help="this index, such as a proxy's, not the registry's own"
    )
