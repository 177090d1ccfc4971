"""The command line: arguments in, engines called, results printed. Nothing is decided here.

    countermark trust add https://registry.example --root root.json
    countermark verify dist/*.whl --json
    countermark run -- uv sync --frozen

stdout is data, stderr is talk: `--json` puts one JSON document on stdout and nothing else. An error is one
line, lower case, and a hint when we can guess; its exit code is the error's own (errors.py). A traceback is
a bug of ours, and even then people see one line unless COUNTERMARK_DEBUG is set.

This file knows the arguments; the commands themselves are in commands_*.py, imported only when they run, and the
arguments of other commands than the one that was asked for are not made at all: `verify` starts fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from countermark import __version__
from countermark.console import PROGRAM, fail, say
from countermark.errors import CountermarkError, UsageError

_URL = "where the registry answers, such as https://registry.example.com"
_WHICH = "which pinned registry; not needed for an only one"
_DISTRIBUTION = "a wheel or a source distribution"


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
        command = _command(arguments.command)
        loaded()
        return command(arguments)
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


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """`trust.add` is the function `add` of commands_trust.py."""
    module, _, function = name.partition(".")
    found: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"countermark.commands_{module}"), function
    )
    return found


def _parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; of one alone, with its neighbours, when it is the first word given."""
    parser = _Parser(prog=PROGRAM, description="verify what a package registry serves")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = _actions(parser, "COMMAND", title="commands")
    groups = [arguments for arguments, names in _GROUPS if command in names.split()]
    if not groups:
        from countermark.cli_words import below_the_commands  # noqa: PLC0415  (lazy: `verify` needs none of it)

        parser.epilog = below_the_commands()
    for arguments in groups or [arguments for arguments, _ in _GROUPS]:
        arguments(commands)
    return parser


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for each argument, and lets `shutil` look, with all it imports."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)  # lines of our own stay


class _Parser(argparse.ArgumentParser):
    """With our formatter; the parsers of commands are of this class, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)


def _columns() -> int:
    """As `shutil.get_terminal_size` has it: what COLUMNS says, or the terminal, or 80."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # no terminal, or no stdout at all
        return 80


def _actions(parser: argparse.ArgumentParser, metavar: str, **options: Any) -> Any:
    # Without `prog`, argparse asks for the width of the terminal to make the one we know.
    return parser.add_subparsers(required=True, metavar=metavar, prog=parser.prog, **options)


def _add(
    commands: Any, name: str, command: str, help: str, *, registry: bool = True, json: bool = True
) -> Any:
    parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(command=command)
    if registry:
        parser.add_argument("--registry", metavar="URL", help=_WHICH)
        parser.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    if json:
        parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _trust_arguments(commands: Any) -> None:
    trust = commands.add_parser("trust", help="which registries this machine trusts, and by which root")
    actions = _actions(trust, "ACTION")
    add = _add(actions, "add", "trust.add", "pin a registry's root", registry=False)
    add.add_argument("url", metavar="URL", help=_URL)
    add.add_argument("--root", type=Path, metavar="FILE", help="the root, from somebody you trust")
    add.add_argument("--root-words", metavar="WORDS", help="its twelve words, from somebody you trust")
    add.add_argument(
        "--trust-on-first-use", action="store_true", help="believe the first root seen; never under CI"
    )
    add.add_argument(
        "--mirror",
        action="append",
        metavar="URL",
        help="ask this copy when the registry does not answer; repeatable",
    )
    _add(actions, "list", "trust.show_all", "list pinned registries", registry=False)
    show = _add(actions, "show", "trust.show", "show one pinned root", registry=False)
    show.add_argument("url", metavar="URL", nargs="?", help=_WHICH)


