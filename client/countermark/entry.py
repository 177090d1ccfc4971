"""Entries: what a leaf of the log says.

A leaf is canonical JSON (canonical.py) of at most 65,535 bytes; shown on several lines:

    {"envelope":{"payload":"eyJfdHlwZSI6...","payloadType":"application/vnd.in-toto+json",
     "signatures":[{"keyid":"40c3...","sig":"ObDy..."}]},
     "registry":{"identity":null,"key_index":4,"uploader":"8f14e45fceea167a5a36dedd4bea2543"},
     "time":1763800000,"type":"publish","v":1}

Inside the envelope is a signed statement (statement.py); `registry` and `time` are what the registry adds.
So the party at fault is always visible: the signer for the statement, the log for the rest.

`Entry.parse` checks *form*: every type has a closed schema for its predicate and for what the registry adds,
every code comes from a closed list, every name and digest has one spelling, and the statement's
subject fits its predicate. Whether the entry is *allowed* depends on the log's history: rules.py.

One kind of entry carries no statement: a `publish` that an import made out of existing history. Its envelope is null,
and `registry` says what the manifest's line says (imported.py):

    {"envelope":null,"registry":{"filename":"acme-1.0.tar.gz","import":{"index":9,"line":1,"rest":"77ab..."},
     "length":1421,"passed":null,"project":"acme","sha256":"5891...","version":"1.0"},
     "time":1763800000,"type":"publish","v":1}

Types are complete (SCHEMAS, schema.py), or RESERVED: named in the design, no meaning in this rule version. A reserved
or unknown type parses, so that an auditor can walk past it, and the rules answer "not understood".

A log made for load tests (`testing.raw_add`) holds `opaque` entries instead: any bytes. Nothing in the bytes
says so; the log's state does, and `Entry.opaque` is called where `Entry.parse` would be.

Leaves are public for ever: no e-mail address, no free text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import MalformedError
from countermark.imported import Imported
from countermark.limits import ENTRY_MAX_BYTES, ENTRY_TIME_MAX
from countermark.names import (
    FileName,
    normalise_filename,
    normalise_project,
    normalise_version,
    parse_filename,
)
from countermark.schema import RESERVED, SCHEMAS, check_members, check_statement
from countermark.statement import Envelope, Statement, is_words
from countermark.tlog import merkle
from countermark.values import cached, dataclass, replace

__all__ = [
    "RESERVED",
    "SCHEMAS",
    "Entry",
    "Imported",
    "check_statement",
    "encode_canonical",
    "make_entry",
    "make_imported",
    "normalise_filename",
    "normalise_project",
    "normalise_version",
    "parse_canonical",
]

_LEAF = '{"envelope":%s,"registry":%s,"time":%d,"type":"%s","v":1}'  # of canonical parts: canonical


def _is_type(kind: str) -> bool:
    """One to four words of small letters with a dash between them."""
    words = kind.split("-")
    return is_words(kind) and len(words) <= 4 and max(map(len, words)) <= 24


@dataclass(frozen=True)
class Entry:
    """One leaf, well-formed. `statement` is parsed but unverified: rules.apply checks who signed it."""

    v: int
    type: str
    time: int
    envelope: Envelope | None
    registry: Mapping[str, Any]
    raw: bytes
    statement: Statement | None
    imported: Imported | None = None
    verified: bool = False  # each signature verifies by the key it names: `reassemble` alone says so

    @classmethod
    def parse(cls, raw: bytes) -> Entry:
        """Read a leaf; MalformedError unless it is in the one form its type allows."""
        value = parse_canonical(raw, max_bytes=ENTRY_MAX_BYTES)
        if type(value) is not dict or value.keys() != {"envelope", "registry", "time", "type", "v"}:
            raise MalformedError("leaf must have exactly envelope, registry, time, type and v")
        if type(value["v"]) is not int or value["v"] != 1:
            raise MalformedError(f"leaf has format version {value['v']!r}; this program knows version 1")
        kind, time, registry = value["type"], value["time"], value["registry"]
        if type(kind) is not str or not (kind in SCHEMAS or _is_type(kind)):
            raise MalformedError(f"leaf's type {str(kind)[:80]!r} is not a lower-case word")
        if type(time) is not int or time > ENTRY_TIME_MAX or type(registry) is not dict:
            raise MalformedError("leaf's time must be UTC seconds and its registry part an object")
        envelope = None if value["envelope"] is None else Envelope.parse(value["envelope"])
        schema = SCHEMAS.get(kind)
        if schema is None:  # reserved or unknown: nothing is claimed about its inside
            return cls(1, kind, time, envelope, registry, raw, None)
        if envelope is None:
            if kind != "publish" or "import" not in registry:
                raise MalformedError(f"{kind} entry has no envelope")
            return cls(1, kind, time, None, registry, raw, None, Imported.parse(registry))
        statement = Statement.parse(envelope.payload)
        if statement.type != kind:
            raise MalformedError(f"leaf of type {kind!r} carries a statement of type {statement.type!r}")
        check_statement(statement)
        check_members(registry, schema.registry, f"{kind} entry's registry part")
        return cls(1, kind, time, envelope, registry, raw, statement)

    @classmethod
    def opaque(cls, raw: bytes) -> Entry:
        """Any bytes, in a log whose state says that it holds nothing else."""
        if len(raw) > ENTRY_MAX_BYTES:
            raise MalformedError(f"leaf has {len(raw)} bytes, more than the limit of {ENTRY_MAX_BYTES}")
        return cls(0, "opaque", 0, None, {}, raw, None)

    @classmethod
    def reassemble(cls, *, type: str, envelope: str, registry: str, time: int) -> Entry:
        """A leaf out of the canonical parts of one that `make_entry` took, and whose signatures were verified then.

        For the sequencer and the proposals of its own doors, which have just done both: only `time` is new. A
        part that did not come out of `make_entry` ends in a leaf that every reader calls malformed.
        """
        opened = Envelope.parse(json.loads(envelope))
        parts = (envelope, registry, time, type)
        raw = (_LEAF % parts).encode()
        return cls(
            1, type, time, opened, json.loads(registry), raw, Statement.parse(opened.payload), verified=True
        )

    def at(self, time: int) -> Entry:
        """The same entry stamped with another time: what the sequencer does, without checking form again."""
        if not 0 <= time <= ENTRY_TIME_MAX:
            raise MalformedError(f"time {time} is outside 0 to {ENTRY_TIME_MAX}")
        return replace(self, time=time, raw=_leaf(self.type, self.envelope, self.registry, time))

    @cached
    def leaf_hash(self) -> bytes:
        """The leaf's hash in the tree; its hex is the name by which later entries call this one (`prev`)."""
        return merkle.leaf_hash(self.raw)

    @cached
    def file_name(self) -> FileName:
        """The subject's file name, taken apart (types about a file only; `check_statement` has parsed it)."""
        if self.imported is not None:
            return self.imported.line.name
        assert self.statement is not None
        return parse_filename(self.statement.subject_name)


