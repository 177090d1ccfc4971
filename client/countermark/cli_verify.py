"""The arguments of who verifies, audits or witnesses; cli.py says how they are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from countermark.cli_parts import DISTRIBUTION, URL, WHICH, add, group


def trust_arguments(commands: Any) -> None:
    does = group(commands, "trust", "which registries this machine trusts, and by which root")
    new = add(does, "add", "trust.add", "pin a registry's root", registry=False)
    new.add_argument("url", metavar="URL", help=URL)
    new.add_argument("--root", type=Path, metavar="FILE", help="the root, from somebody you trust")
    new.add_argument("--root-words", metavar="WORDS", help="its twelve words, from somebody you trust")
    new.add_argument(
        "--trust-on-first-use", action="store_true", help="believe the first root seen; never under CI"
    )
    new.add_argument(
        "--mirror",
        action="append",
        metavar="URL",
        help="ask this copy when the registry does not answer; repeatable",
    )
    new.add_argument(
        "--client-cert",
        metavar="FILE",
        help="show this certificate to the registry, where it asks for one; kept, and '' forgets it",
    )
    new.add_argument("--client-key", metavar="FILE", help="its key, where it is in a file of its own")
    add(does, "list", "trust.show_all", "list pinned registries", registry=False)
    show = add(does, "show", "trust.show", "show one pinned root", registry=False)
    show.add_argument("url", metavar="URL", nargs="?", help=WHICH)


def install_arguments(commands: Any) -> None:
    told = "verify files, every hash in a lock file, or what is installed"
    verify = add(commands, "verify", "install.verify", told)
    verify.add_argument("files", nargs="*", type=Path, metavar="FILE", help=f"{DISTRIBUTION}; or a lock file")
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
        "--attestations",
        action="store_true",
        help="tell what the log says of PEP 740 attestations, too; nothing depends on it",
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
    run = add(commands, "run", "install.run", "start an installer that gets verified files only", json=False)
    run.add_argument("--json", type=Path, metavar="FILE", dest="json_file", help="write the result to a file")
    run.add_argument(
        "--allow-build",
        action="store_true",
        help="let packages that exist only as source, and the project's folder, be built",
    )
    run.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="such as: -- uv sync --frozen"
    )
    proxy = add(commands, "proxy", "install.proxy", "serve verified files to installers", json=False)
    proxy.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0, as is, takes any free one"
    )
    proxy.add_argument(
        "--with-client-cert",
        action="store_true",
        help="show this machine's client certificate to the registry for whoever asks: what stands in front decides "
        "who does",
    )


def witness_arguments(commands: Any) -> None:
    does = group(commands, "witness", "cosign a log's checkpoints")
    options = {"registry": False, "json": False}
    init = add(does, "init", "witness.init", "make a witness's key and state; prints its vkey", **options)
    init.add_argument("--name", metavar="NAME", required=True, help="the key's name, a URL without scheme")
    new = add(does, "add-log", "witness.add_log", "start witnessing a log", **options)
    new.add_argument("--vkey", required=True, action="append", help="one per key of the log")
    run = add(does, "run", "witness.run", "answer add-checkpoint requests", **options)
    run.add_argument("--listen", required=True, metavar="HOST:PORT", help="port 0 takes any free one")
    for action in (init, new, run):
        action.add_argument("--dir", required=True, type=Path, help="the witness's own directory")


def audit_arguments(commands: Any) -> None:
    text = "replay the whole log, and compare TUF and the simple index with it"
    audit = add(commands, "audit", "audit.audit", text, registry=False)
    audit.add_argument("url", metavar="URL", nargs="?", help=WHICH)
    audit.add_argument("--files", action="store_true", help="download and hash every listed artifact, too")
    audit.add_argument("--from-start", action="store_true", help="forget earlier audits, replay from entry 0")
    audit.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    audit.add_argument(
        "--predecessor",
        metavar="URL_OR_DIR",
        help="the frozen registry, or a copy of its public folder, to compare",
    )
    audit.add_argument("--predecessor-trust", metavar="FILE", type=Path, help="that registry's trust file")


def bundle_arguments(commands: Any) -> None:
    does = group(commands, "bundle", "proofs in a file, for machines without network")
    make = add(does, "make", "bundle.make", "verify files and write what proves them to a bundle each")
    make.add_argument("--replace", action="store_true", help="replace bundles that are already there")
    check = add(does, "verify", "bundle.verify", "verify files by their bundles, without network")
    check.add_argument(
        "--max-age", metavar="AGE", default="24h", help="90m, 24h, 7d: how old a bundle may be"
    )
    for action in (make, check):
        action.add_argument("files", nargs="+", type=Path, metavar="FILE", help=DISTRIBUTION)
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


def evidence_arguments(commands: Any) -> None:
    does = group(commands, "evidence", "contradictions that were saved")
    saved = add(
        does, "list", "evidence.show_all", "what this machine has saved, newest first", registry=False
    )
    saved.add_argument("--registry", metavar="URL", help="of this registry alone")
    check = add(
        does,
        "check",
        "evidence.check",
        "check saved evidence anew: without network, or with the log",
        registry=False,
    )
    check.add_argument("file", type=Path, metavar="FILE", help="as `evidence list` or a hint names it")
    check.add_argument(
        "--root", type=Path, metavar="FILE", help="the root to check from; else the pinned one"
    )
    check.add_argument(
        "--replay", action="store_true", help="read the log, and hold what the evidence says against it"
    )
    check.add_argument(
        "--log", metavar="URL", help="with --replay: where the log is, an address or a folder with a copy"
    )
