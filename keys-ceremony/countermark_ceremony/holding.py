"""What a holder holds: a key in an encrypted file, or on a token. Both are asked for by fingerprint, then opened.

The public half is read first, without passphrase or PIN, so that a wrong file or token is refused before any
secret is asked for; secrets are asked for only after the payload's words were shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from countermark import keyfile, tokens
from countermark.errors import UsageError
from countermark.statement import KeySigner, Signer, keyid_of


@dataclass(frozen=True)
class Held:
    """A key that is not open yet: its fingerprint, the secret it asks for, and what the secret opens."""

    fingerprint: str
    asks: str
    open: Callable[[bytes], Signer]


def in_file(raw: bytes) -> Held:
    """The key in a key file."""
    parsed = keyfile.KeyFile.parse(raw)

    def opened(passphrase: bytes) -> Signer:
        private = keyfile.decrypt(raw, passphrase)
        if not isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise UsageError(f"key {parsed.name!r} is neither ECDSA P-256 nor Ed25519; ceremony keys are")
        return KeySigner(private)

    return Held(parsed.keyid, f"passphrase for {parsed.name!r}", opened)


def on_token(uri: str) -> Held:
    """The key on a token."""
    place = tokens.Place.parse(uri)
    fingerprint = keyid_of(tokens.public_key(place))
    return Held(
        fingerprint,
        f"PIN of token {place.label!r}",
        lambda pin: tokens.open_signer(place, pin.decode()),
    )
