r"""Manifests: the ordered lines of an import, and the chain that binds each published line to its `import` entry.

    acme 1.0 acme-1.0-py3-none-any.whl 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 1421

A line is project, version, file name, SHA-256 and length in bytes, one space between them and a newline behind
the last. Project and version are normalised and are those of the file name, which keeps its publisher's
spelling. A manifest is one to 65,536 such lines, at most 8 MiB.

The `import` entry names the SHA-256 of the manifest's blob file, for whoever wants to read it, and the first
link of a chain over its lines, so that nobody needs to:

    link(last)  = SHA-256(32 zero bytes || last line)
    link(n)     = SHA-256(link(n + 1) || line n)

The entry that publishes line n shows link(n + 1) as `rest`. Whoever knows which link comes next hashes `rest`
and the line, compares, and takes `rest` for the link to come: a line that was changed, swapped or left out is
refused where it stands (rules_import.py), by the sequencer, the timestamper and every auditor alike.

A manifest says what somebody's database said. Nothing here was signed by a publisher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from countermark.digest import sha256
from countermark.errors import MalformedError
from countermark.limits import JSON_MAX_INTEGER, MANIFEST_MAX_BYTES, MANIFEST_MAX_LINES, NAME_MAX_CHARS
from countermark.names import FileName, parse_filename
from countermark.statement import is_sha256
from countermark.values import cached, dataclass, pattern

END: Final = "0" * 64  # the link behind the last line
ZERO_NONCE: Final = bytes(32)  # before the bytes of a blob that is public from the start
LINE_MAX_BYTES: Final = 3 * NAME_MAX_CHARS + 64 + 16 + 5
_LENGTH = pattern(r"[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One file of a manifest, well-formed: its project and version are those of its name."""

    project: str
    version: str
    filename: str
    sha256: str
    length: int

    @cached
    def row(self) -> bytes:
        """The one spelling of this line, with its newline."""
        return f"{self.project} {self.version} {self.filename} {self.sha256} {self.length}\n".encode()

    @cached
    def name(self) -> FileName:
        """The file name, taken apart."""
        return parse_filename(self.filename)

    def check(self) -> Line:
        """MalformedError unless every member has the form its place asks for. Returns the line."""
        found = self.name
        if (found.project, found.version) != (self.project, self.version):
            raise MalformedError(
                f"file {self.filename!r} is {found.project} {found.version}, the line says "
                f"{self.project[:80]} {self.version[:80]}"
            )
        if not is_sha256(self.sha256):
            raise MalformedError(f"{self.sha256[:80]!r} is not a SHA-256 in small hex digits")
        if type(self.length) is not int or not 0 < self.length <= JSON_MAX_INTEGER:
            raise MalformedError(f"length {str(self.length)[:80]} is not from 1 to {JSON_MAX_INTEGER}")
        return self


def file_key(line: Line) -> tuple[str, str, str, str]:
    """The key of the rules' state that this line's file has."""
    return ("file", "", line.project, line.name.normalised)


def parse_line(raw: bytes) -> Line:
    """A line with its newline; MalformedError unless it is in the one form."""
    if len(raw) > LINE_MAX_BYTES:
        raise MalformedError(f"manifest line has more than {LINE_MAX_BYTES} bytes")
    try:
        parts = raw.decode("ascii").removesuffix("\n").split(" ")
    except UnicodeDecodeError:
        raise MalformedError("manifest line is not ASCII") from None
    if len(parts) != 5 or not _LENGTH.fullmatch(parts[4]):
        raise MalformedError(
            "manifest line is not project, version, file name, SHA-256 and length in bytes,"
            " one space between them"
        )
    line = Line(parts[0], parts[1], parts[2], parts[3], int(parts[4])).check()
    if line.row != raw:
        raise MalformedError("manifest line is not in its one form")
    return line


def parse_manifest(raw: bytes) -> list[Line]:
    """Every line; MalformedError names the first that is not one."""
    if len(raw) > MANIFEST_MAX_BYTES:
        raise MalformedError(f"manifest has {len(raw)} bytes, more than the limit of {MANIFEST_MAX_BYTES}")
    rows = raw.splitlines(keepends=True)
    if not 1 <= len(rows) <= MANIFEST_MAX_LINES:
        raise MalformedError(f"manifest has {len(rows)} lines, must have 1 to {MANIFEST_MAX_LINES}")
    lines = []
    for number, row in enumerate(rows, start=1):
        try:
            lines.append(parse_line(row))
        except MalformedError as error:
            raise MalformedError(f"line {number}: {error}") from None
    return lines


def format_manifest(lines: Iterable[Line]) -> bytes:
    """The bytes of a manifest."""
    return b"".join(line.row for line in lines)


def link(rest: str, row: bytes) -> str:
    """The link of a line: `rest` is that of the lines behind it, `row` the line with its newline."""
    return sha256(bytes.fromhex(rest) + row).hexdigest()


def links(rows: Sequence[bytes]) -> list[str]:
    """The link of every line, in order, and END behind them: an import names the first."""
    found = [END]
    for row in reversed(rows):
        found.append(link(found[-1], row))
    return found[::-1]


def parts(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """As few manifests as hold these lines, in order."""
    part, size = list[Line](), 0
    for line in lines:
        length = len(line.row)
        if part and (len(part) == MANIFEST_MAX_LINES or size + length > MANIFEST_MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def predicate(lines: Sequence[Line], *, origin: str, prev: str | None, source: str) -> dict[str, Any]:
    """What an `import` statement says of these lines. `prev` is the leaf hash of the import before it."""
    rows = [line.row for line in lines]
    return {
        "chain_sha256": links(rows)[0],
        "count": len(rows),
        "manifest_sha256": sha256(ZERO_NONCE + b"".join(rows)).hexdigest(),
        "namespace": "",
        "origin": origin,
        "prev": prev,
        "project": "",
        "source": source,
    }
