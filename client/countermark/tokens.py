"""Keys on tokens: signing keys that never leave a PKCS#11 device, named by a URI.

    hsm:2?label=ada              ECDSA P-256, object id 2 (a YubiKey's PIV slot 9c), on the token labelled `ada`
    pkcs11ed:2?label=ada         Ed25519, where the device's library speaks PKCS#11 3.0

The library of the device is named by the environment variable PYKCS11LIB, such as
/usr/lib/x86_64-linux-gnu/libykcs11.so. ECDSA is securesystemslib's `HSMSigner`; Ed25519, which it lacks, is
`Ed25519TokenSigner` below. A public half is read without a PIN and proves nothing; `open_signer` logs in, and
whoever uses a signature verifies it with the public half that was expected.

python-pkcs11 is an extra of the distributions that use tokens: nothing imports it until a URI names one. A PIN
is tried once and never again by itself, because devices lock after three wrong ones. What this module does not
promise: that a device which says "never extractable" tells the truth, or that SoftHSM is more than a file.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import HSMSigner, Key, SecretsHandler, Signature, Signer, SSlibKey

from countermark.errors import MalformedError, SignatureError, UsageError
from countermark.statement import keyid_of, load_public_key, spki_of
from countermark.values import dataclass

LIBRARY_VARIABLE = "PYKCS11LIB"
P256, ED25519 = "hsm", "pkcs11ed"  # the URI schemes, which say the kind of key
_URI = re.compile(r"(hsm|pkcs11ed):(0|[1-9][0-9]{0,4})\?label=([^&#]{1,100})")
_ED25519_PARAMS = b"\x13\x0cedwards25519"  # CK_EC_PARAMS: a PrintableString (PKCS#11 3.0, section 2.3.5)
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


@dataclass(frozen=True)
class Place:
    """Where a key lies: the kind of key, its object id, the label of its token."""

    scheme: str
    id: int
    label: str

    @property
    def uri(self) -> str:
        """The one spelling of this place."""
        return f"{self.scheme}:{self.id}?label={quote_plus(self.label)}"

    @classmethod
    def parse(cls, uri: str) -> Place:
        """The place a URI names. UsageError: it is not one of ours."""
        found = _URI.fullmatch(uri)
        place = cls(found[1], int(found[2]), unquote_plus(found[3])) if found else None
        if place is None or place.uri != uri or not place.label.isprintable():
            raise UsageError(
                f"{uri!r} names no key on a token",
                hint="write hsm:ID?label=LABEL for ECDSA P-256, or pkcs11ed:ID?label=LABEL for Ed25519",
            )
        return place


@dataclass(frozen=True)
class Device:
    """What a token says of itself."""

    vendor: str
    model: str
    serial: str


class TokenSigner:
    """A `statement.Signer` whose private key is on a token; it logs in for every signature."""

    def __init__(self, signer: Signer, public_key: bytes, place: Place) -> None:
        self._signer = signer
        self._place = place
        self.public_key = public_key
        self.keyid = keyid_of(public_key)

    def sign(self, message: bytes) -> bytes:
        with _explained(self._place):
            return bytes.fromhex(self._signer.sign(message).signature)


class Ed25519TokenSigner(Signer):
    """securesystemslib's `Signer` for an Ed25519 key on a token; URI scheme `pkcs11ed`."""

    def __init__(self, place: Place, public_key: SSlibKey, pin_handler: SecretsHandler) -> None:
        self._place = place
        self._public_key = public_key
        self._pin_handler = pin_handler

    @property
    def public_key(self) -> SSlibKey:
        return self._public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Ed25519TokenSigner:
        """A signer for the key at this URI; `secrets_handler` is asked for the PIN at each signature."""
        place = Place.parse(priv_key_uri)
        if place.scheme != ED25519 or not isinstance(public_key, SSlibKey) or public_key.scheme != "ed25519":
            raise ValueError(f"{priv_key_uri} is not the URI of an Ed25519 key on a token")
        if secrets_handler is None:
            raise ValueError("a key on a token needs a PIN")
        return cls(place, public_key, secrets_handler)

    def sign(self, payload: bytes) -> Signature:
        """Log in, sign, log out."""
        pkcs11 = _pkcs11()
        with _token(self._place).open(user_pin=self._pin_handler("pin")) as session:
            key = _object(session, self._place, pkcs11.ObjectClass.PRIVATE_KEY)
            raw: bytes = key.sign(payload, mechanism=pkcs11.Mechanism.EDDSA)
        return Signature(self._public_key.keyid, raw.hex())


def public_key(place: Place) -> bytes:
    """SPKI DER of the key at a place, read without a PIN."""
    pkcs11 = _pkcs11()
    with _explained(place), _token(place).open() as session:
        found = _object(session, place, pkcs11.ObjectClass.PUBLIC_KEY)
        return _spki(found, place)


def device(place: Place) -> Device:
    """What the token at a place says of itself."""
    with _explained(place):
        token = _token(place)
        model = token.model
        if isinstance(model, bytes):
            model = model.decode("utf-8", "replace")
        serial = token.serial
        if isinstance(serial, bytes):
            serial = serial.decode("utf-8", "replace")
        return Device(token.manufacturer_id.strip(), model.strip(), serial.strip())


