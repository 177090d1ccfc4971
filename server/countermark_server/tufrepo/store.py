"""What tufrepo remembers, in the registry's database.

    tufrepo_state   the rules' state after the entries of the last candidate, and beside it, under keys that
                    begin with "tufrepo": what was last signed for each bin, and the snapshot
    tuf_version     the newest version claimed of each role, committed before anything is signed with it
    tuf_candidate   one row a publish: written -> logged -> timestamped (or superseded)

`claim` and `record` are the two transactions of a publish; between them lie only immutable files that nobody
looks at.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from countermark.bins import BinsTree
from countermark.rules import Key, State
from countermark_server import db
from countermark_server.ruleview import SqlView, encode_key
from countermark_server.tufrepo.candidate import BinRecord, Current

WRITTEN, LOGGED, TIMESTAMPED, SUPERSEDED = "written", "logged", "timestamped", "superseded"
OPEN = (WRITTEN, LOGGED)
ASKED_MAX = 1_000  # roles in one question; SQLite takes 32,766 parameters
_CURRENT: Key = ("tufrepo", "current")
_LEFT: Key = ("tufrepo", "left")
_RENEWAL: Key = ("tufrepo", "renewal")
_BINS_BEGIN = '["tufrepo","bin",'


def _bin_key(role: str) -> Key:
    return ("tufrepo", "bin", role)


def load(connection: Connection) -> Current | None:
    """What was last written; None before genesis."""
    facts = SqlView(connection, db.tufrepo_state).get(_CURRENT)
    if facts is None:
        return None
    empty = Current(facts["bit_length"], facts["offline"], (), None, None, 0, 0, None)
    table = db.tufrepo_state
    rows = connection.execute(select(table).where(table.c.key.startswith(_BINS_BEGIN, autoescape=True)))
    found = {row.key: json.loads(row.value) for row in rows}
    records = []
    for index in range(1 << empty.bit_length):
        value = found[encode_key(_bin_key(empty.role(index)))]
        root = bytes.fromhex(value["targets_root"])
        records.append(BinRecord(value["version"], value["sha256"], root, value["expires"]))
    tree = BinsTree.build([record.leaf(empty.role(i)).leaf_hash for i, record in enumerate(records)])
    return Current(
        bit_length=empty.bit_length,
        offline=facts["offline"],
        bins=tuple(records),
        tree=tree,
        snapshot=facts["snapshot"],
        snapshot_expires=facts["snapshot_expires"],
        applied=facts["applied"],
        head=facts["head"],
        left=SqlView(connection, db.tufrepo_state).get(_LEFT) or {},
    )


def save(
    connection: Connection,
    current: Current,
    changed: Collection[int] = (),
    state: Mapping[Key, State | None] | None = None,
) -> None:
    """Remember what is current; of the bins, only those that changed; with it the `state` that a replay left."""
    with SqlView(connection, db.tufrepo_state) as view:
        for key, value in (state or {}).items():
            view.put(key, value)
        if current.left and len(changed) == len(current.bins):  # there may be more bins than before
            view.put(_LEFT, dict(current.left))
            for role in current.left:
                view.put(_bin_key(role), None)
        for index in changed:
            record = current.bins[index]
            value = {**vars(record), "targets_root": record.targets_root.hex()}
            view.put(_bin_key(current.role(index)), value)
        facts = {
            "applied": current.applied,
            "bit_length": current.bit_length,
            "head": current.head,
            "offline": dict(current.offline),
            "snapshot": dict(current.snapshot or {}),
            "snapshot_expires": current.snapshot_expires,
        }
        view.put(_CURRENT, facts)


def waiting_root(version: int) -> str:
    """Where a root lies that was adopted and that the log does not hold yet: no client looks there."""
    return f"tuf/ceremony/{version}.root.json"


def renew(connection: Connection, versions: Mapping[str, int]) -> None:
    """Ask for a publish that names these versions of the ceremony's roles, root included."""
    with SqlView(connection, db.tufrepo_state) as view:
        view.put(_RENEWAL, dict(versions))


