"""Receiving an upload: from the first byte to the answer with the proof. The main path of the registry.

    (1) who is asking                     (5) the log's own rules, foreseen
    (2) the form, streamed and hashed     (6) the bytes are stored, the publish entry is proposed
    (3) is the name taken, is there room  (7) wait until a public, cosigned checkpoint covers it
    (4) the file and its statement,       (8) answer with the proof
        attached or submitted ahead

Up to (5) nothing is stored anywhere: a refusal leaves no row, no blob and no leaf. In (6) blobs come first, then row
and proposal in one transaction; if we stop between them, blobs lie there that no row names. The log has the last
word, since another upload may have been first: then it takes the row back, and the blobs stay unnamed.

The same bytes under the same name may come again at any time (twine sends a file again after an error) and are
answered like the first time, without a second entry. So are the bytes of a file that an import recorded: they are
stored and scanned (bring.py), and the answer is about the leaf that the import made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Histogram
from sqlalchemy import Connection, Engine, RowMapping, select
from sqlalchemy.exc import IntegrityError

from countermark import rules
from countermark.statement import Envelope, Signer, Statement, sign
from countermark_server import attested, db, proposal, recorded, submission, telemetry
from countermark_server.accounts.doorway import Callers
from countermark_server.accounts.jobs import uploader_of
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.seats import Seats, check_seat, note_founder
from countermark_server.accounts.tokens import Principal, require_scope
from countermark_server.allowance import Cost
from countermark_server.asking import Answers, Expected, foresee_all, holder_in, holder_state, no_room, taken
from countermark_server.errors import ServerError
from countermark_server.journey import State
from countermark_server.proposal import PUBLISHED, Offer, Outcome
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.settings import Settings
from countermark_server.standings import Row, Standing, said, standing, state_of
from countermark_server.stores.blobs import Blobs
from countermark_server.together import Together
from countermark_server.upload import ahead
from countermark_server.upload.admission import admit
from countermark_server.upload.artifact import Artifact, read_artifact
from countermark_server.upload.attestations import (
    PUBLISH,
    Attestations,
    check_publish,
    publish_statement,
    read_attestations,
)
from countermark_server.upload.bring import bring, fit
from countermark_server.upload.form import Form, drain, read_form
from countermark_server.upload.names import Names, parse_names

AGAIN_LOOK = 0.025  # seconds between looks for an upload that came again while the first is on its way

UPLOADS = Counter("countermark_uploads_total", "uploads by outcome", ["outcome"])
TIME_TO_PROOF = Histogram(
    "countermark_time_to_proof_seconds", "from the proposal to the proof in hand", buckets=telemetry.SECONDS
)


@dataclass(frozen=True)
class Answer:
    """What the uploader is told. Without proof: durable and on its way, but not public yet."""

    index: int | None
    leaf_hash: str | None
    sha256: str
    state: str
    proof: str | None
    project: str
    filename: str
    message: str


@dataclass(frozen=True)
class _Checked:
    """An upload that nothing speaks against: what is about to be stored and proposed."""

    uploader: str
    artifact: Artifact
    attestations: Attestations
    offer: Offer


class Receiver:
    """The door's collaborators, and the path of one upload through them."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        blobs: Blobs,
        published: Published,
        answers: Answers,
        *,
        callers: Callers,
        registry: Signer,
        seats: Seats,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._blobs = blobs
        self._published = published
        self._answers = answers
        self._callers = callers
        self._registry = registry
        self._seats = seats
        self._clock = clock
        self._propose = Together(self._expect_all, until=lambda expected: expected)
        self._pace = RateLimit(settings.limits.uploads_a_minute, 60.0)

    @property
    def incoming(self) -> Path:
        """Where unnamed temporary files lie while they arrive."""
        return self._settings.data / "incoming"

    def receive(self, environ: Mapping[str, Any]) -> Answer:
        """Take one upload, or refuse it with a ServerError that left nothing behind."""
        max_bytes = self._settings.upload.max_bytes
        try:
            principal = self._callers.who(environ.get("HTTP_AUTHORIZATION"))  # (1)
            if self._settings.limits.uploads_a_minute:
                self._pace.count(principal.account_id, now=self._clock())
            with read_form(environ, self.incoming, max_bytes=max_bytes) as form:  # (2)
                answer = self._take(principal, form)
        except ServerError as error:
            UPLOADS.labels(error.code).inc()
            drain(environ, max_bytes=max_bytes)
            raise
        UPLOADS.labels("proved" if answer.proof else "accepted").inc()
        return answer

    def _take(self, principal: Principal, form: Form) -> Answer:
        names = parse_names(form)
        require_scope(principal, "upload", names.project)
        with db.read(self._engine) as connection:  # (3)
            held = holder_state(connection, "", names.project, now=int(self._clock()))
            principal = replace(principal, account_id=uploader_of(principal, names.project, held))
            inside = held is None or self._is_inside(connection, principal, names, held)
            known = submission.find(connection, "", names.project, names.filename)
            history = None if known else recorded.file(connection, names.project, names.served_name)
            new = inside and not known and not history
            cost = self._admit(connection, principal, names, form, held) if new else None
        if not inside:
            self._seats.take(principal.account_id, "", names.project)  # by a role in a team, or refused
            return self._take(principal, form)
        if known is not None:
            return self._again(known, form)
        if history is not None:
            return self._bring(history, form)
        assert cost is not None, "a new file"
        checked = self._check(cost, principal.identity, form, names)
        started = time.perf_counter()
        expected = self._store(checked, form)  # (6), (7)
        # Committed, and told. Had we stopped in between, the log would have taken the entry all the same; the same
        # upload sent again finds it.
        if expected is None:  # another upload of this name was first, between (3) and (6)
            return self._take(principal, form)
        outcome = taken(self._answers.heard(expected))
        if held is None:
            self._seats.founded(principal.account_id, "", names.project)
        answer = self._answered(checked.artifact, outcome)  # (8)
        if answer.proof is not None:
            TIME_TO_PROOF.observe(time.perf_counter() - started)
        return answer

    def _check(self, cost: Cost, identity: Mapping[str, Any] | None, form: Form, names: Names) -> _Checked:
        artifact = read_artifact(form, names, self._settings.upload)  # (4)
        attestations = read_attestations(form.attestations, artifact)
        now = int(self._clock())
        with db.read(self._engine) as connection:
            view = SqlView(connection, db.rules_state)
            view.fetch((rules.LOG, rules.holder_key("", names.project)))
            envelope, key_index = self._statement(connection, view, artifact, attestations, now=now)
            registry = {"uploader": cost.account_id, "key_index": key_index, "identity": identity}
            offer = Offer(PUBLISH, envelope, registry, cost=cost)
            (refusal,) = foresee_all(view, [offer], now=now)  # (5)
        if refusal is not None:
            raise refusal
        return _Checked(cost.account_id, artifact, attestations, offer)

    def _admit(
        self, connection: Connection, who: Principal, names: Names, form: Form, held: rules.State | None
    ) -> Cost:
        now = int(self._clock())
        return admit(connection, self._settings.limits, who, names, held=held, length=form.length, now=now)

    def _is_inside(
        self, connection: Connection, principal: Principal, names: Names, state: rules.State
    ) -> bool:
        """Whether the log names this account; refused where that came from a team and has ended."""
        if principal.identity is not None:  # a job: whom the project trusts, not whom it belongs to
            return True
        if principal.account_id not in state["owners"]:
            return False
        check_seat(connection, principal.account_id, "", names.project)
        return True

    def _statement(
        self,
        connection: Connection,
        view: SqlView,
        artifact: Artifact,
        attestations: Attestations,
        *,
        now: int,
    ) -> tuple[Envelope, int | None]:
        """The publish statement: the owner's, or the registry's in the place of one who never signed."""
        expected = publish_statement(artifact, self._settings.registry.origin)
        state = holder_in(view, "", artifact.names.project, now=now)
        envelope = attestations.publish or ahead.waiting(connection, artifact, now=now)
        if envelope is not None:
            check_publish(envelope, expected)
            return envelope, ahead.key_index(view, artifact.names.project, state, envelope)
        if state is not None and state["signed"]:
            raise ahead.missing(connection, artifact)
        return self._in_place(expected), None

    def _in_place(self, statement: Statement) -> Envelope:
        return sign(statement, self._registry)

    def _store(self, checked: _Checked, form: Form) -> Expected | None:
        """Keep the bytes, then row and proposal together, and wait; None if the name was taken."""
        artifact = checked.artifact
        self._blobs.keep({artifact.sha256: form.file, artifact.metadata_sha256: artifact.metadata})
        # Blobs are durable. If we stop here no row names them, and the client, who got no answer, sends again.
        return self._propose(checked)

    def _expect_all(self, asked: Sequence[_Checked]) -> list[Expected | Exception | None]:
        """The same, and for each proposal what its upload waits for."""
        found = self._propose_all(asked)
        # Committed. If we stop here the log takes the entries all the same; the same uploads sent again find them.
        ids = [each for each in found if isinstance(each, int)]
        expected = iter(self._answers.expect(ids, seconds=self._settings.web.wait))
        return [next(expected) if isinstance(each, int) else each for each in found]

    def _propose_all(self, asked: Sequence[_Checked]) -> list[int | Exception | None]:
        """Rows and proposals of all who come now, in one transaction; each one's proposal, or None."""
        try:
            return self._propose_together(asked)
        except IntegrityError:  # one of them did it: an account that was erased meanwhile
            if len(asked) == 1:
                raise
        found: list[int | Exception | None] = []
        for each in asked:
            try:
                found += self._propose_together([each])
            except Exception as error:
                found.append(error)
        return found

    def _propose_together(self, asked: Sequence[_Checked]) -> list[int | Exception | None]:
        now, most = int(self._clock()), self._settings.entries.queue_max
        found: list[int | Exception | None] = [no_room(most)] * len(asked)
        with db.write(self._engine) as connection:
            left = max(proposal.room(connection, most=most), 0)
            order = sorted(range(min(left, len(asked))), key=lambda at: _name(asked[at]))
            ids = [_received(connection, asked[at], now=now) for at in order]
            taken = [(at, number) for at, number in zip(order, ids, strict=True) if number is not None]
            for each in (asked[at] for at, _ in taken):
                if each.offer.cost and each.offer.cost.new_project:
                    note_founder(connection, each.uploader, "", each.artifact.names.project, now=now)
            ahead.used(connection, [asked[at].artifact for at, _ in taken])
            proposed = proposal.propose_all(
                connection,
                [asked[at].offer for at, _ in taken],
                now=now,
                submission_ids=[number for _, number in taken],
            )
        found[: len(order)] = [None] * len(order)
        for (at, _), asked_id in zip(taken, proposed, strict=True):
            found[at] = asked_id
        return found

    def _again(self, row: Row, form: Form) -> Answer:
        """The name is taken: by these bytes, which is fine at any time, or by others, for ever."""
        if row["sha256"] != form.sha256:
            with db.read(self._engine) as connection:
                removed = standing(connection, row).name == "removed"
            if removed or row["state"] == State.REJECTED:
                raise ServerError(
                    "filename-spent", f"{row['served_name']} was rejected or removed; its name stays spent"
                )
            raise ServerError(
                "file-exists",
                f"File already exists: {row['served_name']} has SHA-256 {row['sha256']}, not {form.sha256}",
            )
        deadline = time.monotonic() + self._settings.web.wait
        current: Row | None = row
        while current is not None and current["leaf_index"] is None and time.monotonic() < deadline:
            time.sleep(AGAIN_LOOK)
            current = self._row(row["id"])
        if current is None:
            raise ServerError("entry-refused", f"the log did not take {row['served_name']}; upload it again")
        with db.read(self._engine) as connection:
            stands = standing(connection, current)
        return self._answer(current, stands)

    def _bring(self, file: rules.State, form: Form) -> Answer:
        """The bytes of a file that an import recorded: its leaf is there, and the answer is about that one."""
        artifact = fit(file, form, self._settings.upload)
        if not self._published.covers(file["index"]):
            raise ServerError("unavailable", f"{file['filename']} is being imported; upload it again")
        self._blobs.keep({artifact.sha256: form.file})
        # The blob is durable. If we stop here no row names it, and the same upload again finds nothing else.
        with db.write(self._engine) as connection:
            bring(connection, file, artifact, now=int(self._clock()))
        # Committed. If we stop here the scan takes it up; the same upload again is answered by this row.
        with db.read(self._engine) as connection:
            row = submission.find(connection, "", file["project"], artifact.names.filename)
            assert row is not None, "it was brought in, now or before"
            stands = standing(connection, row)
        return self._answer(row, stands)

    def _row(self, submission_id: int) -> RowMapping | None:
        with db.read(self._engine) as connection:
            query = select(db.submission).where(db.submission.c.id == submission_id)
            return connection.execute(query).mappings().first()

    def _answered(self, artifact: Artifact, outcome: Outcome) -> Answer:
        """What became of the upload whose proposal this was."""
        names = artifact.names
        if outcome.state == PUBLISHED and outcome.index is not None and outcome.leaf_hash is not None:
            # Its own publish entry, which nothing followed yet when it became public.
            answer = _told(names.project, names.served_name, artifact.sha256, State.LOGGED, Standing("ok"))
            proof = self._published.prove(outcome.index, outcome.leaf_hash).decode()
            return replace(answer, index=outcome.index, leaf_hash=outcome.leaf_hash, proof=proof)
        with db.read(self._engine) as connection:
            row = submission.find(connection, "", names.project, names.filename)
            if row is None or row["sha256"] != artifact.sha256:
                raise ServerError(
                    "entry-refused", f"the log did not take {names.served_name}: {outcome.refusal}"
                )
            stands = standing(connection, row)
        return self._answer(row, stands)

    def _answer(self, row: Row, stands: Standing) -> Answer:
        state = state_of(row, stands)
        answer = _told(row["project"], row["served_name"], row["sha256"], state, stands)
        answer = replace(answer, message=recorded.shown(row)[0] + answer.message)
        if row["leaf_index"] is None:
            return answer
        proof = self._published.prove(row["leaf_index"], row["leaf_hash"]).decode()
        return replace(answer, index=row["leaf_index"], leaf_hash=row["leaf_hash"], proof=proof)


def _name(checked: _Checked) -> tuple[str, str]:
    return checked.artifact.names.project, checked.artifact.names.filename


def _received(connection: Connection, checked: _Checked, *, now: int) -> int | None:
    """The upload's row; None: its name was taken."""
    artifact = checked.artifact
    number = submission.receive(
        connection,
        now=now,
        namespace="",
        project=artifact.names.project,
        version=artifact.names.version,
        filename=artifact.names.filename,
        served_name=artifact.names.served_name,
        display_name=artifact.display_name,
        sha256=artifact.sha256,
        length=artifact.length,
        filetype=artifact.filetype,
        requires_python=artifact.requires_python,
        metadata_sha256=artifact.metadata_sha256,
        uploader=checked.uploader,
        attestations=checked.attestations.verbatim,
    )
    if number is not None:
        attested.expect(connection, number, checked.attestations.genuine, now=now)
    return number


def _told(project: str, filename: str, sha256: str, state: State, stands: Standing) -> Answer:
    """The answer without index and proof."""
    return Answer(None, None, sha256, state, None, project, filename, said(state, stands))
