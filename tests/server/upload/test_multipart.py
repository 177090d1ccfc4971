"""Multipart bodies: read as the web framework reads them, wherever a chunk ends; what is ambiguous is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import MultiPartParser

from countermark_server.upload.multipart import HEADERS_MAX_BYTES, read_parts

Field = tuple[str, str | None, bytes]  # name, file name, content
BOUNDARY = "b0undary"
TEXT = st.text(st.sampled_from("az_-. 5é;="), min_size=1, max_size=12)
# Bytes that begin like a line end or a delimiter, in all their parts.
CONTENT = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"--b0undar", b"\r\n--b0und", b"x", b"\0", b"\xff"])
).map(b"".join)
PARTS = st.lists(st.tuples(TEXT, st.none() | TEXT, CONTENT), max_size=6)


class Dribble(io.BytesIO):
    """A connection that brings few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._size)


def encode(parts: Sequence[Field], *, before: bytes = b"", after: bytes = b"") -> bytes:
    lines = [before]
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines += [head.encode(), content, b"\r\n"]
    return b"".join([*lines, f"--{BOUNDARY}--".encode(), after])


def parse(body: bytes, *, size: int = 65536, boundary: str = BOUNDARY) -> list[Field]:
    return [
        (part.name, part.filename, b"".join(content))
        for part, content in read_parts(Dribble(body, size), boundary)
    ]


def reference(body: bytes) -> tuple[dict[str, list[str]], dict[str, list[tuple[str | None, bytes]]]]:
    fields, files = MultiPartParser().parse(io.BytesIO(body), BOUNDARY.encode(), len(body))
    return dict(fields.lists()), {
        name: [(each.filename, each.read()) for each in listed] for name, listed in files.lists()
    }


@given(PARTS, st.integers(1, 40), st.sampled_from([b"", b"\r\n", b" \r\nan epilogue"]))
def test_parts_come_out_as_they_went_in(parts: list[Field], size: int, after: bytes) -> None:
    """Names, file names and bytes, however the body is cut into chunks, and as the framework reads them."""
    body = encode(parts, before=b"" if size % 2 else b"a preamble\r\n", after=after)
    assert parse(body, size=size) == parts
    fields, files = reference(body)
    for name, filename, content in parts:
        if filename is None:
            assert content.decode("utf-8", "replace") in fields[name]
        else:
            assert (filename, content) in files[name]
    assert len(parts) == sum(map(len, fields.values())) + sum(map(len, files.values()))


def test_a_form_of_nothing() -> None:
    """The last delimiter may be the first."""
    assert parse(encode([])) == []


def test_delimiters_may_be_padded_and_headers_may_be_more() -> None:
    """Blanks behind a delimiter, other headers, folded lines, any case."""
    body = (
        b'--b0undary \t\r\nContent-Type: text/plain\r\ncontent-disposition: form-data;\r\n name="a"\r\n\r\n1\r\n'
        b"--b0undary\r\nContent-Disposition: form-data; name=\"f\"; filename*=UTF-8''%C3%A9.whl\r\n\r\n2\r\n"
        b"--b0undary--"
    )
    assert parse(body) == [("a", None, b"1"), ("f", "é.whl", b"2")]


def test_a_part_may_end_with_its_headers() -> None:
    """Without content, the empty line behind the headers may be the beginning of the delimiter (RFC 2046)."""
    body = encode([("a", None, b""), ("f", "f.whl", b"")]).replace(b"\r\n\r\n\r\n", b"\r\n\r\n")
    for size in (1, 3, 65536):
        assert parse(body, size=size) == [("a", None, b""), ("f", "f.whl", b"")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "ends before"),
        (encode([("a", None, b"1")])[:-1], "ends before"),
        (encode([("a", None, b"1")])[:-2], "ends before"),
        (encode([("a", None, b"1")])[:-14], "ends before"),
        (encode([("a", None, b"1\r\n--b0undary1\r\nx")]), "begins like a delimiter"),
        (b"--b0undary\r\n\r\n1\r\n--b0undary--", "no Content-Disposition"),
        (b"--b0undary\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b0undary--", "no name"),
        (b"--b0undary\r\nContent-Disposition: form-data; name=\xff\r\n\r\n1\r\n--b0undary--", "decode"),
        (encode([("a", "b\n.whl", b"1")]), "half a line end"),
        (encode([("a" * HEADERS_MAX_BYTES, None, b"1")]), "headers of a part have more than"),
        (b"--b0undary\r\n" + b"x" * 200_000, "headers of a part have more than"),
        (encode([("a", None, b"1")]).replace(b"\r\n", b"\n"), "begins like a delimiter|ends before|headers"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, why: str) -> None:
    """Cut off, without the headers that a part needs, with lines of another kind, with two readings."""
    for size in (1, 7, 65536):
        with pytest.raises(ValueError, match=why):
            parse(body, size=size)


@pytest.mark.parametrize("boundary", ["", "x" * 257, "☃"])
def test_a_boundary_that_is_none_is_refused(boundary: str) -> None:
    """Empty, endless, or not of bytes."""
    with pytest.raises(ValueError, match=r"boundary|encode"):
        parse(encode([]), boundary=boundary)


def test_a_large_file_is_never_in_memory_at_once() -> None:
    """Content is handed out as it comes: no piece is larger than what was read."""
    size = 1 << 20
    parts = read_parts(Dribble(encode([("f", "f.whl", b"\r" * size)]), 4096), BOUNDARY)
    _, content = next(parts)
    pieces = [len(piece) for piece in content]
    assert sum(pieces) == size and max(pieces) < 4096 + 200
    assert next(parts, None) is None
