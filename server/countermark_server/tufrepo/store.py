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

from sqlalchemy import Connection, bindparam, or_, select, text, update

from countermark.bins import BinsTree
from countermark.rules import Key, State
from countermark_server import db, quick
from countermark_server.ruleview import SqlView, encode_key
from countermark_server.tufrepo.candidate import BinRecord, Current

WRITTEN, LOGGED, TIMESTAMPED, SUPERSEDED = "written", "logged", "timestamped", "superseded"
OPEN = (WRITTEN, LOGGED)
_CURRENT: Key = ("tufrepo", "current")
_LEFT: Key = ("tufrepo", "left")
_RENEWAL: Key = ("tufrepo", "renewal")
_BINS_BEGIN = '["tufrepo","bin",'
# Built once: building a statement costs more than running it.
_CLAIM = {  # any number of roles in one statement
    "postgresql": text(
        "INSERT INTO tuf_version (role, version)"
        " SELECT unnest(string_to_array(CAST(:roles AS text), chr(10))), 1"
        " ON CONFLICT (role) DO UPDATE SET version = tuf_version.version + 1 RETURNING role, version"
    ),
    "sqlite": text(
        "INSERT INTO tuf_version (role, version) SELECT value, 1 FROM json_each(:roles) WHERE true"
        " ON CONFLICT (role) DO UPDATE SET version = tuf_version.version + 1 RETURNING role, version"
    ),
}
_TABLE = db.tuf_candidate
_ADD = (
    _TABLE.insert()
    .values(applied=bindparam("a"), body=bindparam("b"), proposal_id=bindparam("p"), state=WRITTEN)
    .returning(_TABLE.c.id)
)
_FOUND = select(_TABLE.c.id, _TABLE.c.applied, _TABLE.c.body, _TABLE.c.proposal_id, _TABLE.c.state)
_ON_ITS_WAY = _FOUND.where(or_(*(_TABLE.c.state == state for state in OPEN)))
_NEWEST = select(_TABLE.c.state).order_by(_TABLE.c.id.desc()).limit(1)
_THIS = (_TABLE.c.id == bindparam("c"), _TABLE.c.state == bindparam("old"))
_MOVE = update(_TABLE).where(*_THIS).values(state=bindparam("new"))
_AGAIN = update(_TABLE).where(*_THIS).values(proposal_id=bindparam("asked"))


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
    wanted, dialect = list(roles), connection.dialect.name
    if not wanted:
        return {}
    asked = "\n".join(wanted) if dialect == "postgresql" else json.dumps(wanted)
    return dict(quick.run(connection, _CLAIM[dialect], {"roles": asked}).fetchall())


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
    row = {"a": applied, "p": proposal_id, "b": json.dumps(body, sort_keys=True)}
    (number,) = quick.run(connection, _ADD, row).fetchone()
    return CandidateRow(number, applied, body, proposal_id, WRITTEN)


def open_candidate(connection: Connection) -> CandidateRow | None:
    """The candidate that is on its way; there is one at most."""
    rows = quick.run(connection, _ON_ITS_WAY, {}).fetchall()
    assert len(rows) <= 1, "two candidates are on their way"
    for number, applied, body, proposal_id, state in rows:
        return CandidateRow(number, applied, json.loads(body), proposal_id, state)
    return None


def newest_state(connection: Connection) -> str | None:
    """How far the newest candidate got; None before genesis."""
    row = quick.run(connection, _NEWEST, {}).fetchone()
    return None if row is None else str(row[0])


def move(connection: Connection, candidate: CandidateRow, state: str) -> CandidateRow:
    """Note how far a candidate got."""
    changed = quick.run(connection, _MOVE, {"c": candidate.id, "old": candidate.state, "new": state})
    assert changed.rowcount == 1, f"candidate {candidate.id} is no longer {candidate.state}"
    return replace(candidate, state=state)


def propose_again(connection: Connection, candidate: CandidateRow, proposal_id: int) -> CandidateRow:
    """Let a candidate whose entry was refused wait for another proposal of the same statement."""
    changed = quick.run(connection, _AGAIN, {"c": candidate.id, "old": WRITTEN, "asked": proposal_id})
    assert changed.rowcount == 1, f"candidate {candidate.id} is no longer {WRITTEN}"
    return replace(candidate, proposal_id=proposal_id)
