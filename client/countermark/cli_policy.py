"""The arguments of `configure` and of the commands about policy; cli.py says how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark.cli_parts import add, group


def arguments(commands: Any) -> None:
    """Add these commands."""
    _configure(commands)
    _pin(commands)
    _policy(commands)
    _lock(commands)


def _pin(commands: Any) -> None:
    does = group(commands, "pin", "whose signature each project must have")
    told = "compare the pins in countermark.toml with who signs now, and say which entries explain it"
    update = add(does, "update", "policy.update", told)
    update.add_argument("projects", nargs="*", metavar="PROJECT", help="default: all that are pinned")
    update.add_argument("--lock", type=Path, metavar="FILE", help="and every project that this lock pins")
    update.add_argument("--file", type=Path, metavar="FILE", help="another file than countermark.toml")
    update.add_argument("--write", action="store_true", help="write the new pins; else they are shown")
    update.add_argument(
        "--replace", action="store_true", help="also those that nothing in the log connects with the old"
    )


def _policy(commands: Any) -> None:
    found = group(commands, "policy", "what may be installed")
    told = "what applies in this folder, and whether the registry, this machine or the project says so"
    show = add(found, "show", "policy.show", told)
    show.add_argument("projects", nargs="*", metavar="PROJECT", help="what applies to these alone")
    told = "what enforcing would refuse of a lock, by reason and count; nothing is changed"
    simulate = add(found, "simulate", "policy.simulate", told)
    simulate.add_argument(
        "--lock", type=Path, metavar="FILE", required=True, help="uv.lock, pylock.toml, ..."
    )


def _lock(commands: Any) -> None:
    found = group(commands, "lock", "who signed, in a pylock.toml")
    annotate = add(
        found,
        "annotate",
        "policy.annotate",
        "write who signed each package as attestation-identities",
        json=False,
    )
    annotate.add_argument(
        "--write", action="store_true", help="change the file; else the difference is shown"
    )
    check = add(found, "check", "policy.check", "compare the signers in the lock with the log's", json=False)
    for action in (annotate, check):
        action.add_argument("lock", type=Path, metavar="FILE", help="a pylock.toml")


def _configure(commands: Any) -> None:
    told = "make the registry the index that an installer or upload tool uses"
    configure = add(commands, "configure", "configure.configure", told, json=False)
    configure.add_argument("tool", choices=("pip", "uv", "poetry", "pdm", "twine"), help="whose settings")
    does = configure.add_mutually_exclusive_group()
    does.add_argument("--write", action="store_true", help="change the file; else the difference is shown")
    does.add_argument("--undo", action="store_true", help="take out what --write put in, exactly")
    configure.add_argument(
        "--file", type=Path, metavar="FILE", help="this file, not the one that the tool reads here"
    )
    configure.add_argument(
        "--index", metavar="URL", help="this index, such as a proxy's, not the registry's own"
    )
