"""Whatever bytes arrive, each parser either returns what formats to them again or raises our errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.errors import CountermarkError
from countermark.tlog.checkpoint import Checkpoint, open_checkpoint, open_log_checkpoint
from countermark.tlog.cosignature import check_signature
from countermark.tlog.merkle import check_consistency, check_inclusion
from countermark.tlog.note import Note, VerifierKey, format_base64, parse_base64, parse_decimal
from countermark.tlog.policy import Policy
from countermark.tlog.proof import TlogProof
from countermark.tlog.tile import Tile, TileHashes, decode_bundle, decode_tile, encode_bundle
from tests.log_samples import LOG, LOG_PQ, POLICY, TIME, W1, W2, checkpoint, signed

NOTE = signed([LOG, W1]).format()
SAMPLES: dict[str, bytes] = {
    "note": NOTE,
    "checkpoint": checkpoint().text().encode(),
    "vkey": W1.vkey.format().encode(),
    "policy": POLICY.format().encode()[-400:] + b"quorum none\n",
    "proof": TlogProof(7, (bytes(32), b"\xff" * 32), NOTE, b"x").format(),
    "path": b"tile/0/x001/x234/067.p/12",
    "bundle": encode_bundle([b"one", b"", b"three"]),
}
WORDS = [
    b"\n",
    b"\n\n",
    b" ",
    b"+",
    b"0",
    b"1_0",
    b"=",
    b"\xe2\x80\x94 ",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\xff",
    b"\r",
    b"\0",
]


@st.composite
def mutated(draw: st.DrawFn, sample: bytes) -> bytes:
    """A real one with some places cut out, doubled, overwritten or stuffed."""
    raw = sample
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.sampled_from([0, 1, 2, 50])))
        middle = draw(st.one_of(st.binary(max_size=4), st.sampled_from([*WORDS, raw[start:end] * 2])))
        raw = raw[:start] + middle + raw[end:]
    return raw


def hostile(sample: str) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")),
                     mutated(SAMPLES[sample]))  # fmt: skip


def text(raw: bytes) -> str:
    """As some caller might have decoded it: lone surrogates included."""
    return raw.decode("utf-8", "surrogateescape")


PARSERS: dict[str, tuple[str, Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "Note": ("note", Note.parse, lambda note: note.format()),
    "Checkpoint": ("checkpoint", lambda raw: Checkpoint.parse(text(raw)), lambda c: c.text().encode()),
    "VerifierKey": ("vkey", lambda raw: VerifierKey.parse(text(raw)), lambda key: key.format().encode()),
    "TlogProof": ("proof", TlogProof.parse, lambda proof: proof.format()),
    "Tile": ("path", lambda raw: Tile.parse(text(raw)), lambda tile: tile.path().encode()),
    "decimal": ("checkpoint", lambda raw: parse_decimal(text(raw)), lambda number: b"%d" % number),
    "bundle": ("bundle", lambda raw: decode_bundle(raw, 3), encode_bundle),
    "tile": ("bundle", lambda raw: decode_tile(raw, 1), b"".join),
}


@pytest.mark.parametrize("name", PARSERS)
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_parser_gives_back_what_it_read_or_refuses(name: str, data: st.DataObject) -> None:
    """Parse, format, compare; and nothing but our own errors leaves."""
    sample, parse, form = PARSERS[name]
    raw = data.draw(hostile(sample))
    try:
        value = parse(raw)
    except CountermarkError as error:
        assert error.exit_code == 7
        assert "Traceback" not in str(error)
    else:
        assert form(value) == raw


@given(hostile("policy"))
@settings(max_examples=300, deadline=None)
def test_a_policy_parses_to_what_its_canonical_form_parses_to_or_is_refused(raw: bytes) -> None:
    """Comments and blanks may go, meaning may not."""
    try:
        policy = Policy.parse(text(raw))
    except CountermarkError as error:
        assert error.exit_code == 7
    else:
        assert Policy.parse(policy.format()) == policy
        assert policy.quorum_time({w.name: 1 for w in policy.witnesses}) is not None


@given(hostile("note"))
@settings(max_examples=300, deadline=None)
def test_opening_hostile_bytes_gives_the_known_checkpoint_or_our_errors(raw: bytes) -> None:
    """What opens is what was signed, whatever surrounds it."""
    lenient = Policy.parse(f"log {LOG.vkey.format()}\nwitness w1 {W1.vkey.format()}\nquorum w1\n")
    openings: list[Callable[[], Checkpoint]] = [
        lambda: open_checkpoint(raw, lenient, now=TIME),
        lambda: open_log_checkpoint(raw, [LOG.vkey]),
        lambda: open_log_checkpoint(raw, [LOG_PQ.vkey]),
    ]
    for opening in openings:
        try:
            opened = opening()
        except CountermarkError:
            continue
        assert opened.text() == checkpoint().text()


@given(
    st.sampled_from([LOG.vkey, LOG_PQ.vkey, W1.vkey, W2.vkey]), st.binary(max_size=100), st.text(max_size=60)
)
@settings(max_examples=300, deadline=None)
def test_no_random_signature_verifies(key: VerifierKey, sig: bytes, body: str) -> None:
    """Of any type, over any text."""
    for covered in (body, checkpoint().text()):
        with pytest.raises(CountermarkError):
            check_signature(key, covered.encode("utf-8", "replace").decode(), sig)


HASHES = st.lists(st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40)), max_size=70)
NUMBERS = st.one_of(st.integers(-3, 600), st.integers(-(2**70), 2**70))


@given(HASHES, NUMBERS, NUMBERS, st.binary(max_size=33), st.binary(max_size=33))
@settings(max_examples=500, deadline=None)
def test_no_random_proof_checks(proof: list[bytes], a: int, b: int, one: bytes, other: bytes) -> None:
    """Any list, any numbers, any roots: our error, at once, and only the trivial proofs pass."""
    try:
        check_inclusion(proof, index=a, size=b, leaf_hash=one, root_hash=other)
    except CountermarkError:
        pass
    else:
        assert (a, b, proof, one) == (0, 1, [], other)
    try:
        check_consistency(proof, old_size=a, old_root=one, new_size=b, new_root=other)
    except CountermarkError:
        pass
    else:
        assert not proof
        assert one == other or a == 0


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_base64_decodes_to_what_encodes_again_or_is_refused(raw: bytes) -> None:
    """The smallest parser, under every other one."""
    try:
        decoded = parse_base64(text(raw))
    except CountermarkError as error:
        assert error.exit_code == 7
    else:
        assert format_base64(decoded).encode() == raw


@given(NUMBERS, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=3), st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_hostile_tiles_yield_no_hash(size: int, places: list[tuple[int, int]], data: bytes) -> None:
    """Whatever a server answers for a tile, at whatever size."""
    with pytest.raises(CountermarkError):
        TileHashes(size, checkpoint().root_hash, lambda tile: data)(places)
