"""Confusable names: project names that people read as one, or take for a module of Python itself.

    skeleton("acme-demo") == skeleton("acmedemo") == skeleton("acrne-derno") == "acmedem0"
    skeleton("pillow")    == skeleton("pi11ow")   == "p1110w"

Names are ASCII, so one small table does: dashes fall away, `l` and `i` are `1`, `o` is `0`, `rn` is `m`, `vv` is `w`.
Two names with one skeleton are confusable; only who owns the older project may begin the other. Where the skeletons
stand: `project_name`, a row for each project of the default namespace, kept by ruleview.py beside the rules' state.

It is a door's question and no rule of the log: what looks alike changes with fonts and taste, and imports bring in
what was there before. Two who begin confusable projects within the same moment both get in.
"""

from __future__ import annotations

import sys

from sqlalchemy import Connection, bindparam, select

from countermark.rules import State, project_key
from countermark_server import db
from countermark_server.errors import ServerError
from countermark_server.ruleview import SqlView, skeleton

_LIKE = (
    select(db.project_name.c.project)
    .where(db.project_name.c.skeleton == bindparam("s"), db.project_name.c.project != bindparam("p"))
    .order_by(db.project_name.c.project)
    .limit(8)
)
_MODULES = frozenset(skeleton(name.lstrip("_").lower().replace("_", "-")) for name in sys.stdlib_module_names)


def check_new_name(connection: Connection, project: str, account_id: str) -> None:
    """Refuse to begin this (normalised) project where another, or a module of Python, reads the same."""
    shape = skeleton(project)
    view = SqlView(connection, db.rules_state)
    for other in connection.execute(_LIKE, {"s": shape, "p": project}).scalars().all():
        held: State | None = view.get(project_key("", other))
        if held is None or account_id not in held["owners"]:
            raise ServerError(
                "name-confusable", f"{project!r} reads like the project {other!r} of somebody else"
            )
    if shape in _MODULES:
        raise ServerError("name-confusable", f"{project!r} reads like a module of Python's standard library")
