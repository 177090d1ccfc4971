"""What holders see. stdout is data, stderr is talk."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from countermark.words import hex_groups, root_words
from countermark_ceremony.exchange import Asked, Request
from countermark_ceremony.payloads import describe_trust_file

SENTENCE = 200  # characters of a help text's first sentence that a list of commands shows


class Group(click.Group):
    """A group whose help says what each command does to the end of the sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One row for each command, on as many lines as that takes."""
        rows = [(name, self.commands[name].get_short_help_str(SENTENCE)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def say(text: str) -> None:
    """One line of talk."""
    sys.stderr.write(f"countermark-ceremony: {text}\n")


def fail(message: str, hint: str | None) -> None:
    """One error, and what to do about it when we can guess."""
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")


def show_request(request: Request) -> list[str]:
    """The screen a holder reads before signing: everything comes from the payloads themselves."""
    mark = (
        ["", "  THIS IS A TRIAL: every client will call it one, and CI will refuse it"]
        if request.trial
        else []
    )
    lines = [
        f"{request.title}",
        f"  origin      {request.origin}",
        f"  holder      {request.holder}",
        f"  transcript  {request.transcript_sha256}",
        *mark,
        "",
        "the trust file",
        *(f"  {line}" for line in describe_trust_file(request.trust_file)),
    ]
    for document in request.documents:
        lines += ["", *show_document(document)]
    lines += ["", "Compare the words of each document with another holder's screen before you sign."]
    return lines


def show_document(document: Asked) -> list[str]:
    """One document: what it says, its digest as words and as groups, and the keys that are to sign it."""
    at = dict(document.places)
    keys = [
        f"  sign with   {name} {print_}" + (f" on {at[print_]}" if print_ in at else "")
        for name, print_ in document.keys
    ]
    follows = (
        []
        if document.previous is None
        else [f"  follows     {root_words(document.previous)}  (what everybody wrote down then)"]
    )
    return [
        document.name,
        *follows,
        *(f"  {line}" for line in document.says),
        f"  words       {root_words(document.payload)}",
        f"  sha256      {hex_groups(document.payload)}",
        *(f"  needs       {need}" for need in document.needs),
        *keys,
    ]


def show_lines(lines: Sequence[str]) -> None:
    """Data for stdout."""
    for line in lines:
        print(line)
