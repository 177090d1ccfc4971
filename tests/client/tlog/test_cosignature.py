"""cosignature.py: the exact bytes each type covers, and what no signer signs."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

import pytest

from countermark.errors import MalformedError, PolicyError, SignatureError
from countermark.tlog import cosignature
from countermark.tlog.cosignature import (
    check_signature,
    covered,
    ed25519_message,
    ml_dsa_message,
)
from countermark.tlog.note import KeySigner, Note, Signature, VerifierKey, open_note
from tests.log_samples import LOG, LOG_PQ, ORIGIN, TIME, W1, W2, checkpoint, ml_dsa, signed, vectors

VECTORS = vectors("checkpoint")
TEXT = checkpoint().text()
ROOT = checkpoint().root_hash


def test_the_known_checkpoint_has_its_known_signatures() -> None:
    """Text, log line and Ed25519 cosignature of the vectors, byte for byte."""
    assert sha256(TEXT.encode()).hexdigest() == VECTORS["text_sha256"]
    for signer, known in ((LOG, VECTORS["log"]), (W1, VECTORS["w1"])):
        line = signer.sign(TEXT, time=VECTORS["time"])
        assert signer.vkey.format() == known["vkey"]
        assert base64.b64encode(line.key_id + line.sig).decode() == known["sig"]
        check_signature(VerifierKey.parse(known["vkey"]), TEXT, line.sig)


def test_the_known_ml_dsa_witness_signs_the_known_message() -> None:
    """Signing is randomised: the key, its ID and the message are fixed, the signature must verify."""
    known = VECTORS["w2"]
    message = ml_dsa_message(W2.name, TIME, origin=ORIGIN, start=0, end=256, hash=ROOT)
    assert (W2.name, W2.key_id.hex()) == (known["name"], known["key_id"])
    assert sha256(W2.vkey.public_key).hexdigest() == known["public_key_sha256"]
    assert (len(message), sha256(message).hexdigest()) == (known["message_bytes"], known["message_sha256"])
    line = W2.sign(TEXT, time=TIME)
    assert line.sig[:8] == TIME.to_bytes(8, "big")
    W2.vkey.verify(message, line.sig[8:])


@pytest.mark.parametrize("door", ["inner", "public"])
def test_a_false_ml_dsa_signature_is_refused_by_either_door_of_cryptography(
    monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """The key is read by cryptography's inner function, or by the public one where that is gone."""
    if door == "public":
        import cryptography.hazmat.backends.openssl.backend  # it imports by that door, too

        monkeypatch.delattr(cryptography.hazmat.bindings._rust, "openssl")
    message = b"a message"
    sig = ml_dsa(2).sign(message)
    key = VerifierKey(W2.name, W2.vkey.type, ml_dsa(2).public_key().public_bytes_raw())
    key.verify(message, sig)
    with pytest.raises(SignatureError, match="is false"):
        key.verify(message, sig[:-1] + bytes([sig[-1] ^ 1]))


def test_the_message_in_the_docstring_is_real() -> None:
    """What the essay shows is what type 0x04 covers under the known checkpoint."""
    shown = re.search(r"\n\n((?:    .*\n)+)", cosignature.__doc__ or "")
    assert shown is not None
    assert re.sub("^    ", "", shown[1], flags=re.M).encode() == ed25519_message(TEXT, TIME)


@pytest.mark.parametrize(("signer", "length"), [(LOG, 92), (W1, 104), (W2, 3244)])
def test_a_line_has_its_types_length(signer: KeySigner, length: int) -> None:
    """0x01, 0x04 and 0x06 in base64."""
    line = signer.sign(TEXT, time=TIME)  # type: ignore[attr-defined]
    assert len(line.format().split(" ")[2]) == length + 1


@pytest.mark.parametrize("signer", [W1, W2, LOG_PQ], ids=["0x04", "0x06", "0x06 by the log"])
def test_a_cosignature_covers_every_part_of_its_statement(signer: KeySigner) -> None:
    """Another time, origin, size or root hash is another statement, and false."""
    key, sig = signer.vkey, signer.sign(TEXT, time=TIME).sig  # type: ignore[attr-defined]
    assert check_signature(key, TEXT, sig) == TIME
    origin, size, root, _ = TEXT.split("\n")
    other_root = base64.b64encode(bytes(32)).decode()
    for text in (
        f"x{origin}\n{size}\n{root}\n",
        f"{origin}\n25\n{root}\n",
        f"{origin}\n{size}\n{other_root}\n",
    ):
        with pytest.raises(SignatureError):
            check_signature(key, text, sig)
    for wrong in (
        (TIME + 1).to_bytes(8, "big") + sig[8:],
        bytes(8) + sig[8:],
        b"\xff" * 8 + sig[8:],
        sig[:-1],
        sig + b"\0",
        sig[:8],
        sig[:7],
        b"",
        sig[8:],
    ):
        with pytest.raises(SignatureError):
            check_signature(key, TEXT, wrong)


