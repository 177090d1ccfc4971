"""Canonical JSON: one spelling, and two independent encoders that agree on it."""

from __future__ import annotations

import json
import string
from typing import Any
from unittest import mock

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from countermark import canonical
from countermark.canonical import encode_canonical, parse_canonical, parse_json
from countermark.errors import MalformedError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ascii_text = st.text(st.characters(max_codepoint=126, min_codepoint=0), max_size=12)
scalars = st.none() | st.booleans() | st.integers(0, 2**53 - 1) | text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ascii_text, inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(map(depth, members), default=0)


def parse(raw: bytes) -> Any:
    return parse_canonical(raw, max_bytes=65_535)


@given(values.filter(lambda value: depth(value) <= 8))
def test_round_trip_and_two_other_encoders(value: Any) -> None:
    """What we encode parses back, and orjson (sorted keys) and RFC 8785 write the same bytes."""
    raw = encode_canonical(value)
    assert parse(raw) == value
    assert raw == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    assert raw == rfc8785.dumps(value)


@given(values.filter(lambda value: depth(value) <= 8))
def test_a_python_without_the_quick_encoder_writes_the_same(value: Any) -> None:
    """Where it is missing, or is made in another way, documents are encoded as the library does."""
    for inside in (None, lambda: None):
        with mock.patch.object(json.encoder, "c_make_encoder", inside):
            slow = canonical._encoder()
        assert "".join(slow(value, 0)).encode() == encode_canonical(value)


@given(st.binary(max_size=64) | values.map(lambda value: json.dumps(value).encode()))
def test_bytes_are_canonical_or_malformed(raw: bytes) -> None:
    """No other error ever leaves the parser, and what it takes encodes to the same bytes."""
    try:
        value = parse(raw)
    except MalformedError:
        return
    assert encode_canonical(value) == raw


@given(st.text(string.printable, max_size=40))
def test_json_like_text_never_leaks(document: str) -> None:
    """Text near JSON is parsed or malformed by both parsers."""
    for parser in (parse, lambda raw: parse_json(raw, max_bytes=100)):
        try:
            parser(document.encode())
        except MalformedError:
            continue


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" {}",
        b"{}\n",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a": 1}',
        b"1.0",
        b"1e3",
        b"-1",
        b"-0",
        b"01",
        b"+1",
        b"9007199254740992",
        b"1" * 5000,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u000A"',
        b'"\x0a"',
        b'"\\ud800"',
        b'"\xff"',
        b'"\xc3"',
        b"\xef\xbb\xbf{}",
        b"{'a':1}",
        b'{"a":1,}',
        b"[1,]",
        b"{",
        b'{"\xc3\xa9":1}',
        b'{"\\u00e9":1}',
        b"[" * 9 + b"]" * 9,
        b"[" * 30_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b"truee",
        b"{}{}",
        "{}".encode("utf-16"),
    ],
)
def test_other_spellings_are_malformed(raw: bytes) -> None:
    """Spaces, order, duplicates, floats, escapes, signs, depth, encodings: one spelling or none."""
    with pytest.raises(MalformedError):
        parse(raw)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        -1,
        2**53,
        float("nan"),
        {1: 2},
        {"é": 1},
        "\ud800",
        b"bytes",
        (1,),
        {"a": {2}},
        [[[[[[[[[]]]]]]]]],
    ],
)
def test_what_has_no_spelling_is_malformed(value: Any) -> None:
    """The encoder refuses what the parser would."""
    with pytest.raises(MalformedError):
        encode_canonical(value)


def test_limits_are_inclusive() -> None:
    """Depth 8, 2**53 - 1 and exactly max_bytes are fine; one more is not."""
    for raw in (b"[" * 8 + b"]" * 8, b"9007199254740991", b'"' + b"a" * 65_533 + b'"'):
        assert encode_canonical(parse(raw)) == raw
    with pytest.raises(MalformedError, match="65536 bytes"):
        parse(b'"' + b"a" * 65_534 + b'"')


def test_a_quoted_bracket_is_no_depth() -> None:
    """Brackets inside strings count for nothing."""
    assert parse(b'["[[[[[[[[[[{{{{{{{{"]') == ["[[[[[[[[[[{{{{{{{{"]


@pytest.mark.parametrize("raw", [b"[" * 900 + b"]" * 900, b'{"\xc3\xa9":1}', b"[1.5]", b"", b"[" * 60_000])
def test_the_lenient_parser_keeps_the_bounds(raw: bytes) -> None:
    """Any spelling, but the same depth, numbers and member names."""
    assert parse_json(b' { "b" : 1, "a" : "\\u0041" } ', max_bytes=100) == {"a": "A", "b": 1}
    with pytest.raises(MalformedError):
        parse_json(raw, max_bytes=65_535)
