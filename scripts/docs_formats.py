"""Examples of every format, made from fixed keys by the code that reads and writes the format.

The keys are seeds of equal bytes, so anyone can make the same examples: log 0x01, witness 0x02, publisher 0x03,
registry 0x04. ML-DSA signatures are randomised; their lines are shortened, and everything else is exact.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark import bins, tufjson, words
from countermark.bundle import Bundle, Logged, open_bundle
from countermark.canonical import encode_canonical
from countermark.entry import make_entry
from countermark.evidence import Evidence, EvidenceClass
from countermark.statement import KeySigner, Statement, sign
from countermark.timestamp import Timestamp
from countermark.tlog import merkle, proof, tile
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, sign_note
from countermark.tlog.policy import Policy
from countermark.trustfile import CentralPolicy, TrustFile

ORIGIN = "registry.example"
TIME = 1_790_000_000
PARTS: dict[str, Callable[[], str]] = {}


def _part(function: Callable[[], str]) -> Callable[[], str]:
    PARTS["example-" + function.__name__.replace("_", "-")] = function
    return function


def _fence(text: str, kind: str = "text") -> str:
    shown = re.sub(r"[A-Za-z0-9+/=]{400,}", lambda m: f"{m[0][:16]}... ({len(m[0])} characters)", text)
    return f"```{kind}\n{shown.rstrip()}\n```\n"


def _seed(number: int) -> bytes:
    return bytes([number]) * 32


def _log() -> tuple[Ed25519NoteSigner, MlDsaSigner]:
    return (
        Ed25519NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(_seed(1))),
        MlDsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(_seed(1))),
    )


def _witness() -> Ed25519CosignatureSigner:
    return Ed25519CosignatureSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(_seed(2)))


@cache
def _checkpoint() -> bytes:
    text = Checkpoint(ORIGIN, 3, merkle.root_hash([merkle.leaf_hash(e) for e in (b"a", b"b", b"c")])).text()
    return sign_note(text, [*_log(), _witness()], time=TIME).format()


@_part
def vkeys() -> str:
    """The key set of the log, and a witness's key."""
    return _fence("\n".join(signer.vkey.format() for signer in (*_log(), _witness())))


@_part
def checkpoint() -> str:
    """A cosigned checkpoint of the log with the entries a, b, c."""
    return _fence(_checkpoint().decode())


@_part
def policy() -> str:
    """A witness policy."""
    lines = [f"log {signer.vkey.format()}" for signer in _log()]
    lines += [f"witness w1 {_witness().vkey.format()}", "quorum w1"]
    return _fence(Policy.parse("\n".join(lines) + "\n").format())


@_part
def tlog_proof() -> str:
    """The proof that entry 1 (b) is in that log."""
    leaves = [merkle.leaf_hash(e) for e in (b"a", b"b", b"c")]

    def read(places: object) -> list[bytes]:
        return [merkle.root_hash(leaves[i << level : (i + 1) << level]) for level, i in places]  # type: ignore[attr-defined]

    hashes = merkle.prove_inclusion(1, 3, read)
    return _fence(proof.TlogProof(1, hashes, _checkpoint()).format().decode())


@_part
def tile_paths() -> str:
    """Where the files of a log of 70,000 entries lie."""
    shown = [tile.tile_at(0, 0, 70_000), tile.tile_at(0, 273, 70_000), tile.tile_at(1, 1, 70_000)]
    shown += [tile.tile_at(2, 0, 70_000)]
    paths = [t.path() for t in shown] + [shown[0].bundle().path(), shown[1].bundle().path()]
    return _fence("\n".join(paths))


@cache
def _publish() -> Statement:
    return Statement(
        subject_name="hello_countermark-1.0.0-py3-none-any.whl",
        subject_sha256="5e" * 32,
        type="publish",
        predicate={
            "length": 1234,
            "metadata_sha256": "3e" * 32,
            "namespace": "",
            "origin": ORIGIN,
            "prev": None,
            "project": "hello-countermark",
            "record_sha256": "4e" * 32,
            "version": "1.0.0",
        },
    )


def _publisher() -> KeySigner:
    return KeySigner(Ed25519PrivateKey.from_private_bytes(_seed(3)))


@_part
def statement() -> str:
    """The payload that a publisher signs."""
    return _fence(_publish().payload().decode(), "json")


@_part
def attestation() -> str:
    """The file `<dist>.publish.attestation`, which twine and uv upload: a DSSE envelope."""
    envelope = sign(_publish(), _publisher())
    return _fence(json.dumps(json.loads(envelope.to_json()), indent=1), "json")


@_part
def leaf() -> str:
    """The leaf of that publish: what the log hashes, on one line."""
    registry = {"identity": None, "key_index": 7, "uploader": "ab" * 16}
    entry = make_entry(type="publish", envelope=sign(_publish(), _publisher()), registry=registry, time=TIME)
    return _fence(entry.raw.decode(), "json") + f"\nIts leaf hash: `{entry.leaf_hash.hex()}`.\n"


@_part
def trust_file() -> str:
    """A trust file."""
    return _fence(_trust().format().decode(), "json")


def _trust() -> TrustFile:
    lines = [f"log {signer.vkey.format()}" for signer in _log()]
    lines += [f"witness w1 {_witness().vkey.format()}", "quorum w1"]
    return TrustFile(
        authority_key=_publisher().public_key,
        client_policy=CentralPolicy(0, "enforce"),
        origin=ORIGIN,
        valid_from=TIME,
        valid_until=None,
        version=1,
        witness_policy=Policy.parse("\n".join(lines) + "\n").format(),
    )


