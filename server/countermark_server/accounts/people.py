"""People: an account is a pseudonym of 16 random bytes, and the login it belongs to.

    8f14e45fceea167a5a36dedd4bea2543  <->  ada@example.com

The left side goes into leaves and stays there for ever; the right side never leaves this table.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select, update

from countermark.errors import UsageError
from countermark.limits import NAME_MAX_CHARS
from countermark_server import db, orgtables

LOST = "lost:"  # how the login of an account begins that the log names, and of whose person no row tells
Randomness = Callable[[int], bytes]


@dataclass(frozen=True)
class Account:
    """One person, as this registry knows them; or a service account, which has an owner and a last day."""

    id: str
    login: str
    owner: str | None = None
    expires: int | None = None


def add_account(
    connection: Connection, login: str, *, now: int, randomness: Randomness = secrets.token_bytes
) -> Account:
    """Make an account. UsageError: the login is taken, or no login at all."""
    _check_free(connection, login)
    account = Account(randomness(16).hex(), login)
    connection.execute(db.account.insert().values(id=account.id, login=login, created=now))
    return account


def add_service_account(
    connection: Connection,
    login: str,
    *,
    owner: str,
    expires: int,
    now: int,
    randomness: Randomness = secrets.token_bytes,
) -> Account:
    """Make an account that nobody signs in as. UsageError: its owner is no person, or the login is taken."""
    held = find_account(connection, owner)
    if held is None or held.owner is not None or is_organisation(connection, held.id):
        raise UsageError(f"{owner!r} is no account of a person, who could own a service account")
    _check_free(connection, login)
    account = Account(randomness(16).hex(), login, held.id, expires)
    connection.execute(db.account.insert().values(created=now, **vars(account)))
    return account


def name_account(connection: Connection, account_id: str, login: str) -> None:
    """Put a person behind an account that `rebuild` found in the log. UsageError: it is another one, or has one."""
    _check_free(connection, login)
    table = db.account
    named = (
        update(table).where(table.c.id == account_id, table.c.login == LOST + account_id).values(login=login)
    )
    if connection.execute(named).rowcount != 1:
        raise UsageError(f"{account_id} is no account that a rebuild left without its person")


def _check_free(connection: Connection, login: str) -> None:
    if not login or len(login) > NAME_MAX_CHARS or not login.isprintable() or login != login.strip():
        raise UsageError(f"{login!r} is no login: 1 to {NAME_MAX_CHARS} printable characters")
    if find_account(connection, login) is not None:
        raise UsageError(f"the login {login!r} has an account")


def find_account(connection: Connection, login: str) -> Account | None:
    """The account of this login."""
    return _account(
        connection.execute(select(db.account).where(db.account.c.login == login)).mappings().first()
    )


def get_account(connection: Connection, account_id: str) -> Account | None:
    """The account with this pseudonym; None also when the person was erased."""
    return _account(
        connection.execute(select(db.account).where(db.account.c.id == account_id)).mappings().first()
    )


def is_organisation(connection: Connection, account_id: str) -> bool:
    """Whether this account is an organisation's: it owns projects in the log, and nobody signs in as it."""
    table = orgtables.organisation
    return (
        connection.execute(select(table.c.name).where(table.c.account_id == account_id)).first() is not None
    )


def _account(row: RowMapping | None) -> Account | None:
    return None if row is None else Account(row["id"], row["login"], row["owner"], row["expires"])
