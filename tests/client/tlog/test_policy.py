"""policy.py: the grammar, what it refuses, and when a quorum is reached."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.errors import MalformedError
from countermark.limits import POLICY_MAX_BYTES, POLICY_MAX_LINES
from countermark.tlog import policy as policy_module
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner
from countermark.tlog.policy import Group, Policy
from tests.log_samples import LOG, LOG_PQ, POLICY, W1, W2, W3, ed25519, ml_dsa

LOG_LINE = f"log {LOG.vkey.format()}\n"
WITNESSES = "".join(f"witness {n} {w.vkey.format()}\n" for n, w in (("w1", W1), ("w2", W2), ("w3", W3)))
TWO_LEVELS = WITNESSES + "group pair all w1 w2\ngroup top 1 pair w3\nquorum top\n"


def test_the_policy_in_the_docstring_is_real() -> None:
    """It parses, and its keys are those of the known checkpoint."""
    shown = re.search(r"\n\n((?:    .*\n|\n)+)\n\S", policy_module.__doc__ or "")
    assert shown is not None
    policy = Policy.parse(re.sub("^    ", "", shown[1], flags=re.M))
    assert [log.key for log in policy.logs] == [LOG.vkey]
    assert [(w.name, w.key) for w in policy.witnesses] == [("w1", W1.vkey)]
    assert policy.quorum_time({"w1": 7}) == 7


def test_a_policy_formats_to_what_parses_to_it() -> None:
    """Order, comments, blanks and urls: the meaning stays, the form is canonical."""
    loose = (
        f"# a comment\n\n  \t\n\t#another\nwitness w1 {W1.vkey.format()}   https://w1.example/x?#\n"
        f"  log\t{LOG.vkey.format()} https://log.example/ \n log {LOG_PQ.vkey.format()}\t\n"
        f"witness \u212a {W2.vkey.format()}\ngroup g any w1 \u212a\nquorum g\n"
    )
    policy = Policy.parse(loose)
    assert Policy.parse(policy.format()) == policy
    assert Policy.parse(policy.format()).format() == policy.format()
    assert (policy.logs[0].url, policy.witnesses[0].url) == ("https://log.example/", "https://w1.example/x?#")
    assert policy.groups == (Group("g", 1, ("w1", "\u212a")),)
    assert policy.log_keys(LOG.name) == (LOG.vkey, LOG_PQ.vkey)
    assert policy.log_keys("other.example") == ()


@pytest.mark.parametrize(
    ("groups", "cosigned", "operators"),
    [
        ("quorum w1\n", "w1 w2 w3", 3),
        ("group q any w1 w2 w3\nquorum q\n", "w1 w3", 2),  # the quorum is nobody's spares
        ("group x any w1 w2\ngroup q all x w3\nquorum q\n", "w1 w2", 1),
        ("group x any w1 w2\ngroup q all x w3\nquorum q\n", "w1 w2 w3", 2),
        ("group x any w1 w2\ngroup q all x w3\nquorum q\n", "", 0),
        ("group x any w1 w2\nquorum w3\n", "w1 w2 w3", 2),  # also outside the quorum
        ("group x all w1 w2\ngroup q all x w3\nquorum q\n", "w1 w2 w3", 3),
        ("group x any w1 w2\ngroup y any x w3\ngroup q any y\nquorum q\n", "w1 w2 w3", 1),
        ("quorum none\n", "w1 stranger", 1),
    ],
)
def test_operators_are_counted_and_not_their_witnesses(groups: str, cosigned: str, operators: int) -> None:
    """Witnesses of which any one is enough are one operator's, however many of them cosigned."""
    assert Policy.parse(WITNESSES + groups).operators(cosigned.split()) == operators


def test_a_policy_may_name_nothing_but_its_quorum() -> None:
    """Only the quorum is mandatory."""
    policy = Policy.parse("quorum none\n")
    assert (policy.logs, policy.witnesses, policy.quorum) == ((), (), "none")
    assert policy.format() == "quorum none\n"


def test_a_space_that_is_not_a_blank_is_part_of_a_name() -> None:
    """str.split() would part these words; the format does not."""
    for space in ("\u00a0", "\u2003", "\u3000", "\u0085", "\u2028"):
        name = f"a{space}b"
        policy = Policy.parse(f"witness {name} {W1.vkey.format()}\nquorum {name}\n")
        assert policy.witnesses[0].name == name


