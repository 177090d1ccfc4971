"""checkpoint.py: who must have signed before anybody believes a size and a root hash."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from countermark.errors import EvidenceError, MalformedError, PolicyError, SignatureError, StaleError
from countermark.limits import COSIGNATURE_MAX_SKEW
from countermark.tlog import checkpoint as checkpoint_module
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint, open_checkpoint, open_log_checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, Note, NoteSigner, Signature, sign_note
from countermark.tlog.policy import Policy
from tests.log_samples import (
    LOG,
    LOG_PQ,
    ORIGIN,
    POLICY,
    STRANGER,
    TIME,
    W1,
    W2,
    W3,
    checkpoint,
    ed25519,
    ml_dsa,
    signed,
)

LOG_KEYS = (LOG.vkey, LOG_PQ.vkey)
SKEW = int(COSIGNATURE_MAX_SKEW.total_seconds())
RAW = signed().format()


def without(note: Note, signer: NoteSigner) -> bytes:
    lines = (line for line in note.signatures if (line.name, line.key_id) != (signer.name, signer.key_id))
    return Note(note.text, tuple(lines)).format()


def corrupted(note: Note, signer: NoteSigner) -> bytes:
    """The note with the last bit of this signer's line flipped."""
    lines = [
        Signature(s.name, s.key_id, s.sig[:-1] + bytes([s.sig[-1] ^ 1])) if s.key_id == signer.key_id else s
        for s in note.signatures
    ]
    return Note(note.text, tuple(lines)).format()


def test_a_checkpoint_with_log_and_quorum_opens() -> None:
    """The value says what was proved and by whom."""
    opened = open_checkpoint(RAW, POLICY, now=TIME)
    assert (opened.origin, opened.size, opened.root_hash) == (ORIGIN, 256, checkpoint().root_hash)
    assert opened.raw == RAW
    assert [line.key_id for line in opened.log_signatures] == [LOG.key_id, LOG_PQ.key_id]
    assert dict(opened.cosignatures) == {"w1": TIME, "w2": TIME}
    assert opened.quorum_time == TIME
    with pytest.raises(TypeError):
        opened.cosignatures["w3"] = TIME  # type: ignore[index]


def test_the_example_in_the_docstring_is_real() -> None:
    """It is the checkpoint of the entries a, b, c."""
    shown = re.search(r"\n\n((?:    .*\n)+)", checkpoint_module.__doc__ or "")
    assert shown is not None
    root = merkle.root_hash([merkle.leaf_hash(entry) for entry in (b"a", b"b", b"c")])
    assert re.sub("^    ", "", shown[1], flags=re.M) == Checkpoint("example.com/registry", 3, root).text()


@pytest.mark.parametrize("signer", [LOG, LOG_PQ], ids=["Ed25519", "ML-DSA-44"])
def test_a_checkpoint_stripped_of_a_log_signature_is_refused(signer: NoteSigner) -> None:
    """Every key of the key set must have signed: breaking one algorithm must not be enough."""
    raw = without(signed(), signer)
    with pytest.raises(SignatureError, match=f"not signed by its key {signer.key_id.hex()}"):
        open_checkpoint(raw, POLICY, now=TIME)
    with pytest.raises(SignatureError):
        open_log_checkpoint(raw, LOG_KEYS)


@pytest.mark.parametrize("signer", [LOG, LOG_PQ, W1, W2], ids=["log", "log pq", "w1", "w2"])
def test_a_checkpoint_with_a_corrupted_known_line_is_refused(signer: NoteSigner) -> None:
    """Even where the other lines would satisfy the quorum."""
    note = signed([LOG, LOG_PQ, W1, W2, W3])
    open_checkpoint(note.format(), POLICY, now=TIME)
    with pytest.raises(SignatureError, match="is false"):
        open_checkpoint(corrupted(note, signer), POLICY, now=TIME)


