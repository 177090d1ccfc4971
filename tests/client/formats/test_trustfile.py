"""The trust file: one spelling, and no log without its keys."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark import keyfile
from countermark.errors import CountermarkError, MalformedError
from countermark.trustfile import CentralPolicy, Pattern, TrustFile
from tests.ceremony_world import Registry, p256

REGISTRY = Registry()
TRUST = TrustFile(
    version=1,
    origin=REGISTRY.origin,
    authority_key=keyfile.public_bytes(p256()),
    witness_policy=REGISTRY.witness_policy,
    client_policy=CentralPolicy(4, "enforce", (Pattern("warn", "legacy-*"), Pattern("observe", "*-test"))),
    valid_from=1_763_800_000,
)


def test_formatting_and_parsing_are_inverse():
    """What is read is what was written, with both log keys."""
    found = TrustFile.parse(TRUST.format())
    assert found == TRUST and found.digest == TRUST.digest
    assert len(found.log_keys) == 2 and {key.name for key in found.log_keys} == {REGISTRY.origin}


def test_the_first_pattern_that_matches_wins_over_the_mode():
    """Exceptions are read in order."""
    policy = TRUST.client_policy
    assert [policy.mode_for(name) for name in ("legacy-x-test", "a-test", "a")] == [
        "warn",
        "observe",
        "enforce",
    ]


def test_a_trust_file_is_in_force_from_its_beginning_until_before_its_end():
    """The half-open interval that `validFor` means."""
    ended = TrustFile.parse(TrustFile(**{**vars(TRUST), "valid_until": TRUST.valid_from + 10}).format())
    at = [ended.valid_at(TRUST.valid_from + seconds) for seconds in (-1, 0, 9, 10)]
    assert at == [False, True, True, False]
    assert TRUST.valid_at(2**40)


def spelled(change):
    document = json.loads(TRUST.format())
    change(document)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


REFUSED = {
    "an unknown member": lambda d: d.update(x=1),
    "an unknown member of the policy": lambda d: d["client_policy"].update(x=1),
    "a missing member": lambda d: d.pop("valid_until"),
    "another type": lambda d: d.update(type="x"),
    "another format version": lambda d: d.update(v=2),
    "version 0": lambda d: d.update(version=0),
    "an unknown mode": lambda d: d["client_policy"].update(mode="off"),
    "a bad pattern": lambda d: d["client_policy"].update(patterns=["x"]),
    "too many patterns": lambda d: d["client_policy"].update(
        patterns=[{"mode": "warn", "project": "x"}] * 257
    ),
    "a boolean size": lambda d: d["client_policy"].update(min_tree_size=True),
    "an end before its beginning": lambda d: d.update(valid_until=1),
    "an authority key that is no key": lambda d: d.update(authority_key="AAAA"),
    "a key that is not base64": lambda d: d.update(authority_key="*"),
    "an origin without log keys": lambda d: d.update(origin="other.example"),
    "a policy without quorum": lambda d: d.update(
        witness_policy=d["witness_policy"].replace("quorum w1\n", "")
    ),
    "no policy": lambda d: d.update(witness_policy=""),
    "a list": lambda d: d.update(client_policy=[]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_trust_file_is_refused_for(why):
    """A closed schema, at every level."""
    with pytest.raises(MalformedError):
        TrustFile.parse(spelled(REFUSED[why]))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", TRUST.format() + b"\n", b" " * 70_000, b"\xff"])
def test_what_is_no_trust_file_is_malformed(raw):
    """Empty, foreign, oversized, or spelled otherwise."""
    with pytest.raises(MalformedError):
        TrustFile.parse(raw)


@given(st.integers(0, len(TRUST.format()) - 1), st.integers(1, 255))
def test_a_mutated_byte_is_refused_or_another_trust_file(at, flip):
    """Nothing but our errors comes out, and no two files are equal."""
    raw = bytearray(TRUST.format())
    raw[at] ^= flip
    try:
        found = TrustFile.parse(bytes(raw))
    except CountermarkError:
        return
    assert found != TRUST and found.digest != TRUST.digest
