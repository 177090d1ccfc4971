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
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select

from countermark_server import db

PENDING, SEQUENCED, PUBLISHED, REFUSED = "pending", "sequenced", "published", "refused"
_TABLE = db.proposal
_INSERT = _TABLE.insert()  # statements are built once: building them costs more than running them
_ONE = select(_TABLE).where(_TABLE.c.id == bindparam("p"))
_SETTLED = select(_TABLE).where(
    _TABLE.c.id.in_(bindparam("p", expanding=True)), _TABLE.c.state.in_((PUBLISHED, REFUSED))
)


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
    row = {
        "type": type_,
        "envelope": None if envelope is None else json.dumps(envelope, separators=(",", ":"), sort_keys=True),
        "registry": json.dumps(registry, separators=(",", ":"), sort_keys=True),
        "submission_id": submission_id,
        "created": now,
        "state": PENDING,
    }
    return db.inserted_id(connection.execute(_INSERT, row))


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
    rows = connection.execute(_SETTLED, {"p": list(proposal_ids)}).mappings()
    return {row["id"]: _outcome(row) for row in rows}


def _outcome(row: RowMapping) -> Outcome:
    return Outcome(row["state"], row["leaf_index"], row["leaf_hash"], row["refusal_code"], row["refusal"])
