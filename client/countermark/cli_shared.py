"""The arguments of the commands of who shares a project; cli.py says how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark.cli_parts import PROJECT, add, group, signs


def arguments(commands: Any) -> None:
    """`whoami`, `approve` and `act ...`."""
    add(commands, "whoami", "shared.whoami", "print the account that is signed in, as others name it")
    told = "show what is new in a release that waits, and approve the list of its files"
    approve = add(commands, "approve", "shared.approve", told)
    approve.add_argument("project", metavar="PROJECT", help=PROJECT)
    approve.add_argument("version", metavar="VERSION", help="of the release")
    approve.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="your copies, of a namespace's files",
    )
    approve.add_argument(
        "--reject", action="store_true", help="say no; it stays unlisted until you approve it"
    )
    approve.add_argument(
        "--act", type=Path, metavar="FILE", help="write what was signed there, for who is signed in elsewhere"
    )
    signs(approve)
    does = group(commands, "act", "acts that several people sign, each on their machine")
    for name, text in (
        ("show", "what an act does, who signed it, and what it lacks"),
        ("sign", "show what an act does, and sign it"),
        ("submit", "hand in an act that enough people have signed"),
    ):
        parser = add(does, name, f"shared.act_{name}", text)
        parser.add_argument("file", type=Path, metavar="FILE", help="what `--act` or another of these wrote")
        if name == "sign":
            signs(parser)
        parser.set_defaults(act=None)


def owner_arguments(does: Any) -> None:
    """`owner require-approvals`."""
    text = "list a release only once so many people have approved it; 0 ends that"
    parser = add(does, "require-approvals", "shared.require", text)
    parser.add_argument("project", metavar="PROJECT", help=PROJECT)
    parser.add_argument("needed", type=int, metavar="NUMBER", help="of people; 0 ends it")
    signs(parser)
    act_argument(parser)


def key_arguments(does: Any) -> None:
    """`key enrol`."""
    text = "let a key of this machine sign for a project that has keys"
    parser = add(does, "enrol", "shared.enrol", text)
    parser.add_argument("project", metavar="PROJECT", help=PROJECT)
    parser.add_argument(
        "--by", action="append", metavar="NAME", help="an enrolled key of this machine; repeatable"
    )
    parser.add_argument(
        "--threshold", type=int, metavar="K", help="how many keys sign a change from now on; default: as now"
    )
    parser.add_argument("--valid-for", type=int, metavar="SECONDS", help="default: until it is revoked")
    signs(parser)
    act_argument(parser)


def act_argument(parser: Any) -> None:
    """Where a command writes what others have to sign as well."""
    parser.add_argument(
        "--act", type=Path, metavar="FILE", help="where to write what others must sign; default: countermark/"
    )


def job_arguments(commands: Any) -> None:
    """`trusted-publisher ...`."""
    does = group(commands, "trusted-publisher", "which jobs of a CI system may publish for a project")
    new = add(does, "add", "jobs.add", "trust the jobs of one workflow of one repository")
    new.add_argument("project", metavar="PROJECT", help=PROJECT)
    for name, metavar, told in (
        ("issuer", "URL", "who signs the jobs' tokens, such as https://token.actions.githubusercontent.com"),
        ("repository", "NAME", "owner/name"),
        ("repository-id", "NUMBER", "the number that its host gave it: names can be taken over"),
    ):
        new.add_argument(f"--{name}", metavar=metavar, required=True, help=told)
    new.add_argument(
        "--workflow", metavar="FILE", default="-", help="such as release.yml; - where tokens name none"
    )
    new.add_argument(
        "--ref", metavar="PATTERN", help="refs/tags/* or refs/heads/main; default: any branch or tag"
    )
    old = add(does, "remove", "jobs.remove", "trust them no longer; their living keys end with it")
    old.add_argument("project", metavar="PROJECT", help=PROJECT)
    old.add_argument("id", metavar="ID", help="the beginning of the publisher's ID, 8 digits at least")
    for parser in (new, old):
        signs(parser)
        act_argument(parser)
    show = add(does, "list", "jobs.show_all", "list the jobs that a project trusts")
    show.add_argument("project", metavar="PROJECT", help=PROJECT)
