"""The command line: arguments in, engines called, results printed. Nothing is decided here.

    countermark trust add https://registry.example --root root.json
    countermark verify dist/*.whl --json
    countermark run -- uv sync --frozen

stdout is data, stderr is talk: `--json` puts one JSON document on stdout and nothing else. An error is one
line, lower case, and a hint when we can guess; its exit code is the error's own (errors.py). A traceback is
a bug of ours, and even then people see one line unless COUNTERMARK_DEBUG is set.

The arguments are in cli_*.py, the commands themselves in commands_*.py; either is imported only for the command that
was asked for: `verify` starts fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from countermark import __version__
from countermark.cli_parts import Parser, below
from countermark.console import PROGRAM, fail, say
from countermark.errors import CountermarkError, UsageError


def main(argv: Sequence[str] | None = None, *, loaded: Callable[[], None] = lambda: None) -> int:
    """Run one command; every outcome is an exit code. `loaded` is called before it runs, once it is imported."""
    given = sys.argv[1:] if argv is None else argv
    parser = _parser(given[0] if given else None)
    if not given:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    arguments = parser.parse_args(given)
    json = getattr(arguments, "json", None) is True
    try:
        command = _found(f"commands_{arguments.command}")
        loaded()
        return int(command(arguments))
    except CountermarkError as error:
        return fail(str(error), error.hint, error.exit_code, json=json)
    except BrokenPipeError:
        # Whoever read our answers left before the end: nobody may take that for "allowed".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except OSError as error:  # this machine's disk or permissions, not a bug of ours
        named = f'"{error.filename}": ' if error.filename else ""
        return fail(f"{named}{error.strerror or error}", None, UsageError.exit_code, json=json)
    except Exception as error:
        if os.environ.get("COUNTERMARK_DEBUG"):
            raise
        return fail(f"bug: {type(error).__name__}: {error}", "COUNTERMARK_DEBUG=1 shows where", 1, json=json)


def _found(name: str) -> Callable[[Any], Any]:
    """`commands_trust.add` is the function `add` of that module."""
    module, _, function = name.partition(".")
    found: Callable[[Any], Any] = getattr(importlib.import_module(f"countermark.{module}"), function)
    return found


def _parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; of one alone, with its neighbours, when it is the first word given."""
    parser = Parser(prog=PROGRAM, description="verify what a package registry serves")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = below(parser, "COMMAND", title="commands")
    groups = [arguments for arguments, names in _GROUPS if command in names.split()]
    if not groups:
        from countermark.cli_words import below_the_commands  # noqa: PLC0415  (lazy: `verify` needs none of it)

        parser.epilog = below_the_commands()
    for arguments in groups or [arguments for arguments, _ in _GROUPS]:
        _found(arguments)(commands)
    return parser


_GROUPS = (  # in the order of `--help`: which module's function makes the arguments, and of which commands
    ("cli_verify.trust_arguments", "trust"),
    ("cli_verify.install_arguments", "verify run proxy"),
    ("cli_policy.arguments", "configure pin policy lock"),
    ("cli_publish.publish_arguments", "login token tokens sign publish status"),
    ("cli_publish.owner_arguments", "yank unyank remove"),
    ("cli_publish.owners_arguments", "owner"),
    ("cli_shared.job_arguments", "trusted-publisher"),
    ("cli_shared.arguments", "whoami approve act"),
    ("cli_publish.key_arguments", "key"),
    ("cli_verify.witness_arguments", "witness"),
    ("cli_verify.bundle_arguments", "bundle"),
    ("cli_verify.evidence_arguments", "evidence"),
    ("cli_verify.audit_arguments", "audit"),
)


if __name__ == "__main__":
    raise SystemExit(main())