@pytest.mark.parametrize("witnesses", [[], [W1], [W2], [W1, STRANGER], [STRANGER], [W1, W1, W1]])
def test_a_checkpoint_below_its_quorum_is_refused(witnesses: list[NoteSigner]) -> None:
    """Strangers and repetitions do not count; the log's own lines never do."""
    with pytest.raises(SignatureError, match="lacks the quorum two-of-three"):
        open_checkpoint(signed([LOG, LOG_PQ, *witnesses]).format(), POLICY, now=TIME)


def test_a_log_cannot_witness_itself_under_another_name() -> None:
    """A witness line of the policy with the log's own public key does not count."""
    ed = Ed25519CosignatureSigner("independent.example/w", ed25519(1))
    pq = MlDsaSigner("independent.example/w", ml_dsa(1))
    for alias in (ed, pq):
        policy = Policy.parse(
            f"log {LOG.vkey.format()}\nlog {LOG_PQ.vkey.format()}\nwitness w {alias.vkey.format()}\nquorum w\n"
        )
        with pytest.raises(SignatureError, match="cosigned by nobody"):
            open_checkpoint(signed([LOG, LOG_PQ, alias]).format(), policy, now=TIME)


def test_the_logs_ml_dsa_line_is_not_a_witness() -> None:
    """It states a time as a witness does, and still counts as the log's."""
    policy = Policy.parse(
        POLICY.format().replace("group two-of-three 2 w1 w2 w3\nquorum two-of-three", "quorum w1")
    )
    with pytest.raises(SignatureError, match="cosigned by nobody"):
        open_checkpoint(signed([LOG, LOG_PQ]).format(), policy, now=TIME)


@pytest.mark.parametrize("signer", [W1, W2, LOG_PQ], ids=["w1", "w2", "log pq"])
def test_a_signature_ahead_of_the_clock_is_refused(signer: NoteSigner) -> None:
    """Five minutes are allowed, a second more is not, and the error names both times."""
    text = checkpoint().text()
    others = [s for s in (LOG, LOG_PQ, W1, W2, W3) if s is not signer]
    for ahead, accepted in ((SKEW, True), (SKEW + 1, False)):
        lines = [*(s.sign(text, time=TIME) for s in others), signer.sign(text, time=TIME + ahead)]
        raw = Note(text, tuple(lines)).format()
        open_checkpoint(raw, POLICY, now=None)
        if accepted:
            open_checkpoint(raw, POLICY, now=TIME)
        else:
            with pytest.raises(StaleError, match=rf"{signer.name} signed at {TIME + ahead}.*{TIME}"):
                open_checkpoint(raw, POLICY, now=TIME)


def test_a_cosignature_without_a_time_does_not_count() -> None:
    """Time 0 says "consistent", not "the newest I have seen"."""
    text = checkpoint().text()
    lines = [LOG.sign(text), LOG_PQ.sign(text, time=TIME), W1.sign(text, time=TIME), W2.sign(text, time=0)]
    with pytest.raises(SignatureError, match=r"cosigned by w1$"):
        open_checkpoint(Note(text, tuple(lines)).format(), POLICY, now=TIME)


def test_the_quorum_time_is_the_newest_by_which_a_quorum_had_seen_it() -> None:
    """With two of three, the second newest time."""
    text = checkpoint().text()
    lines = [LOG.sign(text), LOG_PQ.sign(text, time=TIME)]
    lines += [w.sign(text, time=TIME + late) for w, late in ((W1, 10), (W2, 30), (W3, 20))]
    opened = open_checkpoint(Note(text, tuple(lines)).format(), POLICY, now=TIME + 30)
    assert opened.quorum_time == TIME + 20


def test_a_log_unknown_to_the_policy_is_refused() -> None:
    """Another origin is nobody we trust, whoever cosigned it."""
    text = Checkpoint("fake.example/registry", 256, checkpoint().root_hash).text()
    fake: list[NoteSigner] = [Ed25519NoteSigner("fake.example/registry", ed25519(1)), W1, W2]
    with pytest.raises(PolicyError, match=r"no log fake\.example/registry"):
        open_checkpoint(sign_note(text, fake, time=TIME).format(), POLICY, now=TIME)


