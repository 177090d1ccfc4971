"""PEP 740 attestations in the worker: each is checked in a sandbox, and what was found becomes an entry of the log.

    due       claim it, check it in a child, store the object as a blob, propose an `attest` entry
    proposed  once the entry is public: note its index, and the project's page has changed
              refused by the log: proposed again behind the newest entry

The entry is signed by the role key `registry`, in the owner's place: kind `pep740`, the digest of the object's blob,
and `verified` beside it. `yes` says that this registry has verified the whole object and that, where the project has
trusted publishers, it is one of theirs. It says nothing about the file's contents, and no rule, policy or listing
looks at it.

Every step may be done twice. A child that does not answer is tried again, three times in all; then the object counts
as false: what cannot be checked is not believed. Where the *checker* cannot start (its root cannot be read)
nothing is said about any object, and all of them wait.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge
from sqlalchemy import Connection, Engine, RowMapping

from countermark.errors import MalformedError
from countermark.machine import why_not
from countermark.rules_state import holder_key, settled
from countermark.statement import Signer, Statement, sign
from countermark_server import attested, db, proposal, serials, telemetry
from countermark_server.attested import NO, NOT_CHECKED, YES
from countermark_server.ruleview import SqlView
from countermark_server.scan.findings import ZERO_NONCE
from countermark_server.scan.sandbox import Nursery, NurseryEndedError
from countermark_server.scan.verdicts import file_state
from countermark_server.settings import Scan, Settings
from countermark_server.stores.blobs import Blobs

NURSERY = ("-I", "-m", "countermark_server.scan.pep740child")
ABSENT = "absent"
ATTEMPTS_MAX = 3
LOOK_SECONDS = 1  # until the next look whether the log has the entry
REFUSED_SECONDS = 60  # before asking again when the log refused for another reason than coming second
TROUBLE_SECONDS = 60  # before trying a checker again that could not start
SECOND = "prev-stale"
TEXT_MAX_CHARS = 300
EXTRA_ABSENT = "the extra `[sigstore]` is not installed here"

CHECKS = Counter(
    "countermark_attestation_checks_total", "PEP 740 attestations looked at, by outcome", ["verified"]
)
CHECKER_FAILURES = Counter(
    "countermark_attestation_checker_failures_total", "checks of attestations that did not come to their end"
)
CHECKER = Gauge(
    "countermark_attestation_checker",
    "1 where attestations are verified, 0 without the extra or its trusted root",
)


@dataclass(frozen=True)
class Outcome:
    """What was found of one object."""

    verified: str
    reason: str | None = None
    predicate_type: str | None = None
    identity: Mapping[str, str] | None = None


class Checker:
    """Asks children about objects. `name` says with what: another name, and everything is looked at again."""

    def __init__(self, settings: Settings) -> None:
        self._scan: Scan = settings.scan
        self._root = _root_path(settings)
        self._nursery: Nursery | None = None
        self.name = self._named()

    def close(self) -> None:
        """End the nursery; the next check starts another."""
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def check(self, item: bytes, filename: str, sha256: str) -> Outcome | None:
        """What a child says of the object; None: it did not come to an end. NurseryEndedError: no checker starts."""
        if self.name == ABSENT:
            return Outcome(NOT_CHECKED, EXTRA_ABSENT)
        if self._nursery is None:
            self._nursery = Nursery(NURSERY, self._scan.wall_seconds, self._root)
        task = {
            "filename": filename,
            "sha256": sha256,
            "cpu_seconds": self._scan.cpu_seconds,
            "memory_bytes": self._scan.memory_bytes,
        }
        with tempfile.TemporaryFile(prefix="countermark-pep740-") as file:
            file.write(item)
            file.seek(0)
            try:
                said, problem = self._nursery.ask(file.fileno(), json.dumps(task).encode())
            except NurseryEndedError:
                self.close()
                raise
        if problem is None:
            try:
                return _outcome(json.loads(said))
            except (ValueError, RecursionError, MalformedError) as error:
                problem = f"the answer was not understood: {type(error).__name__}"
        telemetry.logger().warning("attestation check failed", reason=problem)
        return None

    def _named(self) -> str:
        try:
            library = version("sigstore")
        except PackageNotFoundError:
            return ABSENT
        try:
            root = hashlib.sha256(Path(self._root).read_bytes()).hexdigest() if self._root else "its own root"
        except OSError as error:
            root = f"no root: {error.strerror}"
        return f"sigstore {library}, {root}"


class Attestations:
    """The collaborators of the checks of one scan worker."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        blobs: Blobs,
        checker: Checker,
        *,
        registry: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._checker = checker
        self._registry = registry
        self._origin = settings.registry.origin
        self._clock = clock
        self._trouble_until = 0
        CHECKER.set(checker.name != ABSENT)

    def begin(self) -> int:
        """What another checker said is due again: a newer library, another root, the extra that came or went."""
        with db.write(self._engine) as connection:
            return attested.recheck(connection, self._checker.name, now=self._now())

    def round(self) -> int:
        """One look at what is due; how many moved."""
        now = self._now()
        if now < self._trouble_until:
            return 0
        with db.read(self._engine) as connection:
            if not attested.any_due(connection, now=now):
                return 0  # looking costs no write lock
        with db.write(self._engine) as connection:
            row = attested.claim(connection, now=now)
        if row is None:
            return 0
        # Leased. If we stop here the lease runs out and another worker takes it over.
        if row["proposal_id"] is not None and row["checker"] == self._checker.name:
            return self._follow(row)
        return self._check(row)

    # --- due -> proposed ----------------------------------------------------------------------------------
    def _check(self, row: RowMapping) -> int:
        item = object_bytes(json.loads(row["attestations"])[row["number"]])
        try:
            found = self._checker.check(item, row["served_name"], row["sha256"])
        except NurseryEndedError as error:
            self._trouble(row, str(error))
            return 0
        CHECKER.set(self._checker.name != ABSENT)
        if found is None:
            CHECKER_FAILURES.inc()
            if row["attempts"] + 1 < ATTEMPTS_MAX:
                self._again(row, seconds=LOOK_SECONDS)
                return 1
            found = Outcome(NO, f"{ATTEMPTS_MAX} checks did not come to their end")
        stored = self._blobs.put(ZERO_NONCE + item)
        # Stored. If we stop here the blob lies there unnamed; the same object makes the same blob.
        with db.write(self._engine) as connection:
            self._keep(connection, row, self._trusted(connection, row, found), stored)
        # Committed: outcome and proposal together. If we stop here the next round follows the proposal.
        return 1

    def _trusted(self, connection: Connection, row: RowMapping, found: Outcome) -> tuple[Outcome, int | None]:
        """The outcome under the project's trusted publishers, and the entry of the one that it is."""
        if found.verified != YES:
            return found, None
        view, publishers = SqlView(connection, db.rules_state), []
        for project in (row["project"], ""):
            state = view.get(holder_key(row["namespace"], project))
            holder = {} if state is None else settled(state, self._now())
            publishers += list(holder.get("publishers", {}).values())
        said = dict.fromkeys(("issuer", "repository", "repository_id", "workflow"), "")
        identity: dict[str, Any] = {"ref": None, **said, **(found.identity or {})}
        identity["repository"] = identity["repository"].lower()
        reasons = [why_not(publisher, identity) for publisher in publishers]
        if None in reasons:
            return found, publishers[reasons.index(None)]["index"]
        if reasons:
            reason = f"not a trusted publisher of {row['project']}: {reasons[0]}"
            return Outcome(NO, reason, found.predicate_type, found.identity), None
        return found, None

    def _keep(
        self, connection: Connection, row: RowMapping, judged: tuple[Outcome, int | None], stored: str
    ) -> None:
        found, publisher = judged
        CHECKS.labels(found.verified).inc()
        changed = (found.verified, stored) != (row["verified"], row["blob_sha256"]) or row[
            "leaf_index"
        ] is None
        asked = self._propose(connection, row, found.verified, stored) if changed else None
        attested.keep(
            connection,
            row,
            due=self._now() + LOOK_SECONDS if changed else None,
            attempts=0,
            verified=found.verified,
            checker=self._checker.name,
            reason=found.reason,
            predicate_type=found.predicate_type,
            identity=None if found.identity is None else json.dumps(found.identity, sort_keys=True),
            publisher_index=publisher,
            blob_sha256=stored,
            proposal_id=asked,
        )
        if changed:  # until the log says it, nothing is told or handed out
            attested.keep(connection, row, leaf_index=None)
            serials.touch(connection, [row["project"]], now=self._now())

    def _propose(self, connection: Connection, row: RowMapping, verified: str, stored: str) -> int:
        state = file_state(connection, row)
        assert state is not None, "a logged submission has a publish entry"
        predicate = {
            "origin": self._origin,
            "namespace": row["namespace"],
            "project": row["project"],
            "prev": state["owner_head"],
            "about": row["leaf_hash"],
            "statement_sha256": stored,
            "kind": attested.ATTESTATION_KIND,
        }
        envelope = sign(Statement(row["served_name"], row["sha256"], "attest", predicate), self._registry)
        return proposal.propose(
            connection, "attest", envelope.to_dict(), {"verified": verified}, now=self._now()
        )

    # --- proposed -> public -------------------------------------------------------------------------------
    def _follow(self, row: RowMapping) -> int:
        with db.write(self._engine) as connection:
            asked = proposal.outcome(connection, row["proposal_id"])
            if asked.state == proposal.PUBLISHED:
                attested.keep(connection, row, due=None, attempts=0, proposal_id=None, leaf_index=asked.index)
                serials.touch(connection, [row["project"]], now=self._now())
                return 1
            if asked.state == proposal.REFUSED:
                telemetry.logger().warning(
                    "attest refused", submission=row["submission_id"], reason=asked.refusal
                )
                again = self._propose(connection, row, row["verified"], row["blob_sha256"])
                wait = LOOK_SECONDS if asked.refusal_code == SECOND else REFUSED_SECONDS
                attested.keep(connection, row, proposal_id=again, due=self._now() + wait)
                return 1
            attested.keep(connection, row, due=self._now() + LOOK_SECONDS)
        return 0

    def _again(self, row: RowMapping, *, seconds: int) -> None:
        with db.write(self._engine) as connection:
            attested.keep(connection, row, due=self._now() + seconds)

    def _trouble(self, row: RowMapping, reason: str) -> None:
        """No checker starts: that says nothing about this object, nor about any other."""
        CHECKER.set(0)
        CHECKER_FAILURES.inc()
        self._trouble_until = self._now() + TROUBLE_SECONDS
        telemetry.logger().error("no attestation can be verified", reason=reason, checker=self._checker.name)
        with db.write(self._engine) as connection:
            attested.keep(connection, row, due=self._now() + TROUBLE_SECONDS, attempts=row["attempts"])

    def _now(self) -> int:
        return int(self._clock())


