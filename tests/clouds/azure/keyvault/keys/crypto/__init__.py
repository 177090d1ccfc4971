"""Sign with a digest; the answer is r and s, 32 bytes each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cloudkeys
from azure.identity import DefaultAzureCredential
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


class SignatureAlgorithm:
    es256, es384, es512 = "ES256", "ES384", "ES512"


class CryptographyClient:
    def __init__(self, key: str, *, credential: DefaultAzureCredential) -> None:
        assert key.startswith("https://") and len(key.split("/")) == 6, key
        self._name = key.split("/")[4]

    def sign(self, algorithm: str, digest: bytes) -> Any:
        assert algorithm == "ES256"
        cloudkeys.called(f"azure Sign {self._name}")
        r, s = decode_dss_signature(cloudkeys.sign_digest(self._name, digest))
        return SimpleNamespace(signature=r.to_bytes(32, "big") + s.to_bytes(32, "big"))
