"""google.cloud.kms as GCPSigner calls it: GetPublicKey in PEM, AsymmetricSign with a digest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cloudkeys
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.cloud.kms_v1.types import CryptoKeyVersion


class PublicKey:
    class PublicKeyFormat:
        PEM = 1


def _name(full: str) -> str:
    parts = full.split("/")
    assert parts[0::2] == ["projects", "locations", "keyRings", "cryptoKeys", "cryptoKeyVersions"], full
    return parts[7]


class KeyManagementServiceClient:
    def get_public_key(self, request: dict[str, Any]) -> Any:
        assert set(request) == {"name", "public_key_format"}
        cloudkeys.called(f"gcp GetPublicKey {request['name']}")
        pem = (
            cloudkeys.p256(_name(request["name"]))
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        algorithm = CryptoKeyVersion.CryptoKeyVersionAlgorithm.EC_SIGN_P256_SHA256
        # One line break more than other services: the key id must not depend on it.
        return SimpleNamespace(algorithm=algorithm, public_key=SimpleNamespace(data=pem + b"\n"))

    def asymmetric_sign(self, request: dict[str, Any]) -> Any:
        assert set(request) == {"name", "digest"} and set(request["digest"]) == {"sha256"}
        cloudkeys.called(f"gcp AsymmetricSign {request['name']}")
        return SimpleNamespace(
            signature=cloudkeys.sign_digest(_name(request["name"]), request["digest"]["sha256"])
        )
