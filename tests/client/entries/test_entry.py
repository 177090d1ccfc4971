"""Entries: closed schemas, limits, and what a changed byte does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark import rules
from countermark.canonical import encode_canonical, parse_canonical
from countermark.entry import RESERVED, SCHEMAS, Entry, check_statement, make_entry
from countermark.errors import CountermarkError, MalformedError
from countermark.schema import FILE_TYPES
from countermark.statement import Statement, sign
from countermark.values import replace
from tests.entrymaker import ALICE, REGISTRY_KEY, START, digest, ed25519_signer, samples

SAMPLES = samples()
alice = ed25519_signer("alice")


def leaf(kind: str) -> dict[str, Any]:
    members: dict[str, Any] = parse_canonical(SAMPLES[kind][1].raw, max_bytes=65_535)
    return members


def test_there_is_a_sample_of_every_type() -> None:
    """The tests below speak of all types."""
    assert SAMPLES.keys() == SCHEMAS.keys()
    assert not SCHEMAS.keys() & RESERVED


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_round_trip(kind: str) -> None:
    """A leaf parses to what made it, is canonical, and carries the RFC 6962 leaf hash."""
    entry = SAMPLES[kind][1]
    again = Entry.parse(entry.raw)
    assert again == entry
    assert entry.leaf_hash == hashlib.sha256(b"\x00" + entry.raw).digest()
    assert encode_canonical(leaf(kind)) == entry.raw
    assert (entry.v, entry.time, entry.type) == (1, START, kind)


def test_at_changes_the_time_only() -> None:
    """The sequencer stamps an entry; form and statement stay."""
    entry = SAMPLES["publish"][1]
    later = entry.at(START + 7)
    assert later == Entry.parse(later.raw)
    assert (later.time, later.statement, later.registry) == (START + 7, entry.statement, entry.registry)
    assert later.leaf_hash != entry.leaf_hash
    for time in (-1, 2**53, 253_402_300_800):
        with pytest.raises(MalformedError):
            entry.at(time)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_leaf_is_reassembled_to_the_same_bytes(kind: str) -> None:
    """Out of its canonical parts comes the leaf that was taken apart, at any time, marked as verified."""
    entry, members = SAMPLES[kind][1], leaf(kind)
    if members["envelope"] is None:
        return
    parts = {name: encode_canonical(members[name]).decode() for name in ("envelope", "registry")}
    for time in (START, START + 7):
        again = Entry.reassemble(type=kind, time=time, **parts)
        assert again.raw == entry.at(time).raw
        assert again == replace(Entry.parse(again.raw), verified=True)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_checked_statement_makes_the_same_entry(kind: str) -> None:
    """A statement at hand or read anew: the entry is the same, and what the registry adds is checked."""
    entry = SAMPLES[kind][1]
    if entry.envelope is None or entry.statement is None:
        return
    parts: dict[str, Any] = {"type": kind, "envelope": entry.envelope, "statement": entry.statement}
    made = make_entry(**parts, registry=entry.registry, time=START)
    assert made == Entry.parse(made.raw)
    for change in (
        {"registry": {**entry.registry, "odd": None}},
        {"registry": dict.fromkeys(entry.registry, 0.5)},
        {"time": -1},
        {"time": 253_402_300_800},
        {"type": "yank" if kind != "yank" else "unyank"},
    ):
        if change == {"registry": {}}:
            continue
        with pytest.raises(MalformedError):
            make_entry(**{**parts, "registry": entry.registry, "time": START, **change})


def judge(kind: str, raw: bytes) -> str:
    """What becomes of a leaf at this sample's place: malformed, a rule's code, or `accepted`."""
    try:
        entry = Entry.parse(raw)
    except MalformedError:
        return "malformed"
    result = rules.apply(SAMPLES[kind][0], entry)
    if isinstance(result, rules.Broken):
        return result.code
    # Only the registry's own words can differ: everything the signer said is as it was signed.
    assert entry.envelope == SAMPLES[kind][1].envelope
    assert entry.leaf_hash != SAMPLES[kind][1].leaf_hash
    assert entry.type == kind
    return "accepted"


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_changed_byte_is_noticed(kind: str) -> None:
    """A flipped, dropped, doubled or cut byte: malformed, broken, or another leaf with the same statement."""
    before = SAMPLES[kind][0].digest()
    raw = SAMPLES[kind][1].raw
    start, end = raw.index(b'"envelope"'), raw.index(b',"registry"')
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        dropped, doubled = raw[:position] + raw[position + 1 :], raw[: position + 1] + raw[position:]
        outcomes = [judge(kind, bytes(flipped))]
        if position % 5 == 0:
            outcomes += [judge(kind, dropped), judge(kind, doubled), judge(kind, raw[:position])]
        if start <= position < end:
            assert "accepted" not in outcomes, position
    assert SAMPLES[kind][0].digest() == before


def test_every_bit_of_a_publish_is_noticed() -> None:
    """The same with every bit of one leaf."""
    raw = SAMPLES["publish"][1].raw
    end = raw.index(b',"registry"')
    outcomes = set()
    for position in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        outcomes.add(outcome := judge("publish", bytes(flipped)))
        assert outcome != "accepted" or position // 8 > end
    assert outcomes >= {
        "malformed",
        "signature-false",
        "key-unknown",
        "not-an-owner",
        "key-index",
        "time-fell",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": 0},
        {"v": True},
        {"v": "1"},
        {"type": "Publish"},
        {"type": ""},
        {"type": 5},
        {"type": "x" * 200},
        {"type": "yank"},
        {"time": "1763800000"},
        {"time": None},
        {"time": True},
        {"time": 253_402_300_800},
        {"registry": None},
        {"registry": []},
        {"registry": {}},
        {"envelope": None},
        {"envelope": []},
        {"envelope": {}},
        {"extra": 1},
    ],
)
def test_other_leaves_are_malformed(changes: dict[str, Any]) -> None:
    """Exactly five members of the right kinds; a known type has an envelope of its own type."""
    with pytest.raises(MalformedError):
        Entry.parse(encode_canonical(leaf("publish") | changes))


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'"leaf"', b"\x00", b"{" * 70_000])
def test_no_leaf_at_all_is_malformed(raw: bytes) -> None:
    """Other JSON and other bytes."""
    with pytest.raises(MalformedError):
        Entry.parse(raw)


def test_a_leaf_is_bounded() -> None:
    """65,535 bytes, made or read."""
    members = leaf("publish") | {"type": "observe", "registry": {"x": "a" * 65_535}}
    with pytest.raises(MalformedError, match="65535"):
        Entry.parse(encode_canonical(members))
    with pytest.raises(MalformedError, match="65535"):
        make_entry(
            type="observe", envelope=SAMPLES["publish"][1].envelope, registry={"x": "a" * 65_535}, time=0
        )


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_schemas_are_closed(kind: str) -> None:
    """Every member is mandatory and none can be added, signed or not."""
    entry = SAMPLES[kind][1]
    predicate = dict(entry.statement.predicate)
    for broken in [
        {**predicate, "note": ""},
        *({k: v for k, v in predicate.items() if k != gone} for gone in predicate),
    ]:
        with pytest.raises(MalformedError, match="must have exactly"):
            check_statement(
                Statement(entry.statement.subject_name, entry.statement.subject_sha256, kind, broken)
            )
    for registry in [{**entry.registry, "note": ""}, *({} for _ in list(entry.registry)[:1])]:
        with pytest.raises(MalformedError, match="must have exactly"):
            make_entry(type=kind, envelope=entry.envelope, registry=registry, time=START)


JUNK: list[Any] = [None, True, 0, -1, 2**53, 1.5, "", "x", "é", "00" * 31, "AB" * 32, [], [1], {}, {"a": 1}]


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_members_of_the_wrong_kind_are_malformed(kind: str) -> None:
    """Any member replaced by junk is malformed or another legal value; no other error leaks."""
    entry = SAMPLES[kind][1]
    for name in entry.statement.predicate:
        for junk in JUNK:
            said = Statement(
                entry.statement.subject_name,
                entry.statement.subject_sha256,
                kind,
                {**entry.statement.predicate, name: junk},
            )
            try:
                check_statement(said)
            except MalformedError:
                continue
            make_entry(type=kind, envelope=sign(said, alice), registry=entry.registry, time=START)
    for name in entry.registry:
        for junk in JUNK:
            try:
                made = make_entry(
                    type=kind, envelope=entry.envelope, registry={**entry.registry, name: junk}, time=START
                )
            except MalformedError:
                continue
            rules.apply(SAMPLES[kind][0], made)


CODED = {
    "yank": ["reason"],
    "unyank": ["reason"],
    "remove": ["reason"],
    "hold": ["reason"],
    "clear": ["reason"],
    "takedown": ["reason"],
    "attest": ["kind"],
    "key-enroll": ["scope"],
    "key-revoke": ["reason"],
    "owner": ["action", "role"],
    "verdict": ["tier", "classification", "confidence"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in CODED.items() for name in names])
def test_codes_come_from_closed_lists(kind: str, name: str) -> None:
    """Free text, capitals and unknown words are no codes."""
    statement = SAMPLES[kind][1].statement
    for code in ("because i say so", str(statement.predicate[name]).upper(), "unheard-of", ""):
        with pytest.raises(MalformedError, match=f"illegal {name}"):
            check_statement(
                Statement(
                    statement.subject_name,
                    statement.subject_sha256,
                    kind,
                    {**statement.predicate, name: code},
                )
            )


@pytest.mark.parametrize("kind", sorted(SCHEMAS.keys() - FILE_TYPES))
def test_the_subject_fits_the_predicate(kind: str) -> None:
    """project:, key:, tuf: names are made from the predicate, and their digest from the name."""
    statement = SAMPLES[kind][1].statement
    for name in (
        "project:other",
        "key:" + "00" * 32,
        "tuf:0",
        "tuf:01",
        "tuf:x",
        "tuf:" + "9" * 5000,
        "",
        "tuf:٣",
    ):
        with pytest.raises(MalformedError):
            check_statement(Statement(name, digest(name), kind, statement.predicate))
    with pytest.raises(MalformedError, match="digest"):
        check_statement(Statement(statement.subject_name, "00" * 32, kind, statement.predicate))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("publish", {"prev": "00" * 32}),
        ("publish", {"version": "1.1"}),
        ("publish", {"version": "1.0.0"}),
        ("publish", {"version": "v1.0"}),
        ("publish", {"project": "other"}),
        ("publish", {"project": "Acme"}),
        ("publish", {"project": ""}),
        ("publish", {"namespace": "Corp"}),
        ("publish", {"namespace": "a" * 65}),
        ("publish", {"length": 0}),
        ("publish", {"record_sha256": None}),
        ("key-enroll", {"scope": "registry"}),
        ("key-enroll", {"scope": "namespace"}),
        ("key-enroll", {"project": ""}),
        ("key-enroll", {"threshold": 0}),
        ("key-enroll", {"threshold": 16}),
        ("key-enroll", {"valid_for": 0}),
        ("key-enroll", {"key": "AAAA"}),
        ("key-revoke", {"reason": "lost"}),
        ("key-revoke", {"project": ""}),
        ("owner", {"project": ""}),
        ("owner", {"role": None}),
        ("owner", {"role": "confirm"}),
        ("owner", {"account": None}),
        ("owner", {"action": "remove"}),
        ("owner", {"action": "veto"}),
        ("owner", {"action": "decide"}),
        ("owner", {"action": "signing-off", "role": None}),
        ("verdict", {"analyzers": [{"name": "b", "version": "1"}, {"name": "a", "version": "1"}]}),
        ("verdict", {"analyzers": [{"name": "a", "version": "1"}] * 2}),
        ("verdict", {"analyzers": [{"name": "a"}]}),
        ("verdict", {"analyzers": [{"name": "a", "version": 1}]}),
        ("verdict", {"analyzers": [{"name": "a b", "version": "1"}]}),
        ("verdict", {"analyzers": [{"name": f"a{i:02}", "version": "1"} for i in range(65)]}),
        ("tuf", {"project": "acme"}),
        ("tuf", {"timestamps": ["00" * 32] * 2}),
        ("tuf", {"timestamps": [digest(str(i)) for i in range(65)]}),
        ("tuf", {"root": {"length": 0, "sha256": "00" * 32, "version": 1}}),
        ("tuf", {"root": {"length": 1, "sha256": "00" * 32, "version": 0}}),
        ("tuf", {"root": {"length": 1, "sha256": "00" * 32}}),
        ("tuf", {"snapshot": {"length": 1, "sha256": "00" * 32, "version": 2}}),
        ("tuf", {"bins_new": None}),
    ],
)
def test_predicates_that_contradict_themselves_are_malformed(kind: str, changes: dict[str, Any]) -> None:
    """What can be seen without the log's history is refused without it."""
    statement = SAMPLES[kind][1].statement
    check_statement(statement)
    with pytest.raises(MalformedError):
        check_statement(
            Statement(
                statement.subject_name, statement.subject_sha256, kind, {**statement.predicate, **changes}
            )
        )


