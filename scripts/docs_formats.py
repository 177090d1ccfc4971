"""Examples of the formats that travel, made from fixed keys (docs_samples.py) by the code that reads them."""

from __future__ import annotations

import base64
import json

from countermark import bins, tufjson, words
from countermark.bundle import Bundle, Logged, open_bundle
from countermark.canonical import encode_canonical
from countermark.entry import make_entry
from countermark.evidence import Evidence, EvidenceClass
from countermark.statement import sign
from countermark.timestamp import Timestamp
from countermark.tlog import merkle, proof, tile
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import sign_note
from countermark.tlog.policy import Policy
from docs_samples import (
    ORIGIN,
    TIME,
    cosigned_checkpoint,
    example,
    fence,
    log_signers,
    made_trust_file,
    publish_statement,
    publisher_signer,
    shortened,
    signed_metadata,
    signed_root,
    witness_signer,
)


@example
def vkeys() -> str:
    """The key set of the log, and a witness's key."""
    return fence("\n".join(signer.vkey.format() for signer in (*log_signers(), witness_signer())))


@example
def checkpoint() -> str:
    """A cosigned checkpoint of the log with the entries a, b, c."""
    return fence(cosigned_checkpoint().decode())


@example
def policy() -> str:
    """A witness policy."""
    lines = [f"log {signer.vkey.format()}" for signer in log_signers()]
    lines += [f"witness w1 {witness_signer().vkey.format()}", "quorum w1"]
    return fence(Policy.parse("\n".join(lines) + "\n").format())


@example
def tlog_proof() -> str:
    """The proof that entry 1 (b) is in that log."""
    leaves = [merkle.leaf_hash(e) for e in (b"a", b"b", b"c")]

    def read(places: object) -> list[bytes]:
        return [merkle.root_hash(leaves[i << level : (i + 1) << level]) for level, i in places]  # type: ignore[attr-defined]

    hashes = merkle.prove_inclusion(1, 3, read)
    return fence(proof.TlogProof(1, hashes, cosigned_checkpoint()).format().decode())


@example
def tile_paths() -> str:
    """Where the files of a log of 70,000 entries lie."""
    shown = [tile.tile_at(0, 0, 70_000), tile.tile_at(0, 273, 70_000), tile.tile_at(1, 1, 70_000)]
    shown += [tile.tile_at(2, 0, 70_000)]
    paths = [t.path() for t in shown] + [shown[0].bundle().path(), shown[1].bundle().path()]
    return fence("\n".join(paths))


@example
def statement() -> str:
    """The payload that a publisher signs."""
    return fence(publish_statement().payload().decode(), "json")


@example
def attestation() -> str:
    """The file `<dist>.publish.attestation`, which twine and uv upload: a DSSE envelope."""
    envelope = sign(publish_statement(), publisher_signer())
    return fence(json.dumps(json.loads(envelope.to_json()), indent=1), "json")


@example
def leaf() -> str:
    """The leaf of that publish: what the log hashes, on one line."""
    registry = {"identity": None, "key_index": 7, "uploader": "ab" * 16}
    entry = make_entry(
        type="publish", envelope=sign(publish_statement(), publisher_signer()), registry=registry, time=TIME
    )
    return fence(entry.raw.decode(), "json") + f"\nIts leaf hash: `{entry.leaf_hash.hex()}`.\n"


@example
def trust_file() -> str:
    """A trust file."""
    return fence(made_trust_file().format().decode(), "json")


@example
def bin_leaf() -> str:
    """The line of one bin in the tree that the timestamp names."""
    target = {"custom": {"i": 3, "lh": "5a" * 32}, "hashes": {"sha256": "5e" * 32}, "length": 1234}
    targets = {"files/hello-countermark/hello_countermark-1.0.0-py3-none-any.whl": target}
    leaf = bins.BinLeaf(bins.role_name(10, 4), 2, "6e" * 32, bins.targets_root(targets))
    return fence(leaf.format().decode())


@example
def root_words() -> str:
    """The words of a root whose canonical signed part is the two bytes `{}`."""
    return fence(words.root_words(encode_canonical({})))


