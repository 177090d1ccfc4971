"""`give-project`: the first owner of a project that an import made.

Nobody owns such a project, so nobody can upload to it, enrol a key or hand it on: otherwise the first to come would
own a known name. Who it belongs to is the operator's word, an `owner` entry that the registry signs on nobody's
behalf. The rules take it only while the project has no owner (countermark/rules_keys.py).
"""

from __future__ import annotations

from sqlalchemy import Engine

from countermark import rules
from countermark.errors import MalformedError, NetworkError, PolicyError, UsageError
from countermark.names import normalise_project
from countermark.statement import Signer, Statement, sign
from countermark_server import db, proposal
from countermark_server.asking import Answers, foresee
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView


def give(
    engine: Engine, project: str, account: str, *, origin: str, signer: Signer, wait: float, now: int
) -> int:
    """Propose the entry and wait for its place. PolicyError: the rules refuse it, nothing was stored."""
    try:
        name = normalise_project(project)
    except MalformedError as error:
        raise UsageError(str(error)) from None
    try:
        with db.write(engine) as connection:
            holder = SqlView(connection, db.rules_state).get(rules.project_key("", name))
            predicate = {
                "origin": origin,
                "namespace": "",
                "project": name,
                "prev": None if holder is None else holder["head"],
                "action": "add",
                "account": account,
                "role": "owner",
            }
            envelope = sign(Statement.about(f"project:{name}", "owner", predicate), signer)
            registry = {"actor": None, "second": None}
            foresee(connection, "owner", envelope, registry, now=now)
            asked = proposal.propose(connection, "owner", envelope.to_dict(), registry, now=now)
        # Proposed. If we stop here the log takes it all the same; a second one would be refused.
        outcome = Answers(engine).wait_for(asked, seconds=wait)
    except ServerError as error:
        raise PolicyError(error.detail) from None
    if outcome.index is None:
        raise NetworkError("the owner is proposed and not in the log yet", hint="is `work log` running?")
    return outcome.index
