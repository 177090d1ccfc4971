"""The snapshot's fragments give tuf's own bytes, letter for letter."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot
from tuf.api.serialization.json import CanonicalJSONSerializer, JSONSerializer

from countermark.bins import role_name
from countermark.errors import EvidenceError
from countermark_server.tufrepo.snapshot import PIECE, Fragments, check_stock, sign_snapshot
from tests.simulator import signing_key

SIGNER = CryptoSigner(signing_key("snapshot"))
EXPIRES = datetime(2026, 11, 29, 12, 0, 5, tzinfo=UTC)
NAMES = [f"{role}.json" for role in ("targets", "trust", "index")]
NAMES += [f"{role_name(i, bits)}.json" for bits in (2, 5, 9) for i in range(1 << bits)]
META = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 2**53 - 1), max_size=40)


def stock(meta, version):
    files = {name: MetaFile(each) for name, each in meta.items()}
    return Snapshot(version, expires=EXPIRES, meta=files)


@settings(deadline=None)
@given(META, st.lists(META, max_size=3), st.integers(1, 10**9))
def test_signed_part_and_file_equal_tufs_own(first, updates, version):
    """Random versions, added and changed bins: canonical bytes and compact file are the same."""
    fragments, meta = Fragments(first), dict(first)
    for update in updates:
        fragments.update(update)
        meta |= update
    expected = stock(meta, version)
    assert fragments.signed_part(version, EXPIRES) == CanonicalJSONSerializer().serialize(expected)
    metadata = Metadata(expected)
    metadata.sign(SIGNER)
    file = sign_snapshot(fragments, version, EXPIRES, SIGNER)
    assert file == metadata.to_bytes(JSONSerializer(compact=True))


def test_pieces_equal_tufs_own_whatever_changes_in_them():
    """More names than a piece holds: versions change in one or in many, and new names push all others on."""
    meta = dict.fromkeys(NAMES[3:], 1)
    assert len(meta) > 3 * PIECE
    fragments = Fragments(meta)
    for update in (
        {NAMES[-1]: 2},
        dict.fromkeys(NAMES[9::50], 3),
        {NAMES[0]: 1},
        {NAMES[1]: 1, NAMES[300]: 4},
    ):
        fragments.signed_part(1, EXPIRES)
        fragments.update(update)
        meta |= update
        expected = CanonicalJSONSerializer().serialize(stock(meta, 2))
        assert fragments.signed_part(2, EXPIRES) == expected


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ('a".json', 1),
        ("a\\.json", 1),
        ("é.json", 1),
        ("a\n.json", 1),
        ("a.json\n", 1),
        ("", 1),
        ("a", 1),
        ("a.json", 0),
        ("a.json", -1),
        ("a.json", True),
        ("a.json", "1"),
    ],
)
def test_what_a_fragment_cannot_say_is_refused(name, version):
    """Names that would need escaping, and versions that are no versions; nothing changes."""
    fragments = Fragments({"b.json": 1})
    before = fragments.signed_part(1, EXPIRES)
    with pytest.raises(ValueError, match="does not fit"):
        fragments.update({name: version})
    assert fragments.signed_part(1, EXPIRES) == before


def test_the_stock_check_notices_a_wrong_signature_and_a_wrong_version():
    """The fast path is not believed."""
    root = Root()
    root.add_key(SIGNER.public_key, "snapshot")
    raw = sign_snapshot(Fragments({"targets.json": 1}), 7, EXPIRES, SIGNER)
    check_stock(raw, root, 7)
    with pytest.raises(EvidenceError):
        check_stock(raw, root, 8)
    with pytest.raises(EvidenceError):
        check_stock(raw.replace(b'"version":1}', b'"version":2}'), root, 7)
