"""Statements ahead: a publisher's signature that arrives before the file it is about.

    POST /api/v1/statements   Authorization: Bearer <upload token or session>   {"envelope": {...}}
    200 {"project":"demo","filename":"demo-1.0-py3-none-any.whl","sha256":"5891...","state":"waiting",
         "expires":1763886400}

Many upload tools carry no attestations. So the publish statement may go first (`countermark sign --submit dist/*`),
and the later upload of exactly these bytes, by any tool, takes it for its publish entry: matched by project, file
name and SHA-256, and by nothing else.

An upload token suffices here, as it does for the same statement attached to the file: the signature is what speaks,
by a key that only a session could enrol, and it is bound to this registry, project, file name and digest. It is
judged twice by the log's own rules, now and again with the bytes in hand, so a key that was revoked in between signs
nothing.

    same statement again, or another about the same bytes   the newest counts, and waits its 24 hours
    attached to the upload as well                          the attached one counts: it came with the bytes
    waiting for this file name, but about other bytes       the upload is refused: the signer meant another build
    its key revoked meanwhile                               the upload is refused, as with an attached one
    expired                                                 as if it had never come; where the project signs, the
                                                            refusal says so
    used                                                    gone, in the transaction that proposes the entry

What waits is a convenience and no authority: whoever deletes the table makes uploads be refused or come unsigned, and
whoever writes to it can add only what the rules refuse. Nothing of it is public before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, select

from countermark.entry import normalise_filename
from countermark.rules_state import State
from countermark.statement import Envelope, Statement
from countermark_server import db, quick, submission
from countermark_server.accounts.jobs import uploader_of
from countermark_server.accounts.statements import Statements
from countermark_server.accounts.tokens import Principal, require_scope
from countermark_server.asking import foresee, holder_in, one_run_index
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView
from countermark_server.upload.artifact import Artifact
from countermark_server.upload.attestations import PUBLISH

AHEAD_SECONDS = 24 * 3600  # from signing to uploading a release; a build that waits longer is signed again
AHEAD_MAX = 512  # waiting for one account, and for one project: the largest releases have some 200 files
WAITING, LOGGED = "waiting", "logged"
_TABLE = db.statement_ahead
# Built once: building a statement costs more than running it.
_FILE = (_TABLE.c.namespace == "", _TABLE.c.project == bindparam("p"), _TABLE.c.filename == bindparam("f"))
_WAITING = (
    select(_TABLE.c.sha256, _TABLE.c.envelope, _TABLE.c.expires).where(*_FILE).order_by(_TABLE.c.sha256)
)
_USED = delete(_TABLE).where(*_FILE)


@dataclass(frozen=True)
class Taken:
    """What the door answers: which file a statement waits for, and until when. `logged`: that file is there."""

    project: str
    filename: str
    sha256: str
    state: str
    expires: int | None


class Ahead:
    """Takes statements that come before their file."""

    def __init__(self, engine: Engine, statements: Statements, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._statements = statements
        self._clock = clock

    def take(self, principal: Principal, body: object) -> Taken:
        """Keep the publish statement in `body`, or refuse it with a ServerError that left nothing behind."""
        envelope, statement = self._statements.read(body, types=(PUBLISH,), what="publish statement")
        project, named = statement.predicate["project"], statement.subject_name
        require_scope(principal, "entries", project)
        filename, now = normalise_filename(named), int(self._clock())
        with db.read(self._engine) as connection:
            known = submission.find(connection, "", project, filename)
            if known is None or known["sha256"] != statement.subject_sha256:
                view = SqlView(connection, db.rules_state)
                state = holder_in(view, "", project, now=now)
                registry = {
                    "uploader": uploader_of(principal, project, state),
                    "key_index": key_index(view, project, state, envelope),
                    "identity": principal.identity,
                }
                foresee(connection, PUBLISH, envelope, registry, now=now)
                known = None
        if known is not None:  # a tool that repeats its commands: the upload was first, and nothing waits
            return Taken(project, named, statement.subject_sha256, LOGGED, None)
        expires = now + AHEAD_SECONDS
        with db.write(self._engine) as connection:
            _keep(connection, principal, statement, filename, envelope, now=now, expires=expires)
        # Committed. If we stop here the sender, who got no answer, sends it again, and again it is one row.
        return Taken(project, named, statement.subject_sha256, WAITING, expires)


def key_index(view: SqlView, project: str, state: State | None, envelope: Envelope) -> int | None:
    """The enrolment of the key that signed, in this state of its project; the rules judge whether it fits."""
    item = None if state is None else state["keys"].get(envelope.keyids[0])
    return one_run_index(view, "", project, envelope.keyids[0]) if item is None else item["index"]


def waiting(connection: Connection, artifact: Artifact, *, now: int) -> Envelope | None:
    """The statement that waits for these very bytes. ServerError: one waits for other bytes of this name."""
    rows = _of_file(connection, artifact)
    alive = [row for row in rows if row["expires"] > now]
    for row in alive:
        if row["sha256"] == artifact.sha256:
            return Envelope.parse(row["envelope"].encode())
    if alive:
        raise ServerError(
            "statement-mismatch",
            f"{artifact.names.served_name} has SHA-256 {artifact.sha256}, the statement that was submitted "
            f"ahead is about {alive[0]['sha256']}",
        )
    return None


def missing(connection: Connection, artifact: Artifact) -> ServerError:
    """The refusal of a file without statement in a project that signs, with what to do about it."""
    expired = any(row["sha256"] == artifact.sha256 for row in _of_file(connection, artifact))
    came = "came after its statement had expired" if expired else "came unsigned"
    return ServerError(
        "signature-missing",
        f"{artifact.names.served_name} {came}, its project signs: `countermark sign --submit dist/*` and upload "
        "again, or upload with the attestations that `countermark sign dist/*` writes",
    )


def used(connection: Connection, artifacts: Sequence[Artifact]) -> None:
    """Their names are taken from now on: no statement about them can wait any more."""
    names = [{"p": each.names.project, "f": each.names.filename} for each in artifacts]
    if names:
        quick.each(connection, _USED, names)


def _keep(
    connection: Connection,
    principal: Principal,
    statement: Statement,
    filename: str,
    envelope: Envelope,
    *,
    now: int,
    expires: int,
) -> None:
    project, sha256 = statement.predicate["project"], statement.subject_sha256
    connection.execute(delete(_TABLE).where(_TABLE.c.expires <= now))
    same = {"p": project, "f": filename, "s": sha256}
    connection.execute(_USED.where(_TABLE.c.sha256 == bindparam("s")), same)
    for bound, column, value in (
        ("this account", _TABLE.c.account_id, principal.account_id),
        (f"project {project!r}", _TABLE.c.project, project),
    ):
        count = connection.execute(
            select(func.count()).select_from(_TABLE).where(column == value)
        ).scalar_one()
        if count >= AHEAD_MAX:
            raise ServerError(
                "statements-waiting",
                f"{count} statements of {bound} wait for their files, at most {AHEAD_MAX} may",
            )
    connection.execute(
        _TABLE.insert().values(
            namespace="",
            project=project,
            filename=filename,
            sha256=sha256,
            account_id=principal.account_id,
            envelope=json.dumps(envelope.to_dict(), separators=(",", ":"), sort_keys=True),
            expires=expires,
        )
    )


def _of_file(connection: Connection, artifact: Artifact) -> list[dict[str, Any]]:
    names = {"p": artifact.names.project, "f": artifact.names.filename}
    return quick.mappings(connection, _WAITING, names)
