"""The arguments of who publishes and owns; cli.py says how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark import cli_shared
from countermark.cli_parts import DISTRIBUTION, KEY_NAME, PROJECT, URL, WHICH, add, group, signs


def publish_arguments(commands: Any) -> None:
    login = add(
        commands, "login", "publish.login", "sign in by the browser or with a one-time code", registry=False
    )
    login.add_argument("url", metavar="URL", help=URL)
    login.add_argument("--root-words", metavar="WORDS", help="the root's words, where no root is pinned yet")
    login.add_argument("--code", help="the one-time code; else the browser, or asked for")
    login.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    login.add_argument(
        "--tokens",
        choices=("auto", "keyring", "file"),
        default="auto",
        help="where session and token are kept",
    )
    token = add(
        commands, "token", "publish.token", "print the upload token, for other upload tools", registry=False
    )
    token.add_argument("url", metavar="URL", nargs="?", help=WHICH)
    tokens_arguments(commands)
    for name, text in (
        ("sign", "write FILE.publish.attestation beside each distribution"),
        ("publish", "sign, upload, wait until listed, verify"),
    ):
        parser = add(commands, name, f"publish.{name}", text)
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=DISTRIBUTION)
        parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
        parser.add_argument("--yes", action="store_true", help="enrol the key without asking")
        parser.add_argument(
            "--ci", action="store_true", help="in a CI job: a key for this run, by the job's OIDC token"
        )
        parser.add_argument("--no-passphrase", action="store_true", help="a key made now gets no passphrase")
        parser.add_argument(
            "--namespace", metavar="NAME", help="of the log, for files that somebody else serves: no upload"
        )
        if name == "sign":
            parser.add_argument(
                "--submit",
                action="store_true",
                help="hand it to the registry, ahead of an upload by any tool",
            )
    status = add(
        commands, "status", "publish.status", "what became of uploads; fetches and checks their proofs"
    )
    status.add_argument("files", nargs="+", type=Path, metavar="FILE", help=DISTRIBUTION)
    status.add_argument("--wait", action="store_true", help="wait until listed")
    status.add_argument("--proofs", type=Path, metavar="DIR", help="write each proof as FILE.tlog-proof")


def tokens_arguments(commands: Any) -> None:
    does = group(commands, "tokens", "upload tokens for other machines and jobs")
    make = add(does, "make", "tokens.make", "make a token; it is printed this once")
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
    add(does, "list", "tokens.show_all", "list tokens with their scopes and last use")
    revoke = add(does, "revoke", "tokens.revoke", "end a token")
    revoke.add_argument("id", metavar="ID", help="as `tokens list` shows it")


REASONS = {  # a test compares them with the codes that entries may hold
    "yank": "broken, metadata, mistake, other, security, superseded",
    "unyank": "fixed, mistake, other",
    "remove": "legal, mistake, other, secret, security",
    "revoke": "compromised, lost, retired, superseded",
}


def owner_arguments(commands: Any) -> None:
    for name, text in (
        ("yank", "have installers choose a file only where it is pinned exactly"),
        ("unyank", "end a yank"),
        ("remove", "withdraw a file for ever; its name stays spent"),
    ):
        parser = add(commands, name, f"afterwards.{name}", text)
        parser.add_argument(
            "files", nargs="+", metavar="FILE_OR_PROJECT==VERSION", help="a file's name, or a whole release"
        )
        parser.add_argument("--reason", required=True, metavar="CODE", help=REASONS[name])
        parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
        if name == "remove":
            parser.add_argument("--yes", action="store_true", help="do not ask")


def owners_arguments(commands: Any) -> None:
    does = group(commands, "owner", "who owns a project, in the log")
    for name, command, text in (
        ("add", "owner_add", "let another account upload"),
        ("remove", "owner_remove", "end an account's right to upload"),
        ("transfer", "owner_transfer", "make another account the only owner"),
        ("signing-off", "signing_off", "take unsigned files again"),
    ):
        parser = add(does, name, f"afterwards.{command}", text)
        parser.add_argument("project", metavar="PROJECT", help=PROJECT)
        if name != "signing-off":
            parser.add_argument(
                "account", metavar="ACCOUNT", help="32 hexadecimal digits, as `whoami` prints them"
            )
        if name == "add":
            parser.add_argument(
                "--role",
                choices=("owner", "maintainer"),
                default="maintainer",
                help="a maintainer uploads; an owner changes keys and owners, too; default: maintainer",
            )
        signs(parser)
        cli_shared.act_argument(parser)
    cli_shared.owner_arguments(does)


def key_arguments(commands: Any) -> None:
    does = group(commands, "key", "publisher keys on this machine")
    new = add(does, "new", "key.new", "make a key", registry=False)
    new.add_argument("--name", metavar="NAME", default="publisher", help=KEY_NAME)
    new.add_argument("--no-passphrase", action="store_true", help="whoever can read the key file can sign")
    named = add(does, "add", "key.add", "name a key that the ssh-agent or a token holds", registry=False)
    named.add_argument(
        "where", metavar="WHERE", help="ssh-agent[:FINGERPRINT], hsm:ID?label=L or pkcs11ed:ID?label=L"
    )
    named.add_argument("--name", metavar="NAME", default="publisher", help=KEY_NAME)
    add(does, "list", "key.show_all", "list keys", registry=False)
    show = add(does, "show", "key.show", "show one key's public half", registry=False)
    show.add_argument("name", nargs="?", metavar="NAME", default="publisher", help=KEY_NAME)
    rotate = add(does, "rotate", "afterwards.rotate", "replace a key by a new one that it vouches for")
    rotate.add_argument("projects", nargs="*", metavar="PROJECT", help="default: all the key is enrolled for")
    rotate.add_argument("--name", metavar="NAME", default="publisher", help=KEY_NAME)
    rotate.add_argument("--keep-old", action="store_true", help="leave the old key enrolled")
    rotate.add_argument(
        "--by", action="append", metavar="KEY", help="a further key of this machine that vouches; repeatable"
    )
    cli_shared.act_argument(rotate)
    revoke = add(does, "revoke", "afterwards.revoke", "end a key's right to sign, in the log")
    revoke.add_argument("keyid", metavar="KEYID", help="a whole keyid, or the name of a key on this machine")
    revoke.add_argument("--reason", required=True, metavar="CODE", help=REASONS["revoke"])
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
        parser = add(does, name, f"afterwards.{name}", text)
        parser.add_argument("project", metavar="PROJECT", help=PROJECT)
        parser.set_defaults(act=None)
        signs(parser)
    cli_shared.key_arguments(does)
