"""proof.py: the file format, and what a proof proves about which checkpoint."""

from __future__ import annotations

import base64

import pytest

from countermark.errors import MalformedError, ProofError
from countermark.limits import PROOF_MAX_HASHES, TLOG_PROOF_MAX_BYTES
from countermark.tlog import merkle, proof
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.proof import TlogProof
from tests.log_samples import POLICY, TIME, entries, leaves, signed

SIZE = 257
READ = merkle.reader(leaves(SIZE))
CHECKPOINT = signed(size=SIZE).format()
VERIFIED = open_checkpoint(CHECKPOINT, POLICY, now=TIME)


def proof_of(index: int, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, merkle.prove_inclusion(index, SIZE, READ), CHECKPOINT, extra)


RAW = proof_of(7).format()
HASH = base64.b64encode(bytes(32))


@pytest.mark.parametrize("extra", [None, b"", b"two words\n"])
@pytest.mark.parametrize("index", [0, 7, 255, 256])
def test_a_proof_formats_parses_and_checks(index: int, extra: bytes | None) -> None:
    """The whole way: from a file to an entry that is in a checkpointed tree."""
    raw = proof_of(index, extra).format()
    parsed = TlogProof.parse(raw)
    assert parsed == proof_of(index, extra)
    assert raw.endswith(b"\n\n" + CHECKPOINT)
    checkpoint = open_checkpoint(parsed.checkpoint, POLICY, now=TIME)
    proof.check(entries(SIZE)[index], parsed, checkpoint)


def test_the_format_is_the_one_of_the_specification() -> None:
    """Line by line."""
    text = TlogProof(1, (b"\xff" * 32,), b"CHECKPOINT", b"hi").format()
    hash = base64.b64encode(b"\xff" * 32).decode()
    assert text.decode().split("\n") == [
        "c2sp.org/tlog-proof@v1",
        "extra aGk=",
        "index 1",
        hash,
        "",
        "CHECKPOINT",
    ]
    lines = (proof.__doc__ or "").split("\n")
    assert [line for line in lines if line.startswith("    ")][:2] == [
        "    c2sp.org/tlog-proof@v1",
        "    index 1",
    ]


def test_the_hashes_in_the_docstring_are_real() -> None:
    """They prove b in the log that holds a, b, c, whose checkpoint checkpoint.py shows."""
    shown = [line[4:] for line in (proof.__doc__ or "").split("\n") if line.startswith("    ")]
    leaves = [merkle.leaf_hash(entry) for entry in (b"a", b"b", b"c")]
    hashes = merkle.prove_inclusion(1, 3, merkle.reader(leaves))
    assert shown[:2] == ["c2sp.org/tlog-proof@v1", "index 1"]
    assert shown[2:4] == [base64.b64encode(hash).decode() for hash in hashes]
    assert shown[4:6] == ["example.com/registry", "3"]


def test_a_proof_is_of_one_entry_at_one_index_in_one_tree() -> None:
    """Another entry, index, hash or checkpoint is refused."""
    entry = entries(SIZE)[7]
    proof.check(entry, proof_of(7), VERIFIED)
    smaller = open_checkpoint(signed(size=256).format(), POLICY, now=TIME)
    good = proof_of(7)
    for other_entry, offered, checkpoint in [
        (b"entry 8", good, VERIFIED),
        (b"", good, VERIFIED),
        (entry + b"\0", good, VERIFIED),
        (entry, TlogProof(6, good.hashes, CHECKPOINT), VERIFIED),
        (entry, TlogProof(7 + SIZE, good.hashes, CHECKPOINT), VERIFIED),
        (entry, TlogProof(7, good.hashes[:-1], CHECKPOINT), VERIFIED),
        (entry, TlogProof(7, (*good.hashes, bytes(32)), CHECKPOINT), VERIFIED),
        (entry, TlogProof(7, good.hashes[::-1], CHECKPOINT), VERIFIED),
        (entry, good, smaller),
    ]:
        with pytest.raises(ProofError):
            proof.check(other_entry, offered, checkpoint)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n",
        b"c2sp.org/tlog-proof@v1\n\n" + CHECKPOINT,
        b"c2sp.org/tlog-proof@v1\nindex 7\n\n",
        RAW.replace(b"@v1", b"@v2"),
        RAW.replace(b"c2sp", b"C2SP"),
        b"\xef\xbb\xbf" + RAW,
        b"\n" + RAW,
        RAW.replace(b"\n", b"\r\n"),
        RAW.replace(b"index 7", b"index 07"),
        RAW.replace(b"index 7", b"index +7"),
        RAW.replace(b"index 7", b"index  7"),
        RAW.replace(b"index 7", b"index 7 "),
        RAW.replace(b"index 7", b"index -7"),
        RAW.replace(b"index 7", b"index 1_0"),
        RAW.replace(b"index 7", "index \u0667".encode()),
        RAW.replace(b"index 7", b"index 9223372036854775808"),
        RAW.replace(b"index 7", b"Index 7"),
        RAW.replace(b"index 7\n", b"index 7\nindex 7\n"),
        RAW.replace(b"index 7\n", b""),
        RAW.replace(b"index 7\n", b"index 7\nextra aGk=\n"),
        RAW.replace(b"index 7\n", b"extra aGk=\nextra aGk=\nindex 7\n"),
        RAW.replace(b"index 7\n", b"extra\nindex 7\n"),
        RAW.replace(b"index 7\n", b"extra aGk\nindex 7\n"),
        RAW.replace(b"index 7\n", b"extra aGl=\nindex 7\n"),
        RAW.replace(b"index 7\n", b"extra aGk= \nindex 7\n"),
        RAW.replace(b"index 7\n", b"index 7\n" + HASH + b" \n"),
        RAW.replace(b"index 7\n", b"index 7\n" + HASH[:-1] + b"\n"),
        RAW.replace(b"index 7\n", b"index 7\n" + HASH.hex().encode() + b"\n"),
        RAW.replace(b"index 7\n", b"index 7\nAAAA\n"),
        RAW.replace(b"index 7\n", b"index 7\n" + (HASH + b"\n") * (PROOF_MAX_HASHES + 1)),
    ],
)
def test_what_is_not_a_proof_is_refused(raw: bytes) -> None:
    """One spelling per proof."""
    with pytest.raises(MalformedError):
        TlogProof.parse(raw)


def test_the_limits_of_a_proof_hold() -> None:
    """63 hashes and its size in bytes are read, one more is not."""
    long = TlogProof(0, (bytes(32),) * PROOF_MAX_HASHES, b"c")
    assert TlogProof.parse(long.format()) == long
    largest = TlogProof(0, (), b"c" * (TLOG_PROOF_MAX_BYTES - len(TlogProof(0, (), b"").format())))
    assert TlogProof.parse(largest.format()) == largest
    with pytest.raises(MalformedError, match="bytes"):
        TlogProof.parse(largest.format() + b"c")


def test_every_truncation_of_a_proof_is_refused() -> None:
    """Cut in the head it does not parse, cut in the checkpoint it does not open."""
    head = len(RAW) - len(CHECKPOINT)
    for length in range(head + 1):
        with pytest.raises(MalformedError):
            TlogProof.parse(RAW[:length])
