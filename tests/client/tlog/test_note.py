"""note.py: vectors, the rules on who signed, and every trap of a lenient parser."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.errors import MalformedError, PolicyError, SignatureError
from countermark.limits import NOTE_MAX_BYTES, NOTE_MAX_SIGNATURES
from countermark.tlog import note as note_module
from countermark.tlog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    Ed25519NoteSigner,
    Note,
    Signature,
    VerifierKey,
    open_note,
    parse_base64,
    parse_decimal,
    parse_hash,
    sign_note,
)
from tests.log_samples import LOG, LOG_PQ, W1, W2, ed25519, vectors

VECTORS = vectors("note")
ALICE = Ed25519NoteSigner("alice.example", ed25519(21))
BOB = Ed25519NoteSigner("bob.example", ed25519(22))
NOTE = sign_note("hello\n", [ALICE, BOB], time=0)
RAW = NOTE.format()


def known_note(vector: dict[str, Any]) -> bytes:
    name = vector["vkey"].split("+")[0]
    return f"{vector['text']}\n\u2014 {name} {vector['sig']}\n".encode()


@pytest.mark.parametrize("vector", VECTORS["notes"], ids=lambda vector: vector["vkey"].split("+")[0])
def test_the_known_notes_open(vector: dict[str, Any]) -> None:
    """The vectors' notes open with their keys, and format as they were."""
    raw = known_note(vector)
    key = VerifierKey.parse(vector["vkey"])
    opened = open_note(raw, [key])
    assert (opened.text, [s.key for s in opened.signatures]) == (vector["text"], [key])
    assert Note.parse(raw).format() == raw
    assert key.format() == vector["vkey"]


def test_the_known_private_key_signs_the_known_note() -> None:
    """Ed25519 is deterministic: seed and text give the vector's line, byte for byte."""
    vector = VECTORS["notes"][1]
    _, _, name, _, encoded = vector["private"].split("+", 4)
    raw = base64.b64decode(encoded)
    signer = Ed25519NoteSigner(name, Ed25519PrivateKey.from_private_bytes(raw[1:]))
    assert (raw[0], signer.vkey.format()) == (ED25519, vector["vkey"])
    assert sign_note(vector["text"], [signer], time=0).format() == known_note(vector)


def test_the_note_and_the_vkey_in_the_docstring_are_real() -> None:
    """What the essay shows is a note that opens with the key it shows."""
    shown = re.search(r"\n\n((?:  .*\n|\n)+?  \u2014 .*\n)", note_module.__doc__ or "")
    assert shown is not None
    raw = re.sub("^  ", "", shown[1], flags=re.M).encode()
    vkey = re.search(r"^  (PeterNeumann\+.*)$", note_module.__doc__ or "", re.M)
    assert vkey is not None
    assert open_note(raw, [VerifierKey.parse(vkey[1])]).text.endswith("problem is.\n")


def test_a_note_may_be_signed_by_two_and_opened_by_either() -> None:
    """Lines by keys we do not know are passed over."""
    for keys in ([ALICE.vkey], [BOB.vkey], [ALICE.vkey, BOB.vkey]):
        assert {s.key for s in open_note(RAW, keys).signatures} == set(keys)
    enoch = VerifierKey.parse(VECTORS["other_vkey"])
    assert len(open_note(RAW, [ALICE.vkey, enoch]).signatures) == 1


def test_half_a_match_of_name_and_key_id_is_a_stranger() -> None:
    """A forged line with a known name and another ID, or the other way round, is passed over."""
    junk = bytes(64)
    forged = (Signature(ALICE.name, b"\0\0\0\1", junk), Signature("eve.example", ALICE.key_id, junk))
    note = Note(NOTE.text, (*forged, *NOTE.signatures))
    assert [s.key for s in open_note(note.format(), [ALICE.vkey]).signatures] == [ALICE.vkey]
    with pytest.raises(SignatureError, match="no known key"):
        open_note(Note(NOTE.text, forged).format(), [ALICE.vkey])


