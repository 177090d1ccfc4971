"""The command line of a registry: arguments and printing only.

    countermark-server init --data DIR --origin NAME      online keys; writes what a ceremony needs
    countermark-server up --data DIR --listen HOST:PORT   everything in one command
    countermark-server work log|scan|tufrepo              one station, where `up` is too small
    countermark-server fsck|rebuild --data DIR            check what is stored; make again what follows from it
    countermark-server hold|clear|takedown --data DIR PROJECT FILENAME --reason CODE    a moderator's decision

stdout is data, stderr is talk; errors are lower case, with a hint when we can guess, and never a traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from countermark.errors import CountermarkError
from countermark_server.contradiction import ContradictionError

PROGRAM = "countermark-server"
_DATA = click.option("--data", type=click.Path(path_type=Path), required=True, help="The data directory.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
def commands() -> None:
    """Run a package registry whose every file and decision is in a witnessed log and in TUF."""


@commands.command()
@_DATA
@click.option("--origin", required=True, help="The log's name, such as registry.example.com/main; for ever.")
@click.option(
    "--base-url", default="", help="Where clients reach the registry; default: what `up` listens on."
)
@click.option("--bit-length", default=12, show_default=True, help="2^N bins: 12 up to 3 million files.")
def init(data: Path, origin: str, base_url: str, bit_length: int) -> None:
    """Make a data directory: online keys, a witness, and ceremony-input.json."""
    from countermark_server.operate.initialise import INPUT_FILE, initialise  # noqa: PLC0415

    made = initialise(data, origin, base_url, bit_length=bit_length)
    say(f"initialised {origin}; public halves, by the SHA-256 of their SPKI:")
    for name, print_ in made.fingerprints.items():
        click.echo(f"{name:<12} {print_}")
    click.echo(f"{'witness':<12} {made.witness}")
    say(f"next: a ceremony with {data / INPUT_FILE}, then `{PROGRAM} adopt --data {data} OUT`")


@commands.command()
@_DATA
@click.argument("ceremony", metavar="CEREMONY_OUT", type=click.Path(path_type=Path))
def adopt(data: Path, ceremony: Path) -> None:
    """Verify a finished ceremony, publish its metadata and create the log."""
    from countermark_server.operate import adoption  # noqa: PLC0415

    adopted = adoption.adopt(_settings(data), ceremony, now=int(time.time()))
    say(f"adopted: trust file {adopted.trust.version} of {adopted.trust.origin}")
    if adopted.trial:
        say("trial registry: every client will say so")
    click.echo(adopted.words)


@commands.command()
@_DATA
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT")
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
    from countermark_server.worker import stop_on_signals  # noqa: PLC0415

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
@_DATA
@click.option("--accept-unwitnessed-start", is_flag=True, help="log only: start without the witness quorum.")
def work(station: str, data: Path, *, accept_unwitnessed_start: bool) -> None:
    """Run one station until SIGTERM."""
    from countermark_server import worker  # noqa: PLC0415

    options: dict[str, Any] = {}
    if accept_unwitnessed_start:
        if station != "log":
            raise click.UsageError("--accept-unwitnessed-start is for the log only")
        options["accept_unwitnessed"] = True
    worker.work(station, _settings(data), **options)


@commands.command("login-code")
@_DATA
@click.option("--login", required=True, help="Whose code; an account is made when there is none.")
def login_code(data: Path, login: str) -> None:
    """Print a one-time code with which a person signs in (`countermark login`)."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.codes import create_login_code  # noqa: PLC0415
    from countermark_server.accounts.people import add_account, find_account  # noqa: PLC0415

    now = int(time.time())
    with db.write(_engine(data)) as connection:
        if find_account(connection, login) is None:
            say(f"made account {add_account(connection, login, now=now).id} for {login}")
        code = create_login_code(connection, login, now=now)
    click.echo(code)


@commands.group()
def account() -> None:
    """People."""


@account.command("add")
@_DATA
@click.argument("login")
def account_add(data: Path, login: str) -> None:
    """Make an account; prints its pseudonym."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import add_account  # noqa: PLC0415

    with db.write(_engine(data)) as connection:
        click.echo(add_account(connection, login, now=int(time.time())).id)


@account.command("name")
@_DATA
@click.argument("account_id", metavar="ID")
@click.argument("login")
def account_name(data: Path, account_id: str, login: str) -> None:
    """Say who is behind an account that `rebuild` found in the log."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import name_account  # noqa: PLC0415

    with db.write(_engine(data)) as connection:
        name_account(connection, account_id, login)


