"""Manifests: one spelling, every limit, and a chain that no line can leave."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark import manifest
from countermark.entry import Entry, make_imported
from countermark.errors import MalformedError
from countermark.imported import PASSED, Imported
from countermark.limits import MANIFEST_MAX_BYTES, MANIFEST_MAX_LINES
from countermark.manifest import END, Line, format_manifest, link, links, parse_line, parse_manifest, parts
from tests.entrymaker import START, digest, line_of

GOOD = line_of("acme-1.0-py3-none-any.whl").row
projects = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True)
versions = st.from_regex(r"[1-9][0-9]{0,2}(\.[1-9][0-9]{0,1}){0,2}(a[1-9])?", fullmatch=True)
lines = st.builds(
    lambda project, version, wheel, content, length: Line(
        project,
        version,
        f"{project.replace('-', '_')}-{version}" + ("-py3-none-any.whl" if wheel else ".tar.gz"),
        digest(content),
        length,
    ),
    projects,
    versions,
    st.booleans(),
    st.text(max_size=3),
    st.integers(1, 2**53 - 1),
)


@given(st.lists(lines, min_size=1, max_size=8), st.sampled_from([None, *sorted(PASSED)]))
def test_manifests_and_their_leaves_have_one_spelling(rows: list[Line], passed: str | None) -> None:
    """What is formatted parses to the same; a leaf that was made unparsed is the leaf that parses."""
    raw = format_manifest(rows)
    assert parse_manifest(raw) == rows
    chain = links([row.row for row in rows])
    assert (len(chain), chain[-1]) == (len(rows) + 1, END)
    for number, row in enumerate(rows, start=1):
        assert link(chain[number], row.row) == chain[number - 1]
        made = make_imported(Imported(row, 7, number, chain[number], passed), time=START)
        assert Entry.parse(made.raw) == made
        assert (made.statement, made.envelope, made.file_name.project) == (None, None, row.project)


@pytest.mark.parametrize(
    "row",
    [
        b"\n",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD.replace(b" ", b"  ", 1),
        GOOD.replace(b" ", b"\t", 1),
        b" " + GOOD,
        GOOD[:-1] + b" \n",
        GOOD[:-1] + b"\r\n",
        GOOD.replace(b"acme ", b"Acme ", 1),
        GOOD.replace(b"acme ", b"other ", 1),
        GOOD.replace(b" 1.0 ", b" 1.0.0 ", 1),
        GOOD.replace(b" 1.0 ", b" 2.0 ", 1),
        GOOD.replace(b".whl", b".egg"),
        GOOD.replace(b"acme-1.0-", b"../acme-1.0-"),
        GOOD.replace(digest("acme-1.0-py3-none-any.whl").encode(), b"0" * 63),
        GOOD.replace(digest("acme-1.0-py3-none-any.whl").encode(), b"A" * 64),
        GOOD.replace(b" 1025\n", b" 0\n"),
        GOOD.replace(b" 1025\n", b" 01025\n"),
        GOOD.replace(b" 1025\n", b" -1025\n"),
        GOOD.replace(b" 1025\n", b" +1025\n"),
        GOOD.replace(b" 1025\n", b" 1_025\n"),
        GOOD.replace(b" 1025\n", f" {2**53}\n".encode()),
        GOOD.replace(b" 1025\n", b" 99999999999999999\n"),
        GOOD.replace(b" 1025\n", " \u0661\n".encode()),
        GOOD.replace(b"acme", "\u0430cme".encode()),
        b"\x00" + GOOD,
        b"a" * 300 + b" 1.0 " + b"a" * 300 + b"-1.0.tar.gz " + b"0" * 64 + b" 1\n",
        b"x" * 10_000,
    ],
)
def test_a_line_has_one_form(row: bytes) -> None:
    """Spaces, spellings, names, digests and lengths: anything else is refused."""
    with pytest.raises(MalformedError):
        parse_line(row)
    with pytest.raises(MalformedError):
        parse_manifest(GOOD + row + GOOD)


@settings(max_examples=400)
@given(st.binary(max_size=40), st.integers(0, len(GOOD)), st.integers(0, 20))
def test_hostile_bytes_are_malformed_or_equal(noise: bytes, at: int, cut: int) -> None:
    """Whatever is put into a manifest: a MalformedError, or the very bytes that were read."""
    raw = GOOD[:at] + noise + GOOD[at + cut :]
    try:
        rows = parse_manifest(raw)
    except MalformedError:
        return
    assert format_manifest(rows) == raw


def test_a_manifest_is_bounded() -> None:
    """By lines and by bytes, before it is read; and it says which line is wrong."""
    with pytest.raises(MalformedError, match="has 0 lines"):
        parse_manifest(b"")
    with pytest.raises(MalformedError, match="65537 lines"):
        parse_manifest(b"\n" * (MANIFEST_MAX_LINES + 1))
    with pytest.raises(MalformedError, match="bytes, more than"):
        parse_manifest(b"x" * (MANIFEST_MAX_BYTES + 1))
    with pytest.raises(MalformedError, match="line 2: "):
        parse_manifest(GOOD + b"nothing\n")


def test_a_long_history_is_several_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few as fit, by lines and by bytes; nothing is lost, and order stays."""
    rows = [line_of(f"acme-{number}.0.tar.gz") for number in range(1, 10)]
    assert [len(part) for part in parts(rows)] == [9]
    assert list(parts([])) == []
    monkeypatch.setattr(manifest, "MANIFEST_MAX_LINES", 4)
    assert [len(part) for part in parts(rows)] == [4, 4, 1]
    monkeypatch.setattr(manifest, "MANIFEST_MAX_BYTES", 2 * len(rows[0].row))
    assert [len(part) for part in parts(rows)] == [2, 2, 2, 2, 1]
    assert [row for part in parts(rows) for row in part] == rows


def test_a_statement_names_the_blob_and_the_first_link() -> None:
    """The blob is a nonce of zeros and the lines."""
    rows = [line_of("acme-1.0.tar.gz"), line_of("acme-2.0.tar.gz")]
    said = manifest.predicate(rows, origin="a.test", prev=None, source="old.example")
    assert said["manifest_sha256"] == hashlib.sha256(bytes(32) + format_manifest(rows)).hexdigest()
    assert said["count"] == 2
    last = hashlib.sha256(bytes(32) + rows[1].row).digest()
    assert said["chain_sha256"] == hashlib.sha256(last + rows[0].row).hexdigest()
