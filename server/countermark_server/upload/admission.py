"""Admission: what else must be so before a new file is looked into. Names, releases, allowances.

    a new project      its name is no organisation's, nor confusable with another's; the account may begin one more
    an old release     closed: `limits.release_open_days` after its first file, counted from that file's leaf
    any file           the project and the account have room left, and the account an entry

Only for files that the log does not know: the same bytes again are answered like the first time, whatever the
bounds are by then. When a release began is read from the rules' state, so files of an import count like others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection, and_, bindparam, or_, select

from countermark.entry import normalise_version
from countermark.rules import State
from countermark_server import db
from countermark_server.accounts.organisations import check_name
from countermark_server.accounts.tokens import Principal
from countermark_server.allowance import DAY_SECONDS, Cost, check_allowance
from countermark_server.confusable import check_new_name
from countermark_server.errors import ServerError
from countermark_server.ruleview import encode_key
from countermark_server.settings import Limits
from countermark_server.upload.names import Names

_TABLE = db.rules_state
# Wheels of a release have one beginning; its source distributions have two names at most.
_RELEASE = select(_TABLE.c.value).where(
    or_(
        and_(_TABLE.c.key >= bindparam("first"), _TABLE.c.key < bindparam("last")),
        _TABLE.c.key.in_((bindparam("tar"), bindparam("zip"))),
    )
)


def admit(
    connection: Connection,
    limits: Limits,
    principal: Principal,
    names: Names,
    *,
    held: State | None,
    length: int,
    now: int,
) -> Cost:
    """What this file would cost, if it may come in; `held` is its project as the rules see it."""
    cost = Cost(principal.account_id, names.project, length, new_project=held is None)
    if held is not None:
        _check_open(connection, limits, names, now=now)
    else:
        alike = not limits.confusable_names
        check_name(connection, "", names.project, principal.account_id, alike=alike)
        if alike:
            check_new_name(connection, names.project, principal.account_id)
    check_allowance(connection, limits, [cost], now=now)
    return cost


def _check_open(connection: Connection, limits: Limits, names: Names, *, now: int) -> None:
    if not limits.release_open_days:
        return
    began = min(_times(connection, names), default=now)
    if now - began > limits.release_open_days * DAY_SECONDS:
        when = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d")
        raise ServerError(
            "release-closed",
            f"{names.project} {names.version} began on {when} and takes no further files after "
            f"{limits.release_open_days} days; make a new version",
        )


def _times(connection: Connection, names: Names) -> Iterator[int]:
    """When each file of this release was logged."""
    stem = f"{names.project.replace('-', '_')}-{normalise_version(names.version, strip_zeros=True)}"
    wheels, tar, zip_ = (
        encode_key(("file", "", names.project, stem + ending)) for ending in ("-", ".tar.gz", ".zip")
    )
    begins = wheels[:-2]  # without the quote and bracket that end a key
    asked = {"first": begins, "last": begins + "~", "tar": tar, "zip": zip_}
    for value in connection.execute(_RELEASE, asked).scalars():
        yield int(json.loads(value)["time"])
