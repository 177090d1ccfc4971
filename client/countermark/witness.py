"""The witness: it cosigns a log's checkpoint when, and only when, the log has grown without rewriting itself.

    POST /add-checkpoint                        200
    old 3                                       — witness.example/w1 bX75BwAAAABqsTuA9d+1nOjp...
    <b64 hash> ...
    <empty line>
    example.com/registry
    5
    <b64 root hash>
    <empty line>
    — example.com/registry B75KVDgLJcafGOnR...

`old` is the size this witness cosigned last for the origin, the hashes are the consistency proof from
there. Its whole promise is one sentence: *a checkpoint I sign at time T extends every checkpoint of that
origin I signed before.* What it signs is on disk before the answer leaves. It knows nothing about entries;
and a witness run by the log's own operator says nothing about split views.

The decisions are the table of the C2SP text, row by row; the numbers in `add_checkpoint` are its rows. It
is strict: the checkpoint must carry the lines of *every* key of the log that it knows. A request from a
known log that fails rows 7 to 10 is evidence against the log and is kept, once for each checkpoint (a proof that
fails, row 10, may be anybody's forgery; two roots of one size only the log can have signed).

`GET /<hex SHA-256(origin)>/checkpoint` is what was cosigned last, `GET /metrics` counts. State is one
SQLite file beside the key; both are trusted: who can change them can roll this witness back.

Format: https://c2sp.org/tlog-witness (v1.0.0), without the optional sign-subtree.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.disk import create_file, read_file
from countermark.errors import MalformedError, ProofError, SignatureError, UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES, PROOF_MAX_HASHES
from countermark.serving import Request, Response
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, check_signature, covered
from countermark.tlog.merkle import EMPTY_ROOT, check_consistency
from countermark.tlog.note import (
    ED25519_COSIGNATURE,
    Note,
    NoteSigner,
    Signature,
    VerifierKey,
    format_base64,
    open_note,
    parse_base64,
    parse_decimal,
    parse_hash,
)
from countermark.values import dataclass
from countermark.witness_store import WitnessedLog, WitnessStore

KEY_FILE = "witness.key"
STATE_FILE = "witness.sqlite"
SIZE_TYPE = "text/x.tlog.size"
ANSWERS, TREE_SIZE, EVIDENCE = METRICS = (
    ("countermark_witness_answers_total", "counter", "answers of a witness, by request and status"),
    ("countermark_witness_tree_size", "gauge", "size that a witness cosigned last, by origin"),
    ("countermark_witness_evidence", "gauge", "requests that a witness keeps as evidence against a log"),
)


@dataclass(frozen=True)
class AddCheckpoint:
    """A parsed request."""

    old: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        head, separator, raw = body.partition(b"\n\n")
        if not separator:
            raise MalformedError("the request has no empty line before its checkpoint")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise MalformedError("the request's own lines must be ASCII") from None
        word, _, size = first.partition(" ")
        if word != "old":
            raise MalformedError("the request must start with `old <size>`")
        if len(lines) > PROOF_MAX_HASHES:
            raise MalformedError(f"{len(lines)} proof lines; at most {PROOF_MAX_HASHES} are read")
        note = Note.parse(raw)
        proof = tuple(parse_hash(line) for line in lines)
        # Not Checkpoint.parse: an empty tree with a root hash is well-formed here, and evidence (row 7).
        return cls(parse_decimal(size), proof, note, Checkpoint(*covered(note.text)))


class Witness:
    """The engine: a request in, a response out. Threads may share it; decisions are taken one at a time."""

    def __init__(self, store: WitnessStore, signer: NoteSigner, clock: Callable[[], int]) -> None:
        self._store = store
        self._signer = signer
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()

    def __call__(self, request: Request) -> Response:
        if (request.method, request.path) == ("POST", "/add-checkpoint"):
            with self._lock:
                response = self.add_checkpoint(request.body)
                self._answers["add-checkpoint", response.status] += 1
        elif request.method != "GET":
            response = _refusal(405, "only add-checkpoint takes a POST")
        elif request.path == "/metrics":
            response = Response(200, self._metrics())
        else:
            response = self.checkpoint(request.path)
        return response

    def add_checkpoint(self, body: bytes) -> Response:
        """Decide about one request; the comments are the rows of the C2SP table."""
        try:
            request = AddCheckpoint.parse(body)
        except MalformedError as error:
            return _refusal(400, str(error))  # (1) does not parse
        offered = request.checkpoint
        log = self._store.log(offered.origin)
        if log is None:
            return _refusal(404, f"unknown log {offered.origin}")  # (2)
        try:
            log_lines = _log_lines(request.note, log.keys)
        except SignatureError as error:
            return _refusal(403, str(error))  # (3) a trusted key did not sign; (4) or its line is false
        if request.old > offered.size:
            # (5) the claimed old size lies beyond the checkpoint itself
            return _refusal(400, f"old size {request.old} is larger than {offered.size}")
        if request.old != log.size:
            return _conflict(log.size)  # (6)
        rewrite = _rewrite(request, log)
        if rewrite is not None:  # (7) to (10)
            return _refusal(422, rewrite + self._keep(request, log, body, rewrite))
        time = self._clock()
        cosignature = self._signer.sign(offered.text(), time=time)
        cosigned = Note(offered.text(), (*log_lines, cosignature)).format()
        try:
            stored = self._store.advance(log, size=offered.size, root=offered.root_hash, note=cosigned)
        except OSError as error:
            return _refusal(500, f"cannot persist: {error}")  # (12) nothing signed leaves
        if not stored:
            current = self._store.log(offered.origin)
            return _conflict(current.size if current else 0)  # (11) somebody else was faster
        # (13) Persisted. If we stop here the log never sees this cosignature; asking again gives a newer one.
        return Response(200, cosignature.format().encode())

    def _keep(self, request: AddCheckpoint, log: WitnessedLog, body: bytes, rewrite: str) -> str:
        """Keep what speaks against the log; what to add to the answer, which is the same when that fails."""
        offered = request.checkpoint
        proving = (
            request.old == offered.size and offered.root_hash != log.root
        )  # (7) and (9): two signed roots
        try:
            self._store.keep_evidence(
                log.origin, body, rewrite, self._clock(), about=offered.text(), proving=proving
            )
        except sqlite3.Error as error:
            return f" (not kept as evidence: {error})"
        return ""

    def checkpoint(self, path: str) -> Response:
        """The monitoring side: the checkpoint cosigned last, with the log's lines and ours."""
        for log in self._store.logs():
            if path == f"/{hashlib.sha256(log.origin.encode()).hexdigest()}/checkpoint" and log.note:
                return Response(200, log.note, headers={"Cache-Control": "no-cache"})
        return _refusal(404, "nothing cosigned under this name")

    def _metrics(self) -> bytes:
        values = {
            ANSWERS: [
                (f'{{request="{door}",status="{status}"}}', count)
                for (door, status), count in sorted(self._answers.items())
            ],
            TREE_SIZE: [(f'{{origin="{_escaped(log.origin)}"}}', log.size) for log in self._store.logs()],
            EVIDENCE: [("", self._store.evidence_count())],
        }
        lines = []
        for (name, kind, said), samples in values.items():
            lines += [f"# HELP {name} {said}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {value}" for labels, value in samples]
        return "\n".join([*lines, ""]).encode()


