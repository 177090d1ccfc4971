"""Decisions: hold, clear, takedown, each an entry signed by the moderation role key.

    desk.decide(Decision("hold", "acme", "acme-1.0-py3-none-any.whl", "malware", moderator="8f14..."))
        -> [Decided("hold", 31, "9f2c...", published=True)]

In the entry the moderator is 16 random bytes; who that is stands in the accounts' table. The rules refuse a
moderator's decision about a project of their own. What a person cannot say in a closed reason code belongs into
the case, whose id the entry carries.

A verdict alone keeps a file from being listed, and the rules know no way to clear a verdict: `clear` ends a hold.
So clearing what the scanner queued for a person is two entries, the hold that the person found and its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, select

from countermark import rules
from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark.rules_state import passed
from countermark.schema import CLEAR_REASONS, HOLD_REASONS, TAKEDOWN_REASONS
from countermark.statement import Signer, Statement, sign
from countermark_server import db, proposal
from countermark_server.asking import Answers, foresee
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView

REASONS = {"hold": HOLD_REASONS, "clear": CLEAR_REASONS, "takedown": TAKEDOWN_REASONS}
TRIES = 5  # a verdict may come in between: then we sign again behind it
SECOND = "prev-stale"


@dataclass(frozen=True)
class Decision:
    """What a moderator wants: about which file, for which reason, under which pseudonym and case."""

    kind: str
    project: str
    filename: str
    reason: str
    moderator: str
    case: str | None = None


@dataclass(frozen=True)
class Decided:
    """A decision and its place in the log; `published` once a cosigned checkpoint covers it."""

    kind: str
    index: int | None
    leaf_hash: str | None
    published: bool


class Desk:
    """Where decisions are signed and handed to the log."""

    def __init__(
        self, engine: Engine, *, origin: str, signer: Signer, wait: float, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._answers = Answers(engine)
        self._origin = origin
        self._signer = signer
        self._wait = wait
        self._clock = clock

    def decide(self, decision: Decision) -> list[Decided]:
        """Propose the decision and wait for its place. ServerError: the rules refuse it, nothing was stored."""
        codes = REASONS[decision.kind]
        if decision.reason not in codes:
            raise ServerError(
                "bad-request", f"{decision.reason!r} is no reason; one of {', '.join(sorted(codes))}"
            )
        done = []
        if decision.kind == "clear" and self._only_queued(decision):
            done.append(self._place(replace(decision, kind="hold", reason="verdict")))
        return [*done, self._place(decision)]

    def _place(self, decision: Decision) -> Decided:
        for _ in range(TRIES):
            try:
                with db.write(self._engine) as connection:
                    asked = self._propose(connection, decision)
                # Committed. If we stop here the log takes the decision all the same, and rows follow it.
                outcome = self._answers.wait_for(asked, seconds=self._wait)
            except ServerError as error:
                if error.code != SECOND:
                    raise
                continue
            published = outcome.state == proposal.PUBLISHED
            return Decided(decision.kind, outcome.index, outcome.leaf_hash, published)
        raise ServerError("unavailable", f"other entries about {decision.filename} came first {TRIES} times")

    def _propose(self, connection: Connection, decision: Decision) -> int:
        file = _file(connection, decision)
        predicate = {
            "origin": self._origin,
            "namespace": file["namespace"],
            "project": file["project"],
            "prev": file["registry_head"],
            "reason": decision.reason,
            "about": None if passed(file) else _verdict_leaf(connection, file),
            "evidence_sha256": None,
        }
        statement = Statement(file["filename"], file["sha256"], decision.kind, predicate)
        envelope = sign(statement, self._signer)
        registry = {"case": decision.case, "moderator": decision.moderator}
        now = int(self._clock())
        foresee(connection, decision.kind, envelope, registry, now=now)
        return proposal.propose(connection, decision.kind, envelope.to_dict(), registry, now=now)

    def _only_queued(self, decision: Decision) -> bool:
        """Whether nothing but a verdict keeps the file back."""
        with db.read(self._engine) as connection:
            file = _file(connection, decision)
        judged = file["verdict"] is not None and not passed(file)
        return judged and file["hold"] is None and file["takedown"] is None


def _file(connection: Connection, decision: Decision) -> rules.State:
    """What the rules know of the file, uploaded or recorded by an import. ServerError `not-found`."""
    project, filename = decision.project, decision.filename
    try:
        key = rules.file_key("", normalise_project(project), filename)
    except MalformedError as error:
        raise ServerError("not-found", str(error)) from None
    file = SqlView(connection, db.rules_state).get(key)
    if file is None:
        raise ServerError("not-found", f"{filename!r} of {project!r} is not in the log")
    return file


def _verdict_leaf(connection: Connection, file: rules.State) -> str | None:
    """The leaf hash of the verdict that a decision answers; None before the first one."""
    if file["verdict"] is None:
        return None
    proposals = db.proposal.c
    query = select(proposals.leaf_hash).where(proposals.leaf_index == file["verdict"]["index"])
    found: str | None = connection.execute(query).scalar()
    return found
