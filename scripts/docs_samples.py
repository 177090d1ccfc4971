"""What every example of a format is made from, and how an example is noted and shown.

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

from countermark import tufjson
from countermark.statement import KeySigner, Statement
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, sign_note
from countermark.tlog.policy import Policy
from countermark.trustfile import CentralPolicy, TrustFile

ORIGIN = "registry.example"
TIME = 1_790_000_000
HASH = {name: f"{number:x}a" * 32 for number, name in enumerate(("leaf", "evidence", "rules", "bins"), 1)}
EXAMPLES: dict[str, Callable[[], str]] = {}


def example(function: Callable[[], str]) -> Callable[[], str]:
    EXAMPLES["example-" + function.__name__.replace("_", "-")] = function
    return function


def fence(text: str, kind: str = "text") -> str:
    shown = re.sub(r"[A-Za-z0-9+/=]{400,}", lambda m: f"{m[0][:16]}... ({len(m[0])} characters)", text)
    return f"```{kind}\n{shown.rstrip()}\n```\n"


def seed(number: int) -> bytes:
    return bytes([number]) * 32


def log_signers() -> tuple[Ed25519NoteSigner, MlDsaSigner]:
    return (
        Ed25519NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed(1))),
        MlDsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(seed(1))),
    )


def witness_signer() -> Ed25519CosignatureSigner:
    return Ed25519CosignatureSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(seed(2)))


@cache
def cosigned_checkpoint() -> bytes:
    text = Checkpoint(ORIGIN, 3, merkle.root_hash([merkle.leaf_hash(e) for e in (b"a", b"b", b"c")])).text()
    return sign_note(text, [*log_signers(), witness_signer()], time=TIME).format()


@cache
def publish_statement() -> Statement:
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


def publisher_signer() -> KeySigner:
    return KeySigner(Ed25519PrivateKey.from_private_bytes(seed(3)))


def made_trust_file() -> TrustFile:
    lines = [f"log {signer.vkey.format()}" for signer in log_signers()]
    lines += [f"witness w1 {witness_signer().vkey.format()}", "quorum w1"]
    return TrustFile(
        authority_key=publisher_signer().public_key,
        client_policy=CentralPolicy(0, "enforce"),
        origin=ORIGIN,
        valid_from=TIME,
        valid_until=None,
        version=1,
        witness_policy=Policy.parse("\n".join(lines) + "\n").format(),
    )


def signed_metadata(type: str, members: dict[str, object]) -> bytes:
    """TUF metadata signed by the one key of the example's roles, the registry's."""
    signed = {
        "_type": type,
        "expires": "2026-09-22T14:13:20Z",
        "spec_version": "1.0.31",
        "version": 1,
    } | members
    key = Ed25519PrivateKey.from_private_bytes(seed(4))
    signature = {"keyid": "4a" * 32, "sig": key.sign(tufjson.canonical(signed)).hex()}
    return json.dumps(
        {"signatures": [signature], "signed": signed}, sort_keys=True, separators=(",", ":")
    ).encode()


def signed_root() -> bytes:
    public = Ed25519PrivateKey.from_private_bytes(seed(4)).public_key().public_bytes_raw().hex()
    key = {"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"}
    role = {"keyids": ["4a" * 32], "threshold": 1}
    roles = dict.fromkeys(("root", "timestamp", "snapshot", "targets"), role)
    trust = {"x-countermark-trust": [made_trust_file().digest]}
    return signed_metadata(
        "root", {"keys": {"4a" * 32: key}, "roles": roles, "consistent_snapshot": True} | trust
    )


def shortened(value: object) -> object:
    """Long strings by their beginning and their length."""
    if isinstance(value, dict):
        return {name: shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return (
        f"{value[:48]}... ({len(value)} characters)" if isinstance(value, str) and len(value) > 120 else value
    )
