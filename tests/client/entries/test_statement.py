"""Statements and envelopes: one form, and signatures by known keys only."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from countermark.canonical import encode_canonical
from countermark.errors import MalformedError, SignatureError
from countermark.statement import (
    Envelope,
    EnvelopeSignature,
    KeySigner,
    Statement,
    check_signatures,
    decode_base64,
    keyid_of,
    load_public_key,
    open_envelope,
    pae,
    sign,
)
from tests.entrymaker import digest, ed25519_signer, p256_signer

alice, bob = ed25519_signer("alice"), p256_signer("bob")
STATEMENT = Statement("acme-1.0.tar.gz", digest("acme"), "publish", {"origin": "example.com/registry"})
KEYS = {signer.keyid: signer.public_key for signer in (alice, bob)}


def test_statement_is_a_real_in_toto_statement() -> None:
    """The payload's bytes, as the module's docstring draws them."""
    assert STATEMENT.payload() == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"origin":"example.com/registry"},'
        b'"predicateType":"https://countermark.dev/v1/publish","subject":[{"digest":{"sha256":"'
        + digest("acme").encode()
        + b'"},"name":"acme-1.0.tar.gz"}]}'
    )
    assert Statement.parse(STATEMENT.payload()) == STATEMENT


def test_pae_is_dsse_s() -> None:
    """The frame of the DSSE specification."""
    assert pae(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


def test_a_statement_about_something_else_is_named_by_its_digest() -> None:
    """Not a file: the digest is that of the name."""
    assert Statement.about("project:acme", "owner", {}).subject_sha256 == digest("project:acme")


@pytest.mark.parametrize("signers", [(alice,), (bob,), (alice, bob)], ids=["ed25519", "p256", "both"])
def test_sign_and_open(signers: tuple[KeySigner, ...]) -> None:
    """What was signed opens with the signers' keys, whoever signed first, and after a round trip as JSON."""
    envelope = sign(STATEMENT, *signers)
    assert (
        Envelope.parse(envelope.to_json()) == envelope == sign(STATEMENT, *reversed(signers))
        or bob in signers
    )
    verified = open_envelope(Envelope.parse(envelope.to_json()), KEYS)
    assert verified.statement == STATEMENT
    assert set(verified.keyids) == {signer.keyid for signer in signers}


def test_a_re_serialised_envelope_opens() -> None:
    """Tools may sort keys and add spaces: only the payload's bytes count."""
    members = sign(STATEMENT, alice).to_dict()
    for again in (json.dumps(members, indent=2), json.dumps(dict(reversed(members.items())))):
        assert open_envelope(Envelope.parse(again.encode()), KEYS).statement == STATEMENT


@given(st.binary(max_size=80), st.lists(st.tuples(st.text(max_size=70), st.binary(max_size=80)), max_size=3))
def test_an_envelope_has_one_spelling(payload: bytes, signed: list[tuple[str, bytes]]) -> None:
    """What is put together is canonical JSON of the same members, also where a key's name would need escapes."""
    for names in ([name for name, _ in signed], [digest(name) for name, _ in signed]):
        signatures = tuple(EnvelopeSignature(name, sig) for name, (_, sig) in zip(names, signed, strict=True))
        envelope = Envelope(payload, signatures)
        try:
            expected = encode_canonical(envelope.to_dict())
        except MalformedError:
            with pytest.raises(MalformedError):
                envelope.to_json()
            continue
        assert envelope.to_json() == envelope.text.encode() == expected
        assert envelope == Envelope(payload, signatures)


def test_an_unknown_signature_is_refused() -> None:
    """Nobody may decorate a statement, and a statement without signature is no statement."""
    envelope = sign(STATEMENT, alice, bob)
    with pytest.raises(SignatureError, match="no known key"):
        open_envelope(envelope, {alice.keyid: alice.public_key})
    with pytest.raises(SignatureError, match="no signature"):
        check_signatures(replace(envelope, signatures=()), KEYS)


def test_a_key_under_another_name_is_refused() -> None:
    """A caller that maps a keyid to another key is told, not trusted."""
    with pytest.raises(SignatureError, match="under the name"):
        open_envelope(sign(STATEMENT, alice), {alice.keyid: bob.public_key})


@pytest.mark.parametrize("signer", [alice, bob], ids=["ed25519", "p256"])
def test_every_flipped_bit_of_payload_or_signature_is_refused(signer: KeySigner) -> None:
    """The payload (where it still parses) and the signature are bound to each other."""
    envelope = sign(STATEMENT, signer)
    sig = envelope.signatures[0].sig
    for position in range(8 * len(sig)):
        broken = bytearray(sig)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(SignatureError):
            check_signatures(
                replace(envelope, signatures=(EnvelopeSignature(signer.keyid, bytes(broken)),)), KEYS
            )
    for position in range(len(envelope.payload)):
        payload = bytearray(envelope.payload)
        payload[position] ^= 1
        with pytest.raises((SignatureError, MalformedError)):
            open_envelope(replace(envelope, payload=bytes(payload)), KEYS)


