"""The command line of a registry about organisations, and about who runs it.

countermark-server org apply --data DIR FILE [--dry-run]      make the organisations of a file so
countermark-server org export --data DIR                      print all of them, as such a file
countermark-server org settle|orphans --data DIR              who came and went, in the log; what nobody owns
countermark-server admin grant|revoke|list --data DIR ...     who may do what for the registry itself
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from countermark_server.console import DATA, Group, counted, engine_of, say, settings_of

ROLES: Final = click.Choice(["admin", "moderator"])


@click.group(cls=Group)
def org() -> None:
    """Organisations, their teams and their names."""


@org.command("apply")
@DATA
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
def org_apply(data: Path, file: Path, *, dry_run: bool) -> None:
    """Make the organisations that FILE names as it says; prints what changes, a line each."""
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts import orgapply, orgfile  # noqa: PLC0415

    engine, text = engine_of(data), _text(file, most=orgfile.FILE_MAX_BYTES)
    try:
        wanted = orgfile.parse(text)
    except UsageError as error:
        raise UsageError(f'"{file}": {error}', hint=error.hint) from None
    with db.write(engine) as connection:
        lines = orgapply.apply(connection, wanted, now=int(time.time()))
        left = sorted({each.name for each in orgapply.stored(connection)} - {each.name for each in wanted})
        remarks = orgapply.strangers(connection, wanted)
        if dry_run:
            connection.rollback()
    for line in lines:
        click.echo(line)
    for remark in remarks:
        say(f"remark: {remark}: a grant takes nothing away")
    # Committed. If we stop here the doors know already and the log does not: the same file again tells it.
    if not dry_run:
        _settle(data)
    if left:
        say(f"left as they are, since the file does not name them: {', '.join(left)}")
    say(f"{counted(len(lines), 'change')}{', none of them made: --dry-run' if dry_run else ''}")


@org.command("export")
@DATA
def org_export(data: Path) -> None:
    """Print all organisations as a file that `org apply` takes."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts import orgapply, orgfile  # noqa: PLC0415

    with db.read(engine_of(data)) as connection:
        click.echo(orgfile.format_file(orgapply.stored(connection)), nl=False)


@org.command("settle")
@DATA
def org_settle(data: Path) -> None:
    """Tell the log who came and went with today's teams; prints what only an owner's key can say, too."""
    say(f"{counted(len(_settle(data)), 'change')} of projects")


@org.command("orphans")
@DATA
def org_orphans(data: Path) -> None:
    """Print the projects of which no owner is a person here any more, and whose they are then."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.seats import orphans  # noqa: PLC0415

    with db.read(engine_of(data)) as connection:
        for each in orphans(connection, now=int(time.time())):
            whose = f"of {each.organisation}" if each.organisation else f"of nobody: {' '.join(each.owners)}"
            click.echo(f"{each.project}  {whose}")


def _settle(data: Path) -> list[str]:
    from sqlalchemy import select  # noqa: PLC0415

    from countermark_server import db, orgtables, signing  # noqa: PLC0415
    from countermark_server.accounts.seats import Seats  # noqa: PLC0415
    from countermark_server.asking import Answers  # noqa: PLC0415

    settings = settings_of(data)
    engine = db.open_engine(settings.database_url)
    with db.read(engine) as connection:
        if connection.execute(select(orgtables.seat.c.since).limit(1)).first() is None:
            return []  # nobody is anywhere because of a team
    registry, origin = signing.role_signer(settings, "registry"), settings.registry.origin
    said = Seats(engine, Answers(engine), registry, origin=origin, wait=0.0, clock=time.time).settle()
    for line in said:
        say(line)
    return said


def _text(file: Path, *, most: int) -> str:
    from countermark.errors import UsageError  # noqa: PLC0415

    try:
        raw = file.read_bytes()
        if len(raw) > most:
            raise UsageError(f'"{file}" has {len(raw)} bytes, at most {most} are read')
        return raw.decode()
    except OSError as error:
        raise UsageError(f'cannot read "{file}": {error.strerror}') from None
    except UnicodeDecodeError:
        raise UsageError(f'"{file}" is not UTF-8') from None


@click.group(cls=Group)
def admin() -> None:
    """Who runs this registry, beside whoever has its data directory."""


@admin.command("grant")
@DATA
@click.argument("login")
@click.option("--role", type=ROLES, default="admin", show_default=True, help="What they may do.")
def admin_grant(data: Path, login: str, role: str) -> None:
    """Give an account a role in the registry. The first admin is made by this command."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.organisations import grant_role  # noqa: PLC0415

    with db.write(engine_of(data)) as connection:
        new = grant_role(connection, _person(connection, login), role, now=int(time.time()))
    say(f"{login} is {role}{'' if new else ' already'}")


@admin.command("revoke")
@DATA
@click.argument("login")
@click.option("--role", type=ROLES, default="admin", show_default=True, help="What they shall do no more.")
def admin_revoke(data: Path, login: str, role: str) -> None:
    """Take a role back that `admin grant` gave. What a group of the provider gives, the provider takes."""
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.organisations import has_role, withdraw_role  # noqa: PLC0415

    with db.write(engine_of(data)) as connection:
        account_id = _person(connection, login)
        if not withdraw_role(connection, account_id, role):
            raise UsageError(f"{login!r} was not granted {role} here")
        still = has_role(connection, account_id, role)
    say(f"{login} is {role} by a group of the identity provider still" if still else f"{login} is no {role}")


@admin.command("list")
@DATA
def admin_list(data: Path) -> None:
    """Print who has which role, and who gave it."""
    from sqlalchemy import select  # noqa: PLC0415

    from countermark_server import db, orgtables  # noqa: PLC0415

    table = orgtables.registry_role
    query = select(db.account.c.login, table.c.role, table.c.source).join(
        db.account, db.account.c.id == table.c.account_id
    )
    with db.read(engine_of(data)) as connection:
        for login, role, source in connection.execute(query.order_by(db.account.c.login, table.c.role)):
            click.echo(f"{role:<10} {source:<9} {login}")


def _person(connection: object, login: str) -> str:
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server.accounts.people import find_account, is_organisation  # noqa: PLC0415

    found = find_account(connection, login)  # type: ignore[arg-type]
    if found is None or found.owner is not None or is_organisation(connection, found.id):  # type: ignore[arg-type]
        raise UsageError(
            f"{login!r} is no account of a person", hint="`countermark-server account add` makes one"
        )
    return found.id


COMMANDS: Final = (org, admin)
