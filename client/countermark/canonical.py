"""Canonical JSON: one value, one spelling.

Leaves, statements and trust files are signed or hashed, so two spellings of one value must not exist:

    {"b":[1,true,null],"a":"é"}      not canonical: keys out of order
    {"a":"é","b":[1,true,null]}      canonical: 28 bytes of UTF-8, no spaces, keys sorted

The subset is small on purpose: objects and arrays to a depth of 8, ASCII keys in ascending order and never
twice, strings, booleans, null, and integers from 0 to 2**53-1. No floats, no negative numbers, no spaces, no
needless escapes. On this subset RFC 8785 and orjson with sorted keys give the same bytes (a test holds them
to it).

Parsing is parse, re-encode, compare: whatever Python's reader is lenient about (duplicate keys, spaces,
escapes, order) shows as a difference, so that there is no list of tricks to keep up to date. What the
comparison can't see (floats, big numbers, depth, keys beyond ASCII) is refused on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from countermark.errors import MalformedError
from countermark.limits import JSON_MAX_DEPTH, JSON_MAX_INTEGER


def encode_canonical(value: Any) -> bytes:
    """The one spelling of `value`; MalformedError when it has none (a float, a deep nest, a lone surrogate)."""
    _check(value, 0)
    return _encode(value)


def parse_canonical(raw: bytes, *, max_bytes: int) -> Any:
    """The value spelled by `raw`, which must be its canonical spelling of at most `max_bytes`."""
    value, _ = _decode(raw, max_bytes, _DECODER.raw_decode)  # what stands before or behind it shows below
    # Of what was decoded only depth and the keys' letters are left to check. Arrays and objects can't be nested
    # deeper than there are opening brackets, and an ASCII document whose re-encoding is identical has ASCII keys:
    # most leaves are spared the walk, or all of it but their arrays and objects.
    if not raw.isascii():
        _check(value, 0)
    elif raw.count(b"{") + raw.count(b"[") > JSON_MAX_DEPTH:
        _check_depth(value, 1)
    if _encode(value) != raw:
        raise MalformedError("JSON document is not in canonical form (keys in ascending order, no spaces)")
    return value


def parse_json(raw: bytes, *, max_bytes: int) -> Any:
    """The value of any JSON spelling within the bounds above: for envelopes that tools have re-serialised.

    Duplicate keys are taken as the last one says here; never sign or hash what this returns.
    """
    value = _decode(raw, max_bytes, _DECODER.decode)
    _check(value, 0)
    return value


def _decode(raw: bytes, max_bytes: int, decode: Callable[[str], Any]) -> Any:
    if len(raw) > max_bytes:
        raise MalformedError(f"JSON document has {len(raw)} bytes, more than the limit of {max_bytes}")
    try:
        return decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MalformedError(f"JSON document is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise MalformedError(f"JSON document is nested deeper than {JSON_MAX_DEPTH}") from None
    except ValueError as error:
        raise MalformedError(f"not a JSON document: {error}") from None


def _encode(value: Any) -> bytes:
    try:
        return "".join(_ENCODE(value, 0)).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("JSON document holds half of a surrogate pair") from None
    except RecursionError:
        raise MalformedError(f"JSON document is nested deeper than {JSON_MAX_DEPTH}") from None


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not 0 <= value <= JSON_MAX_INTEGER:
            raise MalformedError(f"integer {value} is outside 0 to {JSON_MAX_INTEGER}")
        return
    if depth == JSON_MAX_DEPTH:
        raise MalformedError(f"JSON document is nested deeper than {JSON_MAX_DEPTH}")
    if kind is dict:
        for key, member in value.items():
            if type(key) is not str or not key.isascii():
                raise MalformedError(f"member name {key!r} is not an ASCII string")
            if type(member) is not str:  # most are, and of text there is nothing to check
                _check(member, depth + 1)
    elif kind is list:
        for item in value:
            if type(item) is not str:
                _check(item, depth + 1)
    else:
        raise MalformedError(f"a {kind.__name__} has no place in canonical JSON")


def _check_depth(value: Any, depth: int) -> None:
    """The same of what was decoded, whose members are what JSON has: no deeper than allowed."""
    if depth > JSON_MAX_DEPTH:
        raise MalformedError(f"JSON document is nested deeper than {JSON_MAX_DEPTH}")
    for member in value.values() if type(value) is dict else value:
        if type(member) in (dict, list):
            _check_depth(member, depth + 1)


def _refuse(text: str) -> NoReturn:
    raise MalformedError(f"number {text[:32]} is not an integer from 0 to {JSON_MAX_INTEGER}")


def _integer(text: str) -> int:
    if len(text) > 16 or text[0] == "-" or (number := int(text)) > JSON_MAX_INTEGER:
        _refuse(text)
    return number


_DECODER = json.JSONDecoder(parse_float=_refuse, parse_int=_integer, parse_constant=_refuse)
_ENCODER = json.JSONEncoder(  # what goes in a circle ends as a RecursionError
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)


def _encoder() -> Callable[[Any, int], Iterable[str]]:
    """What `_ENCODER` makes anew for each document, made once, which short ones notice."""
    inside: Any = json.encoder  # which tells type checkers nothing of what it is made of
    escape = inside.encode_basestring
    try:
        made = inside.c_make_encoder(None, _ENCODER.default, escape, None, ":", ",", True, False, False)
    except TypeError:  # a Python that has none, or another
        return lambda value, _: [_ENCODER.encode(value)]
    encode: Callable[[Any, int], Iterable[str]] = made
    return encode


_ENCODE = _encoder()
