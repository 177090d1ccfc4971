"""Commands about a registry and its log: look at it, check it, make it again, end it. Part of cli.py.

countermark-server status --data DIR                  whether every part works, and what waits
countermark-server fsck|rebuild --data DIR            check what is stored; make again what follows from it
countermark-server import --data DIR --source WORD MANIFEST [--files DIR]   existing history, recorded as imported
countermark-server give-project --data DIR PROJECT LOGIN         who owns what only an import made
countermark-server freeze --data DIR --reason CODE    the last entry; for ever
countermark-server online-keys --data DIR             TUF keys of this machine, and one more of them
countermark-server log-keys --data DIR --new          a key set that follows the log's
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from countermark_server.console import DATA, PARTS, PROGRAM, counted, engine_of, say, settings_of


@click.command()
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
        raise EvidenceError(counted(len(checked["findings"]), "finding"))
    say("no findings" if data else "no findings: {entries} entries, {tiles} tiles".format(**checked))


def _fsck_data(data: Path | None) -> dict[str, Any]:
    from countermark_server import adopted  # noqa: PLC0415
    from countermark_server.log.fsck import check_log  # noqa: PLC0415
    from countermark_server.stores import places  # noqa: PLC0415

    assert data is not None
    settings = settings_of(data)
    public = places.public(settings)
    trust = adopted.trust_file(public)
    findings = check_log(public, engine_of(data), trust, raw_add=settings.testing.raw_add)
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


@click.command()
@DATA
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), help="Ask for this part alone; repeat it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(data: Path, parts: tuple[str, ...], *, as_json: bool) -> None:
    """Say whether each part works, how far the log is, and what waits. Exit code 3 or 4: something is wrong."""
    from countermark.errors import NetworkError, StaleError  # noqa: PLC0415
    from countermark.fetch import HttpFetcher  # noqa: PLC0415
    from countermark_server.operate import status as looking  # noqa: PLC0415

    fetcher = HttpFetcher(read_timeout=timedelta(seconds=5), deadline=timedelta(seconds=5))
    found = looking.look(settings_of(data), engine_of(data), fetcher, parts=parts, clock=time.time)
    if as_json:
        click.echo(json.dumps(found.to_json(), sort_keys=True, indent=1))
    else:
        for line in looking.lines(found):
            click.echo(line)
    if found.problems:
        worst = NetworkError if found.silent else StaleError
        raise worst("; ".join(found.problems))
    say("all is well")


@click.command()
@DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def rebuild(data: Path, *, as_json: bool) -> None:
    """Make tiles and the database's public part again from the entry bundles; the registry must not run."""
    from countermark_server.operate.rebuild import rebuild as run  # noqa: PLC0415

    rebuilt = run(settings_of(data), _Teller().tell).to_json()
    if as_json:
        click.echo(json.dumps(rebuilt, sort_keys=True, indent=1))
    missing = "{tiles} tiles, {entries} entries and {submissions} submissions were missing".format(**rebuilt)
    say(f"{rebuilt['origin']} at size {rebuilt['tree_size']}: {missing}")
    if any(rebuilt["imported"].values()):
        say(
            "of imported files, the bytes of {brought} were here, those of {without} are not: bring them with"
            " `import --files`".format(**rebuilt["imported"])
        )
    for account_id in rebuilt["accounts"]:
        say(
            f"account {account_id} has nobody behind it: `{PROGRAM} account name --data {data} {account_id} LOGIN`"
        )
    say(f"next: `{PROGRAM} fsck --data {data}`, then start the log")


@click.command()
@DATA
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
        freezing.cancel(settings_of(data))
        say("the doors are open again")
        return
    frozen = freezing.freeze(settings_of(data), reason, patience=wait, say=say).to_json()
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