def test_a_false_line_of_a_known_key_spoils_the_note() -> None:
    """Also beside a true line of another known key, of the same key, and at any place."""
    false = Signature(BOB.name, BOB.key_id, bytes(64))
    for lines in [
        (*NOTE.signatures[:1], false),
        (false, *NOTE.signatures),
        (*NOTE.signatures, false),
        (Signature(BOB.name, BOB.key_id, NOTE.signatures[1].sig[:-1]),),
        (Signature(BOB.name, BOB.key_id, NOTE.signatures[1].sig + b"\0"),),
        (Signature(BOB.name, BOB.key_id, NOTE.signatures[0].sig),),
    ]:
        with pytest.raises(SignatureError, match=r"bob\.example"):
            open_note(Note(NOTE.text, lines).format(), [ALICE.vkey, BOB.vkey])


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    """Nobody known, or no keys known at all."""
    for keys in ([], [VerifierKey.parse(VECTORS["other_vkey"])]):
        with pytest.raises(SignatureError, match=r"alice\.example, bob\.example"):
            open_note(RAW, keys)


def test_the_same_line_twice_counts_once() -> None:
    """A threshold counts keys, never lines."""
    note = Note(NOTE.text, (NOTE.signatures[0],) * 3)
    assert len(open_note(note.format(), [ALICE.vkey]).signatures) == 1


def test_every_flipped_bit_of_a_note_is_refused() -> None:
    """Text, separator, name, key ID and signature: nothing can change unnoticed."""
    raw = sign_note("hello\n", [ALICE], time=0).format()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MalformedError, SignatureError)):
            open_note(bytes(flipped), [ALICE.vkey])


def test_every_truncation_of_a_note_is_refused() -> None:
    """A note without its end is no note; cut after a whole line it lacks that signature."""
    for length in range(len(RAW)):
        with pytest.raises((MalformedError, SignatureError)):
            open_note(RAW[:length], [BOB.vkey])


LINE = NOTE.signatures[0].format().encode()
SIG = LINE.split(b" ")[2][:-1]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"hello\n",
        b"hello\n\n",
        b"hello" + LINE,
        b"hello\n" + LINE,  # no empty line
        b"hello\n\n" + LINE[:-1],  # no last newline
        b"hello\n\n" + LINE + b"\n",  # an empty line after the signatures
        b"hello\r\n\r\n" + LINE,
        b"hello\n\n" + LINE.replace(b"\n", b"\r\n"),
        b"hello\tthere\n\n" + LINE,
        b"hello\x00\n\n" + LINE,
        b"hello \xff\n\n" + LINE,
        b"hello \xed\xa0\x80\n\n" + LINE,  # a surrogate
        b"hello \xc0\x80\n\n" + LINE,  # an overlong zero
        b"hello\n\n- alice.example " + SIG + b"\n",  # a hyphen
        b"hello\n\n\xe2\x80\x93 alice.example " + SIG + b"\n",  # an en dash
        b"hello\n\n\xe2\x80\x94  alice.example " + SIG + b"\n",
        b"hello\n\n\xe2\x80\x94 alice.example  " + SIG + b"\n",
        b"hello\n\n\xe2\x80\x94 alice.example " + SIG + b" \n",
        b"hello\n\n\xe2\x80\x94 alice+example " + SIG + b"\n",
        b"hello\n\n\xe2\x80\x94 alice\xc2\xa0example " + SIG + b"\n",  # a no-break space
        b"hello\n\n\xe2\x80\x94 alice\xe2\x80\xa8example " + SIG + b"\n",  # U+2028
        b"hello\n\n\xe2\x80\x94 alice.example\n",
        b"hello\n\n\xe2\x80\x94 alice.example \n",
        b"hello\n\n\xe2\x80\x94 alice.example AAAA\n",  # a key ID of 3 bytes
        b"hello\n\n\xe2\x80\x94 alice.example AAAAAA==\n",  # no signature behind the key ID
        b"hello\n\n\xe2\x80\x94 alice.example " + SIG.rstrip(b"=") + b"\n",
        b"hello\n\n\xe2\x80\x94 alice.example " + SIG.replace(b"=", b"_") + b"\n",
        b"hello\n\n\xe2\x80\x94 " + b"a" * 256 + b" " + SIG + b"\n",
    ],
)
def test_what_is_not_a_note_is_refused(raw: bytes) -> None:
    """One spelling per note; everything else is malformed."""
    with pytest.raises(MalformedError):
        Note.parse(raw)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_a_newline_ends_a_line(separator: str) -> None:
    """str.splitlines() would see a line here; where such a character is legal it is part of the text."""
    raw = f"one{separator}two\n\n".encode() + LINE
    if separator < " ":
        with pytest.raises(MalformedError, match="control"):
            Note.parse(raw)
    else:
        assert Note.parse(raw).text == f"one{separator}two\n"
    with pytest.raises(MalformedError):
        Note.parse(b"hello\n\n" + LINE[:-1] + separator.encode() + LINE)


