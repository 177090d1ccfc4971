"""A response as QR frames: any order, none missing, none changed, none of another response."""

import base64
import random

import pytest

from countermark.errors import CountermarkError, EvidenceError, MalformedError
from countermark_ceremony import frames
from tests import ceremony_world as world
from tests.ceremony.test_commands import run, sign, table, tree  # noqa: F401  (table is a fixture)

HOLDERS = world.Holders()
RAW = [
    each.format()
    for each in world.responses(world.prepared(world.Registry(), HOLDERS), HOLDERS, "ada", "ben")
]


def scanned(lines):
    return "\n".join(lines).encode()


def test_frames_give_the_response_back_in_any_order_and_scanned_twice():
    """Two responses in one shuffled pile of frames come out byte for byte."""
    pile = [line for raw in RAW for line in frames.split(raw)] * 2
    assert len(frames.split(RAW[0])) > 2
    random.Random(7).shuffle(pile)
    assert sorted(frames.join([scanned(pile)])) == sorted(RAW)
    assert sorted(frames.join([scanned(pile[:5]), scanned(pile[5:])])) == sorted(RAW)


def test_a_missing_frame_is_named():
    """The number to scan again is in the sentence."""
    lines = frames.split(RAW[0])
    with pytest.raises(MalformedError, match=f"frame 2 of {len(lines)} is missing"):
        frames.join([scanned(lines[:1] + lines[2:])])


def test_a_changed_frame_gives_no_other_response_wherever_it_was_changed():
    """One other character at any place of any frame is refused.

    But for a few that pack the very same bytes: a repetition may be named by either of two earlier places.
    """
    lines, harmless, tried = frames.split(RAW[0]), 0, 0
    for number, line in enumerate(lines):
        for at in range(0, len(line), 7):
            other = "x" if line[at] != "x" else "y"
            changed = [*lines[:number], line[:at] + other + line[at + 1 :], *lines[number + 1 :]]
            tried += 1
            try:
                assert frames.join([scanned(changed)]) == [RAW[0]]
                harmless += 1
            except CountermarkError:
                pass
    assert harmless <= tried / 50


def test_a_second_spelling_of_a_frame_is_refused():
    """Bits that decoding drops, and bytes after the stream's end, give the same response and are still changes."""
    raw = next(raw for length in range(4) if frames.split(raw := b"a" * length)[0].endswith("="))
    head, chunk = frames.split(raw)[0].rsplit(" ", 1)
    spare = chunk.rstrip("=")
    respelt = spare[:-1] + chr(ord(spare[-1]) + 1) + chunk[len(spare) :]
    longer = base64.urlsafe_b64encode(base64.urlsafe_b64decode(chunk) + b"more").decode()
    assert base64.urlsafe_b64decode(respelt) == base64.urlsafe_b64decode(chunk)
    for other in (respelt, longer):
        with pytest.raises(EvidenceError, match="changed or misread"):
            frames.join([f"{head} {other}".encode()])


def test_two_frames_of_one_number_and_a_bomb_are_refused():
    """A forged frame beside the true one is a contradiction; what inflates beyond a file's bound never matches."""
    lines = frames.split(RAW[0])
    with pytest.raises(EvidenceError, match="two different frames"):
        frames.join([scanned([*lines, lines[0][:-1] + ("A" if lines[0][-1] != "A" else "B")])])
    with pytest.raises(EvidenceError, match="changed or misread"):
        frames.join([scanned(frames.split(b"0" * (2 * frames.FILE_MAX_BYTES)))])


def test_a_ceremony_is_assembled_from_scanned_frames(table):  # noqa: F811
    """`assemble` takes scanned frames beside response files, and refuses changed ones."""
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    for holder in ("ada", "cleo", "dora"):
        sign(table, holder)
    drawn = run("qr", "ada.response.json", "--out", "ada-qr", cwd=table)
    assert "\u2588" in drawn.stderr or "\u2584" in drawn.stderr
    texts = sorted((table / "ada-qr").glob("*.txt"), reverse=True)
    assert {path.suffix for path in (table / "ada-qr").iterdir()} == {".txt", ".svg", ".png"}
    (table / "scan.txt").write_bytes(b"".join(path.read_bytes() for path in texts))
    (table / "bad.txt").write_bytes((table / "scan.txt").read_bytes().replace(b"e", b"f", 40))
    before = tree(table)
    others = ["cleo.response.json", "dora.response.json", "--out", "out"]
    run("assemble", "c", "bad.txt", *others, cwd=table, expect=7)
    assert tree(table) == before
    run("assemble", "c", "scan.txt", *others, cwd=table)
    assert run("verify", "out", cwd=table).stdout == (table / "out" / "root-words.txt").read_text()