@click.command("import")
@DATA
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--source", required=True, metavar="WORD", help="Where the history comes from; entries show it."
)
@click.option(
    "--skip-unfit", is_flag=True, help="Leave out lines that can't be imported, instead of stopping."
)
@click.option("--abandon-open", is_flag=True, help="End the import that is open, instead of waiting for it.")
@click.option(
    "--files",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Bring the bytes too, of these lines and of earlier imports' that have none: files of DIR and below.",
)
@click.option("--json", "as_json", is_flag=True, help="A summary in JSON on stdout.")
def import_(
    data: Path,
    manifest: Path,
    *,
    source: str,
    skip_unfit: bool,
    abandon_open: bool,
    files: Path | None,
    as_json: bool,
) -> None:
    """Append existing history to the log: files that nobody signed, recorded and shown as imported."""
    from countermark.errors import PolicyError, UsageError  # noqa: PLC0415
    from countermark_server import db, signing  # noqa: PLC0415
    from countermark_server.operate.bringing import Bringer  # noqa: PLC0415
    from countermark_server.operate.importing import Importer, read_file  # noqa: PLC0415
    from countermark_server.published import Published  # noqa: PLC0415
    from countermark_server.stores import places  # noqa: PLC0415

    if files is not None and not files.is_dir():
        raise UsageError(f'"{files}" is not a folder')  # before anything is logged
    settings, read = settings_of(data), read_file(manifest)
    engine, blobs = db.open_engine(settings.database_url), places.blobs(settings)
    published = Published(places.public(settings), time.time)
    importer = Importer(
        engine,
        blobs,
        published,
        origin=settings.registry.origin,
        signer=signing.role_signer(settings, "registry"),
        source=source,
        say=say,
        clock=time.time,
    )
    summary = importer.run(read, skip_unfit=skip_unfit, abandon=abandon_open).to_json()
    # In the log. If we stop here the same command brings the bytes.
    brought = None
    if files is not None:
        bringer = Bringer(settings, engine, blobs, published, say=say, clock=time.time)
        brought = bringer.run(read.lines, files)
        summary["files"] = brought.to_json()
    if as_json:
        click.echo(json.dumps(summary, sort_keys=True, indent=1))
    else:
        _tell(summary)
    if brought is not None and brought.without:
        raise PolicyError(
            f"{len(brought.without)} of {brought.imported} imported files are still without bytes",
            hint="put them into the folder and run this again: what is done stays done",
        )


def _tell(summary: Mapping[str, Any]) -> None:
    """A summary, a line for each count; what is named file by file was said before."""
    for name, value in summary.items():
        if name == "files":
            _tell({f"files {each}": counted for each, counted in value.items() if each != "without"})
        else:
            click.echo(f"{name:<20} {value}")


@click.command("give-project")
@DATA
@click.argument("project")
@click.argument("login")
def give_project(data: Path, project: str, login: str) -> None:
    """Name the first owner of a project that an import made and nobody owns."""
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server import db, signing  # noqa: PLC0415
    from countermark_server.accounts.people import find_account  # noqa: PLC0415
    from countermark_server.operate.giving import give  # noqa: PLC0415

    settings = settings_of(data)
    engine = db.open_engine(settings.database_url)
    with db.read(engine) as connection:
        found = find_account(connection, login)
    if found is None:  # a mistyped login must not own a project for ever
        hint = f"{PROGRAM} account add --data {data} {login}"
        raise UsageError(f"there is no account {login}; {project} stays without an owner", hint=hint)
    index = give(
        engine,
        project,
        found.id,
        origin=settings.registry.origin,
        signer=signing.role_signer(settings, "registry"),
        wait=settings.web.wait,
        now=int(time.time()),
    )
    click.echo(f"{project}: {login} is its owner by entry #{index}")


@click.command("online-keys")
@DATA
@click.option(
    "--new", "role", metavar="ROLE", help="Make one more key for bins, snapshot or timestamp, in a file."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def online_keys(data: Path, role: str | None, *, as_json: bool) -> None:
    """Show the online TUF keys that the settings lead to, with what a ceremony's plan needs of them."""
    from countermark_server import onlinekeys  # noqa: PLC0415
    from countermark_server.operate import keyring  # noqa: PLC0415

    settings = settings_of(data)
    if role is not None:
        uri = keyring.make(settings, role)
        said = " ".join((*onlinekeys.uris(settings, role), uri))
        say(f'made {uri}; next: {onlinekeys.setting_of(role)} = "{said}", and start its process again')
        return
    rows = []
    for found in keyring.every(settings):
        if isinstance(found, str):
            say(found)
        else:
            rows.append(vars(found))
    if as_json:
        click.echo(json.dumps(rows, sort_keys=True, indent=1))
    for row in () if as_json else rows:
        click.echo("{role:<10} {standing:<9} {fingerprint} {public_key} {uri}".format(**row))


@click.command("log-keys")
@DATA
@click.option("--new", is_flag=True, help="Make one more key set, in files; prints its number.")
@click.option("--policy", "number", type=int, metavar="N", help="Print the witness policy with key set N.")
def log_keys(data: Path, number: int | None, *, new: bool) -> None:
    """Make a key set that is to follow the log's present one, and the witness policy that names it."""
    from countermark_server.operate import keyring  # noqa: PLC0415

    if new is (number is not None):
        raise click.UsageError("either --new or --policy N")
    settings = settings_of(data)
    if number is not None:
        click.echo(keyring.policy_with(settings, number), nl=False)
        return
    made = keyring.make_log_keys(settings)
    say(f'made key set {made}; next: log.keys = "{settings.log.keys} {made}", and start the log again')
    click.echo(made)


COMMANDS: Final = (status, fsck, rebuild, freeze, import_, give_project, online_keys, log_keys)
