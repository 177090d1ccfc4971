"""What every command of a registry needs: its data directory, its database, who acts, and one way to talk.

stdout is data, stderr is talk.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

PROGRAM = "countermark-server"
PARTS = ("web", "log", "tufrepo", "timestamper", "scan")  # the processes of a registry
SENTENCE = 200  # characters of a help text's first sentence that a list of commands shows
DATA = click.option("--data", type=click.Path(path_type=Path), required=True, help="The data directory.")


class Group(click.Group):
    """A group whose help says what each command does to the end of the sentence, on as many lines as that takes."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One row for each command."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(SENTENCE)) for name in self.list_commands(ctx)]
            )


def settings_of(data: Path) -> Any:
    """The settings of a data directory. UsageError: nobody has initialised it."""
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server.settings import load  # noqa: PLC0415

    if not (data / "settings.toml").exists():
        raise UsageError(
            f'"{data}" is not initialised',
            hint=f"{PROGRAM} init --data DIR --origin NAME, or {PROGRAM} up --data DIR --trial to look around",
        )
    return load(data)


def engine_of(data: Path) -> Any:
    """Its database."""
    from countermark_server import db  # noqa: PLC0415

    return db.open_engine(settings_of(data).database_url)


def account_of(settings: Any, login: str) -> str:
    """The pseudonym of a login; the account is made when there is none."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import add_account, find_account  # noqa: PLC0415

    with db.write(db.open_engine(settings.database_url)) as connection:
        found = find_account(connection, login) or add_account(connection, login, now=int(time.time()))
        return found.id


def say(text: str) -> None:
    """One line of talk."""
    click.echo(f"{PROGRAM}: {text}", err=True)


def counted(number: int, what: str) -> str:
    """`1 entry`, `2 entries`."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"