def test_one_log_cannot_sign_for_another() -> None:
    """A known log's keys under a checkpoint with another known log's origin are strangers."""
    other = Ed25519NoteSigner("other.example/log", ed25519(7))
    policy = Policy.parse(f"log {other.vkey.format()}\n" + POLICY.format())
    text = Checkpoint("other.example/log", 256, checkpoint().root_hash).text()
    with pytest.raises(SignatureError, match="not signed by its key"):
        open_checkpoint(sign_note(text, [LOG, LOG_PQ, W1, W2], time=TIME).format(), policy, now=TIME)
    with pytest.raises(PolicyError, match="cannot sign for the log"):
        open_log_checkpoint(sign_note(text, [LOG], time=TIME).format(), [LOG.vkey])


def test_an_empty_tree_has_the_empty_root() -> None:
    """Size 0 with another root hash is refused; with the right one it opens."""
    for root, message in ((merkle.EMPTY_ROOT, None), (bytes(32), "empty tree")):
        text = Checkpoint(ORIGIN, 0, root).text()
        raw = sign_note(text, [LOG, LOG_PQ, W1, W2], time=TIME).format()
        if message is None:
            assert open_checkpoint(raw, POLICY, now=TIME).size == 0
        else:
            with pytest.raises(MalformedError, match=message):
                open_checkpoint(raw, POLICY, now=TIME)


def test_the_logs_own_note_carries_nothing_but_its_verified_lines() -> None:
    """A witness stores and a log submits no line that nobody verified, such as one in the witness's name."""
    forged = Signature(W1.name, W1.key_id, bytes(72))
    note = signed([LOG_PQ, W2, LOG])
    raw = Note(note.text, (forged, *note.signatures)).format()
    opened = open_log_checkpoint(raw, LOG_KEYS)
    assert Note.parse(opened.log_note()).signatures == (note.signatures[2], note.signatures[0])
    assert opened.raw == raw
    assert open_log_checkpoint(opened.log_note(), LOG_KEYS).root_hash == checkpoint().root_hash


@pytest.mark.parametrize("keys", [(), (STRANGER.vkey,)])
def test_a_log_checkpoint_without_a_known_key_is_refused(keys: Sequence[object]) -> None:
    """No keys, no belief."""
    with pytest.raises(SignatureError):
        open_log_checkpoint(RAW, keys)  # type: ignore[arg-type]


def test_a_policy_without_witnesses_still_asks_for_the_log() -> None:
    """`quorum none` is satisfied by nobody; its time is the newest cosignature's, or 0."""
    policy = Policy.parse(re.sub(r"group.*\nquorum.*\n", "quorum none\n", POLICY.format()))
    assert open_checkpoint(signed([LOG, LOG_PQ]).format(), policy, now=TIME).quorum_time == 0
    assert open_checkpoint(signed([LOG, LOG_PQ, W3]).format(), policy, now=TIME).quorum_time == TIME
    with pytest.raises(SignatureError):
        open_checkpoint(signed([LOG, W3]).format(), policy, now=TIME)


def test_every_truncation_of_a_checkpoint_is_refused() -> None:
    """Cut anywhere, a checkpoint is malformed or lacks somebody's signature."""
    for length in range(0, len(RAW), 1 if len(RAW) < 500 else 13):
        with pytest.raises(EvidenceError):
            open_checkpoint(RAW[:length], POLICY, now=TIME)


def test_nobody_but_this_module_makes_a_verified_checkpoint() -> None:
    """The types are worth what this test is: no other module calls their constructors."""
    made = {"VerifiedCheckpoint", "LogCheckpoint"}
    paths = list(Path(checkpoint_module.__file__).parents[3].glob("*/countermark*/**/*.py"))
    assert len(paths) > 20
    for path in paths:
        if path == Path(checkpoint_module.__file__):
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = (
                    call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                )
                assert name not in made, f"{path} line {call.lineno} makes its own {name}"