def _install_arguments(commands: Any) -> None:
    told = "verify files, every hash in a lock file, or what is installed"
    verify = _add(commands, "verify", "install.verify", told)
    verify.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"{_DISTRIBUTION}; or a lock file"
    )
    verify.add_argument(
        "--environment",
        type=Path,
        metavar="DIR",
        help="the files installed in DIR, against the wheels that were logged",
    )
    for form in ("junit", "sarif"):
        verify.add_argument(
            f"--{form}", type=Path, metavar="FILE", help=f"write the results as {form.upper()}, too"
        )
    verify.add_argument(
        "--at", metavar="TIME", help="judge as of a later time (seconds, or 2026-01-31T12:00:00Z)"
    )
    verify.add_argument(
        "--log-only",
        action="store_true",
        help="files that other registries serve, against the log alone: no TUF, no verdict, never verified",
    )
    verify.add_argument(
        "--namespace", metavar="NAME", help="with --log-only: the namespace whose files they must be"
    )
    run = _add(commands, "run", "install.run", "start an installer that gets verified files only", json=False)
    run.add_argument("--json", type=Path, metavar="FILE", dest="json_file", help="write the result to a file")
    run.add_argument(
        "--allow-build",
        action="store_true",
        help="let packages that exist only as source, and the project's folder, be built",
    )
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    proxy = _add(commands, "proxy", "install.proxy", "serve verified files to installers", json=False)
    proxy.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0, as is, takes any free one"
    )


def _policy_arguments(commands: Any) -> None:
    from countermark import cli_policy  # noqa: PLC0415  (lazy: `verify` needs none of it)

    cli_policy.arguments(commands, _add, _actions)


def _publish_arguments(commands: Any) -> None:
    login = _add(
        commands, "login", "publish.login", "sign in by the browser or with a one-time code", registry=False
    )
    login.add_argument("url", metavar="URL", help=_URL)
    login.add_argument("--root-words", metavar="WORDS", help="the root's words, where no root is pinned yet")
    login.add_argument("--code", help="the one-time code; else the browser, or asked for")
    login.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    login.add_argument(
        "--tokens",
        choices=("auto", "keyring", "file"),
        default="auto",
        help="where session and token are kept",
    )
    token = _add(
        commands, "token", "publish.token", "print the upload token, for other upload tools", registry=False
    )
    token.add_argument("url", metavar="URL", nargs="?", help=_WHICH)
    _tokens_arguments(commands)
    for name, text in (
        ("sign", "write FILE.publish.attestation beside each distribution"),
        ("publish", "sign, upload, wait until listed, verify"),
    ):
        parser = _add(commands, name, f"publish.{name}", text)
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=_DISTRIBUTION)
        parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
        parser.add_argument("--yes", action="store_true", help="enrol the key without asking")
        parser.add_argument(
            "--ci", action="store_true", help="in a CI job: a key for this run, by the job's OIDC token"
        )
        parser.add_argument("--no-passphrase", action="store_true", help="a key made now gets no passphrase")
        if name == "sign":
            parser.add_argument(
                "--submit",
                action="store_true",
                help="hand it to the registry, ahead of an upload by any tool",
            )
    status = _add(
        commands, "status", "publish.status", "what became of uploads; fetches and checks their proofs"
    )
    status.add_argument("files", nargs="+", type=Path, metavar="FILE", help=_DISTRIBUTION)
    status.add_argument("--wait", action="store_true", help="wait until listed")
    status.add_argument("--proofs", type=Path, metavar="DIR", help="write each proof as FILE.tlog-proof")


def _tokens_arguments(commands: Any) -> None:
    tokens = commands.add_parser("tokens", help="upload tokens for other machines and jobs")
    actions = _actions(tokens, "ACTION")
    make = _add(actions, "make", "tokens.make", "make a token; it is printed this once")
    make.add_argument("name", metavar="NAME", help="what you will know it by")
    make.add_argument(
        "--project", action="append", metavar="NAME", help="acme, acme-*, corp/*; default: all projects"
    )
    make.add_argument(
        "--action",
        action="append",
        choices=("entries", "read", "upload"),
        help="what it is for; default: all",
    )
    make.add_argument("--days", type=int, metavar="N", help="how long it lives; default: until revoked")
    make.add_argument("--for", dest="service", metavar="LOGIN", help="of a service account that you own")
    _add(actions, "list", "tokens.show_all", "list tokens with their scopes and last use")
    revoke = _add(actions, "revoke", "tokens.revoke", "end a token")
    revoke.add_argument("id", metavar="ID")


_REASONS = {  # a test compares them with the codes that entries may hold
    "yank": "broken, metadata, mistake, other, security, superseded",
    "unyank": "fixed, mistake, other",
    "remove": "legal, mistake, other, secret, security",
    "revoke": "compromised, lost, retired, superseded",
}


