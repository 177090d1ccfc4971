"""Seats: how what a team may do becomes what the log allows, and how it ends.

    begins a project under a name of acme        their account owns it (by the publish entry), and acme's account too:
                                                 `owner add`, signed by the registry on their behalf
    uploads to a project that acme owns          a seat: `owner add`, by the registry on behalf of acme
    has no role there any more                   refused from the next request on; `owner remove` follows (settle)

The log knows accounts, and judges uploads by them; it never hears of teams. So a role is worth nothing before its
entry, and whoever reads the log sees who could publish when. The registry signs such entries for projects that do not
sign; where a project signs, an enrolled key must, and the refusal says which command does.

An organisation's account owns what was begun under its names. So a project whose people have all gone is the
organisation's still. One that nobody alive owns (`orphans`) is for the admins to look at: the registry gives nobody
else's project away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from countermark.rules import State
from countermark.statement import Signer, Statement, sign
from countermark_server import db, orgtables, proposal, quick
from countermark_server.accounts.organisations import OWNER, full_name, granted, role_in
from countermark_server.accounts.people import LOST
from countermark_server.asking import Answers, foresee_all, holder_state
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.ruleview import SqlView, encode_key

_SEAT = orgtables.seat
_ORGANISATION = select(_SEAT.c.organisation).where(
    _SEAT.c.namespace == bindparam("n"),
    _SEAT.c.project == bindparam("p"),
    _SEAT.c.account_id == bindparam("a"),
)
TRIES = 5  # others may be let in first
OVERTAKEN = ("entry-refused", "prev-stale")  # the same person was, by another request; somebody else was


class Seats:
    """Lets people of teams in, and says who is in no longer."""

    def __init__(
        self,
        engine: Engine,
        answers: Answers,
        registry: Signer,
        *,
        origin: str,
        wait: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._answers = answers
        self._registry = registry
        self._origin = origin
        self._wait = wait
        self._clock = clock

    def take(self, account_id: str, namespace: str, project: str) -> None:
        """Let a member of a team into a project of its organisation; returns once the log has it.

        Of several who come at once the log takes one, since all follow the same entry; the others ask again.
        ServerError `not-owner`: no role, or not one that the registry may make true; the words say who can.
        """
        for _ in range(TRIES - 1):
            try:
                return self._take(account_id, namespace, project)
            except ServerError as error:
                if error.code not in OVERTAKEN:
                    raise
        return self._take(account_id, namespace, project)

    def _take(self, account_id: str, namespace: str, project: str) -> None:
        now, name = int(self._clock()), full_name(namespace, project)
        with db.read(self._engine) as connection:
            state = holder_state(connection, namespace, project, now=now)
            role = role_in(connection, account_id, namespace, project)
        if state is None or account_id in state["owners"]:
            return
        if role is None:
            raise ServerError("not-owner", f"this account is no owner of {name!r}")
        if state["owners"].get(role.account_id) != OWNER:
            raise ServerError(
                "not-owner",
                f"{name!r} is not owned by {role.organisation} in the log: one of its owners says "
                f"`countermark owner add {project} {role.account_id} --role owner`",
            )
        if state["signed"]:
            raise ServerError(
                "not-owner",
                f"{name!r} signs, so a key of its owners lets you in: "
                f"`countermark owner add {project} {account_id} --role {role.role}`",
            )
        where, change = (namespace, project), {"account": account_id, "role": role.role}
        offer = self._offer(where, state, role.account_id, action="add", **change)
        with db.read(self._engine) as connection:
            (refusal,) = foresee_all(SqlView(connection, db.rules_state), [offer], now=now)
        if refusal is not None:
            raise refusal
        with db.write(self._engine) as connection:
            keep(connection, namespace, project, account_id, role.organisation, now=now)
            (asked,) = proposal.propose_all(connection, [offer], now=now)
        # Committed. If we stop here the log takes the entry all the same, and the next request finds the seat.
        outcome = self._answers.wait_for(asked, seconds=self._wait)
        if outcome.index is None:
            raise ServerError(
                "unavailable", f"your place in {name!r} is on its way into the log; send it again"
            )

    def founded(self, account_id: str, namespace: str, project: str) -> None:
        """Somebody has begun a project (`note_founder`): its name's organisation owns it, too."""
        now = int(self._clock())
        with db.read(self._engine) as connection:
            grant = granted(connection, namespace, project)
        if grant is None:
            return
        with db.write(self._engine) as connection:
            state = holder_state(connection, namespace, project, now=now)
            if state is None or state["signed"] or grant.account_id in state["owners"]:
                return  # not in the log yet, or a key must sign it: `settle` comes back to it, or says so
            change = {"account": grant.account_id, "role": OWNER}
            offer = self._offer((namespace, project), state, account_id, action="add", **change)
            proposal.propose_all(connection, [offer], now=now)

    def settle(self) -> list[str]:
        """Tell the log what follows from today's teams; what it was told, and what only an owner's key can say."""
        now, said, changed = int(self._clock()), list[str](), set[tuple[str, str]]()
        with db.write(self._engine) as connection:
            for row in connection.execute(_ALL).mappings().all():
                words = self._settle(connection, row, changed, now=now)
                said += [words] if words else []
        return said

    def _settle(
        self, connection: Connection, row: RowMapping, changed: set[tuple[str, str]], *, now: int
    ) -> str | None:
        namespace, project, account_id = row["namespace"], row["project"], row["account_id"]
        state = holder_state(connection, namespace, project, now=now)
        if state is None:
            return None
        name, organisation = full_name(namespace, project), row["org_account"]
        if has_ended(connection, account_id, namespace, project, row["organisation"]):
            if account_id not in state["owners"]:
                connection.execute(_SEAT.delete().where(*_this(namespace, project, account_id)))
                return None
            if state["signed"]:
                how = f"countermark owner remove {project} {account_id}"
                return f"{name}: needs a key of its owners: {how}"
            if state["owners"].get(organisation) != OWNER:
                return f"{name}: {account_id} has left {row['organisation']}, which is no owner in the log"
            action, about, actor = "remove", account_id, organisation
        elif organisation not in state["owners"]:
            if state["signed"]:
                how = f"countermark owner add {project} {organisation} --role owner"
                return f"{name}: needs a key of its owners: {how}"
            if state["owners"].get(account_id) != OWNER:
                return None
            action, about, actor = "add", organisation, account_id
        else:
            return None
        if (namespace, project) in changed:  # each follows the one before it, which has no place yet
            return f"{name}: {action} {about} comes after that: `countermark-server org settle` again"
        changed.add((namespace, project))
        role = OWNER if action == "add" else None
        offer = self._offer((namespace, project), state, actor, action=action, account=about, role=role)
        (refusal,) = foresee_all(SqlView(connection, db.rules_state), [offer], now=now)
        if refusal is not None:
            return f"{name}: {refusal.detail}"
        proposal.propose_all(connection, [offer], now=now)
        return f"{name}: {action} {about}"

    def _offer(self, where: tuple[str, str], state: State, actor: str, **change: str | None) -> Offer:
        """An owner entry that the registry signs, on behalf of an owner."""
        namespace, project = where
        binding = {"origin": self._origin, "namespace": namespace, "project": project, "prev": state["head"]}
        statement = Statement.about(f"project:{project}", "owner", {**binding, **change})
        return Offer("owner", sign(statement, self._registry), {"actor": actor, "second": None})