def object_bytes(item: Any) -> bytes:
    """The object as its blob keeps it: sorted members, no blanks, whatever numbers and texts it has."""
    return json.dumps(item, sort_keys=True, separators=(",", ":")).encode()


def _root_path(settings: Settings) -> str:
    return str(settings.data / settings.scan.sigstore_root) if settings.scan.sigstore_root else ""


def _outcome(answer: Any) -> Outcome:
    """What a child said, of which nothing is taken but short texts. MalformedError: it said something else."""
    if type(answer) is not dict or type(answer.get("verified")) is not bool:
        raise MalformedError("the answer must say whether it verified")
    if not answer["verified"]:
        return Outcome(NO, _text(answer.get("reason")))
    identity = answer.get("identity")
    if type(identity) is not dict or not set(identity) <= _IDENTITY:
        raise MalformedError("the answer's identity is none")
    said = {name: _text(value) for name, value in identity.items()}
    return Outcome(YES, None, _text(answer.get("predicate_type")), said)


_IDENTITY = {"issuer", "repository", "ref", "repository_id", "workflow"}


def _text(value: Any) -> str:
    if type(value) is not str:
        raise MalformedError("not a text")
    return "".join(c if " " <= c <= "~" else "?" for c in value[:TEXT_MAX_CHARS])
