"""Publisher keys at the door: an enrolment is a signed statement that waits for its place in the log.

    POST /api/v1/keys   Authorization: Bearer <session>    {"envelope": {"payload": ..., "signatures": [...]}}
    GET  /api/v1/keys/40c3...   Authorization: Bearer <session>     the projects a key may sign for

The statement is signed by the new key and, where the project has keys, by as many of them as it demands; without
these the registry vouches that an owner signed in, which works at once for a first key and waits seven days
otherwise. What the registry adds is this account and who authorised it; the rules judge the whole.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Engine, select

from countermark.entry import normalise_project
from countermark.errors import MalformedError
from countermark.machine import TRUSTED
from countermark.schema import is_namespace
from countermark.statement import Envelope, Statement, keyid_of
from countermark_server import db
from countermark_server.accounts.organisations import check_name
from countermark_server.accounts.seats import Seats, check_seat, note_founder
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokens import Principal, require_session
from countermark_server.allowance import Cost
from countermark_server.asking import holder_state
from countermark_server.confusable import check_new_name
from countermark_server.errors import ServerError
from countermark_server.settings import Limits

PUBLISHER_SCOPES = ("project", "namespace")
_KEYID = re.compile(r"[0-9a-f]{64}")


class Keys:
    """Enrols keys, and says which a project has."""

    def __init__(
        self,
        engine: Engine,
        statements: Statements,
        seats: Seats,
        limits: Limits,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._seats = seats
        self._statements = statements
        self._limits = limits
        self._clock = clock

    def enrol(self, principal: Principal, body: object) -> Placed:
        """Propose the enrolment in `body` and wait for its place in the log."""
        require_session(principal)
        envelope, statement = self._statements.read(body, types=("key-enroll",), what="enrolment")
        if statement.predicate["scope"] not in PUBLISHER_SCOPES:
            scope = statement.predicate["scope"]
            raise ServerError(
                "statement-invalid", f"this door enrols publishers' keys, not one of scope {scope}"
            )
        namespace, project = statement.predicate["namespace"], statement.predicate["project"]
        now = int(self._clock())
        with db.read(self._engine) as connection:
            state = holder_state(connection, namespace, project, now=now)
            covering = holder_state(connection, namespace, "", now=now) if namespace else None
            is_new = state is None and not namespace
            alike = not self._limits.confusable_names
            if state is None:
                check_name(connection, namespace, project, principal.account_id, alike=alike)
            else:
                check_seat(connection, principal.account_id, namespace, project)
            if is_new and alike:
                check_new_name(connection, project, principal.account_id)
        keys = {**(covering or {}).get("keys", {}), **(state or {}).get("keys", {})}
        registry = {
            "account": principal.account_id,
            "authorised_by": _authorised_by(envelope, statement, keys),
            "identity": None,
        }
        cost = Cost(principal.account_id, new_project=is_new)
        if state is not None:
            return self._statements.place("key-enroll", envelope, registry, cost)
        who, where = principal.account_id, {"namespace": namespace, "project": project}
        beside = partial(note_founder, account_id=who, **where, now=now)
        placed = self._statements.place("key-enroll", envelope, registry, cost, beside=beside)
        self._seats.founded(who, **where)
        return placed

    def enrolments(self, principal: Principal, keyid: str) -> dict[str, Any]:
        """The projects and namespaces a key may sign for now. It looks at every enrolment: for who signed in."""
        require_session(principal)
        if not _KEYID.fullmatch(keyid):
            raise ServerError("not-found", f"{keyid[:80]!r} is no keyid: 64 hexadecimal digits")
        name = db.rules_state.c.key
        query = select(name).where(name.like('["enrolment",%'), name.like(f'%,"{keyid}"]')).order_by(name)
        now, found = int(self._clock()), []
        with db.read(self._engine) as connection:
            for row in connection.execute(query).scalars().all():
                _, namespace, project, _ = json.loads(row)
                state = holder_state(connection, namespace, project, now=now)
                if state is not None and keyid in state["keys"]:
                    index = state["keys"][keyid]["index"]
                    found.append({"namespace": namespace, "project": project, "index": index})
        return {"keyid": keyid, "enrolments": found}

    def project(self, name: str) -> dict[str, Any]:
        """What a publisher must know of a project to sign for it; empty for a project nobody has used."""
        project = _project(name)
        with db.read(self._engine) as connection:
            state = holder_state(connection, "", project, now=int(self._clock()))
        return _described("", project, state)

    def namespace(self, namespace: str, name: str | None = None) -> dict[str, Any]:
        """The same of a namespace; or of a project in it, with the namespace that covers it."""
        if not namespace or not is_namespace(namespace):
            raise ServerError("name-invalid", f"{namespace[:80]!r} is no namespace")
        project, now = "" if name is None else _project(name), int(self._clock())
        with db.read(self._engine) as connection:
            covering = _described(namespace, "", holder_state(connection, namespace, "", now=now))
            if name is None:
                return covering
            state = holder_state(connection, namespace, project, now=now)
        return _described(namespace, project, state) | {"covered_by": covering}


def _described(namespace: str, project: str, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """A holder of keys, as the API shows it; nobody's yet, where there is no state."""
    keys = {} if state is None else state["keys"]
    return {
        "project": project,
        "namespace": namespace,
        "keyed": bool(state and state["keyed"]),
        "signed": bool(state and state["signed"]),
        "threshold": 1 if state is None else state["threshold"],
        "approvals": 0 if state is None else state.get("approvals", 0),
        "frozen": None if state is None else state["frozen"],
        "recovery": None if state is None else _recovery(state["recovery"]),
        "prev": None if state is None else state["head"],
        "keys": [
            {
                "keyid": keyid,
                "index": item["index"],
                "scope": item["scope"],
                "valid_until": item["until"],
                "account": item["account"],
            }
            for keyid, item in sorted(keys.items())
        ],
        "owners": [] if state is None else sorted(state["owners"]),
        "publishers": [] if state is None else _publishers(state),
    }


def _project(name: str) -> str:
    try:
        return normalise_project(name)
    except MalformedError as error:
        raise ServerError("name-invalid", str(error)) from None


def _publishers(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The jobs that a project trusts; `leaf_hash` is what the enrolment of a one-run key follows."""
    items = sorted(state.get("publishers", {}).items(), key=lambda item: int(item[1]["index"]))
    return [
        {"id": known, "index": item["index"], "leaf_hash": item["lh"]}
        | {name: item[name] for name in TRUSTED}
        for known, item in items
    ]


def _recovery(pending: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A recovery that waits: whose key it brings, and until when one may veto it."""
    return None if pending is None else {name: pending[name] for name in ("index", "keyid", "until")}


def _authorised_by(envelope: Envelope, statement: Statement, keys: Mapping[str, Any]) -> int | str:
    """The enrolment of a key that signs beside the new one, or `registry` where none does."""
    new = keyid_of(base64.b64decode(statement.predicate["key"]))
    signers = [keyid for keyid in envelope.keyids if keyid != new]
    known = [keys[keyid]["index"] for keyid in signers if keyid in keys]
    if signers and not known:
        raise ServerError(
            "key-unknown", f"key {signers[0]} is not enrolled here, so it cannot authorise another"
        )
    return min(known) if known else "registry"