@_part
def bin_leaf() -> str:
    """The line of one bin in the tree that the timestamp names."""
    target = {"custom": {"i": 3, "lh": "5a" * 32}, "hashes": {"sha256": "5e" * 32}, "length": 1234}
    targets = {"files/hello-countermark/hello_countermark-1.0.0-py3-none-any.whl": target}
    leaf = bins.BinLeaf(bins.role_name(10, 4), 2, "6e" * 32, bins.targets_root(targets))
    return _fence(leaf.format().decode())


@_part
def root_words() -> str:
    """The words of a root whose canonical signed part is the two bytes `{}`."""
    return _fence(words.root_words(encode_canonical({})))


def _metadata(type: str, members: dict[str, object]) -> bytes:
    """TUF metadata signed by the one key of the example's roles, the registry's."""
    signed = {
        "_type": type,
        "expires": "2026-09-22T14:13:20Z",
        "spec_version": "1.0.31",
        "version": 1,
    } | members
    key = Ed25519PrivateKey.from_private_bytes(_seed(4))
    signature = {"keyid": "4a" * 32, "sig": key.sign(tufjson.canonical(signed)).hex()}
    return json.dumps(
        {"signatures": [signature], "signed": signed}, sort_keys=True, separators=(",", ":")
    ).encode()


def _root() -> bytes:
    public = Ed25519PrivateKey.from_private_bytes(_seed(4)).public_key().public_bytes_raw().hex()
    key = {"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"}
    role = {"keyids": ["4a" * 32], "threshold": 1}
    roles = dict.fromkeys(("root", "timestamp", "snapshot", "targets"), role)
    trust = {"x-countermark-trust": [_trust().digest]}
    return _metadata("root", {"keys": {"4a" * 32: key}, "roles": roles, "consistent_snapshot": True} | trust)


def _shortened(value: object) -> object:
    """Long strings by their beginning and their length."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    return (
        f"{value[:48]}... ({len(value)} characters)" if isinstance(value, str) and len(value) > 120 else value
    )


@_part
def timestamp() -> str:
    """Our members of a timestamp."""
    head = Checkpoint.parse(_checkpoint().decode().partition("\n\n")[0] + "\n")
    log = {
        "checkpoint": _checkpoint().decode(),
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
    raw = _metadata("timestamp", members)
    assert Timestamp.parse(raw).size == 3
    document = json.loads(raw)
    document["signatures"][0]["sig"] = "..."  # over an ML-DSA line, and so another one each time
    return _fence(json.dumps(_shortened(document), indent=1), "json")


@_part
def bundle() -> str:
    """A bundle that verifies from the example's root."""
    registry = {"identity": None, "key_index": 0, "uploader": "ab" * 16}
    entry = make_entry(type="publish", envelope=sign(_publish(), _publisher()), registry=registry, time=TIME)
    leaves = [merkle.leaf_hash(b"a"), entry.leaf_hash, merkle.leaf_hash(b"c")]
    head = Checkpoint(ORIGIN, 3, merkle.root_hash(leaves))
    path = "files/hello-countermark/hello_countermark-1.0.0-py3-none-any.whl"
    custom = {"i": 1, "lh": entry.leaf_hash.hex(), "verdict": 2, "yank": None}
    targets = {path: {"custom": custom, "hashes": {"sha256": "5e" * 32}, "length": 1234}}
    number = bins.bin_number(path, 2)
    leaf = bins.BinLeaf(bins.role_name(number, 2), 1, "6e" * 32, bins.targets_root(targets))
    tree = bins.BinsTree.build([leaf.leaf_hash if place == number else b"\0" * 32 for place in range(4)])
    log = {
        "checkpoint": sign_note(head.text(), [*_log(), _witness()], time=TIME).format().decode(),
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
        timestamp=_metadata(
            "timestamp", members | {"x-countermark-bins": {"bit_length": 2, "root": tree.root.hex()}}
        ),
        trust_file=_trust().format(),
        entries=(Logged(1, entry.raw, merkle.prove_inclusion(1, 3, merkle.reader(leaves))),),
    )
    open_bundle(Bundle.parse(made.format()), tufjson.Root.parse(_root()), now=TIME)
    return _fence(json.dumps(_shortened(json.loads(made.format())), indent=1), "json")


@_part
def evidence() -> str:
    """The evidence of a fork at size 3."""
    other = Checkpoint(ORIGIN, 3, merkle.root_hash([merkle.leaf_hash(e) for e in (b"a", b"b", b"d")]))
    objects = {
        "checkpoint-offered": sign_note(other.text(), [*_log(), _witness()], time=TIME).format(),
        "checkpoint-seen": _checkpoint(),
        "root": _root(),
        "trust-file": _trust().format(),
    }
    said = base64.b64encode(other.root_hash).decode()
    sentence = f"fork: at size 3 the log's root was NmQuc8JU..., it is now said to be {said[:8]}..."
    found = Evidence(EvidenceClass.SELF_PROVING, [sentence], objects, "https://registry.example")
    return _fence(json.dumps(_shortened(json.loads(found.encode(time=TIME))), indent=1), "json")


import docs_formats_kept  # noqa: E402,F401  (it adds its parts to ours)
