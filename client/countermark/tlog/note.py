"""Signed notes: a text, and lines below it that say who signed it.

  If you think cryptography is the answer to your problem,
  then you don't know what your problem is.

  — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=

The last empty line parts text and signatures. A signature line is an em dash, the key's name, and base64 of
the 4-byte *key ID* and the signature. The key ID is a hash of name, type and public key, and the *vkey*
holds all three:

  PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW

A line by a key that we do not know, name *and* ID, says nothing to us and is passed over. A line by a key
that we do know must verify, or the whole note is refused; and at least one such line must be there. The
same key twice counts once.

Parsing proves nothing about who wrote a note: `open_note` does. What the signature covers depends on the
type of the key. Here that is the text (0x01, Ed25519); types 0x04 and 0x06 sign checkpoints only and live in
cosignature.py, which hands its own `check` to `open_note`.

Format: https://c2sp.org/signed-note@v1.0.0
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import ClassVar, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from countermark.digest import is_hex, sha256
from countermark.errors import MalformedError, PolicyError, SignatureError
from countermark.limits import KEY_NAME_MAX_BYTES, NOTE_MAX_BYTES, NOTE_MAX_SIGNATURES, TREE_SIZE_MAX
from countermark.values import dataclass, pattern

ED25519 = 0x01  # signs a note's text
ED25519_COSIGNATURE = 0x04
ML_DSA_44 = 0x06
_PUBLIC_KEY_BYTES = {ED25519: 32, ED25519_COSIGNATURE: 32, ML_DSA_44: 1312}
_DASH = "\N{EM DASH} "
_NAME = pattern("[^\\s+\x00-\x1f\ud800-\udfff]+")
_UNFIT = pattern("[\x00-\x09\x0b-\x1f\ud800-\udfff]")


@dataclass(frozen=True)
class Signature:
    """One signature line. `sig` is what follows the key ID; what it means depends on the key's type."""

    name: str
    key_id: bytes
    sig: bytes

    def format(self) -> str:
        return f"{_DASH}{self.name} {format_base64(self.key_id + self.sig)}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Parse one line, given without its newline."""
        if not line.startswith(_DASH):
            raise MalformedError("a signature line must start with an em dash and a space")
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        check_key_name(name)
        raw = parse_base64(encoded)
        if len(raw) < 5:
            raise MalformedError(f"the line of {name} holds {len(raw)} bytes, too few for a signature")
        return cls(name, raw[:4], raw[4:])


@dataclass(frozen=True)
class Note:
    """A text and its signature lines, not verified."""

    text: str
    signatures: tuple[Signature, ...]

    def format(self) -> bytes:
        return (self.text + "\n" + "".join(line.format() for line in self.signatures)).encode()

    @classmethod
    def parse(cls, raw: bytes) -> Note:
        if len(raw) > NOTE_MAX_BYTES:
            raise MalformedError(f"a note of {len(raw)} bytes; at most {NOTE_MAX_BYTES} are read")
        decoded = raw.decode(
            "utf-8", "surrogateescape"
        )  # what is no UTF-8 comes out as what no text may hold
        check_text(decoded)
        text, _, block = decoded.rpartition("\n\n")
        *lines, _ = block.split("\n")
        if not 1 <= len(lines) <= NOTE_MAX_SIGNATURES:
            raise MalformedError(f"a note with {len(lines)} signatures; 1 to {NOTE_MAX_SIGNATURES} are read")
        note = cls(text + "\n", tuple(Signature.parse(line) for line in lines))
        if note.format() != raw:
            raise MalformedError("the note is not in canonical form")
        return note


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name and the type of the signatures it verifies."""

    name: str
    type: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_BYTES.get(self.type):
            what = f"type 0x{self.type:02x} with a public key of {len(self.public_key)} bytes"
            raise MalformedError(f"key {self.name} is of no known kind: {what}")

    @cached_property
    def key_id(self) -> bytes:
        return sha256(b"%s\n%c%s" % (self.name.encode(), self.type, self.public_key)).digest()[:4]

    def format(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.key_id.hex()}+{format_base64(bytes([self.type]) + self.public_key)}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        name, key_id, rest = (*vkey.split("+", 2), "", "")[:3]  # base64 may hold a plus, a name may not
        if not name or not is_hex(key_id, 8) or not rest:
            raise MalformedError("a vkey must be <name>+<8 hex digits>+<base64>")
        raw = parse_base64(rest)
        key = cls(name, raw[0], raw[1:])
        if key.format() != vkey:
            raise MalformedError(f"vkey {name} claims key ID {key_id}, its key has {key.key_id.hex()}")
        return key

    def verify(self, message: bytes, signature: bytes) -> None:
        """Verify the bare signature of `message`. Which message a type signs is not known here."""
        try:
            if self.type == ML_DSA_44:
                _ml_dsa_44(self.public_key).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureError(f"the signature by {self.name} ({self.key_id.hex()}) is false") from None


def _ml_dsa_44(raw: bytes) -> MLDSA44PublicKey:
    """The public key, without what `from_public_bytes` imports to ask for support: RSA, ciphers, a tenth of a check.

    The door behind it is cryptography's own business and may move; then the public one is taken.
    """
    try:
        from cryptography.hazmat.bindings._rust import openssl  # noqa: PLC0415

        load = openssl.mldsa.from_mldsa44_public_bytes
    except (ImportError, AttributeError):
        load = MLDSA44PublicKey.from_public_bytes
    return load(raw)


class NoteSigner(Protocol):
    """Puts a line under a note. `time`, in POSIX seconds, is for the types that state one."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...
    @property
    def vkey(self) -> VerifierKey: ...
    def sign(self, text: str, *, time: int) -> Signature: ...


