"""The command line of a registry: arguments and printing only. What is about the log alone: cli_log.py.

    countermark-server init --data DIR --origin NAME      online keys; writes what a ceremony needs
    countermark-server up --data DIR --listen HOST:PORT   everything in one command
    countermark-server work log|scan|tufrepo              one station, where `up` is too small
    countermark-server hold|clear|takedown --data DIR PROJECT FILENAME --reason CODE    a moderator's decision

stdout is data, stderr is talk; errors are lower case, with a hint when we can guess, and never a traceback.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from countermark.errors import CountermarkError
from countermark_server import cli_accounts, cli_log, cli_orgs
from countermark_server.console import DATA, PROGRAM, Group, account_of, say, settings_of
from countermark_server.contradiction import ContradictionError


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
def commands() -> None:
    """Run a package registry whose every file and decision is in a witnessed log and in TUF."""


@commands.command()
@DATA
@click.option("--origin", required=True, help="The log's name, such as registry.example.com/main; for ever.")
@click.option(
    "--base-url", default="", help="Where clients reach the registry; default: what `up` listens on."
)
@click.option("--bit-length", default=12, show_default=True, help="2^N bins: 12 up to 3 million files.")
@click.option(
    "--predecessor",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Final checkpoint of the frozen log to go on from.",
)
@click.option(
    "--predecessor-trust", type=click.Path(path_type=Path), metavar="FILE", help="That log's trust file."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ROLE=URI",
    help="Where the online key of bins, snapshot or timestamp lies already; else one is made.",
)
def init(
    data: Path,
    origin: str,
    base_url: str,
    bit_length: int,
    *,
    predecessor: Path | None,
    predecessor_trust: Path | None,
    keys: tuple[str, ...],
) -> None:
    """Make a data directory: online keys, a witness, and ceremony-input.json."""
    from countermark_server.operate.initialise import INPUT_FILE, initialise  # noqa: PLC0415
    from countermark_server.operate.succession import read_predecessor  # noqa: PLC0415

    before = None
    if predecessor is not None and predecessor_trust is not None:
        before = read_predecessor(predecessor, predecessor_trust, origin, now=int(time.time()))
        say(f"goes on from {before}: compare it with what `freeze` printed there")
    elif predecessor is not None or predecessor_trust is not None:
        raise click.UsageError("--predecessor and --predecessor-trust go together")
    places = dict(key.partition("=")[::2] for key in keys)
    made = initialise(data, origin, base_url, bit_length=bit_length, predecessor=before, keys=places)
    say(f"initialised {origin}; public halves, by the SHA-256 of their SPKI:")
    for name, print_ in made.fingerprints.items():
        click.echo(f"{name:<12} {print_}")
    click.echo(f"{'witness':<12} {made.witness}")
    say(f"next: a ceremony with {data / INPUT_FILE}, then `{PROGRAM} adopt --data {data} OUT`")


@commands.command()
@DATA
@click.argument("ceremony", metavar="CEREMONY_OUT", type=click.Path(path_type=Path))
def adopt(data: Path, ceremony: Path) -> None:
    """Verify a finished ceremony and publish its metadata. The first one creates the log.

    A later one may be adopted while the registry runs: it is in force once the log holds it.
    """
    from countermark_server.operate import adoption, renewal  # noqa: PLC0415

    bring_home = renewal.renew if renewal.is_later(ceremony) else adoption.adopt
    adopted = bring_home(settings_of(data), ceremony, now=int(time.time()))
    say(f"adopted: trust file {adopted.trust.version} of {adopted.trust.origin}")
    if adopted.trial:
        say("trial registry: every client will say so")
    click.echo(adopted.words)


@commands.command()
@DATA
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the registry answers.",
)
@click.option("--ceremony", type=click.Path(path_type=Path), help="Adopt this finished ceremony first.")
@click.option("--trial", is_flag=True, help="Without a ceremony: play one with fresh keys, marked as trial.")
@click.option("--origin", default=None, help="The origin of a registry that --trial has to initialise.")
@click.option("--bit-length", default=8, show_default=True, help="2^N bins of a registry that --trial makes.")
@click.option("--accept-unwitnessed-start", is_flag=True, help="Start the log without its witness quorum.")
def up(
    data: Path,
    listen: str,
    ceremony: Path | None,
    *,
    trial: bool,
    origin: str | None,
    bit_length: int,
    accept_unwitnessed_start: bool,
) -> None:
    """Run a whole registry: witness, log, timestamper, tufrepo, scan and web."""
    from countermark_server.operate import up as upping  # noqa: PLC0415
    from countermark_server.stopping import stop_on_signals  # noqa: PLC0415

    request = upping.Request(
        data,
        listen,
        ceremony=ceremony,
        trial=trial,
        origin=origin or upping.TRIAL_ORIGIN,
        bit_length=bit_length,
        accept_unwitnessed=accept_unwitnessed_start,
    )
    upping.run(request, stop_on_signals(), click.echo)


@commands.command()
@click.argument("station", type=click.Choice(["log", "scan", "tufrepo"]))
@DATA
@click.option("--accept-unwitnessed-start", is_flag=True, help="log only: start without the witness quorum.")
def work(station: str, data: Path, *, accept_unwitnessed_start: bool) -> None:
    """Run one station until SIGTERM."""
    from countermark_server import worker  # noqa: PLC0415

    options: dict[str, Any] = {}
    if accept_unwitnessed_start:
        if station != "log":
            raise click.UsageError("--accept-unwitnessed-start is for the log only")
        options["accept_unwitnessed"] = True
    worker.work(station, settings_of(data), **options)


@commands.command("trust-package")
@DATA
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--url", default="", help="Where clients reach the registry; default: registry.base_url.")
def trust_package_command(data: Path, out: Path, url: str) -> None:
    """Make the wheel, the file and the words by which a fleet gets its first root."""
    from countermark_server.operate.trustpackage import trust_package, write_package  # noqa: PLC0415
    from countermark_server.stores import places  # noqa: PLC0415

    settings = settings_of(data)
    registry = settings.registry
    made = trust_package(places.public(settings), registry.origin, url or registry.base_url)
    write_package(out, made)
    say(f"wrote {out / made.wheel}; tell the words by a way that does not lead through the registry")
    click.echo(made.words)


def _decision(kind: str, text: str) -> None:
    """Add the command of one kind of decision."""

    @commands.command(kind, help=text)
    @DATA
    @click.argument("project")
    @click.argument("filename")
    @click.option(
        "--reason", required=True, metavar="CODE", help="A closed code; a wrong one lists them all."
    )
    @click.option("--case", default=None, metavar="ID", help="16 bytes in hex; the entry carries it.")
    @click.option(
        "--moderator",
        default="moderator",
        show_default=True,
        metavar="LOGIN",
        help="Who decides; an account is made when there is none. The entry shows its pseudonym.",
    )
    def command(
        data: Path, project: str, filename: str, *, reason: str, case: str | None, moderator: str
    ) -> None:
        from countermark_server.moderation.decisions import Decision  # noqa: PLC0415

        settings = settings_of(data)
        account = account_of(settings, moderator)
        _decide(settings, Decision(kind, project, filename, reason, account, case))


for _command in (*cli_log.COMMANDS, *cli_accounts.COMMANDS, *cli_orgs.COMMANDS):
    commands.add_command(_command)
_decision("hold", "Withhold a file at once, until somebody decides about it.")
_decision("clear", "End a hold, or give back what was taken down: the file is listed again.")
_decision("takedown", "Withdraw a file; its name stays spent, its entry stays in the log.")


def _decide(settings: Any, decision: Any) -> None:
    from countermark.errors import NetworkError, PolicyError  # noqa: PLC0415
    from countermark_server import db, signing  # noqa: PLC0415
    from countermark_server.errors import ServerError  # noqa: PLC0415
    from countermark_server.moderation.decisions import Desk  # noqa: PLC0415
    from countermark_server.moderation.station import settle  # noqa: PLC0415

    engine, origin = db.open_engine(settings.database_url), settings.registry.origin
    signer = signing.role_signer(settings, "moderation")
    desk = Desk(engine, origin=origin, signer=signer, wait=settings.web.wait, clock=time.time)
    try:
        decided = desk.decide(decision)
    except ServerError as error:
        raise PolicyError(error.detail) from None
    settle(engine, now=int(time.time()))
    for done in decided:
        if not done.published:
            raise NetworkError(
                f"{done.kind} is proposed and not public in the log yet", hint="is `work log` running?"
            )
        click.echo(f"{decision.filename}: {done.kind} is entry #{done.index}")


def main() -> None:
    """Run a command; every error becomes a sentence and an exit code, never a traceback."""
    try:
        commands.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.Abort:
        say("stopped")
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (CountermarkError, ContradictionError) as error:
        say(f"error: {error}")
        if error.hint:
            say(f"hint: {error.hint}")
        sys.exit(error.exit_code)
    except PermissionError as error:
        say(f'error: cannot open "{error.filename}": {error.strerror}')
        say("hint: run this as the user the data directory belongs to")
        sys.exit(2)
    except Exception as error:
        if os.environ.get("COUNTERMARK_DEBUG"):
            raise
        say(f"error: {type(error).__name__}: {error}")
        say("hint: COUNTERMARK_DEBUG=1 shows where")
        sys.exit(1)


if __name__ == "__main__":
    main()
