"""The scan station: `logged -> scanned -> cleared | held`.

    logged    claim it, examine it in the sandbox, store the findings, propose the verdict        -> scanned
    scanned   once the verdict is public: nothing grave                                           -> cleared
                                          a person must look, or an automatic hold is proposed    -> held

Every step may be done twice: a worker that dies loses its lease, and the next one examines again. Three failed
attempts are enough: then the verdict says that the examination failed, and a person looks. A verdict or hold that
the log refused (somebody else's entry came first) is signed again behind the newest entry; refused for another
reason, it is tried again once a minute.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Connection, Engine, RowMapping, select, update
from sqlalchemy.exc import SQLAlchemyError

from countermark.statement import Signer
from countermark_server import db, proposal, signing, submission, telemetry
from countermark_server.journey import State
from countermark_server.pace import Pace
from countermark_server.scan.analyzers import rules_in_force
from countermark_server.scan.confine import ALL
from countermark_server.scan.findings import (
    FAILED,
    TIERS,
    Finding,
    Opinion,
    failed,
    findings_blob,
    opinion,
    ruleset_sha256,
    to_json,
)
from countermark_server.scan.pep740 import Attestations, Checker
from countermark_server.scan.sandbox import Sandbox
from countermark_server.scan.verdicts import Ruleset, file_state, propose_hold, propose_verdict
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

ATTEMPTS_MAX = 3
PASSING = ("none", "note")
RETRY_SECONDS = 1.0  # after a round that failed
REFUSED_SECONDS = 60  # before asking again when the log refused us for another reason than coming second
SECOND = "prev-stale"  # the refusal of who came second: signing behind the newest entry helps at once
HOLD_CHECK_SECONDS = 1.0  # between looks for automatic holds that the log did not take

SCANS = Counter("countermark_scans_total", "examinations by tier", ["tier"])
SCAN_FAILURES = Counter("countermark_scan_failures_total", "examinations that did not come to their end")
SCAN_SECONDS = Histogram(
    "countermark_scan_seconds", "one examination, child included", buckets=telemetry.SECONDS
)
PROTECTION = Gauge("countermark_scan_protection", "1 where the newest child had it", ["name"])
HOLDS_MISSING = Gauge("countermark_scan_holds_missing", "automatic holds that the log has not taken yet")
HOLD_MISSING_AGE = Gauge(
    "countermark_scan_hold_missing_seconds", "age of the oldest automatic hold that the log has not taken yet"
)


@dataclass(frozen=True)
class _Said:
    """A verdict as its row keeps it."""

    tier: str
    findings_sha256: str
    reason: str | None
    hold: int | None = None  # the proposal of the automatic hold

    def body(self, findings: str) -> str:
        values = {"findings": json.loads(findings), "findings_sha256": self.findings_sha256}
        return json.dumps({**values, "reason": self.reason, "hold": self.hold}, sort_keys=True)


class Station:
    """The collaborators of one scan worker."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        blobs: Blobs,
        sandbox: Sandbox,
        *,
        scanner: Signer,
        registry: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rules = rules_in_force()
        self._ruleset = Ruleset(
            ruleset_sha256(rules), tuple(sorted((name, version) for name, version, _ in rules))
        )
        self._engine = engine
        self._blobs = blobs
        self._sandbox = sandbox
        self._scanner = scanner
        self._registry = registry
        self._origin = settings.registry.origin
        self._clock = clock
        self._patient_until = 0

    def round(self) -> int:
        """One look at what waits here; how many submissions moved or were proposed again."""
        return self._examine_one() + self._settle()

    # --- logged -> scanned --------------------------------------------------------------------------------
    def _examine_one(self) -> int:
        waiting = select(db.submission.c.id).where(db.submission.c.state == State.LOGGED).limit(1)
        with db.read(self._engine) as connection:
            if connection.execute(waiting).first() is None:
                return 0  # looking costs no write lock
        with db.write(self._engine) as connection:
            claimed = submission.claim(connection, State.LOGGED, now=self._now())
        # Leased. If we stop here the lease runs out and another worker examines it.
        for row in claimed:
            findings = self._findings(row)
            said = opinion(findings)
            SCANS.labels(said.tier).inc()
            stored = self._blobs.put(findings_blob(findings))
            # Stored. If we stop here the blob lies there unnamed; the same findings make the same blob.
            with db.write(self._engine) as connection:
                asked = self._verdict(connection, row, said, stored)
                kept = _Said(said.tier, stored, _reason(findings, said)).body(to_json(findings))
                connection.execute(db.verdict.delete().where(db.verdict.c.submission_id == row["id"]))
                connection.execute(
                    db.verdict.insert().values(
                        submission_id=row["id"], proposal_id=asked, tier=said.tier, body=kept
                    )
                )
                submission.finish(connection, row["id"], State.LOGGED, State.SCANNED, now=self._now())
        return len(claimed)

    def _findings(self, row: RowMapping) -> list[Finding]:
        if row["attempts"] >= ATTEMPTS_MAX:  # `attempts` counts the claims before this one
            return [failed(f"{row['attempts']} examinations did not come to their end")]
        with SCAN_SECONDS.time(), self._blobs.local(row["sha256"]) as path:
            examined = self._sandbox.examine(path, row["served_name"], row["sha256"])
        if any(finding.rule == FAILED for finding in examined.findings):
            SCAN_FAILURES.inc()
            telemetry.logger().warning(
                "examination failed", submission=row["id"], reason=examined.findings[0].excerpt
            )
        else:
            report_protections(examined.protections)
        return list(examined.findings)

    def _verdict(self, connection: Connection, row: RowMapping, said: Opinion, stored: str) -> int:
        return propose_verdict(
            connection,
            row,
            said,
            stored,
            self._ruleset,
            origin=self._origin,
            scanner=self._scanner,
            now=self._now(),
        )

    # --- scanned -> cleared | held ------------------------------------------------------------------------
    def _settle(self) -> int:
        """Move on every submission whose verdict the log has answered."""
        table, verdicts, proposals, now = db.submission, db.verdict, db.proposal, self._now()
        answered = (
            select(table, verdicts.c.tier, verdicts.c.body, proposals.c.state.label("asked"))
            .add_columns(proposals.c.leaf_hash.label("verdict_leaf"), proposals.c.refusal)
            .join(verdicts, verdicts.c.submission_id == table.c.id)
            .join(proposals, proposals.c.id == verdicts.c.proposal_id)
            .where(table.c.state == State.SCANNED)
            .where(
                (proposals.c.state == proposal.PUBLISHED)
                | (proposals.c.state == proposal.REFUSED)
                & ((proposals.c.refusal_code == SECOND) | (proposals.c.created <= now - REFUSED_SECONDS))
            )
            .order_by(table.c.id)
        )
        with db.read(self._engine) as connection:
            rows = connection.execute(answered).mappings().all()
        for row in rows:
            try:
                with db.write(self._engine) as connection:
                    if row["asked"] == proposal.REFUSED:
                        self._again(connection, row)
                    elif row["tier"] in PASSING:
                        submission.finish(
                            connection, row["id"], State.SCANNED, State.CLEARED, now=self._now()
                        )
                    else:
                        self._hold(connection, row)
            except submission.IllegalMoveError:
                continue  # another worker was first
        return len(rows)

    def _again(self, connection: Connection, row: RowMapping) -> None:
        """The log refused the verdict: sign it once more, behind what is the newest entry now."""
        telemetry.logger().warning("verdict refused", submission=row["id"], reason=row["refusal"])
        body = json.loads(row["body"])
        findings = [Finding(**item) for item in body["findings"]]
        asked = self._verdict(connection, row, opinion(findings), body["findings_sha256"])
        connection.execute(
            update(db.verdict).where(db.verdict.c.submission_id == row["id"]).values(proposal_id=asked)
        )

    def _hold(self, connection: Connection, row: RowMapping) -> None:
        body = json.loads(row["body"])
        if row["tier"] == "block":
            body["hold"] = self._propose_hold(connection, row, row["verdict_leaf"], body["findings_sha256"])
            connection.execute(
                update(db.verdict)
                .where(db.verdict.c.submission_id == row["id"])
                .values(body=json.dumps(body, sort_keys=True))
            )
        submission.finish(
            connection, row["id"], State.SCANNED, State.HELD, now=self._now(), reason=body["reason"]
        )
        # Committed. If we stop here the file is held in our rows and the hold entry waits for the log; the
        # verdict alone keeps it out of TUF already.

    def _propose_hold(self, connection: Connection, row: RowMapping, about: str, findings: str) -> int:
        return propose_hold(
            connection,
            row,
            about=about,
            findings_sha256=findings,
            origin=self._origin,
            registry=self._registry,
            now=self._now(),
        )

    # --- automatic holds that the log refused -------------------------------------------------------------
    def check_holds(self) -> int:
        """Propose automatic holds again that the log refused; how many are not in the log yet."""
        table, verdicts, proposals = db.submission, db.verdict, db.proposal
        blocked = (
            select(table, verdicts.c.body, proposals.c.leaf_hash.label("verdict_leaf"))
            .join(verdicts, verdicts.c.submission_id == table.c.id)
            .join(proposals, proposals.c.id == verdicts.c.proposal_id)
            .where(table.c.state == State.HELD, verdicts.c.tier == "block")
        )
        missing, oldest = 0, self._now()
        with db.read(self._engine) as connection:
            if connection.execute(blocked.limit(1)).first() is None:
                self._report_holds(0, oldest)
                return 0
        with db.write(self._engine) as connection:
            for row in connection.execute(blocked).mappings().all():
                state = file_state(connection, row)
                if (
                    state is None
                    or state["hold"] is not None
                    or state["takedown"] is not None
                    or state["cleared"]
                ):
                    continue
                missing, oldest = missing + 1, min(oldest, row["state_since"])
                body = json.loads(row["body"])
                asked = None if body["hold"] is None else proposal.outcome(connection, body["hold"])
                if asked is not None and (asked.state != proposal.REFUSED or not self._may_ask_again(asked)):
                    continue
                body["hold"] = self._propose_hold(
                    connection, row, row["verdict_leaf"], body["findings_sha256"]
                )
                connection.execute(
                    update(verdicts)
                    .where(verdicts.c.submission_id == row["id"])
                    .values(body=json.dumps(body, sort_keys=True))
                )
        self._report_holds(missing, oldest)
        if self._now() >= self._patient_until:
            self._patient_until = self._now() + REFUSED_SECONDS
        return missing

    def _report_holds(self, missing: int, oldest: int) -> None:
        HOLDS_MISSING.set(missing)
        HOLD_MISSING_AGE.set(max(0, self._now() - oldest))

    def _may_ask_again(self, asked: proposal.Outcome) -> bool:
        """At once for who came second; a key that was revoked, say, is tried once a minute, not in a loop."""
        return asked.refusal_code == SECOND or self._now() >= self._patient_until

    def _now(self) -> int:
        return int(self._clock())