def test_an_unknown_statement_type_cannot_be_checked() -> None:
    """Nobody signs by a schema that does not exist."""
    with pytest.raises(MalformedError):
        check_statement(Statement.about("project:acme", "freeze", {}))


@given(st.binary(max_size=300))
def test_no_bytes_leak_another_error(raw: bytes) -> None:
    """Bytes are a leaf or malformed."""
    try:
        Entry.parse(raw)
    except MalformedError:
        return


junk = st.recursive(
    st.sampled_from(JUNK[:5]) | st.text(max_size=6) | st.sampled_from([ALICE, "00" * 32, "acme", "publish"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from(sorted(SCHEMAS)), st.data())
def test_mixed_entries_never_leak_another_error(kind: str, data: st.DataObject) -> None:
    """Entries with several members replaced, properly signed: malformed or judged, nothing else."""
    entry = SAMPLES[kind][1]
    predicate, registry = dict(entry.statement.predicate), dict(entry.registry)
    names = data.draw(st.sets(st.sampled_from(sorted(predicate)), max_size=2))
    predicate |= {name: data.draw(junk) for name in names}
    if registry and data.draw(st.booleans()):
        registry[data.draw(st.sampled_from(sorted(registry)))] = data.draw(junk)
    said = Statement(entry.statement.subject_name, entry.statement.subject_sha256, kind, predicate)
    try:
        made = make_entry(type=kind, envelope=sign(said, alice, REGISTRY_KEY), registry=registry, time=START)
    except CountermarkError as error:
        assert isinstance(error, MalformedError)
        return
    result = rules.apply(SAMPLES[kind][0], made)
    assert isinstance(result, rules.Broken | rules.Changes)


def test_leaf_is_plain_json_for_others() -> None:
    """Any JSON reader sees the members the docstring shows."""
    members = json.loads(SAMPLES["publish"][1].raw)
    assert list(members) == ["envelope", "registry", "time", "type", "v"]
    assert members["registry"].keys() == {"identity", "key_index", "uploader"}
