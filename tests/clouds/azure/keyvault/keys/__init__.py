"""azure.keyvault.keys as AzureSigner calls it: the newest version of a key, as a JSON web key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cloudkeys
from azure.identity import DefaultAzureCredential

NEWEST = "0f"  # the version of every key here
KeyVaultKey = SimpleNamespace


class KeyCurveName:
    p_256, p_384, p_521 = "P-256", "P-384", "P-521"


class KeyClient:
    def __init__(self, *, vault_url: str, credential: DefaultAzureCredential) -> None:
        assert vault_url.startswith("https://") and vault_url.endswith(".vault.azure.net/")
        self._url = vault_url

    def get_key(self, name: str) -> Any:
        cloudkeys.called(f"azure GetKey {name}")
        numbers = cloudkeys.p256(name).public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        kid = f"{self._url}keys/{name}/{NEWEST}"
        return SimpleNamespace(key=SimpleNamespace(kty="EC", crv="P-256", x=x, y=y, kid=kid))
