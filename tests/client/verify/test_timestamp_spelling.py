"""A timestamp is one file: whoever carries it can't make a second one of the same version, whatever key signed it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from countermark import tufjson
from countermark.errors import MalformedError
from countermark.timestamp import P256_ORDER, check_spelling
from countermark_server.onlinekeys import OnlineSigner
from countermark_server.timestamper import carry


def online(kind: str) -> OnlineSigner:
    """An online key as a process opens it."""
    signer = CryptoSigner.generate_ed25519()
    if kind == "ecdsa":
        signer = CryptoSigner(ec.generate_private_key(ec.SECP256R1()))
    return OnlineSigner("test:", signer.public_key, lambda payload: signer.sign(payload).signature)


def root_of(signer: OnlineSigner) -> tufjson.Root:
    root = Root(1, expires=datetime.now(UTC) + timedelta(days=1), consistent_snapshot=True)
    own = CryptoSigner.generate_ed25519()
    root.add_key(own.public_key, "root")
    root.add_key(signer.public_key, "timestamp")
    metadata = Metadata(root)
    metadata.sign(own)
    return tufjson.Root.parse(metadata.to_bytes())


@pytest.fixture(scope="module")
def contents() -> carry.Contents:
    checkpoint: Any = SimpleNamespace(raw=b"a note", origin="registry.test", root_hash=bytes(32), size=4)
    return carry.Contents({"length": 1, "sha256": "00" * 32, "version": 1}, checkpoint, "00" * 32, 2, 3)


def spelled(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def twin(sig: str) -> str:
    r, s = decode_dss_signature(bytes.fromhex(sig))
    return encode_dss_signature(r, P256_ORDER - s).hex()


@pytest.mark.parametrize("kinds", [("ed25519", "ecdsa"), ("ecdsa", "ed25519"), ("ecdsa", "ecdsa")])
def test_two_keys_sign_and_either_root_accepts_this_one_file(
    contents: carry.Contents, kinds: tuple[str, str]
) -> None:
    """Taking one signature away, exchanging them, adding one or writing a twin makes a file that nobody takes."""
    old, new = map(online, kinds)
    raw = carry.sign(carry.unsigned(contents, 7, [old, new], now=10), [old, new]).raw
    document = json.loads(raw)
    stranger = online("ed25519")
    extra = stranger.sign(tufjson.canonical(document["signed"])).to_dict()
    listed = document["signatures"]
    others = [listed[:1], listed[1:], listed[::-1], [*listed, extra], [extra, *listed], [*listed, listed[0]]]
    for position, item in enumerate(listed):
        if document["signed"]["x-countermark-signers"][item["keyid"]]["keytype"] == "ecdsa":
            others.append([*listed[:position], {**item, "sig": twin(item["sig"])}, *listed[position + 1 :]])
    for root in map(root_of, (old, new)):
        root.open("timestamp", raw)
        check_spelling(raw, root)
        for signatures in others:
            with pytest.raises(MalformedError, match="not spelled as its key signed it"):
                check_spelling(spelled({**document, "signatures": signatures}), root)
    with pytest.raises(MalformedError):
        check_spelling(spelled({"signatures": [extra], "signed": document["signed"]}), root_of(stranger))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_one_key_signs_as_ever(contents: carry.Contents, kind: str) -> None:
    """No member says who signs; the twin of an ECDSA signature, and a signature more, are refused."""
    signer, stranger = online(kind), online("ed25519")
    raw = carry.sign(carry.unsigned(contents, 7, [signer], now=10), [signer]).raw
    document, root = json.loads(raw), root_of(signer)
    assert "x-countermark-signers" not in document["signed"]
    check_spelling(raw, root)
    (item,) = document["signatures"]
    others = [
        [item, stranger.sign(tufjson.canonical(document["signed"])).to_dict()],
        [{**item, "sig": item["sig"].upper()}],
    ]
    if kind == "ecdsa":
        others.append([{**item, "sig": twin(item["sig"])}])
    for signatures in others:
        with pytest.raises(MalformedError):
            check_spelling(spelled({**document, "signatures": signatures}), root)
