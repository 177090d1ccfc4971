"""Membership: which organisations somebody belongs to, and what its people may see of one.

Owners and members of teams see all of their organisation; a registry's admins see every one. To anybody else an
organisation is not there: who works with whom is nobody's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, or_, select

from countermark_server import orgtables
from countermark_server.accounts import holdings
from countermark_server.accounts.organisations import ADMIN, has_role, in_team
from countermark_server.accounts.orgapply import stored
from countermark_server.accounts.orgfile import Organisation
from countermark_server.errors import ServerError


@dataclass(frozen=True)
class Shown:
    """An organisation as its people see it."""

    said: Organisation
    account_id: str
    projects: tuple[holdings.Project, ...]  # that it owns by the log


def organisations_of(connection: Connection, account_id: str) -> list[str]:
    """The names of the organisations somebody belongs to."""
    organisation, member, team = orgtables.organisation, orgtables.organisation_member, orgtables.team
    owns = (
        select(member.c.organisation)
        .where(member.c.organisation == organisation.c.name, member.c.account_id == account_id)
        .exists()
    )
    works = (
        select(team.c.name)
        .where(
            team.c.organisation == organisation.c.name, in_team(team.c.organisation, team.c.name, account_id)
        )
        .exists()
    )
    query = select(organisation.c.name).where(or_(owns, works)).order_by(organisation.c.name)
    return list(connection.execute(query).scalars())


def organisation_of(connection: Connection, name: str, account_id: str) -> Shown:
    """An organisation, for one of its people. ServerError `not-found`: there is none, or not for this account."""
    table = orgtables.organisation
    org_account = connection.execute(select(table.c.account_id).where(table.c.name == name)).scalar()
    known = name in organisations_of(connection, account_id) or has_role(connection, account_id, ADMIN)
    if org_account is None or not known:
        raise ServerError("not-found", f"you belong to no organisation {name[:64]!r}")
    (said,) = (each for each in stored(connection) if each.name == name)
    return Shown(said, org_account, tuple(holdings.projects_of(connection, org_account)))
