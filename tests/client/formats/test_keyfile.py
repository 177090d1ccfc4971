"""Key files: what opens, what is refused, and what the public half gives away."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from hypothesis import given
from hypothesis import strategies as st

from countermark import keyfile
from countermark.errors import CountermarkError, MalformedError, SignatureError, UsageError

N = 2**10  # the cheapest scrypt we read: these tests are about the format
SALT = b"0123456789abcdef"
KINDS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
}


def a_file(**changes):
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    document = json.loads(keyfile.encrypt(key, b"correct horse", name="ada", salt=SALT, n=N))
    document.update(changes)
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_opens_with_its_passphrase(kind):
    """The private key that comes out has the public half that was readable without a passphrase."""
    key = KINDS[kind]()
    raw = keyfile.encrypt(key, b"correct horse", name=f"a {kind} key", salt=SALT, n=N)
    parsed = keyfile.KeyFile.parse(raw)
    assert (parsed.name, parsed.n) == (f"a {kind} key", N)
    assert parsed.keyid == hashlib.sha256(parsed.public_key).hexdigest()
    assert keyfile.public_bytes(keyfile.decrypt(raw, b"correct horse")) == parsed.public_key
    assert len(raw) < keyfile.KEY_FILE_MAX_BYTES


def test_the_default_costs_a_guess_32_mebibytes():
    """scrypt's n is 2^15 unless somebody asks for another."""
    raw = keyfile.encrypt(ed25519.Ed25519PrivateKey.generate(), b"x", name="k", salt=SALT)
    assert keyfile.KeyFile.parse(raw).n == 2**15


def test_a_wrong_passphrase_is_the_users_mistake_and_named_so():
    """The message names the key and says nothing about how wrong the passphrase was."""
    with pytest.raises(UsageError, match="wrong passphrase for key 'ada'"):
        keyfile.decrypt(a_file(), b"correct house")


def test_the_public_half_of_another_key_is_refused():
    """A key file with somebody else's public key must not pass as his."""
    other = keyfile.public_bytes(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(SignatureError, match="public half"):
        keyfile.decrypt(a_file(public_key=base64.b64encode(other).decode()), b"correct horse")


@pytest.mark.parametrize("scrypt", [{"n": 2**21}, {"n": 3000}, {"n": 2}, {"r": 9}, {"p": 2}, {"n": True}])
def test_scrypt_parameters_out_of_bounds_are_refused_before_any_work(scrypt):
    """A hostile key file may not make its reader use gigabytes."""
    parameters = json.loads(a_file())["scrypt"] | scrypt
    with pytest.raises(MalformedError):
        keyfile.decrypt(a_file(scrypt=parameters), b"correct horse")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 5000,
        b" " * 20_000,
        a_file()[:-1],
        a_file().replace(b"ada", b"ad\\u0061"),
        a_file(more=1),
        a_file(format="countermark-key/v2"),
        a_file(public_key="%%%%"),
    ],
)
def test_what_is_not_in_our_form_is_malformed(raw):
    """Empty, truncated, oversized, deep, re-spelled or extended files: one kind of error."""
    with pytest.raises(MalformedError):
        keyfile.KeyFile.parse(raw)


def test_a_private_key_on_another_curve_is_refused():
    """Only P-256: every signer and client knows it."""
    with pytest.raises(UsageError, match="P-256"):
        keyfile.encrypt(ec.generate_private_key(ec.SECP384R1()), b"x", name="k", salt=SALT, n=N)


@pytest.mark.parametrize(
    "wrong", [{"salt": b"short"}, {"passphrase": b""}, {"name": ""}, {"name": "a\nb"}, {"n": 1000}]
)
def test_a_key_file_is_not_made_from_wrong_arguments(wrong):
    """Salt, passphrase, name and cost are checked before anything is encrypted."""
    arguments = {"passphrase": b"x", "name": "k", "salt": SALT, "n": N} | wrong
    passphrase = arguments.pop("passphrase")
    with pytest.raises(UsageError):
        keyfile.encrypt(ed25519.Ed25519PrivateKey.generate(), passphrase, **arguments)


@given(st.integers(0, len(a_file()) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_leaks_a_foreign_error_nor_another_key(at, flip):
    """Whatever byte changes, the file is refused by one of our errors or still gives the same key."""
    raw = bytearray(a_file())
    raw[at] ^= flip
    try:
        key = keyfile.decrypt(bytes(raw), b"correct horse")
    except CountermarkError:
        return
    assert key.private_bytes_raw() == b"k" * 32


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(raw):
    """The parser raises nothing but MalformedError."""
    with pytest.raises(MalformedError):
        keyfile.KeyFile.parse(raw)
