"""tufjson.py: it accepts and refuses what TUF's own library accepts and refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Timestamp

from countermark import tufjson
from countermark.errors import EvidenceError, MalformedError, SignatureError
from countermark.pins import RootInfo
from tests.simulator import COMPACT, World, signing_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_json_is_tufs(value: Any) -> None:
    """Every value is spelled as securesystemslib spells it, or has no spelling in either."""
    spelled = encode_canonical(value)
    try:
        expected = (spelled or "").encode()
    except UnicodeEncodeError:
        with pytest.raises(MalformedError):
            tufjson.canonical(value)
        return
    assert tufjson.canonical(value) == expected


def test_a_root_reads_as_tuf_reads_it() -> None:
    """Version, expiry, signed bytes and marks of a root are those of python-tuf."""
    raw = World(trial=True).root
    root, theirs = tufjson.Root.parse(raw), Metadata[Root].from_bytes(raw)
    assert root.signed == theirs.signed_bytes and root.version == theirs.signed.version == 1
    assert root.expires == int(theirs.signed.expires.timestamp())
    assert root.trial and root.trust_files == tuple(theirs.signed.unrecognized_fields["x-countermark-trust"])
    assert RootInfo.parse(raw).expires == theirs.signed.expires.strftime("%Y-%m-%d")


def _mutations(raw: bytes) -> Iterator[bytes]:
    """Every member of the document removed, and every value in it changed."""

    def places(value: Any, way: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if way:
            yield way
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for name, inner in items:
            yield from places(inner, (*way, name))

    document = json.loads(raw)
    for *way, last in list(places(document, ())):
        changed = copy.deepcopy(document)
        parent = changed
        for name in way:
            parent = parent[name]
        old = parent.pop(last)
        yield json.dumps(changed).encode()
        for other in (None, True, -1, 2, 10**30, "0", "", [], {}, 1.5, [old], {"a": old}, f"{old}0"):
            if other == old:
                continue
            if isinstance(parent, list):
                parent[last:last] = [other]
                yield json.dumps(changed).encode()
                del parent[last]
            else:
                parent[last] = other
                yield json.dumps(changed).encode()


def _ours(root: tufjson.Root, raw: bytes) -> bool:
    try:
        root.open("timestamp", raw)
    except EvidenceError:
        return False
    return True


def _theirs(root: Root, raw: bytes) -> bool:
    try:
        metadata = Metadata[Timestamp].from_bytes(raw)
        assert metadata.signed.type == "timestamp"
        root.verify_delegate("timestamp", metadata.signed_bytes, metadata.signatures)
    except Exception:  # whatever it stumbles over
        return False
    return True


def test_a_mutated_timestamp_is_refused_by_both() -> None:
    """Whatever member is removed or changed, both judge alike; only where python-tuf repairs are we stricter."""
    world = World()
    raw = world.tuf["timestamp.json"]
    root, theirs = tufjson.Root.parse(world.root), Metadata[Root].from_bytes(world.root).signed
    assert _ours(root, raw) and _theirs(theirs, raw)
    judged = [(mutant, _ours(root, mutant), _theirs(theirs, mutant)) for mutant in _mutations(raw)]
    assert len(judged) > 200
    assert not [mutant for mutant, ours, other in judged if ours and not other]
    original = Metadata[Timestamp].from_bytes(raw).signed_bytes
    for mutant, ours, other in judged:
        if other and not ours:  # it fills in the very value that was taken out: a null version, say
            assert Metadata[Timestamp].from_bytes(mutant).signed_bytes == original, mutant
            assert json.loads(mutant)["signed"] != json.loads(raw)["signed"]


def test_a_mutated_root_is_refused() -> None:
    """A root with any member of its signed part removed or changed has lost its own signatures."""
    raw = World().root
    signatures = json.loads(raw)["signatures"]
    for mutant in _mutations(raw):
        document = json.loads(mutant)
        if document.get("signatures") != signatures:
            continue
        with pytest.raises(EvidenceError):
            tufjson.Root.parse(mutant)


def _root(version: int, threshold: int, *signers: CryptoSigner, signed_by: tuple[CryptoSigner, ...]) -> bytes:
    root = Root(version, expires=datetime(2030, 1, 1, tzinfo=UTC), consistent_snapshot=True)
    for signer in signers:
        root.add_key(signer.public_key, "root")
    root.roles["root"].threshold = threshold
    metadata = Metadata(root)
    for signer in signed_by:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(COMPACT)


def test_roots_follow_one_another() -> None:
    """A new root needs its own threshold and its predecessor's; ECDSA and Ed25519 keys both count."""
    one, two = CryptoSigner(ec.generate_private_key(ec.SECP256R1())), CryptoSigner(signing_key("two"))
    other = CryptoSigner(signing_key("other"))
    first = tufjson.Root.parse(_root(1, 2, one, two, signed_by=(one, two)))
    second = first.next(_root(2, 1, other, signed_by=(one, two, other)))
    assert second.version == 2
    refused = [
        _root(2, 1, other, signed_by=(other,)),  # whoever took the place, but was never named
        _root(2, 1, other, signed_by=(one, two)),  # its own key did not sign
        _root(2, 1, other, signed_by=(one, other)),  # one of two of the old
        _root(3, 1, other, signed_by=(one, two, other)),  # not the next version
        _root(1, 1, other, signed_by=(one, two, other)),
    ]
    for raw in refused:
        with pytest.raises(EvidenceError):
            first.next(raw)


def test_a_key_of_another_kind_signs_nothing() -> None:
    """An RSA key is passed over, so that a threshold of one by it alone is not reached."""
    signer = CryptoSigner(rsa.generate_private_key(65537, 2048))
    with pytest.raises(SignatureError, match="signed by 0 of the 1 keys"):
        tufjson.Root.parse(_root(1, 1, signer, signed_by=(signer,)))
