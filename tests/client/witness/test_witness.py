"""The witness's decision table, row by row, its order, its memory and its doors."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark import cli, witness, witness_store
from countermark.errors import MalformedError, UsageError
from countermark.fetch import HttpFetcher
from countermark.serving import Request, Response, listening
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import MlDsaSigner, check_signature
from countermark.tlog.note import Ed25519NoteSigner, Note, Signature, format_base64, open_note
from countermark.witness_store import WitnessStore
from tests.failing_commit import FailingCommit

ORIGIN = "log.test/countermark"
NOW = 1_763_800_000
PATH = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
LEAVES = [merkle.leaf_hash(b"entry %d" % i) for i in range(40)]
OTHER = [merkle.leaf_hash(b"forged %d" % i) for i in range(40)]
LOG = (
    Ed25519NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)),
    MlDsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(bytes([2]) * 32)),
)
STRANGER = Ed25519NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))


def root(size: int, leaves: Sequence[bytes] = LEAVES) -> bytes:
    return merkle.root_hash(leaves[:size])


def note(
    size: int, *, leaves: Sequence[bytes] = LEAVES, signers=LOG, origin: str = ORIGIN, root_hash=None
) -> Note:
    text = Checkpoint(origin, size, root_hash or root(size, leaves)).text()
    return Note(text, tuple(signer.sign(text, time=NOW) for signer in signers))


def body(old: int, checkpoint: Note | bytes, proof: Sequence[bytes] | None = None) -> bytes:
    if proof is None:
        size = int(checkpoint.text.split("\n")[1]) if isinstance(checkpoint, Note) else old
        proof = merkle.prove_consistency(old, size, merkle.reader(LEAVES)) if 0 < old <= size else ()
    head = "\n".join([f"old {old}", *map(format_base64, proof)])
    raw = checkpoint.format() if isinstance(checkpoint, Note) else checkpoint
    return head.encode() + b"\n\n" + raw


class World:
    """A witness that knows one log, and what it remembers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vkey = witness.create_witness(folder, "witness.test/w1")
        self.store = witness.load_store(folder)
        self.store.add_log([signer.vkey for signer in LOG])
        self.now = NOW
        self.witness = witness.Witness(self.store, witness.load_signer(folder), lambda: self.now)

    def post(self, request: bytes) -> Response:
        return self.witness(Request("POST", "/add-checkpoint", body=request))

    def refuse(self, request: bytes, status: int, text: str = "") -> Response:
        """Expect this refusal, and that the witness remembers what it remembered."""
        before = self.store.logs()
        response = self.post(request)
        assert response.status == status, response
        assert text in response.body.decode()
        assert self.store.logs() == before
        return response


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


def test_a_growing_log_is_cosigned(world: World) -> None:
    """Row 13: the answer is our line, whole tree, at our time; what it says is what the state says."""
    for old, size in [(0, 1), (1, 3), (3, 3), (3, 40)]:
        response = world.post(body(old, note(size)))
        assert response.status == 200, response
        line = Signature.parse(response.body.decode().removesuffix("\n"))
        opened = open_note(Note(note(size).text, (line,)), [world.vkey], check=check_signature)
        assert opened.signatures[0].time == NOW
        log = world.store.log(ORIGIN)
        assert log is not None and (log.size, log.root) == (size, root(size))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"old 0\n",
        b"old 0\n\n",
        b"old 00\n\n" + note(1).format(),
        b"old -1\n\n" + note(1).format(),
        b"old +1\n\n" + note(1).format(),
        "old \u0661\n\n".encode() + note(1).format(),
        b"new 0\n\n" + note(1).format(),
        b"old 0\r\n\r\n" + note(1).format(),
        b"old 0\nAAAA\n\n" + note(1).format(),
        body(0, note(1), [bytes(32)] * 64),
        body(0, note(1).format()[:-1]),
        body(0, note(1).format() + b"x"),
        body(0, Note(note(1).text + "extension\n", note(1).signatures)),
        body(0, b"\xff" * 200),
    ],
)
def test_row_1_what_does_not_parse_is_400(world: World, request_bytes: bytes) -> None:
    """Row 1: empty, truncated, oversized, wrongly encoded and non-canonical requests."""
    world.refuse(request_bytes, 400)


