"""The ssh-agent as a publisher's key: the real one signs what readers verify; one that lies gets nowhere."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark import commands_key, keyreference, signer
from countermark.agent import Agent
from countermark.errors import CountermarkError, MalformedError, SignatureError, UsageError
from countermark.keyreference import KeyReference
from countermark.limits import AGENT_ANSWER_MAX_BYTES, AGENT_KEYS_MAX
from countermark.statement import Statement, open_envelope, sign, spki_of
from tests.sshagent import Session, running

STATEMENT = Statement(
    subject_name="acme-1.0.tar.gz",
    subject_sha256="5e" * 32,
    type="publish",
    predicate={
        "length": 9,
        "metadata_sha256": "3e" * 32,
        "namespace": "",
        "origin": "registry.test/log",
        "prev": None,
        "project": "acme",
        "record_sha256": None,
        "version": "1.0",
    },
)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with running(tmp_path) as made:
        yield made


def test_a_key_of_the_agent_signs_what_every_reader_verifies(session: Session, tmp_path: Path) -> None:
    """Named once, it is a key like any other: a plain Ed25519 signature over the DSSE bytes."""
    fingerprint = session.key("lin", "-t", "ed25519")
    key = signer.add_key(tmp_path / "keys", "publisher", "ssh-agent", environment=session.environment)
    assert key.where == f"ssh-agent:{fingerprint}" and signer.load_key(tmp_path / "keys", "publisher") == key
    envelope = sign(STATEMENT, signer.open_signer(key, environment=session.environment))
    opened = open_envelope(envelope, {key.keyid: key.file.public_key})
    assert opened.statement == STATEMENT and opened.keyids == (key.keyid,)
    assert b"PRIVATE" not in key.path.read_bytes() and key.path.stat().st_mode & 0o777 == 0o600


class Terminal(io.StringIO):
    """A person at a keyboard, and what they type."""

    def isatty(self) -> bool:
        return True


def test_a_fresh_key_is_offered_first_and_one_of_the_agent_by_choice(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enter takes the fresh one; it is said that a known key says who one is; nobody at hand is asked nothing."""
    fingerprint = session.key("lin", "-t", "ed25519")
    for name, value in session.environment.items():
        monkeypatch.setenv(name, value)
    chosen = {"": None, "1": None, "2": f"ssh-agent:{fingerprint}"}
    for typed, expect in chosen.items():
        monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n"))
        assert commands_key.chosen_place() == expect
        told = capsys.readouterr().err
        fresh, known = (line for line in told.splitlines() if "  1  " in line or "  2  " in line)
        assert "a fresh one, which nobody knows" in fresh
        assert fingerprint in known and "who knows it knows you, for ever" in known
    for typed in ("3", "0", "lin"):
        monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n"))
        with pytest.raises(UsageError):
            commands_key.chosen_place()
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("2\n"))  # a pipe
    assert commands_key.chosen_place() is None
    monkeypatch.setattr("sys.stdin", Terminal("2\n"))
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert commands_key.chosen_place() is None and not capsys.readouterr().err


def test_what_the_agent_does_not_hold_now_is_said(session: Session, tmp_path: Path) -> None:
    """The key was taken out, the agent is gone, there never was one: each with the next step."""
    session.key("lin", "-t", "ed25519")
    key = signer.add_key(tmp_path / "keys", "publisher", "ssh-agent", environment=session.environment)
    session.forget("lin")
    with pytest.raises(UsageError, match=f"does not hold the key {key.keyid[:16]} now"):
        signer.open_signer(key, environment=session.environment)
    with pytest.raises(UsageError, match="cannot be asked: No such file"):
        signer.open_signer(key, environment={"SSH_AUTH_SOCK": str(tmp_path / "nobody")})
    with pytest.raises(UsageError, match="SSH_AUTH_SOCK is not set") as refused:
        signer.open_signer(key, environment={})
    assert "ssh-add" in str(refused.value.hint)


def test_several_keys_are_named_and_other_kinds_refused_with_the_reason(
    session: Session, tmp_path: Path
) -> None:
    """Nobody guesses which key a person means; RSA and P-384 sign no statements."""
    rsa = session.key("rsa", "-t", "rsa", "-b", "2048")
    with pytest.raises(UsageError, match="ssh-rsa is no Ed25519 key"):
        keyreference.find("publisher", "ssh-agent", session.environment)
    first, second = session.key("one", "-t", "ed25519"), session.key("two", "-t", "ed25519")
    with pytest.raises(UsageError, match="several keys") as refused:
        keyreference.find("publisher", "ssh-agent", session.environment)
    assert all(f"ssh-agent:{each}" in str(refused.value) for each in (first, second))
    assert rsa not in str(refused.value)
    found = keyreference.find("publisher", f"ssh-agent:{second}", session.environment)
    assert found.where == f"ssh-agent:{second}"
    with pytest.raises(UsageError, match="ssh-rsa is no Ed25519 key"):
        keyreference.find("publisher", f"ssh-agent:{rsa}", session.environment)
    with pytest.raises(UsageError, match="holds no key SHA256:nobody"):
        keyreference.find("publisher", "ssh-agent:SHA256:nobody", session.environment)