def _rewrite(request: AddCheckpoint, log: WitnessedLog) -> str | None:
    """Rows 7 to 10: why this checkpoint does not extend the one we cosigned last; None when it does."""
    offered, old = request.checkpoint, request.old
    if offered.size == 0 and offered.root_hash != EMPTY_ROOT:
        return "size 0 with a root that is not the empty tree's"  # (7)
    if old == 0 and request.proof:
        return "a consistency proof from size 0 must be empty"  # (8)
    if old == offered.size and offered.root_hash != log.root:
        return (
            f"size {old} has the root {format_base64(log.root)} here, "
            f"the checkpoint says {format_base64(offered.root_hash)}"  # (9)
        )
    try:
        check_consistency(
            request.proof, old_size=old, old_root=log.root, new_size=offered.size, new_root=offered.root_hash
        )
    except ProofError as error:
        return str(error)  # (10)
    return None


def _log_lines(note: Note, keys: Sequence[VerifierKey]) -> tuple[Signature, ...]:
    """The log's own lines, verified; SignatureError when one is false or a key of the log did not sign."""
    lines = {opened.key: opened.line for opened in open_note(note, keys, check=check_signature).signatures}
    for key in keys:
        if key not in lines:
            raise SignatureError(f"key {key.key_id.hex()} of {key.name} did not sign this checkpoint")
    return tuple(lines[key] for key in keys)


def _refusal(status: int, text: str) -> Response:
    return Response(status, text.encode() + b"\n")


def _conflict(size: int) -> Response:
    return Response(409, f"{size}\n".encode(), content_type=SIZE_TYPE)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# --- the commands' side: a directory with a key and a state -----------------------------------------------


def create_witness(folder: Path, name: str) -> VerifierKey:
    """Make a witness's key and empty state in `folder`; refuses to touch an existing one."""
    signer = Ed25519CosignatureSigner(name, Ed25519PrivateKey.generate())
    create_file(folder / KEY_FILE, format_private_key(signer).encode())
    WitnessStore.create(folder / STATE_FILE).close()
    return signer.vkey


def load_witness(folder: Path, clock: Callable[[], int]) -> Witness:
    """The witness whose key and state are in `folder`; it must have been created before."""
    return Witness(load_store(folder), load_signer(folder), clock)


def load_store(folder: Path) -> WitnessStore:
    return WitnessStore.load(folder / STATE_FILE)


def load_signer(folder: Path) -> Ed25519CosignatureSigner:
    raw = read_file(folder / KEY_FILE, max_bytes=LOCAL_FILE_MAX_BYTES)
    if raw is None:
        raise UsageError(f'no witness in "{folder}"', hint="countermark witness init --dir DIR --name NAME")
    return parse_private_key(raw.decode("utf-8", "replace"))


def format_private_key(signer: Ed25519CosignatureSigner) -> str:
    """`PRIVATE+KEY+<name>+<key ID>+<base64>`, as Go's note package writes it; unencrypted, since nobody
    is there to type a passphrase when a witness starts."""
    secret = bytes([ED25519_COSIGNATURE]) + signer.private_key.private_bytes_raw()
    return f"PRIVATE+KEY+{signer.name}+{signer.key_id.hex()}+{format_base64(secret)}\n"


def parse_private_key(text: str) -> Ed25519CosignatureSigner:
    parts = text.strip().split("+", maxsplit=4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise MalformedError("the witness's key file is not PRIVATE+KEY+<name>+<key ID>+<base64>")
    secret = parse_base64(parts[4])
    if len(secret) != 33 or secret[0] != ED25519_COSIGNATURE:
        raise MalformedError("the witness's key is not an Ed25519 cosignature key (type 0x04)")
    signer = Ed25519CosignatureSigner(parts[2], Ed25519PrivateKey.from_private_bytes(secret[1:]))
    if signer.key_id.hex() != parts[3]:
        raise MalformedError(f"the witness's key has ID {signer.key_id.hex()}, its file says {parts[3]}")
    return signer
