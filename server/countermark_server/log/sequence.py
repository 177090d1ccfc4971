"""Sequencing: one round takes pending proposals and makes the log longer by those the rules allow.

    sequencer.load()            # once, and again after every failure: recovery is the same code as a round
    sequencer.round()           # -> how many proposals were settled; 0 when nothing waits

A round is one write transaction. What must be true if the process dies on the next line stands beside every
durable step. The transaction's commit is the moment at which a round has happened: before it, nothing; after
it, the head row holds the signature and the staging bundle holds every byte that it signs.

Genesis: the first round takes exactly the four proposals that make a registry (the enrolments of the role
keys `registry`, `scanner`, `moderation`, then tufrepo's first `tuf`), behind a successor's `predecessor`, and waits
until all are there: the first checkpoint holds them all, so no client ever sees a log whose roles or TUF metadata are
not in it. A log for load tests (`testing.raw_add`) has no genesis: its rules refuse every entry but raw bytes.

Behind the proposals a round takes lines of the import that is open (backfill.py). They have no proposal: which of
them are in the log, the rules' state says, which the same transaction changes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from countermark import rules
from countermark.entry import Entry, make_imported
from countermark.errors import CountermarkError, ProofError
from countermark.predecessor import TYPE as PREDECESSOR
from countermark.rules_import import line_keys, why_passed_over
from countermark.tlog.checkpoint import Checkpoint, LogCheckpoint
from countermark.tlog.merkle import RightEdge, check_consistency, leaf_hash, prove_consistency
from countermark.tlog.note import NoteSigner, sign_note
from countermark.tlog.tile import ENTRIES, WIDTH, Tile, encode_bundle, grow
from countermark_server import db, proposal, quick, submission, telemetry
from countermark_server.contradiction import ContradictionError
from countermark_server.log.asked import formed
from countermark_server.log.backfill import LINES_PER_ROUND, Backfill
from countermark_server.log.clockwatch import ClockWatch
from countermark_server.log.keysets import signed_by_all
from countermark_server.log.staging import Bundle, Staging
from countermark_server.log.tree import PREFIX, public_tree
from countermark_server.news import News
from countermark_server.proposal import PENDING
from countermark_server.ruleview import SqlView
from countermark_server.stores import heads
from countermark_server.stores.heads import Head
from countermark_server.stores.public import Public

# Statements are built once: building them costs more than running them.
_TABLE = db.proposal
_PENDING = select(_TABLE).where(_TABLE.c.state == PENDING).order_by(_TABLE.c.id)
_WAITING = _PENDING.limit(bindparam("n"))
_ANYBODY = f"SELECT id FROM proposal WHERE state = '{PENDING}' LIMIT 1"  # noqa: S608  (a word of ours)

GENESIS_TYPES = ("key-enroll", "key-enroll", "key-enroll", "tuf")


class LogError(ContradictionError):
    """The log can't go on like this: what it finds stored is not what it signed."""


@dataclass(frozen=True)
class Judged:
    """What the rules made of a round's proposals."""

    entries: list[bytes]
    hashes: list[bytes]  # their leaf hashes
    sequenced: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    time: int
    lines: int = 0  # of an import, at the end of `entries`
    opened: Mapping[str, Any] | None = None  # the import as it is afterwards

    def add(self, entry: Entry) -> None:
        """The next entry. `_sign` hashes the bytes that come back from the disk, and holds them against its hash."""
        self.entries.append(entry.raw)
        self.hashes.append(entry.leaf_hash)


