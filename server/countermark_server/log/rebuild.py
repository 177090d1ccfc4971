"""Rebuilding: tiles from entry bundles, the log's rows from the tree; never another tree than was seen.

    ground = find_ground(public, staging, head, trust)     # what must come out: size and root hash
    check_bundles(ground, progress)                        # the bundles alone lead to it, or nothing is written
    write_tiles(ground, public, progress)                  # every tile that is missing
    write_rows(ground, engine, genesis, progress)          # rules' state and proposals
    put_head(ground, engine, signers)                      # at last the head row

What must come out is the head row's checkpoint or, where the database is lost, the public one with its quorum, and
what staging bundles add to it: rounds whose checkpoint may have reached a witness and never became public. Those
are signed again, of the same bytes, since nobody else may ever get their indexes.

Everything can be done twice. Tiles that are there are compared, rows go on at the entry behind the last that was
committed, and the head row comes last: until then `work log` finds no log here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, select, update

from countermark import replay, rules
from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError
from countermark.tlog.checkpoint import Checkpoint, LogCheckpoint, open_checkpoint, open_log_checkpoint
from countermark.tlog.merkle import RightEdge, leaf_hash, root_hash
from countermark.tlog.note import NoteSigner, format_base64, sign_note
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, decode_bundle, decode_tile, tile_at
from countermark.trustfile import TrustFile
from countermark_server import db
from countermark_server.log.staging import Staging
from countermark_server.log.tree import PREFIX, PublicTree, public_tree
from countermark_server.proposal import PENDING, PUBLISHED, SEQUENCED
from countermark_server.ruleview import SqlView
from countermark_server.stores import heads
from countermark_server.stores.public import CHECKPOINT, Public

COMMIT = 16 * WIDTH  # entries of one transaction
TILES_AT_ONCE = 64  # written, and synced, together
Progress = Callable[[str, int, int], None]  # what, done, of

_TABLE = db.proposal
_SAME = select(_TABLE.c.id).where(
    _TABLE.c.state == PENDING, _TABLE.c.type == bindparam("t"), _TABLE.c.envelope == bindparam("e")
)
_ANY_PENDING = select(_TABLE.c.id).where(_TABLE.c.state == PENDING).limit(1)
_PLACED = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("p"))
    .values(state=bindparam("s"), leaf_index=bindparam("i"), leaf_hash=bindparam("h"))
)


@dataclass(frozen=True)
class Ground:
    """What a rebuild must lead to, and where its entries are read."""

    target: Checkpoint
    seen: tuple[LogCheckpoint, ...]  # the head row's and the public one, as far as there are
    public_size: int
    tree: PublicTree
    files: Mapping[str, bytes]  # of staging bundles, not in the public tree yet


def find_ground(public: Public, staging: Staging, head: heads.Head | None, trust: TrustFile) -> Ground:
    """EvidenceError: nothing that was published says what the tree must be, or two things say it differently."""
    raw = public.read(CHECKPOINT)
    published = None if raw is None else open_checkpoint(raw, trust.policy, now=None)
    signed = None if head is None else open_log_checkpoint(head.body.encode(), list(trust.log_keys))
    seen: list[LogCheckpoint] = [each for each in (signed, published) if each is not None]
    if not seen:
        raise EvidenceError("neither a head row nor a public checkpoint says what the tree must be")
    if strangers := [each.origin for each in seen if each.origin != trust.origin]:
        raise EvidenceError(f"a checkpoint is of {strangers[0]}, the trust file about {trust.origin}")
    known = max(seen, key=lambda checkpoint: checkpoint.size)
    target, files = Checkpoint(known.origin, known.size, known.root_hash), dict[str, bytes]()
    # Behind a head row that is up to date a bundle is of a round that never happened; behind a lost one, who knows.
    lost = signed is None or signed.size < known.size
    for bundle in sorted((staging.read(name) for _, name in staging.sizes()), key=lambda each: each.size):
        if bundle.size == target.size and bundle.root_hash != target.root_hash:
            raise EvidenceError(f"a staging bundle makes another tree of size {bundle.size} than was signed")
        if bundle.size == target.size or (lost and bundle.old_size == target.size):
            files |= bundle.files
            target = Checkpoint(known.origin, bundle.size, bundle.root_hash)
    tree = public_tree(public).overlaid(files)
    return Ground(target, tuple(seen), 0 if published is None else published.size, tree, files)


def check_bundles(ground: Ground, progress: Progress) -> None:
    """The entry bundles alone lead to the target, through every size that was signed. Nothing is written."""
    edge = RightEdge.empty()
    for first, entries in read_entries(ground.tree, ground.target.size):
        hashes = [leaf_hash(entry) for entry in entries]
        for seen in ground.seen:
            if first < seen.size <= first + len(hashes):
                _check_root(ground, edge.extend(hashes[: seen.size - first]), seen)
        edge = edge.extend(hashes)
        progress("bundles checked", edge.size, ground.target.size)
    _check_root(ground, edge, ground.target)


def _check_root(ground: Ground, edge: RightEdge, said: Checkpoint) -> None:
    if edge.root() == said.root_hash:
        return
    raise EvidenceError(
        f"the entry bundles lead to the root hash {format_base64(edge.root())}, the checkpoint of size {said.size} "
        f"says {format_base64(said.root_hash)}{_suspect(ground, said.size)}",
        hint="nothing was written; replace the bundle by a true copy, from a backup, a mirror or an auditor",
    )


def _suspect(ground: Ground, size: int) -> str:
    """The first bundle that is not what its tile says, where the tile is still there to say it."""
    for first, entries in read_entries(ground.tree, size):
        tile = tile_at(0, first // WIDTH, size)
        raw = ground.tree.read(tile.path())
        try:
            hashes = None if raw is None else decode_tile(raw, tile.width)
        except MalformedError:
            hashes = None
        if hashes is not None and hashes != [leaf_hash(entry) for entry in entries]:
            return f"; {tile.bundle().path()} is not what its tile says"
    return ""


def read_entries(tree: PublicTree, size: int, start: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Index of the first, and the entries, of every bundle from the one that holds `start` on."""
    for index in range(start // WIDTH, -(-size // WIDTH)):
        bundle = tile_at(0, index, size).bundle()
        raw = tree.read(bundle.path())
        if raw is None:
            raise EvidenceError(
                f"{bundle.path()} is missing: {bundle.width} entries that the log has signed are not here",
                hint="fetch it from a backup, a mirror or an auditor; it is checked before anything is written",
            )
        yield index * WIDTH, decode_bundle(raw, bundle.width)


# --- tiles ------------------------------------------------------------------------------------------------
def write_tiles(ground: Ground, public: Public, progress: Progress) -> int:
    """Write every tile that is missing; how many were. ConflictError: one is there with other bytes."""
    missing, waiting = 0, dict[str, bytes]()
    for path, data in _all_files(ground, public):
        name = PREFIX + path
        missing += public.read(name) is None
        waiting[name] = data
        if len(waiting) == TILES_AT_ONCE:
            public.put_all(waiting)
            # Durable. If we stop here the next run compares these and goes on.
            waiting.clear()
    public.put_all(waiting)
    progress("tiles written", missing, missing)
    return missing


def _all_files(ground: Ground, public: Public) -> Iterator[tuple[str, bytes]]:
    yield from ground.files.items()
    for tile, hashes in _tiles(ground):
        yield tile.path(), b"".join(hashes)
        if not tile.full:
            for width in _partial_widths(public, tile):
                yield Tile(tile.level, tile.index, width).path(), b"".join(hashes[:width])


def _partial_widths(public: Public, tile: Tile) -> Iterable[int]:
    """The narrower parts of an unfinished tile that checkpoints before this one need.

    Their sizes are those of the partial bundles that are still there; of tiles further up there are few, and all
    are written.
    """
    if tile.level:
        return range(1, tile.width)
    names = public.names(f"{PREFIX}{Tile(ENTRIES, tile.index).path()}.p")
    widths = (Tile.parse(name.removeprefix(PREFIX)).width for name in names)
    return [width for width in widths if width < tile.width]


def _tiles(ground: Ground) -> Iterator[tuple[Tile, list[bytes]]]:
    """Every tile of the tree, from its entries; of each level one unfinished tile is in memory."""
    above: dict[int, list[bytes]] = {}
    size = ground.target.size
    for first, entries in read_entries(ground.tree, size):
        hashes = [leaf_hash(entry) for entry in entries]
        level, tile = 0, tile_at(0, first // WIDTH, size)
        yield tile, hashes
        while len(hashes) == WIDTH:
            level += 1
            above.setdefault(level, []).append(root_hash(hashes))
            hashes = above[level]
            if len(hashes) == WIDTH:
                yield tile_at(level, (first // WIDTH) >> 8 * level, size), hashes
                above[level] = []
    for level, rest in above.items():
        if rest:
            yield tile_at(level, size >> 8 * (level + 1), size), rest


# --- rows -------------------------------------------------------------------------------------------------
def write_rows(ground: Ground, engine: Engine, start: rules.Changes, progress: Progress) -> int:
    """Replay the entries that the rows lack, from `start` where there are none; how many entries were missing."""
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        if view.get(rules.LOG) is None:
            replay.put_all(view, start)
        position = _position(view)
    first_missing = position
    for entries in chunks(ground.tree, ground.target.size, position):
        _replay(engine, ground, entries, position)
        # Committed. If we stop here the next run goes on behind these entries.
        position += len(entries)
        progress("entries replayed", position, ground.target.size)
    return position - first_missing


def chunks(tree: PublicTree, size: int, start: int) -> Iterator[list[bytes]]:
    """The entries [start, size), as many at once as one transaction takes."""
    chunk: list[bytes] = []
    for first, entries in read_entries(tree, size, start) if start < size else ():
        chunk += entries[max(0, start - first) :]
        if len(chunk) >= COMMIT:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _position(view: SqlView) -> int:
    log = view.get(rules.LOG)
    return 0 if log is None else int(log["size"])


def _replay(engine: Engine, ground: Ground, entries: list[bytes], start: int) -> None:
    """One transaction: these entries through the rules, and a proposal for each that had one."""
    with db.write(engine) as connection, SqlView(connection, db.rules_state) as view:
        if _position(view) != start:
            raise EvidenceError("somebody else writes the rules' state: stop the registry first")
        pending = connection.execute(_ANY_PENDING).first() is not None
        for index, raw in enumerate(entries, start):
            entry, result = replay.judge(view, raw)
            # A broken entry takes its place and does nothing else; fsck and audit tell of it.
            replay.put_all(view, rules.skip(view) if isinstance(result, rules.Broken) else result)
            if entry is not None and entry.imported is not None:
                continue  # nobody proposed an import's lines
            state = PUBLISHED if index < ground.public_size else SEQUENCED
            _place(
                connection, entry, raw, {"s": state, "i": index, "h": leaf_hash(raw).hex()}, pending=pending
            )


def _place(
    connection: Connection, entry: Entry | None, raw: bytes, place: Mapping[str, Any], *, pending: bool
) -> None:
    """The row of an entry: the one that still waits, in a database older than the tree, or a new one."""
    opened = None if entry is None else entry.envelope
    registry: Mapping[str, Any] = {"raw": base64.b64encode(raw).decode("ascii")}
    if entry is not None and entry.type != "opaque":
        registry = entry.registry
    kind = "malformed" if entry is None else entry.type
    envelope = None if opened is None else _compact(opened.to_dict())
    found = connection.execute(_SAME, {"t": kind, "e": envelope}).scalar() if pending else None
    if found is not None:
        connection.execute(_PLACED, {"p": found, **place})
        return
    values = {
        "type": kind,
        "envelope": envelope,
        "registry": _compact(registry),
        "created": 0 if entry is None else entry.time,
        "state": place["s"],
        "leaf_index": place["i"],
        "leaf_hash": place["h"],
    }
    connection.execute(_TABLE.insert().values(**values))


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), separators=(",", ":"), sort_keys=True)


def put_head(ground: Ground, engine: Engine, signers: Sequence[NoteSigner]) -> None:
    """The last step: the head row says what the rows say, and the log can be started."""
    target, edge = ground.target, RightEdge.empty()
    for _, entries in read_entries(ground.tree, target.size):
        edge = edge.extend(map(leaf_hash, entries))
    if (edge.size, edge.root()) != (target.size, target.root_hash):
        raise EvidenceError("the entry bundles changed while they were read")
    with db.write(engine) as connection:
        with SqlView(connection, db.rules_state) as view:
            log = view.get(rules.LOG)
        if log is None or log["size"] != target.size:
            raise EvidenceError(f"the rules' state is not at the {target.size} entries of the tree")
        known = max(ground.seen, key=lambda checkpoint: checkpoint.size)
        body = known.log_note().decode()
        if target.size != known.size:
            # The round was staged and perhaps signed, and its signature is lost: the same tree is signed again.
            body = sign_note(target.text(), signers, time=int(log["time"])).format().decode()
        open_log_checkpoint(body.encode(), [signer.vkey for signer in signers])
        new = heads.Head(target.origin, body, target.size, b"".join(edge.hashes), None)
        old = heads.hold(connection, target.origin)
        if old is None:
            heads.create(connection, new)
        elif old.tree_size < new.tree_size:
            heads.swap(connection, old, new)
    # Committed. What its start asks, of public checkpoint and witnesses, the log asks as ever.
