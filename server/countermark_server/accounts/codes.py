"""One-time codes: how a person signs in without a password.

    K7QM-2XHD-94TF-R3WN        80 bits, good for ten minutes, once

The operator makes one (`countermark-server login-code LOGIN`) and hands it over; `countermark login` types it in.
Only its SHA-256 is kept. Case, dashes and blanks do not matter when it is typed.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

from sqlalchemy import Connection, select, update

from countermark.errors import UsageError
from countermark_server import db
from countermark_server.accounts.people import (
    Account,
    Randomness,
    find_account,
    get_account,
    is_organisation,
)
from countermark_server.errors import ServerError

CODE_BYTES = 10
VALID_SECONDS = 600  # long enough to walk over or paste, short enough to forget safely


def create_login_code(
    connection: Connection,
    login: str,
    *,
    now: int,
    valid_for: int = VALID_SECONDS,
    randomness: Randomness = secrets.token_bytes,
) -> str:
    """A fresh code for this login's account. UsageError: there is no such account."""
    account = find_account(connection, login)
    if account is None:
        raise UsageError(f"no account {login!r}", hint="`countermark-server account add` makes one")
    if is_organisation(connection, account.id):
        raise UsageError(
            f"{login!r} is an organisation, as which nobody signs in", hint="a code for one of its owners"
        )
    if account.owner is not None:
        raise UsageError(
            f"{login!r} is a service account, as which nobody signs in",
            hint="its owner makes its tokens: `countermark tokens make --for`",
        )
    plain = base64.b32encode(randomness(CODE_BYTES)).decode()
    connection.execute(
        db.login_code.insert().values(
            code_sha256=_digest(plain), account_id=account.id, expires=now + valid_for, used=None
        )
    )
    return "-".join(plain[at : at + 4] for at in range(0, len(plain), 4))


def redeem_login_code(connection: Connection, code: str, *, now: int) -> Account:
    """Spend a code; the account it belongs to. ServerError `login-refused`: wrong, spent or expired."""
    table = db.login_code
    digest = _digest("".join(c for c in code.upper() if c.isalnum()))
    spent = connection.execute(
        update(table)
        .where(table.c.code_sha256 == digest, table.c.used.is_(None), table.c.expires >= now)
        .values(used=now)
    )
    if spent.rowcount == 1:  # whoever redeems the same code beside us finds no row: one sign-in per code
        account_id = connection.execute(
            select(table.c.account_id).where(table.c.code_sha256 == digest)
        ).scalar_one()
        if (account := get_account(connection, account_id)) is not None:
            return account
    raise ServerError("login-refused", "the one-time code is not valid: wrong, used before, or too old")


def _digest(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()
