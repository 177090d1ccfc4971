"""The trust file: what a registry's offline `trust` keys say about its log. TUF target `trust/trust.json`.

    {"authority_key":"MFkw...","client_policy":{"min_tree_size":0,"mode":"enforce","patterns":[]},
     "origin":"registry.example","type":"countermark-trust","v":1,"valid_from":1763800000,
     "valid_until":null,"version":1,
     "witness_policy":"log registry.example+...\nlog registry.example+...\nwitness w1 w1+...\nquorum w1\n"}

(shown on several lines; the file is canonical JSON, so one trust file has one spelling and one SHA-256.)

It holds the log's origin and key set and the witness quorum (as a C2SP tlog-policy), the offline authority
key from which the entry rules start, and the client policy, whose `min_tree_size` is a rollback floor that
survives the compromise of every online key. `patterns` are tried in order, the first that matches a project
wins over `mode`. `demands`, where there are any, are those of demands.py, spans in seconds; programs that are too old
to know them refuse the file.

A trust file is judged at a time: `valid_from` <= T < `valid_until`. Parsing one proves nothing; it is trusted
when TUF's `trust` role signed it *and* either the root lists its digest in `x-countermark-trust` or it was
in a quorum-cosigned checkpoint for 24 h under its predecessor (trust.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from countermark.canonical import encode_canonical, parse_canonical
from countermark.demands import Demands
from countermark.digest import sha256
from countermark.errors import MalformedError
from countermark.limits import NAME_MAX_CHARS, TRUST_FILE_MAX_BYTES
from countermark.names import matches
from countermark.statement import load_public_key
from countermark.tlog.note import VerifierKey
from countermark.tlog.policy import Policy
from countermark.values import dataclass, field

TARGET_PATH = "trust/trust.json"
TYPE = "countermark-trust"
MODES = ("observe", "warn", "enforce")
MAX_PATTERNS = 256  # a policy that people can still read


@dataclass(frozen=True)
class Pattern:
    """One exception to the mode: projects matching `project` (`*` as in a shell) are treated so."""

    mode: str
    project: str


@dataclass(frozen=True)
class CentralPolicy:
    """What the registry asks of every client; a stricter local policy wins."""

    min_tree_size: int
    mode: str
    patterns: tuple[Pattern, ...] = ()
    demands: Demands = field(default_factory=Demands)

    def mode_for(self, project: str) -> str:
        """The mode of a normalised project name."""
        found = (pattern.mode for pattern in self.patterns if matches(pattern.project, project))
        return next(found, self.mode)

    def to_dict(self) -> dict[str, Any]:
        """As the trust file holds it; `demands` only where there are any, so that older files stay what they are."""
        document: dict[str, Any] = {
            "min_tree_size": self.min_tree_size,
            "mode": self.mode,
            "patterns": [{"mode": p.mode, "project": p.project} for p in self.patterns],
        }
        demands = self.demands.to_dict()
        return document | ({"demands": demands} if demands else {})


@dataclass(frozen=True)
class TrustFile:
    """One version of a registry's trust file, as parsed."""

    version: int
    origin: str
    authority_key: bytes  # SPKI DER
    witness_policy: str  # tlog-policy text, with the log's lines
    client_policy: CentralPolicy
    valid_from: int  # UTC seconds
    valid_until: int | None = None

    def format(self) -> bytes:
        """The canonical bytes."""
        return encode_canonical(
            {
                "authority_key": base64.b64encode(self.authority_key).decode(),
                "client_policy": self.client_policy.to_dict(),
                "origin": self.origin,
                "type": TYPE,
                "v": 1,
                "valid_from": self.valid_from,
                "valid_until": self.valid_until,
                "version": self.version,
                "witness_policy": self.witness_policy,
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> TrustFile:
        """The trust file in these bytes; its policy must hold keys for its own origin."""
        document = parse_canonical(raw, max_bytes=TRUST_FILE_MAX_BYTES)
        try:
            found = _from_document(document)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedError(f"trust file is malformed: {error}") from error
        if found.format() != raw:
            raise MalformedError("trust file has members this program does not know")
        if not found.log_keys:
            raise MalformedError(f"trust file for {found.origin!r} holds no log key of that origin")
        return found

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the file, as a root lists it."""
        return sha256(self.format()).hexdigest()

    @cached_property
    def policy(self) -> Policy:
        """The witness policy, parsed."""
        return Policy.parse(self.witness_policy)

    @property
    def log_keys(self) -> tuple[VerifierKey, ...]:
        """The key set of the log: all of them must have signed a checkpoint."""
        return tuple(self.policy.log_keys(self.origin))

    def valid_at(self, time: int) -> bool:
        """Whether this version is in force at a time."""
        return self.valid_from <= time and (self.valid_until is None or time < self.valid_until)


def _from_document(document: object) -> TrustFile:
    if not isinstance(document, dict):
        raise TypeError("an object is expected")
    if document["type"] != TYPE or document["v"] != 1:
        raise ValueError(f"it says type {document['type']!r}, v {document['v']!r}")
    valid_until = document["valid_until"]
    valid_from = _integer(document, "valid_from")
    if valid_until is not None and _integer(document, "valid_until") <= valid_from:
        raise ValueError("it ends before it begins")
    version = _integer(document, "version")
    if version < 1:
        raise ValueError("its version is below 1")
    spki = base64.b64decode(_text(document, "authority_key"), validate=True)
    load_public_key(spki)
    return TrustFile(
        version=version,
        origin=_text(document, "origin"),
        authority_key=spki,
        witness_policy=_text(document, "witness_policy"),
        client_policy=_central_policy(document["client_policy"]),
        valid_from=valid_from,
        valid_until=valid_until,
    )


def _central_policy(document: Mapping[str, object]) -> CentralPolicy:
    patterns = document["patterns"]
    if not isinstance(patterns, list) or len(patterns) > MAX_PATTERNS:
        raise ValueError(f"patterns is a list of at most {MAX_PATTERNS}")
    return CentralPolicy(
        min_tree_size=_integer(document, "min_tree_size"),
        mode=_mode(document),
        patterns=tuple(Pattern(_mode(each), _text(each, "project")) for each in patterns),
        demands=_demands(document.get("demands", {})),
    )


def _demands(table: object) -> Demands:
    if not isinstance(table, dict):
        raise TypeError("demands are an object")
    return Demands.from_dict(table)


def _mode(document: Mapping[str, object]) -> str:
    mode = _text(document, "mode")
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    return mode


def _text(document: Mapping[str, object], name: str) -> str:
    value = document[name]
    limit = TRUST_FILE_MAX_BYTES if name == "witness_policy" else NAME_MAX_CHARS * 4
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ValueError(f"{name} is not a text of 1 to {limit} characters")
    return value


def _integer(document: Mapping[str, object], name: str) -> int:
    value = document[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is not a whole number")
    return value
