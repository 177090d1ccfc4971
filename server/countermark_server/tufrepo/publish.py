"""One TUF publish, step by step. Each step can be done twice; beside each durable one stands what is true then.

repository = Repository(parts)
repository.step()        # the next thing to do, whatever it is; True when something was done
repository.load()        # after an error: take up again where the database says we are
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from countermark.errors import NetworkError
from countermark.limits import TIMESTAMPS_MAX
from countermark.statement import Statement, sign
from countermark.tlog.checkpoint import open_log_checkpoint
from countermark_server import closing, db, proposal, telemetry
from countermark_server.contradiction import check_not_older
from countermark_server.listing import Target
from countermark_server.stores import heads
from countermark_server.stores.public import CANDIDATE, CHECKPOINT
from countermark_server.tufrepo import genesis, listed, renewing, retention, store
from countermark_server.tufrepo.candidate import (
    OFFLINE,
    Candidate,
    Current,
    binding,
    build,
)
from countermark_server.tufrepo.due import Due
from countermark_server.tufrepo.ending import Ending, ending, find_closed, offline_expires
from countermark_server.tufrepo.keys import bins_of, read_index
from countermark_server.tufrepo.parts import Parts
from countermark_server.tufrepo.pending import Checkpoints, Pending
from countermark_server.tufrepo.rebinning import spread
from countermark_server.tufrepo.relay import Relay
from countermark_server.tufrepo.renewing import TufrepoError
from countermark_server.tufrepo.snapshot import SAMPLE, Fragments, check_stock

CLEAN_SECONDS = 60.0  # between two looks for old metadata, when there was none
RELAY_SECONDS = 1.0  # between two looks for a timestamp that was carried again
STATUS_PATIENCE = timedelta(
    minutes=5
)  # past it a candidate without timestamp makes room; at 15 none gets one


class Repository:
    """The one writer of bins and snapshots."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._engine, self._public = parts.engine, parts.public
        self._origin = parts.trust_file.origin
        self._take_root()
        self._signed = 0  # snapshots by this process
        self._due = Due(parts)
        self._relay_at = 0.0
        self._clean_at = 0.0
        self._checkpoints = Checkpoints()
        self._check_start()
        self.load()

    def _take_root(self) -> None:
        self._root = renewing.newest_root(self._public).signed
        parts = self._parts
        accepted = renewing.trust_file(parts.public, self._root, parts.trust_file)
        self._trust = max(accepted, parts.trust_file, key=lambda each: each.version)  # what the log goes by
        self._relay = Relay(
            parts.public, self._root, accepted.policy, parts.timestamper, parts.timestamper_url
        )

    def _check_start(self) -> None:
        """StartRefusedError: the database is older than the public log. Nothing was claimed, signed or written."""
        raw = self._public.read(CHECKPOINT)
        if raw is not None:
            public = open_log_checkpoint(raw, self._parts.trust_file.log_keys)
            with db.read(self._engine) as connection:
                head = heads.load(connection, self._origin)
            check_not_older(public.size, 0 if head is None else head.tree_size)

    def load(self) -> None:
        """Take up where the database says we are. Also what follows any error."""
        with db.read(self._engine) as connection:
            current = store.load(connection)
            self._candidate = store.open_candidate(connection)
            self._inherited = self._candidate is not None  # proposed before this load, perhaps by other keys
            # A superseded candidate is only half of a publish: the other half is still to be written.
            self._forced = store.newest_state(connection) == store.SUPERSEDED
        self._genesis = current is None
        self._current = current or genesis.before(self._public)
        offline = {f"{role}.json": version for role, version in self._current.offline.items()}
        online = {f"{self._current.role(i)}.json": b.version for i, b in enumerate(self._current.bins)}
        renewing.online(self._public, self._parts.keys, self._root, self._current, binding(self._origin))
        left = {f"{role}.json": version for role, version in self._current.left.items()}
        self._fragments = Fragments({**offline, **online, **left})
        self._pending = self._nothing_pending()

    @property
    def current(self) -> Current:
        """What was last written."""
        return self._current

    @property
    def waiting_since(self) -> int | None:
        """The time of the oldest status entry that no candidate has taken along; None when there is none."""
        return self._pending.status_since

    def step(self) -> bool:
        """The next thing there is to do."""
        if self._candidate is not None:
            return self._advance(self._candidate)
        if self._genesis:
            self._publish_genesis()
            return True
        with db.read(self._engine) as connection:
            cleared = listed.is_any_cleared(connection)
            closed, renewal = find_closed(connection, self._origin), store.renewal(connection)
        if cleared and not self._forced:  # otherwise the state is ahead of the public timestamp
            with db.write(self._engine) as connection:
                listed.list_cleared(connection, now=int(self._parts.clock()))
        self._pending.read()
        end = None
        if not self._forced:
            end = ending(self._engine, self._origin, closed, self._current, self._pending)
        if end is Ending.DUE and self._due.may_retry:
            return self._publish_last()
        if end is None and self._is_due(renewal):
            return self._publish()
        return self._relay_recarried() or self._clean()

    # --- a publish, up to its proposal ------------------------------------------------------------------------

    def _publish_genesis(self) -> None:
        """Empty bins, snapshot 1, and the `tuf` entry that stands in the log's first checkpoint."""
        files = genesis.adopted_files(self._public)
        contents: dict[int, Mapping[str, Target]] = {
            number: {} for number in range(1 << self._current.bit_length)
        }
        self._write(contents, True, genesis.APPLIED, binding(self._origin, files), [])

    def _publish(self) -> bool:
        """Everything that is due, as one candidate."""
        timestamps = self._unlogged()
        if timestamps is None:
            return False
        contents = {**self._due.renewals(self._current, self._pending), **self._pending.contents}
        renewal = self._due.renewal()
        bridging = self._due.bridges(renewal, self._root)
        snapshot = bool(contents) or renewal is not None or self._due.snapshot_expiring(self._current)
        before = {**self._current.offline, "root": self._root.version}
        files = {} if bridging else renewing.files(self._public, renewal or {}, before)
        said = binding(self._origin, files)
        ground = self._current
        if said["index"] is not None:
            ground, contents = self._after_index(said["index"]["version"], contents)
        self._write(contents, snapshot, self._pending.applied, said, timestamps, ground=ground)
        return True

    def _publish_last(self) -> bool:
        """Every bin and the snapshot once more, to stay (ending.py)."""
        timestamps = self._unlogged()
        if timestamps is None:
            return False
        until = offline_expires(self._public, self._root, self._current)
        applied = self._pending.applied
        self._write(self._every_bin(), True, applied, binding(self._origin), timestamps, last=until)
        return True

    def _is_due(self, renewal: Mapping[str, int] | None) -> bool:
        """A superseded candidate's second half is always due; only the timestamper may make it wait."""
        if self._forced:
            return self._due.may_retry
        return self._due.is_due(self._pending, renewal, self._relay, self._root)

    def _unlogged(self) -> list[str] | None:
        """The timestamps that this publish brings into the log; None when the timestamper does not answer."""
        try:
            return self._relay.unlogged()[:TIMESTAMPS_MAX]
        except NetworkError as error:
            telemetry.logger().warning("the timestamper is out of reach", error=str(error))
            self._due.unanswered()
            return None

    def _every_bin(self) -> dict[int, Mapping[str, Target]]:
        return {number: self._pending.bin(number) for number in range(len(self._current.bins))}

    def _after_index(
        self, version: int, contents: dict[int, Mapping[str, Target]]
    ) -> tuple[Current, dict[int, Mapping[str, Target]]]:
        """What is written when another index takes over: every bin, where it names another key or more of them."""
        old, new = (
            bins_of(read_index(self._public, each)) for each in (self._current.offline["index"], version)
        )
        if old == new:
            return self._current, contents
        every = {**self._every_bin(), **contents}
        if old.bit_length == new.bit_length:
            return self._current, every
        return spread(self._current, every, new.bit_length)

    def _write(
        self,
        contents: Mapping[int, Mapping[str, Target]],
        snapshot: bool,
        applied: int,
        said: Mapping[str, Any],
        timestamps: Sequence[str],
        *,
        last: datetime | None = None,
        ground: Current | None = None,
    ) -> None:
        ground = ground or self._current
        now = int(self._parts.clock())
        online = renewing.online(self._public, self._parts.keys, self._root, self._current, said)
        roles = [ground.role(index) for index in contents] + (["snapshot"] if snapshot else [])
        with db.write(self._engine) as connection:
            claimed = store.claim(connection, roles)
        # Claimed. If we stop here, or anywhere before the next transaction, these numbers are skipped: what
        # was signed with them is named by nothing and will never be signed differently.
        offline = {role: said[role]["version"] for role in OFFLINE if said[role] is not None}
        candidate = build(
            replace(ground, offline={**ground.offline, **offline}),
            contents,
            claimed=claimed,
            fragments=self._fragments,
            online=online,
            binding=said,
            applied=applied,
            timestamps=timestamps,
            now=now,
            expires=last,
        )
        self._check_snapshot(candidate, claimed.get("snapshot"))
        self._public.put_all({f"tuf/{name}": raw for name, raw in candidate.files.items()})
        # Written. If we stop here the files lie there and nobody knows of them; the next try makes others.
        body = {"predicate": dict(candidate.predicate), "subject": candidate.subject}
        with db.write(self._engine) as connection:
            store.save(connection, candidate.after, candidate.changed, self._pending.view.writes)
            if offline or said["root"] is not None:
                store.renewed(connection)
            proposal_id = self._propose(connection, body)
            self._candidate = store.add_candidate(connection, applied, body, proposal_id)
            old = retention.replaced(self._current, candidate.changed, snapshot=snapshot)
            retention.note(connection, self._candidate.id, old)
            if last is not None:
                closing.publish_last(connection, self._origin, self._candidate.id)
        # Proposed. If we stop here load() finds the candidate and goes on waiting for its entry.
        self._current, self._genesis, self._forced = candidate.after, False, False
        self._due.proposed()
        self._pending = self._nothing_pending()

    def _propose(self, connection: Connection, body: Mapping[str, Any]) -> int:
        statement = Statement.about(body["subject"], "tuf", body["predicate"])
        envelope = sign(statement, self._parts.registry).to_dict()
        return proposal.propose(connection, "tuf", envelope, {}, now=int(self._parts.clock()))

    def _check_snapshot(self, candidate: Candidate, version: int | None) -> None:
        if version is not None:
            if self._signed % SAMPLE == 0:
                check_stock(candidate.files[f"{version}.snapshot.json"], self._root, version)
            self._signed += 1

    # --- from the proposal to the public timestamp ----------------------------------------------------------------

    def _advance(self, candidate: store.CandidateRow) -> bool:
        with db.read(self._engine) as connection:
            outcome = proposal.outcome(connection, candidate.proposal_id)
        if outcome.state == proposal.REFUSED:
            self._refused(candidate, outcome)
            return True
        if outcome.state != proposal.PUBLISHED or outcome.index is None:
            return self._relay_recarried()  # the log may wait for witnesses longer than a timestamp lives
        if candidate.state == store.WRITTEN:
            self._show(candidate, outcome)
            return True
        return self._await_timestamp(candidate, outcome.index)

    def _refused(self, candidate: store.CandidateRow, outcome: proposal.Outcome) -> None:
        """Refused before we started, the entry is signed once more: our key may have been replaced meanwhile."""
        if not self._inherited:
            raise TufrepoError(
                f"the log refused our tuf entry {candidate.body['subject']}: "
                f"{outcome.refusal_code}: {outcome.refusal}"
            )
        telemetry.logger().error("tuf entry refused", code=outcome.refusal_code, error=outcome.refusal)
        with db.write(self._engine) as connection:
            asked = self._propose(connection, candidate.body)
            self._candidate = store.propose_again(connection, candidate, asked)
        # Proposed again. If we stop here load() finds the candidate waiting for this proposal.
        self._inherited = False

    def _show(self, candidate: store.CandidateRow, outcome: proposal.Outcome) -> None:
        """The entry is public: tell the timestamper that there is something to sign for."""
        if renewing.show_root(self._public, candidate.body["predicate"]["root"], self._root.version):
            self._take_root()
        hint = {"applied": candidate.applied, "entry": outcome.index, "leaf_hash": outcome.leaf_hash}
        self._public.replace(CANDIDATE, json.dumps(hint, sort_keys=True).encode() + b"\n")
        # Shown. If we stop here the same hint is written again.
        current = replace(self._current, head=outcome.leaf_hash)
        with db.write(self._engine) as connection:
            store.save(connection, current)
            self._candidate = store.move(connection, candidate, store.LOGGED)
        # If we stop here load() goes on waiting for the timestamp.
        self._current = current

    def _await_timestamp(self, candidate: store.CandidateRow, entry: int) -> bool:
        try:
            if self._take(candidate, entry):
                self._finish(candidate, store.TIMESTAMPED)
                self._clean()  # one publish's files for each publish, so that a busy registry keeps pace
                return True
            logged = set(candidate.body["predicate"]["timestamps"])
            # It signed again while our entry was on its way, and wants that one logged first; or a decision
            # behind our `applied` has grown too old for it to sign anything that leaves the decision out.
            unsignable = set(self._relay.unlogged()) - logged or self._status_waits()
            if unsignable and not self._take(candidate, entry):
                self._finish(candidate, store.SUPERSEDED)
                self._forced = True
                return True
        except NetworkError as error:
            telemetry.logger().debug("the timestamper is out of reach", error=str(error))
        return False

    def _status_waits(self) -> bool:
        """Whether the log holds a status entry behind the candidate that should have been applied by now."""
        self._pending.read()
        since = self._pending.status_since
        return since is not None and self._parts.clock() - since > STATUS_PATIENCE.total_seconds()

    def _take(self, candidate: store.CandidateRow, entry: int) -> bool:
        assert self._current.snapshot is not None
        bins_root = candidate.body["predicate"]["bins_new"]
        return self._relay.take(
            self._current.snapshot, bins_root=bins_root, applied=candidate.applied, entry=entry
        )

    def _finish(self, candidate: store.CandidateRow, state: str) -> None:
        now = int(self._parts.clock())
        with db.write(self._engine) as connection:
            store.move(connection, candidate, state)
            if state == store.TIMESTAMPED:
                retention.begin(connection, now=now)
                listed.list_cleared(connection, now=now)
        # Noted, and listed. If we stop before, the same timestamp is found in its place and the rows move then.
        self._candidate = None
        self._pending = self._nothing_pending()

    def _relay_recarried(self) -> bool:
        """Without a new timestamp to wait for: the timestamper may have carried the public metadata again."""
        now = self._parts.clock()
        if now < self._relay_at:
            return False
        self._relay_at = now + RELAY_SECONDS
        try:
            return self._relay.take_recarried()
        except NetworkError:
            return False

    def _clean(self) -> bool:
        """A little of what nobody within `tuf.retention` can ask for."""
        now = self._parts.clock()
        if now < self._clean_at:
            return False
        gone = retention.clean(self._engine, self._public, before=int(now - self._parts.retention))
        if not gone:
            self._clean_at = now + CLEAN_SECONDS
        return gone > 0

    def _nothing_pending(self) -> Pending:
        return Pending(self._engine, self._public, self._trust, self._current, self._checkpoints)
