"""The keys behind the stand-ins: one PEM file each, and a line in `calls` for each call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

P256_DIGEST = 32


class DownError(Exception):
    """What a service that is out of reach raises, whatever its own name for it is."""


def called(what: str) -> None:
    """Note a call; a file `down` beside the keys makes every call fail."""
    folder = Path(os.environ["COUNTERMARK_TEST_CLOUDS"])
    with (folder / "calls").open("a") as stream:
        stream.write(what + "\n")
    if (folder / "down").exists():
        raise DownError("connection refused")


def key(name: str) -> Any:
    """The private key of this name."""
    raw = (Path(os.environ["COUNTERMARK_TEST_CLOUDS"]) / f"{name}.pem").read_bytes()
    return load_pem_private_key(raw, None)


def p256(name: str) -> ec.EllipticCurvePrivateKey:
    found = key(name)
    assert isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1)
    return found


def ed(name: str) -> ed25519.Ed25519PrivateKey:
    found = key(name)
    assert isinstance(found, ed25519.Ed25519PrivateKey)
    return found


def sign_digest(name: str, digest: bytes) -> bytes:
    """DER, over a digest that the caller made."""
    assert len(digest) == P256_DIGEST
    return p256(name).sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