def test_row_2_an_unknown_origin_is_404(world: World) -> None:
    """Row 2, and before the signatures are looked at."""
    world.refuse(body(0, note(1, origin="other.test/log")), 404, "unknown log")


def test_row_3_no_trusted_signature_is_403(world: World) -> None:
    """Row 3: a stranger's signature under the log's name; one of the log's two keys missing."""
    world.refuse(body(0, note(1, signers=[STRANGER])), 403)
    for signer in LOG:
        world.refuse(body(0, note(1, signers=[signer])), 403, "did not sign")


@pytest.mark.parametrize("which", [0, 1])
def test_row_4_a_false_trusted_line_is_403(world: World, which: int) -> None:
    """Row 4: a known key's line that does not verify, the other line being good."""
    good = note(1)
    lines = list(good.signatures)
    sig = bytearray(lines[which].sig)
    sig[-1] ^= 1
    lines[which] = replace(lines[which], sig=bytes(sig))
    world.refuse(body(0, Note(good.text, tuple(lines))), 403, "false")


def test_row_5_old_beyond_the_checkpoint_is_400(world: World) -> None:
    """Row 5."""
    world.refuse(body(5, note(3), ()), 400, "old size 5")


def test_row_6_another_old_is_409_with_our_size(world: World) -> None:
    """Row 6: the body is our size in the size type, also at first contact."""
    response = world.refuse(body(1, note(3)), 409)
    assert (response.body, response.content_type) == (b"0\n", "text/x.tlog.size")
    world.post(body(0, note(3)))
    assert world.refuse(body(0, note(5)), 409).body == b"3\n"
    assert world.refuse(body(2, note(5)), 409).body == b"3\n"


@pytest.mark.parametrize(
    ("grown", "request_bytes", "text"),
    [
        (0, body(0, note(0, root_hash=bytes(32))), "size 0"),  # row 7
        (0, body(0, note(3), [bytes(32)]), "must be empty"),  # row 8
        (3, body(3, note(3, leaves=OTHER), ()), "size 3"),  # row 9
        (3, body(3, note(5, leaves=OTHER)), ""),  # row 10
        (3, body(3, note(5), ()), ""),
        (3, body(3, note(5), [bytes(32)] * 3), ""),
        (3, body(3, note(3), [bytes(32)]), ""),
    ],
)
def test_rows_7_to_10_a_rewrite_is_422_and_kept(
    world: World, grown: int, request_bytes: bytes, text: str
) -> None:
    """Rows 7 to 10: a log we know contradicts itself; the request is kept as evidence, once."""
    if grown:
        assert world.post(body(0, note(grown))).status == 200
    world.refuse(request_bytes, 422, text)
    world.refuse(request_bytes, 422, text)
    assert world.store.evidence_count() == 1


def test_a_forged_line_in_our_name_is_neither_kept_nor_in_the_way(world: World) -> None:
    """Somebody sends the log's checkpoint with a false line in this witness's name: only ours is kept."""
    for old, size in ((0, 1), (1, 3), (3, 40)):
        true = note(size)
        forged = Signature(world.vkey.name, world.vkey.key_id, bytes(72))
        answer = world.post(body(old, Note(true.text, (*true.signatures, forged))))
        assert answer.status == 200, answer
        (log,) = world.store.logs()
        assert log.note is not None
        kept = Note.parse(log.note)
        assert len(kept.signatures) == len(LOG) + 1 and forged not in kept.signatures
        assert open_note(kept, [world.vkey], check=check_signature).signatures[0].time == NOW


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (body(0, note(1, origin="other.test/log", signers=[STRANGER])), 404),  # 2 before 3
        (body(5, note(3, signers=[STRANGER]), ()), 403),  # 3 before 5
        (body(5, note(3), [bytes(32)]), 400),  # 5 before 6
        (body(2, note(3, leaves=OTHER), [bytes(32)]), 409),  # 6 before 10
        (body(0, note(0, root_hash=bytes(32)), [bytes(32)]), 422),  # 7 and 8
    ],
)
def test_the_rows_are_decided_in_order(world: World, request_bytes: bytes, status: int) -> None:
    """Two faults at once: the earlier row answers."""
    world.refuse(request_bytes, status)


