"""JSON as text: every value in one spelling, at orjson's speed.

    encode({"b": 1, "a": "é"})     ->  {"a":"\\u00e9","b":1}         keys sorted, no spaces, printable ASCII alone
    decode('{"b": 1, "a": "é"}')   ->  {"b": 1, "a": "é"}           whoever spelled it, and however

Rows of the registry's and of the timestamper's database hold it, and documents of the index. Equal values are equal
texts, so rows are compared as they are. The spelling is that of the standard library's encoder, which escapes what is
not printable ASCII. Where nothing is to escape, orjson writes the same letters in a tenth of the time; a test holds
the two to it. What orjson cannot write or read is left to the standard library.

Not promised: numbers of more than 64 bits, which are written whole and read rounded. Those of leaves have at most 53.
What is signed is spelled elsewhere (`countermark.canonical`, tufbytes.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

_ENCODE = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode


def encode(value: Mapping[str, Any]) -> str:
    """The one text of a value."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a number beyond 64 bits, or half a surrogate pair
        return _ENCODE(value)
    return raw.decode("ascii") if raw.isascii() and b"\x7f" not in raw else _ENCODE(value)


def decode(text: str) -> dict[str, Any]:
    """The value of a text, in whichever spelling."""
    try:
        value: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:  # half a surrogate pair, which the standard library takes
        value = json.loads(text)
    return value