def test_only_the_ml_dsa_message_commits_to_the_cosigners_name() -> None:
    """The same key under another name verifies with 0x04 (one key, one name!) and not with 0x06."""
    for signer, binds in ((W1, False), (W2, True)):
        sig = signer.sign(TEXT, time=TIME).sig
        alias = VerifierKey("alias.example", signer.vkey.type, signer.vkey.public_key)
        if binds:
            with pytest.raises(SignatureError):
                check_signature(alias, TEXT, sig)
        else:
            assert check_signature(alias, TEXT, sig) == TIME


def test_an_ed25519_note_signature_is_no_cosignature() -> None:
    """The key of a log under type 0x04, or that of a witness under 0x01, verifies nothing of the other."""
    for signer, type in ((LOG, 0x04), (W1, 0x01)):
        key = VerifierKey(signer.name, type, signer.vkey.public_key)
        for sig in (signer.sign(TEXT, time=TIME).sig, bytes(8) + signer.sign(TEXT, time=TIME).sig):
            with pytest.raises(SignatureError):
                check_signature(key, TEXT, sig)


@pytest.mark.parametrize("time", [-1, 2**63, 2**64])
def test_no_time_beyond_63_bits_is_signed_or_read(time: int) -> None:
    """POSIX seconds from 0 to 2**63 - 1."""
    for signer in (W1, W2):
        with pytest.raises(MalformedError, match="is not a time"):
            signer.sign(TEXT, time=time)
    with pytest.raises(MalformedError):
        ed25519_message(TEXT, time)
    if 0 < time < 2**64:
        for key in (W1.vkey, W2.vkey):
            with pytest.raises(SignatureError, match="states no time"):
                check_signature(key, TEXT, time.to_bytes(8, "big") + bytes(64))


def test_a_subtree_that_starts_elsewhere_has_no_time() -> None:
    """Only a prefix can be the newest tree."""
    assert len(ml_dsa_message("w", 0, origin="o", start=256, end=512, hash=ROOT)) == 12 + 2 + 8 + 2 + 16 + 32
    for start, end, time in ((256, 512, 1), (2, 1, 0), (-1, 1, 0), (0, 2**63, 0)):
        with pytest.raises(MalformedError):
            ml_dsa_message("w", time, origin="o", start=start, end=end, hash=ROOT)
    for name, origin, hash in (("", "o", ROOT), ("w" * 256, "o", ROOT), ("w", "", ROOT), ("w", "o", b"")):
        with pytest.raises(MalformedError):
            ml_dsa_message(name, 0, origin=origin, start=0, end=1, hash=hash)


NO_CHECKPOINTS = [
    "",
    "\n",
    "hello\n",
    TEXT[:-1],
    TEXT + "\n",
    TEXT + "extension\n",
    TEXT.replace("256", "0256"),
    TEXT.replace("256", "+256"),
    TEXT.replace("256", " 256"),
    TEXT.replace("256", "2_56"),
    TEXT.replace("256", "\u0662\u0665\u0666"),
    TEXT.replace("256", "-1"),
    TEXT.replace("256", str(2**63)),
    TEXT.replace("=", ""),
    TEXT.replace("y4=", "y5="),  # bits left over
    TEXT.replace("y4=", "y4=="),
    TEXT.replace("\n256", "\r\n256"),
    TEXT.replace("\n256", "\u2028\n256"),
    TEXT.replace(ORIGIN, ""),
    TEXT.replace(ORIGIN, "two words"),
    TEXT.replace(ORIGIN, "a+b"),
    TEXT.replace(ORIGIN, "x" * 256),
    TEXT.replace(ORIGIN, "\ud800"),
    f"{ORIGIN}\n256\n{base64.b64encode(bytes(31)).decode()}\n",
]


@pytest.mark.parametrize("text", NO_CHECKPOINTS)
def test_what_is_not_a_checkpoint_is_neither_read_nor_cosigned(text: str) -> None:
    """A witness that signs junk lends its name to whatever the junk is taken for."""
    with pytest.raises(MalformedError):
        covered(text)
    for signer in (W1, W2):
        with pytest.raises(MalformedError):
            signer.sign(text, time=TIME)


def test_a_key_cannot_vouch_twice_and_its_newest_time_counts() -> None:
    """Two true lines of one witness are one signature, at the later time, in whatever order."""
    old, new = W1.sign(TEXT, time=TIME), W1.sign(TEXT, time=TIME + 60)
    for lines in ((old, new), (new, old)):
        opened = open_note(Note(TEXT, lines), [W1.vkey], check=check_signature)
        assert [(s.key, s.time) for s in opened.signatures] == [(W1.vkey, TIME + 60)]


def test_every_flipped_byte_of_a_cosigned_checkpoint_is_refused_or_unheard() -> None:
    """No change to a cosigned note leaves its witness's voice under another statement."""
    raw = signed([W1]).format()
    for at in range(len(raw)):
        flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises((MalformedError, SignatureError, PolicyError)):
            open_note(flipped, [W1.vkey], check=check_signature)


def test_a_signature_of_another_algorithm_is_false_not_a_crash() -> None:
    """Lengths that the library itself refuses surface as false signatures."""
    for key in (LOG.vkey, W1.vkey, W2.vkey):
        for length in (1, 9, 64, 72, 2428, 4000):
            line = Signature(key.name, key.key_id, bytes(length))
            with pytest.raises(SignatureError):
                open_note(Note(TEXT, (line,)), [key], check=check_signature)