def test_row_11_a_lost_race_is_409_with_the_winner(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 11: the state moved between the check and the write."""
    advance = world.store.advance

    def overtaken(log, **new) -> bool:
        assert advance(log, size=7, root=root(7), note=b"x")
        return advance(log, **new)

    monkeypatch.setattr(world.store, "advance", overtaken)
    response = world.post(body(0, note(3)))
    assert (response.status, response.body) == (409, b"7\n")


def test_row_12_nothing_signed_leaves_when_persisting_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: a full disk is a 500 without a signature line."""

    def full(*_: object, **__: object) -> bool:
        raise OSError("disk full")

    monkeypatch.setattr(world.store, "advance", full)
    response = world.refuse(body(0, note(3)), 500, "disk full")
    assert b"witness.test" not in response.body


def test_a_commit_that_failed_is_neither_shown_nor_in_the_way(world: World) -> None:
    """What was not made durable is forgotten: no reader sees its cosignature, and the next request is decided."""
    assert world.post(body(0, note(3))).status == 200
    world.store._connection = FailingCommit(world.store._connection)  # type: ignore[assignment]
    world.refuse(body(3, note(5)), 500, "database is locked")
    assert world.witness.checkpoint(PATH).body.split(b"\n")[1] == b"3"
    assert world.post(body(3, note(4))).status == 200


def test_evidence_that_cannot_be_kept_is_still_a_refusal(world: World) -> None:
    """A full disk does not turn row 9 into silence."""
    assert world.post(body(0, note(3))).status == 200
    world.store._connection = FailingCommit(world.store._connection)  # type: ignore[assignment]
    world.refuse(body(3, note(3, leaves=OTHER), ()), 422, "size 3")
    world.refuse(body(3, note(3, leaves=OTHER), ()), 422, "size 3")
    assert world.store.evidence_count() == 1


def test_junk_proofs_do_not_use_up_the_room_for_evidence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can put a wrong proof before a public checkpoint; two roots of one size only the log can sign."""
    monkeypatch.setattr(witness_store, "EVIDENCE_MAX", 3)
    assert world.post(body(0, note(3))).status == 200
    for number in range(10):
        world.refuse(body(3, note(5), [bytes([number]) * 32]), 422)
    assert world.store.evidence_count() == 1  # one checkpoint is one suspicion
    world.refuse(body(3, note(3, leaves=OTHER), ()), 422, "size 3")
    assert world.store.evidence_count() == 2


def test_threads_cannot_roll_the_witness_back(world: World) -> None:
    """Many submissions at once from one old size: one wins, the others learn the new size."""
    answers: list[Response] = []
    requests = [body(0, note(size)) for size in range(1, 9)]
    threads = [threading.Thread(target=lambda r=r: answers.append(world.post(r))) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, *[409] * 7]


def test_memory_survives_and_a_lost_one_is_not_replaced(world: World, tmp_path: Path) -> None:
    """A restarted witness still refuses; without its state file it does not start at all."""
    assert world.post(body(0, note(5))).status == 200
    again = witness.load_witness(world.folder, lambda: NOW)
    response = again(Request("POST", "/add-checkpoint", body=body(0, note(3))))
    assert (response.status, response.body) == (409, b"5\n")
    (world.folder / witness.STATE_FILE).unlink()
    with pytest.raises(UsageError, match="no witness state"):
        witness.load_witness(world.folder, lambda: NOW)
    with pytest.raises(UsageError, match="already exists"):
        witness.create_witness(world.folder, "other")
    with pytest.raises(UsageError, match="no witness in"):
        witness.load_signer(tmp_path)


def test_state_is_durable_before_the_answer(world: World) -> None:
    """The file as another process sees it holds the head at the moment the answer is made."""
    assert world.post(body(0, note(4))).status == 200
    with sqlite3.connect(world.folder / witness.STATE_FILE) as other:
        assert other.execute("SELECT size FROM log").fetchone() == (4,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_reading_and_metrics(world: World) -> None:
    """The monitoring path serves log lines and ours; 404 before the first cosignature; metrics count."""
    path = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert world.witness(Request("GET", path)).status == 404
    world.post(body(0, note(2)))
    world.post(b"junk")
    served = Note.parse(world.witness(Request("GET", path)).body)
    assert [line.name for line in served.signatures] == [ORIGIN, ORIGIN, "witness.test/w1"]
    metrics = world.witness(Request("GET", "/metrics")).body.decode()
    assert 'countermark_witness_answers_total{request="add-checkpoint",status="200"} 1' in metrics
    assert 'countermark_witness_answers_total{request="add-checkpoint",status="400"} 1' in metrics
    assert f'countermark_witness_tree_size{{origin="{ORIGIN}"}} 2' in metrics
    assert world.witness(Request("POST", "/other")).status == 405
    assert world.witness(Request("GET", "/other")).status == 404


def test_adding_a_log_again_keeps_its_head(world: World) -> None:
    """New keys for a known origin never reset what was seen; keys of two origins are refused."""
    world.post(body(0, note(5)))
    log = world.store.add_log([LOG[0].vkey])
    assert (log.size, log.keys) == (5, (LOG[0].vkey,))
    with pytest.raises(UsageError, match="one origin"):
        world.store.add_log([LOG[0].vkey, world.vkey])


@pytest.mark.parametrize("text", ["", "PRIVATE+KEY+w", "PRIVATE+KEY+w+00000000+BAAA", "PUBLIC+KEY+a+b+c"])
def test_a_damaged_key_file_is_refused(text: str) -> None:
    """The key's text form is parsed whole."""
    with pytest.raises(MalformedError):
        witness.parse_private_key(text)


def test_the_commands_and_the_wire(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """init prints the vkey, add-log takes both keys, and the served witness answers over HTTP."""
    folder = str(tmp_path / "w")
    assert cli.main(["witness", "init", "--dir", folder, "--name", "witness.test/w1"]) == 0
    vkey = capsys.readouterr().out.strip()
    assert vkey.startswith("witness.test/w1+")
    vkeys = [word for signer in LOG for word in ("--vkey", signer.vkey.format())]
    assert cli.main(["witness", "add-log", "--dir", folder, *vkeys]) == 0
    assert cli.main(["witness", "init", "--dir", folder, "--name", "w"]) == 2
    assert "already exists" in capsys.readouterr().err
    engine = witness.load_witness(Path(folder), lambda: NOW)
    with listening(engine, "127.0.0.1", 0, max_body=140_000) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            answer = HttpFetcher().post(
                f"{server.url}/add-checkpoint", body(0, note(3)), content_type="text/plain"
            )
            assert (answer.status, answer.body[:3]) == (200, "—".encode())
        finally:
            server.shutdown()
            thread.join()


def test_a_store_is_not_created_over_another(tmp_path: Path) -> None:
    """Create is not load."""
    WitnessStore.create(tmp_path / "s").close()
    with pytest.raises(UsageError, match="already exists"):
        WitnessStore.create(tmp_path / "s")
