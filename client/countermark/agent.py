"""The ssh-agent: a local process that holds private keys and signs when it is asked. Alone here is talked to it.

    agent = Agent.at_hand(os.environ)
    for key in agent.held():
        key.fingerprint, key.comment         # "SHA256:kx7W...", "lin@workstation"
    signer = agent.signer(key.public_key)    # a `statement.Signer`

A request is a length (u32), a type (u8) and a body, over the Unix socket that SSH_AUTH_SOCK names:

    11                          which keys?      12  count, then blob and comment of each
    13  blob, message, flags    sign this        14  signature: "ssh-ed25519", then 64 bytes
                                                  5  refused

An Ed25519 key signs the message itself, so what comes back is a plain signature, as any key file makes. Keys on
security keys (`sk-ssh-ed25519@openssh.com`) do not: they sign a hash of the message together with an application,
flags and a counter of the device, which no reader of statements verifies. They are refused; so is every other kind.

What the agent answers is a stranger's: lengths are bounded, and a signature counts once it verifies. What this does
not promise: that nobody else who may open the socket asks the agent as well.

Format: draft-ietf-sshm-ssh-agent (protocol of OpenSSH's PROTOCOL.agent); fingerprints as `ssh-add -l` shows them.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from countermark.errors import MalformedError, SignatureError, UsageError
from countermark.limits import AGENT_ANSWER_MAX_BYTES, AGENT_KEYS_MAX, AGENT_PATIENCE
from countermark.statement import keyid_of, spki_of
from countermark.values import dataclass

SOCKET_VARIABLE = "SSH_AUTH_SOCK"
_ED25519 = b"ssh-ed25519"
_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14


class Channel(Protocol):
    """A connection to an agent: what of a socket is used."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class AgentKey:
    """A key that the agent holds. `public_key` is SPKI DER, or None where its kind signs no statements."""

    kind: str
    comment: str
    fingerprint: str
    blob: bytes
    public_key: bytes | None

    def reason(self) -> str:
        """Why it signs no statements."""
        if self.kind.startswith("sk-"):
            return (
                f"{self.kind} signs a hash of the message together with a counter of its device, and no reader of "
                "statements verifies that"
            )
        return f"{self.kind} is no Ed25519 key, and statements are signed by those"