def test_a_key_of_the_agent_is_followed_by_a_key_file(session: Session, tmp_path: Path) -> None:
    """Rotation: the agent's key vouches for the new one, and stays under its own name."""
    session.key("lin", "-t", "ed25519")
    environment = {**session.environment, "COUNTERMARK_PASSPHRASE": "correct horse"}
    key = signer.add_key(tmp_path / "keys", "publisher", "ssh-agent", environment=environment)
    old, new = signer.begin_rotation(tmp_path / "keys", "publisher", environment=environment)
    assert old.keyid == key.keyid != new.keyid
    kept = signer.finish_rotation(tmp_path / "keys", "publisher")
    assert kept.keyid == key.keyid and kept.where == key.where
    now = signer.load_key(tmp_path / "keys", "publisher")
    assert now.keyid == new.keyid
    assert signer.open_signer(now, environment=environment).keyid == new.keyid


# --- an agent that lies -------------------------------------------------------------------------------------

KEY = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


BLOB = text(b"ssh-ed25519") + text(KEY.public_key().public_bytes_raw())
LISTED = bytes([12]) + struct.pack(">I", 1) + text(BLOB) + text(b"lin@workstation")


class Liar:
    """A channel that answers what it was told, whatever is asked."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer, self._rest = answer, b""

    def sendall(self, data: bytes, /) -> None:
        assert struct.unpack(">I", data[:4])[0] == len(data) - 4
        self._rest = self._answer(data[4:])

    def recv(self, size: int, /) -> bytes:
        part, self._rest = self._rest[: min(size, 7)], self._rest[min(size, 7) :]
        return part

    def close(self) -> None:
        pass


def honest(request: bytes) -> bytes:
    if request[0] == 11:
        return text(LISTED)
    at = 1 + 4 + len(BLOB)
    message = request[at + 4 : at + 4 + struct.unpack(">I", request[at : at + 4])[0]]
    return text(bytes([14]) + text(text(b"ssh-ed25519") + text(KEY.sign(message))))


def signing(answer: Callable[[bytes], bytes]) -> Agent:
    """An agent that lists honestly and signs as it likes."""
    return Agent(lambda: Liar(lambda request: honest(request) if request[0] == 11 else answer(request)))


def test_the_honest_one_is_believed() -> None:
    """The stand-in that the lies below are made from signs as the real one does."""
    agent = Agent(lambda: Liar(honest))
    assert [(k.kind, k.comment) for k in agent.held()] == [("ssh-ed25519", "lin@workstation")]
    spki = spki_of(KEY.public_key())
    open_envelope(sign(STATEMENT, agent.signer(spki)), {agent.signer(spki).keyid: spki})


def test_no_changed_byte_of_an_answer_makes_a_signature() -> None:
    """Every byte of a signature's answer, one bit each: refused, whatever it was."""
    spki = spki_of(KEY.public_key())
    whole = honest(bytes([13]) + text(BLOB) + text(b"message") + bytes(4))
    refused = 0
    for at in range(len(whole)):
        lie = whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        try:
            raw = signing(lambda _, lie=lie: lie).signer(spki).sign(b"message")
        except (MalformedError, SignatureError):
            refused += 1
        else:  # the name of the signature's kind: what counts is that it verifies
            assert raw == KEY.sign(b"message") and 13 <= at < 24
    assert refused == len(whole) - len("ssh-ed25519")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (text(b"\5"), "refused to say what it holds"),
        (b"", "hung up"),
        (struct.pack(">I", 0), "answers with 0 bytes"),
        (struct.pack(">I", AGENT_ANSWER_MAX_BYTES + 1), f"answers with {AGENT_ANSWER_MAX_BYTES + 1} bytes"),
        (text(bytes([12]) + struct.pack(">I", AGENT_KEYS_MAX + 1)), f"holds {AGENT_KEYS_MAX + 1} keys"),
        (text(LISTED + b"\0"), "goes on where it should end"),
        (text(LISTED[:-1]), "ends where it should go on"),
        (text(LISTED[:5] + text(text(b"ssh-ed25519") + text(b"short")) + text(b"")), "of 5 bytes"),
    ],
)
def test_a_list_that_is_none_is_refused(answer: bytes, said: str) -> None:
    """Lengths, counts and ends are checked before anything is believed."""
    with pytest.raises(CountermarkError, match=said):
        Agent(lambda: Liar(lambda _: answer)).held()


def test_a_key_on_a_security_key_is_refused_with_the_reason() -> None:
    """Its signatures are of something else than the statement."""
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = text(kind) + text(KEY.public_key().public_bytes_raw()) + text(b"ssh:")
    answer = text(bytes([12]) + struct.pack(">I", 1) + text(blob) + text(b"yubikey"))
    agent = Agent(lambda: Liar(lambda _: answer))
    (held,) = agent.held()
    with pytest.raises(UsageError, match="together with a counter of its device"):
        keyreference._agent_key(agent, held.fingerprint)


def test_every_byte_of_a_reference_counts() -> None:
    """A reference has one spelling; a changed one is another place, another key, or refused."""
    whole = KeyReference("publisher", "ssh-agent:SHA256:abc", spki_of(KEY.public_key()))
    raw = whole.format()
    assert KeyReference.parse(raw) == whole and keyreference.is_reference(raw)
    for at in range(len(raw)):
        for other in (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], raw[:at] + raw[at + 1 :]):
            try:
                assert KeyReference.parse(other) != whole
            except MalformedError:
                continue
    assert base64.b64encode(whole.public_key) in raw
