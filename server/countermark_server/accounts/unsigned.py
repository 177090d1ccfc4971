"""Owners of projects that do not sign: the registry signs in their place, for somebody who has just signed in.

    POST /api/v1/projects/demo/owners     {"action": "add", "account": "8f14...", "role": "maintainer"}

A project that never signed, or signs no more, has no key of its own to change its owners with. So the registry's
role key signs the `owner` entry, and the log says so for ever. What stands in a key's place is a sign-in within the
last ten minutes, of an owner. Where a project signs, or requires approvals, the rules refuse the registry's
signature, whoever asks: there `countermark owner` signs with an enrolled key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from countermark.entry import check_statement, normalise_project
from countermark.errors import MalformedError
from countermark.statement import Signer, Statement, sign
from countermark_server import db
from countermark_server.accounts.people import get_account
from countermark_server.accounts.seats import check_seat
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokens import Principal, require_fresh
from countermark_server.allowance import Cost
from countermark_server.asking import holder_state
from countermark_server.errors import ServerError

ACTIONS = ("add", "remove", "transfer")
_MEMBERS = {"account", "action", "role"}


class Unsigned:
    """Changes owners by the registry's signature."""

    def __init__(
        self,
        engine: Engine,
        statements: Statements,
        *,
        origin: str,
        registry: Signer,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._statements = statements
        self._origin = origin
        self._registry = registry
        self._clock = clock

    def change(self, principal: Principal, name: str, body: object) -> Placed:
        """Propose the change and wait for its place in the log. The rules judge it like any other."""
        now = int(self._clock())
        require_fresh(principal, now=now)
        if not isinstance(body, Mapping) or body.keys() != _MEMBERS or body["action"] not in ACTIONS:
            raise ServerError(
                "bad-request",
                f'the body must be {{"account": ..., "action": one of {", ".join(ACTIONS)}, "role": ...}}',
            )
        try:
            project = normalise_project(name)
        except MalformedError as error:
            raise ServerError("name-invalid", str(error)) from None
        with db.read(self._engine) as connection:
            state = holder_state(connection, "", project, now=now)
            check_seat(connection, principal.account_id, "", project)
        if state is None:
            raise ServerError("not-found", f"{project!r} has no entry in the log yet")
        if state["signed"] or state.get("approvals"):
            raise ServerError(
                "signature-missing",
                f"{project!r} signs: its owners change by its own keys, with `countermark owner {body['action']}`",
            )
        said = {name: body[name] for name in sorted(_MEMBERS)}
        binding = {"namespace": "", "origin": self._origin, "prev": state["head"], "project": project}
        statement = Statement.about(f"project:{project}", "owner", {**binding, **said})
        try:
            check_statement(statement)
        except MalformedError as error:
            raise ServerError("bad-request", str(error)) from None
        self._check_known(said["account"], body["action"])
        registry = {"actor": principal.account_id, "second": None}
        cost = Cost(principal.account_id)
        return self._statements.place("owner", sign(statement, self._registry), registry, cost)

    def _check_known(self, account: str, action: str) -> None:
        """The log cannot know who has an account here; one that nobody has would own the project for ever."""
        if action == "remove":
            return
        with db.read(self._engine) as connection:
            if get_account(connection, account) is None:
                raise ServerError("not-found", f"nobody here has the account {account!r}")
