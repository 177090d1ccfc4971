"""The command line of a registry about people: accounts, one-time codes, tokens.

countermark-server login-code --data DIR --login LOGIN            a person signs in with it, once
countermark-server account add|service|name --data DIR ...
countermark-server token list|revoke --data DIR ...               an operator's look at tokens, and their end
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import click

from countermark_server.console import DATA, Group, engine_of, say, settings_of


@click.command("login-code")
@DATA
@click.option("--login", required=True, help="Whose code; an account is made when there is none.")
def login_code(data: Path, login: str) -> None:
    """Print a code with which a person signs in, once and within ten minutes (`countermark login`)."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts import tokens  # noqa: PLC0415
    from countermark_server.accounts.codes import VALID_SECONDS, create_login_code  # noqa: PLC0415
    from countermark_server.accounts.people import add_account, find_account  # noqa: PLC0415

    now, settings = int(time.time()), settings_of(data)
    with db.write(engine_of(data)) as connection:
        person = find_account(connection, login)
        if person is None:
            person = add_account(connection, login, now=now)
            say(f"made account {person.id} for {login}")
        code = create_login_code(connection, login, now=now)
        # The client makes sure whom it sends the code to, for which it has to read: there, a registry that is not for
        # everybody needs a token before the person has one.
        if settings.access.mode == "token":
            ends = now + tokens.SESSION_SECONDS
            read = tokens.issue_token(
                connection,
                person.id,
                tokens.UPLOAD,
                now=now,
                expires=ends,
                name="sign-in",
                actions=[tokens.READ],
            )
            say(f"for an hour, with the code: COUNTERMARK_READ_TOKENS={settings.registry.base_url}={read}")
    click.echo(code)
    say(f"good once, for {VALID_SECONDS // 60} minutes: {login} types `countermark login URL` and this code")


@click.group(cls=Group)
def account() -> None:
    """People."""


@account.command("add")
@DATA
@click.argument("login")
def account_add(data: Path, login: str) -> None:
    """Make an account; prints its pseudonym."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import add_account  # noqa: PLC0415

    with db.write(engine_of(data)) as connection:
        click.echo(add_account(connection, login, now=int(time.time())).id)


@account.command("service")
@DATA
@click.argument("login")
@click.option("--owner", required=True, metavar="LOGIN", help="The person who makes its tokens.")
@click.option("--days", type=click.IntRange(1, 3660), required=True, help="How long it lives.")
def account_service(data: Path, login: str, owner: str, days: int) -> None:
    """Make a service account, as which nobody signs in; prints its pseudonym."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import add_service_account  # noqa: PLC0415

    now = int(time.time())
    with db.write(engine_of(data)) as connection:
        made = add_service_account(connection, login, owner=owner, expires=now + days * 86_400, now=now)
    click.echo(made.id)


@account.command("name")
@DATA
@click.argument("account_id", metavar="ID")
@click.argument("login")
def account_name(data: Path, account_id: str, login: str) -> None:
    """Say who is behind an account that `rebuild` found in the log."""
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import name_account  # noqa: PLC0415

    with db.write(engine_of(data)) as connection:
        name_account(connection, account_id, login)


@click.group(cls=Group)
def token() -> None:
    """Tokens of an account. Their secrets are known to nobody but who got them."""


@token.command("list")
@DATA
@click.argument("login")
def token_list(data: Path, login: str) -> None:
    """Print the tokens of an account, one JSON document a line."""
    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.people import find_account  # noqa: PLC0415
    from countermark_server.accounts.tokenroom import tokens_of  # noqa: PLC0415

    with db.read(engine_of(data)) as connection:
        found = find_account(connection, login)
        if found is None:
            raise UsageError(f"no account {login!r}")
        for each in tokens_of(connection, found.id):
            click.echo(json.dumps(each, sort_keys=True))


@token.command("revoke")
@DATA
@click.argument("token_id", metavar="ID")
def token_revoke(data: Path, token_id: str) -> None:
    """End a token at once, for ever, by the id that `token list` and refusals show."""
    from sqlalchemy import select  # noqa: PLC0415

    from countermark.errors import UsageError  # noqa: PLC0415
    from countermark_server import db  # noqa: PLC0415
    from countermark_server.accounts.tokenroom import revoke_token  # noqa: PLC0415

    with db.write(engine_of(data)) as connection:
        if connection.execute(select(db.token.c.id).where(db.token.c.id == token_id)).first() is None:
            raise UsageError(f"no token {token_id!r}", hint="`token list LOGIN` shows their ids")
        ended = revoke_token(connection, token_id, now=int(time.time()))
    say(f"token {token_id} ({ended['name'] or ended['kind']}) of {ended['login']} is revoked")


COMMANDS: Final = (login_code, account, token)
