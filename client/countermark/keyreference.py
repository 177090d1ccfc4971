"""Key references: what stands in the keys folder for a private key that is somewhere else.

    {
      "format": "countermark-key-reference/v1",
      "name": "publisher",
      "public_key": "MCowBQYDK2VwAyEA...",
      "where": "ssh-agent:SHA256:kx7W0vJmCk1b0nT2..."
    }

    ssh-agent:FINGERPRINT          an Ed25519 key that the ssh-agent holds (agent.py); `ssh-agent` alone: its only one
    hsm:2?label=lin                ECDSA P-256 on a PKCS#11 token (tokens.py)
    pkcs11ed:2?label=lin           Ed25519 on such a token
    awskms: gcpkms: azurekms: hv:  in a cloud service (cloudkeys.py)

The public half was read when the reference was made, and is what will be enrolled: a place that shows another key
later signs nothing. No secret is in the file. `public_key` is SPKI DER in standard base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature, SSlibKey

from countermark import tokens
from countermark.agent import Agent, AgentKey, AgentSigner
from countermark.cloudkeys import CLOUDS, CloudKey
from countermark.errors import MalformedError, NetworkError, SignatureError, UsageError
from countermark.limits import KEY_FILE_MAX_BYTES
from countermark.statement import Signer, keyid_of, load_public_key
from countermark.values import dataclass

FORMAT = "countermark-key-reference/v1"
AGENT = "ssh-agent"
PIN_VARIABLE = "COUNTERMARK_PIN"
TOKENS = (tokens.P256, tokens.ED25519)
Ask = Callable[[str], str]


@dataclass(frozen=True)
class KeyReference:
    """Where a key lies, and its public half."""

    name: str
    where: str
    public_key: bytes  # SPKI DER

    @property
    def keyid(self) -> str:
        """Hex SHA-256 of the SPKI."""
        return keyid_of(self.public_key)

    def format(self) -> bytes:
        """The file's bytes."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "public_key": base64.b64encode(self.public_key).decode(),
            "where": self.where,
        }
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> KeyReference:
        """The reference in these bytes, in its one spelling."""
        if len(raw) > KEY_FILE_MAX_BYTES:
            raise MalformedError(f"key reference of {len(raw)} bytes, at most {KEY_FILE_MAX_BYTES} are read")
        try:
            document = json.loads(raw)
            found = cls(
                str(document["name"]),
                str(document["where"]),
                base64.b64decode(document["public_key"], validate=True),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MalformedError("this is not a countermark key reference, or it is damaged") from error
        if found.format() != raw:
            raise MalformedError("key reference is not in the form this program writes")
        load_public_key(found.public_key)
        return found


def is_reference(raw: bytes) -> bool:
    """Whether these bytes mean to be a reference, and not a key file."""
    return f'"format": "{FORMAT}"'.encode() in raw[:200]


def find(name: str, where: str, environment: Mapping[str, str]) -> KeyReference:
    """Look at the place, and note the key that is there. UsageError: nothing there could sign."""
    scheme = where.partition(":")[0]
    if scheme == AGENT:
        key = _agent_key(Agent.at_hand(environment), where.partition(":")[2])
        assert key.public_key is not None
        return KeyReference(name, f"{AGENT}:{key.fingerprint}", key.public_key)
    if scheme in TOKENS:
        place = tokens.Place.parse(where)
        return KeyReference(name, place.uri, tokens.public_key(place))
    if scheme in CLOUDS:
        return KeyReference(name, where, _cloud(name, where).public_key())
    raise UsageError(
        f"{where!r} is no place that a key could be in",
        hint=f"write {AGENT}, {AGENT}:FINGERPRINT, hsm:ID?label=LABEL, pkcs11ed:ID?label=LABEL or a URI that begins "
        f"with one of {', '.join(f'{each}:' for each in CLOUDS)}",
    )


def open_reference(reference: KeyReference, environment: Mapping[str, str], ask: Ask) -> Signer:
    """What signs with the key. SignatureError: the place shows another key now."""
    scheme = reference.where.partition(":")[0]
    if scheme == AGENT:
        return Agent.at_hand(environment).signer(reference.public_key)
    if scheme in CLOUDS:
        return CloudSigner(_cloud(reference.name, reference.where), reference.public_key)
    place = tokens.Place.parse(reference.where)
    pin = environment.get(PIN_VARIABLE) or ask(f"PIN of token {place.label}: ")
    signer = tokens.open_signer(place, pin)
    if signer.public_key != reference.public_key:
        raise SignatureError(
            f"{reference.where} holds key {signer.keyid[:16]} now, and {reference.name} is {reference.keyid[:16]}"
        )
    return signer


class CloudSigner:
    """A `statement.Signer` whose private key a cloud service holds; each signature is verified before it is used."""

    def __init__(self, place: CloudKey, public_key: bytes) -> None:
        self._place, self._signer = place, place.open(public_key)
        self.public_key = public_key
        self.keyid = keyid_of(public_key)

    def sign(self, message: bytes) -> bytes:
        """NetworkError: the service did not sign. SignatureError: it signed with another key."""
        try:
            signature = self._signer.sign(message)
        except Exception as error:  # each service has a tree of errors of its own, and all mean this
            raise NetworkError(f"{self._place.uri} does not sign: {type(error).__name__}: {error}") from error
        key = SSlibKey.from_crypto(load_der_public_key(self.public_key))
        try:
            key.verify_signature(Signature(key.keyid, signature.signature), message)
        except UnverifiedSignatureError as error:
            raise SignatureError(f"what {self._place.uri} signs is not by key {self.keyid[:16]}") from error
        return bytes.fromhex(signature.signature)


def _cloud(name: str, uri: str) -> CloudKey:
    return CloudKey(uri, named_by=f'key "{name}"', distribution="client")


def _agent_key(agent: Agent, fingerprint: str) -> AgentKey:
    """The key with this fingerprint, or the only one that can sign."""
    held = agent.held()
    named = [key for key in held if fingerprint in ("", key.fingerprint)]
    fit = [key for key in named if key.public_key is not None]
    if len(fit) == 1:
        return fit[0]
    if not fit:
        if len(named) == 1:
            AgentSigner(agent, named[0])  # says why it cannot
        what = f"no key {fingerprint}" if fingerprint else "no key that signs statements"
        raise UsageError(f"the ssh-agent holds {what}", hint="`ssh-keygen -t ed25519`, then `ssh-add FILE`")
    shown = ", ".join(f"{AGENT}:{key.fingerprint} ({key.comment})" for key in fit)
    raise UsageError(f"the ssh-agent holds several keys that could sign: {shown}", hint="name one of them")
