"""Verdicts: what the scan says, as entries of the log.

    examined  -> `verdict`  signed by the role key `scanner`; newest wins
    block     -> `hold`     signed by the role key `registry`, without a moderator: an automatic hold

Both stand on the registry's side of the file: `prev` is the newest entry there, which the rules' state names. If
another entry of that side came in between, the log refuses ours and we sign again behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from countermark.statement import Signer, Statement, sign
from countermark_server import db, proposal
from countermark_server.ruleview import SqlView
from countermark_server.scan.findings import Opinion

AUTOMATIC = {"case": None, "moderator": None}


@dataclass(frozen=True)
class Ruleset:
    """The rules in force: their digest, and the analyzers by name and version, in order of name."""

    sha256: str
    analyzers: tuple[tuple[str, str], ...]


def file_state(connection: Connection, row: RowMapping) -> Mapping[str, Any] | None:
    """What the rules know of a submission's file; None before its publish entry is sequenced."""
    key = ("file", row["namespace"], row["project"], row["filename"])
    return SqlView(connection, db.rules_state).get(key)


def propose_verdict(
    connection: Connection,
    row: RowMapping,
    opinion: Opinion,
    findings_sha256: str,
    ruleset: Ruleset,
    *,
    origin: str,
    scanner: Signer,
    now: int,
) -> int:
    """Ask for the verdict's place in the log; the proposal's id."""
    predicate = {
        **_binding(connection, row, origin),
        "tier": opinion.tier,
        "classification": opinion.classification,
        "confidence": opinion.confidence,
        "ruleset_sha256": ruleset.sha256,
        "analyzers": [{"name": name, "version": version} for name, version in ruleset.analyzers],
        "findings_sha256": findings_sha256,
    }
    envelope = sign(Statement(row["served_name"], row["sha256"], "verdict", predicate), scanner)
    return proposal.propose(connection, "verdict", envelope.to_dict(), {}, now=now)


def propose_hold(
    connection: Connection,
    row: RowMapping,
    *,
    about: str,
    findings_sha256: str,
    origin: str,
    registry: Signer,
    now: int,
) -> int:
    """Ask for an automatic hold because of the verdict whose leaf hash is `about`; the proposal's id."""
    predicate = {
        **_binding(connection, row, origin),
        "reason": "verdict",
        "about": about,
        "evidence_sha256": findings_sha256,
    }
    envelope = sign(Statement(row["served_name"], row["sha256"], "hold", predicate), registry)
    return proposal.propose(connection, "hold", envelope.to_dict(), AUTOMATIC, now=now)


def _binding(connection: Connection, row: RowMapping, origin: str) -> dict[str, Any]:
    state = file_state(connection, row)
    assert state is not None, "a logged submission has a publish entry"
    return {
        "origin": origin,
        "namespace": row["namespace"],
        "project": row["project"],
        "prev": state["registry_head"],
    }
