"""The mutants that attacks are made of: no place of a file is left out for what its bytes mean."""

from __future__ import annotations

from tests.mutations import mutants, sampled

HASH = "0123456789abcdef" * 4
SIGNATURE = "QUJD" * 600 + "QQ=="


def places(raw: bytes) -> set[int]:
    """Where single bytes were changed."""
    return {int(mutant.what.split()[0]) for mutant in mutants(raw) if mutant.sort == "byte"}


def test_every_byte_is_changed_but_inside_hashes_and_signatures() -> None:
    """There the ends, where base64 has spare bits, and every eighth letter stand for all."""
    raw = f'{{"version":7,"sha256":"{HASH}","sig":"{SIGNATURE}","name":"demo"}}'.encode()
    changed, inside = places(raw), set[int]()
    for run in (HASH, SIGNATURE):
        start, end = raw.index(run.encode()), raw.index(run.encode()) + len(run)
        assert {*range(start, start + 4), *range(end - 4, end)} <= changed
        assert all(changed & set(range(at, at + 8)) for at in range(start, end - 8))
        inside |= set(range(start, end))
    assert set(range(len(raw))) - inside <= changed


def test_every_byte_of_a_binary_file_is_changed() -> None:
    """A tile has no letters whose neighbours could stand for them."""
    raw = bytes(range(256)) * 3
    assert places(raw) == set(range(len(raw)))


def test_a_sample_has_some_of_every_sort() -> None:
    """The same ones each time."""
    raw = b'{"a": [1, {"b": "c"}], "d": null}'
    chosen = sampled(raw, [("another", b"{}")], count=40, seed="s")
    assert {mutant.sort for mutant in chosen} == {
        mutant.sort for mutant in mutants(raw, [("another", b"{}")])
    }
    assert chosen == sampled(raw, [("another", b"{}")], count=40, seed="s")
