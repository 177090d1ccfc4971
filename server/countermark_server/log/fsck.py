"""fsck: everything the log has stored, checked against what it signed, and the database against that.

    findings = check_log(public, engine, trust)      # an empty list: nothing disagrees

The public tree is read like a stranger reads it, whole (treewalk.py): every tile, every entry, every hash, and every
entry through the rules. After that the database, which nothing depends on, must say the same: head row, the state
that rules go on from, the index of every proposal. It changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from countermark import rules
from countermark.errors import CountermarkError, EvidenceError
from countermark.replay import DictView, replay
from countermark.tlog.checkpoint import LogCheckpoint, open_checkpoint, open_log_checkpoint
from countermark.tlog.merkle import RightEdge, check_consistency, leaf_hash, prove_consistency
from countermark.trustfile import TrustFile
from countermark_server import db, jsontext
from countermark_server.log.tree import public_tree
from countermark_server.log.treewalk import Counts, walk
from countermark_server.ruleview import encode_key
from countermark_server.stores import heads
from countermark_server.stores.public import CHECKPOINT, Public


def check_log(public: Public, engine: Engine, trust: TrustFile, *, raw_add: bool = False) -> list[str]:
    """What disagrees, one sentence each."""
    raw = public.read(CHECKPOINT)  # before the head, which only grows: a running log is checked as well
    with db.read(engine) as connection:
        head = heads.load(connection, trust.origin)
        if head is None:
            return [f"the database has no log {trust.origin}"]
        try:
            signed = open_log_checkpoint(head.body.encode(), list(trust.log_keys))
            read = read_tree(public, signed, trust, raw_add=raw_add)
        except (CountermarkError, OSError) as error:
            return [f"the stored tree is not the signed one: {error}"]
        findings = check_public(public, raw, signed, trust) + read.findings
        findings += check_rules(connection, read.view)
        findings += check_elsewhere(connection, read.view)
        findings += check_proposals(connection, read.leaves)
        edge = RightEdge.empty().extend(read.leaves)
        if (head.tree_size, head.edge) != (edge.size, b"".join(edge.hashes)):
            findings.append("size or right edge in the head row are not those of the entries")
    return findings


@dataclass(frozen=True)
class ReadTree:
    """What a walk over all entries leaves: the rules' state after them, their hashes, and who broke a rule."""

    view: DictView
    leaves: list[bytes]
    findings: list[str]


def read_tree(public: Public, checkpoint: LogCheckpoint, trust: TrustFile, *, raw_add: bool) -> ReadTree:
    """Every tile and every entry of this tree, each led to the root hash; EvidenceError at the first that isn't."""
    view, leaves, findings = DictView(), list[bytes](), list[str]()
    view.apply(rules.genesis(origin=trust.origin, authority_key=trust.authority_key, raw_add=raw_add))
    tree = public_tree(public)
    for entries in walk(lambda tile: tree.read(tile.path()), checkpoint, Counts(), _refuse):
        replay(entries, view, on_finding=lambda finding: findings.append(str(finding)))
        leaves += map(leaf_hash, entries)
    return ReadTree(view, leaves, findings)


def _refuse(finding: str) -> None:
    raise EvidenceError(finding)


def check_public(public: Public, raw: bytes | None, head: LogCheckpoint, trust: TrustFile) -> list[str]:
    """The public checkpoint holds the quorum and is a prefix of the head."""
    if raw is None:
        return []
    try:
        checkpoint = open_checkpoint(raw, trust.policy, now=None)
        if checkpoint.size > head.size:
            return [f"the public checkpoint is at size {checkpoint.size}, the head at {head.size}"]
        read = public_tree(public).reader(head.size, head.root_hash)
        check_consistency(
            prove_consistency(checkpoint.size, head.size, read),
            old_size=checkpoint.size,
            old_root=checkpoint.root_hash,
            new_size=head.size,
            new_root=head.root_hash,
        )
    except (CountermarkError, OSError) as error:
        return [f"the public checkpoint does not hold: {error}"]
    return []


def check_rules(connection: Connection, view: DictView) -> list[str]:
    """The entries lead to the very state that the sequencer goes on from."""
    findings: list[str] = []
    replayed = {encode_key(key): jsontext.encode(value) for key, value in view.items()}
    stored = {row.key: row.value for row in connection.execute(select(db.rules_state))}
    for key in sorted(replayed.keys() | stored.keys()):
        if replayed.get(key) != stored.get(key):
            findings.append(f"rules state {key} is not what the entries make of it")
    return findings


def check_elsewhere(connection: Connection, view: DictView) -> list[str]:
    """The look-up of files that others serve has a row for each file of a namespace, and no other."""
    table = db.logged_elsewhere
    stored = {
        (row.namespace, row.project, row.filename): (row.sha256, row.leaf_index)
        for row in connection.execute(select(table))
    }
    replayed = {
        (str(key[1]), str(key[2]), str(key[3])): (value["sha256"], value["index"])
        for key, value in view.items()
        if key[0] == "file" and key[1]
    }
    return [
        f"the look-up of {'/'.join(name)} says {stored.get(name)}, the entries {replayed.get(name)}"
        for name in sorted(replayed.keys() | stored.keys())
        if replayed.get(name) != stored.get(name)
    ]


def check_proposals(connection: Connection, leaves: list[bytes]) -> list[str]:
    """Every index has one proposal, and its leaf hash is that of the entry there."""
    table = db.proposal
    rows = connection.execute(
        select(table.c.id, table.c.leaf_index, table.c.leaf_hash).where(table.c.leaf_index.is_not(None))
    ).all()
    findings = []
    seen: set[int] = set()
    for row in rows:
        index = row.leaf_index
        if index in seen or index >= len(leaves):
            findings.append(f"proposal {row.id} claims index {index}, which is taken or beyond the tree")
        elif leaves[index].hex() != row.leaf_hash:
            findings.append(f"proposal {row.id} claims another leaf hash than entry {index} has")
        seen.add(index)
    return findings
