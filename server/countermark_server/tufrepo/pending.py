"""What waits to be published: the log replayed from the last candidate to the public checkpoint.

Kept in memory until a candidate takes it along: the database always holds the state of the last candidate, so
a restart replays the same entries again. Few of them make a publish due: those after which a bin must hold
other targets, and those that decide about a file (`STATUS_TYPES`), which move `applied`. So does the end of an
import: its lines list nothing, but there are tens of thousands of them, and every verification reads what is not
applied.
"""

from __future__ import annotations

from sqlalchemy import Engine

from countermark import rules
from countermark.entry import Entry
from countermark.errors import EvidenceError
from countermark.logreader import LogReader
from countermark.replay import Finding, put_all, replay
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.tlog.policy import Policy
from countermark.trustfile import TrustFile
from countermark_server import db, jsontext, telemetry
from countermark_server.listing import STATUS_TYPES, Overlay, Target, Touched, updated
from countermark_server.ruleview import SqlView
from countermark_server.stores.public import CHECKPOINT, Public
from countermark_server.tufrepo.candidate import Current
from countermark_server.tufrepo.publicfiles import PublicFiles


class Checkpoints:
    """The newest checkpoint that was opened: between two publishes the same one is read twice or more."""

    def __init__(self) -> None:
        self._newest: tuple[bytes, Policy, VerifiedCheckpoint] | None = None

    def open(self, raw: bytes, policy: Policy) -> VerifiedCheckpoint:
        """The checkpoint in these bytes, verified once by this policy."""
        if self._newest is None or self._newest[:2] != (raw, policy):
            self._newest = raw, policy, open_checkpoint(raw, policy, now=None)
        return self._newest[2]


class Pending:
    """Entries behind `current`, and what they ask for."""

    def __init__(
        self,
        engine: Engine,
        public: Public,
        trust_file: TrustFile,
        current: Current,
        checkpoints: Checkpoints,
    ) -> None:
        self._checkpoints = checkpoints
        self._engine = engine
        self._public = public
        self._policy = trust_file.policy
        self._current = current
        self._base: SqlView | None = None
        self._touched = Touched()
        self._seen: bytes | None = None
        self.view = Overlay(self._below)
        self.contents: dict[int, dict[str, Target]] = {}  # new targets of each bin that must change
        self.status_since: int | None = None  # time of the first entry that decided about a file
        self.imported = False  # an import was completed or ended
        self.applied = current.applied
        self.findings: list[Finding] = []
        if current.tree is None:
            genesis = rules.genesis(origin=trust_file.origin, authority_key=trust_file.authority_key)
            put_all(self.view, genesis)

    def read(self) -> None:
        """Take up the entries that the public, cosigned checkpoint covers and we have not seen."""
        raw = self._public.read(CHECKPOINT)
        if raw is None or raw == self._seen:
            return
        checkpoint = self._checkpoints.open(raw, self._policy)
        with db.read(self._engine) as connection:
            self._base = SqlView(connection, db.tufrepo_state)
            log = self.view.get(rules.LOG)
            assert log is not None, "the state begins with genesis"
            if checkpoint.size > log["size"]:
                reader = LogReader("public:log", checkpoint, PublicFiles(self._public))
                leaves = [entry for _, entry in reader.entries(log["size"], checkpoint.size)]
                self.applied = replay(
                    leaves,
                    self.view,
                    on_finding=self._found,
                    on_changes=self._look,
                    fetch=self._base.fetch,
                )
        self.contents = self._changed_bins()
        self._seen = raw

    @property
    def frozen(self) -> bool:
        """Whether the log has had its last entry."""
        log = self.view.get(rules.LOG)
        return log is not None and log.get("frozen") is not None

    def bin(self, number: int) -> dict[str, Target]:
        """The targets a bin holds now."""
        role, version = self._current.role(number), self._current.bins[number].version
        raw = self._public.read(f"tuf/{version}.{role}.json")
        if raw is None:
            raise EvidenceError(f"{version}.{role}.json is missing from the public tree")
        targets: dict[str, Target] = jsontext.decode(raw.decode())["signed"]["targets"]
        return targets

    def _below(self, key: rules.Key) -> rules.State | None:
        return None if self._base is None else self._base.get(key)

    def _look(self, _index: int, entry: Entry, changes: rules.Changes) -> None:
        self._touched.note(self.view, changes)
        opened = self.view.get(rules.LOG) if entry.imported is not None or entry.type == "import" else None
        if opened is not None and (opened["import"]["left"] == 0 or entry.type == "import"):
            self.imported = True
        if self.status_since is None and entry.type in STATUS_TYPES:
            self.status_since = entry.time

    def _found(self, finding: Finding) -> None:
        self.findings.append(finding)
        telemetry.logger().error("finding", finding=str(finding))

    def _changed_bins(self) -> dict[int, dict[str, Target]]:
        changed = {}
        for number, touched in self._touched.bins(self._current.bit_length).items():
            before = self.bin(number)
            after = updated(before, touched)
            if after != before:
                changed[number] = after
        return changed