def _statement(**changes: Any) -> bytes:
    members = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {},
        "predicateType": "https://countermark.dev/v1/publish",
        "subject": [{"digest": {"sha256": "00" * 32}, "name": "x"}],
    }
    return encode_canonical({name: value for name, value in (members | changes).items() if value != "gone"})


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"_type": 1},
        {"_type": "gone"},
        {"predicate": "gone"},
        {"predicate": []},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicateType": "https://countermark.dev/v1/"},
        {"predicateType": "https://countermark.dev/v1/Publish"},
        {"predicateType": None},
        {"subject": []},
        {"subject": [{"digest": {"sha256": "00" * 32}, "name": "x"}] * 2},
        {"subject": [{"digest": {"sha256": "0G" * 32}, "name": "x"}]},
        {"subject": [{"digest": {"sha256": "AB" * 32}, "name": "x"}]},
        {"subject": [{"digest": {"sha512": "00" * 64}, "name": "x"}]},
        {"subject": [{"digest": {"sha256": "00" * 32, "sha512": "00"}, "name": "x"}]},
        {"subject": [{"digest": {"sha256": "00" * 32}, "name": "x", "uri": "y"}]},
        {"subject": [{"digest": {"sha256": "00" * 32}, "name": 1}]},
        {"subject": {"digest": {"sha256": "00" * 32}, "name": "x"}},
        {"extra": 1},
    ],
)
def test_other_statements_are_malformed(changes: dict[str, Any]) -> None:
    """One subject with one SHA-256, our predicate types, no further members."""
    Statement.parse(_statement())
    with pytest.raises(MalformedError):
        Statement.parse(_statement(**changes))


def test_a_statement_is_bounded() -> None:
    """16 KiB, when signing and when reading."""
    large = replace(STATEMENT, predicate={"x": "a" * 16_384})
    with pytest.raises(MalformedError, match="16384"):
        large.payload()
    with pytest.raises(MalformedError, match="16384"):
        Statement.parse(_statement(predicate={"x": "a" * 16_384}))


def _envelope(**changes: Any) -> dict[str, Any]:
    members = sign(STATEMENT, alice).to_dict() | changes
    return {name: value for name, value in members.items() if value != "gone"}


SIG = sign(STATEMENT, alice).to_dict()["signatures"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": "gone"},
        {"payload": 5},
        {"payload": "AAA"},
        {"payload": "AAB="},
        {"payload": "AA=="[:3]},
        {"payload": "A A="},
        {"payload": "ÄAAA"},
        {"payload": "AA-_"},
        {"payload": base64.b64encode(bytes(16_385)).decode()},
        {"payloadType": "application/json"},
        {"payloadType": None},
        {"signatures": "gone"},
        {"signatures": []},
        {"signatures": {}},
        {"signatures": [SIG, SIG]},
        {"signatures": [SIG] * 17},
        {"signatures": [{**SIG, "keyid": "00"}]},
        {"signatures": [{**SIG, "keyid": SIG["keyid"].upper()}]},
        {"signatures": [{**SIG, "keyid": None}]},
        {"signatures": [{**SIG, "sig": "===="}]},
        {"signatures": [{**SIG, "sig": base64.b64encode(bytes(129)).decode()}]},
        {"signatures": [{**SIG, "cert": ""}]},
        {"signatures": [{"keyid": SIG["keyid"]}]},
        {"signatures": [5]},
        {"signatures": [{**SIG, "keyid": "ff" * 32}, SIG]},
        {"extra": 1},
    ],
)
def test_other_envelopes_are_malformed(changes: dict[str, Any]) -> None:
    """Closed members, canonical base64, each key once and in order, bounds."""
    Envelope.parse(_envelope())
    with pytest.raises(MalformedError):
        Envelope.parse(_envelope(**changes))
    with pytest.raises(MalformedError):
        Envelope.parse(json.dumps(_envelope(**changes)).encode())


@given(st.binary(max_size=200))
def test_no_bytes_leak_another_error(raw: bytes) -> None:
    """Bytes are a statement, an envelope, a key, or malformed."""
    for call in (Statement.parse, Envelope.parse, load_public_key):
        try:
            call(raw)
        except MalformedError:
            continue


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_no_json_leaks_another_error(value: Any) -> None:
    """JSON near an envelope is one or malformed."""
    with pytest.raises(MalformedError):
        Envelope.parse(json.dumps(value).encode())


def test_keys_of_other_kinds_are_refused() -> None:
    """Ed25519 and P-256 only, in their one encoding."""
    others = [
        ec.generate_private_key(ec.SECP384R1()),
        ed448.Ed448PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ]
    for key in others:
        with pytest.raises(MalformedError):
            load_public_key(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    for spelling in (alice.public_key + b"\x00", alice.public_key[:-1], b"", alice.public_key[12:]):
        with pytest.raises(MalformedError):
            load_public_key(spelling)
    compressed = bob._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(MalformedError):
        load_public_key(head + compressed)
    off_curve = bob.public_key[:-1] + bytes([bob.public_key[-1] ^ 1])
    with pytest.raises(MalformedError, match="curve"):
        load_public_key(off_curve)
    with pytest.raises(MalformedError, match="P-256"):
        KeySigner(others[0])


@pytest.mark.parametrize("signer", [alice, bob], ids=["ed25519", "p256"])
def test_our_spki_is_everybodys(signer: KeySigner) -> None:
    """A general DER reader and writer agrees with the prefixes we compare."""
    key = load_der_public_key(signer.public_key)
    assert key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == signer.public_key
    assert load_public_key(signer.public_key) == key


def test_keyid_is_the_sha256_of_the_spki() -> None:
    """A key has one name."""
    assert alice.keyid == keyid_of(alice.public_key)
    assert len(alice.public_key) == 44
    assert len(bob.public_key) == 91


@given(st.binary(max_size=40))
def test_base64_has_one_spelling(raw: bytes) -> None:
    """What decodes re-encodes to the same text."""
    text = base64.b64encode(raw).decode()
    assert decode_base64(text, max_bytes=40, what="it") == raw
    for other in (text + "\n", " " + text, text + "=", text.rstrip("=") if "=" in text else text + "A"):
        with pytest.raises(MalformedError):
            decode_base64(other, max_bytes=40, what="it")