def _owner_arguments(commands: Any) -> None:
    for name, text in (
        ("yank", "have installers choose a file only where it is pinned exactly"),
        ("unyank", "end a yank"),
        ("remove", "withdraw a file for ever; its name stays spent"),
    ):
        parser = _add(commands, name, f"afterwards.{name}", text)
        parser.add_argument("files", nargs="+", metavar="FILE_OR_PROJECT==VERSION")
        parser.add_argument("--reason", required=True, metavar="CODE", help=_REASONS[name])
        parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
        if name == "remove":
            parser.add_argument("--yes", action="store_true", help="do not ask")


def _owners_arguments(commands: Any) -> None:
    from countermark import cli_shared  # noqa: PLC0415  (lazy: `verify` needs none of it)

    group = commands.add_parser("owner", help="who owns a project, in the log")
    actions = _actions(group, "ACTION")
    for name, command, text in (
        ("add", "owner_add", "let another account upload"),
        ("remove", "owner_remove", "end an account's right to upload"),
        ("transfer", "owner_transfer", "make another account the only owner"),
        ("signing-off", "signing_off", "take unsigned files again"),
    ):
        parser = _add(actions, name, f"afterwards.{command}", text)
        parser.add_argument("project", metavar="PROJECT")
        if name != "signing-off":
            parser.add_argument("account", metavar="ACCOUNT", help="32 hexadecimal digits")
        if name == "add":
            parser.add_argument("--role", choices=("owner", "maintainer"), default="maintainer")
        _signs(parser)
        cli_shared.act_argument(parser)
    cli_shared.owner_arguments(actions, _add)


def _jobs_arguments(commands: Any) -> None:
    from countermark import cli_shared  # noqa: PLC0415  (lazy: `verify` needs none of it)

    cli_shared.job_arguments(commands, _add, _actions)


def _shared_arguments(commands: Any) -> None:
    from countermark import cli_shared  # noqa: PLC0415  (lazy: `verify` needs none of it)

    cli_shared.arguments(commands, _add, _actions)


def _signs(parser: Any) -> None:
    parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _key_arguments(commands: Any) -> None:
    from countermark import cli_shared  # noqa: PLC0415  (lazy: `verify` needs none of it)

    key = commands.add_parser("key", help="publisher keys on this machine")
    actions = _actions(key, "ACTION")
    new = _add(actions, "new", "key.new", "make a key", registry=False)
    new.add_argument("--name", default="publisher")
    new.add_argument("--no-passphrase", action="store_true", help="whoever can read the key file can sign")
    add = _add(actions, "add", "key.add", "name a key that the ssh-agent or a token holds", registry=False)
    add.add_argument(
        "where", metavar="WHERE", help="ssh-agent[:FINGERPRINT], hsm:ID?label=L or pkcs11ed:ID?label=L"
    )
    add.add_argument("--name", default="publisher")
    _add(actions, "list", "key.show_all", "list keys", registry=False)
    show = _add(actions, "show", "key.show", "show one key's public half", registry=False)
    show.add_argument("name", nargs="?", default="publisher")
    rotate = _add(actions, "rotate", "afterwards.rotate", "replace a key by a new one that it vouches for")
    rotate.add_argument("projects", nargs="*", metavar="PROJECT", help="default: all the key is enrolled for")
    rotate.add_argument("--name", default="publisher")
    rotate.add_argument("--keep-old", action="store_true", help="leave the old key enrolled")
    revoke = _add(actions, "revoke", "afterwards.revoke", "end a key's right to sign, in the log")
    revoke.add_argument("keyid", metavar="KEYID", help="a whole keyid, or the name of a key on this machine")
    revoke.add_argument("--reason", required=True, metavar="CODE", help=_REASONS["revoke"])
    revoke.add_argument(
        "--compromised-since", type=int, metavar="INDEX", help="hold what it published from this entry on"
    )
    revoke.add_argument(
        "--project", action="append", metavar="PROJECT", help="default: all the key is enrolled for"
    )
    revoke.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
    for parser in (rotate, revoke):
        parser.add_argument("--yes", action="store_true", help="do not ask")
    for name, text in (
        ("recover", "ask for a key without an old one's signature: in effect after seven days"),
        ("veto", "stop a recovery, with a key that was enrolled before it"),
    ):
        parser = _add(actions, name, f"afterwards.{name}", text)
        parser.add_argument("project", metavar="PROJECT")
        parser.set_defaults(act=None)
        _signs(parser)
    cli_shared.key_arguments(actions, _add)


