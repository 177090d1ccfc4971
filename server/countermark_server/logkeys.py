"""Which key sets of the log must sign today: those of the trust file, and for seven days those of the one before.

    logkeys.follow(connection, before, now=now)     adopt: the trust file that comes demands other keys than these
    logkeys.check(database_url, trust, vkeys, now=now)   the log's start: every set that must sign is here

The seven days are the overlap in which clients, bundles and monitors may still hold the older trust file. The row is
of this machine; a rebuilt database has forgotten it, and then the operator counts the days.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from countermark.errors import UsageError
from countermark.rules import Key
from countermark.tlog.note import VerifierKey
from countermark.trustfile import TrustFile
from countermark_server import db
from countermark_server.ruleview import SqlView

OVERLAP = timedelta(days=7)
_BEFORE: Key = ("tufrepo", "log-keys")  # beside tufrepo's own rows, which a rebuild makes anew


def follow(connection: Connection, before: Sequence[VerifierKey], *, now: int) -> None:
    """Another key set follows these keys from now on; they sign on for the overlap."""
    with SqlView(connection, db.tufrepo_state) as view:
        view.put(_BEFORE, {"keys": [key.format() for key in before], "since": now})


def check(database_url: str, trust: TrustFile, here: Collection[VerifierKey], *, now: int) -> None:
    """UsageError: a set that must sign is not among these keys."""
    if not set(trust.log_keys) <= set(here):
        raise UsageError(
            "the log's keys on this machine are not those of the trust file",
            hint="`log.keys` names the sets that sign; `countermark-server log-keys` shows which there are",
        )
    engine = db.open_engine(database_url)
    try:
        with db.read(engine) as connection:
            found = SqlView(connection, db.tufrepo_state).get(_BEFORE)
    except SQLAlchemyError:
        return  # no tables: the log says so in a moment
    finally:
        engine.dispose()
    until = 0 if found is None else found["since"] + int(OVERLAP.total_seconds())
    if found is not None and now < until and not set(found["keys"]) <= {key.format() for key in here}:
        raise UsageError(
            f"the log's older keys must sign for {(until - now) // 3600} hours more: who holds the older trust "
            "file demands them",
            hint="name both sets in `log.keys`",
        )