def make_entry(
    *,
    type: str,
    envelope: Envelope,
    registry: Mapping[str, Any],
    time: int,
    statement: Statement | None = None,
) -> Entry:
    """Put a signed statement and what the registry adds into a leaf, and check its form like anybody's.

    `statement`: what `Statement.parse` read in the envelope, and `check_statement` took. Then only what is new is
    checked: taking apart again what was just put together costs more than verifying a signature.
    """
    raw = _leaf(type, envelope, registry, time)
    if statement is None:
        return Entry.parse(raw)
    if statement.type != type:
        raise MalformedError(f"leaf of type {type!r} carries a statement of type {statement.type!r}")
    if not 0 <= time <= ENTRY_TIME_MAX:
        raise MalformedError(f"time {time} is outside 0 to {ENTRY_TIME_MAX}")
    check_members(registry, SCHEMAS[type].registry, f"{type} entry's registry part")
    return Entry(1, type, time, envelope, registry, raw, statement)


def make_imported(imported: Imported, *, time: int) -> Entry:
    """The leaf of a manifest's line. Not parsed again: a Line is well-formed, and a test holds both ways equal."""
    return Entry(1, "publish", time, None, imported.registry(), imported.leaf(time), None, imported)


def _leaf(type: str, envelope: Envelope | None, registry: Mapping[str, Any], time: int) -> bytes:
    if isinstance(time, bool) or not isinstance(time, int) or not 0 <= time <= ENTRY_TIME_MAX:
        raise MalformedError(f"time {time} is outside 0 to {ENTRY_TIME_MAX}")
    if not _is_type(type):
        raise MalformedError(f"leaf's type {type[:80]!r} is not a lower-case word")
    signed = "null" if envelope is None else envelope.text
    raw = (_LEAF % (signed, encode_canonical(dict(registry)).decode(), time, type)).encode()
    if len(raw) > ENTRY_MAX_BYTES:
        raise MalformedError(f"leaf has {len(raw)} bytes, more than the limit of {ENTRY_MAX_BYTES}")
    return raw