def test_names_are_bytes_to_us() -> None:
    """A Kelvin sign is no K, and bytes that are no UTF-8 survive when the caller kept them."""
    with pytest.raises(MalformedError, match="not defined"):
        Policy.parse(f"witness K {W1.vkey.format()}\nquorum \u212a\n")
    raw = b"witness \xff\xfe %s\nquorum \xff\xfe\n" % W1.vkey.format().encode()
    policy = Policy.parse(raw.decode("utf-8", "surrogateescape"))
    assert policy.format().encode("utf-8", "surrogateescape") == raw


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "newline"),
        ("\n", "no quorum"),
        ("quorum none", "newline"),
        ("quorum none\nquorum none\n", "second quorum"),
        ("quorum\n", "no log, witness"),
        ("quorum a b\n", "no log, witness"),
        ("quorum nobody\n", "not defined above"),
        ("quorum w1\n" + WITNESSES, "not defined above"),
        (WITNESSES + "quorum w1 # a comment\n", "no log, witness"),
        (WITNESSES + "quorum W1\n", "not defined"),
        (WITNESSES + "Quorum w1\n", "no log, witness"),
        (WITNESSES + WITNESSES + "quorum w1\n", "listed twice"),
        (f"witness none {W1.vkey.format()}\nquorum none\n", "taken"),
        (f"witness w1 {W1.vkey.format()}\nwitness w1 {W2.vkey.format()}\nquorum w1\n", "taken"),
        (WITNESSES + "group w1 any w2\nquorum w1\n", "taken"),
        (WITNESSES + "group none any w2\nquorum none\n", "taken"),
        (WITNESSES + "group g any\nquorum g\n", "no log, witness"),
        (WITNESSES + "group g\nquorum g\n", "no log, witness"),
        (WITNESSES + "group g any w9\nquorum g\n", "'w9' is not defined"),
        (WITNESSES + "group g any none\nquorum g\n", "'none' is not defined"),
        (WITNESSES + "group g any g\nquorum g\n", "'g' is not defined"),
        ("group g any w1\n" + WITNESSES + "quorum g\n", "'w1' is not defined"),
        (WITNESSES + "group g any w1 w1\nquorum g\n", "already a member"),
        (WITNESSES + "group g any w1\ngroup h any w1\nquorum g\n", "already a member"),
        *(
            (WITNESSES + f"group g {k} w1 w2\nquorum g\n", "threshold")
            for k in ("0", "3", "-1", "+1", "01", "1_", "\u0661", "ALL", "most", "1.0", "9" * 5000)
        ),
        ("log\nquorum none\n", "no log, witness"),
        (LOG_LINE + LOG_LINE + "quorum none\n", "listed twice"),
        (f"log {LOG.vkey.format()} u x\nquorum none\n", "no log, witness"),
        (f"log {LOG.vkey.format()}x\nquorum none\n", "base64"),
        (f"log {W1.vkey.format()}\nquorum none\n", "cannot serve"),
        (f"witness w {LOG.vkey.format()}\nquorum w\n", "cannot serve"),
        (f"witness w\nquorum {W1.vkey.format()}\n", "no log, witness"),
        ("quorum none\r\n", "control"),
        ("quorum none\x00\n", "control"),
        ("quorum none\x0b\n", "control"),
        ("quorum none\x7f\n", "control"),
        ("\ud800quorum none\n", "bytes"),
        ("#" * POLICY_MAX_BYTES + "\nquorum none\n", "at most"),
        ("\n" * POLICY_MAX_LINES + "quorum none\n", "at most"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_what_is_not_a_policy_is_refused(text: str, message: str) -> None:
    """Each error says what is wrong, and for a line, which."""
    with pytest.raises(MalformedError, match=message):
        Policy.parse(text)


def test_the_same_public_key_under_another_name_or_type_is_a_duplicate() -> None:
    """Or else one witness would count twice."""
    alias = Ed25519CosignatureSigner("alias.example", ed25519(2)).vkey.format()
    with pytest.raises(MalformedError, match="policy line 4: the public key of alias"):
        Policy.parse(WITNESSES + f"witness alias {alias}\nquorum w1\n")
    alias = Ed25519NoteSigner("alias.example", ed25519(1)).vkey.format()
    with pytest.raises(MalformedError, match="policy line 2: the public key of alias"):
        Policy.parse(LOG_LINE + f"log {alias}\nquorum none\n")


def test_every_truncation_of_a_policy_is_refused() -> None:
    """Also where the rest would still parse: a quorum line cut short could name another group."""
    text = WITNESSES + "group g1 any w1\ngroup g10 all w2 w3\nquorum g10\n"
    for length in range(len(text)):
        with pytest.raises(MalformedError):
            Policy.parse(text[:length])


def test_32_logs_witnesses_and_groups_fit() -> None:
    """All of them post-quantum."""
    logs = [f"log {MlDsaSigner(f'log{i}.example', ml_dsa(i)).vkey.format()}" for i in range(32)]
    witnesses = [f"witness w{i} {MlDsaSigner('w.example', ml_dsa(100 + i)).vkey.format()}" for i in range(32)]
    groups = [f"group g{i} all w{i}{f' g{i - 1}' if i else ''}" for i in range(32)]
    policy = Policy.parse("\n".join([*logs, *witnesses, *groups, "quorum g31", ""]))
    assert policy.quorum_time({f"w{i}": 50 + i for i in range(32)}) == 50
    assert policy.quorum_time({f"w{i}": 50 + i for i in range(31)}) is None


@pytest.mark.parametrize(
    ("cosignatures", "time"),
    [
        ({}, None),
        ({"w1": 5}, None),
        ({"w1": 5, "w2": 3}, 3),
        ({"w3": 2}, 2),
        ({"w1": 5, "w2": 3, "w3": 2}, 3),
        ({"w1": 5, "w2": 3, "w3": 9}, 9),
        ({"w1": 5, "stranger": 9}, None),
        ({"pair": 9, "top": 9}, None),  # a group's name is no witness
    ],
)
def test_a_quorum_has_the_newest_time_at_which_it_holds(
    cosignatures: dict[str, int], time: int | None
) -> None:
    """Both of w1 and w2, or w3 alone."""
    assert Policy.parse(TWO_LEVELS).quorum_time(cosignatures) == time


@given(st.dictionaries(st.sampled_from(["w1", "w2", "w3"]), st.integers(1, 6)))
@settings(max_examples=200, deadline=None)
def test_the_quorum_time_is_what_trying_every_time_finds(cosignatures: dict[str, int]) -> None:
    """T is the newest time such that the cosignatures of T or later satisfy the quorum."""

    def satisfied(names: set[str]) -> bool:
        return any(set(pair) <= names for pair in combinations(["w1", "w2", "w3"], 2))

    holds = [
        t for t in cosignatures.values() if satisfied({name for name, at in cosignatures.items() if at >= t})
    ]
    assert POLICY.quorum_time(cosignatures) == max(holds, default=None)
