"""jsontext: one spelling, the standard library's, whichever of two encoders wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import example, given
from hypothesis import strategies as st

from countermark_server.jsontext import decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(st.characters(max_codepoint=127)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
@example({"a": "\x7f"})
@example({"a": 2**64, "b": [-(2**63), 1.5]})
@example({"b": "\ud800", "a": 1})
def test_the_quick_spelling_is_the_library_s(value) -> None:
    """What either encoder wrote is equal: a replay compares rows letter for letter."""
    stock = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
    assert encode(value) == stock
    if all(abs(number) < 2**53 for number in numbers(value)):
        assert decode(stock) == value


def numbers(value) -> Iterator[float]:
    """All of them, however deep."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield value