def open_signer(place: Place, pin: str) -> TokenSigner:
    """A signer for the key at a place, once the PIN opened the token and the private key was found.

    SignatureError: the token's two halves differ, so what it signs would never verify.
    """
    pkcs11 = _pkcs11()
    spki = public_key(place)
    with _explained(place), _token(place).open(user_pin=pin) as session:
        _object(session, place, pkcs11.ObjectClass.PRIVATE_KEY)
    shared = SSlibKey.from_crypto(load_der_public_key(spki))
    kind = HSMSigner if place.scheme == P256 else Ed25519TokenSigner
    signer = kind.from_priv_key_uri(place.uri, shared, lambda _: pin)
    found = TokenSigner(signer, spki, place)
    _check_halves(found, shared, place)
    return found


def generate(place: Place, pin: str, *, name: str) -> bytes:
    """Make a key at a place that holds none; its SPKI DER. It can't be read out of the token again."""
    pkcs11 = _pkcs11()
    ec = importlib.import_module("pkcs11.util.ec")
    p256 = place.scheme == P256
    parameters = ec.encode_named_curve_parameters("secp256r1") if p256 else _ED25519_PARAMS
    kind = pkcs11.KeyType.EC if p256 else pkcs11.KeyType.EC_EDWARDS
    identity = place.id.to_bytes(max(1, (place.id.bit_length() + 7) // 8), "big")
    with _explained(place), _token(place).open(rw=True, user_pin=pin) as session:
        if any(True for _ in session.get_objects({pkcs11.Attribute.ID: identity})):
            raise UsageError(
                f"token {place.label!r} already holds a key with id {place.id}",
                hint="a ceremony never overwrites; choose another id",
            )
        curve = session.create_domain_parameters(kind, {pkcs11.Attribute.EC_PARAMS: parameters}, local=True)
        public, _ = curve.generate_keypair(id=identity, label=name, store=True)
        # Stored. If we stop here, `keys show` finds the key; nothing else names it yet.
        return _spki(public, place)


def _check_halves(signer: TokenSigner, key: SSlibKey, place: Place) -> None:
    """A private key that is not that of the public half is found before anything real is signed."""
    message = b"countermark: whether the two halves on this token belong together"
    try:
        key.verify_signature(Signature(key.keyid, signer.sign(message).hex()), message)
    except UsageError:
        raise
    except Exception as error:
        raise SignatureError(f"token {place.label!r}: its key {place.id} has halves that differ") from error


def _pkcs11() -> Any:
    try:
        return importlib.import_module("pkcs11")
    except ImportError as error:
        raise UsageError(
            "keys on tokens need python-pkcs11, which is not installed",
            hint="install the extra `tokens` together with the three distributions",
        ) from error


def _token(place: Place) -> Any:
    """The one initialised token with this label."""
    pkcs11 = _pkcs11()
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        raise UsageError(
            f"{LIBRARY_VARIABLE} is not set, so the token {place.label!r} cannot be reached",
            hint="set it to the PKCS#11 library of the device, such as .../libykcs11.so",
        )
    try:
        opened = pkcs11.lib(library)
    except (RuntimeError, OSError, pkcs11.exceptions.PKCS11Error) as error:
        raise UsageError(
            f"{LIBRARY_VARIABLE} names {library!r}, which opens as no PKCS#11 library: {error}"
        ) from error
    return opened.get_token(token_label=place.label, token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED)


def _object(session: Any, place: Place, kind: Any) -> Any:
    pkcs11 = _pkcs11()
    key_type = pkcs11.KeyType.EC if place.scheme == P256 else pkcs11.KeyType.EC_EDWARDS
    identity = place.id.to_bytes(max(1, (place.id.bit_length() + 7) // 8), "big")
    return session.get_key(kind, key_type, id=identity)


def _spki(found: Any, place: Place) -> bytes:
    if place.scheme == P256:
        encoded = importlib.import_module("pkcs11.util.ec").encode_ec_public_key(found)
        return spki_of(load_public_key(encoded))  # any other curve or spelling is refused
    point = bytes(found[_pkcs11().Attribute.EC_POINT])
    raw = point.removeprefix(b"\x04\x20")  # an OCTET STRING of 32 bytes; some libraries leave its header out
    if len(raw) != 32:
        raise MalformedError(f"token {place.label!r}: its key {place.id} is not an Ed25519 point")
    return _ED25519_SPKI + raw


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """PKCS#11's errors as sentences that name the token and the next step."""
    problems = _pkcs11().exceptions
    token = f"token {place.label!r}"
    try:
        yield
    except (problems.PinIncorrect, problems.PinInvalid, problems.PinLenRange) as error:
        hint = "a device locks after a few wrong PINs, often three: be sure before the next try"
        raise UsageError(f"wrong PIN for {token}; nothing was signed", hint=hint) from error
    except problems.PinLocked as error:
        hint = "unlock it with its PUK on another machine, or plan a ceremony without it"
        raise UsageError(
            f"{token} is locked after too many wrong PINs; nothing was signed", hint=hint
        ) from error
    except problems.NoSuchToken as error:
        raise UsageError(
            f"no token labelled {place.label!r} is present", hint="insert it, and try again"
        ) from error
    except problems.MultipleTokensReturned as error:
        hint = "leave one of them inserted"
        raise UsageError(f"several tokens are labelled {place.label!r}", hint=hint) from error
    except (problems.NoSuchKey, problems.MultipleObjectsReturned) as error:
        what = "ECDSA" if place.scheme == P256 else "Ed25519"
        raise UsageError(f"{token} does not hold exactly one {what} key with id {place.id}") from error
    except problems.PKCS11Error as error:
        raise UsageError(f"{token} failed: {type(error).__name__} {error}".rstrip()) from error
    except ValueError as error:  # how HSMSigner says that a token or key went away meanwhile
        raise UsageError(f"{token} failed: {error}") from error
