"""PEP 740 attestations of files: what came, whether it was checked, and which entry of the log says so.

    upload    expect(connection, submission, [0, 2], now=...)     objects 0 and 2 of the array are to be checked
    scan      claim -> check -> checked -> followed               one `attest` entry for each outcome
    index     of_file(connection, submission), shown              what doors tell and hand out

    verified      yes           signature, certificate, log inclusion, digest and publisher hold
                  no            one of them does not, and `reason` says which
                  not-checked   nobody here could: the extra `[sigstore]` is not installed
                  null          not looked at yet

`due` is when somebody must look again: at once after the upload, while the entry is on its way into the log, and when
the `checker` (the library and its trusted root) is another than the one that said so. It is null where nothing is to
be done. A row is a note about entries and no authority: what the log says is
`verified` in the newest `attest` entry about the object's blob.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    exists,
    or_,
    select,
    update,
)

from countermark_server.tables import metadata, submission

YES, NO, NOT_CHECKED = "yes", "no", "not-checked"
LEASE_SECONDS = 120  # longer than a check may take
ATTESTATION_KIND = "pep740"

attestation = Table(
    "attestation",
    metadata,
    Column("submission_id", ForeignKey("submission.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "number", Integer, primary_key=True, autoincrement=False
    ),  # its place in the array that was uploaded
    Column("due", BigInteger, nullable=True),
    Column("attempts", Integer, nullable=False, server_default="0"),  # claims since the last outcome
    Column("verified", String(16), nullable=True),
    Column("checker", String(255), nullable=True),
    Column("reason", Text, nullable=True),
    Column("predicate_type", Text, nullable=True),
    Column("identity", Text, nullable=True),  # JSON: the machine that the certificate names
    Column("publisher_index", BigInteger, nullable=True),  # entry of the trusted publisher that it is
    Column("blob_sha256", String(64), nullable=True),
    Column("proposal_id", BigInteger, nullable=True),  # of the attest entry with this outcome
    Column("leaf_index", BigInteger, nullable=True),  # of the newest that is public
    Index("ix_attestation_due", "due"),
)
_TABLE = attestation
# What is handed out at `provenance`: what holds, and what nobody could check, each as its entry says.
shown = exists().where(
    _TABLE.c.submission_id == submission.c.id,
    or_(_TABLE.c.verified == YES, _TABLE.c.verified == NOT_CHECKED),
    _TABLE.c.leaf_index.is_not(None),
)


def expect(connection: Connection, submission_id: int, numbers: Sequence[int], *, now: int) -> None:
    """These objects of an upload are to be checked, once the log has its file."""
    rows = [{"submission_id": submission_id, "number": number, "due": now} for number in numbers]
    if rows:
        connection.execute(_TABLE.insert(), rows)


def any_due(connection: Connection, *, now: int) -> bool:
    """Whether there is something to look at; costs no write lock."""
    return connection.execute(_due(now)).first() is not None


def claim(connection: Connection, *, now: int) -> RowMapping | None:
    """Lease the one that waits longest; past the lease, another worker may take it over."""
    row = connection.execute(_due(now).with_for_update(skip_locked=True, of=_TABLE)).mappings().first()
    if row is not None:
        keep(connection, row, due=now + LEASE_SECONDS, attempts=row["attempts"] + 1)
    return row


def keep(connection: Connection, row: RowMapping, **values: Any) -> None:
    """Change what is known of one."""
    of = (_TABLE.c.submission_id == row["submission_id"], _TABLE.c.number == row["number"])
    connection.execute(update(_TABLE).where(*of).values(**values))


def recheck(connection: Connection, checker: str, *, now: int) -> int:
    """Whatever another checker said is looked at again; how many."""
    other = (_TABLE.c.due.is_(None), _TABLE.c.checker != checker)
    return connection.execute(update(_TABLE).where(*other).values(due=now, attempts=0)).rowcount


def of_file(connection: Connection, submission_id: int) -> Sequence[RowMapping]:
    """All of one file, in the order in which they were uploaded."""
    query = select(_TABLE).where(_TABLE.c.submission_id == submission_id).order_by(_TABLE.c.number)
    return connection.execute(query).mappings().all()


def described(row: RowMapping) -> dict[str, Any]:
    """What anybody may know of one: what the log says, and where. `pending`: it says nothing yet."""
    told = row["leaf_index"] is not None
    names = ("reason", "predicate_type", "publisher_index", "blob_sha256")
    identity = json.loads(row["identity"]) if told and row["identity"] else None
    said = {name: row[name] if told else None for name in names}
    return {
        "verified": row["verified"] if told else "pending",
        **said,
        "identity": identity,
        "entry": row["leaf_index"],
    }


def _due(now: int) -> Any:
    table = submission
    file = [
        table.c[name]
        for name in ("namespace", "project", "filename", "served_name", "sha256", "attestations", "leaf_hash")
    ]
    return (
        select(_TABLE, *file)
        .join(table, table.c.id == _TABLE.c.submission_id)
        .where(_TABLE.c.due <= now, table.c.leaf_index.is_not(None))
        .order_by(_TABLE.c.due)
        .limit(1)
    )
