"""Bins in our spelling: tuf's own bytes where we write them, and tuf's own verdict where we read them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Delegations, Metadata, SuccinctRoles, TargetFile, Targets
from tuf.api.serialization.json import CanonicalJSONSerializer, JSONSerializer

from countermark_server.timestamper.chain import Offline
from countermark_server.tufbytes import expected_bin, sign_bin, spell
from tests.mutations import mutants
from tests.simulator import signing_key

SIGNER = CryptoSigner(signing_key("bins"))
EXPIRES = datetime(2026, 11, 29, 12, 0, 5, tzinfo=UTC)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
TARGET = st.builds(
    lambda index, leaf, digest, length, verdict: {
        "custom": {"i": index, "lh": leaf, "verdict": verdict, "yank": None},
        "hashes": {"sha256": digest},
        "length": length,
    },
    st.integers(0, 2**53 - 1),
    DIGEST,
    DIGEST,
    st.integers(0, 2**53 - 1),
    st.none() | st.integers(0, 2**53 - 1),
)
TARGETS = st.dictionaries(st.text(max_size=30), TARGET, max_size=8)
ONE = {"files/acme/acme-1.0.tar.gz": {"custom": {"i": 4}, "hashes": {"sha256": "ab" * 32}, "length": 9}}


def stock(version, targets, expires=EXPIRES):
    """What tuf makes of the same bin, and its file."""
    files = {
        path: TargetFile.from_dict({**target, "hashes": dict(target["hashes"])}, path)
        for path, target in targets.items()
    }
    metadata = Metadata(Targets(version, expires=expires, targets=files))
    metadata.sign(SIGNER)
    return metadata, metadata.to_bytes(JSONSerializer(compact=True))


@settings(deadline=None)
@given(TARGETS, st.integers(1, 2**53 - 1))
def test_a_bin_is_tufs_own_file_or_left_to_tuf(targets, version):
    """Any paths at all: the same bytes, or none because a path is spelled otherwise in JSON than in TUF."""
    metadata, raw = stock(version, targets)
    ours = sign_bin(version, targets, SIGNER, EXPIRES)
    plain = all(path.isascii() and path.isprintable() and not set(path) & set('"\\') for path in targets)
    if plain:
        assert ours is not None
    if ours is not None:
        assert ours == raw
        signed, signatures = expected_bin(raw, version, targets)
        assert (signed, signatures) == (metadata.signed_bytes, metadata.signatures)


@pytest.mark.parametrize("text", ['"', "\\", "\n", "ä", "\ud800", "\x00", "\x7f"])
def test_what_needs_an_escape_is_left_to_tuf(text):
    """As a value, as a name, deep inside."""
    for value in (text, {text: 1}, [{"a": [text]}]):
        assert spell(value) is None
    assert sign_bin(1, {text: ONE["files/acme/acme-1.0.tar.gz"]}, SIGNER, EXPIRES) is None


def test_a_year_before_1000_is_left_to_tuf():
    """Its canonical form has fewer digits than the file."""
    assert sign_bin(1, ONE, SIGNER, datetime(26, 1, 1, tzinfo=UTC)) is None


def test_no_other_file_passes_for_the_expected_one():
    """Every byte, cut and member changed: what is taken has tuf's canonical form and exactly these targets."""
    _, honest = stock(3, ONE)
    assert expected_bin(honest, 3, ONE) is not None
    taken = 0
    for mutant in mutants(honest):
        found = expected_bin(mutant.raw, 3, ONE)
        if found is None:
            continue
        taken += 1
        metadata = Metadata[Targets].from_bytes(mutant.raw)
        assert found == (CanonicalJSONSerializer().serialize(metadata.signed), metadata.signatures), mutant
        assert {path: file.to_dict() for path, file in metadata.signed.targets.items()} == ONE
        assert metadata.signed.version == 3 and metadata.signed.delegations is None
    assert taken  # another expiry or signature: the key's business, and verified
    other = {"files/acme/acme-1.0.tar.gz": {**ONE["files/acme/acme-1.0.tar.gz"], "length": 10}}
    for version, targets in ((4, ONE), (3, other), (3, {}), (3, {**ONE, "files/b/b": other})):
        assert expected_bin(honest, version, targets) is None


@pytest.mark.parametrize("signers", [["bins"], ["bins", "snapshot"], ["curve"]])
@pytest.mark.parametrize("threshold", [1, 2])
def test_one_signature_is_enough_only_where_index_asks_for_one_of_ed25519(signers, threshold):
    """More keys, a threshold or another kind of key are tuf's to judge; nobody else's signature passes either."""
    keys = [
        CryptoSigner.generate_ecdsa() if name == "curve" else CryptoSigner(signing_key(name))
        for name in signers
    ]
    ids = [each.public_key.keyid for each in keys]
    threshold = min(threshold, len(keys))
    below = Delegations(
        {each.public_key.keyid: each.public_key for each in keys},
        succinct_roles=SuccinctRoles(ids, threshold, 4, "bins"),
    )
    offline = Offline(Targets(1), Targets(1), Targets(1, delegations=below), {})
    good = {ids[0]: keys[0].sign(b"a bin")}
    alone = signers == ["bins"]
    assert offline.has_signed_bin(b"a bin", good) is alone
    assert (offline.bins_key is not None) is alone
    assert not offline.has_signed_bin(b"another", good)
    forged = {ids[0]: CryptoSigner(signing_key("timestamp")).sign(b"a bin")}
    assert not offline.has_signed_bin(b"a bin", forged)
    assert not offline.has_signed_bin(b"a bin", {})
