"""Examples of what is kept on disk, travels to a ceremony, or is answered by the registry.

Made like those of `docs_formats.py`, from the same seeds. Where a module's docstring shows the format itself, that is
the example.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark import keyfile, keyreference, rules
from countermark.actfile import Act
from countermark.bundle import Logged
from countermark.entry import make_entry
from countermark.logbundle import LogBundle, open_log_bundle
from countermark.namespaces import Namespace
from countermark.replay import DictView, put_all
from countermark.statement import sign, spki_of
from countermark.timeline import SeenTimestamp, Timeline
from countermark.tlog import merkle, tile
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import sign_note
from countermark.tufjson import Root
from countermark.values import replace
from docs_formats_entries import statements
from docs_samples import (
    HASH,
    ORIGIN,
    TIME,
    cosigned_checkpoint,
    example,
    fence,
    log_signers,
    made_trust_file,
    publish_statement,
    publisher_signer,
    seed,
    shortened,
    signed_root,
    witness_signer,
)


def _docstring(module: str, *blocks: int) -> str:
    """The n-th indented block of a module's docstring, the first where none is named; several are joined."""
    text = importlib.import_module(module).__doc__ or ""
    found = [part for part in text.split("\n\n") if part.startswith("    ")]
    shown = "\n\n".join(found[block] for block in blocks or (0,))
    return fence("\n".join(line.removeprefix("    ") for line in shown.splitlines()))


@example
def tile_bytes() -> str:
    """The tile of the three entries a, b, c, and their entry bundle, in hex."""
    entries = [b"a", b"b", b"c"]
    hashes = "\n".join(merkle.leaf_hash(entry).hex() for entry in entries)
    bundle = tile.encode_bundle(entries)
    assert tile.decode_bundle(bundle, 3) == entries
    return fence(f"tile/0/000.p/3\n{hashes}\n\ntile/entries/000.p/3\n{bundle.hex(' ')}")


@example
def key_file() -> str:
    """A publisher's key file."""
    key = Ed25519PrivateKey.from_private_bytes(seed(3))
    raw = keyfile.encrypt(key, b"example", name="publisher", salt=bytes(16), n=2**10)
    assert keyfile.decrypt(raw, b"example")
    return fence(json.dumps(shortened(json.loads(raw)), indent=1), "json")


@example
def key_reference() -> str:
    """A publisher's key that the ssh-agent holds."""
    key = Ed25519PrivateKey.from_private_bytes(seed(3))
    where = "ssh-agent:SHA256:" + "kx7W" * 10 + "abc"
    made = keyreference.KeyReference("publisher", where, spki_of(key.public_key()))
    assert keyreference.KeyReference.parse(made.format()) == made
    return fence(made.format().decode(), "json")


@example
def timeline() -> str:
    """What a client remembers of a log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.json"
        seen = SeenTimestamp(44, "9f" * 32, 3)
        Timeline(cosigned_checkpoint(), seen, TIME, TIME + 2, 1).save(path)
        assert Timeline.load(path).timestamp == seen
        shown = shortened(json.loads(path.read_bytes()))
    return fence(json.dumps(shown, indent=1), "json")


@example
def pins() -> str:
    """The folder of a pinned registry."""
    return _docstring("countermark.pins")


@example
def act_file() -> str:
    """An act that one of two has signed."""
    statement = next(each for each in statements() if each.type == "require-approvals")
    raw = Act.begin("https://registry.example", statement, publisher_signer()).format()
    return fence(json.dumps(shortened(json.loads(raw)), indent=1), "json")


@example
def policy_toml() -> str:
    """A client's own policy."""
    return _docstring("countermark.policyfile", 0, 1, 2, 3).replace("```text", "```toml", 1)


@example
def organisations_toml() -> str:
    """A registry's organisations."""
    return _docstring("countermark_server.accounts.orgfile", 0, 1).replace("```text", "```toml", 1)


@example
def namespace_memory() -> str:
    """What a client keeps of a namespace in a log of three entries, none of which is about it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corp.json"
        read = Namespace("corp", 0, DictView())
        put_all(read.view, rules.genesis(origin=ORIGIN, authority_key=publisher_signer().public_key))
        for index, entry in enumerate((b"a", b"b", b"c")):
            read.take(index, entry)
        read.save(path, _checkpoint_root())
        shown = shortened(json.loads(path.read_bytes()))
    return fence(json.dumps(shown, indent=1), "json")


@example
def log_bundle() -> str:
    """A log-only bundle that opens from the example's root."""
    registry = {"identity": None, "key_index": 0, "uploader": "ab" * 16}
    said = replace(publish_statement(), predicate={**publish_statement().predicate, "namespace": "corp"})
    entry = make_entry(type="publish", envelope=sign(said, publisher_signer()), registry=registry, time=TIME)
    leaves = [merkle.leaf_hash(b"a"), entry.leaf_hash, merkle.leaf_hash(b"c")]
    head = Checkpoint(ORIGIN, 3, merkle.root_hash(leaves))
    made = LogBundle(
        namespace="corp",
        index=1,
        checkpoint=sign_note(head.text(), [*log_signers(), witness_signer()], time=TIME).format(),
        trust_file=made_trust_file().format(),
        entries=(Logged(1, entry.raw, merkle.prove_inclusion(1, 3, merkle.reader(leaves))),),
    )
    open_log_bundle(LogBundle.parse(made.format()), Root.parse(signed_root()), now=TIME)
    return fence(json.dumps(shortened(json.loads(made.format())), indent=1), "json")