class Sequencer:
    """The only writer of the log."""

    def __init__(
        self,
        engine: Engine,
        public: Public,
        staging: Staging,
        signers: Sequence[NoteSigner],
        *,
        origin: str,
        clockwatch: ClockWatch,
        batch: int = 1024,
        mutex: threading.Lock | None = None,
        raw_add: bool = False,
        backfill: Backfill | None = None,
    ) -> None:
        self._raw_add = raw_add
        self._backfill = backfill
        self._opened_import: Mapping[str, Any] | None = None
        self._engine = engine
        self._news = News(engine)
        self._public = public
        self._tree = public_tree(public)
        self._staging = staging
        self._signers = signers
        self._origin = origin
        self._clockwatch = clockwatch
        self._batch = batch
        self._mutex = mutex or threading.Lock()  # this process's writers take turns here, not inside SQLite
        self._head: Head | None = None
        self._checkpoint: LogCheckpoint | None = None

    @property
    def checkpoint(self) -> LogCheckpoint:
        """The newest checkpoint whose tiles are all readable."""
        if self._checkpoint is None:
            raise LogError("the log is not loaded")
        return self._checkpoint

    def load(self) -> LogCheckpoint:
        """Take up the log where the head row says it is. LogError: the stored tree is not the signed one."""
        self._head = self._checkpoint = None
        with self._mutex, db.write(self._engine) as connection:
            head = heads.hold(connection, self._origin)
            if head is None:
                raise LogError(f"there is no log {self._origin} here: `countermark-server adopt` creates it")
            with SqlView(connection, db.rules_state) as view:
                check_kind(view, raw_add=self._raw_add)
                self._opened_import = opened_import(view)
                time = last_time(view)
        telemetry.LOG_SIZE.labels("next").set(head.tree_size)
        checkpoint = self._opened(head, time)
        if head.staging is not None:
            # The round happened, its tiles may not be there: a crash between commit and apply ends here.
            self._apply(self._staging.read(head.staging), checkpoint)
        self._check_edge(head, checkpoint)
        self._head, self._checkpoint = head, checkpoint
        telemetry.LOG_SIZE.labels("integrated").set(checkpoint.size)
        telemetry.LOG_SIZE.labels("signed").set(checkpoint.size)
        return checkpoint

    def sweep(self) -> None:
        """Drop staging bundles beyond the head, once it is known that the head is the newest.

        Not before: in a database from yesterday's backup they are what is left of today's rounds.
        """
        with self._mutex, db.write(self._engine) as connection:
            head = heads.hold(connection, self._origin)
            # No round is under way while we hold this transaction: a bundle beyond the head never happened.
            for size, name in list(self._staging.sizes()):
                if head is not None and size > head.tree_size:
                    self._staging.drop(name)

    @property
    def importing(self) -> bool:
        """Whether lines of an import are there to be appended, whoever else waits."""
        return self._backfill is not None and self._backfill.due(self._opened_import)

    def close(self) -> None:
        """Look no more: its connection goes back."""
        self._news.close()

    def round(self) -> int:
        """One round. After an exception nothing is sequenced until `load` succeeded; ClockLeaptError: none began."""
        old, checkpoint = self._head, self._checkpoint
        if old is None or checkpoint is None:
            raise LogError("the log is not loaded")
        if not self.importing and not self._is_waited_for(old):
            return 0
        now = int(self._clockwatch.now())  # read once: the time that was found right is the entries'
        self._head = None
        with telemetry.LOG_ROUND.time():
            settled, new, checkpoint, bundle = self._round(old, checkpoint, now)
            # Committed. If we stop here the head is ahead of the public tree; load() finds the staging
            # bundle it names and applies it. No index can be given twice: the next round starts there.
            telemetry.LOG_SIZE.labels("next").set(new.tree_size)
            if bundle is not None:
                self._apply(bundle, checkpoint)
                # Applied. If we stop here the tiles are public and no checkpoint covers them yet: the entries
                # are not acknowledged; after a restart the publisher cosigns this head.
        self._head, self._checkpoint = new, checkpoint
        telemetry.LOG_SIZE.labels("integrated").set(checkpoint.size)
        telemetry.LOG_SIZE.labels("signed").set(checkpoint.size)
        return settled

    def _round(
        self, old: Head, checkpoint: LogCheckpoint, now: int
    ) -> tuple[int, Head, LogCheckpoint, Bundle | None]:
        """The transaction of a round: the new head, and the bundle it names (None: all were refused)."""
        new, signed, bundle = old, checkpoint, None
        with self._mutex, db.write(self._engine) as connection:
            heads.check_held(connection, old)
            rows = self._waiting(connection, old, limit=self._batch)
            view = SqlView(connection, db.rules_state)
            judged = self._judge(view, rows, old.tree_size, now)
            _settle(connection, judged)
            if judged.entries:
                with view.flushing():  # the database takes the state while the disk takes the bundle
                    bundle, edge = self._stage(old, checkpoint, judged)
                    # Synced beside the bundle; no names before the commit.
                    self._public.prepare(_files(bundle))
                    name = self._staging.put(bundle)
                # Staged. If we stop here the transaction is gone, nothing was signed, and sweep() drops
                # this bundle: the proposals are still pending.
                body = self._sign(old, checkpoint, self._staging.read(name), edge, judged.time)
                # Signed, in memory only. If we stop here the signature is destroyed with this process: it
                # was never stored, logged, returned or sent, so the size may be signed again.
                new = Head(self._origin, body, edge.size, b"".join(edge.hashes), name)
                signed = self._opened(new, judged.time)  # false, or of something else: it ends here
                heads.swap(connection, old, new)
                # Swapped, not committed. If we stop here the database forgets it, and us.
        telemetry.LOG_ROUND_ENTRIES.labels("sequenced").inc(len(judged.sequenced))
        telemetry.LOG_ROUND_ENTRIES.labels("refused").inc(len(judged.refused))
        telemetry.LOG_ROUND_ENTRIES.labels("imported").inc(judged.lines)
        self._opened_import = judged.opened
        return len(rows) + judged.lines, new, signed, bundle

    def _is_waited_for(self, head: Head) -> bool:
        if head.tree_size == 0:
            with db.read(self._engine) as connection:
                return bool(self._waiting(connection, head, limit=1))
        return self._news.first(_ANYBODY) is not None

    def _waiting(self, connection: Connection, head: Head, *, limit: int) -> Sequence[Mapping[str, Any]]:
        """Pending proposals in the order of their ids; at genesis the four (and a predecessor before), or none."""
        if head.tree_size or self._raw_add:
            return quick.mappings(connection, _WAITING, {"n": limit})
        first = _PENDING.where(db.proposal.c.type.in_({PREDECESSOR, *GENESIS_TYPES}))
        rows: list[Mapping[str, Any]] = [dict(row) for row in connection.execute(first).mappings()]
        enrolments = [row for row in rows if row["type"] == "key-enroll"][:3]
        tuf = [row for row in rows if row["type"] == "tuf"][:1]
        genesis = [*enrolments, *tuf]
        if tuple(row["type"] for row in genesis) != GENESIS_TYPES:
            return []
        # A successor's entry 0 was proposed with the enrolments, in one transaction: it is there if it ever will be.
        return [*(row for row in rows if row["type"] == PREDECESSOR), *genesis]

    def _judge(self, view: SqlView, rows: Sequence[Mapping[str, Any]], size: int, now: int) -> Judged:
        """Ask the rules about each proposal in turn; what one changes, the next one sees. Nothing is written yet."""
        judged = Judged([], [], [], [], 0)
        time = max(now, last_time(view))  # a clock that went back stands still here
        entries = [formed(row, time) for row in rows]
        view.fetch(key for entry in entries if isinstance(entry, Entry) for key in rules.keys(entry))
        for row, asked in zip(rows, entries, strict=True):
            entry, refusal = _try(view, row, asked)
            if entry is None:
                judged.refused.append({"p": row["id"], "s": row["submission_id"], **refusal})
                continue
            index = size + len(judged.entries)
            judged.sequenced.append({"p": row["id"], "i": index, "h": entry.leaf_hash.hex()})
            judged.add(entry)
        lines = self._append_lines(view, judged, time)
        if size == 0 and judged.refused and not self._raw_add:
            raise LogError(f"a genesis entry was refused: {judged.refused[0]['message']}")
        return replace(judged, time=time, lines=lines, opened=opened_import(view))

    def _append_lines(self, view: SqlView, judged: Judged, time: int) -> int:
        """The next lines of the open import, behind the proposals: how many. LogError: the rules refuse one."""
        opened = opened_import(view)
        if self._backfill is None or not self._backfill.due(opened):
            return 0
        lines = self._backfill.lines(opened, most=LINES_PER_ROUND)
        view.fetch(key for line in lines for key in line_keys(line))
        for line in lines:
            passed = why_passed_over(view, line.line, time)
            entry = make_imported(line if passed is None else replace(line, passed=passed), time=time)
            result = rules.apply(view, entry)
            if isinstance(result, rules.Broken):
                raise LogError(f"line {line.number} of import #{line.index}: {result.message}")
            for key, value in result.writes.items():
                view.put(key, value)
            judged.add(entry)
        return len(lines)

    def _stage(self, old: Head, checkpoint: LogCheckpoint, judged: Judged) -> tuple[Bundle, RightEdge]:
        """Everything the new tree has and the old one has not, and the new right edge."""
        size, root = checkpoint.size, checkpoint.root_hash
        partial = self._tree.edge(size, root)
        tiles = grow(size, partial, judged.hashes)
        stored = self._tree.last_entries(size)
        if b"".join(map(leaf_hash, stored)) != partial.get(0, b""):
            raise ProofError(f"an entry of the last bundle at size {size} is not in the tree")
        entries = stored + judged.entries
        first = size // WIDTH
        files = {tile.path(): raw for tile, raw in tiles.items()}
        for start in range(0, len(entries), WIDTH):
            group = entries[start : start + WIDTH]
            bundle = Tile(ENTRIES, first + start // WIDTH, len(group))
            files[bundle.path()] = encode_bundle(group)
        edge = _edge(old).extend(judged.hashes)
        return Bundle(size, edge.size, edge.root(), files), edge

    def _sign(self, old: Head, checkpoint: LogCheckpoint, staged: Bundle, edge: RightEdge, time: int) -> str:
        """Check the bytes as they came back from the disk against what was computed, then sign."""
        if (staged.size, staged.root_hash) != (edge.size, edge.root()):
            raise LogError(f"staging bundle for size {staged.size} has another root than was computed")
        after = self._tree.overlaid(staged.files)
        read = after.reader(edge.size, edge.root())
        # Every entry that was staged hashes to its slot.
        after.entries(old.tree_size // WIDTH * WIDTH, edge.size, read)
        # The old tree is a prefix of the new one, proved from stored bytes.
        proof = prove_consistency(checkpoint.size, edge.size, read)
        check_consistency(
            proof,
            old_size=checkpoint.size,
            old_root=checkpoint.root_hash,
            new_size=edge.size,
            new_root=edge.root(),
        )
        text = Checkpoint(self._origin, edge.size, edge.root()).text()
        return sign_note(text, self._signers, time=time).format().decode()

    def _apply(self, bundle: Bundle, checkpoint: LogCheckpoint) -> None:
        """Copy a round's files into the public tree; the same after a round and after a crash."""
        if (bundle.size, bundle.root_hash) != (checkpoint.size, checkpoint.root_hash):
            raise LogError(f"staging bundle is for size {bundle.size}, the head is at {checkpoint.size}")
        self._public.put_all(_files(bundle))

    def _opened(self, head: Head, time: int) -> LogCheckpoint:
        """The head's checkpoint, signed by all our keys (as of `time`) and agreeing with the row it stands in."""
        checkpoint = signed_by_all(head.body.encode(), self._signers, time=time)
        agreed = (self._origin, head.tree_size, _edge(head).root())
        if (checkpoint.origin, checkpoint.size, checkpoint.root_hash) != agreed:
            raise LogError(f"the head row of size {head.tree_size} disagrees with the checkpoint in it")
        return checkpoint

    def _check_edge(self, head: Head, checkpoint: LogCheckpoint) -> None:
        """The stored right edge leads to the signed root, and the last bundle's entries hash into it."""
        size, root = checkpoint.size, checkpoint.root_hash
        read = self._tree.reader(size, root)
        if size and RightEdge.read(size, read) != _edge(head):
            raise LogError(f"the right edge in the head row is not that of the public tree at size {size}")
        start = (size - 1) // WIDTH * WIDTH if size else 0
        self._tree.entries(start, size, read)


def last_time(view: SqlView) -> int:
    """The time of the newest leaf, as the rules remember it."""
    state = view.get(("log",))
    if state is None:
        raise LogError("the rules' state is empty: this log was not created by `adopt`")
    return int(state["time"])


def opened_import(view: SqlView) -> Mapping[str, Any] | None:
    """What the rules know of the newest import; None before the first, and in a log that is frozen: no line comes."""
    state = view.get(("log",))
    return None if state is None or state.get("frozen") is not None else state.get("import")


def check_kind(view: SqlView, *, raw_add: bool) -> None:
    """LogError unless the log was created the way the settings say: raw for ever, or never."""
    state = view.get(("log",))
    if state is not None and state["raw_add"] != raw_add:
        kind = "for raw bytes only" if state["raw_add"] else "of signed entries"
        raise LogError(f"this log was created as one {kind}, and testing.raw_add is {raw_add}".lower())


def _try(
    view: SqlView, row: Mapping[str, Any], asked: Entry | Exception
) -> tuple[Entry | None, dict[str, str]]:
    """The entry, once the rules allowed it and their changes are in the view; or why there is none."""
    try:
        if isinstance(asked, Exception):
            raise asked
        result = rules.apply(view, asked)
    except SQLAlchemyError:
        raise
    except rules.RuleVersionError as error:
        raise LogError(str(error)) from None
    except CountermarkError as error:
        return None, {"code": "malformed", "message": str(error)}
    except Exception as error:  # a bug must cost one proposal, not the log
        telemetry.logger().error("a proposal broke the rules' code", proposal=row["id"], exc_info=error)
        return None, {"code": "internal", "message": "the registry could not judge this entry"}
    if isinstance(result, rules.Broken):
        return None, {"code": result.code, "message": result.message}
    for key, value in result.writes.items():
        view.put(key, value)
    return asked, {}


def _settle(connection: Connection, judged: Judged) -> None:
    """Write down what became of each proposal; a refused publish gives its file name back."""
    proposal.sequence(connection, judged.sequenced)
    proposal.refuse(connection, judged.refused)
    submission.discard(connection, [row["s"] for row in judged.refused if row["s"] is not None])


def _files(bundle: Bundle) -> dict[str, bytes]:
    """What a round writes into the public tree, by the names it has there."""
    return {PREFIX + path: raw for path, raw in bundle.files.items()}


def _edge(head: Head) -> RightEdge:
    hashes = tuple(head.edge[i : i + 32] for i in range(0, len(head.edge), 32))
    return RightEdge(head.tree_size, hashes)
