"""The command line: arguments in, engines called, results printed. Nothing is decided here.

    countermark trust add https://registry.example --root root.json
    countermark verify dist/*.whl --json
    countermark run -- uv sync --frozen

stdout is data, stderr is talk: `--json` puts one JSON document on stdout and nothing else. An error is one
line, lower case, and a hint when we can guess; its exit code is the error's own (errors.py). A traceback is
a bug of ours, and even then people see one line unless COUNTERMARK_DEBUG is set.

Engines are imported inside the command that needs them, so `--help` and `verify` start fast.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from countermark.errors import CountermarkError

PROGRAM = "countermark"
Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every outcome is an exit code."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments)
    except CountermarkError as error:
        return _fail(arguments, str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as error:
        if os.environ.get("COUNTERMARK_DEBUG"):
            raise
        hint = "please report it; COUNTERMARK_DEBUG=1 shows where"
        return _fail(arguments, f"bug: {type(error).__name__}: {error}", hint, 1)


def say(text: str) -> None:
    """One line of talk."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def put(document: Any) -> None:
    """One JSON document as data."""
    print(json.dumps(document, sort_keys=True, indent=1), flush=True)


def _fail(arguments: argparse.Namespace, message: str, hint: str | None, exit_code: int) -> int:
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
    if getattr(arguments, "json", None) is True:
        put({"error": message, "exit_code": exit_code, "hint": hint, "verified": False})
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="verify what a package registry serves")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _witness_arguments(commands)
    return parser


def _witness_arguments(commands: Any) -> None:
    witness = commands.add_parser("witness", help="cosign a log's checkpoints")
    actions = witness.add_subparsers(required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make a witness's key and state; prints its vkey")
    init.add_argument("--name", required=True, help="the key's name, a URL without scheme")
    init.set_defaults(command=_witness_init)
    add = actions.add_parser("add-log", help="start witnessing a log")
    add.add_argument("--vkey", required=True, action="append", help="one per key of the log")
    add.set_defaults(command=_witness_add_log)
    run = actions.add_parser("run", help="answer add-checkpoint requests")
    run.add_argument("--listen", required=True, metavar="HOST:PORT", help="port 0 takes any free one")
    run.set_defaults(command=_witness_run)
    for action in (init, add, run):
        action.add_argument("--dir", required=True, type=Path, help="the witness's own directory")


def _witness_init(arguments: argparse.Namespace) -> int:
    from countermark import witness  # noqa: PLC0415

    print(witness.create_witness(arguments.dir, arguments.name).format())
    return 0


def _witness_add_log(arguments: argparse.Namespace) -> int:
    from countermark import witness  # noqa: PLC0415
    from countermark.tlog.note import VerifierKey  # noqa: PLC0415

    log = witness.load_store(arguments.dir).add_log([VerifierKey.parse(vkey) for vkey in arguments.vkey])
    say(f"witnessing {log.origin} from size {log.size}")
    return 0


def _witness_run(arguments: argparse.Namespace) -> int:
    import signal  # noqa: PLC0415
    import threading  # noqa: PLC0415
    import time  # noqa: PLC0415

    from countermark import serving, witness  # noqa: PLC0415
    from countermark.limits import WITNESS_BODY_MAX_BYTES  # noqa: PLC0415

    engine = witness.load_witness(arguments.dir, lambda: int(time.time()))
    host, port = serving.parse_listen(arguments.listen)
    with serving.listening(engine, host, port, max_body=WITNESS_BODY_MAX_BYTES) as server:
        # shutdown() waits for the loop, so it must not run inside the loop's own thread.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        say(f"witness listens on {server.url}")
        server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