class Agent:
    """An ssh-agent, asked over a new connection each time."""

    def __init__(self, connect: Callable[[], Channel]) -> None:
        self._connect = connect

    @classmethod
    def at_hand(cls, environment: Mapping[str, str]) -> Agent:
        """The agent of this session. UsageError: there is none, or this system has no such sockets."""
        path = environment.get(SOCKET_VARIABLE)
        if not path:
            raise UsageError(
                f"no ssh-agent is at hand: {SOCKET_VARIABLE} is not set",
                hint='start one with `eval "$(ssh-agent)"` and give it a key with `ssh-add`',
            )
        return cls(lambda: _dial(path))

    def held(self) -> list[AgentKey]:
        """What the agent holds, in its order."""
        reader = _Reader(self._ask(_LIST, b"", _LISTED))
        count = reader.number()
        if count > AGENT_KEYS_MAX:
            raise MalformedError(
                f"the ssh-agent says it holds {count} keys; at most {AGENT_KEYS_MAX} are read"
            )
        found = [_key(reader.string(), reader.string()) for _ in range(count)]
        reader.end()
        return found

    def signer(self, public_key: bytes) -> AgentSigner:
        """The signer of the key with this SPKI. UsageError: the agent does not hold it now."""
        for key in self.held():
            if key.public_key == public_key:
                return AgentSigner(self, key)
        raise UsageError(
            f"the ssh-agent does not hold the key {keyid_of(public_key)[:16]} now",
            hint="`ssh-add -l` shows what it holds; `ssh-add FILE` gives it a key",
        )

    def sign(self, key: AgentKey, message: bytes) -> bytes:
        """The signature, 64 bytes, verified. SignatureError: the agent refused, or its signature is false."""
        reader = _Reader(
            self._ask(_SIGN, _string(key.blob) + _string(message) + struct.pack(">I", 0), _SIGNED)
        )
        signature = _Reader(reader.string())
        reader.end()
        kind, raw = signature.string(), signature.string()
        signature.end()
        try:
            Ed25519PublicKey.from_public_bytes(key.blob[-32:]).verify(raw, message)
        except InvalidSignature:
            raise SignatureError(
                f"the ssh-agent answered with a {kind.decode('ascii', 'replace')} signature that is not by key "
                f"{key.fingerprint}"
            ) from None
        return raw

    def _ask(self, type: int, body: bytes, expected: int) -> bytes:
        """One request; the body of the answer, which is of the type that is expected."""
        try:
            channel = self._connect()
            try:
                channel.sendall(_string(bytes([type]) + body))
                (length,) = struct.unpack(">I", _read(channel, 4))
                if not 1 <= length <= AGENT_ANSWER_MAX_BYTES:
                    raise MalformedError(f"the ssh-agent answers with {length} bytes")
                answer = _read(channel, length)
            finally:
                channel.close()
        except TimeoutError as error:
            patience = int(AGENT_PATIENCE.total_seconds())
            raise UsageError(
                f"the ssh-agent did not answer within {patience} s", hint="does it wait for your consent?"
            ) from error
        except OSError as error:
            raise UsageError(f"the ssh-agent cannot be asked: {error.strerror or error}") from error
        if answer[0] != expected:
            what = "sign" if type == _SIGN else "say what it holds"
            raise SignatureError(
                f"the ssh-agent refused to {what}", hint="is it locked (`ssh-add -X`), or did you say no?"
            )
        return answer[1:]


class AgentSigner:
    """A `statement.Signer` whose private key the agent holds."""

    def __init__(self, agent: Agent, key: AgentKey) -> None:
        if key.public_key is None:
            raise UsageError(f"key {key.fingerprint} ({key.comment}) cannot sign: {key.reason()}")
        self._agent, self._key = agent, key
        self.public_key = key.public_key
        self.keyid = keyid_of(key.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._agent.sign(self._key, message)


class _Reader:
    """Strings and numbers of an answer, in their order."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def number(self) -> int:
        return int(struct.unpack(">I", self._take(4))[0])

    def string(self) -> bytes:
        return self._take(self.number())

    def end(self) -> None:
        if self._at != len(self._raw):
            raise MalformedError("the ssh-agent's answer goes on where it should end")

    def _take(self, count: int) -> bytes:
        taken = self._raw[self._at : self._at + count]
        if len(taken) != count:
            raise MalformedError("the ssh-agent's answer ends where it should go on")
        self._at += count
        return taken


def _key(blob: bytes, comment: bytes) -> AgentKey:
    reader = _Reader(blob)
    kind, public = reader.string(), None
    if kind == _ED25519:
        raw = reader.string()
        reader.end()
        if len(raw) != 32:
            raise MalformedError(f"the ssh-agent shows an Ed25519 key of {len(raw)} bytes")
        public = spki_of(Ed25519PublicKey.from_public_bytes(raw))
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    words = comment.decode("utf-8", "replace")
    return AgentKey(kind.decode("ascii", "replace"), words, f"SHA256:{digest}", blob, public)


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _read(channel: Channel, count: int) -> bytes:
    parts = []
    while count:
        part = channel.recv(min(count, 65536))
        if not part:
            raise MalformedError("the ssh-agent hung up in the middle of its answer")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _dial(path: str) -> Channel:
    if sys.platform == "win32":
        raise UsageError("the ssh-agent of Windows is not reached yet", hint="use a key file: `key new`")
    else:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(AGENT_PATIENCE.total_seconds())
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            raise
        return connection
