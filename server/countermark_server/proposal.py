"""Proposals: entries that ask for a place in the log.

Any process may `propose` an entry; only the sequencer (`log/`) gives it an index, in the order of ids,
or refuses it with the code and the sentence of the rule it broke. The proposer reads the `outcome`.

    pending -> sequenced -> published      (a cosigned, public checkpoint covers it)
       |
       v
    refused                                (it has no index; nothing of it is in the log)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from countermark.statement import Envelope
from countermark_server import db

PENDING, SEQUENCED, PUBLISHED, REFUSED = "pending", "sequenced", "published", "refused"
_TABLE = db.proposal
_INSERT = _TABLE.insert()  # statements are built once: building them costs more than running them
_ONE = select(_TABLE).where(_TABLE.c.id == bindparam("p"))
_INSERT_MANY = _INSERT.returning(_TABLE.c.id, sort_by_parameter_order=True)
_PENDING = select(_TABLE.c.id).where(_TABLE.c.state == PENDING).limit(bindparam("most"))
_WAITING = select(func.count()).select_from(_PENDING.subquery())
IDS_PER_QUERY = 300  # SQLite takes 999 parameters at the least
_SETTLED = select(_TABLE).where(
    _TABLE.c.id.in_(bindparam("p", expanding=True)), _TABLE.c.state.in_((PUBLISHED, REFUSED))
)


class QueueFullError(Exception):
    """Too many proposals wait for the log; nothing was added."""


@dataclass(frozen=True)
class Offer:
    """An entry that would like a place: its type, what was signed, and what the registry adds."""

    type: str
    envelope: Envelope
    registry: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a proposal so far."""

    state: str
    index: int | None
    leaf_hash: str | None
    refusal_code: str | None
    refusal: str | None

    @property
    def settled(self) -> bool:
        """Published or refused: nothing more will happen to it."""
        return self.state in (PUBLISHED, REFUSED)


def propose(
    connection: Connection,
    type_: str,
    envelope: Mapping[str, Any] | None,
    registry: Mapping[str, Any],
    *,
    now: int,
    submission_id: int | None = None,
) -> int:
    """Ask for a place in the log; returns the id. Durable when the caller's transaction commits."""
    row = _row(type_, envelope, registry, now=now, submission_id=submission_id)
    return db.inserted_id(connection.execute(_INSERT, row))


def propose_all(connection: Connection, offers: Sequence[Offer], *, now: int) -> list[int]:
    """Ask for a place for each, in their order, in the caller's transaction: all of them or none."""
    rows = [_row(o.type, o.envelope.to_dict(), o.registry, now=now, submission_id=None) for o in offers]
    return list(connection.execute(_INSERT_MANY, rows).scalars()) if rows else []


def check_room(connection: Connection, adding: int, *, most: int) -> None:
    """QueueFullError when fewer than `adding` places are left among the `most` that may wait."""
    waiting = connection.execute(_WAITING, {"most": most}).scalar_one()
    if waiting + adding > most:
        raise QueueFullError(f"{waiting} entries wait for the log, which keeps at most {most} waiting")


def _row(
    type_: str,
    envelope: Mapping[str, Any] | None,
    registry: Mapping[str, Any],
    *,
    now: int,
    submission_id: int | None,
) -> dict[str, Any]:
    return {
        "type": type_,
        "envelope": None if envelope is None else json.dumps(envelope, separators=(",", ":"), sort_keys=True),
        "registry": json.dumps(registry, separators=(",", ":"), sort_keys=True),
        "submission_id": submission_id,
        "created": now,
        "state": PENDING,
    }


def propose_raw(connection: Connection, body: bytes, *, now: int) -> int:
    """Ask for a place for raw bytes, in a log that takes nothing else."""
    return propose(connection, "opaque", None, {"raw": base64.b64encode(body).decode("ascii")}, now=now)


def raw_body(row: RowMapping) -> bytes:
    """The bytes of a proposal that `propose_raw` made."""
    return base64.b64decode(json.loads(row["registry"])["raw"])


def outcome(connection: Connection, proposal_id: int) -> Outcome:
    """What became of it. Raises LookupError for an id that was never given out."""
    row: RowMapping | None = connection.execute(_ONE, {"p": proposal_id}).mappings().first()
    if row is None:
        raise LookupError(f"no proposal {proposal_id}")
    return _outcome(row)


def settled(connection: Connection, proposal_ids: Collection[int]) -> dict[int, Outcome]:
    """Those of these that are published or refused."""
    wanted, found = sorted(proposal_ids), dict[int, Outcome]()
    for start in range(0, len(wanted), IDS_PER_QUERY):
        rows = connection.execute(_SETTLED, {"p": wanted[start : start + IDS_PER_QUERY]}).mappings()
        found.update((row["id"], _outcome(row)) for row in rows)
    return found


def _outcome(row: RowMapping) -> Outcome:
    return Outcome(row["state"], row["leaf_index"], row["leaf_hash"], row["refusal_code"], row["refusal"])