_ALL = (
    select(_SEAT, orgtables.organisation.c.account_id.label("org_account"))
    .join(orgtables.organisation, orgtables.organisation.c.name == _SEAT.c.organisation)
    .order_by(_SEAT.c.namespace, _SEAT.c.project, _SEAT.c.account_id)
)


def note_founder(connection: Connection, account_id: str, namespace: str, project: str, *, now: int) -> None:
    """Somebody begins a project: under a name of an organisation, by that one. In the transaction that proposes it.

    So whoever stops us before `founded` leaves nothing that `settle`, which looks at seats alone, would not find.
    """
    grant = granted(connection, namespace, project)
    if grant is not None:
        keep(connection, namespace, project, account_id, grant.organisation, now=now)


def check_seat(connection: Connection, account_id: str, namespace: str, project: str) -> None:
    """Refuse whom the log still lets in and their team no longer. ServerError `not-owner`."""
    named = {"n": namespace, "p": project, "a": account_id}
    row = quick.run(connection, _ORGANISATION, named).fetchone()
    organisation = None if row is None else row[0]
    if organisation is not None and has_ended(connection, account_id, namespace, project, organisation):
        raise ServerError(
            "not-owner",
            f"your place in {full_name(namespace, project)!r} came from a team of {organisation} and ended with it",
        )


def has_ended(
    connection: Connection, account_id: str, namespace: str, project: str, organisation: str
) -> bool:
    """Whether no role of this organisation holds the seat any more."""
    role = role_in(connection, account_id, namespace, project, organisation=organisation)
    return role is None


def keep(
    connection: Connection, namespace: str, project: str, account_id: str, organisation: str, *, now: int
) -> None:
    """Remember by which organisation somebody is in a project; the first row stays."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    row = {"namespace": namespace, "project": project, "account_id": account_id, "organisation": organisation}
    connection.execute(insert(_SEAT).values(**row, since=now, ended=None).on_conflict_do_nothing())


def _this(namespace: str, project: str, account_id: str) -> tuple[Any, ...]:
    return (_SEAT.c.namespace == namespace, _SEAT.c.project == project, _SEAT.c.account_id == account_id)


# --- projects whose people have gone ---------------------------------------------------------------------
@dataclass(frozen=True)
class Orphan:
    """A project of which no owner is a person who could sign in; and whose it is then, if anybody's."""

    project: str
    organisation: str | None
    owners: tuple[str, ...]


def orphans(connection: Connection, *, now: int) -> Iterator[Orphan]:
    """All such projects of the default namespace, by name. It walks the state of every project."""
    state, first = db.rules_state, encode_key(("project", "", ""))[:-2]
    organisations = {
        row.account_id: row.name
        for row in connection.execute(
            select(orgtables.organisation.c.account_id, orgtables.organisation.c.name)
        )
    }
    alive = set(connection.execute(_alive(now)).scalars()) - organisations.keys()
    query = select(state.c.key, state.c.value).where(state.c.key >= first, state.c.key < first + "~")
    for row in connection.execute(query.order_by(state.c.key)):
        owners = [who for who, role in json.loads(row.value)["owners"].items() if role == OWNER]
        if not alive & set(owners):
            whose = next((organisations[who] for who in owners if who in organisations), None)
            yield Orphan(json.loads(row.key)[2], whose, tuple(sorted(owners)))


def _alive(now: int) -> Any:
    """Accounts of people, and of services with a day left, whom no provider has ended."""
    account = db.account
    gone = select(db.identity.c.account_id).where(db.identity.c.gone.is_not(None))
    return select(account.c.id).where(
        account.c.login.not_like(f"{LOST}%"),
        account.c.expires.is_(None) | (account.c.expires >= now),
        account.c.id.not_in(gone),
    )
