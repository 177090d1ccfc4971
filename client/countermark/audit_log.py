"""The log's half of an audit: every tile, every entry, every rule, from the last position to the head.

    (2) the checkpoint is signed by every key of the log, and cosigned by the quorum
    (3) it extends the last one audited, and the one in the timestamp is a prefix of it
    (4) every tile leads to its root hash, every entry hashes to its place
    (5) every entry obeys the rules, and none is stamped ahead of the quorum that saw it

Bytes that the tree does not vouch for are never replayed: there the replay stops, says how much is left, and
the next run tries again from the same place. A bad *entry* stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark import rules
from countermark.audit_report import Finding, Notes, evidence_of, finding, view_finding
from countermark.audit_state import AuditState
from countermark.entry import Entry
from countermark.errors import CountermarkError, EvidenceError, NetworkError
from countermark.evidence import save
from countermark.fetch import Fetcher
from countermark.limits import LEAF_TIME_MAX_LEAD, NOTE_MAX_BYTES, STATUS_APPLIED_WITHIN
from countermark.listing import STATUS_TYPES, target_of
from countermark.logreader import LogReader
from countermark.pins import Registry
from countermark.replay import Finding as Broken
from countermark.replay import put_all, replay
from countermark.tlog.checkpoint import Checkpoint, VerifiedCheckpoint, open_checkpoint
from countermark.tlog.note import Note
from countermark.tlog.tile import WIDTH
from countermark.trustfile import TrustFile
from countermark.values import replace

CHUNK = WIDTH * WIDTH  # entries read by one reader: it remembers every tile it has read
COMMIT = 16 * WIDTH  # entries of one transaction
# Rules about who signed; the others are about what was said.
IDENTITY = frozenset(
    {
        *("signature-false", "signature-count", "signature-required", "not-authorised", "threshold"),
        *(
            "key-unknown",
            "key-revoked",
            "key-expired",
            "key-pending",
            "key-taken",
            "not-an-owner",
            "approver",
            "moderator",
        ),
    }
)

Say = Callable[[str], None]


def read_head(
    registry: Registry,
    fetcher: Fetcher,
    trust_file: TrustFile,
    carried: VerifiedCheckpoint | None,
    *,
    now: int,
    notes: Notes,
) -> VerifiedCheckpoint | None:
    """(2) The public checkpoint, or the one in the timestamp where the public one does not hold."""
    raw = b""
    try:
        raw = fetcher.get(f"{registry.log_url}/checkpoint", max_bytes=NOTE_MAX_BYTES) or b""
        public = open_checkpoint(raw, trust_file.policy, now=now)
        if public.origin != trust_file.origin:
            raise EvidenceError(f"it is of {public.origin}, the trust file is about {trust_file.origin}")
    except EvidenceError as error:
        notes.add(finding("checkpoint", f"the public checkpoint: {error}"), {"checkpoint": raw})
        return carried
    except CountermarkError as error:
        notes.add(view_finding(error, "the public checkpoint"))
        return carried
    notes.cover("checkpoint signatures", len(public.log_signatures))
    notes.cover("cosignatures", len(public.cosignatures))
    if carried is not None and carried.size > public.size:
        notes.add(_went_back(public.size, carried.size, "the timestamp carries"))
        return carried
    return public


def _went_back(size: int, before: int, what: str) -> Finding:
    message = f"the public checkpoint is of size {size}, {what} {before}"
    return finding("checkpoint-back", message, public=size, before=before)


class LogAudit:
    """One pass over the log, up to one head."""

    def __init__(
        self,
        state: AuditState,
        registry: Registry,
        fetcher: Fetcher,
        *,
        head: VerifiedCheckpoint,
        trust_file: TrustFile,
        notes: Notes,
    ) -> None:
        self._state, self._registry, self._fetcher = state, registry, fetcher
        self._head, self._trust_file, self._notes = head, trust_file, notes

    def _reader(self) -> LogReader:
        return LogReader(self._registry.log_url, self._head, self._fetcher)

    def check_heads(self, carried: VerifiedCheckpoint | None) -> bool:
        """(3) Whether the replay may go on: this head extends the last one audited."""
        if carried is not None:
            self._agrees(carried, carried.raw, "fork-timestamp", "the checkpoint in the timestamp")
        last = self._state.fact("head")
        if last is None:
            self._notes.leave("consistency with an earlier head: this is the first audit of this log here")
            return True
        other = Checkpoint.parse(Note.parse(last.encode()).text)
        if not self._agrees(other, last.encode(), "fork", "the last head audited"):
            return False
        if other.size > self._head.size:
            self._notes.add(_went_back(self._head.size, other.size, "the last head audited had"))
        return True

    def _agrees(self, other: Checkpoint, raw: bytes, code: str, what: str) -> bool:
        """Whether one of the two heads is a prefix of the other; tiles that lead to neither are a finding too."""
        head = self._head
        smaller, larger = sorted((head, other), key=lambda checkpoint: checkpoint.size)
        reader = self._reader().against(larger)
        prefix_root = larger.root_hash
        proof: tuple[bytes, ...] = ()
        try:
            if smaller.size < larger.size:  # reads only tiles that lead to the larger head's root
                prefix_root, proof = reader.root_at(smaller.size), reader.prove_prefix(smaller.size)
        except EvidenceError as error:  # a tile that is not the tree's, or no tile at all
            self._notes.add(finding("tile", str(error)))
            return False
        except NetworkError as error:
            self._notes.add(view_finding(error, "comparing heads"))
            return False
        if prefix_root == smaller.root_hash:
            self._notes.cover("consistency with other heads")
            return True
        size = smaller.size
        message = f"fork at size {size}: {what} has another root hash than the log's checkpoint {head.size}"
        found = finding(code, message, one=smaller.root_hash.hex(), other=prefix_root.hex())
        objects = {"checkpoint-seen": raw, "checkpoint-offered": head.raw, "prefix-root": prefix_root}
        self._notes.add(found, {**objects, "consistency-proof": b"".join(proof)})
        return False

    def run(self, say: Say) -> bool:
        """(4), (5) Replay up to the head; False when bytes that the tree vouches for could not be had."""
        state, size, trust_file = self._state, self._head.size, self._trust_file
        if state.get(rules.LOG) is None:
            with state.transaction():
                put_all(
                    state, rules.genesis(origin=trust_file.origin, authority_key=trust_file.authority_key)
                )
        reader, first = self._reader(), state.position
        self._notes.cover("entries", 0)
        while (start := state.position) < size:
            end = min(size, (start // COMMIT + 1) * COMMIT)
            if start == first or start % CHUNK == 0:
                reader = self._reader()
            leaves = self._read(reader, start, end)
            with state.transaction():
                self._replay(start, leaves)
                state.set_fact("head", self._head.raw.decode())
            # Committed. If we stop here the next run goes on at this position, under this head or a later one.
            say(f"{state.position} of {size} entries")
            if state.position < end:
                self._notes.leave(
                    f"entries {state.position} to {size - 1}: bytes of the tree are missing or false"
                )
                return False
        return True

    def _read(self, reader: LogReader, start: int, end: int) -> list[bytes]:
        """The entries of a range as far as tiles and bundles are the tree's; what is wrong is a finding."""
        leaves: list[bytes] = []
        at, code = start, "tile"
        try:
            while at < end:
                until = min(end, (at // WIDTH + 1) * WIDTH)
                code = "tile"
                reader.inclusion(at)  # the level-0 tile and all above it
                code = "bundle"
                leaves += [raw for _, raw in reader.entries(at, until)]
                self._notes.cover("tiles of hashes")
                self._notes.cover("entry bundles")
                at = until
        except EvidenceError as error:
            self._notes.add(finding(code, str(error)), {"checkpoint": self._head.raw})
        except NetworkError as error:
            self._notes.add(view_finding(error, f"entries from {at}"))
        return leaves

    def _replay(self, start: int, leaves: list[bytes]) -> None:
        limit = self._head.quorum_time + int(LEAF_TIME_MAX_LEAD.total_seconds())

        def on_finding(broken: Broken) -> None:
            code = "rule-identity" if broken.broken.code in IDENTITY else "rule"
            found = finding(code, str(broken), broken.broken.party, rule=broken.broken.code)
            self._keep(found, broken.index, leaves[broken.index - start])

        def on_changes(index: int, entry: Entry, changes: rules.Changes) -> None:
            self._note(index, entry, changes)
            if self._head.quorum_time and entry.time > limit:
                message = (
                    f"entry {index} is stamped {entry.time}, "
                    f"the quorum saw the log at {self._head.quorum_time}"
                )
                found = finding("leaf-time", message, time=entry.time, quorum_time=self._head.quorum_time)
                self._keep(found, index, entry.raw)

        replay(leaves, self._state, on_finding=on_finding, on_changes=on_changes)
        self._notes.cover("entries", len(leaves))

    def _keep(self, found: Finding, index: int, raw: bytes) -> None:
        """A finding about an entry is kept with the position, and its evidence before that."""
        shown = {f"entry-{index}": raw, "checkpoint": self._head.raw}
        evidence = evidence_of(found, shown, self._registry, self._trust_file)
        assert evidence is not None
        path = save(evidence, self._registry.folder / "evidence", time=self._head.quorum_time)
        self._state.add_finding(replace(found, evidence=str(path)))

    def _note(self, index: int, entry: Entry, changes: rules.Changes) -> None:
        """What later steps need of an entry that was allowed."""
        state, statement = self._state, entry.statement
        predicate: Mapping[str, Any] = {} if statement is None else statement.predicate
        for key in changes.files() if entry.imported is not None else ():
            file = state.get(key)
            assert file is not None
            # An import knows no metadata: none of a file's is held against the log.
            state.add_file(rules.target_path(file), "", entry.time)
            self._notes.cover("imported files, not signed")
        if entry.type == "publish" and statement is not None:
            key = rules.file_key(predicate["namespace"], predicate["project"], statement.subject_name)
            file = state.get(key)
            assert file is not None
            state.add_file(rules.target_path(file), predicate["metadata_sha256"], entry.time)
        for key in rules.touched_files(state, changes):
            path, target = target_of(state, key)
            state.add_pending(index, path, target)
            state.touch_file(path, entry.time)
        if entry.type == "import":
            said = (predicate["manifest_sha256"], predicate["chain_sha256"], predicate["count"])
            state.add_manifest(index, *said)
        if entry.type == "tuf":
            state.add_tuf(index, predicate)
        if entry.type in STATUS_TYPES:
            state.add_status(index, entry.type, entry.time)
        for member in ("findings_sha256", "evidence_sha256", "statement_sha256", "manifest_sha256"):
            if predicate.get(member) is not None:
                state.add_blob(predicate[member], index, entry.time)


def check_applied(state: AuditState, quorum_time: int, notes: Notes, timestamp: bytes, carried: int) -> None:
    """Status entries behind `applied` must not be older than 15 minutes of a quorum that is up.

    The timestamp convinces others when that is so already by the checkpoint it carries, of quorum time `carried`.
    """
    patience = int(STATUS_APPLIED_WITHIN.total_seconds())
    for index, kind, time in state.statuses():
        if quorum_time - time > patience:
            late = quorum_time - time
            message = f"entry {index} ({kind}) is {late} s old and not applied by TUF"
            shown = {"timestamp": timestamp} if carried - time > patience else {}
            notes.add(finding("applied-late", message, entry=index, seconds=late), shown)
    notes.cover("entries behind applied", len(state.statuses()))
