"""Predecessor: the frozen log that a successor goes on from, as the successor's entry 0 names it.

    {"log":"old.example/registry","root_hash":"5fec...","tree_size":31}

`init --predecessor` takes these three from the old log's final checkpoint, the ceremony signs them with the new
log's authority key, `adopt` proposes the statement, and `audit --predecessor` compares it with the old log.
They say where the old log ended. Nothing of its state goes over: names, keys and files begin anew, and what it
says of a file is to be read there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.errors import EvidenceError, MalformedError, SignatureError
from countermark.limits import JSON_MAX_INTEGER
from countermark.schema import is_origin
from countermark.statement import Envelope, Statement, is_sha256, keyid_of, open_envelope
from countermark.values import dataclass

TYPE = "predecessor"


@dataclass(frozen=True)
class Predecessor:
    """Origin, size and root hash (hex) of a log's final checkpoint."""

    log: str
    tree_size: int
    root_hash: str

    @classmethod
    def parse(cls, document: object) -> Predecessor:
        """The predecessor in an object of exactly these members. MalformedError: it is another."""
        if not isinstance(document, dict) or set(document) != {"log", "root_hash", "tree_size"}:
            raise MalformedError("a predecessor has the members log, root_hash and tree_size")
        return cls.of(document)

    @classmethod
    def of(cls, predicate: Mapping[str, Any]) -> Predecessor:
        """What these members say, whatever stands beside them."""
        log, size, root = predicate["log"], predicate["tree_size"], predicate["root_hash"]
        if not (is_origin(log) and type(size) is int and 0 < size <= JSON_MAX_INTEGER and is_sha256(root)):
            raise MalformedError(f"no predecessor: log {log!r}, tree size {size!r}, root hash {root!r}")
        return cls(log, size, root)

    def to_dict(self) -> dict[str, Any]:
        return {"log": self.log, "root_hash": self.root_hash, "tree_size": self.tree_size}

    def statement(self, origin: str) -> Statement:
        """What the authority of the log `origin` signs."""
        predicate = {"namespace": "", "origin": origin, "prev": None, "project": "", **self.to_dict()}
        return Statement.about(f"log:{self.log}", TYPE, predicate)

    def __str__(self) -> str:
        return f"{self.log}, frozen at size {self.tree_size} with root hash {self.root_hash}"


def open_predecessor(envelope: Envelope, *, authority_key: bytes, origin: str) -> Predecessor:
    """What the authority of the log `origin` signed, and nobody else. Errors: it is not that."""
    authority = keyid_of(authority_key)
    if envelope.keyids != (authority,):
        raise SignatureError(
            f"the predecessor is signed by {list(envelope.keyids)}, not by the authority key {authority} alone"
        )
    statement = open_envelope(envelope, {authority: authority_key}).statement
    predecessor = Predecessor.of(statement.predicate) if statement.type == TYPE else None
    if predecessor is None or statement != predecessor.statement(origin):
        raise EvidenceError(
            f"the statement is {statement.type!r} of another form than names {origin}'s predecessor"
        )
    return predecessor