@example
def timestamp() -> str:
    """Our members of a timestamp."""
    head = Checkpoint.parse(cosigned_checkpoint().decode().partition("\n\n")[0] + "\n")
    log = {
        "checkpoint": cosigned_checkpoint().decode(),
        "origin": ORIGIN,
        "root_hash": head.root_hash.hex(),
        "size": 3,
    }
    members: dict[str, object] = {
        "meta": {"snapshot.json": {"version": 1}},
        "x-countermark-applied": 3,
        "x-countermark-bins": {"bit_length": 2, "root": "6e" * 32},
        "x-countermark-log": log,
    }
    raw = signed_metadata("timestamp", members)
    assert Timestamp.parse(raw).size == 3
    document = json.loads(raw)
    document["signatures"][0]["sig"] = "..."  # over an ML-DSA line, and so another one each time
    return fence(json.dumps(shortened(document), indent=1), "json")


@example
def bundle() -> str:
    """A bundle that verifies from the example's root."""
    registry = {"identity": None, "key_index": 0, "uploader": "ab" * 16}
    entry = make_entry(
        type="publish", envelope=sign(publish_statement(), publisher_signer()), registry=registry, time=TIME
    )
    leaves = [merkle.leaf_hash(b"a"), entry.leaf_hash, merkle.leaf_hash(b"c")]
    head = Checkpoint(ORIGIN, 3, merkle.root_hash(leaves))
    path = "files/hello-countermark/hello_countermark-1.0.0-py3-none-any.whl"
    custom = {"i": 1, "lh": entry.leaf_hash.hex(), "verdict": 2, "yank": None}
    targets = {path: {"custom": custom, "hashes": {"sha256": "5e" * 32}, "length": 1234}}
    number = bins.bin_number(path, 2)
    leaf = bins.BinLeaf(bins.role_name(number, 2), 1, "6e" * 32, bins.targets_root(targets))
    tree = bins.BinsTree.build([leaf.leaf_hash if place == number else b"\0" * 32 for place in range(4)])
    log = {
        "checkpoint": sign_note(head.text(), [*log_signers(), witness_signer()], time=TIME).format().decode(),
        "origin": ORIGIN, "root_hash": head.root_hash.hex(), "size": 3,
    }  # fmt: skip
    members = {
        "x-countermark-applied": 3,
        "x-countermark-log": log,
        "meta": {"snapshot.json": {"version": 1}},
    }
    made = Bundle(
        path=path,
        target=targets[path],
        target_proof=bins.prove_target(targets, path),
        bin=leaf,
        bin_proof=tree.prove(number),
        timestamp=signed_metadata(
            "timestamp", members | {"x-countermark-bins": {"bit_length": 2, "root": tree.root.hex()}}
        ),
        trust_file=made_trust_file().format(),
        entries=(Logged(1, entry.raw, merkle.prove_inclusion(1, 3, merkle.reader(leaves))),),
    )
    open_bundle(Bundle.parse(made.format()), tufjson.Root.parse(signed_root()), now=TIME)
    return fence(json.dumps(shortened(json.loads(made.format())), indent=1), "json")


@example
def evidence() -> str:
    """The evidence of a fork at size 3."""
    other = Checkpoint(ORIGIN, 3, merkle.root_hash([merkle.leaf_hash(e) for e in (b"a", b"b", b"d")]))
    objects = {
        "checkpoint-offered": sign_note(other.text(), [*log_signers(), witness_signer()], time=TIME).format(),
        "checkpoint-seen": cosigned_checkpoint(),
        "root": signed_root(),
        "trust-file": made_trust_file().format(),
    }
    said = base64.b64encode(other.root_hash).decode()
    sentence = f"fork: at size 3 the log's root was NmQuc8JU..., it is now said to be {said[:8]}..."
    found = Evidence(EvidenceClass.SELF_PROVING, [sentence], objects, "https://registry.example")
    return fence(json.dumps(shortened(json.loads(found.encode(time=TIME))), indent=1), "json")