def _reason(findings: list[Finding], said: Opinion) -> str | None:
    """Why it is held, for the page and the person who decides: the gravest finding, and where."""
    if said.tier in PASSING:
        return None
    grave = [finding for finding in findings if TIERS.index(finding.tier) == TIERS.index(said.tier)]
    where = f" in {grave[0].file}:{grave[0].line}" if grave[0].file else ""
    return f"{grave[0].rule}{where}" + (f" and {len(grave) - 1} more" if len(grave) > 1 else "")


def report_protections(held: tuple[str, ...]) -> None:
    """Say which protections the newest child had."""
    for name in ALL:
        PROTECTION.labels(name).set(name in held)


def try_sandbox(sandbox: Sandbox) -> tuple[str, ...]:
    """Start one child on an empty file; which protections this machine cannot give, said aloud."""
    with tempfile.NamedTemporaryFile(prefix="countermark-scan-") as empty:
        examined = sandbox.examine(Path(empty.name), "empty-0.tar.gz", hashlib.sha256(b"").hexdigest())
    report_protections(examined.protections)
    missing = tuple(name for name in ALL if name not in examined.protections)
    if missing:
        telemetry.logger().warning("the sandbox lacks protections on this machine", missing=list(missing))
    return missing


def run(settings: Settings, stop: threading.Event) -> None:
    """`countermark-server work scan`."""
    engine = db.open_engine(settings.database_url)
    sandbox = Sandbox(settings.scan, settings.upload)  # a child of exec: nothing opened here is open there
    station = Station(
        settings,
        engine,
        places.blobs(settings),
        sandbox,
        scanner=signing.role_signer(settings, "scanner"),
        registry=signing.role_signer(settings, "registry"),
    )
    checker = Checker(settings)
    attestations = Attestations(
        settings, engine, places.blobs(settings), checker, registry=signing.role_signer(settings, "registry")
    )
    attestations.begin()
    telemetry.ready(settings.data / "run", "scan", missing_protections=list(try_sandbox(sandbox)))
    looked, pace = 0.0, Pace(settings.scan.poll_interval)
    try:
        while not stop.is_set():
            try:
                moved = station.round() + attestations.round()
                if time.monotonic() - looked >= HOLD_CHECK_SECONDS:
                    station.check_holds()
                    looked = time.monotonic()
            except (OSError, SQLAlchemyError, StoreError) as error:
                # Nothing moved that was not committed; the lease runs out, and the step is done again.
                telemetry.logger().error("scan round failed", error=str(error), kind=type(error).__name__)
                stop.wait(RETRY_SECONDS)
                continue
            pace.wait(stop, busy=bool(moved))
    finally:
        sandbox.close()
        checker.close()
        engine.dispose()