def _checkpoint_root() -> bytes:
    return merkle.root_hash([merkle.leaf_hash(entry) for entry in (b"a", b"b", b"c")])


@example
def staging() -> str:
    """The staging bundle of a round that takes the log from size 0 to 3."""
    from countermark_server.log.staging import Bundle

    entries = [b"a", b"b", b"c"]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    files = {"tile/0/000.p/3": b"".join(leaves), "tile/entries/000.p/3": tile.encode_bundle(entries)}
    bundle = Bundle(0, 3, merkle.root_hash(leaves), files)
    assert Bundle.decode(bundle.encode()) == bundle
    head = b"\n".join(bundle.encode().split(b"\n")[:2]).decode()
    return fence(f"{bundle.name}\n\n{head}\n<105 bytes of files>")


@example
def witness_store() -> str:
    """The tables of a witness."""
    from countermark.witness_store import SCHEMA

    return fence(SCHEMA.strip(), "sql")


@example
def timestamper_fence() -> str:
    """A number won for a timestamp."""
    owed = hashlib.sha256(b"timestamp 57").hexdigest()
    return _claim(58, "stamp-a", hashlib.sha256(b"signed part of timestamp 58").hexdigest(), ((57, owed),))


@example
def timestamper_fence_taken() -> str:
    """A number won for nothing: a standby took over."""
    return _claim(59, "stamp-b", None, ())


def _claim(version: int, host: str, signs: str | None, owes: tuple[tuple[int, str], ...]) -> str:
    from countermark_server.timestamper.fence import Claim

    holder = hashlib.sha256(host.encode()).hexdigest()[:16]
    claim = Claim(version, holder, host, signs, owes)
    assert Claim.parse(claim.format()) == claim
    return fence(claim.format().decode(), "json")


@example
def problem() -> str:
    """A refusal as HTTP."""
    from countermark_server.errors import ServerError
    from countermark_server.errors import problem as made

    answer = made(
        ServerError("signature-missing", "demo-1.0.tar.gz was not signed"), "https://registry.example"
    )
    headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    return fence(f"HTTP/1.1 {answer.status}\n{headers}\n\n{answer.body.decode()}")


@example
def simple_json() -> str:
    """A simple page with the member of ours."""
    return _docstring("countermark_server.index.simple")


@example
def file_doors() -> str:
    """The doors for files."""
    return _docstring("countermark_server.index.files")


@example
def provenance() -> str:
    """The address of PEP 740 objects, and what is there."""
    return _docstring("countermark_server.index.provenance", 0, 1)


@example
def pypi_json() -> str:
    """A project as one document."""
    return _docstring("countermark_server.index.pypi", 0, 1)


@example
def osv() -> str:
    """The doors for advisories, and one of them."""
    return (
        _docstring("countermark_server.index.osv")
        + "\n\n"
        + _docstring("countermark_server.index.advisories")
    )


@example
def ceremony_input() -> str:
    """What `init` hands to a ceremony."""
    return _docstring("countermark_ceremony.handover")


@example
def ceremony_plan() -> str:
    """The template of a plan."""
    path = Path(__file__).resolve().parent.parent / "keys-ceremony/plans/first-root.toml"
    return fence(path.read_text("utf-8"), "toml")


@example
def ceremony_next_plan() -> str:
    """The template of a later plan."""
    path = Path(__file__).resolve().parent.parent / "keys-ceremony/plans/next-root.toml"
    return fence(path.read_text("utf-8"), "toml")


@example
def ceremony_request() -> str:
    """A request to a custodian."""
    return _docstring("countermark_ceremony.exchange")


@example
def ceremony_response() -> str:
    """A custodian's response."""
    from countermark_ceremony.exchange import Response, Signed

    made = Response("ada", HASH["leaf"], (Signed("1.root.json", "8c" * 32, HASH["rules"], bytes(71)),))
    assert Response.parse(made.format()) == made
    return fence(made.format().decode(), "json")


@example
def transcript() -> str:
    """The first two lines of a transcript, and the digest that goes into the root."""
    from countermark_ceremony.transcript import Transcript

    now = datetime.fromtimestamp(TIME, UTC)
    made = Transcript().add("plan accepted", now=now, origin=ORIGIN, plan_sha256=HASH["rules"])
    made = made.add("payloads frozen", now=now, root_sha256=HASH["bins"])
    assert Transcript.parse(made.format()) == made
    return fence(f"{made.format().decode()}\nSHA-256: {hashlib.sha256(made.format()).hexdigest()}")
