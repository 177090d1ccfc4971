"""Key files: one encrypted private key, with its public half readable by everybody.

    {
      "format": "countermark-key/v1",
      "name": "root holder ada",
      "pkcs8": "-----BEGIN ENCRYPTED PRIVATE KEY-----\n...",
      "public_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE...",
      "scrypt": {"n": 32768, "p": 1, "r": 8, "salt": "..."}
    }

Publishers, online roles and ceremony holders use this one format, for Ed25519, ECDSA P-256 and ML-DSA-44
keys. The private key is PKCS #8 in PEM, encrypted by a password that is itself the base64 of
scrypt(passphrase, salt): PKCS #8 as OpenSSL writes it stretches a password by 2,048 rounds only, which a
graphics card undoes at millions of guesses a second; scrypt at n = 2^15 costs every guess 32 MiB and 50 ms.
Base64 strings are standard, padded; `public_key` is the DER SubjectPublicKeyInfo.

Reading the public half needs no passphrase and proves nothing about the private half. `decrypt` proves it:
a file whose two halves differ is refused. What this format does not do: keep a secret on a machine that is
already somebody else's. (`name` is a label for people and is not authenticated.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from countermark.errors import MalformedError, SignatureError, UsageError
from countermark.limits import KEY_FILE_MAX_BYTES
from countermark.values import dataclass

FORMAT = "countermark-key/v1"
SCRYPT_N = 2**15  # 32 MiB and about 50 ms a guess
SALT_BYTES = 16
_SCRYPT_R = 8
_SCRYPT_P = 1
_SCRYPT_N_RANGE = (2**10, 2**20)  # above it (1 GiB) a file would be an attack on its reader

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA44PrivateKey


@dataclass(frozen=True)
class KeyFile:
    """A key file as parsed: everything but the private key itself."""

    name: str
    public_key: bytes  # SPKI DER
    pkcs8: str  # PEM, encrypted
    n: int
    r: int
    p: int
    salt: bytes

    @property
    def keyid(self) -> str:
        """Hex SHA-256 of the SPKI: how statements and entries name a key."""
        return hashlib.sha256(self.public_key).hexdigest()

    def format(self) -> bytes:
        """The file's bytes."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "pkcs8": self.pkcs8,
            "public_key": base64.b64encode(self.public_key).decode(),
            "scrypt": {"n": self.n, "p": self.p, "r": self.r, "salt": base64.b64encode(self.salt).decode()},
        }
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> KeyFile:
        """The key file in these bytes; its public half may be used without a passphrase."""
        if len(raw) > KEY_FILE_MAX_BYTES:
            raise MalformedError(f"key file of {len(raw)} bytes, at most {KEY_FILE_MAX_BYTES} are read")
        try:
            found = _from_document(json.loads(raw))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MalformedError("this is not a countermark key file, or it is damaged") from error
        low, high = _SCRYPT_N_RANGE
        if (
            (found.r, found.p) != (_SCRYPT_R, _SCRYPT_P)
            or not low <= found.n <= high
            or found.n & found.n - 1
        ):
            raise MalformedError(
                f"key file asks for scrypt n={found.n} r={found.r} p={found.p}, out of bounds"
            )
        if found.format() != raw:
            raise MalformedError("key file is not in the form this program writes")
        return found


def encrypt(
    private_key: PrivateKey, passphrase: bytes, *, name: str, salt: bytes, n: int = SCRYPT_N
) -> bytes:
    """A key file for this key; `salt` is 16 fresh random bytes, brought by the caller."""
    if len(salt) != SALT_BYTES:
        raise UsageError(f"a key file's salt has {SALT_BYTES} bytes, not {len(salt)}")
    if not passphrase:
        raise UsageError("a key file needs a passphrase")
    if not name.isprintable() or not 0 < len(name) <= 100:
        raise UsageError("a key's name is 1 to 100 printable characters")
    if not _SCRYPT_N_RANGE[0] <= n <= _SCRYPT_N_RANGE[1] or n & n - 1:
        raise UsageError(f"scrypt n={n} is not a power of two between 2^10 and 2^20")
    _check_type(private_key)
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(_password(passphrase, salt, n)),
    )
    public = public_bytes(private_key)
    return KeyFile(name, public, pem.decode("ascii"), n, _SCRYPT_R, _SCRYPT_P, salt).format()


def decrypt(raw: bytes, passphrase: bytes) -> PrivateKey:
    """The private key, once the passphrase opened it and it proved to belong to the public half."""
    found = KeyFile.parse(raw)
    try:
        key = serialization.load_pem_private_key(
            found.pkcs8.encode("ascii"), _password(passphrase, found.salt, found.n)
        )
    except (ValueError, TypeError, UnicodeError) as error:
        raise UsageError(f"wrong passphrase for key {found.name!r}, or its file is damaged") from error
    except UnsupportedAlgorithm as error:
        raise MalformedError(f"key file {found.name!r} holds a key of an unknown kind") from error
    if not isinstance(key, PrivateKey):
        raise MalformedError(f"key file {found.name!r} holds a {type(key).__name__}, which we do not use")
    _check_type(key)
    if public_bytes(key) != found.public_key:
        raise SignatureError(f"key file {found.name!r}: its public half is not that of its private key")
    return key


def public_bytes(private_key: PrivateKey) -> bytes:
    """SPKI DER of a private key's public half."""
    return private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_type(key: PrivateKey) -> None:
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"ECDSA keys here are on P-256, this one is on {key.curve.name}")


def _password(passphrase: bytes, salt: bytes, n: int) -> bytes:
    secret = Scrypt(salt=salt, length=32, n=n, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)
    return base64.b64encode(secret)


def _from_document(document: dict[str, object]) -> KeyFile:
    scrypt = document["scrypt"]
    if document["format"] != FORMAT or not isinstance(scrypt, dict):
        raise ValueError("format")
    name, public_key, pkcs8 = document["name"], document["public_key"], document["pkcs8"]
    n, r, p, salt = scrypt["n"], scrypt["r"], scrypt["p"], scrypt["salt"]
    if not all(isinstance(text, str) for text in (name, public_key, pkcs8, salt)):
        raise TypeError("text expected")
    if not all(type(number) is int for number in (n, r, p)):
        raise TypeError("integer expected")
    return KeyFile(str(name), _base64(str(public_key)), str(pkcs8), n, r, p, _base64(salt))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("base64") from error
