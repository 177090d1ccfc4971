"""Keys in cloud services, named by a URI: their public halves, and what signs with them.

    awskms:arn:aws:kms:eu-west-1:...           AWS KMS
    gcpkms:projects/.../cryptoKeyVersions/1    Google Cloud KMS
    azurekms://NAME.vault.azure.net/keys/...   Azure Key Vault
    hv:bins/1                                  HashiCorp Vault, Transit

    place = CloudKey("awskms:arn:...", named_by="tuf.bins_key", distribution="server")
    place.public_key()             # SPKI DER, as the service shows it
    place.open()                   # securesystemslib's signer

These are securesystemslib's signers: their client libraries are extras of our distributions, loaded when a URI asks
for one, and they take address and credentials from the environment, as their pages say.

What this does not promise: that a cloud's key has no copy. Its name is believed; whoever uses a signature verifies
it by the public half that was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import AWSSigner, AzureSigner, GCPSigner, Signer, SSlibKey, VaultSigner

from countermark.errors import CountermarkError, NetworkError, UsageError
from countermark.values import dataclass

CLOUDS: Mapping[str, tuple[type[Signer], str]] = {  # by scheme: who signs, and the extra it needs
    AWSSigner.SCHEME: (AWSSigner, "aws"),
    GCPSigner.SCHEME: (GCPSigner, "gcp"),
    AzureSigner.SCHEME: (AzureSigner, "azure"),
    VaultSigner.SCHEME: (VaultSigner, "vault"),
}
KINDS = ("ed25519", "ecdsa-sha2-nistp256")  # what every client of ours verifies
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


@dataclass(frozen=True)
class CloudKey:
    """A key in a service: its URI, what names it for people, and whose extra brings the library."""

    uri: str
    named_by: str
    distribution: str

    def public_key(self) -> bytes:
        """SPKI DER of what the service shows. NetworkError: it does not answer. UsageError: it is not for us."""
        try:
            found: str
            key: SSlibKey
            found, key = _IMPORTS[self._scheme](self.uri)
        except Exception as error:
            raise self._unanswered(error) from error
        if found != self.uri:
            raise UsageError(
                f"{self.named_by} names {self.uri}, and the service shows {found}",
                hint="a service shows the newest version alone: name that one, or make each new key under a name "
                "of its own",
            )
        check_kind(key, self.uri, self.named_by)
        return key_spki(key)  # services differ in how they spell a PEM, and TUF's key id is of the spelling

    def open(self, public_key: bytes) -> Signer:
        """What signs with it, for this public half. NetworkError: the service does not answer."""
        key = SSlibKey.from_crypto(load_der_public_key(public_key))
        try:
            return CLOUDS[self._scheme][0].from_priv_key_uri(self.uri, key)
        except Exception as error:
            raise self._unanswered(error) from error

    @property
    def _scheme(self) -> str:
        return self.uri.partition(":")[0]

    def _unanswered(self, error: Exception) -> CountermarkError:
        """What went wrong between us and a service: its library is missing, or it did not answer as we need."""
        if isinstance(error, UnsupportedLibraryError):
            extra = CLOUDS[self._scheme][1]
            every = " ".join(
                f"'./{each}[{extra}]'" if each == self.distribution else f"./{each}"
                for each in ("client", "server", "keys-ceremony")
            )
            return UsageError(
                f"{self.named_by} is {self.uri}, and the client library of that service is not installed",
                hint=f"install the extra `{extra}` of the {self.distribution}, with the three distributions: "
                f"pip install {every}",
            )
        return NetworkError(f"{self.named_by}: {self.uri} cannot be opened: {type(error).__name__}: {error}")


def check_kind(key: SSlibKey, uri: str, named_by: str) -> None:
    """UsageError: a key of a kind that clients do not verify."""
    if key.scheme not in KINDS:
        raise UsageError(
            f"{named_by}: {uri} holds a key of kind {key.scheme}, which clients do not verify",
            hint="make an Ed25519 or an ECDSA P-256 key there",
        )


def key_spki(key: SSlibKey) -> bytes:
    """SPKI DER of a TUF key (Ed25519 is stored raw there, others in PEM): what fingerprints are of."""
    public = str(key.keyval["public"])
    if key.keytype == "ed25519":
        return _ED25519_SPKI + bytes.fromhex(public)
    loaded = load_pem_public_key(public.encode("ascii"))
    return loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _import_azure(uri: str) -> tuple[str, SSlibKey]:
    parts = urlsplit(uri)
    return AzureSigner.import_(parts.netloc.partition(".")[0], parts.path.split("/")[2])


_IMPORTS: Mapping[str, Callable[[str], tuple[str, Any]]] = {
    AWSSigner.SCHEME: lambda uri: AWSSigner.import_(uri.partition(":")[2]),
    GCPSigner.SCHEME: lambda uri: GCPSigner.import_(uri.partition(":")[2]),
    AzureSigner.SCHEME: _import_azure,
    VaultSigner.SCHEME: lambda uri: VaultSigner.import_(uri.partition(":")[2].partition("/")[0]),
}
