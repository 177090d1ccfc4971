"""Audit: is the registry what its log says? Everything, once, from the pinned root; then again where it left off.

    report = audit(registry, HttpFetcher(), now=now, say=say)
    report.exit_code                    # 7 evidence false, 5 a promise not kept, 4 too old, 3 not reachable, 0
    report.findings, report.covered, report.not_covered

    (1) TUF chain, trust file, timestamp, from the pinned root            trust.py
    (2) checkpoint: both log keys, the quorum                             audit_log.py
    (3) it extends the last head audited, and the timestamp's
    (4) every tile and every entry bundle against the tree
    (5) every entry through the rules; no leaf time ahead of the quorum
    (6) every `tuf` entry's digests against the served files              audit_tuf.py
    (7) the timestamp against the `tuf` entry in force; those before it are logged
    (8) snapshot: roles and versions                                      audit_bins.py
    (9) every bin equals the listing after `applied` entries; the bins root is theirs
    (10) the simple index equals the listing                              audit_index.py
    (11) metadata files, and artifacts if asked
    (12) blobs that must be open; each import's manifest against the chain that its lines in the log obey
    (13) the frozen log that entry 0 goes on from, if it is given         audit_predecessor.py

A step that fails is a finding and the next one runs, as long as it has something to stand on; what could not
be looked at is said. The position in the log always advances past entries that are authentic, however bad
(audit_state.py), so a later run reads only what is new. Where TUF does not verify, the log is still audited:
the pinned root itself names the trust file, and so the log's keys.

Not shown by any audit: that everybody is shown this same log (witnesses and other auditors show that), that
a scanner really looked, who sits behind an account, and whether an entry's time was honest to the minute:
an audit knows only the quorum time of the checkpoint it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from countermark.audit_bins import Seen
from countermark.audit_index import IndexAudit, check_blobs, check_manifests
from countermark.audit_log import LogAudit, Say, check_applied, read_head
from countermark.audit_predecessor import Old, check_predecessor
from countermark.audit_report import AuditReport, Finding, Notes, evidence_of, finding, view_finding
from countermark.audit_state import AuditState
from countermark.audit_tuf import TufAudit
from countermark.disk import locked, remove_file
from countermark.errors import CountermarkError, EvidenceError
from countermark.evidence import save
from countermark.fetch import Fetcher
from countermark.freshness import Level
from countermark.limits import TRUST_FILE_MAX_BYTES
from countermark.pins import Registry
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.trust import View, opened
from countermark.trustfile import TrustFile
from countermark.values import dataclass, replace

PASSES = 3  # looks at a page that disagrees, catching up with the log in between
CATCH_UP = 2.0  # seconds before the next look


@dataclass(frozen=True)
class _Ground:
    """What the audit stands on: who the log is, and TUF's view where it verified."""

    trust_file: TrustFile
    carried: VerifiedCheckpoint | None = None
    seen: Seen | None = None
    now: int = 0


def audit(
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    say: Say = lambda text: None,
    wait: Callable[[float], None] = lambda seconds: None,
    tell: Callable[[AuditReport], None] = lambda report: None,
    files: bool = False,
    from_start: bool = False,
    predecessor: Old | None = None,
    remarks: Sequence[str] = (),
) -> AuditReport:
    """Audit a registry and return the report. Findings count as told once `tell` has returned."""
    folder = registry.folder / "audit"
    with locked(folder / "lock"):
        notes = Notes()
        ground = _ground(registry, fetcher, now, notes)
        if ground is None:
            notes.leave("the log, TUF and the index: nothing vouches for the log's keys")
            report = _report(registry, None, None, None, notes=notes, remarks=remarks)
            tell(report)
            return report
        path = folder / f"{hashlib.sha256(ground.trust_file.origin.encode()).hexdigest()[:16]}.sqlite"
        if from_start:
            for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                remove_file(name)
        state = AuditState(path)
        try:
            run = _Run(registry, fetcher, state, notes=notes, say=say, files=files)
            head = run.passes(ground, now, wait)
            if run.whole:
                check_predecessor(state, predecessor, now=now, notes=notes)  # (13)
                run.keep({}, ground.trust_file, now)
            elif predecessor is not None:
                notes.leave("the predecessor: the log itself was not read to its end")
            report = _report(registry, state, ground, head, notes=notes, remarks=remarks)
            tell(report)
            # If we stop here these findings are told again, which is better than never.
            state.tell()
            return report
        finally:
            state.close()