def renewal(connection: Connection) -> dict[str, int] | None:
    """The versions that a later ceremony brought and that no candidate names yet."""
    found = SqlView(connection, db.tufrepo_state).get(_RENEWAL)
    return None if found is None else dict(found)


def renewed(connection: Connection) -> None:
    """A candidate names them."""
    with SqlView(connection, db.tufrepo_state) as view:
        view.put(_RENEWAL, None)


def claim(connection: Connection, roles: Iterable[str]) -> dict[str, int]:
    """The next version of each role, never given before. Durable when the caller's transaction commits."""
    table = db.tuf_version
    wanted = list(roles)
    known: dict[str, int] = {}
    for first in range(0, len(wanted), ASKED_MAX):
        # Only these rows: the table holds one for each bin, and most publishes change one.
        asked = select(table).where(table.c.role.in_(wanted[first : first + ASKED_MAX]))
        known.update({row.role: row.version for row in connection.execute(asked)})
    claimed = {role: known.get(role, 0) + 1 for role in wanted}
    if claimed:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        insert: Any = dialect.insert(table)
        statement = insert.on_conflict_do_update(
            index_elements=["role"], set_={"version": insert.excluded.version}
        )
        rows = [{"role": role, "version": version} for role, version in claimed.items()]
        connection.execute(statement, rows)
    return claimed


@dataclass(frozen=True)
class CandidateRow:
    """A candidate that is on its way."""

    id: int
    applied: int
    body: Mapping[str, Any]  # {"predicate", "subject"}
    proposal_id: int
    state: str


def add_candidate(
    connection: Connection, applied: int, body: Mapping[str, Any], proposal_id: int
) -> CandidateRow:
    """A candidate whose files are written and whose entry asks for its place."""
    values = {"applied": applied, "proposal_id": proposal_id, "state": WRITTEN}
    text = json.dumps(body, sort_keys=True)
    result = connection.execute(db.tuf_candidate.insert().values(**values, body=text))
    return CandidateRow(db.inserted_id(result), applied, body, proposal_id, WRITTEN)


def open_candidate(connection: Connection) -> CandidateRow | None:
    """The candidate that is on its way; there is one at most."""
    table = db.tuf_candidate
    rows = connection.execute(select(table).where(table.c.state.in_(OPEN))).mappings().all()
    assert len(rows) <= 1, "two candidates are on their way"
    for row in rows:
        body = json.loads(row["body"])
        return CandidateRow(row["id"], row["applied"], body, row["proposal_id"], row["state"])
    return None


def newest_state(connection: Connection) -> str | None:
    """How far the newest candidate got; None before genesis."""
    table = db.tuf_candidate
    state: str | None = connection.execute(
        select(table.c.state).order_by(table.c.id.desc()).limit(1)
    ).scalar()
    return state


def move(connection: Connection, candidate: CandidateRow, state: str) -> CandidateRow:
    """Note how far a candidate got."""
    table = db.tuf_candidate
    where = (table.c.id == candidate.id, table.c.state == candidate.state)
    changed = connection.execute(update(table).where(*where).values(state=state))
    assert changed.rowcount == 1, f"candidate {candidate.id} is no longer {candidate.state}"
    return replace(candidate, state=state)


def propose_again(connection: Connection, candidate: CandidateRow, proposal_id: int) -> CandidateRow:
    """Let a candidate whose entry was refused wait for another proposal of the same statement."""
    table = db.tuf_candidate
    where = (table.c.id == candidate.id, table.c.state == WRITTEN)
    changed = connection.execute(update(table).where(*where).values(proposal_id=proposal_id))
    assert changed.rowcount == 1, f"candidate {candidate.id} is no longer {WRITTEN}"
    return replace(candidate, proposal_id=proposal_id)
