r"""Multipart bodies, read as a stream: the parts of a form, one after the other (RFC 7578, RFC 2046 section 5.1).

    --4f6a0c\r\n
    Content-Disposition: form-data; name="name"\r\n
    \r\n
    demo\r\n
    --4f6a0c\r\n
    Content-Disposition: form-data; name="content"; filename="demo-1.0.tar.gz"\r\n
    Content-Type: application/octet-stream\r\n
    \r\n
    <the bytes of the file>\r\n
    --4f6a0c--\r\n

Every line ends in CR LF. What looks like a delimiter is one: a line that only begins like it makes the form invalid,
so that no two readers can disagree about where a part ends. Fields are UTF-8 (a wrong byte becomes U+FFFD). Of a file
no more than a chunk is in memory at a time.

(The parser of our web framework builds two regular expressions for each request, which costs more than all the rest
of reading a form. Tests compare the two.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from werkzeug.http import parse_options_header

CHUNK = 64 * 1024
HEADERS_MAX_BYTES = 16 * 1024  # of one part; honest ones have some hundred bytes
BOUNDARY_MAX_BYTES = 256  # RFC 2046 allows 70


class Stream(Protocol):
    """Where the body comes from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Part:
    """What a part's headers say: the field's name, and the file name where it is a file."""

    name: str
    filename: str | None


def read_parts(stream: Stream, boundary: str) -> Iterator[tuple[Part, Iterator[bytes]]]:
    """Each part with its content, which must be read before the next part is asked for. ValueError: no such body."""
    body = _Body(stream, _delimiter(boundary))
    for _ in body.content():  # the preamble is nobody's
        pass
    while body.has_part():
        yield _part(body.until(b"\r\n\r\n", most=HEADERS_MAX_BYTES)), body.content()
    while stream.read(CHUNK):  # the epilogue, too
        pass


def _delimiter(boundary: str) -> bytes:
    raw = boundary.encode("latin-1")
    if not 0 < len(raw) <= BOUNDARY_MAX_BYTES:
        raise ValueError(f"its boundary has {len(raw)} bytes")
    return b"\r\n--" + raw


class _Body:
    """A body that is read up to marks; `at` is how far it was handed out."""

    def __init__(self, stream: Stream, delimiter: bytes) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._buffer = b"\r\n"  # so that the first delimiter, too, stands behind a line
        self._at = 0

    def content(self) -> Iterator[bytes]:
        """All behind this line's end, up to the next delimiter, in chunks."""
        reach = len(self._delimiter) - 1  # so many bytes may be the beginning of a delimiter
        end = 2  # the line's own CR LF, which may be the delimiter's: then there is no content
        while (found := self._buffer.find(self._delimiter, self._at)) < 0:
            if (sure := len(self._buffer) - reach) > self._at + end:
                yield self._buffer[self._at + end : sure]
                self._at, end = sure, 0
            self._more()
        if found > self._at + end:
            yield self._buffer[self._at + end : found]
        self._at = found + len(self._delimiter)

    def has_part(self) -> bool:
        """Whether the delimiter that was read begins a part; otherwise it is the last."""
        while len(self._buffer) < self._at + 2:
            self._more()
        if self._buffer.startswith(b"--", self._at):
            return False
        if self.until(b"\r\n", most=HEADERS_MAX_BYTES).strip(b" \t"):
            raise ValueError("a line begins like a delimiter and goes on")
        return True

    def until(self, mark: bytes, *, most: int) -> bytes:
        """All up to `mark`, which must come within `most` bytes; it is passed but for its last line end."""
        while (found := self._buffer.find(mark, self._at)) < 0:
            if len(self._buffer) - self._at > most:
                break
            self._more()
        if not 0 <= found - self._at <= most:
            raise ValueError(f"the headers of a part have more than {most} bytes")
        text = self._buffer[self._at : found]
        self._at = found + len(mark) - 2
        return text

    def _more(self) -> None:
        chunk = self._stream.read(CHUNK)
        if not chunk:
            raise ValueError("it ends before its last delimiter")
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0


def _part(headers: bytes) -> Part:
    for line in headers.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        if b"\r" in line or b"\n" in line:
            raise ValueError("the headers of a part hold half a line end")
        name, _, value = line.decode().partition(":")
        if name.strip().lower() == "content-disposition":
            _, options = parse_options_header(value.strip())
            if "name" not in options:
                raise ValueError("a part has no name")
            return Part(options["name"], options.get("filename"))
    raise ValueError("a part has no Content-Disposition")