def _witness_arguments(commands: Any) -> None:
    witness = commands.add_parser("witness", help="cosign a log's checkpoints")
    actions = _actions(witness, "ACTION")
    options = {"registry": False, "json": False}
    init = _add(actions, "init", "witness.init", "make a witness's key and state; prints its vkey", **options)
    init.add_argument("--name", required=True, help="the key's name, a URL without scheme")
    add = _add(actions, "add-log", "witness.add_log", "start witnessing a log", **options)
    add.add_argument("--vkey", required=True, action="append", help="one per key of the log")
    run = _add(actions, "run", "witness.run", "answer add-checkpoint requests", **options)
    run.add_argument("--listen", required=True, metavar="HOST:PORT", help="port 0 takes any free one")
    for action in (init, add, run):
        action.add_argument("--dir", required=True, type=Path, help="the witness's own directory")


def _audit_arguments(commands: Any) -> None:
    text = "replay the whole log, and compare TUF and the simple index with it"
    audit = _add(commands, "audit", "audit.audit", text, registry=False)
    audit.add_argument("url", metavar="URL", nargs="?", help=_WHICH)
    audit.add_argument("--files", action="store_true", help="download and hash every listed artifact, too")
    audit.add_argument("--from-start", action="store_true", help="forget earlier audits, replay from entry 0")
    audit.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    audit.add_argument(
        "--predecessor",
        metavar="URL_OR_DIR",
        help="the frozen registry, or a copy of its public folder, to compare",
    )
    audit.add_argument("--predecessor-trust", metavar="FILE", type=Path, help="that registry's trust file")


def _bundle_arguments(commands: Any) -> None:
    bundle = commands.add_parser("bundle", help="proofs in a file, for machines without network")
    actions = _actions(bundle, "ACTION")
    make = _add(actions, "make", "bundle.make", "verify files and write what proves them to a bundle each")
    make.add_argument("--replace", action="store_true", help="replace bundles that are already there")
    check = _add(actions, "verify", "bundle.verify", "verify files by their bundles, without network")
    check.add_argument(
        "--max-age", metavar="AGE", default="24h", help="90m, 24h, 7d: how old a bundle may be"
    )
    for action in (make, check):
        action.add_argument("files", nargs="+", type=Path, metavar="FILE", help=_DISTRIBUTION)
        action.add_argument(
            "--log-only",
            action="store_true",
            help="files that other registries serve, by the log alone: no TUF, no verdict, never verified",
        )
        action.add_argument("--namespace", metavar="NAME", help="with --log-only: whose files they must be")
        action.add_argument(
            "--dir",
            type=Path,
            default=Path("countermark"),
            help="the folder of bundles (default: countermark)",
        )
    evidence = commands.add_parser("evidence", help="contradictions that were saved")
    actions = _actions(evidence, "ACTION")
    check = _add(
        actions,
        "check",
        "bundle.evidence_check",
        "check saved evidence anew: without network, or with the log",
        registry=False,
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument(
        "--root", type=Path, metavar="FILE", help="the root to check from; else the pinned one"
    )
    check.add_argument(
        "--replay", action="store_true", help="read the log, and hold what the evidence says against it"
    )
    check.add_argument(
        "--log", metavar="URL", help="with --replay: where the log is, an address or a folder with a copy"
    )


_GROUPS: tuple[tuple[Callable[[Any], None], str], ...] = (  # in the order of `--help`
    (_trust_arguments, "trust"),
    (_install_arguments, "verify run proxy"),
    (_policy_arguments, "configure pin policy lock"),
    (_publish_arguments, "login token tokens sign publish status"),
    (_owner_arguments, "yank unyank remove"),
    (_owners_arguments, "owner"),
    (_jobs_arguments, "trusted-publisher"),
    (_shared_arguments, "whoami approve act"),
    (_key_arguments, "key"),
    (_witness_arguments, "witness"),
    (_bundle_arguments, "bundle evidence"),
    (_audit_arguments, "audit"),
)


if __name__ == "__main__":
    raise SystemExit(main())
