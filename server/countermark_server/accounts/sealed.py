"""Sealed values: secrets that must be used again, and so cannot be kept as a hash.

One key, 32 random bytes in `keys/sealing.key`, made on first use and shared by all web processes; AES-256-GCM with
a fresh nonce each time. Whoever has the database alone learns nothing. If the key is lost, nothing opens, and the
people whose refresh tokens these are sign in again.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from countermark_server.accounts.people import Randomness

KEY_BYTES, NONCE_BYTES = 32, 12


class Sealed:
    """Seals and opens values under the key in one file."""

    def __init__(self, path: Path, *, randomness: Randomness = secrets.token_bytes) -> None:
        self._path = path
        self._random = randomness
        self._aead: AESGCM | None = None

    def seal(self, value: str) -> str:
        nonce = self._random(NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher().encrypt(nonce, value.encode(), None)).decode()

    def open(self, sealed: str) -> str:
        """The value; empty where it was sealed under another key, which no provider takes for a refresh token."""
        raw = base64.b64decode(sealed)
        try:
            return self._cipher().decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], None).decode()
        except (InvalidTag, ValueError):
            return ""

    def _cipher(self) -> AESGCM:
        if self._aead is None:
            self._aead = AESGCM(self._key())
        return self._aead

    def _key(self) -> bytes:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.{self._random(4).hex()}")
        if not self._path.exists():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self._random(KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self._path)  # the first of several wins, and all read the same
            finally:
                temporary.unlink()
        return self._path.read_bytes()
