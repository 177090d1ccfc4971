"""The transcript: one line per step, each naming the one before it by hash.

    {"input_sha256":"9f..","plan_sha256":"41..","prev":null,"program":"countermark-ceremony 0.1.0",
     "seq":0,"step":"plan accepted","time":"2026-11-22T12:00:00Z"}

(shown on two lines.) There are two parts, because a root cannot contain the hash of its own signing. Part one
ends when the payloads are frozen; SHA-256 of its bytes goes into the root as `x-countermark-ceremony`. Part two
continues the chain with the signatures. Passphrases and private keys never appear in either.

The chain shows that lines were not changed or dropped afterwards, no more: what a line says is the word of the
machine it was written on. That is why holders compare digest words on computers of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import EvidenceError, MalformedError
from countermark_ceremony import __version__

PROGRAM = f"countermark-ceremony {__version__}"
LINE_MAX_BYTES = 64 * 1024  # a line names digests; none needs more


@dataclass(frozen=True)
class Transcript:
    """Lines written so far. `start` and `first` say where an earlier part ended."""

    lines: tuple[bytes, ...] = ()
    start: str | None = None  # hash of the last line of the part before
    first: int = 0

    def add(self, step: str, *, now: datetime, **facts: object) -> Transcript:
        """The transcript with one more line."""
        line = encode_canonical(
            {
                **facts,
                "prev": self.tip,
                "program": PROGRAM,
                "seq": self.first + len(self.lines),
                "step": step,
                "time": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
        return Transcript((*self.lines, line + b"\n"), self.start, self.first)

    @property
    def tip(self) -> str | None:
        """Hex SHA-256 of the newest line."""
        return hashlib.sha256(self.lines[-1]).hexdigest() if self.lines else self.start

    def continued(self) -> Transcript:
        """An empty part whose first line will name our last."""
        return Transcript((), self.tip, self.first + len(self.lines))

    def format(self) -> bytes:
        """The part's bytes."""
        return b"".join(self.lines)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the part's bytes."""
        return hashlib.sha256(self.format()).hexdigest()

    @classmethod
    def parse(cls, raw: bytes, *, after: Transcript | None = None) -> Transcript:
        """The part in these bytes, its chain checked link by link."""
        found = after.continued() if after else cls()
        for number, line in enumerate(raw.splitlines(keepends=True), start=1):
            facts = parse_canonical(line.removesuffix(b"\n"), max_bytes=LINE_MAX_BYTES)
            if not isinstance(facts, Mapping) or not line.endswith(b"\n"):
                raise MalformedError(f"transcript line {number} is not a JSON object on its own line")
            expected = (found.tip, found.first + len(found.lines))
            if (facts.get("prev"), facts.get("seq")) != expected:
                raise EvidenceError(
                    f"transcript line {number} says it follows {facts.get('prev')}, "
                    f"but the line before it is {expected[0]}: a line was changed or is missing"
                )
            found = cls((*found.lines, line), found.start, found.first)
        return found
