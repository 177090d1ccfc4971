"""Examples of every format, made from fixed keys by the code that reads and writes the format.

The keys are seeds of equal bytes, so anyone can make the same examples: log 0x01, witness 0x02, publisher 0x03,
registry 0x04. ML-DSA signatures are randomised; their lines are shortened, and everything else is exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark import bins, words
from countermark.canonical import encode_canonical
from countermark.entry import make_entry
from countermark.statement import KeySigner, Statement, sign
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
    lines = [f"log {signer.vkey.format()}" for signer in _log()]
    lines += [f"witness w1 {_witness().vkey.format()}", "quorum w1"]
    trust = TrustFile(
        authority_key=_publisher().public_key,
        client_policy=CentralPolicy(0, "enforce"),
        origin=ORIGIN,
        valid_from=TIME,
        valid_until=None,
        version=1,
        witness_policy=Policy.parse("\n".join(lines) + "\n").format(),
    )
    return _fence(trust.format().decode(), "json")


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