def test_the_last_empty_line_parts_text_and_signatures() -> None:
    """A text may hold empty lines, and even what looks like a signature."""
    text = "hello\n\n" + LINE.decode() + "\nmore\n"
    note = sign_note(text, [ALICE], time=0)
    assert Note.parse(note.format()) == note
    assert open_note(note.format(), [ALICE.vkey]).text == text


def test_the_limits_of_a_note_hold() -> None:
    """64 lines and 128 KiB are read, one more is not."""
    many = Note("hello\n", NOTE.signatures[:1] * NOTE_MAX_SIGNATURES)
    assert Note.parse(many.format()) == many
    with pytest.raises(MalformedError, match="65 signatures"):
        Note.parse(many.format() + LINE)
    long = Note("x" * (NOTE_MAX_BYTES - len(LINE) - 2) + "\n", NOTE.signatures[:1])
    assert len(long.format()) == NOTE_MAX_BYTES
    assert Note.parse(long.format()) == long
    with pytest.raises(MalformedError, match="131073 bytes"):
        Note.parse(b"x" + long.format())


def test_sixteen_post_quantum_lines_fit_a_note() -> None:
    """The specification asks for 16 signatures; an ML-DSA-44 line is 3.3 kB."""
    line = Signature("x" * 200, b"abcd", bytes(2428))
    note = Note("hello\n", (line,) * 32)
    assert Note.parse(note.format()) == note