@dataclass(frozen=True)
class KeySigner:
    """A key in this process (not behind a socket). Each type of signature is a subclass that signs with it."""

    type: ClassVar[int]
    name: str
    private_key: Ed25519PrivateKey | MLDSA44PrivateKey

    @cached_property
    def vkey(self) -> VerifierKey:
        return VerifierKey(self.name, self.type, self.private_key.public_key().public_bytes_raw())

    @property
    def key_id(self) -> bytes:
        return self.vkey.key_id


class Ed25519NoteSigner(KeySigner):
    """Signs a note's text (type 0x01)."""

    type = ED25519

    def sign(self, text: str, *, time: int | None = None) -> Signature:
        check_text(text)
        return Signature(self.name, self.key_id, self.private_key.sign(text.encode()))


def sign_note(text: str, signers: Iterable[NoteSigner], *, time: int) -> Note:
    """A note with one line by each signer, in their order."""
    return Note(text, tuple(signer.sign(text, time=time) for signer in signers))


@dataclass(frozen=True)
class VerifiedSignature:
    """A line that verified, and the time it states (None for a type that states none)."""

    key: VerifierKey
    line: Signature
    time: int | None


@dataclass(frozen=True)
class OpenedNote:
    """A note with at least one line by a known key, and all such lines verified."""

    text: str
    signatures: tuple[VerifiedSignature, ...]


# Verifies one line by the key: check(key, text, sig) is the time it states, or None, or a SignatureError.
Check = Callable[[VerifierKey, str, bytes], "int | None"]


def check_text_signature(key: VerifierKey, text: str, sig: bytes) -> int | None:
    """The check of type 0x01: the signature covers the text."""
    if key.type != ED25519:
        raise PolicyError(f"key {key.name} is of type 0x{key.type:02x}, which signs checkpoints only")
    key.verify(text.encode(), sig)
    return None


def open_note(
    raw: bytes | Note, keys: Iterable[VerifierKey], *, check: Check = check_text_signature
) -> OpenedNote:
    """Verify every line of a note that one of `keys` is named in; unknown lines are passed over."""
    note = raw if isinstance(raw, Note) else Note.parse(raw)
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise PolicyError(f"two keys share the name {key.name} and the key ID {key.key_id.hex()}")
    verified: dict[VerifierKey, VerifiedSignature] = {}
    for line in note.signatures:
        signer = known.get((line.name, line.key_id))
        if signer is None:
            continue
        time = check(signer, note.text, line.sig)
        if signer not in verified or (time or 0) > (verified[signer].time or 0):
            verified[signer] = VerifiedSignature(
                signer, line, time
            )  # one key counts once, at its newest time
    if not verified:
        names = ", ".join(sorted({line.name for line in note.signatures}))
        raise SignatureError(f"no known key signed this note; it names {names}")
    return OpenedNote(note.text, tuple(verified.values()))


def check_key_name(name: str) -> None:
    """Refuse what cannot be a key's name, which is what an origin and a witness are called."""
    if not _is_name(name) or len(name.encode()) > KEY_NAME_MAX_BYTES:
        what = f"it has 1 to {KEY_NAME_MAX_BYTES} bytes, no space and no plus"
        raise MalformedError(f"{name[:80]!r} cannot be a key name: {what}")


def check_text(text: str) -> None:
    """Refuse what cannot be a note's text."""
    if not text.endswith("\n") or not _is_fit(text):
        raise MalformedError("a note must be UTF-8, hold no control character and end in a newline")


def parse_decimal(text: str) -> int:
    """A count from 0 to 2**63 - 1, in the one way to write it."""
    plain = text.isascii() and text.isdigit() and len(text) <= 19 and (text == "0" or text[0] != "0")
    if not plain or int(text) > TREE_SIZE_MAX:
        raise MalformedError(f"{text[:40]!r} is not a decimal number from 0 to 2**63 - 1")
    return int(text)


def format_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def parse_base64(text: str) -> bytes:
    """Standard base64, padded, with no bit left over."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError(f"{text[:40]!r} is not base64") from None
    if format_base64(raw) != text:
        raise MalformedError(f"{text[:40]!r} is not in canonical base64")
    return raw


def parse_hash(text: str) -> bytes:
    """A hash of 32 bytes in base64."""
    raw = parse_base64(text)
    if len(raw) != 32:
        raise MalformedError(f"a hash of {len(raw)} bytes instead of 32")
    return raw


# What is printable passes both patterns, and is found out without compiling them.
def _is_name(name: str) -> bool:
    plain = name.isascii() and name.isprintable() and name != "" and " " not in name and "+" not in name
    return plain or _NAME.fullmatch(name) is not None


def _is_fit(text: str) -> bool:
    return text.replace("\n", "").isprintable() or not _UNFIT.search(text)