class _Run:
    """One audit, of one to three passes."""

    def __init__(
        self, registry: Registry, fetcher: Fetcher, state: AuditState, *, notes: Notes, say: Say, files: bool
    ) -> None:
        self._registry, self._fetcher, self._state = registry, fetcher, state
        self._notes, self._say, self._files = notes, say, files
        self.whole = False  # whether the log was read to its head

    def passes(self, ground: _Ground, now: int, wait: Callable[[float], None]) -> VerifiedCheckpoint | None:
        """The first pass, and as many as it takes until the pages are settled; returns the head."""
        notes, objects = self._notes, {}
        head, odds = self._one(ground, notes, None)
        for _ in range(PASSES - 1):
            if not odds:
                break
            wait(CATCH_UP)
            again = Notes()  # what it finds anew is told; what it covers was counted
            newer = _ground(self._registry, self._fetcher, now, again)
            if newer is None:
                break
            newest, odds = self._one(newer, again, sorted(odds))
            head = newest or head
            for number, found in enumerate(again.findings):
                notes.add(found, again.objects[number])
        for found in (found for project in sorted(odds) for found in odds[project]):
            notes.add(found)
        if head is not None:
            objects["checkpoint"] = head.raw
        if ground.seen is not None:
            objects["timestamp"] = ground.seen.timestamp.raw
        self.keep(objects, ground.trust_file, now)
        return head

    def _one(
        self, ground: _Ground, notes: Notes, only: Sequence[str] | None
    ) -> tuple[VerifiedCheckpoint | None, dict[str, list[Finding]]]:
        """Steps (2) to (12); the head, and what pages say otherwise, by project."""
        registry, fetcher, state = self._registry, self._fetcher, self._state
        trust_file = ground.trust_file
        head = read_head(registry, fetcher, trust_file, ground.carried, now=ground.now, notes=notes)  # (2)
        if head is None:
            notes.leave("the log: no checkpoint of it holds")
            return None, {}
        log = LogAudit(state, registry, fetcher, head=head, trust_file=trust_file, notes=notes)
        whole = log.check_heads(ground.carried) and log.run(self._say)  # (3) to (5)
        self.whole = whole
        if not whole:
            notes.leave("TUF and the index against the log: the log itself was not read to its end")
            return head, {}
        check_manifests(state, registry, fetcher, notes)  # (12)
        check_blobs(state, registry, fetcher, head.quorum_time, notes)
        if ground.seen is None:
            notes.leave("TUF and the index against the log: there is no current timestamp to go by")
            return head, {}
        TufAudit(state, registry, fetcher, ground.seen, notes).run()  # (6) to (9)
        carried = head.quorum_time if ground.carried is None else ground.carried.quorum_time
        check_applied(state, head.quorum_time, notes, ground.seen.timestamp.raw, carried)
        index = IndexAudit(state, registry, fetcher, notes, quorum_time=head.quorum_time, files=self._files)
        index.run(only)  # (10), (11)
        return head, index.odds

    def keep(self, objects: dict[str, bytes], trust_file: TrustFile, now: int) -> None:
        """An evidence file for everything that is false."""
        notes = self._notes
        for number, found in enumerate(notes.findings):
            own = notes.objects[number]
            shown = own if found.code == "applied-late" else {**objects, **own}
            evidence = evidence_of(found, shown, self._registry, trust_file)
            if evidence is not None and found.evidence is None:
                path = save(evidence, self._registry.folder / "evidence", time=now)
                notes.findings[number] = replace(found, evidence=str(path))


def _ground(registry: Registry, fetcher: Fetcher, now: int, notes: Notes) -> _Ground | None:
    """(1) TUF's view; where it does not verify, at least who the log is."""
    try:
        with opened(registry, fetcher, now=now) as view:
            ground = _of_view(view, notes)
    except CountermarkError as error:
        notes.add(view_finding(error, ""))
        return _of_root(registry, fetcher, now, notes)
    return ground


def _of_view(view: View, notes: Notes) -> _Ground:
    timestamp, late = view.timestamp, view.freshness.late
    if late is not None:
        code = "view-late" if view.online or view.freshness.level is Level.GRACE else "unreachable"
        found = finding(code, f"timestamp {timestamp.version} is late: {late}")
        notes.add(found if code == "view-late" else replace(found, exit_code=3))
    if not view.online:
        return _Ground(view.trust_file, view.checkpoint, None, view.now)
    notes.cover("timestamp, as TUF's client verifies it")
    meta = json.loads(timestamp.raw)["signed"]["meta"]["snapshot.json"]
    sha256 = meta.get("hashes", {}).get("sha256")
    snapshot = {"length": meta.get("length"), "sha256": sha256, "version": meta["version"]}
    seen = Seen(view.moment.root.raw, timestamp, snapshot)
    return _Ground(view.trust_file, view.checkpoint, seen, view.now)


def _of_root(registry: Registry, fetcher: Fetcher, now: int, notes: Notes) -> _Ground | None:
    """The newest trust file that the pinned root itself lists, without any timestamp."""
    found = []
    try:
        for digest in json.loads(registry.root)["signed"].get("x-countermark-trust", []):
            url = f"{registry.metadata_url}/targets/trust/{digest}.trust.json"
            raw = fetcher.get(url, max_bytes=TRUST_FILE_MAX_BYTES) or b""
            if hashlib.sha256(raw).hexdigest() != digest:
                raise EvidenceError(f"the trust file {digest} that the pinned root lists has other bytes")
            found.append(TrustFile.parse(raw))
    except CountermarkError as error:
        notes.add(view_finding(error, "the trust file of the pinned root"))
        return None
    if not found:
        return None
    notes.leave("newer roots than the pinned one: without TUF's view the log is audited under that one")
    return _Ground(max(found, key=lambda file: file.version), None, None, now)


def _report(
    registry: Registry,
    state: AuditState | None,
    ground: _Ground | None,
    head: VerifiedCheckpoint | None,
    *,
    notes: Notes,
    remarks: Sequence[str],
) -> AuditReport:
    seen = None if ground is None else ground.seen
    entries = () if state is None else state.findings(told=False)
    return AuditReport(
        registry=registry.url,
        origin=None if ground is None else ground.trust_file.origin,
        position=0 if state is None else state.position,
        tree_size=None if head is None else head.size,
        applied=None if seen is None else seen.timestamp.applied,
        quorum_time=None if head is None else head.quorum_time,
        witnesses=() if head is None else tuple(sorted(head.cosignatures)),
        age=None if head is None or ground is None else max(0, ground.now - head.quorum_time),
        findings=(*notes.findings, *entries),
        earlier=() if state is None else state.findings(told=True),
        covered=notes.covered,
        not_covered=tuple(notes.not_covered),
        remarks=tuple(remarks),
    )