VKEY = ALICE.vkey.format()
NAME, KEY_ID, KEY = VKEY.split("+", 2)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        NAME,
        f"{NAME}+{KEY_ID}",
        f"{NAME}+{KEY_ID}+",
        f"+{KEY_ID}+{KEY}",
        f"{NAME} {KEY_ID}+{KEY}",
        f"a b+{KEY_ID}+{KEY}",
        f"a\u00a0b+{KEY_ID}+{KEY}",
        f"a\ud800b+{KEY_ID}+{KEY}",
        f"{NAME}+{KEY_ID.upper()}+{KEY}".replace(KEY_ID.upper(), "ABCDEF01"),
        f"{NAME}+00000000+{KEY}",
        f"{NAME}+{KEY_ID[:-1]}+{KEY}",
        f"{NAME}+{KEY_ID}0+{KEY}",
        f"bob.example+{KEY_ID}+{KEY}",
        f"{NAME}+{KEY_ID}+{KEY}\n",
        f"{NAME}+{KEY_ID}+{KEY[:-4]}",
        f"{NAME}+{KEY_ID}+{KEY}AAAA",
        f"{NAME}+{KEY_ID}+{KEY.replace('A', '_', 1)}",
        f"{NAME}+{KEY_ID}+{KEY[:-1]}",
    ],
)
def test_what_is_not_a_vkey_is_refused(vkey: str) -> None:
    """Name, ID and key must fit each other, in the one spelling."""
    with pytest.raises(MalformedError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("type", [0x00, 0x02, 0x03, 0x05, 0x07, 0xFA, 0xFF])
def test_a_vkey_of_a_type_we_do_not_verify_is_refused(type: int) -> None:
    """ECDSA, RFC 6962 tree heads and what is reserved."""
    with pytest.raises(MalformedError, match="type"):
        VerifierKey("a.example", type, bytes(32))
    raw = base64.b64encode(bytes([type]) + bytes(32)).decode()
    with pytest.raises(MalformedError):
        VerifierKey.parse(f"a.example+00000000+{raw}")


def test_a_vkey_whose_base64_holds_a_plus_parses() -> None:
    """Split at most twice: the key material may hold the separator."""
    plus = next(
        key
        for i in range(256)
        if "+" in (key := VerifierKey("a.example", ED25519, bytes([i]) * 32).format()).split("+", 2)[2]
    )
    assert VerifierKey.parse(plus).format() == plus


def test_every_type_has_its_own_key_id() -> None:
    """One key under two types is two keys to a reader."""
    one, other = (VerifierKey("a.example", type, bytes(32)) for type in (ED25519, ED25519_COSIGNATURE))
    assert one.key_id != other.key_id
    assert {len(key.vkey.format()) for key in (LOG_PQ, W2)} == {1762 + len(key.name) for key in (LOG_PQ, W2)}


def test_two_keys_with_one_name_and_key_id_are_refused() -> None:
    """Four bytes of ID collide if somebody wants them to: then it is not clear whose line it is."""

    class Twin(VerifierKey):
        key_id = ALICE.key_id

    with pytest.raises(PolicyError, match="share the name"):
        open_note(RAW, [ALICE.vkey, Twin(ALICE.name, ED25519, bytes(32))])


@pytest.mark.parametrize("key", [W1.vkey, W2.vkey])
def test_a_cosigner_key_opens_no_plain_note(key: VerifierKey) -> None:
    """Types 0x04 and 0x06 sign checkpoints only: a line of theirs under another text means nothing."""
    note = Note("hello\n", (Signature(key.name, key.key_id, bytes(72)),))
    with pytest.raises(PolicyError, match="signs checkpoints only"):
        open_note(note.format(), [key])


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00\n", "\ud800\n", "a\r\n"])
def test_nothing_but_a_note_text_is_signed(text: str) -> None:
    """A signer refuses what no reader would parse."""
    with pytest.raises(MalformedError):
        LOG.sign(text)


NO_NUMBERS = [
    "",
    "00",
    "007",
    "+7",
    "-7",
    " 7",
    "7 ",
    "7\n",
    "1_0",
    "\u0667",
    "\uff17",
    "\u00b2",
    "0x7",
    "7.0",
    "1e3",
]
NO_BASE64 = [
    "A",
    "AA",
    "AA=",
    "AB==",
    "AAB=",
    "AA==\n",
    " AA==",
    "A A==",
    "AA==AA==",
    "AA-_",
    "\u2014AA=",
    "====",
    "AAAA=",
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, str(2**63), "9" * 30, "9" * 5000])
def test_a_number_has_one_spelling(text: str) -> None:
    """int() accepts most of these, isdigit() some."""
    with pytest.raises(MalformedError):
        parse_decimal(text)


def test_counts_reach_from_0_to_2_to_the_63_minus_1() -> None:
    """Both ends are numbers."""
    assert (parse_decimal("0"), parse_decimal(str(2**63 - 1))) == (0, 2**63 - 1)


@pytest.mark.parametrize("text", NO_BASE64)
def test_base64_has_one_spelling(text: str) -> None:
    """No blanks, no URL alphabet, no missing padding, no bits left over."""
    with pytest.raises(MalformedError):
        parse_base64(text)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_hash_has_32_bytes(size: int) -> None:
    """Anything else is no hash, however well encoded."""
    with pytest.raises(MalformedError):
        parse_hash(base64.b64encode(bytes(size)).decode())
