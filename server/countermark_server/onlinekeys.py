"""Online TUF keys by URI: where the keys of bins, snapshot and timestamp lie, and what signs with them.

    keyfile:keys/bins.json                     our own encrypted file, in the data directory (the default)
    hsm:1?label=registry                       ECDSA P-256 on a PKCS#11 token; pkcs11ed: for Ed25519 (tokens.py)
    awskms: gcpkms: azurekms: hv:            in a cloud service (cloudkeys.py)

Settings name one URI for each role, or several with blanks between them while one key follows another. The client
libraries of cloud services are extras of this distribution.

A process opens every key of its roles before it does anything else, and lets each sign a sentence of ours: a key
that does not answer, or whose halves differ, is found at the start and not at the first publish. Which of them
metadata accepts is said by root and index; `holder_of` refuses when that is none of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import CryptoSigner, Key, SecretsHandler, Signature, Signer, SSlibKey

from countermark import keyfile, tokens
from countermark.cloudkeys import CLOUDS, CloudKey, check_kind, key_spki
from countermark.errors import CountermarkError, EvidenceError, NetworkError, SignatureError, UsageError
from countermark.timestamp import smallest
from countermark_server import signing
from countermark_server.settings import Settings

KEYFILE = "keyfile"
SCHEMES = (KEYFILE, tokens.P256, tokens.ED25519, *CLOUDS)
_PROBE = b"countermark: whether the two halves of this online key belong together"


class OnlineSigner(Signer):
    """An online key that says where it lies when it does not sign."""

    def __init__(self, uri: str, public_key: SSlibKey, sign: Callable[[bytes], str]) -> None:
        self.uri = uri
        self._public_key = public_key
        self._sign = sign

    @property
    def public_key(self) -> SSlibKey:
        return self._public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> OnlineSigner:
        """Not ours to answer: `open_keys` opens these, from settings."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """NetworkError: what holds the key did not sign; the next try may."""
        try:
            sig = self._sign(payload)
            # ECDSA: of two twins the smaller, which our clients take for the one that a key makes (timestamp.py)
            return Signature(
                self._public_key.keyid, smallest(sig) if self._public_key.keytype == "ecdsa" else sig
            )
        except CountermarkError:
            raise
        except Exception as error:  # each service has a tree of errors of its own, and all mean this
            raise NetworkError(f"{self.uri} does not sign: {type(error).__name__}: {error}") from error


def uris(settings: Settings, role: str) -> tuple[str, ...]:
    """Where the keys of a role are to be found, as the settings say."""
    if role not in signing.TUF_ROLES:
        raise UsageError(f"{role!r} is not an online TUF role: its metadata comes from a ceremony")
    said = {
        "bins": settings.tuf.bins_key,
        "snapshot": settings.tuf.snapshot_key,
        "timestamp": settings.timestamper.key,
    }[role]
    found = tuple(said.split())
    for uri in found:
        if uri.partition(":")[0] not in SCHEMES:
            raise UsageError(
                f"{setting_of(role)} says {uri!r}, which names no key we can use",
                hint=f"a URI begins with one of {', '.join(f'{scheme}:' for scheme in SCHEMES)}",
            )
    if not found or len(set(found)) != len(found):
        raise UsageError(f"{setting_of(role)} must name at least one key, and none twice")
    return found


def setting_of(role: str) -> str:
    """The setting that says where a role's keys are."""
    return "timestamper.key" if role == "timestamp" else f"tuf.{role}_key"


def public_keys(settings: Settings, role: str) -> tuple[SSlibKey, ...]:
    """The public half behind each URI of a role, in their order. No secret is needed or asked for."""
    return tuple(_public_key(settings, role, uri) for uri in uris(settings, role))


def open_keys(
    settings: Settings, role: str, environ: Mapping[str, str] = os.environ
) -> tuple[OnlineSigner, ...]:
    """A signer for each key of a role, in the order of the setting, each of which has signed a sentence of ours."""
    return tuple(_open(settings, role, uri, environ) for uri in uris(settings, role))


def holder_of(role: str, signers: Sequence[Signer], keyids: Collection[str], where: str) -> Signer:
    """The first of our signers whose key the metadata names. EvidenceError, with both key ids: none is."""
    for signer in signers:
        if signer.public_key.keyid in keyids:
            return signer
    ours = " and ".join(signer.public_key.keyid for signer in signers)
    raise EvidenceError(
        f"{where} delegates {role} to key {' or '.join(sorted(keyids))}, {setting_of(role)} leads to {ours}",
        hint="name the key that the ceremony saw, or hold a ceremony for this one",
    )


def _public_key(settings: Settings, role: str, uri: str) -> SSlibKey:
    scheme, _, rest = uri.partition(":")
    if scheme == KEYFILE:
        spki = keyfile.KeyFile.parse(_read(settings.data / rest, role)).public_key
    elif scheme in CLOUDS:
        spki = _cloud(role, uri).public_key()
    else:
        spki = tokens.public_key(tokens.Place.parse(uri))
    key = SSlibKey.from_crypto(load_der_public_key(spki))
    check_kind(key, uri, setting_of(role))
    return key


def _cloud(role: str, uri: str) -> CloudKey:
    return CloudKey(uri, named_by=setting_of(role), distribution="server")


def _open(settings: Settings, role: str, uri: str, environ: Mapping[str, str]) -> OnlineSigner:
    scheme, _, rest = uri.partition(":")
    key = _public_key(settings, role, uri)
    if scheme == KEYFILE:
        private = keyfile.decrypt(
            _read(settings.data / rest, role), signing.passphrase(settings.data, environ)
        )
        signer = OnlineSigner(uri, key, _hex(CryptoSigner(private, key)))
    elif scheme in CLOUDS:
        signer = OnlineSigner(uri, key, _hex(_cloud(role, uri).open(key_spki(key))))
    else:
        token = tokens.open_signer(tokens.Place.parse(uri), _pin(settings, role))
        signer = OnlineSigner(uri, key, lambda payload: token.sign(payload).hex())
    try:
        key.verify_signature(signer.sign(_PROBE), _PROBE)
    except CountermarkError:
        raise
    except Exception as error:
        raise SignatureError(
            f"{setting_of(role)}: what {uri} signs is not by key {key.keyid}, which it shows"
        ) from error
    return signer


def _hex(signer: Signer) -> Callable[[bytes], str]:
    return lambda payload: signer.sign(payload).signature


def _pin(settings: Settings, role: str) -> str:
    name = settings.timestamper.pin_file if role == "timestamp" else settings.tuf.pin_file
    return _read(settings.data / name, role).decode("utf-8").rstrip("\r\n")


def _read(path: Path, role: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{setting_of(role)} needs {path}: {error.strerror}",
            hint="`countermark-server init` makes the online keys; a PIN is in a file with mode 0600",
        ) from None
