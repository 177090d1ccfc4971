"""The parts of every command's arguments: one way to make a command, and the words that several explain alike."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

URL = "where the registry answers, such as https://registry.example.com"
WHICH = "which pinned registry; not needed for an only one"
DISTRIBUTION = "a wheel or a source distribution"
PROJECT = "a project's name; corp/NAME of the log's namespace corp"
KEY_NAME = "what this machine calls the key; default: publisher"


# argparse looks for a translation of each of its words, in folders of catalogues that nobody makes.
vars(argparse)["_"] = lambda text: text  # not `str`: a group without a description passes None


class Formatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse makes one for each argument, and lets `shutil` look, with all it imports."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)  # lines of our own stay


class Parser(argparse.ArgumentParser):
    """With our formatter; the parsers of commands are of this class, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=Formatter, **options)


def _columns() -> int:
    """As `shutil.get_terminal_size` has it: what COLUMNS says, or the terminal, or 80."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # no terminal, or no stdout at all
        return 80


def group(commands: Any, name: str, help: str) -> Any:
    """Where the commands below a word go: `key new` and `key list` below `key`."""
    return below(commands.add_parser(name, help=help, description=help), "ACTION")


def below(parser: argparse.ArgumentParser, metavar: str, **options: Any) -> Any:
    """Where the commands below a parser go."""
    # Without `prog`, argparse asks for the width of the terminal to make the one we know.
    return parser.add_subparsers(required=True, metavar=metavar, prog=parser.prog, **options)


def add(
    commands: Any, name: str, command: str, help: str, *, registry: bool = True, json: bool = True
) -> Any:
    """One command: its name, the function that runs it (`trust.add` is `add` of commands_trust.py), what it does."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(command=command)
    if registry:
        parser.add_argument("--registry", metavar="URL", help=WHICH)
        parser.add_argument("--allow-trial", action="store_true", help="accept a trial registry under CI")
    if json:
        parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def signs(parser: Any) -> None:
    """Of a command that signs with a key of this machine."""
    parser.add_argument("--key", metavar="NAME", default="publisher", help="which key signs")
    parser.add_argument("--yes", action="store_true", help="do not ask")