@commands.command()
@click.option("--data", type=click.Path(path_type=Path), help="The data directory of our own log.")
@click.option("--url", help="Instead: any log in C2SP tlog-tiles, read over HTTP.")
@click.option(
    "--vkey", multiple=True, help="With --url: a key that must have signed its checkpoint; repeat it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def fsck(data: Path | None, url: str | None, vkey: tuple[str, ...], *, as_json: bool) -> None:
    """Check every tile and entry of a log against what it signed, and our own database against that."""
    from countermark.errors import EvidenceError  # noqa: PLC0415

    if (data is None) == (url is None) or bool(vkey) != bool(url):
        raise click.UsageError("either --data DIR, or --url URL with --vkey VKEY")
    checked = _fsck_url(url, vkey) if url else _fsck_data(data)
    if as_json:
        click.echo(json.dumps(checked, sort_keys=True, indent=1))
    else:
        for finding in checked["findings"]:
            click.echo(finding)
    if checked["findings"]:
        raise EvidenceError(f"{len(checked['findings'])} findings")
    say("no findings" if data else "no findings: {entries} entries, {tiles} tiles".format(**checked))


def _fsck_data(data: Path | None) -> dict[str, Any]:
    from countermark_server import adopted  # noqa: PLC0415
    from countermark_server.log.fsck import check_log  # noqa: PLC0415
    from countermark_server.stores import places  # noqa: PLC0415

    assert data is not None
    settings = _settings(data)
    public = places.public(settings)
    trust = adopted.trust_file(public)
    findings = check_log(public, _engine(data), trust, raw_add=settings.testing.raw_add)
    return {"findings": findings, "origin": trust.origin}


def _fsck_url(url: str, vkeys: tuple[str, ...]) -> dict[str, Any]:
    from countermark.errors import MalformedError, UsageError  # noqa: PLC0415
    from countermark.fetch import HttpFetcher  # noqa: PLC0415
    from countermark.tlog.note import VerifierKey  # noqa: PLC0415
    from countermark_server.log.httpcheck import check_url  # noqa: PLC0415

    try:
        keys = [VerifierKey.parse(vkey) for vkey in vkeys]
    except MalformedError as error:
        raise UsageError(f"--vkey: {error}") from None
    return check_url(url, keys, HttpFetcher(), say=say).to_json()


@commands.command()
@_DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def rebuild(data: Path, *, as_json: bool) -> None:
    """Make tiles and the database's public part again from the entry bundles; the registry must not run."""
    from countermark_server.operate.rebuild import rebuild as run  # noqa: PLC0415

    rebuilt = run(_settings(data), _Teller().tell).to_json()
    if as_json:
        click.echo(json.dumps(rebuilt, sort_keys=True, indent=1))
    missing = "{tiles} tiles, {entries} entries and {submissions} submissions were missing".format(**rebuilt)
    say(f"{rebuilt['origin']} at size {rebuilt['tree_size']}: {missing}")
    for account_id in rebuilt["accounts"]:
        say(
            f"account {account_id} has nobody behind it: `{PROGRAM} account name --data {data} {account_id} LOGIN`"
        )
    say(f"next: `{PROGRAM} fsck --data {data}`, then start the log")


@commands.command()
@_DATA
@click.option(
    "--reason", type=click.Choice(["compromised", "retired", "successor"]), help="What the entry says."
)
@click.option("--cancel", is_flag=True, help="Open the doors again, before the entry is made.")
@click.option(
    "--wait", default=600.0, show_default=True, metavar="SECONDS", help="For what was taken before."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def freeze(data: Path, reason: str | None, *, cancel: bool, wait: float, as_json: bool) -> None:
    """End the log: doors close, what was taken is finished, one last entry and its checkpoint follow. For ever."""
    from countermark_server.operate import freeze as freezing  # noqa: PLC0415

    if cancel == (reason is not None):
        raise click.UsageError("either --reason CODE, or --cancel")
    if reason is None:
        freezing.cancel(_settings(data))
        say("the doors are open again")
        return
    frozen = freezing.freeze(_settings(data), reason, patience=wait, say=say).to_json()
    if as_json:
        click.echo(json.dumps(frozen, sort_keys=True, indent=1))
    say("{origin} is frozen by entry #{entry}, at size {tree_size}, root hash {root_hash}".format(**frozen))
    say("keep witness, log, timestamper, tufrepo and web running for as long as people install from here")


class _Teller:
    """Says how far a long command is, once a second."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def tell(self, what: str, done: int, of: int) -> None:
        if time.monotonic() - self._at >= 1:
            self._at = time.monotonic()
            say(f"{what}: {done} of {of}")


@commands.command("import")
@_DATA
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--source", required=True, metavar="WORD", help="Where the history comes from; entries show it."
)
@click.option(
    "--skip-unfit", is_flag=True, help="Leave out lines that can't be imported, instead of stopping."
)
@click.option("--abandon-open", is_flag=True, help="End the import that is open, instead of waiting for it.")
@click.option("--json", "as_json", is_flag=True, help="A summary in JSON on stdout.")
def import_(
    data: Path, manifest: Path, *, source: str, skip_unfit: bool, abandon_open: bool, as_json: bool
) -> None:
    """Append existing history to the log: files that nobody signed, recorded and shown as imported."""
    from countermark_server import db, signing  # noqa: PLC0415
    from countermark_server.operate.importing import Importer, read_file  # noqa: PLC0415
    from countermark_server.published import Published  # noqa: PLC0415
    from countermark_server.stores import places  # noqa: PLC0415

    settings = _settings(data)
    importer = Importer(
        db.open_engine(settings.database_url),
        places.blobs(settings),
        Published(places.public(settings), time.time),
        origin=settings.registry.origin,
        signer=signing.role_signer(settings, "registry"),
        source=source,
        say=say,
        clock=time.time,
    )
    summary = importer.run(read_file(manifest), skip_unfit=skip_unfit, abandon=abandon_open)
    if as_json:
        click.echo(json.dumps(summary.to_json(), sort_keys=True, indent=1))
    else:
        for name, value in summary.to_json().items():
            click.echo(f"{name:<20} {value}")


@commands.command("give-project")
@_DATA
@click.argument("project")
@click.argument("login")
def give_project(data: Path, project: str, login: str) -> None:
    """Name the first owner of a project that an import made and nobody owns."""
    from countermark_server import db, signing  # noqa: PLC0415
    from countermark_server.operate.giving import give  # noqa: PLC0415

    settings = _settings(data)
    account = _account(settings, login)
    index = give(
        db.open_engine(settings.database_url),
        project,
        account,
        origin=settings.registry.origin,
        signer=signing.role_signer(settings, "registry"),
        wait=settings.web.wait,
        now=int(time.time()),
    )
    click.echo(f"{project}: {login} is its owner by entry #{index}")


def _decision(kind: str, text: str) -> None:
    """Add the command of one kind of decision."""

    @commands.command(kind, help=text)
    @_DATA
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

        settings = _settings(data)
        account = _account(settings, moderator)
        _decide(settings, Decision(kind, project, filename, reason, account, case))


_decision("hold", "Withhold a file at once, until somebody decides about it.")
_decision("clear", "End a hold, or give back what was taken down: the file is listed again.")
_decision("takedown", "Withdraw a file; its name stays spent, its entry stays in the log.")


def _account(settings: Any, login: str) -> str:
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import add_account, find_account  # noqa: PLC0415

    with db.write(db.open_engine(settings.database_url)) as connection:
        found = find_account(connection, login) or add_account(connection, login, now=int(time.time()))
        return found.id


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


def _settings(data: Path) -> Any:
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server.settings import load  # noqa: PLC0415

    if not (data / "settings.toml").exists():
        raise UsageError(f'"{data}" is not initialised', hint=f"{PROGRAM} init --data DIR --origin NAME")
    return load(data)


def _engine(data: Path) -> Any:
    from countermark_server import db  # noqa: PLC0415

    return db.open_engine(_settings(data).database_url)


def say(text: str) -> None:
    """One line of talk."""
    click.echo(f"{PROGRAM}: {text}", err=True)


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
