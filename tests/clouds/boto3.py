"""boto3 as AWSSigner calls it: `client("kms")`, GetPublicKey, Sign with a digest."""

from __future__ import annotations

from typing import Any

import cloudkeys
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class _Kms:
    def get_public_key(self, *, KeyId: str) -> dict[str, Any]:
        cloudkeys.called(f"aws GetPublicKey {KeyId}")
        name = KeyId.rpartition("/")[2]
        der = cloudkeys.p256(name).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"KeyId": KeyId, "PublicKey": der, "SigningAlgorithms": ["ECDSA_SHA_256"]}

    def sign(self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> dict[str, Any]:
        cloudkeys.called(f"aws Sign {KeyId}")
        assert (MessageType, SigningAlgorithm) == ("DIGEST", "ECDSA_SHA_256")
        return {"KeyId": KeyId, "Signature": cloudkeys.sign_digest(KeyId.rpartition("/")[2], Message)}


def client(service: str) -> _Kms:
    assert service == "kms"
    return _Kms()
