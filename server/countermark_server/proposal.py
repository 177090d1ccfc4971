"""Proposals: entries that ask for a place in the log.

Any process may `propose` an entry; only the sequencer (`log/`) gives it an index, in the order of ids,
or refuses it with the code and the sentence of the rule it broke. The proposer reads the `outcome`.

    pending -> sequenced -> published      (a cosigned, public checkpoint covers it, and the log wrote that down)
       |
       v
    refused                                (it has no index; nothing of it is in the log)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    RowMapping,
    Text,
    bindparam,
    cast,
    func,
    select,
    text,
    update,
)

from countermark.canonical import encode_canonical
from countermark.statement import Envelope, Statement
from countermark_server import db, quick
from countermark_server.allowance import Cost, spend

PENDING, SEQUENCED, PUBLISHED, REFUSED = "pending", "sequenced", "published", "refused"
_TABLE = db.proposal
_INSERT = _TABLE.insert()  # statements are built once: building them costs more than running them
_SAID = (
    _TABLE.c.id,
    _TABLE.c.state,
    _TABLE.c.leaf_index,
    _TABLE.c.leaf_hash,
    _TABLE.c.refusal_code,
    _TABLE.c.refusal,
)
_ONE = select(*_SAID).where(_TABLE.c.id == bindparam("p"))
_WRITTEN = ("type", "envelope", "registry", "verified", "submission_id", "created", "state")
_INSERT_ONE = _INSERT.values({name: bindparam(name) for name in _WRITTEN}).returning(_TABLE.c.id)
# PostgreSQL takes any number of rows as one JSON document: a parameter for each member costs more than its row.
_INSERT_DOCUMENT = text(
    "INSERT INTO proposal (type, envelope, registry, verified, submission_id, created, state)"
    " SELECT type, envelope, registry, verified, submission_id, created, state FROM ROWS FROM"
    " (json_to_recordset(CAST(:d AS json)) AS (type text, envelope text, registry text, verified boolean,"
    " submission_id bigint, created bigint, state text)) WITH ORDINALITY"
    " AS given(type, envelope, registry, verified, submission_id, created, state, place)"
    " ORDER BY place RETURNING id"
)
_SEQUENCE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("p"))
    .values(state=SEQUENCED, leaf_index=bindparam("i"), leaf_hash=bindparam("h"))
)
# The ids are there twice: the planner takes a document for a hundred rows, and would read the table to join it.
_SEQUENCE_DOCUMENT = text(
    "UPDATE proposal SET state = 'sequenced', leaf_index = given.i, leaf_hash = given.h"
    " FROM json_to_recordset(CAST(:d AS json)) AS given(p bigint, i bigint, h text)"
    " WHERE proposal.id = given.p AND proposal.id = ANY(CAST(string_to_array(:p, ',') AS bigint[]))"
)
_REFUSE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("p"))
    .values(state=REFUSED, refusal_code=bindparam("code"), refusal=bindparam("message"))
)
# By their indexes, which are new in each round: asked for all that are sequenced, PostgreSQL reads a dead row of each
# that ever was, until its next vacuum.
_PUBLISH = (
    update(_TABLE)
    .where(_TABLE.c.leaf_index >= bindparam("told"), _TABLE.c.leaf_index < bindparam("size"))
    .values(state=PUBLISHED)
)
_PUBLISH_ANY = (
    update(_TABLE)
    .where(_TABLE.c.state == SEQUENCED, _TABLE.c.leaf_index < bindparam("size"))
    .values(state=PUBLISHED)
)
_PENDING = select(_TABLE.c.id).where(_TABLE.c.state == PENDING).limit(bindparam("most"))
_WAITING = select(func.count()).select_from(_PENDING.subquery())
_ALL_ANSWERED = select(*_SAID).where(_TABLE.c.state != PENDING)
_SETTLED_ONE = _ALL_ANSWERED.where(_TABLE.c.id == bindparam("p"))
# PostgreSQL takes them as one text: a parameter for each, with its place in the statement, costs more than the rows.
# (And as an array: of a subquery it expects a hundred rows, and may read the table for them.)
_SETTLED_POSTGRESQL = _ALL_ANSWERED.where(
    _TABLE.c.id == func.any(cast(func.string_to_array(bindparam("p", type_=Text), ","), ARRAY(BigInteger)))
)
_SETTLED_SQLITE = _ALL_ANSWERED.where(
    _TABLE.c.id.in_(select(func.json_each(bindparam("p", type_=Text)).table_valued("value").c.value))
)


@dataclass(frozen=True)
class Offer:
    """An entry that would like a place: its type, what was signed, and what the registry adds.

    `statement`: what is in the envelope, where its form has been checked already. `cost`: what is counted for it,
    with the proposal.
    """

    type: str
    envelope: Envelope
    registry: Mapping[str, Any]
    statement: Statement | None = None
    cost: Cost | None = None


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
    verified: bool = False,
) -> int:
    """Ask for a place in the log; returns the id. Durable when the caller's transaction commits.

    `verified`: the caller has foreseen this very entry (`asking.foresee`), so its form and its signatures are good.
    """
    text_ = None if envelope is None else encode_canonical(envelope).decode()
    row = _row(type_, text_, registry, now=now, submission_id=submission_id, verified=verified)
    (proposal_id,) = _insert_all(connection, [row])
    return proposal_id


def propose_all(
    connection: Connection,
    offers: Sequence[Offer],
    *,
    now: int,
    submission_ids: Sequence[int | None] | None = None,
) -> list[int]:
    """Ask for a place for each offer, which the caller has foreseen, in their order: all of them or none."""
    rows = [
        _row(o.type, o.envelope.text, o.registry, now=now, submission_id=submission, verified=True)
        for o, submission in zip(offers, submission_ids or [None] * len(offers), strict=True)
    ]
    spend(connection, [o.cost for o in offers if o.cost is not None], now=now)
    return _insert_all(connection, rows)


def _insert_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The ids of these rows, in their order; on PostgreSQL one statement whatever their number.

    (SQLite runs in this process: there is no question to save.)
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql" and len(rows) > 1:
        # Ids are given out in the order of places, so in ascending order they are those of the rows.
        return sorted(
            row[0] for row in quick.run(connection, _INSERT_DOCUMENT, {"d": json.dumps(rows)}).fetchall()
        )
    return [int(quick.run(connection, _INSERT_ONE, row).fetchone()[0]) for row in rows]


def room(connection: Connection, *, most: int) -> int:
    """How many places are left among the `most` that may wait."""
    waiting: int = quick.run(connection, _WAITING, {"most": most}).fetchone()[0]
    return most - waiting


def _row(
    type_: str,
    envelope: str | None,
    registry: Mapping[str, Any],
    *,
    now: int,
    submission_id: int | None,
    verified: bool = False,
) -> dict[str, Any]:
    return {
        "type": type_,
        "envelope": envelope,
        "registry": encode_canonical(registry if type(registry) is dict else dict(registry)).decode(),
        "verified": verified,
        "submission_id": submission_id,
        "created": now,
        "state": PENDING,
    }


def propose_raw(connection: Connection, bodies: Sequence[bytes], *, now: int) -> list[int]:
    """Ask for a place for raw bytes each, in a log that takes nothing else."""
    raws = [{"raw": base64.b64encode(body).decode("ascii")} for body in bodies]
    rows = [_row("opaque", None, raw, now=now, submission_id=None) for raw in raws]
    return _insert_all(connection, rows)


def raw_body(row: Mapping[str, Any]) -> bytes:
    """The bytes of a proposal that `propose_raw` made."""
    return base64.b64decode(json.loads(row["registry"])["raw"])


def sequence(connection: Connection, places: Sequence[Mapping[str, Any]]) -> None:
    """Write down which index each got: `p` its id, `i` the index, `h` the leaf hash in hex. For the sequencer."""
    if places and connection.dialect.name == "postgresql":
        ids = ",".join(str(place["p"]) for place in places)
        quick.run(connection, _SEQUENCE_DOCUMENT, {"d": json.dumps(places), "p": ids})
    elif places:
        quick.each(connection, _SEQUENCE, places)


def refuse(connection: Connection, refusals: Sequence[Mapping[str, Any]]) -> None:
    """Write down why each got none: `p` its id, `code` and `message` of the refusal. For the sequencer."""
    if refusals:
        connection.execute(_REFUSE, refusals)


def publish(connection: Connection, size: int, *, told: int | None = None) -> int:
    """Write down that a public checkpoint of this size covers them; how many that is news for.

    `told`: the size for which that was done before, where the caller knows it.
    """
    if told is None:
        return quick.run(connection, _PUBLISH_ANY, {"size": size}).rowcount
    return quick.run(connection, _PUBLISH, {"told": told, "size": size}).rowcount


def _nothing() -> int:
    return 0


def outcome(
    connection: Connection, proposal_id: int, *, public_size: Callable[[], int] = _nothing
) -> Outcome:
    """What became of it; `public_size` as in `settled`. Raises LookupError for an id that was never given out."""
    row: RowMapping | None = connection.execute(_ONE, {"p": proposal_id}).mappings().first()
    if row is None:
        raise LookupError(f"no proposal {proposal_id}")
    found = Outcome(row["state"], row["leaf_index"], row["leaf_hash"], row["refusal_code"], row["refusal"])
    return _seen(found, public_size() if found.state == SEQUENCED else 0)


def settled(
    connection: Connection, proposal_ids: Collection[int], *, public_size: Callable[[], int] = _nothing
) -> dict[int, Outcome]:
    """Those of these that are published or refused.

    `public_size`: of the public checkpoint, for a caller who has verified that. What it covers is published, whether
    or not the log has written that down yet: an index is never given twice.
    """
    wanted = sorted(set(proposal_ids))
    if len(wanted) == 1:
        rows = quick.run(connection, _SETTLED_ONE, {"p": wanted[0]}).fetchall()
    elif connection.dialect.name == "postgresql":
        rows = quick.run(connection, _SETTLED_POSTGRESQL, {"p": ",".join(map(str, wanted))}).fetchall()
    else:
        rows = quick.run(connection, _SETTLED_SQLITE, {"p": json.dumps(wanted)}).fetchall()
    found = {row[0]: Outcome(*row[1:]) for row in rows}
    if any(each.state == SEQUENCED for each in found.values()):
        size = public_size()
        found = {number: _seen(each, size) for number, each in found.items()}
    return {number: each for number, each in found.items() if each.settled}


def _seen(outcome: Outcome, public_size: int) -> Outcome:
    """The outcome for somebody who sees a public checkpoint of this size."""
    covered = outcome.state == SEQUENCED and outcome.index is not None and outcome.index < public_size
    return replace(outcome, state=PUBLISHED) if covered else outcome
