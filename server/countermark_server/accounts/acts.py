"""What an owner does to files and keys afterwards: yank, unyank, remove, revoke. Signed by the owner's own key.

    POST /api/v1/entries   Authorization: Bearer <session>    {"envelope": {"payload": ..., "signatures": [...]}}

Two proofs are asked for, and neither replaces the other: the session says which account acts, and the statement is
signed by an enrolled key of the project. So a stolen upload token withdraws nothing, nor does a stolen key without
its owner's sign-in. The registry adds the account; the rules judge the whole, `prev` included, so an old statement
taken out of the public log and sent again is refused.

No other type passes this door: verdicts and moderation acts are the registry's, keys come in at their own door.
"""

from __future__ import annotations

from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokens import Principal, require_session
from countermark_server.errors import ServerError

TYPES = ("yank", "unyank", "remove", "key-revoke")


def act(statements: Statements, principal: Principal, body: object) -> Placed:
    """Propose the owner's statement in `body` and wait for its place in the log."""
    require_session(principal)
    envelope, statement = statements.read(body, types=TYPES, what="statement")
    if not statement.predicate["project"] and not statement.predicate["namespace"]:
        raise ServerError(
            "statement-invalid",
            "a role key of the registry is revoked by the authority key, not at this door",
        )
    return statements.place(statement.type, envelope, {"actor": principal.account_id})
