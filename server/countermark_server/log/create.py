"""Creating a log: done once, by hand, through `adopt`.

The head row starts with a signed checkpoint of size 0: witnesses are shown it at the first start, and one
that has ever cosigned anything under this origin says so, before a second history can begin. The state that
the rules start from names the origin and the offline authority key. The first three proposals enrol the role
keys; the fourth, the first `tuf` entry, comes from tufrepo (`sequence.py` waits for it). Of a successor log all this
stands behind entry 0, the authority's word on which frozen log it goes on from.

A log for load tests (`raw_add`) begins with nothing: its first leaf is the first body that somebody sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from countermark import rules
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.merkle import EMPTY_ROOT
from countermark.tlog.note import NoteSigner, sign_note
from countermark.trustfile import TrustFile
from countermark_server import db, proposal
from countermark_server.ruleview import SqlView
from countermark_server.stores import heads

GENESIS_ROLES = ("registry", "scanner", "moderation")


def create(
    connection: Connection,
    trust: TrustFile,
    signers: Sequence[NoteSigner],
    role_keys: Mapping[str, Mapping[str, Any]],
    *,
    now: int,
    raw_add: bool = False,
    predecessor: Mapping[str, Any] | None = None,
) -> None:
    """Begin the log, in the caller's transaction. HeadExistsError: it was begun before, nothing changed."""
    text = Checkpoint(trust.origin, 0, EMPTY_ROOT).text()
    body = sign_note(text, signers, time=now).format().decode()
    heads.create(connection, heads.Head(trust.origin, body, 0, b"", None))
    with SqlView(connection, db.rules_state) as view:
        for key, value in rules.genesis(
            origin=trust.origin, authority_key=trust.authority_key, raw_add=raw_add
        ).writes.items():
            view.put(key, value)
    if raw_add:
        return
    if predecessor is not None:
        proposal.propose(connection, "predecessor", predecessor, {}, now=now)
    for role in GENESIS_ROLES:
        registry = {"account": None, "authorised_by": "authority", "identity": None}
        proposal.propose(connection, "key-enroll", role_keys[role], registry, now=now)
