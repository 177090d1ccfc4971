"""History rewritten, by somebody who holds every online key: the log's two, the timestamper's, the witness's.

    forged = forge(world, world.get("/log/checkpoint"))     # same size, another root, both lines of the log
    ask_witness(world, forged)                              # 422: it has cosigned another root of this size
    with shown(world): ...                                  # clients are shown one, with the witness's stolen key

Used by the act of the demo and by the story under tests/attacks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.insider import unchanged
from tests.world.world import Done, World, must

NO_NETWORK = """\
import socket


class Refusing(socket.socket):
    def connect(self, *_):
        raise OSError("no network here")

    connect_ex = connect


def refuse(*_, **__):
    raise OSError("no network here")


socket.socket, socket.getaddrinfo, socket.create_connection = Refusing, refuse, refuse
"""


def forge(world: World, raw: bytes) -> bytes:
    """Another history of the same size as this checkpoint's, signed by the log's own keys."""
    from countermark.tlog.checkpoint import Checkpoint
    from countermark.tlog.note import Note, sign_note
    from countermark_server import signing
    from countermark_server.settings import load

    true = Checkpoint.parse(Note.parse(raw).text)
    other = Checkpoint(true.origin, true.size, hashlib.sha256(b"another history" + true.root_hash).digest())
    return sign_note(other.text(), signing.log_signers(load(world.data)), time=int(time.time())).format()


def ask_witness(world: World, forged: bytes) -> tuple[int, str]:
    """How the witness answers to a checkpoint of the size it cosigned last."""
    url = json.loads((world.data / "run" / "witness.json").read_text("utf-8"))["url"]
    size = forged.splitlines()[1].decode()
    request = urllib.request.Request(f"{url}/add-checkpoint", f"old {size}\n\n".encode() + forged)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def shown(world: World) -> Iterator[None]:
    """Clients are shown a timestamp that carries another history, cosigned with the witness's stolen key."""
    from countermark.timestamp import Timestamp
    from countermark.tlog.checkpoint import open_checkpoint
    from countermark.tlog.note import Note
    from countermark.witness import load_signer
    from countermark_server import adopted, onlinekeys
    from countermark_server.settings import load
    from countermark_server.stores.public import Public
    from countermark_server.timestamper import carry

    path, now = world.data / "public" / "tuf" / "timestamp.json", int(time.time())
    true = path.read_bytes()
    carried, meta = Timestamp.parse(true), json.loads(true)["signed"]["meta"]["snapshot.json"]
    note = Note.parse(forge(world, carried.checkpoint))
    stolen = load_signer(world.data / "witness").sign(note.text, time=now)
    policy = adopted.trust_file(Public(world.data / "public")).policy
    checkpoint = open_checkpoint(Note(note.text, (*note.signatures, stolen)).format(), policy, now=now)
    snapshot = {"length": meta["length"], "sha256": meta["hashes"]["sha256"], "version": meta["version"]}
    contents = carry.Contents(
        snapshot, checkpoint, carried.bins_root.hex(), carried.bit_length, carried.applied
    )
    signers = onlinekeys.open_keys(load(world.data, {}), "timestamp")
    path.write_bytes(carry.sign(carry.unsigned(contents, carried.version + 1, signers, now=now), signers).raw)
    try:
        yield
    finally:
        path.write_bytes(true)


def rewrite(world: World, wheel: Path) -> tuple[str, Done, Path]:
    """The whole attack: what the witness said, what the client said, and the evidence the client wrote."""
    with unchanged(world):
        world.run("countermark", "verify", wheel)  # this machine has seen the log at its present size
        status, said = ask_witness(world, forge(world, world.get("/log/checkpoint")))
        must(status == 422, f"the witness answered {status}", said)
        before = set((world.root / "home").rglob("evidence/*.json"))
        with shown(world):
            done = world.run("countermark", "verify", wheel, expect=7)
            must("fork: at size" in done.said, "the client does not speak of a fork", done.said)
        written = set((world.root / "home").rglob("evidence/*.json")) - before
        must(len(written) == 1, f"{len(written)} evidence files were written", done.said)
        world.run("countermark", "verify", wheel)  # the true history is accepted as before
    return said, done, written.pop()


def explain(world: World, evidence: Path, root: Path) -> Done:
    """A stranger in another directory, without network, checks the file from the root it trusts."""
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    shutil.copy(evidence, elsewhere / "evidence.json")
    shutil.copy(root, elsewhere / "root.json")
    done = world.run(
        "countermark", "evidence", "check", "--root", "root.json", "evidence.json",
        home="stranger", cwd=elsewhere, PYTHONPATH=str(elsewhere),
    )  # fmt: skip
    must(len(done.out.splitlines()) == 3, "the explanation has not three sentences", done.said)
    must("it is self-proving" in done.out, "the evidence does not prove itself", done.said)
    return done
